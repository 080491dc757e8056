"""summary.json: every number of the report under names that scripts can rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thermosim.applicators.electrode import Electrode
from thermosim.outcome.results import AblationZone, MarginStatistics, Outcome, TumorMargin
from thermosim.report.atomic import write_text
from thermosim.report.generator_log import GeneratorLog, log_summary
from thermosim.report.generator_summary import generator_summary, headline_impedance
from thermosim.report.poses import first_places
from thermosim.report.provenance import Anonymizer, now, versions
from thermosim.report.verdict import DISCLAIMER, Verdict, verdict
from thermosim.report.vessels import vessel_summary
from thermosim.report.zones import setting
from thermosim.simulation import SimulationResult

FORMAT = "thermosim-summary/1"

SETTINGS = {
    "anatomy_kind": "anatomy.kind",
    "tissue_state": "tissue.state",
    "initial_temperature_c": "tissue.initial_temperature",
    "conductivity_law": "tissue.conductivity_law",
    "conductivity_collapse_factor": "tissue.conductivity_collapse_factor",
    "ground": "protocol.ground",
    "cooling_after_min": "protocol.cooling_after_min",
    "generator_mode": "protocol.generator.mode",
    "generator_voltage_v": "protocol.generator.voltage",
    "generator_power_w": "protocol.generator.power",
    "generator_current_a": "protocol.generator.current",
    "coupling_efficiency": "protocol.generator.coupling_efficiency",
    "target_temperature_c": "protocol.generator.target_temperature",
    "hold_time_s": "protocol.generator.hold_time",
    "controlled_sensor": "protocol.generator.controlled_sensor",
    "segments": "protocol.segments",
    "serial": "protocol.serial",
    "groups": "protocol.groups",
    "applicator": "applicators.name",
    "vessel_model": "vessels.model",
    "vessel_minimum_diameter_mm": "vessels.minimum_diameter_mm",
    "vessel_groups": "vessels.groups",
    "perfusion_shutdown": "damage.perfusion_shutdown",
    "criterion": "damage.criterion",
    "cem43_threshold_min": "damage.cem43_threshold",
    "three_state_threshold": "damage.three_state_threshold",
    "potential_tolerance": "solver.potential_tolerance",
    "maximum_time_step_s": "solver.maximum_time_step",
}
"""Settings that change the result: name in the summary, dotted key in the configuration."""


def plain(value: Any) -> Any:
    """Numbers, texts, lists and mappings of strict JSON; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)


def summarize(
    result: SimulationResult,
    outcome: Outcome,
    config: Mapping[str, Any],
    title: str,
    notes: Sequence[str] = (),
    log: GeneratorLog | None = None,
) -> dict[str, Any]:
    """All numbers of a run as plain values; keys end in their unit. See docs/outputs.md.

    `notes` are added to those of the anatomy, the run and the outcome; `log` of a real generator is
    compared with the run.
    """
    anonymizer = Anonymizer(config)
    traces, audit, run, grid = result.traces, result.audit, result.run, result.anatomy.grid
    # the outcome repeats those of the run
    all_notes = tuple(dict.fromkeys((*result.anatomy.notes, *result.notes, *outcome.notes, *notes)))
    heated = traces.time[traces.total_power > 0]
    return plain(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "title": anonymizer.text(title),
            "created": now(),
            "disclaimer": DISCLAIMER,
            "completed": result.completed,
            "treatment_time_s": result.treatment_time,
            "criterion": outcome.criterion,
            "tumors": [tumor_summary(tumor, verdict(tumor, result.anatomy)) for tumor in outcome.tumors],
            "ablation_zone": {name: zone_summary(zone) for name, zone in outcome.zones.items()},
            "structures_at_risk": [
                {
                    "name": item.name,
                    "highest_temperature_c": item.highest_temperature,
                    "thermal_dose_min": item.thermal_dose,
                    "damage_integral": item.damage_integral,
                    "dead_volume_ml": 1e6 * item.dead_volume,
                }
                for item in outcome.structures_at_risk
            ],
            "impedance_ohm": headline_impedance(result, config),
            "electrical_power": {
                "relative_error": result.power_relative_error,
                "highest_w": _highest(traces.total_power),
                "energy_j": audit.electrical,
                "time_of_last_power_s": heated[-1] if len(heated) else None,
            },
            "temperature": {
                "highest_c": _highest(result.highest_temperature),
                "final_highest_c": _highest(result.temperature),
            },
            "generator": generator_summary(result),
            "generator_log": log_summary(
                log, traces, setting(config, "protocol.generator.controlled_sensor") or "mean"
            ),
            "electrodes": _electrodes(result, first_places(result)),
            "admittance_matrix_s": result.admittance_matrix,
            "energy_audit": {
                "electrical_j": audit.electrical,
                "metabolic_j": audit.metabolic,
                "stored_j": audit.stored,
                "perfusion_j": audit.perfusion,
                "vessels_j": audit.vessels,
                "cooled_needles_j": audit.cooled_needles,
                "faces_j": audit.faces,
                "displaced_j": audit.displaced,
                "relative_error": audit.relative_error,
            },
            "vessels": vessel_summary(result),
            "grid": {
                "shape": grid.shape,
                "spacing_mm": [1e3 * edge for edge in grid.spacing],
                "cells": grid.n_cells,
            },
            "settings": {name: anonymizer.config(setting(config, key)) for name, key in SETTINGS.items()},
            "run": {
                "backend": run.backend,
                "device": anonymizer.text(run.device),
                "kernel_digest": run.kernel_digest,
                "solver_seconds": run.solver_seconds,
                "cell_updates": run.cell_updates,
                "cell_updates_per_second": run.cell_updates_per_second,
                "time_steps": run.time_steps,
                "potential_solves": run.potential_solves,
                "potential_iterations": run.potential_iterations,
                "potential_residual": run.potential_residual,
                "potential_error": run.potential_error,
                "floating_current": run.floating_current,
                "peak_memory_mb": run.peak_memory_bytes / 1e6,
                "versions": versions(),
            },
            "cautions": [anonymizer.text(caution) for caution in outcome.cautions],
            "notes": [anonymizer.text(note) for note in dict.fromkeys(all_notes)],
        }
    )


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a summary as strict JSON, whole or not at all."""
    write_text(path, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _highest(values: Any) -> float | None:
    """Largest finite value, None where there is none."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.max()) if finite.size else None


