"""`thermosim calibrate`: unknowns of a case fitted to the zone and the log of a treatment that was done."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim import build, simulation
from thermosim.backends import select
from thermosim.backends.base import Backend
from thermosim.checks import check_case
from thermosim.commands.application import Job, run_application, say
from thermosim.commands.calibration_summary import (
    CalibrationResult,
    calibration_summary,
    closing_lines,
    drawings_of,
)
from thermosim.commands.masks import MaskOptions, read_zone
from thermosim.composition import register, typed
from thermosim.config import SimulationConfig
from thermosim.config_calibrate import FILE_KEYS, CalibrateConfig, TreatmentConfig
from thermosim.errors import InputError, NumericalError
from thermosim.outcome.criteria import describe, zone_level_set
from thermosim.outcome.level_set import LevelSet
from thermosim.report.atomic import write_text
from thermosim.report.calibration_page import calibration_page
from thermosim.report.generator_log import at_the_clamps, read_generator_log
from thermosim.simulation import Problem
from thermosim.study.calibration import Unknown, calibrate
from thermosim.study.calibration_data import (
    ObservedTreatment,
    Prediction,
    Weights,
    check_start,
    n_independent,
    observed_log,
    observed_zone,
    octants,
    residuals,
)
from thermosim.units import MILLIMETRE, MINUTE

GROUPS = ("tissue", "vessels", "protocol", "damage")
"""Groups of the case whose numbers can be fitted: geometry stays what it is."""

QUANTITIES = ("impedance_ohm", "power_w", "voltage_v", "current_a")


def command(words: list[str]) -> int:
    """`thermosim calibrate key=value ...`; returns its exit code."""
    register({"calibrate_schema": CalibrateConfig})
    return run_application("calibrate", "calibrate", _job, words, FILE_KEYS)


def _job(job: Job) -> int:
    config, _ = typed(job.settings, CalibrateConfig)
    talk = sys.stderr.isatty() and not job.quiet
    result = run_calibration(config, say_progress=talk)
    summary = calibration_summary(result, config.title)
    job.directory.mkdir(parents=True, exist_ok=True)
    files = {"calibration": job.directory / "calibration.json", "report": job.directory / "report.html"}
    write_text(
        files["calibration"], json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    if config.output.report:
        write_text(files["report"], calibration_page(summary, drawings_of(result)))
    else:
        files.pop("report").unlink(missing_ok=True)
    say(iter([*closing_lines(summary), *(f"{name}: {path}" for name, path in files.items())]), job.label)
    return 0


@dataclass(frozen=True)
class Treatment:
    """One treatment with its case, its geometry on the grid, and what was seen of it."""

    case: build.Case
    problem: Problem
    seen: ObservedTreatment
    held_out: bool


def run_calibration(config: CalibrateConfig, *, say_progress: bool = False) -> CalibrationResult:
    """Fit what a configuration asks for.

    Raises
    ------
    InputError : contradictions, files that cannot be used, data that do not belong to the case.
    NumericalError : a simulation of the search fails.
    """
    check_calibration(config)
    wanted = _treatments(config)
    bases = [_case(config, one) for one in wanted]
    unknowns = _unknowns(config, bases)
    treatments = [_treatment(config, one, case) for one, case in zip(wanted, bases, strict=True)]
    backend = _backend(bases[0])
    weights = Weights(
        config.residuals.zone_sd_mm * MILLIMETRE,
        config.residuals.zone_correlation_mm * MILLIMETRE,
        config.residuals.log_sd,
        config.residuals.log_correlation,
    )
    seen = [treatment.seen for treatment in treatments]
    fitted = [treatment.seen for treatment in treatments if not treatment.held_out]
    independent = n_independent(fitted, weights)
    if independent < len(unknowns):
        raise InputError(
            f"the fitted data stand for {independent:.1f} independent readings, fewer than the "
            f"{len(unknowns)} parameters; fit fewer, or lower residuals.zone_correlation_mm, log_correlation "
            "or the held-out part"
        )
    model = _Model(config, treatments, backend, say_progress)
    before = model(np.array([unknown.start for unknown in unknowns]))
    for one, prediction in zip(seen, before, strict=True):
        check_start(one, prediction)

    def misfit(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return residuals(fitted, model(values, fitted_only=True), weights)

    fit = config.fit
    found = calibrate(
        unknowns,
        misfit,
        independent,
        step=fit.step,
        tolerance=fit.tolerance,
        maximum_iterations=fit.maximum_iterations,
        told_share=fit.told_share,
    )
    after = model(found.values)
    kept = {estimate.unknown.name: estimate for estimate in found.estimates}
    return CalibrationResult(
        calibration=found,
        keys={name: tuple(one.keys) for name, one in config.parameters.items()},
        overrides={name: model.overrides(bases[0], name, kept[name].value) for name in kept},
        treatments=tuple(seen),
        before=tuple(before),
        after=tuple(after),
        weights=weights,
        criterion=describe(_criterion(config, bases[0]), bases[0].config.damage),
        experiment=config.case,
        case_overrides=tuple(config.overrides),
        spacing=float(treatments[0].problem.anatomy.grid.spacing[0]),
        n_simulations=model.n_runs,
    )


class _Model:
    """From values of the unknowns to predictions of all treatments; what was computed is remembered."""

    def __init__(
        self, config: CalibrateConfig, treatments: list[Treatment], backend: Backend, talk: bool
    ) -> None:
        self.config, self.treatments, self.backend, self.talk = config, treatments, backend, talk
        self.n_runs = 0
        self._known: dict[tuple[int, bytes], Prediction] = {}

    def __call__(self, values: NDArray[np.float64], fitted_only: bool = False) -> list[Prediction]:
        """Predictions of all treatments, or of those that are fitted."""
        found = []
        for number, treatment in enumerate(self.treatments):
            if fitted_only and treatment.held_out:
                continue
            key = (number, np.round(np.log(values), 12).tobytes())
            if key not in self._known:
                self._known[key] = self._predict(treatment, values)
            found.append(self._known[key])
        return found

    def _predict(self, treatment: Treatment, values: NDArray[np.float64]) -> Prediction:
        named = dict(zip(self.config.parameters, values.tolist(), strict=True))
        if self.talk:
            text = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
            print(
                f"simulation {self.n_runs + 1} ({treatment.seen.name}): {text}", file=sys.stderr, flush=True
            )
        numbers: dict[str, float] = {}
        for name, value in named.items():
            numbers |= self._numbers(treatment.case, name, value)
        config = _with(treatment.case, numbers)
        problem = replace(
            treatment.problem,
            tissue=config.tissue,
            vessels=config.vessels,
            protocol=config.protocol,
            damage=config.damage,
        )
        try:
            result = simulation.run(problem, self.backend)
        except NumericalError as error:
            text = ", ".join(f"{name}={value:.4g}" for name, value in named.items())
            raise NumericalError(f"the simulation with {text} failed: {error}; narrow the bounds") from error
        self.n_runs += 1
        level = zone_level_set(result, _criterion(self.config, treatment.case), config.damage)
        sensor = config.protocol.generator.controlled_sensor
        return Prediction(level, np.asarray(result.traces.time), at_the_clamps(result.traces, sensor))

    def _numbers(self, case: build.Case, name: str, value: float) -> dict[str, float]:
        """The case's numbers for one unknown: the first key's value, the others in their ratio to it."""
        keys = self.config.parameters[name].keys
        own = {key: _number(case, name, key) for key in keys}
        return {key: value * own[key] / own[keys[0]] for key in keys}

    def overrides(self, case: build.Case, name: str, value: float) -> tuple[str, ...]:
        """The same as settings for the command line."""
        return tuple(f"{key}={number:.6g}" for key, number in self._numbers(case, name, value).items())


# ---------------------------------------------------------------------------- configuration


def check_calibration(config: CalibrateConfig) -> None:
    """Refuse what makes no sense before any file is read."""

    def within(key: str, value: float, low: float, high: float) -> None:
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{key}={value:g} is refused; it must be at least {low:g} and at most {high:g}")

    data, held, fit = config.residuals, config.held_out, config.fit
    within("residuals.zone_sd_mm", data.zone_sd_mm, 0.05, 50.0)
    within("residuals.zone_correlation_mm", data.zone_correlation_mm, 0.1, 100.0)
    within("residuals.log_sd", data.log_sd, 1e-4, 1.0)
    within("residuals.log_interval", data.log_interval, 0.1, 3600.0)
    within("residuals.log_correlation", data.log_correlation, data.log_interval, 36000.0)
    within("held_out.log_share", held.log_share, 0.0, 0.9)
    within("fit.step", fit.step, 1e-3, 0.5)
    within("fit.tolerance", fit.tolerance, 1e-8, 0.1)
    within("fit.maximum_iterations", fit.maximum_iterations, 1, 200)
    within("fit.told_share", fit.told_share, 0.05, 0.99)
    octants(held.octants)
    for quantity in data.log_quantities:
        if quantity not in QUANTITIES:
            raise InputError(
                f"residuals.log_quantities: {quantity!r} is not known; use some of {', '.join(QUANTITIES)}"
            )
    if not config.parameters:
        raise InputError("parameters is empty; name at least one unknown")
    keys = [key for one in config.parameters.values() for key in one.keys]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(f"parameters: {twice[0]} belongs to two unknowns; leave one of them out")
    for name, one in config.parameters.items():
        if not one.keys:
            raise InputError(f"parameters.{name}.keys is empty; name a number of the case")
        for key in one.keys:
            if key.split(".")[0] not in GROUPS:
                raise InputError(
                    f"parameters.{name}: {key} cannot be fitted; it must be a number in {', '.join(GROUPS)}"
                )


def _treatments(config: CalibrateConfig) -> list[TreatmentConfig]:
    single = config.observation is not None or config.generator_log_file is not None
    if single and config.treatments:
        raise InputError(
            "observation or generator_log_file are given beside treatments; put them into one of them"
        )
    found = list(config.treatments)
    if single:
        found = [
            TreatmentConfig(
                "treatment",
                [],
                config.observation,
                config.observation_segment,
                config.observation_ct,
                config.generator_log_file,
            )
        ]
    if not found:
        raise InputError(
            "there is nothing to fit to; give observation=FILE, generator_log_file=FILE or treatments"
        )
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise InputError(f"treatments uses a name twice: {', '.join(names)}; give each its own name")
    for one in found:
        if one.observation is None and one.generator_log_file is None:
            raise InputError(f"treatment {one.name!r} has neither observation nor generator_log_file")
    if all(one.held_out for one in found):
        raise InputError("every treatment is held out; at least one must be fitted")
    return found


def _case(config: CalibrateConfig, treatment: TreatmentConfig) -> build.Case:
    overrides = [*config.overrides, *treatment.overrides]
    if config.spacing_mm is not None:
        overrides.append(f"grid.spacing_mm={config.spacing_mm}")
    case = build.load_case(config.case, overrides)
    _criterion(config, case)
    return case


def _criterion(config: CalibrateConfig, case: build.Case) -> str:
    criterion = config.criterion or case.config.damage.criterion
    describe(criterion, case.config.damage)
    return criterion


def _number(case: build.Case, name: str, key: str) -> float:
    """A positive number of a case by its dotted key."""
    value: Any = case.settings
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            raise InputError(f"parameters.{name}: the case has no {key}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"parameters.{name}: {key}={value} is no number; only numbers can be fitted")
    if not value > 0:
        raise InputError(
            f"parameters.{name}: {key}={value:g} in this case; only what is positive can be fitted. Leave it "
            f"out (~parameters.{name}), or give the case another value"
        )
    return float(value)


def _with(case: build.Case, numbers: Mapping[str, float]) -> SimulationConfig:
    """The configuration of a case with other numbers, checked."""
    config = copy.deepcopy(case.config)
    for key, number in numbers.items():
        *parents, last = key.split(".")
        place: Any = config
        for part in parents:
            place = _part(place, part)
        if isinstance(place, list):
            place[int(last)] = number
        elif isinstance(place, dict):
            place[last] = number
        else:
            setattr(place, last, number)
    check_case(config)
    return config


def _part(place: Any, part: str) -> Any:
    if isinstance(place, list):
        return place[int(part)]
    return place[part] if isinstance(place, dict) else getattr(place, part)


def _unknowns(config: CalibrateConfig, cases: list[build.Case]) -> list[Unknown]:
    found = []
    for name, one in config.parameters.items():
        numbers = [_number(case, name, key) for case in cases for key in one.keys]  # all must be there
        own = numbers[0]
        unknown = Unknown(name, own if one.start is None else one.start, one.lower, one.upper, one.prior_sd)
        found.append(unknown)
        for value in (one.lower, one.upper):  # both bounds must be a case
            try:
                _with(cases[0], {key: value * _number(cases[0], name, key) / own for key in one.keys})
            except InputError as error:
                raise InputError(f"parameters.{name}: its bound {value:g} is no case: {error}") from None
    return found


# ---------------------------------------------------------------------------- data


def _backend(case: build.Case) -> Backend:
    chosen = case.config.backend
    return select(chosen.name, chosen.threads, chosen.device)


def _treatment(config: CalibrateConfig, one: TreatmentConfig, case: build.Case) -> Treatment:
    problem, _ = build.build_problem(case)
    level = _observation(config, one)
    zone = None
    if level is not None:
        zone = observed_zone(level, octants(config.held_out.octants), one.held_out)
        if not problem.anatomy.grid.contains(zone.points).all():
            raise InputError(
                f"treatment {one.name!r}: the observed zone lies partly or wholly outside the computed box; "
                "check its frame, or enlarge the box (overrides=[grid.margin_mm=...] or grid.size_mm)"
            )
        if zone.held_out.all() and not one.held_out:
            raise InputError("held_out.octants holds out the whole surface; name fewer octants")
    logs = []
    if one.generator_log_file is not None:
        log = read_generator_log(one.generator_log_file)
        missing = [name for name in config.residuals.log_quantities if name not in log.readings]
        if missing:
            raise InputError(
                f"treatment {one.name!r}: its log has no {missing[0]}; it has {', '.join(log.readings)}. Set "
                "residuals.log_quantities"
            )
        duration = sum(segment.duration_min for segment in case.config.protocol.segments) * MINUTE
        make = partial(observed_log, interval=config.residuals.log_interval, duration=duration)
        logs = [
            make(q, log.time, log.readings[q], share=config.held_out.log_share, whole=one.held_out)
            for q in config.residuals.log_quantities
        ]
    return Treatment(case, problem, ObservedTreatment(one.name, zone, tuple(logs)), one.held_out)


def _observation(config: CalibrateConfig, one: TreatmentConfig) -> LevelSet | None:
    if one.observation is None:
        return None
    options = MaskOptions(config.mesh_frame, config.mesh_unit, config.mesh_spacing_mm)
    path = Path(one.observation)
    return read_zone("observation", path, one.observation_segment, one.observation_ct, options).level
