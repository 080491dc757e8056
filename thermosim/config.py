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

    kind: str = MISSING  # phantom | label_map | surfaces


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
    """A label map: NIfTI, NRRD or Slicer .seg.nrrd."""

    kind: str = "label_map"
    path: str = MISSING
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
    blood_temperature: float | None = None  # °C


@dataclass
class VesselsConfig:
    """Vessels as heat sinks."""

    model: str = "isothermal"  # isothermal | convective | occluded | ignored
    minimum_diameter_mm: float = 3.0  # thinner vessels count as perfusion
    blood_temperature: float = 37.0  # °C
    heat_transfer_coefficient: float = 1500.0  # W/(m² K), convective walls
    groups: dict[str, VesselGroupConfig] = field(default_factory=dict)


# ---------------------------------------------------------------------------- devices, layout


@dataclass
class ApplicatorConfig:
    """One device of the catalogue; every needle of a layout is one of these."""

    name: str = MISSING
    kind: str = "needle"  # needle | sphere
    radius_mm: float = MISSING
    active_length_mm: float = MISSING
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


@dataclass
class LayoutConfig:
    """Needle poses, given one by one or as a regular pattern around a tumour."""

    frame: str = "patient"  # patient: LPS mm; tumor: LPS mm from the tumour's centre
    tumor: str | None = None  # which tumour; None: the only or the first one
    needles: list[NeedleConfig] = field(default_factory=list)
    pattern: str | None = None  # ring: n_needles parallel ones on a circle; replaces `needles`
    n_needles: int = 3
    pattern_spacing_mm: float = 20.0  # distance between neighbouring needles
    pattern_direction: list[float] = field(default_factory=lambda: [-0.6, -0.5, 0.3])  # tip to handle
    pattern_rotation_deg: float = 0.0
    pattern_depth_mm: float = 15.0  # how far tips lie beyond the tumour's centre
    minimum_gap_mm: float = 0.5  # least free space between the metal of two needles


# ---------------------------------------------------------------------------- protocol


@dataclass
class GeneratorConfig:
    """How the generator chooses its output, with its real limits."""

    mode: str = "constant_voltage"  # constant_voltage | constant_power | impedance_controlled
    voltage: float = 25.0  # V RMS (constant_voltage)
    power: float = 30.0  # W per active group (constant_power; starting power otherwise)
    power_ramp: float = 0.0  # W/min added while the impedance stays low (impedance_controlled)
    impedance_rise: float = 20.0  # Ω over the baseline that ends a pulse
    baseline_time: float = 10.0  # s after the start of a pulse over which the baseline is the lowest seen
    pause: float = 15.0  # s off after such a rise
    power_reduction: float = 0.9  # factor on the power after each pause
    minimum_power: float = 5.0  # W
    maximum_power: float = 200.0  # W
    maximum_voltage: float = 100.0  # V RMS
    maximum_current: float = 2.0  # A RMS per electrode
    control_interval: float = 2.0  # s between readings of a generator that reacts to the impedance


@dataclass
class SegmentConfig:
    """One stretch of the treatment; poses change only between segments."""

    duration_min: float = MISSING
    drive: str = "together"  # together | sequence | switching
    needles: list[str] = field(default_factory=list)  # empty: all
    dwell_time: float = 30.0  # s per electrode before switching moves on
    switch_impedance_rise: float = 30.0  # Ω over the baseline that makes switching move on at once
    pull_back_mm: float = 0.0  # needles are pulled back so far before this segment
    voltage: float | None = None  # overrides the generator's
    power: float | None = None


@dataclass
class ProtocolConfig:
    """A list of segments, run one after another on the same tissue."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    segments: list[SegmentConfig] = field(default_factory=list)
    ground: str = "faces"  # faces | far_field | one or more of -x +x -y +y -z +z, comma separated
    cooling_after_min: float = 1.0  # simulated after the last segment without power (damage goes on)
    cool_needles_after: bool = False  # whether the coolant pump of the needles runs on in that time


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
    maximum_time_step: float = 5.0  # s
    maximum_temperature_rise: float = 4.0  # K per time step
    report_interval: float = 5.0  # s between entries of the traces
    checkpoint_interval_min: float = 2.0  # simulated minutes between checkpoints
    memory_limit_gb: float | None = None  # None: what the machine has free


@dataclass
class BackendConfig:
    """Where the kernels run."""

    name: str = "auto"  # auto | cpu | cuda
    threads: int = 0  # 0: all cores
    device: int = 0  # CUDA device


@dataclass
class OutputConfig:
    """What a run leaves behind."""

    directory: str = MISSING
    report: bool = True  # report.html
    scene: bool = True  # scene.png
    nifti: bool = True  # zone.nii.gz
    progress: bool = True  # progress bar


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
}
"""Schema of the anatomy group by its `kind`."""


def register_schemas() -> None:
    """Make the dataclasses known to Hydra, so that the YAML is checked as it is composed."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="simulation_schema", node=SimulationConfig)
    for kind, schema in ANATOMY_KINDS.items():
        store.store(group="anatomy", name=f"base_{kind}", node=schema)
