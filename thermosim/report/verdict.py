"""The verdict on a tumour in plain words, and the colours of the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, TriangleSurface
from thermosim.outcome.margin import in_open_vessel
from thermosim.outcome.results import TumorMargin

WANTED_MARGIN = 5e-3
IDEAL_MARGIN = 10e-3
NEAR_VESSEL = 5e-3
"""A vessel wall within this distance [m] of the thinnest place is named."""

MARGIN_CLASSES: tuple[tuple[float, float, str, str], ...] = (
    (-math.inf, 0.0, "#b3202c", "not covered"),
    (0.0, 5.0, "#f0a202", "0–5 mm"),
    (5.0, 10.0, "#7fcdb0", "5–10 mm"),
    (10.0, math.inf, "#0b6e63", "10 mm or more"),
)
"""Lower and upper limit of the margin [mm], colour and name."""

WET_COLOR = "#9aa1a9"
"""Places of a tumour's surface that lie in the blood of an open vessel."""

DISCLAIMER = (
    "thermosim is a research tool, not a medical device. This simulation must not be used to decide on, "
    "plan or guide the treatment of a patient."
)


@dataclass(frozen=True)
class Verdict:
    """`level`: residual | thin | adequate | wide. `sentence` says it, `details` add to it."""

    level: str
    sentence: str
    details: tuple[str, ...]
    direction: str


def margin_color(margin_mm: float) -> str:
    """Colour of a margin [mm]; grey where there is none.

    Examples
    --------
    >>> margin_color(-0.1) == MARGIN_CLASSES[0][2], margin_color(5.0) == MARGIN_CLASSES[2][2]
    (True, True)
    """
    if math.isnan(margin_mm):
        return WET_COLOR
    for _, upper, color, _ in MARGIN_CLASSES:
        if margin_mm < upper:
            return color
    return MARGIN_CLASSES[-1][2]


def surface_center(surface: TriangleSurface) -> NDArray[np.float64]:
    """Area-weighted centre of a surface [m, LPS]."""
    corners = surface.points[surface.triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if areas.sum() <= 0:
        return np.asarray(surface.points.mean(axis=0))
    return np.asarray((corners.mean(axis=1) * areas[:, None]).sum(axis=0) / areas.sum())


def weighed(tumor: TumorMargin, anatomy: Anatomy) -> TumorMargin:
    """The same tumour with NaN for the margin of places in the blood of open vessels.

    Such places carry no weight in the statistics, so pictures leave them grey.
    """
    wet = in_open_vessel(anatomy, tumor.surface.points)
    return replace(tumor, margin=np.where(wet, np.nan, tumor.margin)) if wet.any() else tumor


def direction_in_words(vector: NDArray[np.float64]) -> str:
    """Patient directions of an LPS vector, the strongest first.

    Components below half of the strongest are left out.

    Examples
    --------
    >>> direction_in_words(np.array([-1.0, 0.7, 0.1]))
    'right and back'
    >>> direction_in_words(np.array([0.0, 0.0, -2.0]))
    'feet'
    """
    names = (("left", "right"), ("back", "front"), ("head", "feet"))
    size = np.abs(vector)
    if not np.all(np.isfinite(vector)) or size.max() == 0:
        return ""
    order = [axis for axis in np.argsort(-size, kind="stable") if size[axis] >= 0.5 * size.max()]
    words = [names[axis][0] if vector[axis] > 0 else names[axis][1] for axis in order]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _mm(length: float) -> str:
    """A length [m] for people, with a true minus sign and none before a zero."""
    return f"{round(1e3 * length, 1) + 0.0:.1f} mm".replace("-", "−")


def nearest_vessel(anatomy: Anatomy, point: NDArray[np.float64]) -> tuple[str, float] | None:
    """Name and distance [m] of the vessel nearest to a point, among those on the grid."""
    best: tuple[str, float] | None = None
    grid = anatomy.grid
    if not np.all(np.isfinite(point)):
        return None
    reach = int(np.ceil(NEAR_VESSEL / min(grid.spacing))) + 1
    center = np.round(grid.indices(point)).astype(int)
    box = tuple(
        slice(max(c - reach, 0), max(min(c + reach + 1, n), 0))
        for c, n in zip(center, grid.shape, strict=True)
    )
    window = anatomy.labels[box]
    offset = np.array([s.start for s in box])
    for structure in anatomy.with_role("vessel"):
        cells = np.argwhere(window == structure.label)
        if len(cells) == 0:
            continue
        distance = float(np.linalg.norm(grid.points(cells + offset) - point, axis=1).min())
        distance = max(distance - 0.5 * min(grid.spacing), 0.0)
        if distance <= NEAR_VESSEL and (best is None or distance < best[1]):
            best = (structure.name, distance)
    return best


def verdict(tumor: TumorMargin, anatomy: Anatomy | None = None) -> Verdict:
    """What a treatment achieved on one tumour; `anatomy` names a vessel beside the thinnest place."""
    minimum = tumor.all_around.minimum
    residual = 1e6 * tumor.residual_volume
    if not math.isfinite(minimum) or tumor.coverage <= 0:
        sentence = "Tumour not covered: none of it is dead"
        return Verdict("residual", sentence, (f"{residual:.1f} mL of living tumour remain.",), "")
    direction = direction_in_words(tumor.thinnest_point - surface_center(tumor.surface))
    where = f", on the side facing {direction}" if direction else ""
    thinnest = _mm(minimum)
    if minimum < 0:
        level = "residual"
        short = "less than 0.1 mm" if minimum > -1e-4 else f"up to {-1e3 * minimum:.1f} mm"
        sentence = f"Tumour not covered: the zone falls short by {short}{where}"
    elif minimum < WANTED_MARGIN:
        level = "thin"
        sentence = f"Tumour covered, but thinly; thinnest margin {thinnest} (wanted ≥ 5 mm){where}"
    elif minimum < IDEAL_MARGIN:
        level = "adequate"
        sentence = f"Tumour covered; thinnest margin {thinnest} (wanted ≥ 5 mm){where}"
    else:
        level = "wide"
        sentence = f"Tumour covered with a wide margin; thinnest margin {thinnest} (wanted ≥ 5 mm){where}"
    details = []
    if minimum < 0 or residual >= 0.05:
        share = 100 * tumor.residual_volume / tumor.volume if tumor.volume > 0 else math.nan
        amount = f"{residual:.1f}" if residual >= 0.05 else f"{residual:.2g}"
        details.append(f"{amount} mL of living tumour remain ({share:.1f} % of it).")
    vessel = None if anatomy is None else nearest_vessel(anatomy, tumor.thinnest_point)
    if vessel:
        details.append(
            f"The thinnest place lies {max(1, round(1e3 * vessel[1]))} mm from a vessel "
            f"({vessel[0].replace('_', ' ')}), which carries heat away."
        )
    if tumor.near_capsule.any():
        if tumor.without_capsule is None:
            details.append("All of the tumour's surface lies within 5 mm of the liver capsule.")
        elif tumor.without_capsule.minimum > minimum + 1e-4:
            details.append(
                f"Leaving out the surface within 5 mm of the liver capsule, the thinnest margin is "
                f"{_mm(tumor.without_capsule.minimum)}."
            )
    return Verdict(level, sentence, tuple(details), direction)