def _statistics(statistics: MarginStatistics) -> dict[str, Any]:
    at_least = {mm: 1.0 - share for mm, share in statistics.fraction_below.items()}
    return {
        "minimal_ablative_margin_mm": 1e3 * statistics.minimum,
        "surface_fraction_covered": at_least.get(0),
        "surface_fraction_margin_at_least_5mm": at_least.get(5),
        "surface_fraction_margin_at_least_10mm": at_least.get(10),
        "margin_percentiles_mm": {str(k): 1e3 * v for k, v in sorted(statistics.percentiles.items())},
        "surface_area_cm2": 1e4 * statistics.surface_area,
    }


def zone_summary(zone: AblationZone) -> dict[str, Any]:
    """The figures of one ablation zone, simulated or observed."""
    return {
        "description": zone.description,
        "volume_ml": 1e6 * zone.volume,
        "long_axis_mm": 1e3 * zone.long_axis,
        "middle_axis_mm": 1e3 * zone.middle_axis,
        "short_axis_mm": 1e3 * zone.short_axis,
        "sphericity": zone.sphericity,
        "touches_box": zone.touches_box,
        "distance_beyond_tips_mm": {
            needle: 1e3 * distance for needle, distance in zone.distance_beyond_tips.items()
        },
    }


def tumor_summary(tumor: TumorMargin, said: Verdict) -> dict[str, Any]:
    """The figures of one tumour's margin and the verdict on it."""
    bare = tumor.without_capsule
    return {
        "name": tumor.name,
        "verdict": {"level": said.level, "sentence": said.sentence, "details": said.details},
        "volume_ml": 1e6 * tumor.volume,
        **_statistics(tumor.all_around),
        "without_capsule": None if bare is None else _statistics(bare),
        "near_capsule": bool(tumor.near_capsule.any()),
        "thinnest_point_lps_mm": 1e3 * tumor.thinnest_point,
        "thinnest_direction": said.direction,
        "shell_coverage": {f"{mm}mm": share for mm, share in sorted(tumor.shell_coverage.items())},
        "residual_volume_ml": 1e6 * tumor.residual_volume,
        "coverage": tumor.coverage,
    }


def _electrodes(result: SimulationResult, first: Sequence[Electrode]) -> list[dict[str, Any]]:
    traces = result.traces
    electrodes = []
    for index, electrode in enumerate(first):
        current = traces.current[:, index]
        driven = current[current > 0]
        electrodes.append(
            {
                "name": electrode.name,
                "unit": electrode.unit,
                "kind": electrode.kind,
                "target_lps_mm": 1e3 * np.asarray(electrode.target_point),
                "entry_lps_mm": 1e3 * np.asarray(electrode.entry_point),
                "diameter_mm": 2e3 * electrode.radius,
                "active_length_mm": 1e3 * electrode.active_length,
                "n_tines": len(electrode.wires),
                "coolant_temperature_c": electrode.coolant_temperature,
                "first_current_a": driven[0] if len(driven) else None,
                "highest_current_a": _highest(current),
                "last_current_a": driven[-1] if len(driven) else None,
                "highest_power_w": _highest(traces.power[:, index]),
                "highest_voltage_v": _highest(traces.voltage[:, index]),
            }
        )
    return electrodes
