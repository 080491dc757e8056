"""A procedural liver with gallbladder, vena cava, two venous trees and tumours, from a seed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure, TriangleSurface, WhenAsked
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.grown_trees import remembered
from thermosim.anatomy.phantom_shapes import LiverShape, Shape, TumorShape, isosurface
from thermosim.anatomy.phantom_vessels import PhantomVessels, main_vessels
from thermosim.anatomy.vessel_tree import Points, VesselTree
from thermosim.config import PhantomAnatomyConfig, PhantomTumorConfig
from thermosim.errors import InputError
from thermosim.units import MILLILITRE, MILLIMETRE

if TYPE_CHECKING:
    from thermosim.anatomy.bodies import Body

_FIXED = (
    Structure(0, "background", "background", "background"),
    Structure(1, "liver", "liver", "organ"),
    Structure(2, "portal_vein", "blood", "vessel", "portal_vein"),
    Structure(3, "hepatic_vein", "blood", "vessel", "hepatic_vein"),
    Structure(4, "vena_cava", "blood", "vessel", "vena_cava"),
    Structure(5, "gallbladder", "gallbladder", "risk"),
)


def _checked(name: str, value: float, low: float, high: float, unit: str) -> float:
    if not low <= value <= high:  # NaN fails too
        raise InputError(
            f"phantom: {name} is {value:g}{unit}, allowed are {low:g} to {high:g}{unit}; change {name}"
        )
    return float(value)


class PhantomSource:
    """A liver phantom in the frame LPS with the centre of the liver's volume at the origin.

    Everything follows from the configuration and its seed: the same seed gives the same bits.
    Blood flows from the root in the portal vein and towards the roots in the hepatic veins.

    Parameters
    ----------
    config : sizes, seed and tumours.

    Raises
    ------
    InputError
        If a size is out of range, a tumour leaves the liver, overlaps another or leaves the
        vessels no way around it.
    """

    def __init__(self, config: PhantomAnatomyConfig) -> None:
        self.config = config
        _checked("seed", config.seed, 0, 2**32 - 1, "")
        volume = _checked("liver_volume_ml", config.liver_volume_ml, 600, 4000, " mL") * MILLILITRE
        cava = _checked("vena_cava_diameter_mm", config.vena_cava_diameter_mm, 10, 35, " mm")
        _checked("portal_trunk_diameter_mm", config.portal_trunk_diameter_mm, 5, 20, " mm")
        _checked("hepatic_vein_diameter_mm", config.hepatic_vein_diameter_mm, 4, 16, " mm")
        _checked("n_terminals", config.n_terminals, 12, 600, "")
        _checked("murray_exponent", config.murray_exponent, 2, 4, "")
        _checked("minimum_branch_diameter_mm", config.minimum_branch_diameter_mm, 0.2, 5, " mm")
        if len(config.tumors) > 20:
            raise InputError(f"phantom: {len(config.tumors)} tumours, at most 20; remove some")
        self.liver = LiverShape(volume, 0.5 * cava * MILLIMETRE)
        line = self.liver.cava_line()
        order = np.arange(len(line))
        self.vena_cava = VesselTree(
            "vena_cava",
            line,
            np.stack([order[:-1], order[1:]], axis=1),
            order[:-1] - 1,
            np.full(len(line) - 1, 0.5 * cava * MILLIMETRE),
        )
        self.tumors: dict[str, TumorShape] = {}
        self._place_given_tumors()
        self._place_seeded_tumors()
        vessels = PhantomVessels(self.liver, self.vena_cava, tuple(self.tumors.values()), config)
        self.portal_vein, self.hepatic_vein, notes = remembered(config, vessels.grown)
        self._notes = notes
        structures = list(_FIXED)
        for number, name in enumerate(self.tumors):
            structures.append(Structure(len(_FIXED) + number, name, "tumor", "tumor"))
        self._structures = tuple(structures)

    # ------------------------------------------------------------------ AnatomySource

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All structures, the background (label 0) first."""
        return self._structures

    @property
    def notes(self) -> tuple[str, ...]:
        """What differs from what was asked for."""
        return self._notes

    @property
    def trees(self) -> tuple[VesselTree, VesselTree, VesselTree]:
        """Portal vein, hepatic veins and vena cava."""
        return self.portal_vein, self.hepatic_vein, self.vena_cava

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a box around all structures [m, LPS]."""
        lower, upper = self.liver.box()
        for tree in self.trees:
            reach = tree.radii.max()
            lower = np.minimum(lower, tree.nodes.min(axis=0) - reach)
            upper = np.maximum(upper, tree.nodes.max(axis=0) + reach)
        return lower, upper

    def tumor_centers(self) -> dict[str, NDArray[np.float64]]:
        """Centre of each tumour [m, LPS], by name."""
        return {name: shape.center.copy() for name, shape in self.tumors.items()}

    def rasterize(self, grid: Grid, minimum_vessel_diameter: float) -> Anatomy:
        """Lay the phantom on an isotropic, axis-aligned grid; shapes are evaluated at cell centres.

        `minimum_vessel_diameter` [m]: vessels thinner than this are left out. Each lumen's signed
        distance is exact within four cells of the wall and cut off beyond.
        """
        if not (grid.is_axis_aligned and grid.is_isotropic):
            raise InputError(
                f"the phantom needs an isotropic, axis-aligned grid, got spacing {grid.spacing} m; "
                "use the identity as direction and one spacing"
            )
        if not (np.isfinite(minimum_vessel_diameter) and minimum_vessel_diameter >= 0):
            raise InputError(f"minimum vessel diameter {minimum_vessel_diameter:g} m; it must be 0 or more")
        labels = np.zeros(grid.shape, np.uint8)
        _mark(labels, grid, self.liver, *self.liver.box(), 1)
        mask = labels == 1
        _mark(labels, grid, self.liver.gallbladder, *self.liver.box(), 5)
        lumens = []
        for label, tree in zip((2, 3, 4), self.trees, strict=True):
            wide = tree.pruned(minimum_vessel_diameter)
            if wide is None:
                continue
            distance, radius = wide.on_grid(grid, 4 * grid.spacing[0])
            labels[distance < 0] = label
            lumens.append(Lumen(tree.group, distance, radius))
        for number, shape in enumerate(self.tumors.values()):
            reach = 1.01 * shape.outer_radius
            _mark(labels, grid, shape, shape.center - reach, shape.center + reach, 6 + number)
        mask &= (labels != 4) & (labels != 5)
        surfaces = WhenAsked({name: partial(_tumor_surface, shape) for name, shape in self.tumors.items()})
        return Anatomy(grid, labels, self.structures, mask, surfaces, tuple(lumens), self.notes)

    def tumor_surface(self, name: str) -> TriangleSurface:
        """Surface of a tumour by marching cubes at 1 mm, finer for small ones."""
        return _tumor_surface(self.tumors[name])

    def vessel_tree(self, group: str) -> VesselTree:
        """Centre lines of one group of vessels."""
        return next(tree for tree in self.trees if tree.group == group)

    def bodies(self) -> tuple[Body, ...]:
        """Liver, gallbladder, vessels of every width and tumours, by their shapes."""
        from thermosim.anatomy.bodies import ShapeBody, TreeBody  # of plans; meshes take long to import

        def gallbladder(points: Points) -> NDArray[np.float64]:
            return np.asarray(self.liver.gallbladder(*np.moveaxis(points, -1, 0)), np.float64)

        liver, first, last = self._structures[1], 2, 2 + len(self.trees)
        organs = (ShapeBody(liver, self.liver.at), ShapeBody(self._structures[last], gallbladder))
        vessels = map(TreeBody, self._structures[first:last], self.trees)
        tumors = zip(self._structures[len(_FIXED) :], self.tumors.values(), strict=True)
        return (*organs, *vessels, *(ShapeBody(structure, shape.at) for structure, shape in tumors))

    def field_of_view(self) -> None:
        """There is nothing but the phantom."""

    def display_surfaces(self) -> dict[str, TriangleSurface]:
        """Light surfaces for a picture, by structure name; vessels of at least 2 mm.

        None has more than 20 000 triangles; in a very rich tree thinner vessels are left out for it.
        """
        lower, upper = self.liver.box()
        surfaces = {"liver": isosurface(self.liver, lower, upper, 4.5 * MILLIMETRE * self.liver.scale)}
        surfaces["gallbladder"] = isosurface(
            self.liver.gallbladder, lower, upper, 2.5 * MILLIMETRE * self.liver.scale
        )
        for tree in self.trees:
            diameter, sides = 2 * MILLIMETRE, 0
            while sides < 6 and (wide := tree.pruned(diameter)) is not None:
                sides = min(24, 10_000 // (wide.n_segments + len(wide.chains())))
                if sides >= 6:
                    surfaces[tree.group] = wide.surface(sides)
                diameter *= 1.15
        for name, shape in self.tumors.items():
            step = shape.outer_radius / 12
            reach = shape.outer_radius + 2 * step
            surfaces[name] = isosurface(shape, shape.center - reach, shape.center + reach, step)
        return surfaces

    # ------------------------------------------------------------------ tumours

    def _tumor(self, number: int, tumor: PhantomTumorConfig, center: Points) -> TumorShape:
        random = np.random.default_rng([self.config.seed, 100 + number])
        return TumorShape(center, tumor.diameter_mm * MILLIMETRE, tumor.irregularity, random)

    def _place_given_tumors(self) -> None:
        names = [t.name for t in self.config.tumors]
        for number, tumor in enumerate(self.config.tumors):
            name = tumor.name
            if name in {s.name for s in _FIXED}:
                raise InputError(
                    f"phantom: a tumour is called {name!r}, the name of another structure; rename it"
                )
            if names.count(name) > 1:
                raise InputError(f"phantom: two tumours are called {name!r}; give each its own name")
            _checked(f"{name}.diameter_mm", tumor.diameter_mm, 3, 120, " mm")
            _checked(f"{name}.irregularity", tumor.irregularity, 0, 0.3, "")
            if tumor.center_mm is None:
                continue
            center = np.asarray(tumor.center_mm, float)
            if center.shape != (3,) or not np.all(np.isfinite(center)):
                raise InputError(
                    f"phantom: {name}.center_mm is {tumor.center_mm}; give three finite numbers, LPS mm"
                )
            shape = self._tumor(number, tumor, center * MILLIMETRE)
            beyond = float(self.liver.at(shape.surface_points()).max())
            if beyond > 0:
                raise InputError(
                    f"phantom: {name} at {tumor.center_mm} mm reaches {1e3 * beyond:.1f} mm out of "
                    "the liver, allowed are 0 mm; move its centre inwards or make it smaller"
                )
            self._refuse_overlap(name, shape)
            self.tumors[name] = shape

    def _refuse_overlap(self, name: str, shape: TumorShape) -> None:
        for other, there in self.tumors.items():
            depth = -min(
                float(there.at(shape.surface_points()).min()), float(shape.at(there.surface_points()).min())
            )
            if depth > 0:
                raise InputError(
                    f"phantom: tumours {name!r} and {other!r} overlap by {1e3 * depth:.1f} mm, "
                    "allowed are 0 mm; move one of them"
                )

    def _place_seeded_tumors(self) -> None:
        """Deep in the right lobe, 6 to 9 mm from the nearest main vessel, if the size allows it."""
        for number, tumor in enumerate(self.config.tumors):
            if tumor.center_mm is not None:
                continue
            random = np.random.default_rng([self.config.seed, 200 + number])
            shape = self._tumor(number, tumor, np.zeros(3))
            reach = shape.outer_radius
            lower, upper = self.liver.placed([-104, -62, -78]), self.liver.placed([-24, 74, 70])
            centers = random.uniform(lower, upper, size=(4000, 3))
            depth = -self.liver.at(centers)
            centers, depth = centers[depth > reach + 2 * MILLIMETRE], depth[depth > reach + 2 * MILLIMETRE]
            for there in self.tumors.values():
                apart = np.linalg.norm(centers - there.center, axis=1) - reach - there.outer_radius
                centers, depth = centers[apart > 6 * MILLIMETRE], depth[apart > 6 * MILLIMETRE]
            if len(centers) == 0:
                raise InputError(
                    f"phantom: found no place in the right lobe for {tumor.name!r} of "
                    f"{tumor.diameter_mm:g} mm; make it smaller or give center_mm"
                )
            points, radii = main_vessels(self.liver, self.config)
            gap = np.full(len(centers), np.inf)
            for point, radius in zip(points, radii, strict=True):
                np.minimum(gap, np.linalg.norm(centers - point, axis=1) - radius - reach, out=gap)
            penalty = np.maximum(0.006 - gap, 0) + np.maximum(gap - 0.009, 0)
            penalty += 2 * np.maximum(reach + 0.008 - depth, 0)
            self.tumors[tumor.name] = self._tumor(number, tumor, centers[int(np.argmin(penalty))])


SLAB_CELLS = 65_536
"""Cells in which a shape is evaluated at a time: what fits in the cache."""


def _tumor_surface(shape: TumorShape) -> TriangleSurface:
    step = min(MILLIMETRE, shape.outer_radius / 12)
    reach = shape.outer_radius + 2 * step
    return isosurface(shape, shape.center - reach, shape.center + reach, step)


def _mark(
    labels: NDArray[np.uint8], grid: Grid, shape: Shape, lower: Points, upper: Points, label: int
) -> None:
    """Label the cells whose centres lie in a shape, slab by slab within the shape's box."""
    axes = [grid.axis(dimension).astype(np.float32) for dimension in range(3)]
    first = [int(np.searchsorted(axes[a], lower[a])) for a in range(3)]
    last = [int(np.searchsorted(axes[a], upper[a], side="right")) for a in range(3)]
    if any(last[a] <= first[a] for a in range(3)):
        return
    y, z = axes[1][None, first[1] : last[1], None], axes[2][None, None, first[2] : last[2]]
    thickness = max(1, SLAB_CELLS // (y.size * z.size))
    for begin in range(first[0], last[0], thickness):
        part = slice(begin, min(begin + thickness, last[0]))
        inside = shape(axes[0][part, None, None], y, z) < 0
        labels[part, first[1] : last[1], first[2] : last[2]][inside] = label
