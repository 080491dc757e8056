"""Dataclasses that type the configuration of `thermosim calibrate` (`configs/calibrate.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

FILE_KEYS = ("observation", "observation_ct", "generator_log_file")
"""Keys of the root that take a file."""


@dataclass
class CalibratedParameterConfig:
    """One unknown: a positive number of the case, or several that keep their ratios."""

    keys: list[str] = (
        MISSING  # of the case, in tissue, vessels, protocol or damage; the first gives the value
    )
    start: float | None = None  # of the first key, also the prior's middle; null: the case's own
    lower: float = MISSING  # physical bounds of the first key
    upper: float = MISSING
    prior_sd: float = 0.5  # standard deviation of ln(value) before any data


@dataclass
class TreatmentConfig:
    """One treatment that was done, its zone and its log."""

    name: str = MISSING
    overrides: list[str] = field(default_factory=list)  # of the case, after the common ones
    observation: str | None = None
    observation_segment: str | None = None
    observation_ct: str | None = None
    generator_log_file: str | None = None
    held_out: bool = False  # not fitted, all of it is a check


@dataclass
class ResidualsConfig:
    """How far data and simulation may be apart, and how many readings are independent."""

    zone_sd_mm: float = 2.0  # of the observed surface: outlining, registration, voxels
    zone_correlation_mm: float = 10.0  # places of the surface closer than this err alike
    log_quantities: list[str] = field(default_factory=lambda: ["impedance_ohm"])
    log_sd: float = 0.05  # of ln(simulated / measured)
    log_correlation: float = 60.0  # s; readings closer than this err alike
    log_interval: float = 10.0  # s over which readings are averaged


@dataclass
class HeldOutConfig:
    """The part of the data that is not fitted, as a check."""

    # of each observed surface: octants about its centre, such as right-anterior-superior
    octants: list[str] = field(default_factory=lambda: ["right-anterior-superior", "left-posterior-inferior"])
    log_share: float = 0.25  # of each log, its end


@dataclass
class FitConfig:
    """The search for the best values."""

    step: float = 0.05  # of ln(value) in finite differences
    tolerance: float = 1e-3  # relative change of the sum of squares, or of ln(value), that ends it
    maximum_iterations: int = 12
    told_share: float = 0.7  # a parameter is told by the data if its sd falls below this share of its prior's


@dataclass
class CalibrateOutputConfig:
    """What a calibration leaves behind."""

    directory: str = MISSING
    report: bool = True  # report.html


@dataclass
class CalibrateConfig:
    """Unknowns of a case fitted to what was seen after treatment."""

    title: str = "Calibration"
    case: str | None = "demo"  # an experiment of configs/experiment; null: none, the bare defaults
    overrides: list[str] = field(default_factory=list)  # of the case, as for `thermosim simulate`
    spacing_mm: float | None = 2.0  # of the grid while fitting; null: the case's own
    criterion: str | None = None  # whose zone is compared; null: the case's own
    observation: str | None = None  # mask of the observed zone; `treatments` instead for several
    observation_segment: str | None = None
    observation_ct: str | None = None  # its CT; an RTSTRUCT needs it
    generator_log_file: str | None = None  # CSV of the generator
    treatments: list[TreatmentConfig] = field(default_factory=list)
    mesh_frame: str = "LPS"  # LPS | RAS: of a mesh's points
    mesh_unit: str = "mm"  # mm | m
    mesh_spacing_mm: float = 1.0  # of the voxels a mesh is filled with
    parameters: dict[str, CalibratedParameterConfig] = field(default_factory=dict)
    residuals: ResidualsConfig = field(default_factory=ResidualsConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    output: CalibrateOutputConfig = field(default_factory=CalibrateOutputConfig)
