"""Dataclasses that type every YAML group. Numbers are SI unless a key's name ends in a unit.

Hydra checks the YAML against these at composition: an unknown key or a wrong type stops there.
Ranges are checked by `thermosim.build` before any heavy work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

# ---------------------------------------------------------------------------- anatomy


@dataclass
class StructureConfig:
    """What one label, segment or surface stands for."""

    tissue: str = MISSING  # a name in the tissue group
    role: str = "background"  # background | organ | tumor | vessel | risk
    name: str | None = None  # defaults to the key
    vessel_group: str | None = None  # portal_vein, hepatic_vein, artery, vena_cava, ...


@dataclass
class AnatomyConfig:
    """Where the structures come from."""

    kind: str = MISSING  # phantom | label_map | surfaces | block


@dataclass
class PhantomTumorConfig:
    """One tumour of the phantom: an ellipsoid with a bumpy surface."""

    name: str = "tumor"
    diameter_mm: float = 30.0
    center_mm: list[float] | None = None  # LPS; None: a seeded place deep in the right lobe
    irregularity: float = 0.08  # relative amplitude of the bumps, 0 for a sphere


@dataclass
class PhantomAnatomyConfig(AnatomyConfig):
    """A procedural liver with its vessels."""

    kind: str = "phantom"
    seed: int = 7
    liver_volume_ml: float = 1500.0
    tumors: list[PhantomTumorConfig] = field(default_factory=list)
    portal_trunk_diameter_mm: float = 13.0
    hepatic_vein_diameter_mm: float = 10.0
    vena_cava_diameter_mm: float = 24.0
    n_terminals: int = 120  # leaves of each venous tree
    murray_exponent: float = 3.0
    minimum_branch_diameter_mm: float = 1.5


@dataclass
class LabelMapAnatomyConfig(AnatomyConfig):
    """A label map: NIfTI, NRRD, Slicer .seg.nrrd, DICOM SEG or RTSTRUCT."""

    kind: str = "label_map"
    path: str = MISSING
    ct_path: str | None = None  # the CT it belongs to; an RTSTRUCT needs it, others are checked against it
    # By label value or name; a number given as such is turned into text before it is used.
    segments: dict[Any, StructureConfig] = field(default_factory=dict)
    # error | background: labels not in `segments` count as background, entries without a label are left out
    unlisted: str = "error"


@dataclass
class SurfaceConfig(StructureConfig):
    """One closed surface from a file."""

    file: str = MISSING
    near_mm: list[float] | None = None  # keep only the closed part whose centre is nearest this point
    priority: int = 0  # where structures overlap the higher one wins


@dataclass
class SurfacesAnatomyConfig(AnatomyConfig):
    """Closed surfaces, one file per structure."""

    kind: str = "surfaces"
    directory: str = MISSING
    dataset: str | None = None  # name known to `thermosim fetch`; found in its cache or THERMOSIM_DATA
    frame: str = "LPS"  # LPS | RAS
    unit: str = "mm"  # mm | m
    surfaces: dict[str, SurfaceConfig] = field(default_factory=dict)


@dataclass
class BlockTubeConfig:
    """One straight tube in a block."""

    group: str = "portal_vein"  # its vessel group; a key of vessels.groups
    diameter_mm: float = MISSING
    start_mm: list[float] = MISSING  # LPS; the end towards the root of its tree
    end_mm: list[float] = MISSING
    fluid: str = "blood"  # a tissue: what it is filled with


@dataclass
class BlockTumorConfig:
    """One ball-shaped tumour in a block."""

    name: str = "tumor"
    diameter_mm: float = MISSING
    center_mm: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    tissue: str = "tumor"


@dataclass
class BlockAnatomyConfig(AnatomyConfig):
    """A box of one tissue on the bench, with tubes and tumours if wanted."""

    kind: str = "block"
    size_mm: list[float] = field(default_factory=lambda: [100.0, 100.0, 100.0])
    center_mm: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # LPS
    tissue: str = "liver"  # what the block is made of
    surroundings: str = "background"  # tissue around it
    tubes: list[BlockTubeConfig] = field(default_factory=list)
    tumors: list[BlockTumorConfig] = field(default_factory=list)


# ---------------------------------------------------------------------------- tissue


@dataclass
class TissueProperties:
    """One tissue at 37 °C with its temperature laws."""

    density: float = MISSING  # ρ kg/m³
    specific_heat_capacity: float = MISSING  # c J/(kg K)
    thermal_conductivity: float = MISSING  # k W/(m K)
    thermal_conductivity_slope: float = 0.0  # 1/K, relative to 37 °C, constant above 100 °C
    electrical_conductivity: float = MISSING  # σ S/m
    electrical_conductivity_slope: float = 0.0  # 1/K, relative to 37 °C
    perfusion_rate: float = 0.0  # ω_b 1/s
    metabolic_heat: float = 0.0  # q_m W/m³
    water_fraction: float = 0.0  # mass of water per mass of tissue; 0: never vaporises
    source: str = ""


@dataclass
class TissueConfig:
    """Tissues by name, blood, and the laws they share."""

    state: str = MISSING  # in_vivo_human | ex_vivo_bovine | ...
    initial_temperature: float = 37.0  # °C
    arterial_temperature: float = 37.0  # °C
    boundary_temperature: float | None = None  # °C on the box's faces; None: initial temperature
    blood_density: float = 1050.0  # ρ_b kg/m³
    blood_specific_heat: float = 3617.0  # c_b J/(kg K)
    vaporization_temperature: float = 99.0  # °C, where the latent heat begins
    vaporization_width: float = 1.0  # K over which it is released
    latent_heat_of_water: float = 2.26e6  # J/kg
    conductivity_law: str = "linear"  # linear | exponential | constant: σ(T) below vaporisation
    conductivity_collapse_temperature: float = 100.0  # °C, where σ collapses with vapour
    conductivity_collapse_width: float = 5.0  # K
    conductivity_collapse_factor: float = 1e-2  # σ of vapour relative to its value before
    tissues: dict[str, TissueProperties] = field(default_factory=dict)


# ---------------------------------------------------------------------------- grid, vessels


@dataclass
class GridConfig:
    """The computing box: isotropic, axis-aligned, around the exposed parts of the needles."""

    spacing_mm: float = 1.0
    margin_mm: float = 40.0  # beyond the exposed parts on each side, if size_mm is not given
    size_mm: list[float] | None = None  # edge lengths of the box
    center_mm: list[float] | None = None  # LPS; None: middle of the exposed parts


@dataclass
class VesselGroupConfig:
    """How one group of vessels takes heat away."""

    model: str | None = None  # overrides the common model
    heat_transfer_coefficient: float | None = None  # W/(m² K)
    blood_temperature: float | None = None  # °C, where the blood comes in
    flow_ml_min: float | None = None  # through all roots of the group together; 0: occluded
    velocity_cm_s: float | None = None  # mean over the cross-section of the roots, instead of a flow
    correlation: str | None = None  # overrides the common one
    flow_direction: str | None = None  # from_root | to_root; null: to_root in hepatic_vein, else from_root
    inner_diameter_mm: float | None = None  # of the stream, where a wall of its own narrows it (a glass tube)
    wall_resistance: float = 0.0  # m² K/W of such a wall, per area that tissue touches


@dataclass
class VesselsConfig:
    """Vessels as heat sinks."""

    model: str = "isothermal"  # isothermal | convective | advective | occluded | ignored
    minimum_diameter_mm: float = 3.0  # thinner vessels count as perfusion
    blood_temperature: float = 37.0  # °C
    heat_transfer_coefficient: float = 1500.0  # W/(m² K), convective walls where no flow is known
    # auto | laminar | laminar_flux | developing | hausen | sieder_tate | gnielinski | dittus_boelter | none
    correlation: str = "auto"
    blood_viscosity: float = 3.5e-3  # μ Pa s
    typical_flow_ml_min: dict[str, float] = field(default_factory=dict)  # by group, where it has no own
    groups: dict[str, VesselGroupConfig] = field(default_factory=dict)


# ---------------------------------------------------------------------------- devices, layout


@dataclass
class ApplicatorConfig:
    """One device of the catalogue; every needle of a layout is one of these."""

    name: str = MISSING
    kind: str = "needle"  # needle | cluster | bipolar | tines | sphere
    radius_mm: float = MISSING  # of the metal; of a multitined device's trunk
    # Bare metal from the tip's end; of a bipolar needle with both poles and the gap; of a trunk (0: none).
    active_length_mm: float = MISSING
    n_needles: int = 3  # of a cluster
    spacing_mm: float = 5.0  # between neighbouring needles of a cluster
    gap_mm: float = 4.0  # insulation between the two poles of a bipolar needle
    n_tines: int = 9
    tine_shape: str = "starburst"  # starburst: tines spread | umbrella: they hook back
    tine_radius_mm: float = 0.3
    tine_turn_deg: float | None = None  # by how much a tine has turned at its tip; None: that of its shape
    deployment_mm: float = 50.0  # diameter of the circle through the tines' tips
    coolant_temperature: float | None = None  # °C; null: not cooled
    coolant_heat_transfer: float = 2000.0  # W/(m² K), coolant to tissue through the wall
    source: str = ""


@dataclass
class NeedleConfig:
    """Where one needle stands: the tip's end and a point on the way to the handle."""

    name: str = MISSING
    target_mm: list[float] = MISSING
    entry_mm: list[float] = MISSING
    active_length_mm: float | None = None  # overrides the device's
    rotation_deg: float = 0.0  # of a cluster or of tines, about the axis


