"""A block of one tissue with straight tubes and ball-shaped tumours: the bench experiment of the field."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyvista as pv
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen, Role, Structure, TriangleSurface
from thermosim.anatomy.bodies import Body, ShapeBody, TreeBody
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.phantom_shapes import isosurface
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.config import BlockAnatomyConfig, BlockTumorConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

Array = NDArray[np.floating]

BAND = 4.0
"""Cells from a tube's wall within which the signed distance is exact."""


class BlockSource:
    """A box of one tissue in surroundings of another, as an `AnatomySource`.

    A tube's `start_mm` is its end towards the root: blood flows from there, in hepatic veins towards
    there (`VesselTree`). A tube that starts where another of its group ends is its branch; a tube may
    leave the block. Tumours lie over the block, tubes over tumours.

    Parameters
    ----------
    config : sizes and places, LPS millimetres.

    Raises
    ------
    InputError
        If a tube has no length, a tumour's ball leaves the block, or a name is used twice.
    """

    def __init__(self, config: BlockAnatomyConfig) -> None:
        self.config = config
        self.center = MILLIMETRE * np.asarray(config.center_mm, float)
        self.half = 0.5 * MILLIMETRE * np.asarray(config.size_mm, float)
        self.trees = tuple(self._tree(group) for group in dict.fromkeys(t.group for t in config.tubes))
        structures = [Structure(0, "surroundings", config.surroundings, "background")]
        role: Role = "organ"
        structures.append(Structure(1, "block", config.tissue, role))
        for tree in self.trees:
            fluid = next(t.fluid for t in config.tubes if t.group == tree.group)
            structures.append(Structure(len(structures), tree.group, fluid, "vessel", tree.group))
        for tumor in config.tumors:
            self._check_tumor(tumor)
            structures.append(Structure(len(structures), tumor.name, tumor.tissue, "tumor"))
        names = [s.name for s in structures]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"anatomy: two structures of the block are called {name!r}; rename one")
        self._structures = tuple(structures)

    def _tree(self, group: str) -> VesselTree:
        """The tubes of one group; a tube goes on from another whose end is its start."""
        tubes = [t for t in self.config.tubes if t.group == group]
        for tube in tubes:
            if tube.fluid != tubes[0].fluid:
                raise InputError(
                    f"anatomy.tubes: group {group!r} holds {tubes[0].fluid!r} and {tube.fluid!r}; "
                    "give the tubes of a group one fluid"
                )
            if np.allclose(tube.start_mm, tube.end_mm, atol=1e-9):
                raise InputError(
                    f"anatomy.tubes: a tube of group {group!r} has no length: start_mm and end_mm are both "
                    f"{list(tube.start_mm)}; move one of them"
                )
        starts = np.array([t.start_mm for t in tubes], float)
        ends = np.array([t.end_mm for t in tubes], float)
        return _joined(group, MILLIMETRE * starts, MILLIMETRE * ends, [0.5e-3 * t.diameter_mm for t in tubes])

    def _check_tumor(self, tumor: BlockTumorConfig) -> None:
        center, radius = np.asarray(tumor.center_mm, float), 0.5 * tumor.diameter_mm
        beyond = float((np.abs(center - self.center / MILLIMETRE) + radius - self.half / MILLIMETRE).max())
        if beyond > 1e-9:
            raise InputError(
                f"anatomy.tumors[{tumor.name}] reaches {beyond:.1f} mm out of the block, allowed are 0 mm; "
                "move it inwards or enlarge anatomy.size_mm"
            )

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All structures, the surroundings (label 0) first."""
        return self._structures

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of the block [m, LPS]."""
        return self.center - self.half, self.center + self.half

    def tumor_centers(self) -> dict[str, NDArray[np.float64]]:
        """Centre of each tumour [m, LPS], by name; the block's own if there is none."""
        centers = {t.name: MILLIMETRE * np.asarray(t.center_mm, float) for t in self.config.tumors}
        return centers or {"block": self.center.copy()}

    def rasterize(self, grid: Grid, minimum_vessel_diameter: float) -> Anatomy:
        """Lay the block on an isotropic, axis-aligned grid; shapes are evaluated at cell centres."""
        if not (grid.is_axis_aligned and grid.is_isotropic):
            raise InputError(f"the block needs an isotropic, axis-aligned grid, got spacing {grid.spacing} m")
        x, y, z = np.meshgrid(*(grid.axis(a) for a in range(3)), indexing="ij", sparse=True)
        inside = (
            (np.abs(x - self.center[0]) <= self.half[0])
            & (np.abs(y - self.center[1]) <= self.half[1])
            & (np.abs(z - self.center[2]) <= self.half[2])
        )
        labels = inside.astype(np.uint8)
        surfaces = {}
        first_tumor = 2 + len(self.trees)
        for number, tumor in enumerate(self.config.tumors):
            a, b, c = MILLIMETRE * np.asarray(tumor.center_mm, float)
            ball = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 <= (0.5 * MILLIMETRE * tumor.diameter_mm) ** 2
            labels[ball] = first_tumor + number
            surfaces[tumor.name] = ball_surface(tumor)
        lumens = []
        for number, tree in enumerate(self.trees):
            wide = tree.pruned(minimum_vessel_diameter)
            if wide is None:
                continue
            distance, radius = wide.on_grid(grid, BAND * grid.spacing[0])
            labels[distance < 0] = 2 + number
            lumens.append(Lumen(tree.group, distance, radius))
        return Anatomy(grid, labels, self._structures, inside, surfaces, tuple(lumens), self.notes)

    def vessel_tree(self, group: str) -> VesselTree:
        """Centre lines of one group of vessels."""
        return next(tree for tree in self.trees if tree.group == group)

    def bodies(self) -> tuple[Body, ...]:
        """Block, tubes and tumours, exactly."""
        tubes = zip(self._structures[2:], self.trees, strict=False)
        balls = zip(self._structures[2 + len(self.trees) :], self.config.tumors, strict=True)
        return (
            ShapeBody(self._structures[1], self._box_distance),
            *(TreeBody(structure, tree) for structure, tree in tubes),
            *(ShapeBody(structure, ball_distance(tumor)) for structure, tumor in balls),
        )

    def _box_distance(self, points: Array) -> NDArray[np.float64]:
        """Signed distance to the block [m]."""
        beyond = np.abs(points - self.center) - self.half
        outside = np.linalg.norm(np.maximum(beyond, 0.0), axis=-1)
        return np.asarray(outside + np.minimum(beyond.max(axis=-1), 0.0), dtype=np.float64)

    def field_of_view(self) -> None:
        """There is nothing but the block."""

    def display_surfaces(self) -> dict[str, TriangleSurface]:
        """Block, tubes and tumours as light surfaces, by structure name."""
        bounds = np.stack([self.center - self.half, self.center + self.half], axis=1).ravel()
        box = pv.Box(bounds=tuple(bounds), level=8).triangulate().clean()
        triangles = np.asarray(box.faces, np.int64).reshape(-1, 4)[:, 1:]
        surfaces = {"block": TriangleSurface(np.asarray(box.points, np.float64), triangles)}
        surfaces |= {tree.group: tree.surface(24) for tree in self.trees}
        return surfaces | {tumor.name: ball_surface(tumor) for tumor in self.config.tumors}


