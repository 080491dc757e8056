"""The whole outcome of one simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from thermosim.anatomy.anatomy import Anatomy, TriangleSurface
from thermosim.config import DamageConfig
from thermosim.outcome.ablation_zone import ablation_zone, zone_from_level_set
from thermosim.outcome.criteria import CRITERIA, check_finite, describe, zone_level_set
from thermosim.outcome.level_set import LevelSet, region_in
from thermosim.outcome.margin import in_open_vessel, tumor_margin
from thermosim.outcome.results import AblationZone, Outcome, TumorMargin
from thermosim.outcome.risk import structures_at_risk
from thermosim.outcome.surface import extract_surface
from thermosim.simulation import SimulationResult

P = ParamSpec("P")
T = TypeVar("T")

NOTEWORTHY_SHARE = 0.1
"""A stricter criterion is mentioned if its zone is smaller by this share."""

NOTEWORTHY_VOLUME = 0.5e-6
"""Ablated volume outside the liver that is mentioned [m³]."""


def assess(
    result: SimulationResult,
    damage: DamageConfig,
    criteria: Sequence[str] = CRITERIA,
    threads: int = 1,
) -> Outcome:
    """Zones by every criterion, margins of every tumour by the chosen one, and structures at risk.

    Parameters
    ----------
    result : what a simulation returned.
    damage : thresholds, and the criterion the margins use.
    criteria : whose zones are wanted beside the chosen one's. Without "arrhenius_99" and "cem43" no note
        can say that a stricter criterion gives a smaller zone.
    threads : how many may work at it side by side; what they find does not depend on it.

    Raises
    ------
    InputError : unknown criterion, or a tumour's surface that is not closed. NumericalError : the field
        of the chosen criterion is not finite in tissue.

    Notes
    -----
    Each thread holds a few float32 fields of the zone's size, and one mask of the grid's.
    """
    chosen = damage.criterion
    check_finite(result, chosen, damage)
    zone = zone_level_set(result, chosen, damage)
    others = [criterion for criterion in CRITERIA if criterion in criteria and criterion != chosen]
    # Zones by other criteria and the structures at risk wait for nothing: they are found beside the margin.
    with ThreadPoolExecutor(threads - 1) if threads > 1 else _Here() as pool:
        risks = pool.submit(structures_at_risk, result, zone)
        measured = {criterion: pool.submit(ablation_zone, result, criterion, damage) for criterion in others}
        own = zone_from_level_set(
            zone, chosen, describe(chosen, damage), result.anatomy.grid, result.electrodes
        )
        level, surface = zone, own.surface
        if zone is not None and result.anatomy.lumens:
            level = zone_level_set(result, chosen, damage, hot_blood_inside=True)
            if level is not None and not level.same_as(zone):
                surface = extract_surface(level)
        tumors, cautions = _tumors(result.anatomy, level, surface)
        zones = {
            criterion: own if criterion == chosen else measured[criterion].result()
            for criterion in CRITERIA
            if criterion == chosen or criterion in measured
        }
    cautions.extend(_zone_notes(zones[chosen], level))
    cautions.extend(_caution_notes(result, zones, chosen, tumors, level))
    cautions.extend(_metal_notes(result))
    return Outcome(
        chosen,
        zones,
        tuple(tumors),
        risks.result(),
        (*result.notes, *cautions),
        tuple(cautions),
    )


class _Here(Executor):
    """Does what it is given at once, in the thread that asks."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(work(*args, **kwargs))
        return done


def _tumors(
    anatomy: Anatomy, level: LevelSet | None, surface: TriangleSurface
) -> tuple[list[TumorMargin], list[str]]:
    """Margins of all tumours in the box, and what must be said about them."""
    tumors = []
    cautions = []
    for name, outline in anatomy.tumor_surfaces.items():
        inside = anatomy.grid.contains(outline.points)
        if not inside.any():
            cautions.append(f"{name} lies outside the computed box; its margin was not computed")
            continue
        if not inside.all():
            cautions.append(f"{name} lies partly outside the computed box, where nothing counts as ablated")
        margin = tumor_margin(anatomy, name, level, surface)
        tumors.append(margin)
        cautions.extend(_tumor_notes(anatomy, margin, level))
    return tumors, cautions


