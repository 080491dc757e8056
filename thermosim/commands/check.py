"""`thermosim check`: a plan of needles judged before any heat, and by a simulation if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermosim import build
from thermosim.applicators.layout import electrodes_from
from thermosim.applicators.pose_checks import check_poses
from thermosim.applicators.protocol import Protocol
from thermosim.commands.application import Job, progress_bar, run_application, say
from thermosim.composition import compose, register, settings_from, typed
from thermosim.config import register_schemas
from thermosim.config_check import CheckCaseConfig, CheckConfig, RulesConfig
from thermosim.errors import InputError, Interrupted
from thermosim.plan.check import PlanCheck, check_plan
from thermosim.plan.findings import Verdict
from thermosim.plan.paths import Plan
from thermosim.units import MILLIMETRE

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "not judged": 4, "warn": 4, "fail": 5}
"""Of the whole plan; 2 stays refused input. Nothing judged at all is no pass either."""

SIMULATION_FOLDER = "simulation"

Bar = Callable[[], AbstractContextManager[Callable[[Any], None]]]


@dataclass(frozen=True)
class Checked:
    """A judged plan, with the simulation if there was one."""

    case: build.Case
    settings: dict[str, Any]
    outcome: PlanCheck
    surfaces: dict[str, Any]
    simulated: build.Result | None
    seconds_of_estimate: float

    @property
    def exit_code(self) -> int:
        """What a script may go by."""
        return EXIT_CODES[self.outcome.verdict]

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write check.json, report and pictures into `directory`; returns the files by name."""
        from thermosim.report.check_report import write_check

        files = {}
        if self.simulated is not None:
            files = self.simulated.save(Path(directory) / SIMULATION_FOLDER)
            files = {f"simulation_{name}": path for name, path in files.items()}
        options = self.case.config.output
        return files | write_check(
            Path(directory),
            self.outcome,
            self.surfaces,
            self.settings,
            self.case.title,
            self.exit_code,
            options,
            SIMULATION_FOLDER if self.simulated is not None else None,
        )


def main(words: list[str]) -> int:
    """`thermosim check [key=value ...]`."""
    register_all()
    words = ["~experiment" if word == "experiment=null" else word for word in words]
    return run_application("check", "check", _job, words, files=("anatomy.path", "layout.path"))


def register_all() -> None:
    """Make the schemas known to Hydra."""
    register_schemas()
    register({"check_schema": CheckCaseConfig})


def load(experiment: str | None = "demo", overrides: Sequence[str] = ()) -> Any:
    """The settings of a check as the command line composes them."""
    register_all()
    choice = "~experiment" if experiment is None else f"experiment={experiment}"
    return compose("check", [choice, *overrides])


def check(settings: Any, bar: Bar | None = None, directory: Path | None = None) -> Checked:
    """Judge the plan of composed settings.

    Parameters
    ----------
    bar : makes a progress bar for the simulation. directory : where its checkpoints go.

    Raises
    ------
    InputError : settings out of range, files that cannot be read, limits that contradict each other.
    """
    from time import perf_counter

    whole, plain = typed(settings, CheckCaseConfig)
    if whole.resume is not None:
        raise InputError(
            "check takes no resume=; a simulation that was stopped is resumed by: thermosim simulate"
        )
    _check_options(whole.check, whole.rules)
    own = {key: value for key, value in plain.items() if key not in ("rules", "check")}
    case = build.case_from(settings_from(own))
    begun = perf_counter()
    plan = plan_of(case, whole.rules)
    surfaces = plan.source.display_surfaces()
    config = case.config
    outcome = check_plan(
        plan,
        surfaces,
        config.tissue,
        whole.check.estimate_spacing_mm * MILLIMETRE,
        config.vessels.minimum_diameter_mm * MILLIMETRE,
    )
    seconds = perf_counter() - begun
    simulated = None
    if whole.check.simulate != "none":
        try:
            simulated = _simulate(own, whole.check, bar, directory)
        except InputError as error:  # say, needles that touch: the rules have said so
            outcome = outcome.without_simulation(f"the plan cannot be simulated: {error}")
        else:
            grid = simulated.simulation.anatomy.grid.spacing[0]
            how = f"simulated on a grid of {1e3 * grid:g} mm, its outputs lie in {SIMULATION_FOLDER}/"
            notes = [how, *simulated.outcome.notes]
            outcome = outcome.with_simulation(simulated.outcome.tumors, notes)
    return Checked(case, plain, outcome, surfaces, simulated, seconds)