def ball_distance(tumor: BlockTumorConfig) -> Callable[[Array], NDArray[np.float64]]:
    """Signed distance to a ball [m] as a function of points (..., 3)."""
    center, radius = MILLIMETRE * np.asarray(tumor.center_mm, float), 0.5 * MILLIMETRE * tumor.diameter_mm
    return lambda points: np.asarray(np.linalg.norm(points - center, axis=-1) - radius, dtype=np.float64)


def ball_surface(tumor: BlockTumorConfig) -> TriangleSurface:
    """Surface of a ball by marching cubes at 1 mm, finer for small ones."""
    center, radius = MILLIMETRE * np.asarray(tumor.center_mm, float), 0.5 * MILLIMETRE * tumor.diameter_mm
    step = min(MILLIMETRE, radius / 12)

    def shape(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(
            np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2) - radius
        )

    return isosurface(shape, center - radius - 2 * step, center + radius + 2 * step, step)


def _joined(group: str, starts: Array, ends: Array, radii: list[float]) -> VesselTree:
    """A tree (or forest) of tubes; parents before children."""
    order: list[int] = []
    parent_of: dict[int, int] = {}
    left = list(range(len(radii)))
    while left:
        ready = []
        for i in left:
            joined = [j for j in range(len(radii)) if j != i and np.allclose(ends[j], starts[i], atol=1e-7)]
            if len(joined) > 1:
                raise InputError(
                    f"anatomy.tubes: a tube of group {group!r} starts where {len(joined)} others end; "
                    "blood has one way to the root: let start_mm be the end towards the root"
                )
            if not joined:
                parent_of[i] = -1
            elif joined[0] in order:
                parent_of[i] = order.index(joined[0])
            else:
                continue
            ready.append(i)
        if not ready:
            raise InputError(f"anatomy.tubes: the tubes of group {group!r} form a ring; leave one out")
        order += ready
        left = [i for i in left if i not in ready]
    if any(np.allclose(ends[j], ends[i], atol=1e-7) for i in range(len(radii)) for j in range(i)):
        raise InputError(
            f"anatomy.tubes: two tubes of group {group!r} end at the same point; blood has one way to "
            "the root: let start_mm be the end towards the root, and leave loops open"
        )
    nodes: list[Array] = []
    segments: list[tuple[int, int]] = []
    for place, i in enumerate(order):
        parent = parent_of[i]
        if parent < 0:
            nodes.append(starts[i])
            first = len(nodes) - 1
        else:
            first = segments[parent][1]
        nodes.append(ends[i])
        segments.append((first, len(nodes) - 1))
        assert place == len(segments) - 1
    return VesselTree(
        group,
        np.asarray(nodes, float),
        np.asarray(segments, np.int64),
        np.asarray([parent_of[i] for i in order], np.int64),
        np.asarray(radii, float)[order],
    )
