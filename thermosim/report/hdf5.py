"""result.h5: every field of a run, each with its unit and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from thermosim.outcome.results import Outcome
from thermosim.report.atomic import replacing
from thermosim.report.provenance import Anonymizer, now, versions, yaml_text
from thermosim.report.verdict import DISCLAIMER
from thermosim.report.vessels import write_vessels
from thermosim.report.zones import zone_mask
from thermosim.simulation import SimulationResult

FORMAT = "thermosim-result/1"
COMPRESSION_LEVEL = 1  # levels above 1 save a few per cent of float32 fields and cost twice the time
CHUNK = 64


def write_result(
    path: Path, result: SimulationResult, outcome: Outcome, config: Mapping[str, Any], title: str
) -> None:
    """Write all fields, traces, margins and the provenance of a run, whole or not at all.

    Every dataset carries `units` and `long_name`; arrays on the grid have shape (nx, ny, nz), frame
    LPS, SI units with temperatures in °C. `config` is the resolved configuration; its paths are
    reduced to file names. See docs/outputs.md for the layout.
    """
    anonymizer = Anonymizer(config)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["title"] = anonymizer.text(title)
        file.attrs["disclaimer"] = DISCLAIMER
        file.attrs["completed"] = result.completed
        _write_grid(file.create_group("grid"), result)
        _write_anatomy(file.create_group("anatomy"), result)
        _write_fields(file.create_group("fields"), result)
        zones = file.create_group("zones")
        zones.attrs["criterion"] = outcome.criterion
        for criterion, zone in outcome.zones.items():
            dataset = _field(zones, criterion, zone_mask(result, criterion, config), "1", zone.description)
            dataset.attrs["volume_m3"] = zone.volume
        _write_tumors(file.create_group("tumors"), outcome)
        _write_traces(file.create_group("traces"), result)
        _write_events(file.create_group("events"), result)
        write_vessels(file.create_group("vessels"), result, _put)
        _write_audit(file.create_group("energy_audit"), result)
        _write_provenance(file.create_group("provenance"), result, config, anonymizer)


def _put(group: Any, name: str, value: ArrayLike, units: str, long_name: str, **options: Any) -> Any:
    dataset = group.create_dataset(name, data=value, **options)
    dataset.attrs["units"] = units
    dataset.attrs["long_name"] = long_name
    return dataset


def _field(group: Any, name: str, value: np.ndarray[Any, Any], units: str, long_name: str) -> Any:
    """An array on the grid: chunked, shuffled, compressed; masks as 0 and 1."""
    if value.dtype == np.bool_:
        value = value.astype(np.uint8)
    elif np.issubdtype(value.dtype, np.floating):
        value = value.astype(np.float32, copy=False)
    return _put(
        group,
        name,
        np.ascontiguousarray(value),
        units,
        long_name,
        chunks=tuple(min(CHUNK, n) for n in value.shape),
        shuffle=True,
        compression="gzip",
        compression_opts=COMPRESSION_LEVEL,
    )


def _texts(group: Any, name: str, values: list[str], long_name: str) -> None:
    _put(group, name, np.array(values, dtype=object), "1", long_name, dtype=h5py.string_dtype())


def _write_grid(group: Any, result: SimulationResult) -> None:
    grid = result.anatomy.grid
    group.attrs["frame"] = "LPS"
    _put(group, "shape", np.array(grid.shape, np.int64), "1", "number of cells along x, y, z")
    _put(group, "spacing", np.array(grid.spacing), "m", "edge lengths of a cell")
    _put(group, "origin", np.array(grid.origin), "m", "centre of cell (0, 0, 0), LPS")
    _put(group, "direction", np.array(grid.direction), "1", "columns are the grid's axes in LPS")
    _put(group, "affine_ras_mm", grid.affine_ras_mm(), "mm", "cell indices to RAS millimetres (NIfTI)")


def _write_anatomy(group: Any, result: SimulationResult) -> None:
    anatomy = result.anatomy
    _field(group, "labels", anatomy.labels, "1", "label of the structure in each cell")
    _field(group, "liver_mask", anatomy.liver_mask, "1", "liver inside its capsule, with all it contains")
    _field(group, "solid_mask", result.solid_mask, "1", "metal and shafts of the electrodes")
    table = group.create_group("structures")
    found = anatomy.structures
    _put(table, "label", np.array([s.label for s in found], np.uint8), "1", "value in anatomy/labels")
    _texts(table, "name", [s.name for s in found], "name of the structure")
    _texts(table, "tissue", [s.tissue for s in found], "tissue whose properties it has")
    _texts(table, "role", [s.role for s in found], "background, organ, tumor, vessel or risk")
    _texts(table, "vessel_group", [s.vessel_group or "" for s in found], "group of a vessel, else empty")
    needles = group.create_group("electrodes")
    shape = (len(result.electrodes), 3)
    targets = np.array([e.target_point for e in result.electrodes], float).reshape(shape)
    entries = np.array([e.entry_point for e in result.electrodes], float).reshape(shape)
    _texts(needles, "name", [e.name for e in result.electrodes], "name of the electrode")
    _put(needles, "target_point", targets, "m", "end of the tip, LPS")
    _put(needles, "entry_point", entries, "m", "point towards the handle, LPS")
    _put(needles, "radius", [e.radius for e in result.electrodes], "m", "radius of the metal")
    _put(needles, "active_length", [e.active_length for e in result.electrodes], "m", "bare metal")


def _write_fields(group: Any, result: SimulationResult) -> None:
    _field(group, "temperature", result.temperature, "degC", "temperature at the end")
    _field(group, "highest_temperature", result.highest_temperature, "degC", "highest temperature reached")
    _field(group, "damage_integral", result.damage_integral, "1", "Arrhenius damage integral Ω")
    _field(group, "thermal_dose", result.thermal_dose, "min", "cumulative equivalent minutes at 43 °C")
    _field(group, "dead_fraction", result.dead_fraction, "1", "dead fraction of the three-state model")
    _field(
        group,
        "volumetric_heat_source",
        result.volumetric_heat_source,
        "W/m3",
        "Joule heating at the last moment of power",
    )
    _field(
        group,
        "electric_potential",
        result.electric_potential,
        "V",
        "RMS potential at the last moment of power",
    )


def _write_tumors(group: Any, outcome: Outcome) -> None:
    for index, tumor in enumerate(outcome.tumors):
        # A name may hold a slash, which HDF5 takes for a path.
        one = group.create_group(f"tumor_{index}")
        one.attrs["name"] = tumor.name
        _put(one, "points", tumor.surface.points, "m", "vertices of the tumour's surface, LPS")
        _put(one, "triangles", tumor.surface.triangles, "1", "vertex indices of each triangle")
        _put(one, "margin", tumor.margin, "m", "signed ablative margin at each vertex, positive outside")
        _put(
            one,
            "near_capsule",
            tumor.near_capsule.astype(np.uint8),
            "1",
            "whether a vertex lies within 5 mm of the liver capsule",
        )
        _put(one, "volume", tumor.volume, "m3", "volume of the tumour")
        _put(one, "residual_volume", tumor.residual_volume, "m3", "volume of living tumour")


def _write_traces(group: Any, result: SimulationResult) -> None:
    traces = result.traces
    _put(group, "time", traces.time, "s", "time since the start of the treatment")
    _put(group, "voltage", traces.voltage, "V", "RMS voltage of each electrode")
    _put(group, "current", traces.current, "A", "RMS current of each electrode")
    _put(group, "power", traces.power, "W", "power of each electrode")
    _put(group, "impedance", traces.impedance, "ohm", "impedance at the generator's clamps, NaN while off")
    _put(group, "total_power", traces.total_power, "W", "power of all electrodes")
    _put(group, "generator_power", traces.generator_power, "W", "power at the generator's clamps")
    _put(group, "hottest_temperature", traces.hottest_temperature, "degC", "hottest place in tissue")
    _put(group, "ablated_volume", traces.ablated_volume, "m3", "volume dead by the chosen criterion")
    _put(group, "electrical_energy", traces.electrical_energy, "J", "energy delivered so far")
    _texts(group, "units", list(result.units), "names of the columns per unit: a device, or one pole of it")
    _put(group, "unit_voltage", traces.unit_voltage, "V", "RMS voltage of each unit")
    _put(group, "unit_current", traces.unit_current, "A", "RMS current of each unit")
    _put(group, "unit_power", traces.unit_power, "W", "power of each unit")
    _put(group, "unit_impedance", traces.unit_impedance, "ohm", "V/I of each unit, NaN while not driven")
    _texts(group, "sensors", [sensor.name for sensor in result.sensors], "names of the sensors")
    _put(group, "sensor_temperature", traces.sensor_temperature, "degC", "what each sensor shows")


def _write_events(group: Any, result: SimulationResult) -> None:
    events = result.events
    _put(group, "time", np.array([event.time for event in events], float), "s", "time since the start")
    _texts(group, "kind", [event.kind for event in events], "what the generator did")
    _texts(group, "unit", [event.unit for event in events], "with which unit, bonded units, or pair")
    _put(group, "value", np.array([event.value for event in events], float), "1", "in the unit of its kind")


def _write_audit(group: Any, result: SimulationResult) -> None:
    audit = result.audit
    for name, long_name in {
        "electrical": "energy put in by the current",
        "metabolic": "energy put in by metabolism",
        "stored": "energy stored in the tissue, latent heat included",
        "perfusion": "energy carried away by perfusion",
        "vessels": "energy carried away by vessels",
        "cooled_needles": "energy carried away by the coolant of the needles",
        "faces": "energy lost through the faces of the box",
        "displaced": "heat of cells that metal entered or left, not part of what is stored",
    }.items():
        _put(group, name, getattr(audit, name), "J", long_name)
    _put(group, "relative_error", audit.relative_error, "1", "|in − sum of the rest| / in")
    _put(group, "power_relative_error", result.power_relative_error, "1", "worst |Σqh³ − ΣVI| / ΣVI")
    _put(
        group,
        "admittance_matrix",
        result.admittance_matrix,
        "S",
        "terminals of the first segment against ground at the start",
    )
    _put(group, "initial_impedance", result.initial_impedance, "ohm", "impedance at the start")
    _put(group, "final_impedance", result.final_impedance, "ohm", "impedance at the end of power")


def _write_provenance(
    group: Any, result: SimulationResult, config: Mapping[str, Any], anonymizer: Anonymizer
) -> None:
    run = result.run
    _put(group, "config", yaml_text(anonymizer.config(config)), "1", "resolved configuration as YAML")
    group.attrs["date"] = now()
    group.attrs["backend"] = run.backend
    group.attrs["device"] = anonymizer.text(run.device)
    group.attrs["kernel_digest"] = run.kernel_digest
    group.attrs["solver_seconds"] = run.solver_seconds
    group.attrs["cell_updates"] = run.cell_updates
    group.attrs["time_steps"] = run.time_steps
    group.attrs["potential_solves"] = run.potential_solves
    group.attrs["potential_iterations"] = run.potential_iterations
    group.attrs["potential_residual"] = run.potential_residual
    group.attrs["potential_error"] = run.potential_error
    group.attrs["floating_current"] = run.floating_current
    for package, number in versions().items():
        group.attrs[f"version_{package}"] = number
