"""The whole outcome of one simulation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from thermosim.anatomy.anatomy import Anatomy
from thermosim.config import DamageConfig
from thermosim.outcome.ablation_zone import ablation_zone, zone_from_level_set
from thermosim.outcome.criteria import CRITERIA, describe, zone_level_set
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.margin import in_open_vessel, tumor_margin
from thermosim.outcome.results import AblationZone, Outcome, TumorMargin
from thermosim.outcome.risk import structures_at_risk
from thermosim.outcome.surface import extract_surface
from thermosim.simulation import SimulationResult


def assess(result: SimulationResult, damage: DamageConfig) -> Outcome:
    """Zones by every criterion, margins of every tumour by the chosen one, and structures at risk.

    Parameters
    ----------
    result : what a simulation returned.
    damage : thresholds, and the criterion the margins use.

    Raises
    ------
    InputError : unknown criterion, or a tumour's surface that is not closed.

    Notes
    -----
    Holds two float32 fields of the grid's size at a time at most.
    """
    chosen = damage.criterion
    describe(chosen, damage)
    zones: dict[str, AblationZone] = {}
    level = zone_level_set(result, chosen, damage)
    for criterion in CRITERIA:
        if criterion == chosen:
            zones[criterion] = zone_from_level_set(
                level, criterion, describe(criterion, damage), result.anatomy.grid, result.electrodes
            )
        else:
            zones[criterion] = ablation_zone(result, criterion, damage)
    surface = zones[chosen].surface
    if level is not None and result.anatomy.lumens:
        level = zone_level_set(result, chosen, damage, hot_blood_inside=True)
        surface = surface if level is None else extract_surface(level)
    tumors = []
    notes = list(result.notes)
    for name, outline in result.anatomy.tumor_surfaces.items():
        inside = result.anatomy.grid.contains(outline.points)
        if not inside.any():
            notes.append(f"{name} lies outside the computed box; its margin was not computed")
            continue
        if not inside.all():
            notes.append(f"{name} lies partly outside the computed box, where nothing counts as ablated")
        margin = tumor_margin(result.anatomy, name, level, surface)
        tumors.append(margin)
        notes.extend(_tumor_notes(result.anatomy, margin, level))
    notes.extend(_zone_notes(zones[chosen], level))
    notes.extend(_metal_notes(result))
    return Outcome(chosen, zones, tuple(tumors), structures_at_risk(result, damage), tuple(notes))


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


def _metal_notes(result: SimulationResult) -> list[str]:
    """Needles whose bare metal leaves the liver."""
    anatomy = result.anatomy
    if not anatomy.liver_mask.any():
        return []
    notes = []
    for electrode in result.electrodes:
        if electrode.kind != "needle":
            continue
        share = np.linspace(0.0, 1.0, 200)[:, None]
        axis = np.asarray(electrode.target_point) * (1 - share) + electrode.axis_end * share
        axis = axis[anatomy.grid.contains(axis)]
        index = np.rint(anatomy.grid.indices(axis)).astype(int)
        if len(index) and not anatomy.liver_mask[tuple(index.T)].all():
            notes.append(f"bare metal of needle {electrode.name} reaches outside the liver")
    return notes
