"""Dataclasses that type the configuration of `thermosim study perturb` (`configs/perturb.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from thermosim.config import SimulationConfig


@dataclass
class SpreadConfig:
    """How uncertain the inputs are; 0 keeps one as it is. All are drawn independently."""

    targeting_error_mm: float = 3.7  # mean distance of a needle from where it was planned, each its own
    common_error_mm: float = 0.0  # mean distance by which all needles are off together (breathing, fusion)
    perfusion_cv: float = 0.3  # coefficient of variation of one factor on the perfusion of all tissues
    electrical_conductivity_cv: float = 0.2  # of σ, each tissue its own factor
    thermal_conductivity_cv: float = 0.05  # of k, each tissue its own factor
    output_cv: float = 0.0  # of one factor on the generator's power, voltage and current
    tissues: list[str] = field(default_factory=lambda: ["liver", "tumor"])  # whose σ and k vary


@dataclass
class PerturbConfig(SimulationConfig):
    """A whole case, and what is drawn around it."""

    n: int = 1000  # perturbed cases beside the plan itself
    seed: int = 1
    workers: int = 0  # processes; 0: as many as cores or GPUs
    together: int = 0  # cases that share launches on a GPU; 0: as many as fit, 16 at most
    margins_mm: list[float] = field(default_factory=lambda: [0.0, 5.0])  # whose probability is wanted
    spread: SpreadConfig = field(default_factory=SpreadConfig)