@dataclass
class LayoutConfig:
    """Needle poses: one by one, as a regular pattern around a tumour, or from the file of a plan."""

    frame: str = "patient"  # patient: LPS mm; tumor: LPS mm from the tumour's centre
    tumor: str | None = None  # which tumour; None: the only or the first one
    needles: list[NeedleConfig] = field(default_factory=list)
    pattern: str | None = None  # ring: n_needles parallel ones on a circle; replaces `needles`
    n_needles: int = 3
    pattern_spacing_mm: float = 20.0  # distance between neighbouring needles
    pattern_direction: list[float] = field(default_factory=lambda: [-0.6, -0.5, 0.3])  # tip to handle
    pattern_rotation_deg: float = 0.0
    # How far tips lie beyond the tumour's centre; None: the middle of the bare metal lies beside it.
    pattern_depth_mm: float | None = 15.0
    minimum_gap_mm: float = 0.5  # least free space between the metal of two needles
    path: str | None = None  # 3D Slicer markups, CSV or YAML; replaces `needles`
    order: str = "tip_first"  # tip_first | entry_first: of the two points of a line or pair in that file
    coordinates: str | None = None  # LPS | RAS: frame of that file; None: what it says


# ---------------------------------------------------------------------------- protocol


@dataclass
class GeneratorConfig:
    """How the generator chooses its output, with its real limits."""

    # constant_voltage | constant_power | constant_current | temperature_controlled |
    # impedance_controlled | ramp_to_roll_off
    mode: str = "constant_voltage"
    voltage: float = 25.0  # V RMS (constant_voltage)
    current: float = 1.0  # A RMS of the active group (constant_current)
    power: float = 30.0  # W per active group (constant_power; most of it or the start otherwise)
    power_ramp: float = 0.0  # W/min added while the impedance stays low (pulses and roll-off)
    target_temperature: float = 90.0  # °C of the sensors (temperature_controlled)
    hold_time: float | None = None  # s at the target, then the segment ends; null: until its end
    controlled_sensor: str = "mean"  # mean | highest | lowest of the driven devices' sensors
    impedance_rise: float = 20.0  # Ω over the baseline that ends a pulse or a phase
    impedance_ceiling: float | None = None  # Ω that end a pulse or a phase, whatever the baseline
    baseline_time: float = 10.0  # s after the start of a pulse over which the baseline is the lowest seen
    pause: float = 15.0  # s off after such a rise
    power_reduction: float = 0.9  # factor on the power after each pause
    short_pulse: float | None = None  # s; only a shorter pulse reduces the power; null: every pulse
    phases: int = 2  # roll-offs that end a segment (ramp_to_roll_off)
    power_drop: float = 0.5  # share of the wanted power below which limits count as roll-off
    minimum_power: float = 5.0  # W
    maximum_power: float = 200.0  # W
    maximum_voltage: float = 100.0  # V RMS
    maximum_current: float = 2.0  # A RMS per unit: a device, or one pole of it
    # η: share of the voltage at the clamps, and so of the power, that reaches the electrodes behind cables
    coupling_efficiency: float = 1.0
    maximum_impedance: float | None = None  # Ω above which the output is off; null: no such limit
    control_interval: float = 2.0  # s between readings of a generator that reacts to what it reads


