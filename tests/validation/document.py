"""Runs the published experiments and writes docs/validation.md with its plots.

`make validation`, or `python tests/validation/document.py [--only E1,E3] [--any-code]`. Results are kept
by the digest of case and code, so a run that was stopped goes on where it was. Exit code 0 also where
predictions miss; 1 where a case crashes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from validation import pages, plots
from validation.catalogue import Experiment, Measurement, load_calibration, load_experiments
from validation.observe import value
from validation.runs import code_digest, jobs_of, requests_of, run_all, stored_results
from validation.score import Score

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "validation.md"
IMAGES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Row:
    """One line of the scoreboard."""

    experiment: Experiment
    measurement: Measurement
    score: Score
    observed: dict[str, Any]

    @property
    def is_case(self) -> bool:
        """Whether it counts: a prediction, and no by-product."""
        return self.experiment.role == "prediction" and not self.measurement.second


def predicted(experiment: Experiment, one: Measurement, results: dict[str, dict[str, Any]]) -> float:
    """What the runs of an experiment say about one measurement."""

    def of(run: str) -> float:
        return value(
            results[f"{experiment.id} {run}"]["observed"], one.quantity, answer_of(experiment, one, run)
        )

    return of(one.run) / of(one.relative_to) if one.relative_to is not None else of(one.run)


def answer_of(experiment: Experiment, one: Measurement, run: str) -> int | None:
    """The place of a measurement's answer among those its run was asked for."""
    if one.point_mm is None:
        return None
    wanted: dict[str, Any] = {"quantity": one.quantity, "point_mm": list(one.point_mm)}
    if one.direction is not None:
        wanted["direction"] = list(one.direction)
    return requests_of(experiment, run).index(wanted)


def rows_of(experiments: list[Experiment], results: dict[str, dict[str, Any]]) -> list[Row]:
    """The scoreboard."""
    rows = []
    for experiment in experiments:
        for one in experiment.measurements:
            score = Score(one.mean, one.scale, predicted(experiment, one, results), one.at_most)
            rows.append(Row(experiment, one, score, results[f"{experiment.id} {one.run}"]["observed"]))
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="ids of experiments, comma separated; the document is not written")
    parser.add_argument("--any-code", action="store_true", help="take results of other code, and say so")
    parser.add_argument("--no-variants", action="store_true", help="leave out variants not run before")
    chosen = parser.parse_args(arguments)
    begun = time.perf_counter()
    experiments = load_experiments()
    if chosen.only:
        wanted = chosen.only.split(",")
        experiments = [e for e in experiments if e.id in wanted]
        if len(experiments) < len(wanted):
            parser.error(f"--only {chosen.only}: not all of them are in experiments.yaml")
    code = code_digest()
    jobs = [job for e in experiments for job in jobs_of(e, not chosen.no_variants)]
    print(f"{len(jobs)} runs, code {code}", flush=True)
    try:
        results = run_all(jobs, code, chosen.any_code)
        if chosen.no_variants:
            known = [job for experiment in experiments for job in jobs_of(experiment)]
            results |= stored_results(known, code, chosen.any_code)
    except RuntimeError as error:
        print(f"thermosim: error: a case crashed\n{error}", file=sys.stderr)
        return 1
    rows = rows_of(experiments, results)
    print(pages.plain_table(rows))
    if chosen.only:
        return 0
    IMAGES.mkdir(parents=True, exist_ok=True)
    plots.parity(rows, IMAGES / "validation_parity.png")
    plots.deviations(rows, IMAGES / "validation_deviations.png")
    text = pages.document(rows, experiments, load_calibration(), results, code)
    part = DOCUMENT.with_suffix(".part")
    part.write_text(text)
    part.replace(DOCUMENT)
    print(f"{DOCUMENT.relative_to(ROOT)} written after {time.perf_counter() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