def _tumor_notes(anatomy: Anatomy, margin: TumorMargin, level: LevelSet | None) -> list[str]:
    notes = []
    if level is None:
        notes.append(
            f"{margin.name}: no tissue died, so every margin is set to minus the tumour's longest extent"
        )
    if margin.without_capsule is None:
        notes.append(f"{margin.name}: all of its surface lies within 5 mm of the liver capsule")
    wet = in_open_vessel(anatomy, margin.surface.points)
    if wet.any():
        notes.append(
            f"{margin.name}: {100 * wet.mean():.1f} % of its surface points lie in the blood of open "
            "vessels and carry no weight"
        )
    return notes


def _zone_notes(zone: AblationZone, level: LevelSet | None) -> list[str]:
    notes = []
    if zone.touches_box:
        notes.append("the ablation zone reaches the faces of the computed box; make the box larger")
    if level is not None:
        _, parts = ndimage.label(level.values > 0, np.ones((3, 3, 3), dtype=int))
        if parts > 1:
            notes.append(f"the ablation zone has {parts} separate parts; its axes span all of them")
    return notes


def _caution_notes(
    result: SimulationResult,
    zones: dict[str, AblationZone],
    chosen: str,
    tumors: list[TumorMargin],
    level: LevelSet | None,
) -> list[str]:
    """What a reader of the verdict must know beside it."""
    anatomy, notes = result.anatomy, []
    stricter: tuple[str, ...] = ("arrhenius_99", "cem43")
    others = {name: zones[name].volume for name in stricter if name != chosen and name in zones}
    strictest = min(others, key=lambda name: others[name], default=chosen)
    if others and others[strictest] < (1 - NOTEWORTHY_SHARE) * zones[chosen].volume:
        notes.append(
            f"the verdict's criterion ({chosen}) gives a zone of {1e6 * zones[chosen].volume:.0f} ml, "
            f"the stricter {strictest} only {1e6 * others[strictest]:.0f} ml; "
            f"damage.criterion={strictest} judges by it"
        )
    cell = min(anatomy.grid.spacing)
    for margin in tumors:
        for wanted in (0.0, 5e-3, 10e-3):
            if level is not None and abs(margin.all_around.minimum - wanted) < 0.5 * cell:
                notes.append(
                    f"{margin.name}: the thinnest margin is {1e3 * margin.all_around.minimum:.1f} mm, within "
                    f"half a cell of {1e3 * cell:g} mm from {1e3 * wanted:g} mm; a finer grid may differ"
                )
    if level is not None and anatomy.liver_mask.any() and not anatomy.liver_mask.all():
        liver = anatomy.liver_mask[region_in(level.grid, anatomy.grid)]
        outside = anatomy.grid.cell_volume * float(np.count_nonzero((level.values > 0) & ~liver))
        if outside > NOTEWORTHY_VOLUME:
            notes.append(f"{1e6 * outside:.1f} ml of the ablation zone lie outside the liver")
    return notes


def _along(lines: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Points evenly along polylines, 0.2 mm apart or 200 at least, and the length of all [m]."""
    edges = [np.linalg.norm(np.diff(line, axis=0), axis=1) for line in lines]
    total = float(sum(edge.sum() for edge in edges))
    step = min(2e-4, total / 200)
    points = []
    for line, edge in zip(lines, edges, strict=True):
        at = np.concatenate([[0.0], np.cumsum(edge)])
        places = np.linspace(0.0, at[-1], max(round(at[-1] / step), 2))
        points.append(np.stack([np.interp(places, at, line[:, axis]) for axis in range(3)], axis=1))
    return np.concatenate(points), total


def _metal_notes(result: SimulationResult) -> list[str]:
    """Needles whose bare metal leaves the liver or stands in a vessel."""
    anatomy = result.anatomy
    if not anatomy.liver_mask.any():
        return []
    vessels = {s.label: s.name for s in anatomy.with_role("vessel")}
    notes = []
    for electrode in result.electrodes:
        if electrode.kind == "sphere":
            continue
        axis, metal_length = _along(electrode.metal_lines)
        n_points = len(axis)
        axis = axis[anatomy.grid.contains(axis)]
        index = np.rint(anatomy.grid.indices(axis)).astype(int)
        if len(index) and not anatomy.liver_mask[tuple(index.T)].all():
            notes.append(f"bare metal of needle {electrode.name} reaches outside the liver")
        pierced, counts = np.unique(anatomy.labels[tuple(index.T)], return_counts=True)
        for label, count in zip(pierced.tolist(), counts.tolist(), strict=True):
            if label in vessels:
                length = metal_length * count / n_points
                notes.append(
                    f"needle {electrode.name} passes through {vessels[label]}: {1e3 * length:.0f} mm of "
                    "its bare metal stand in blood"
                )
    return notes
