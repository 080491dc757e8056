"""`thermosim study perturb`: a plan as it may turn out, many times over."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thermosim import __version__
from thermosim.batch import Finished, n_together, n_workers, run_batch
from thermosim.build import Anatomies, Case, case_within, lay_out
from thermosim.commands.application import Job, run_application, say
from thermosim.composition import register, typed
from thermosim.config import register_schemas
from thermosim.config_perturb import PerturbConfig
from thermosim.errors import InputError, Interrupted, NumericalError
from thermosim.report.study_samples import Row, Samples
from thermosim.study.perturbation import Draw, draw, percentiles, perturbed, probability
from thermosim.units import MILLIMETRE

if TYPE_CHECKING:
    from thermosim.config import LayoutConfig
    from thermosim.outcome.results import Outcome
    from thermosim.simulation import SimulationResult

FILES = ("anatomy.path", "layout.path")
MOST_SAMPLES = 1_000_000
LARGEST_ERROR_MM = 50.0
LARGEST_VARIATION = 2.0
OF_THE_STUDY = ("n", "workers", "together", "margins_mm", "backend", "output", "resume", "title")
"""Keys that may change when a study goes on."""


def command(words: list[str]) -> int:
    """`thermosim study perturb key=value ...`; returns its exit code."""
    if not words or words[0] in ("--help", "-h"):
        print("thermosim study perturb [key=value ...]: how a plan's margin is spread; --help lists its keys")
        return 0 if words else 2
    if words[0] != "perturb":
        raise InputError(f"{words[0]!r} is no study; use perturb")
    register_schemas()
    register({"perturb_schema": PerturbConfig})
    return run_application("study perturb", "perturb", _job, words[1:], FILES)


def _job(job: Job) -> int:
    try:
        found = study_of(job.settings, job.directory, progress=not job.quiet)
    except (KeyboardInterrupt, Interrupted):
        text = f"stopped; what is done is kept in {job.directory}, the same command goes on from there"
        raise Interrupted(text) from None
    say(_closing_lines(found, job.directory), job.label)
    return 0


# ---------------------------------------------------------------------------- the study


@dataclass(frozen=True)
class Plan:
    """A case whose box stays where it is, its needles one by one, and what is drawn around it."""

    config: PerturbConfig
    case: Case
    layout: LayoutConfig
    anatomies: Anatomies
    tumors: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """Of samples.csv."""
        names = ["sample", "status"]
        names += [f"{needle.name}_d{axis}_mm" for needle in self.layout.needles for axis in "xyz"]
        names += ["perfusion_factor", "output_factor"]
        for tissue in self.config.spread.tissues:
            names += [f"{tissue}_sigma_factor", f"{tissue}_k_factor"]
        names.append("zone_volume_ml")
        for tumor in self.tumors:
            names += [f"{tumor}_minimal_margin_mm", f"{tumor}_coverage", f"{tumor}_residual_volume_ml"]
        return names


def study_of(settings: Any, directory: Path, progress: bool = False) -> dict[str, Any]:
    """Run what is missing of a study in `directory`, write its files and return its summary.

    Raises
    ------
    InputError
        For values that make no sense, or a directory that holds another study.
    """
    plan = plan_of(settings)
    workers = n_workers(
        plan.case, plan.config.workers, plan.config.n + 1
    )  # refuses what does not work here before any file
    n_together(plan.case, plan.config.together, workers)
    directory.mkdir(parents=True, exist_ok=True)
    _claim(directory, plan)
    with Samples(directory / "samples.csv", plan.columns) as samples:
        missing = [number for number in range(plan.config.n + 1) if number not in samples.rows]
        draws = {}

        def cases() -> Iterator[Case]:
            for number in missing:
                one = draw(number, plan.config.seed, len(plan.layout.needles), plan.config.spread)
                draws[number] = one
                config = perturbed(plan.case.config, plan.layout, one)
                yield Case(config, plan.case.settings)

        batch = run_batch(
            cases(),
            keep=figures,
            workers=workers,
            together=plan.config.together,
            criteria=(),
            anatomies=plan.anatomies,
        )
        for one in _watched(batch, len(missing), progress):
            number = missing[one.number]
            if number == 0 and one.error is not None:
                raise one.error  # the plan itself does not work
            samples.add(_row(plan, draws.pop(number), one))
        rows = [samples.rows[number] for number in sorted(samples.rows) if number <= plan.config.n]
    summary = summarize(plan, rows)
    _write(directory, plan, summary, rows)
    return summary


def plan_of(settings: Any) -> Plan:
    """The typed and checked study, its anatomy opened and its box fixed."""
    case = case_within(settings)
    config, _ = typed(settings, PerturbConfig)
    _check(config)
    anatomies = Anatomies()
    laid = lay_out(case, anatomies)
    from thermosim.applicators.layout import in_patient_frame

    tumors = laid.source.tumor_centers()
    layout = in_patient_frame(case.config.layout, case.config.applicators, tumors)
    # the box of the plan serves all: the anatomy is laid on it once
    h, lower, shape = laid.grid.spacing[0], laid.grid.lower_corner, laid.grid.shape
    box = case.config.grid
    box.size_mm = [n * h / MILLIMETRE for n in shape]
    box.center_mm = [float(a + 0.5 * n * h) / MILLIMETRE for a, n in zip(lower, shape, strict=True)]
    return Plan(config, case, layout, anatomies, tuple(tumors))


def _check(config: PerturbConfig) -> None:
    if not 1 <= config.n <= MOST_SAMPLES:
        raise InputError(f"n={config.n} must lie between 1 and {MOST_SAMPLES:,}")
    if not 0 <= config.seed < 2**63:
        raise InputError(f"seed={config.seed} must be 0 or more")
    if config.resume is not None:
        raise InputError("resume= is for single runs; a study goes on when its command is given again")
    if config.workers < 0:
        raise InputError(f"workers={config.workers} must be 0 (as many as fit) or more")
    if config.together < 0:
        raise InputError(f"together={config.together} must be 0 (as many as fit) or more")
    if not config.margins_mm or not all(math.isfinite(m) for m in config.margins_mm):
        raise InputError(f"margins_mm={config.margins_mm} must name at least one finite margin")
    spread = config.spread
    for key in ("targeting_error_mm", "common_error_mm"):
        value = getattr(spread, key)
        if not 0.0 <= value <= LARGEST_ERROR_MM:
            raise InputError(f"spread.{key}={value:g} mm must lie between 0 and {LARGEST_ERROR_MM:g} mm")
    for entry in fields(spread):
        value = getattr(spread, entry.name)
        if entry.name.endswith("_cv") and not 0.0 <= value <= LARGEST_VARIATION:
            raise InputError(f"spread.{entry.name}={value:g} must lie between 0 and {LARGEST_VARIATION:g}")
    for name in spread.tissues:
        if name not in config.tissue.tissues:
            known = ", ".join(config.tissue.tissues)
            raise InputError(f"spread.tissues: there is no tissue {name!r}; the case has {known}")
    if len(set(spread.tissues)) < len(spread.tissues):
        raise InputError(f"spread.tissues={spread.tissues} names a tissue twice")


def figures(run: SimulationResult, outcome: Outcome) -> dict[str, float]:
    """What a study keeps of a case, by column."""
    found = {"zone_volume_ml": 1e6 * outcome.zones[outcome.criterion].volume}
    for tumor in outcome.tumors:
        found[f"{tumor.name}_minimal_margin_mm"] = tumor.all_around.minimum / MILLIMETRE
        found[f"{tumor.name}_coverage"] = tumor.coverage
        found[f"{tumor.name}_residual_volume_ml"] = 1e6 * tumor.residual_volume
    return found


def _row(plan: Plan, one: Draw, end: Finished[dict[str, float]]) -> Row:
    status = "done"
    if end.error is not None:
        status = "failed" if isinstance(end.error, NumericalError) else "refused"
    values: dict[str, Any] = {"perfusion_factor": one.perfusion, "output_factor": one.output}
    for needle, shift in zip(plan.layout.needles, one.shifts.tolist(), strict=True):
        values |= {f"{needle.name}_d{axis}_mm": v for axis, v in zip("xyz", shift, strict=True)}
    for tissue in plan.config.spread.tissues:
        values |= {
            f"{tissue}_sigma_factor": one.electrical[tissue],
            f"{tissue}_k_factor": one.thermal[tissue],
        }
    values |= end.kept or {}
    row = {name: repr(float(values[name])) if name in values else "" for name in plan.columns}
    return {**row, "sample": str(one.number), "status": status}


# ---------------------------------------------------------------------------- what it says


def summarize(plan: Plan, rows: list[Row]) -> dict[str, Any]:
    """The figures of summary.json: probabilities and percentiles over the perturbed cases that ended well."""
    plain, drawn = rows[0], rows[1:]
    done = [row for row in drawn if row["status"] == "done"]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in done if row[name]]

    tumors = {}
    for tumor in plan.tumors:
        margins = column(f"{tumor}_minimal_margin_mm")
        tumors[tumor] = {
            "planned_minimal_margin_mm": _number(plain[f"{tumor}_minimal_margin_mm"]),
            "probability_of_margin": {
                f"{wanted:g} mm": asdict(probability(sum(m >= wanted for m in margins), len(margins)))
                for wanted in plan.config.margins_mm
            }
            if margins
            else {},
            "minimal_margin_mm": percentiles(margins),
            "coverage": percentiles(column(f"{tumor}_coverage")),
            "residual_volume_ml": percentiles(column(f"{tumor}_residual_volume_ml")),
        }
    return {
        "thermosim": __version__,
        "note": "A research tool, not a medical device.",
        "title": plan.config.title,
        "criterion": plan.config.damage.criterion,
        "seed": plan.config.seed,
        "cases": {
            "drawn": len(drawn),
            "done": len(done),
            "refused": sum(row["status"] == "refused" for row in drawn),
            "failed": sum(row["status"] == "failed" for row in drawn),
        },
        "planned_zone_volume_ml": _number(plain["zone_volume_ml"]),
        "zone_volume_ml": percentiles(column("zone_volume_ml")),
        "tumors": tumors,
        "spread": asdict(plan.config.spread),
    }


def _number(text: str) -> float | None:
    return float(text) if text else None


def _closing_lines(summary: dict[str, Any], directory: Path) -> Iterator[str]:
    cases = summary["cases"]
    for name, tumor in summary["tumors"].items():
        planned = tumor["planned_minimal_margin_mm"]
        yield f"{name}: planned minimal ablative margin {_mm(planned)}"
        if tumor["minimal_margin_mm"]:
            p = tumor["minimal_margin_mm"]
            yield f"  as it may turn out: median {p['50']:.1f} mm, 5 % below {p['5']:.1f} mm"
        for wanted, share in tumor["probability_of_margin"].items():
            low, high = 100 * share["low"], 100 * share["high"]
            yield (
                f"  margin of at least {wanted}: {100 * share['share']:.0f} % of cases "
                f"(95 % interval {low:.0f} to {high:.0f} %)"
            )
    left_out = cases["refused"] + cases["failed"]
    if left_out:
        yield (
            f"{left_out} of {cases['drawn']} cases count nowhere: {cases['refused']} with needles that "
            f"touch or leave the box, {cases['failed']} that did not converge"
        )
    yield f"outputs: {directory}"


def _mm(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} mm"


# ---------------------------------------------------------------------------- files


def _claim(directory: Path, plan: Plan) -> None:
    """Refuse a directory that holds another study; say in a new one which it is."""
    from thermosim.backends.base import kernel_digest
    from thermosim.report.atomic import write_text

    settings = {key: value for key, value in asdict(plan.config).items() if key not in OF_THE_STUDY}
    text = json.dumps([settings, kernel_digest(), __version__], sort_keys=True, default=str)
    mine = hashlib.sha256(text.encode()).hexdigest()
    path = directory / "study.json"
    if path.is_file():
        try:
            there = json.loads(path.read_text()).get("fingerprint")
        except (ValueError, AttributeError):
            there = None
        if there != mine:
            raise InputError(
                f"{directory} holds another study (its case, spread, seed or this program have changed); "
                "choose another output.directory"
            )
        return
    if (directory / "samples.csv").exists():
        raise InputError(f"{directory} has a samples.csv of unknown origin; choose another output.directory")
    write_text(path, json.dumps({"fingerprint": mine}) + "\n")


def _write(directory: Path, plan: Plan, summary: dict[str, Any], rows: list[Row]) -> None:
    from thermosim.report.atomic import write_text
    from thermosim.report.provenance import Anonymizer, yaml_text
    from thermosim.report.study_chart import write_margins

    write_text(
        directory / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    settings = asdict(plan.config)
    write_text(directory / "config.yaml", yaml_text(Anonymizer(settings).config(settings)))
    margins = {
        tumor: [
            float(row[f"{tumor}_minimal_margin_mm"])
            for row in rows[1:]
            if row["status"] == "done" and row[f"{tumor}_minimal_margin_mm"]
        ]
        for tumor in plan.tumors
    }
    planned = {tumor: _number(rows[0][f"{tumor}_minimal_margin_mm"]) for tumor in plan.tumors}
    write_margins(directory / "margins.png", margins, planned, plan.config.margins_mm)


def _watched(
    batch: Iterator[Finished[dict[str, float]]], total: int, wanted: bool
) -> Iterator[Finished[dict[str, float]]]:
    """The batch with a bar on a terminal."""
    import sys

    from tqdm import tqdm

    hidden = not wanted or not sys.stderr.isatty()
    yield from tqdm(batch, total=total, disable=hidden, desc="cases", unit="case")
