"""From closed solids to an Anatomy on the computing grid, whatever the solids came from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure, TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.lumens import vessel_distance
from thermosim.anatomy.mesh import even_triangles, merge, thinned
from thermosim.anatomy.rasterize import Solid, inside, painting_order
from thermosim.errors import InputError

TUMOR_EDGE = 1.3e-3
"""Edge length of the triangles of a tumour's surface [m]."""

DISPLAY_TRIANGLES = 20_000


def lay_on_grid(
    background: Structure,
    solids: list[Solid],
    grid: Grid,
    minimum_vessel_diameter: float,
    known: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    notes: tuple[str, ...],
) -> Anatomy:
    """Labels, liver mask, lumens and tumour surfaces of closed solids on a grid.

    Parameters
    ----------
    background : label 0. solids : closed, outward surfaces; several may share a structure.
    grid : isotropic, axis-aligned. minimum_vessel_diameter : thinner vessels are left out [m].
    known : corners of the box outside which nothing is known [m, LPS], if that differs from background.

    Raises
    ------
    InputError : the grid is oblique or anisotropic, or no tumour lies in it.
    """
    if not (grid.is_axis_aligned and grid.is_isotropic):
        raise InputError("anatomy can only be laid on an isotropic, axis-aligned grid")
    if not np.isfinite(minimum_vessel_diameter) or minimum_vessel_diameter < 0:
        raise InputError(
            f"minimum vessel diameter {1e3 * minimum_vessel_diameter:g} mm, must not be negative"
        )
    said = list(notes)
    if known is not None and (
        (grid.lower_corner < known[0] - 1e-6).any() or (grid.upper_corner > known[1] + 1e-6).any()
    ):
        said.append(f"the computing box reaches beyond the image; there it is {background.tissue}")
    tumor_surfaces, absent = _tumors_in_box(solids, grid, said)
    labels = np.zeros(grid.shape, np.uint8)
    liver_mask = np.zeros(grid.shape, bool)
    lumens: dict[str, Lumen] = {}
    has_organ = False
    for solid in painting_order(solids):
        structure = solid.structure
        if structure.name in absent:
            continue
        if structure.role == "vessel":
            mask = _open_vessel(solid, grid, minimum_vessel_diameter, lumens, said)
            if mask is None:
                continue
        else:
            mask = inside(solid.surface, grid)
        labels[mask] = structure.label
        has_organ |= structure.role == "organ"
        if structure.role in ("organ", "tumor"):
            liver_mask |= mask
    if not has_organ:
        liver_mask[:] = True
        said.append("no structure has the role organ; the whole computing box counts as liver")
    structures = [background]
    structures += [s for s in dict.fromkeys(s.structure for s in solids) if s.name not in absent]
    return Anatomy(
        grid,
        labels,
        tuple(structures),
        liver_mask,
        tumor_surfaces,
        tuple(lumens.values()),
        tuple(dict.fromkeys(said)),
    )


def display_surfaces(solids: list[Solid]) -> dict[str, TriangleSurface]:
    """Each structure as one light surface of at most about ``DISPLAY_TRIANGLES`` triangles."""
    parts: dict[str, list[TriangleSurface]] = {}
    for solid in solids:
        parts.setdefault(solid.structure.name, []).append(solid.surface)
    return {name: thinned(merge(surfaces), DISPLAY_TRIANGLES) for name, surfaces in parts.items()}


def _tumors_in_box(
    solids: list[Solid], grid: Grid, notes: list[str]
) -> tuple[dict[str, TriangleSurface], set[str]]:
    """Surfaces of the tumours in the box, and the names of those wholly outside it."""
    surfaces: dict[str, TriangleSurface] = {}
    absent: set[str] = set()
    for solid in solids:
        if solid.structure.role != "tumor":
            continue
        name = solid.structure.name
        in_box = grid.contains(solid.surface.points)
        if not in_box.any() and not inside(solid.surface, grid).any():
            absent.add(name)
            notes.append(f"tumour {name} lies outside the computing box and is left out")
            continue
        if not in_box.all():
            notes.append(f"tumour {name} is cut by the computing box; its margin is not complete")
        surfaces[name] = even_triangles(solid.surface, TUMOR_EDGE)
    if not surfaces:
        corners = " to ".join(
            "(" + ", ".join(f"{1e3 * x:.0f}" for x in corner) + ")"
            for corner in (grid.lower_corner, grid.upper_corner)
        )
        raise InputError(f"no tumour lies in the computing box {corners} mm; move the needles or the box")
    return surfaces, absent


def _open_vessel(
    solid: Solid, grid: Grid, minimum_diameter: float, lumens: dict[str, Lumen], notes: list[str]
) -> NDArray[np.bool_] | None:
    """Cells of a vessel thick enough; its lumen joins that of its group."""
    found = vessel_distance(solid.surface, grid, minimum_diameter)
    if found is None:
        return None
    distance, radius, n_added = found
    group = solid.structure.vessel_group or solid.structure.name
    if n_added:
        notes.append(
            f"{solid.structure.name}: thinner than a cell of {1e3 * grid.spacing[0]:g} mm in places; "
            f"{n_added} cells were added to keep it connected"
        )
    mask = np.asarray(distance < 0)
    if group in lumens:
        other = lumens[group]
        radius = np.where(distance < other.signed_distance, radius, other.radius)
        distance = np.minimum(distance, other.signed_distance)
    lumens[group] = Lumen(group, distance, radius)
    return mask