@dataclass
class SegmentConfig:
    """One stretch of the treatment; poses change only between segments."""

    duration_min: float = MISSING  # at most; some modes end earlier
    drive: str = "together"  # together | sequence | switching | bipolar
    needles: list[str] = field(default_factory=list)  # devices, or poles as device.pole; empty: all
    dwell_time: float = 30.0  # s per electrode, or pair, before switching moves on
    switch_impedance_rise: float = 30.0  # Ω over the baseline that makes switching move on at once
    pull_back_mm: float = 0.0  # needles are pulled back so far before this segment
    voltage: float | None = None  # overrides the generator's
    power: float | None = None
    current: float | None = None
    target_temperature: float | None = None
    hold_time: float | None = None
    pairs: list[list[str]] = field(default_factory=list)  # of bipolar, in order; empty: every pair


@dataclass
class ProtocolConfig:
    """A list of segments, run one after another on the same tissue."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    segments: list[SegmentConfig] = field(default_factory=list)
    # faces | far_field | none (bipolar) | one or more of -x +x -y +y -z +z, comma separated
    ground: str = "faces"
    cooling_after_min: float = 1.0  # simulated after the last segment without power (damage goes on)
    cool_needles_after: bool = False  # whether the coolant pump of the needles runs on in that time
    # none: all needles of the layout stand in the tissue from start to end | needles: one after another, all
    # segments for each | groups: the same for each of `groups` | segments: each segment's needles alone
    serial: str = "none"
    groups: list[list[str]] = field(default_factory=list)  # with serial=groups: devices that stand together


# ---------------------------------------------------------------------------- damage, solver, backend, output


@dataclass
class DamageConfig:
    """Constants of the three models of death, computed side by side."""

    # The zone the verdict uses: arrhenius | arrhenius_99 | cem43 | three_state | isotherm_50 |
    # isotherm_54 | isotherm_60.
    criterion: str = "arrhenius"
    frequency_factor: float = 7.39e39  # A 1/s
    activation_energy: float = 2.577e5  # E_a J/mol
    cem43_threshold: float = 240.0  # min
    three_state_forward: float = 3.33e-3  # k_f0 1/s
    three_state_scale: float = 40.5  # K
    three_state_backward: float = 7.77e-3  # k_b 1/s
    three_state_initial_alive: float = 0.99
    three_state_threshold: float = 0.8  # dead fraction
    # arrhenius: exp(−(Ω − Ω₀)), Ω₀ of unheated tissue | viability: step at the threshold | none
    perfusion_shutdown: str = "arrhenius"


@dataclass
class SolverConfig:
    """Numerical tolerances; each has a meaning a user can check."""

    potential_tolerance: float = 1e-6  # relative residual of the potential
    resolve_tolerance: float = (
        0.02  # estimated relative error of the field in energy norm that triggers a solve
    )
    maximum_iterations: int = 60
    maximum_time_step: float = 10.0  # s
    maximum_temperature_rise: float = 4.0  # K per time step
    active_box: bool = True  # heat and death step by step only around the needles, beyond at longer intervals
    report_interval: float = 5.0  # s between entries of the traces
    checkpoint_interval_min: float = 2.0  # simulated minutes between checkpoints
    memory_limit_gb: float | None = None  # None: what the machine has free


@dataclass
class BackendConfig:
    """Where the kernels run."""

    name: str = "auto"  # auto | cpu | cuda
    threads: int = 0  # 0: all cores
    device: int = 0  # CUDA device; -1: the GPUs in turn, by the number of the job in a sweep


@dataclass
class OutputConfig:
    """What a run leaves behind."""

    directory: str = MISSING
    report: bool = True  # report.html
    scene: bool = True  # scene.png
    nifti: bool = True  # zone.nii.gz
    mesh: bool = True  # margin.vtp
    markups: bool = True  # layout.mrk.json
    dicom_source_directory: str | None = None  # folder of the CT series; zone.dcm is then written over it
    keep_patient_identity: bool = False  # whether zone.dcm names the patient as the series does
    progress: bool = True  # progress bar
    generator_log_file: str | None = None  # CSV of a real generator, drawn and compared with the run


@dataclass
class SimulationConfig:
    """A whole case."""

    title: str = "untitled"
    anatomy: Any = MISSING  # one of the AnatomyConfig kinds
    tissue: TissueConfig = field(default_factory=TissueConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    vessels: VesselsConfig = field(default_factory=VesselsConfig)
    applicators: ApplicatorConfig = field(default_factory=ApplicatorConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    resume: str | None = None  # directory of an interrupted run


ANATOMY_KINDS: dict[str, type[AnatomyConfig]] = {
    "phantom": PhantomAnatomyConfig,
    "label_map": LabelMapAnatomyConfig,
    "surfaces": SurfacesAnatomyConfig,
    "block": BlockAnatomyConfig,
}
"""Schema of the anatomy group by its `kind`."""


def register_schemas() -> None:
    """Make the dataclasses known to Hydra, so that the YAML is checked as it is composed."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="simulation_schema", node=SimulationConfig)
    for kind, schema in ANATOMY_KINDS.items():
        store.store(group="anatomy", name=f"base_{kind}", node=schema)
