"""Whether needles given in the patient's frame lie where the patient is, or in another frame or order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermosim.anatomy.anatomy import AnatomySource, TriangleSurface
from thermosim.anatomy.frames import turned_round
from thermosim.applicators.electrode import Electrode
from thermosim.config import LayoutConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

NEAR_TUMOR = 0.03
"""Metal so near a tumour's centre [m] is where it should be; nothing more is asked of needles typed in."""

FAR_FROM_TUMOR = 0.05
"""Needles further than this from every tumour [m] treat none."""

CLEARLY_NEARER = 0.02
"""Needles further than this from every tumour [m] are refused if another reading fits."""

FITS = 0.005
"""A path that misses by no more than this [m] counts as crossing: surfaces are light ones."""

COARSE = 0.005
"""Triangles of longer edges [m] are split before distances are taken to their corners."""

STEPS = 51

Points = NDArray[np.float64]


def check_poses(layout: LayoutConfig, electrodes: tuple[Electrode, ...], source: AnatomySource) -> None:
    """Refuse a layout that lies outside the organ or far from every tumour, and say what would mend it.

    Tried are a swap of LPS and RAS and, for a layout from a file, of tip and entry. Layouts in the
    tumour's frame, and anatomies without a tumour, are not checked.

    Raises
    ------
    InputError : no needle's path crosses the organ, or comes near a tumour; needles that would
        fit much better in the other frame or order.
    """
    if layout.frame != "patient" or layout.pattern is not None:
        return
    names = {role: {s.name for s in source.structures if s.role == role} for role in ("tumor", "organ")}
    if not names["tumor"]:
        return
    metal = np.stack([_line(e.metal_start, e.axis_end) for e in electrodes])
    centers = np.array(list(source.tumor_centers().values()))
    nearest = np.linalg.norm(metal[..., None, :] - centers, axis=-1).min()
    if layout.path is None and nearest < NEAR_TUMOR:
        return
    surfaces = source.display_surfaces()
    tumors = [surface for name, surface in surfaces.items() if name in names["tumor"]]
    organs = [surface for name, surface in surfaces.items() if name in names["organ"]]
    paths = np.stack([_line(e.target_point, e.entry_point) for e in electrodes])  # whatever the order
    away, turned = _away(paths, tumors), _away(turned_round(paths), tumors)
    hint = _hint(layout, turned)
    if organs:
        outside, turned_outside = _away(paths, organs), _away(turned_round(paths), organs)
        if outside > FITS:
            hint = _hint(layout, turned_outside)
            raise InputError(
                f"the needles lie {outside / MILLIMETRE:.0f} mm outside the {_listed(names['organ'])}; {hint}"
            )
    if away > FAR_FROM_TUMOR or (away > CLEARLY_NEARER and turned <= FITS):
        raise InputError(
            f"the needles lie {away / MILLIMETRE:.0f} mm away from the {_listed(names['tumor'])}; {hint}"
        )
    if layout.path is not None:
        _check_order(layout, electrodes, tumors)


def _line(start: ArrayLike, end: ArrayLike) -> Points:
    steps = np.linspace(0.0, 1.0, STEPS)[:, None]
    return np.asarray((1.0 - steps) * np.asarray(start) + steps * np.asarray(end))


def _listed(names: set[str]) -> str:
    return " and the ".join(sorted(name.replace("_", " ") for name in names))


def _signed_distance(points: Points, surfaces: list[TriangleSurface]) -> Points:
    """Distance [m] of points (..., 3) to the nearest of some closed surfaces, negative inside.

    To the corners and centres of their triangles, which are a few millimetres large; inside is where the
    winding number is 1: Σ solid angles / 4π (van Oosterom & Strackee 1983, doi:10.1109/TBME.1983.325207).
    """
    from scipy.spatial import cKDTree  # few layouts get here, and meshes take long to import

    from thermosim.anatomy.mesh import even_triangles, triangle_areas

    flat = points.reshape(-1, 3)
    found = []
    for surface in (s for s in surfaces if len(s.triangles)):
        if triangle_areas(surface).mean() > 0.5 * COARSE**2:
            surface = even_triangles(surface, max(COARSE, 0.02 * float(np.ptp(surface.points, axis=0).max())))
        corners = surface.points[surface.triangles]
        distance = cKDTree(np.concatenate([surface.points, corners.mean(axis=1)])).query(flat)[0]
        low, high = surface.points.min(axis=0), surface.points.max(axis=0)
        for i in np.flatnonzero(((flat > low) & (flat < high)).all(axis=1)):
            if _winding_number(flat[i], corners) > 0.5:
                distance[i] *= -1.0
        found.append(distance)
    return np.asarray(np.min(found, axis=0).reshape(points.shape[:-1]))


def _winding_number(point: Points, corners: Points) -> float:
    """How often a closed surface of triangles (n, 3, 3) winds around a point."""
    a, b, c = np.moveaxis(corners - point, 1, 0)
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c))
    dots = [np.einsum("ij,ij->i", x, y) * z for x, y, z in ((a, b, lc), (b, c, la), (c, a, lb))]
    return float(abs(np.arctan2(volume, la * lb * lc + sum(dots)).sum()) / (2.0 * np.pi))


def _away(paths: Points, surfaces: list[TriangleSurface]) -> float:
    """How far [m] the nearest path lies from the surfaces; 0 if any crosses them."""
    return max(float(_signed_distance(paths, surfaces).min()), 0.0)


def _hint(layout: LayoutConfig, turned: float) -> str:
    if turned > FITS:
        return (
            "read in the other frame (LPS or RAS) they would not fit either; check that file and images agree"
        )
    if layout.path is None:
        return "given in RAS they would cross it: points are LPS, so change the signs of x and y"
    other = "LPS" if layout.coordinates == "RAS" else "RAS"
    said = f"layout.coordinates={layout.coordinates}" if layout.coordinates else "their file's own frame"
    return f"read as {other} instead of {said} they would cross it: set layout.coordinates={other}"


def _check_order(
    layout: LayoutConfig, electrodes: tuple[Electrode, ...], tumors: list[TriangleSurface]
) -> None:
    """Refuse needles whose entries all lie nearer the tumours than their tips."""
    tips = _signed_distance(np.array([e.target_point for e in electrodes]), tumors)
    entries = _signed_distance(np.array([e.entry_point for e in electrodes]), tumors)
    other = "tip_first" if layout.order == "entry_first" else "entry_first"
    if (entries < tips).all() and float((tips - entries).min()) > CLEARLY_NEARER:
        raise InputError(
            f"every entry lies nearer the tumour (at most {entries.max() / MILLIMETRE:.0f} mm away) than any "
            f"tip (at least {tips.min() / MILLIMETRE:.0f} mm); they seem exchanged: set layout.order={other}"
        )
