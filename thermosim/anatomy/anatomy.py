"""What lies where: structures on the computing grid, whatever file or formula they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid

if TYPE_CHECKING:
    from thermosim.anatomy.bodies import Body
    from thermosim.anatomy.vessel_tree import VesselTree

Role = Literal["background", "organ", "tumor", "vessel", "risk"]


@dataclass(frozen=True)
class Structure:
    """One labelled thing: its name, the tissue whose properties it has, and what it is for.

    `role`: ``organ`` is the liver itself; ``tumor`` gets a margin; ``vessel`` is a heat sink and
    names its `vessel_group` (portal_vein, hepatic_vein, artery, vena_cava, ...); ``risk`` is an
    organ whose highest temperature is reported; ``background`` is everything else.
    """

    label: int
    name: str
    tissue: str
    role: Role
    vessel_group: str | None = None


@dataclass(frozen=True)
class TriangleSurface:
    """A triangulated surface in the patient's frame.

    `points` (n, 3) LPS [m]; `triangles` (m, 3) indices, outward normals.
    """

    points: NDArray[np.float64]
    triangles: NDArray[np.int64]


@dataclass(frozen=True)
class Lumen:
    """The open vessels of one group, known more finely than the grid.

    `signed_distance` [m]: distance of each cell centre to the vessel wall, negative in the blood
    (only its values within a few cells of the wall matter). `radius` [m]: local radius of the
    vessel whose wall is nearest. Both float32 of the grid's shape. `tree`: centre lines of the whole
    group, thin branches and what lies beyond the grid included, where blood is followed along them.
    """

    group: str
    signed_distance: NDArray[np.float32]
    radius: NDArray[np.float32]
    tree: VesselTree | None = None


class WhenAsked(Mapping[str, TriangleSurface]):
    """Surfaces by name, each made when it is first asked for: a run needs a tumour's only at its end."""

    def __init__(self, makers: Mapping[str, Callable[[], TriangleSurface]]) -> None:
        self._makers, self._made = dict(makers), dict[str, TriangleSurface]()

    def __getitem__(self, name: str) -> TriangleSurface:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Structures on the computing grid; each is equal to itself alone.

    `labels` uint8 of the grid's shape, each value the `label` of one of `structures` (0 is always
    the background). Vessels thinner than the threshold are not labelled: they count as perfusion
    of the organ around them. `liver_mask` is the whole organ inside its capsule: parenchyma,
    tumours and the vessels within. `notes` are warnings for the user and the report.
    """

    grid: Grid
    labels: NDArray[np.uint8]
    structures: tuple[Structure, ...]
    liver_mask: NDArray[np.bool_]
    tumor_surfaces: Mapping[str, TriangleSurface]
    lumens: tuple[Lumen, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def structure(self, name: str) -> Structure:
        """The structure called `name`."""
        for candidate in self.structures:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def with_role(self, role: Role) -> tuple[Structure, ...]:
        """All structures of one role."""
        return tuple(s for s in self.structures if s.role == role)


class AnatomySource(Protocol):
    """A patient or phantom before it is laid on a grid."""

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All structures, the background (label 0) first."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings met while reading."""
        ...

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper corner of what is known [m, LPS]."""
        ...

    def tumor_centers(self) -> dict[str, NDArray[np.float64]]:
        """Centre of each tumour [m, LPS], by name."""
        ...

    def rasterize(self, grid: Grid, minimum_vessel_diameter: float) -> Anatomy:
        """Lay the structures on an isotropic, axis-aligned grid.

        `minimum_vessel_diameter` [m]: vessels thinner than this are left out.
        """
        ...

    def vessel_tree(self, group: str) -> VesselTree:
        """Centre lines of one group of vessels.

        Raises
        ------
        InputError
            If the vessels form loops, so that no way of the blood is known.
        """
        ...

    def bodies(self) -> tuple[Body, ...]:
        """All structures but the background as bodies that a straight line may pass."""
        ...

    def field_of_view(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Corners [m, LPS] of the box outside which nothing is known; None: there is nothing else."""
        ...

    def display_surfaces(self) -> dict[str, TriangleSurface]:
        """The whole anatomy as light surfaces for a picture, by structure name."""
        ...
