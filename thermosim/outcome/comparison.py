"""A predicted ablation zone against the one observed: overlap, distances, where they differ, margins.

Differences are signed all through: positive where the prediction reaches beyond the observation (it
promises dead tissue that is alive), negative where it falls short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.margin import margin_between, margin_statistics
from thermosim.outcome.results import MarginStatistics
from thermosim.outcome.surface import (
    extract_surface,
    moments,
    triangle_areas,
    vertex_areas,
    with_edge_length,
)

MAXIMUM_VERTICES = 6000
"""Vertices of a surface at which distances are taken; a zone of 50 mm then has edges of 1.2 mm."""

MOST_SAMPLES = 2_000_000
"""Cells of the lattice on which overlaps are measured."""

TOLERANCES_MM = (1, 2, 3, 5)
LIMITS_MM = (0, 5, 10)

SIDES = (("left", "right"), ("posterior", "anterior"), ("superior", "inferior"))
"""Names of the positive and the negative end of each LPS axis."""

NEARLY = 1e-3
"""An overlap of less than this share of the smaller zone is none."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from one surface to another, weighted by the area of the first [m].

    `mean`, `rms`, `percentile_95`, `maximum` of |d|; `signed_mean` of d.
    """

    mean: float
    rms: float
    percentile_95: float
    maximum: float
    signed_mean: float


@dataclass(frozen=True)
class SideDifference:
    """The part of the observed surface that faces one of six sides, seen from the zone's centre.

    `area_share` of the surface; `mean` signed difference on it [m], `lowest` and `highest`; NaN where
    no surface faces that side.
    """

    side: str
    area_share: float
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Extreme:
    """Where the prediction falls shortest or reaches farthest: difference [m], point [m, LPS], side."""

    difference: float
    point: NDArray[np.float64]
    side: str


@dataclass(frozen=True)
class ZoneComparison:
    """Two zones against each other.

    Volumes [m³]: `missed_volume` observed but not predicted, `excess_volume` predicted but not
    observed. `dice` = 2|A∩B| / (|A|+|B|), `jaccard` = |A∩B| / |A∪B|. `center_shift` [m, LPS] from the
    observed to the predicted centre of volume. `mean_distance`, `percentile_95`, `hausdorff` [m]: both
    ways together (mean over both areas; the larger of the two for the others). `within`: share of the
    observed surface where |d| is at most so many mm. `surface` of the observation with `difference`
    (n_vertices,) [m] on it.
    """

    predicted_volume: float
    observed_volume: float
    volume_error: float
    relative_volume_error: float
    missed_volume: float
    excess_volume: float
    dice: float
    jaccard: float
    center_shift: NDArray[np.float64]
    from_observed: SurfaceDistances
    from_predicted: SurfaceDistances
    mean_distance: float
    percentile_95: float
    hausdorff: float
    within: dict[int, float]
    sides: tuple[SideDifference, ...]
    shortest: Extreme
    farthest: Extreme
    surface: TriangleSurface
    difference: NDArray[np.float64]
    predicted_surface: TriangleSurface


@dataclass(frozen=True)
class MarginComparison:
    """Margins of one tumour in the predicted and in the observed zone.

    `minimum_error`, `mean_error`, `rms_error` [m]: predicted less observed, of the minimal margin and over
    the tumour's surface. `falsely_safe` (keys in mm): share of the surface where the prediction has at
    least that margin and the observation less.
    """

    tumor: str
    volume: float
    predicted: MarginStatistics
    observed: MarginStatistics
    minimum_error: float
    mean_error: float
    rms_error: float
    falsely_safe: dict[int, float]


def side_in_words(vector: NDArray[np.float64]) -> str:
    """Anatomical words for an LPS vector, the strongest first; parts below half of it are left out.

    Examples
    --------
    >>> side_in_words(np.array([-1.0, 0.7, 0.1]))
    'right and posterior'
    """
    size = np.abs(vector)
    if not np.all(np.isfinite(vector)) or size.max() == 0:
        return ""
    order = [int(axis) for axis in np.argsort(-size, kind="stable") if size[axis] >= 0.5 * size.max()]
    words = [SIDES[axis][0] if vector[axis] > 0 else SIDES[axis][1] for axis in order]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def compare_zones(predicted: LevelSet, observed: LevelSet) -> ZoneComparison:
    """Overlap and distances of two zones, sub-voxel and weighted by area.

    Distances are exact from the vertices of one triangulated surface to the triangles of the other;
    overlaps are volumes of marching-cubes surfaces on a lattice as fine as the finer grid. Both are of
    second order in the spacings.

    Parameters
    ----------
    predicted, observed : level sets on any grids, anisotropic or oblique, in the same frame.

    Raises
    ------
    InputError : one of them is empty, or they do not overlap.
    """
    surfaces = extract_surface(predicted), extract_surface(observed)
    for name, surface in zip(("predicted", "observed"), surfaces, strict=True):
        if not moments(surface)[0] > 0.0:
            raise InputError(f"the {name} zone is empty: there is nothing to compare")
    check_overlap(*surfaces)
    (volume, center, _), (observed_volume, observed_center, _) = (moments(s) for s in surfaces)
    on_lattice = _overlap(predicted, observed, surfaces)
    both, one, other = on_lattice
    if both < NEARLY * min(one, other):
        raise _no_overlap(center, observed_center, "they share no volume")
    edge = min(*predicted.grid.spacing, *observed.grid.spacing)
    seen = with_edge_length(surfaces[1], edge, MAXIMUM_VERTICES)
    foreseen = with_edge_length(surfaces[0], edge, MAXIMUM_VERTICES)
    difference = margin_between(seen.points, predicted, surfaces[0])
    backwards = -margin_between(foreseen.points, observed, surfaces[1])
    there, back = _distances(seen, difference), _distances(foreseen, backwards)
    areas = vertex_areas(seen)
    total, total_back = areas.sum(), vertex_areas(foreseen).sum()
    arms = seen.points - observed_center
    return ZoneComparison(
        predicted_volume=volume,
        observed_volume=observed_volume,
        volume_error=volume - observed_volume,
        relative_volume_error=volume / observed_volume - 1.0,
        missed_volume=max(other - both, 0.0),
        excess_volume=max(one - both, 0.0),
        dice=min(2.0 * both / (one + other), 1.0),
        jaccard=min(both / (one + other - both), 1.0),
        center_shift=center - observed_center,
        from_observed=there,
        from_predicted=back,
        mean_distance=float((there.mean * total + back.mean * total_back) / (total + total_back)),
        percentile_95=max(there.percentile_95, back.percentile_95),
        hausdorff=max(there.maximum, back.maximum),
        within={mm: float(areas[np.abs(difference) <= 1e-3 * mm].sum() / total) for mm in TOLERANCES_MM},
        sides=_sides(arms, difference, areas),
        shortest=_extreme(seen, difference, arms, int(np.argmin(difference))),
        farthest=_extreme(seen, difference, arms, int(np.argmax(difference))),
        surface=seen,
        difference=difference,
        predicted_surface=surfaces[0],
    )


def compare_margins(
    name: str, tumor: TriangleSurface, predicted: LevelSet | None, observed: LevelSet, spacing: float
) -> MarginComparison:
    """Margins of a tumour by the predicted zone (None: nothing died) and by the observed one.

    Parameters
    ----------
    tumor : closed surface with outward normals. spacing : edge of its triangles [m].

    Raises
    ------
    InputError : the tumour's surface encloses nothing.
    """
    volume = moments(tumor)[0]
    if not volume > 0.0:
        raise InputError(f"the surface of {name!r} encloses {1e6 * volume:g} ml; it must be closed")
    surface = with_edge_length(tumor, spacing, MAXIMUM_VERTICES)
    margins = margin_between(surface.points, predicted), margin_between(surface.points, observed)
    everywhere = np.ones(len(surface.points), dtype=bool)
    statistics = [margin_statistics(surface, margin, everywhere) for margin in margins]
    assert statistics[0] is not None
    assert statistics[1] is not None
    areas = vertex_areas(surface) / triangle_areas(surface).sum()
    error = margins[0] - margins[1]
    return MarginComparison(
        tumor=name,
        volume=volume,
        predicted=statistics[0],
        observed=statistics[1],
        minimum_error=statistics[0].minimum - statistics[1].minimum,
        mean_error=float(areas @ error),
        rms_error=float(np.sqrt(areas @ error**2)),
        falsely_safe={
            mm: float(areas[(margins[0] >= 1e-3 * mm) & (margins[1] < 1e-3 * mm)].sum()) for mm in LIMITS_MM
        },
    )


def check_overlap(predicted: TriangleSurface, observed: TriangleSurface, what: str = "predicted") -> None:
    """Refuse zones (or tumour and observed zone) whose boxes lie apart; names a frame that is mirrored.

    Raises
    ------
    InputError : no overlap; says whether a left-right and front-back flip would mend it.
    """
    boxes = [(s.points.min(axis=0), s.points.max(axis=0)) for s in (predicted, observed)]
    if np.all(boxes[0][0] < boxes[1][1]) and np.all(boxes[1][0] < boxes[0][1]):
        return
    centers = [0.5 * (low + high) for low, high in boxes]
    raise _no_overlap(centers[0], centers[1], "their boxes lie apart", what)


def _no_overlap(
    center: NDArray[np.float64], other: NDArray[np.float64], why: str, what: str = "predicted"
) -> InputError:
    apart = float(np.linalg.norm(center - other))
    text = (
        f"the {what} and the observed zone do not overlap ({why}; their centres are "
        f"{1e3 * apart:.0f} mm apart, at {_millimetres(center)} and {_millimetres(other)} mm LPS)"
    )
    flips = {
        "left and right swapped": (-1, 1, 1),
        "left and right, and front and back swapped (RAS taken for LPS)": (-1, -1, 1),
    }
    for name, signs in flips.items():
        if np.linalg.norm(center * np.asarray(signs) - other) < 0.2 * apart:
            return InputError(f"{text}; one of them has {name}: mend that file's frame")
    return InputError(f"{text}; they must be in the same frame: register the observation first")


def _millimetres(point: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{round(1e3 * float(x)) + 0:d}" for x in point) + ")"


def _overlap(
    predicted: LevelSet, observed: LevelSet, surfaces: tuple[TriangleSurface, TriangleSurface]
) -> tuple[float, float, float]:
    """Volumes [m³] of the intersection and of both zones, all measured on one lattice."""
    points = np.concatenate([s.points for s in surfaces])
    step = min(*predicted.grid.spacing, *observed.grid.spacing)
    lower, upper = points.min(axis=0), points.max(axis=0)
    step = max(step, float((np.prod(upper - lower) / MOST_SAMPLES) ** (1 / 3)))
    shape = tuple(int(n) + 5 for n in np.ceil((upper - lower) / step))
    lattice = Grid.box(tuple(0.5 * (lower + upper)), shape, step)  # type: ignore[arg-type]
    values = [_as_distance(level.on(lattice), step) for level in (predicted, observed)]
    one, other, both = (
        moments(extract_surface(LevelSet(lattice, v)))[0] for v in (*values, np.minimum(*values))
    )
    return both, one, other


def _as_distance(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """A level set as distance near its surface: only then is the lesser of two levels of any unit a zone.

    d = v / |∇v|, cut at three cells.
    """
    slopes = np.gradient(values, step)
    length = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2)
    least = max(1e-6 * float(np.abs(values).max()) / step, float(np.finfo(np.float32).tiny))
    return np.asarray(np.clip(values / np.maximum(length, least), -3.0 * step, 3.0 * step), dtype=np.float32)


def _distances(surface: TriangleSurface, difference: NDArray[np.float64]) -> SurfaceDistances:
    areas = vertex_areas(surface)
    size = np.abs(difference)
    total = float(areas.sum())
    order = np.argsort(size, kind="stable")
    middle = (np.cumsum(areas[order]) - 0.5 * areas[order]) / total
    return SurfaceDistances(
        mean=float(areas @ size) / total,
        rms=float(np.sqrt(areas @ size**2 / total)),
        percentile_95=float(np.interp(0.95, middle, size[order])),
        maximum=float(size.max()),
        signed_mean=float(areas @ difference) / total,
    )


def _sides(
    arms: NDArray[np.float64], difference: NDArray[np.float64], areas: NDArray[np.float64]
) -> tuple[SideDifference, ...]:
    """The six sides of the surface: each vertex belongs to the axis that its arm is longest along."""
    axis = np.argmax(np.abs(arms), axis=1)
    ahead = arms[np.arange(len(arms)), axis] > 0
    total, found = float(areas.sum()), []
    for number, names in enumerate(SIDES):
        for name, positive in zip(names, (True, False), strict=True):
            mine = (axis == number) & (ahead == positive)
            area = float(areas[mine].sum())
            if area == 0.0:
                found.append(SideDifference(name, 0.0, np.nan, np.nan, np.nan))
                continue
            mean = float(areas[mine] @ difference[mine]) / area
            low, high = float(difference[mine].min()), float(difference[mine].max())
            found.append(SideDifference(name, area / total, mean, low, high))
    return tuple(found)


def _extreme(
    surface: TriangleSurface, difference: NDArray[np.float64], arms: NDArray[np.float64], vertex: int
) -> Extreme:
    return Extreme(float(difference[vertex]), surface.points[vertex].copy(), side_in_words(arms[vertex]))
