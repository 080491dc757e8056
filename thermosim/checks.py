"""Refuses a case whose values make no sense, before any heavy work: the value, the limit, the remedy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from thermosim.config import (
    ApplicatorConfig,
    BlockAnatomyConfig,
    DamageConfig,
    GeneratorConfig,
    GridConfig,
    LabelMapAnatomyConfig,
    PhantomAnatomyConfig,
    ProtocolConfig,
    SimulationConfig,
    SolverConfig,
    StructureConfig,
    SurfacesAnatomyConfig,
    TissueConfig,
    VesselsConfig,
)
from thermosim.errors import InputError

CRITERIA = ("arrhenius", "arrhenius_99", "cem43", "three_state", "isotherm_50", "isotherm_54", "isotherm_60")
ROLES = ("background", "organ", "tumor", "vessel", "risk")
VESSEL_MODELS = ("isothermal", "convective", "advective", "occluded", "ignored")
CORRELATIONS = (
    "auto",
    "laminar",
    "laminar_flux",
    "developing",
    "hausen",
    "sieder_tate",
    "gnielinski",
    "dittus_boelter",
    "none",
)
LARGEST_FLOW = 2e4  # ml/min, several times the cardiac output
MODES = (
    "constant_voltage",
    "constant_power",
    "constant_current",
    "temperature_controlled",
    "impedance_controlled",
    "ramp_to_roll_off",
)
DRIVES = ("together", "sequence", "switching", "bipolar")
SERIALS = ("none", "needles", "groups", "segments")
FACES = ("-x", "+x", "-y", "+y", "-z", "+z")
BLOOD_TEMPERATURES = (0.0, 60.0)
GIGABYTE = 1e9
MAXIMUM_NEEDLES = 24
DEVICE_KINDS = ("needle", "cluster", "bipolar", "tines", "sphere")
TINE_TURNS = {"starburst": (20.0, 80.0, 110.0), "umbrella": (110.0, 165.0, 180.0)}
"""By shape: the least, the usual and the greatest turn of a tine [°]."""


def _within(
    key: str,
    value: float | None,
    low: float,
    high: float,
    unit: str = "",
    *,
    open_low: bool = False,
    limited_by: str = "",
) -> None:
    """Refuse a number that is not finite or lies outside [low, high] (or ]low, high]).

    `limited_by` names the setting that `high` comes from.
    """
    if value is None:
        return
    if math.isfinite(value) and (value > low if open_low else value >= low) and value <= high:
        return
    unit = f" {unit}" if unit else ""
    floor = "positive" if open_low and low == 0 else f"{'above' if open_low else 'at least'} {low:g}{unit}"
    limit = floor if math.isinf(high) else f"{floor} and at most {high:g}{unit}"
    limit += f", the {limited_by}" if limited_by else ""
    raise InputError(f"{key}={value:g}{unit} is refused; it must be {limit}")


def _one_of(key: str, value: str | None, allowed: Iterable[str]) -> None:
    if value is not None and value not in allowed:
        raise InputError(f"{key}={value!r} is not known; use one of {', '.join(allowed)}")


def _three(key: str, values: list[float] | None, *, positive: bool = False) -> None:
    if values is None:
        return
    wanted = "three positive numbers in mm" if positive else "three finite numbers in mm"
    if len(values) != 3 or not all(math.isfinite(v) and (v > 0 or not positive) for v in values):
        raise InputError(f"{key}={list(values)} is refused; it must be {wanted}, such as [128, 128, 128]")


def check_case(config: SimulationConfig) -> None:
    """Check every value of a case that needs no data.

    Raises
    ------
    InputError
        For the first value that is out of range or contradicts another one.
    """
    _check_grid(config.grid)
    _check_tissue(config.tissue)
    _check_anatomy(config)
    _check_vessels(config.vessels)
    _check_device(config.applicators)
    _check_protocol(config.protocol)
    _check_targets(config.protocol, config.tissue)
    _check_damage(config.damage)
    _check_solver(config.solver)
    if config.output.keep_patient_identity and config.output.dicom_source_directory is None:
        raise InputError(
            "output.keep_patient_identity=true needs output.dicom_source_directory, the folder of the CT "
            "series: no other output names a patient"
        )
    _within("layout.minimum_gap_mm", config.layout.minimum_gap_mm, 0.0, 100.0, "mm")
    _one_of("layout.frame", config.layout.frame, ("patient", "tumor"))
    _one_of("layout.order", config.layout.order, ("tip_first", "entry_first"))
    _one_of("layout.coordinates", config.layout.coordinates, ("LPS", "RAS"))
    if config.layout.path is not None and (config.layout.pattern is not None or config.layout.needles):
        raise InputError(
            "layout.path goes with neither layout.needles nor layout.pattern; choose layout=from_file"
        )
    if config.layout.path == "":
        raise InputError("no value is given for layout.path; set it as layout.path=plan.mrk.json")
    if config.layout.path is not None and config.layout.frame != "patient":
        raise InputError("layout.frame=tumor does not go with layout.path: a plan's points are of the images")
    _within("layout.pattern_depth_mm", config.layout.pattern_depth_mm, -200.0, 200.0, "mm")
    _within("layout.pattern_spacing_mm", config.layout.pattern_spacing_mm, 0.0, 200.0, "mm", open_low=True)
    _within("layout.pattern_rotation_deg", config.layout.pattern_rotation_deg, -360.0, 360.0, "°")
    if len(config.layout.needles) > MAXIMUM_NEEDLES:
        raise InputError(
            f"layout.needles has {len(config.layout.needles)} needles, at most {MAXIMUM_NEEDLES} are possible"
        )
    for needle in config.layout.needles:
        _within(
            f"layout.needles[{needle.name}].active_length_mm",
            needle.active_length_mm,
            0,
            200,
            "mm",
            open_low=True,
        )
        _within(f"layout.needles[{needle.name}].rotation_deg", needle.rotation_deg, -360.0, 360.0, "°")
    _one_of("backend.name", config.backend.name, ("auto", "cpu", "cuda"))
    _within("backend.threads", config.backend.threads, 0, 4096)
    _within("backend.device", config.backend.device, -1, 1024)


def _check_grid(grid: GridConfig) -> None:
    _within("grid.spacing_mm", grid.spacing_mm, 0.0, 20.0, "mm", open_low=True)
    _within("grid.margin_mm", grid.margin_mm, 0.0, 1000.0, "mm", open_low=True)
    _three("grid.size_mm", grid.size_mm, positive=True)
    _three("grid.center_mm", grid.center_mm)


def _check_tissue(tissue: TissueConfig) -> None:
    _within("tissue.initial_temperature", tissue.initial_temperature, 0.0, 60.0, "°C")
    _within("tissue.arterial_temperature", tissue.arterial_temperature, *BLOOD_TEMPERATURES, "°C")
    _within("tissue.boundary_temperature", tissue.boundary_temperature, 0.0, 60.0, "°C")
    _within("tissue.blood_density", tissue.blood_density, 0.0, 5000.0, "kg/m³", open_low=True)
    _within("tissue.blood_specific_heat", tissue.blood_specific_heat, 0.0, 1e4, "J/(kg K)", open_low=True)
    _within("tissue.vaporization_temperature", tissue.vaporization_temperature, 80.0, 200.0, "°C")
    _within("tissue.vaporization_width", tissue.vaporization_width, 0.0, 50.0, "K", open_low=True)
    _within("tissue.latent_heat_of_water", tissue.latent_heat_of_water, 0.0, 1e7, "J/kg")
    _one_of("tissue.conductivity_law", tissue.conductivity_law, ("linear", "exponential", "constant"))
    collapse = tissue.conductivity_collapse_temperature
    _within("tissue.conductivity_collapse_temperature", collapse, 80.0, 300.0, "°C")
    _within(
        "tissue.conductivity_collapse_width",
        tissue.conductivity_collapse_width,
        0.0,
        100.0,
        "K",
        open_low=True,
    )
    _within(
        "tissue.conductivity_collapse_factor", tissue.conductivity_collapse_factor, 0.0, 1.0, open_low=True
    )
    if not tissue.tissues:
        raise InputError("tissue.tissues is empty; choose a tissue group, such as tissue=in_vivo_human")
    for name, one in tissue.tissues.items():
        key = f"tissue.tissues.{name}"
        _within(f"{key}.density", one.density, 0.0, 2.5e4, "kg/m³", open_low=True)
        _within(
            f"{key}.specific_heat_capacity", one.specific_heat_capacity, 0.0, 1e5, "J/(kg K)", open_low=True
        )
        _within(f"{key}.thermal_conductivity", one.thermal_conductivity, 0.0, 1e3, "W/(m K)", open_low=True)
        _within(f"{key}.thermal_conductivity_slope", one.thermal_conductivity_slope, -0.01, 0.1, "1/K")
        _within(
            f"{key}.electrical_conductivity", one.electrical_conductivity, 0.0, 100.0, "S/m", open_low=True
        )
        _within(f"{key}.electrical_conductivity_slope", one.electrical_conductivity_slope, -0.01, 0.1, "1/K")
        _within(f"{key}.perfusion_rate", one.perfusion_rate, 0.0, 1.0, "1/s")
        _within(f"{key}.metabolic_heat", one.metabolic_heat, 0.0, 1e6, "W/m³")
        _within(f"{key}.water_fraction", one.water_fraction, 0.0, 1.0)


def _check_anatomy(config: SimulationConfig) -> None:
    anatomy = config.anatomy
    structures: dict[str, StructureConfig] = {}
    if isinstance(anatomy, PhantomAnatomyConfig):
        _check_phantom(anatomy)
        return
    if isinstance(anatomy, BlockAnatomyConfig):
        _check_block(anatomy, config.tissue)
        return
    if isinstance(anatomy, LabelMapAnatomyConfig):
        _one_of("anatomy.unlisted", anatomy.unlisted, ("error", "background"))
        structures = {f"anatomy.segments.{key}": one for key, one in anatomy.segments.items()}
    elif isinstance(anatomy, SurfacesAnatomyConfig):
        _one_of("anatomy.frame", anatomy.frame, ("LPS", "RAS"))
        _one_of("anatomy.unit", anatomy.unit, ("mm", "m"))
        structures = {f"anatomy.surfaces.{key}": one for key, one in anatomy.surfaces.items()}
    for key, one in structures.items():
        _one_of(f"{key}.role", one.role, ROLES)
        check_tissue_name(f"{key}.tissue", one.tissue, config.tissue)
    if not any(one.role == "tumor" for one in structures.values()):
        raise InputError("the anatomy has no tumour; give one structure the role 'tumor'")


def check_tissue_name(key: str, name: str, tissue: TissueConfig) -> None:
    """Refuse a tissue that the tissue group does not have."""
    if name not in tissue.tissues:
        raise InputError(
            f"{key}={name!r} is not in tissue={tissue.state}; it has {', '.join(tissue.tissues)}"
        )


def _check_phantom(phantom: PhantomAnatomyConfig) -> None:
    if not phantom.tumors:
        raise InputError("anatomy.tumors is empty; the phantom needs at least one tumour")
    _within("anatomy.liver_volume_ml", phantom.liver_volume_ml, 200.0, 5000.0, "ml")
    for key in ("portal_trunk", "hepatic_vein", "vena_cava", "minimum_branch"):
        _within(
            f"anatomy.{key}_diameter_mm",
            getattr(phantom, f"{key}_diameter_mm"),
            0.0,
            60.0,
            "mm",
            open_low=True,
        )
    _within("anatomy.n_terminals", phantom.n_terminals, 1, 100_000)
    _within("anatomy.murray_exponent", phantom.murray_exponent, 1.0, 6.0)
    for tumor in phantom.tumors:
        _within(
            f"anatomy.tumors[{tumor.name}].diameter_mm", tumor.diameter_mm, 0.0, 200.0, "mm", open_low=True
        )
        _within(f"anatomy.tumors[{tumor.name}].irregularity", tumor.irregularity, 0.0, 0.5)
        _three(f"anatomy.tumors[{tumor.name}].center_mm", tumor.center_mm)
    names = [tumor.name for tumor in phantom.tumors]
    if len(set(names)) < len(names):
        raise InputError(f"anatomy.tumors uses a name twice: {', '.join(names)}; give each its own name")


def _check_block(block: BlockAnatomyConfig, tissue: TissueConfig) -> None:
    _three("anatomy.size_mm", block.size_mm, positive=True)
    _three("anatomy.center_mm", block.center_mm)
    check_tissue_name("anatomy.tissue", block.tissue, tissue)
    check_tissue_name("anatomy.surroundings", block.surroundings, tissue)
    for number, tube in enumerate(block.tubes):
        key = f"anatomy.tubes[{number}]"
        _within(f"{key}.diameter_mm", tube.diameter_mm, 0.0, 60.0, "mm", open_low=True)
        _three(f"{key}.start_mm", tube.start_mm)
        _three(f"{key}.end_mm", tube.end_mm)
        check_tissue_name(f"{key}.fluid", tube.fluid, tissue)
    for tumor in block.tumors:
        key = f"anatomy.tumors[{tumor.name}]"
        _within(f"{key}.diameter_mm", tumor.diameter_mm, 0.0, 200.0, "mm", open_low=True)
        _three(f"{key}.center_mm", tumor.center_mm)
        check_tissue_name(f"{key}.tissue", tumor.tissue, tissue)


def _check_vessels(vessels: VesselsConfig) -> None:
    _one_of("vessels.model", vessels.model, VESSEL_MODELS)
    _within("vessels.minimum_diameter_mm", vessels.minimum_diameter_mm, 0.0, 100.0, "mm")
    _within("vessels.blood_temperature", vessels.blood_temperature, *BLOOD_TEMPERATURES, "°C")
    _within(
        "vessels.heat_transfer_coefficient",
        vessels.heat_transfer_coefficient,
        0.0,
        1e6,
        "W/(m² K)",
        open_low=True,
    )
    for name, group in vessels.groups.items():
        key = f"vessels.groups.{name}"
        _one_of(f"{key}.model", group.model, VESSEL_MODELS)
        _within(
            f"{key}.heat_transfer_coefficient",
            group.heat_transfer_coefficient,
            0.0,
            1e6,
            "W/(m² K)",
            open_low=True,
        )
        _within(f"{key}.blood_temperature", group.blood_temperature, *BLOOD_TEMPERATURES, "°C")
        _within(f"{key}.flow_ml_min", group.flow_ml_min, 0.0, LARGEST_FLOW, "mL/min")
        _within(f"{key}.velocity_cm_s", group.velocity_cm_s, 0.0, 300.0, "cm/s")
        if group.flow_ml_min is not None and group.velocity_cm_s is not None:
            raise InputError(
                f"{key}: flow_ml_min={group.flow_ml_min:g} and velocity_cm_s={group.velocity_cm_s:g} are "
                "both given; the diameter makes one of the other, leave one out"
            )
        _one_of(f"{key}.correlation", group.correlation, CORRELATIONS)
        _one_of(f"{key}.flow_direction", group.flow_direction, ("from_root", "to_root"))
        _within(f"{key}.inner_diameter_mm", group.inner_diameter_mm, 0.0, 60.0, "mm", open_low=True)
        _within(f"{key}.wall_resistance", group.wall_resistance, 0.0, 1.0, "m² K/W")
        if vessel_model(vessels, name) == "advective" and vessel_flow_given(vessels, name) is None:
            raise InputError(
                f"{key}: the model advective needs flow_ml_min or velocity_cm_s (or the group's entry in "
                "vessels.typical_flow_ml_min)"
            )
    _one_of("vessels.correlation", vessels.correlation, CORRELATIONS)
    _within("vessels.blood_viscosity", vessels.blood_viscosity, 0.0, 10.0, "Pa s", open_low=True)
    for name, flow in vessels.typical_flow_ml_min.items():
        _within(f"vessels.typical_flow_ml_min.{name}", flow, 0.0, LARGEST_FLOW, "mL/min")


def vessel_model(vessels: VesselsConfig, group: str) -> str:
    """How a group of vessels takes heat away; one whose flow is given as 0 is occluded."""
    own = vessels.groups.get(group)
    model = (own.model if own is not None else None) or vessels.model
    if model in ("convective", "advective") and vessel_flow_given(vessels, group) == 0.0:
        return "occluded"
    return model


def vessel_flow_given(vessels: VesselsConfig, group: str) -> float | None:
    """The flow [mL/min] or, if that is given, the velocity [cm/s] of a group; None if neither is."""
    own = vessels.groups.get(group)
    if own is not None and own.flow_ml_min is not None:
        return own.flow_ml_min
    if own is not None and own.velocity_cm_s is not None:
        return own.velocity_cm_s
    return vessels.typical_flow_ml_min.get(group)


def needs_centre_lines(vessels: VesselsConfig, group: str) -> bool:
    """Whether the blood of a group is followed along its vessels, or its film is found from its flow."""
    own = vessels.groups.get(group)
    model = vessel_model(vessels, group)
    if model == "advective":
        return True
    given = own is not None and own.heat_transfer_coefficient is not None
    correlation = (own.correlation if own is not None else None) or vessels.correlation
    known = vessel_flow_given(vessels, group) is not None
    return model == "convective" and known and not given and correlation != "none"


def _check_device(device: ApplicatorConfig) -> None:
    _one_of("applicators.kind", device.kind, DEVICE_KINDS)
    _within("applicators.radius_mm", device.radius_mm, 0.0, 20.0, "mm", open_low=True)
    bare = device.kind != "tines"  # a trunk may be insulated up to its end
    _within("applicators.active_length_mm", device.active_length_mm, 0.0, 200.0, "mm", open_low=bare)
    _within("applicators.coolant_temperature", device.coolant_temperature, -20.0, 60.0, "°C")
    _within("applicators.coolant_heat_transfer", device.coolant_heat_transfer, 0.0, 1e6, "W/(m² K)")
    if device.kind == "cluster":
        _within("applicators.n_needles", device.n_needles, 2, 7)
        _within("applicators.spacing_mm", device.spacing_mm, 2.0 * device.radius_mm + 0.5, 50.0, "mm")
    if device.kind == "bipolar":
        _within("applicators.gap_mm", device.gap_mm, 1.0, 50.0, "mm")
        least = device.gap_mm + 4.0 * device.radius_mm
        _within("applicators.active_length_mm", device.active_length_mm, least, 200.0, "mm", open_low=True)
    if device.kind == "tines":
        _check_tines(device)


def _check_tines(device: ApplicatorConfig) -> None:
    _one_of("applicators.tine_shape", device.tine_shape, TINE_TURNS)
    _within("applicators.n_tines", device.n_tines, 1, 24)
    _within("applicators.tine_radius_mm", device.tine_radius_mm, 0.05, min(1.0, device.radius_mm), "mm")
    low, _, high = TINE_TURNS[device.tine_shape]
    _within("applicators.tine_turn_deg", device.tine_turn_deg, low, high, "°")
    least = 2.0 * device.radius_mm + 4.0 * device.tine_radius_mm
    _within("applicators.deployment_mm", device.deployment_mm, least, 100.0, "mm", open_low=True)
    if device.coolant_temperature is not None:
        raise InputError(
            f"applicators.coolant_temperature={device.coolant_temperature:g} °C: tines carry no coolant; "
            "set it to null"
        )
    room = math.pi * device.radius_mm / device.tine_radius_mm
    if device.n_tines > room:
        raise InputError(
            f"applicators.n_tines={device.n_tines} of tine_radius_mm={device.tine_radius_mm:g} do not fit "
            f"around a trunk of radius_mm={device.radius_mm:g}; use at most {int(room)}"
        )


def _check_generator(generator: GeneratorConfig) -> None:
    _one_of("protocol.generator.mode", generator.mode, MODES)
    key = "protocol.generator"
    _within(f"{key}.maximum_power", generator.maximum_power, 0.0, 1e4, "W", open_low=True)
    _within(f"{key}.maximum_voltage", generator.maximum_voltage, 0.0, 1e4, "V", open_low=True)
    _within(f"{key}.maximum_current", generator.maximum_current, 0.0, 1e3, "A", open_low=True)
    _within(f"{key}.coupling_efficiency", generator.coupling_efficiency, 0.0, 1.0, open_low=True)
    if generator.mode == "constant_voltage":
        _within(
            f"{key}.voltage",
            generator.voltage,
            0.0,
            generator.maximum_voltage,
            "V",
            limited_by="generator's maximum_voltage",
        )
    elif generator.mode != "constant_current":
        _within(
            f"{key}.power",
            generator.power,
            0.0,
            generator.maximum_power,
            "W",
            limited_by="generator's maximum_power",
        )
    _within(f"{key}.current", generator.current, 0.0, 1e3, "A")
    _within(f"{key}.hold_time", generator.hold_time, 0.0, 14400.0, "s", open_low=True)
    _one_of(f"{key}.controlled_sensor", generator.controlled_sensor, ("mean", "highest", "lowest"))
    _within(f"{key}.impedance_ceiling", generator.impedance_ceiling, 0.0, 1e6, "Ω", open_low=True)
    _within(f"{key}.maximum_impedance", generator.maximum_impedance, 0.0, 1e6, "Ω", open_low=True)
    _within(f"{key}.short_pulse", generator.short_pulse, 0.0, 3600.0, "s", open_low=True)
    _within(f"{key}.phases", generator.phases, 1, 20)
    _within(f"{key}.power_drop", generator.power_drop, 0.0, 0.99)
    _within(f"{key}.power_ramp", generator.power_ramp, 0.0, 1e4, "W/min")
    _within(f"{key}.impedance_rise", generator.impedance_rise, 0.0, 1e4, "Ω", open_low=True)
    _within(f"{key}.baseline_time", generator.baseline_time, 0.0, 3600.0, "s", open_low=True)
    _within(f"{key}.pause", generator.pause, 0.0, 3600.0, "s")
    _within(f"{key}.power_reduction", generator.power_reduction, 0.0, 1.0, open_low=True)
    _within(f"{key}.minimum_power", generator.minimum_power, 0.0, math.inf, "W")
    _within(f"{key}.control_interval", generator.control_interval, 0.0, 60.0, "s", open_low=True)
    pulsing = generator.mode in ("impedance_controlled", "ramp_to_roll_off")
    if pulsing and generator.minimum_power > generator.maximum_power:
        raise InputError(
            f"protocol.generator.minimum_power={generator.minimum_power:g} W exceeds maximum_power="
            f"{generator.maximum_power:g} W; lower it"
        )


def _check_protocol(protocol: ProtocolConfig) -> None:
    _check_generator(protocol.generator)
    if not protocol.segments:
        raise InputError(
            "protocol.segments is empty; a treatment needs at least one segment with a duration_min"
        )
    limits = protocol.generator
    for number, segment in enumerate(protocol.segments):
        key = f"protocol.segments[{number}]"
        _within(f"{key}.duration_min", segment.duration_min, 0.0, 240.0, "min", open_low=True)
        _one_of(f"{key}.drive", segment.drive, DRIVES)
        _within(f"{key}.dwell_time", segment.dwell_time, 0.0, 3600.0, "s", open_low=True)
        _within(f"{key}.switch_impedance_rise", segment.switch_impedance_rise, 0.0, 1e4, "Ω", open_low=True)
        _within(f"{key}.pull_back_mm", segment.pull_back_mm, 0.0, 200.0, "mm")
        _within(
            f"{key}.voltage",
            segment.voltage,
            0.0,
            limits.maximum_voltage,
            "V",
            limited_by="generator's maximum_voltage",
        )
        _within(
            f"{key}.power",
            segment.power,
            0.0,
            limits.maximum_power,
            "W",
            limited_by="generator's maximum_power",
        )
        _within(f"{key}.current", segment.current, 0.0, 1e3, "A")
        _within(f"{key}.hold_time", segment.hold_time, 0.0, 14400.0, "s", open_low=True)
        if len(set(segment.needles)) < len(segment.needles):
            raise InputError(f"{key}.needles names a needle twice: {', '.join(segment.needles)}")
    _check_serial(protocol)
    _within("protocol.cooling_after_min", protocol.cooling_after_min, 0.0, 240.0, "min")
    chosen = [face.strip() for face in protocol.ground.split(",")]
    if protocol.ground not in ("faces", "far_field", "none") and not all(face in FACES for face in chosen):
        raise InputError(
            f"protocol.ground={protocol.ground!r} is not known; use faces, far_field, none or faces such as "
            "'-y,+y'"
        )


def _check_serial(protocol: ProtocolConfig) -> None:
    """Refuse positions one after another that contradict the segments."""
    _one_of("protocol.serial", protocol.serial, SERIALS)
    if bool(protocol.groups) != (protocol.serial == "groups"):
        state = "is empty" if not protocol.groups else "is given"
        raise InputError(
            f"protocol.groups {state} with protocol.serial={protocol.serial}; serial=groups needs groups "
            "such as [[needle_1, needle_2], [needle_3]], the others take none"
        )
    if protocol.serial in ("needles", "groups"):
        for number, segment in enumerate(protocol.segments):
            if segment.needles:
                raise InputError(
                    f"protocol.segments[{number}].needles is given with protocol.serial={protocol.serial}, "
                    "where each segment drives those whose turn it is; leave it out, or use serial=segments"
                )
    for number, group in enumerate(protocol.groups):
        if not group or len(set(group)) < len(group):
            raise InputError(
                f"protocol.groups[{number}]={list(group)} must name at least one needle, and none twice"
            )


def _check_targets(protocol: ProtocolConfig, tissue: TissueConfig) -> None:
    """Refuse to hold tissue at a temperature that no current can bring it to."""
    if protocol.generator.mode != "temperature_controlled":
        return
    targets = {"protocol.generator": protocol.generator.target_temperature}
    for number, segment in enumerate(protocol.segments):
        if segment.target_temperature is not None:
            targets[f"protocol.segments[{number}]"] = segment.target_temperature
    dry = tissue.conductivity_collapse_temperature + tissue.conductivity_collapse_width
    for key, target in targets.items():
        if not math.isfinite(target) or target > dry:
            raise InputError(
                f"{key}.target_temperature={target:g} °C is refused; it must be at most {dry:g} °C, where "
                "tissue has boiled dry (tissue.conductivity_collapse_temperature plus _width) and carries no "
                "current"
            )
        if target <= tissue.initial_temperature:
            raise InputError(
                f"{key}.target_temperature={target:g} °C is refused; it must lie above "
                f"tissue.initial_temperature={tissue.initial_temperature:g} °C"
            )


def _check_damage(damage: DamageConfig) -> None:
    _one_of("damage.criterion", damage.criterion, CRITERIA)
    _one_of("damage.perfusion_shutdown", damage.perfusion_shutdown, ("arrhenius", "viability", "none"))
    _within("damage.frequency_factor", damage.frequency_factor, 0.0, math.inf, "1/s", open_low=True)
    _within("damage.activation_energy", damage.activation_energy, 0.0, 2e6, "J/mol", open_low=True)
    _within("damage.cem43_threshold", damage.cem43_threshold, 0.0, 1e6, "min", open_low=True)
    _within("damage.three_state_forward", damage.three_state_forward, 0.0, 1.0, "1/s", open_low=True)
    _within("damage.three_state_scale", damage.three_state_scale, 0.0, 1e3, "K", open_low=True)
    _within("damage.three_state_backward", damage.three_state_backward, 0.0, 1.0, "1/s")
    _within("damage.three_state_initial_alive", damage.three_state_initial_alive, 0.0, 1.0, open_low=True)
    _within("damage.three_state_threshold", damage.three_state_threshold, 0.0, 0.999, open_low=True)


def _check_solver(solver: SolverConfig) -> None:
    _within("solver.potential_tolerance", solver.potential_tolerance, 5e-7, 1e-2)
    _within("solver.resolve_tolerance", solver.resolve_tolerance, 0.0, 0.5)
    _within("solver.maximum_iterations", solver.maximum_iterations, 1, 10_000)
    _within("solver.maximum_time_step", solver.maximum_time_step, 1e-4, 60.0, "s")
    _within("solver.maximum_temperature_rise", solver.maximum_temperature_rise, 1e-3, 50.0, "K")
    _within("solver.report_interval", solver.report_interval, 1e-3, 3600.0, "s")
    _within("solver.checkpoint_interval_min", solver.checkpoint_interval_min, 0.0, 1e4, "min", open_low=True)
    _within("solver.memory_limit_gb", solver.memory_limit_gb, 0.0, 1e6, "GB", open_low=True)


def free_memory() -> int | None:
    """Memory that a new process may take [bytes]; None where the system does not say.

    The smaller of what the kernel calls available and what a container's limit leaves.
    """
    figures = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                figures.append(1024 * int(line.split()[1]))
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            figures.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    if not figures and "SC_PHYS_PAGES" in os.sysconf_names:
        figures.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(figures)) if figures else None


def check_memory(needed: int, shape: tuple[int, int, int], limit_gb: float | None) -> None:
    """Refuse a grid that does not fit into memory.

    Parameters
    ----------
    needed : estimated peak [bytes]. shape : cells of the grid. limit_gb : GB set by the user, or None.
    """
    available = limit_gb * GIGABYTE if limit_gb is not None else free_memory()
    if available is not None and needed > available:
        kind = "allowed by solver.memory_limit_gb" if limit_gb is not None else "free"
        raise InputError(
            f"a grid of {shape[0]} x {shape[1]} x {shape[2]} cells needs about {needed / GIGABYTE:.3g} GB "
            f"of memory, {available / GIGABYTE:.3g} GB are {kind}; raise grid.spacing_mm or shrink "
            f"grid.size_mm"
        )