def plan_of(case: build.Case, rules: RulesConfig) -> Plan:
    """Open the anatomy and place the needles of a case, without a box and without asking for gaps.

    Raises
    ------
    InputError : needles or protocols that cannot be, whatever the rules.
    """
    config = case.config
    source = build.anatomy_source(config.anatomy)
    electrodes = electrodes_from(config.layout, config.applicators, source.tumor_centers(), together=False)
    check_poses(config.layout, electrodes, source)
    protocol = Protocol.of(config.protocol, electrodes)
    return Plan(source, source.bodies(), electrodes, protocol, config.layout.pattern is None, rules)


def _check_options(check: CheckConfig, rules: RulesConfig) -> None:
    if check.simulate not in ("none", "quick", "full"):
        raise InputError(f"check.simulate={check.simulate!r} is not known; use none, quick or full")
    for key, value, low, high in (
        ("check.quick_spacing_mm", check.quick_spacing_mm, 0.5, 10.0),
        ("check.estimate_spacing_mm", check.estimate_spacing_mm, 0.5, 5.0),
        ("rules.zone.beside_mm", rules.zone.beside_mm, 1.0, 50.0),
        ("rules.zone.beyond_mm", rules.zone.beyond_mm, 0.0, 50.0),
        ("rules.zone.time_min", rules.zone.time_min, 0.1, 240.0),
    ):
        if not low <= value <= high:  # NaN fails too
            raise InputError(f"{key}={value:g} is refused; it must lie between {low:g} and {high:g}")


def _simulate(
    settings: dict[str, Any], check: CheckConfig, bar: Bar | None, directory: Path | None
) -> build.Result:
    """Simulate the plan, on a coarser grid where quick is enough."""
    own = settings_from(settings)
    if check.simulate == "quick":
        own.grid.spacing_mm = max(float(own.grid.spacing_mm), check.quick_spacing_mm)
    case = build.case_from(own)
    folder = None if directory is None else directory / SIMULATION_FOLDER
    try:
        if bar is None:
            result = build.simulate(case, directory=folder)
        else:
            with bar() as callback:
                result = build.simulate(case, callbacks=[callback], directory=folder)
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: thermosim simulate resume={folder}") from error
    if folder is not None:
        build.finish(folder)
    return result


def _job(job: Job) -> int:
    """One job: a whole check in its own output directory."""
    config = job.settings.output
    checked = check(job.settings, lambda: progress_bar(config.progress and not job.quiet), job.directory)
    files = checked.save(job.directory)
    say(_lines(checked, files, job.directory), job.label)
    return checked.exit_code


def _lines(checked: Checked, files: dict[str, Path], directory: Path) -> Iterator[str]:
    """A short table, the verdict, and where the files lie."""
    from thermosim.report.check_page import limits_in_words, value_in_words

    outcome = checked.outcome
    for result in outcome.results:
        finding = result.findings[0]
        verdict = result.verdict.upper().ljust(10)
        if finding.value is None:
            yield f"{verdict} {result.title}: {finding.sentence}"
            continue
        limits = limits_in_words(result)
        found = value_in_words(finding.value, result)
        more = sum(f.verdict == finding.verdict for f in result.findings) - 1
        others = f", {more} more alike" if more > 0 and finding.verdict in ("warn", "fail") else ""
        said = f"; {finding.sentence}{others}" if finding.verdict in ("warn", "fail") else ""
        yield f"{verdict} {result.title}: {found} (wanted {limits}){said}"
    counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items() if count)
    yield f"verdict: {outcome.verdict} ({counts}); exit code {checked.exit_code}"
    yield f"outputs: {directory}"
    if "report" in files:
        yield f"report: {files['report']}"
