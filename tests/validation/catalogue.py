"""The published experiments as data: what was measured, by whom, and which configs predict it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
EXPERIMENTS = FOLDER / "experiments.yaml"
CALIBRATION = FOLDER / "calibration.yaml"

DEFAULT_RELATIVE_SD = 0.25
"""SD over mean where none was published: series of zones scatter by 16 to 41 % in volume."""

QUANTITIES = {
    "zone_volume_ml": ("volume", "mL"),
    "zone_long_axis_mm": ("long axis", "mm"),
    "zone_transverse_mm": ("transverse diameter", "mm"),
    "zone_reach_mm": ("reach", "mm"),
    "energy_kj": ("energy", "kJ"),
    "temperature_c": ("temperature", "°C"),
    "duration_min": ("time", "min"),
}
"""What can be compared: name in words and unit."""


@dataclass(frozen=True)
class Run:
    """One simulation: an experiment of configs/experiment and what is changed in it."""

    name: str
    experiment: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One published mean; `sd` None where none was published.

    `point_mm`: where a temperature was read; `direction`: along which a reach counts from `point_mm`.
    `relative_to`: the prediction is divided by that run's. `second`: a by-product such as the energy,
    listed but not counted among the cases. `at_most`: the mean is a bound from above.
    """

    quantity: str
    mean: float
    sd: float | None = None
    run: str = "main"
    label: str = ""
    n: int | None = None
    point_mm: tuple[float, float, float] | None = None
    direction: tuple[float, float, float] | None = None
    relative_to: str | None = None
    relative_sd: float | None = None
    second: bool = False
    at_most: bool = False

    @property
    def has_published_sd(self) -> bool:
        return self.sd is not None

    @property
    def scale(self) -> float:
        """The SD that errors are counted in."""
        if self.sd is not None:
            return self.sd
        return abs(self.mean) * (self.relative_sd or DEFAULT_RELATIVE_SD)


@dataclass(frozen=True)
class Variant:
    """An assumption changed: the overrides, on top of one run's, and why it is in doubt."""

    name: str
    overrides: tuple[str, ...]
    run: str = "main"


@dataclass(frozen=True)
class Experiment:
    """One published experiment; `lacks`: what its device does that thermosim cannot."""

    id: str
    title: str
    source: str
    tissue: str
    runs: tuple[Run, ...]
    measurements: tuple[Measurement, ...]
    role: str = "prediction"
    assumptions: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    discussion: str = ""
    lacks: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str) -> Run:
        """One of its runs by name."""
        for run in self.runs:
            if run.name == name:
                return run
        raise KeyError(f"{self.id} has no run {name!r}")

    def varied(self, variant: Variant) -> Run:
        """The run of a variant."""
        base = self.run(variant.run)
        return Run(f"{base.name}, {variant.name}", base.experiment, (*base.overrides, *variant.overrides))


def load_experiments(path: Path = EXPERIMENTS) -> list[Experiment]:
    """All experiments of the catalogue, in its order.

    Raises
    ------
    ValueError
        For an entry that names what does not exist.
    """
    experiments = [_experiment(entry) for entry in yaml.safe_load(path.read_text())]
    ids = [experiment.id for experiment in experiments]
    if len(set(ids)) < len(ids):
        raise ValueError(f"experiments.yaml lists an id twice: {ids}")
    return experiments


def load_calibration(path: Path = CALIBRATION) -> list[dict[str, Any]]:
    """The calibrated parameters: what, where, from which observation, before and after."""
    return list(yaml.safe_load(path.read_text()))


def _experiment(entry: dict[str, Any]) -> Experiment:
    runs = tuple(
        Run(run.get("name", "main"), run["experiment"], tuple(run.get("overrides", ())))
        for run in entry["runs"]
    )
    measurements = tuple(_measurement(entry["id"], one) for one in entry["measurements"])
    variants = tuple(
        Variant(one["name"], tuple(one["overrides"]), one.get("run", runs[0].name))
        for one in entry.get("variants", ())
    )
    experiment = Experiment(
        id=entry["id"],
        title=entry["title"],
        source=entry["source"],
        tissue=entry["tissue"],
        runs=runs,
        measurements=measurements,
        role=entry.get("role", "prediction"),
        assumptions=tuple(entry.get("assumptions", ())),
        variants=variants,
        discussion=" ".join(entry.get("discussion", "").split()),
        lacks=entry.get("lacks", ""),
    )
    if experiment.role not in ("prediction", "calibration"):
        raise ValueError(f"{experiment.id}: role {experiment.role!r} is not prediction or calibration")
    for one in (*measurements, *variants):
        experiment.run(one.run)
    for measurement in measurements:
        if measurement.relative_to is not None:
            experiment.run(measurement.relative_to)
    return experiment


def _measurement(experiment: str, entry: dict[str, Any]) -> Measurement:
    values = dict(entry)
    if values["quantity"] not in QUANTITIES:
        raise ValueError(f"{experiment}: {values['quantity']!r} is not one of {', '.join(QUANTITIES)}")
    for name in ("point_mm", "direction"):
        if name in values:
            values[name] = tuple(float(v) for v in values[name])
    if values["quantity"] in ("temperature_c", "zone_reach_mm") and "point_mm" not in values:
        raise ValueError(f"{experiment}: {values['quantity']} needs point_mm")
    return Measurement(**values)
