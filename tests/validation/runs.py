"""Runs cases in processes of their own and keeps what they gave under a digest of case and code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from validation.catalogue import FOLDER, Experiment, Run

import thermosim
from thermosim.build import load_case
from thermosim.resources import config_directory

RESULTS = FOLDER / "results"
PROGRAM = FOLDER / "run_case.py"
WORKERS = 2
"""Cases at a time; each computes with one thread, so that two cores are busy."""


@dataclass(frozen=True)
class Job:
    """One run with all that is to be read from it."""

    experiment: Experiment
    run: Run
    requests: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        return f"{self.experiment.id} {self.run.name}"

    def settings(self) -> dict[str, Any]:
        """The composed case without what has no influence on its figures."""
        return _settings(self.run.experiment, self.run.overrides)

    def digest(self) -> str:
        """Of the case and what is read from it, not of the code."""
        text = json.dumps([self.settings(), list(self.requests)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@cache
def _settings(experiment: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Composed once: Hydra takes a second for each."""
    case = load_case(experiment, list(overrides))
    return {k: v for k, v in case.settings.items() if k not in ("output", "backend", "resume", "title")}


def code_digest() -> str:
    """Of everything that computes: the package without its reports, and the kernels."""
    digest = hashlib.sha256()
    package = Path(thermosim.__file__).parent
    sources = [p for p in package.rglob("*.py") if "report" not in p.relative_to(package).parts]
    kernels = config_directory().parent / "kernels"
    for path in sorted([*sources, *kernels.glob("*"), FOLDER / "observe.py"]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def jobs_of(experiment: Experiment, variants: bool = True) -> list[Job]:
    """All runs of an experiment, those of its variants behind."""
    runs = [(run, run.name) for run in experiment.runs]
    if variants:
        runs += [(experiment.varied(variant), variant.run) for variant in experiment.variants]
    return [Job(experiment, run, requests_of(experiment, base)) for run, base in runs]


def requests_of(experiment: Experiment, run: str) -> tuple[dict[str, Any], ...]:
    """What the measurements on a run (or relative to it) ask for beyond the standard figures."""
    asked = []
    for one in experiment.measurements:
        if one.point_mm is not None and run in (one.run, one.relative_to):
            request: dict[str, Any] = {"quantity": one.quantity, "point_mm": list(one.point_mm)}
            if one.direction is not None:
                request["direction"] = list(one.direction)
            asked.append(request)
    return tuple(asked)


def load(digest: str, code: str, any_code: bool = False) -> dict[str, Any] | None:
    """What a case gave before, if with this code (or with any, where asked for)."""
    path = RESULTS / f"{digest}.json"
    if not path.is_file():
        return None
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored if any_code or stored["code"] == code else None


def stored_results(jobs: list[Job], code: str, any_code: bool = False) -> dict[str, dict[str, Any]]:
    """What is stored of jobs, without running any."""
    found = {job.name: load(job.digest(), code, any_code) for job in jobs}
    return {name: stored for name, stored in found.items() if stored is not None}


def run_all(jobs: list[Job], code: str, any_code: bool = False) -> dict[str, dict[str, Any]]:
    """Run what has not been run; results by the job's name.

    Raises
    ------
    RuntimeError
        After all others have run, with a line for each case that crashed.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    # Hydra composes in a global of its own: all digests are taken before anything runs side by side.
    digests = {job.name: job.digest() for job in jobs}
    failures: list[str] = []

    def one(job: Job) -> tuple[str, dict[str, Any] | None]:
        stored = load(digests[job.name], code, any_code)
        if stored is None:
            try:
                stored = _run(job, digests[job.name], code)
            except RuntimeError as error:
                failures.append(f"{job.name}: {error}")
                return job.name, None
            print(f"{job.name}: {stored['observed']['seconds']:.0f} s", flush=True)
        return job.name, stored

    with ThreadPoolExecutor(WORKERS) as pool:
        results = dict(pool.map(one, jobs))
    if failures:
        raise RuntimeError("\n".join(failures))
    return {name: stored for name, stored in results.items() if stored is not None}


def _run(job: Job, digest: str, code: str) -> dict[str, Any]:
    order = {"experiment": job.run.experiment, "overrides": list(job.run.overrides)}
    order["requests"] = list(job.requests)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, str(PROGRAM)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit code {ended.returncode}: {last}")
    stored = {"name": job.name, "code": code, "observed": json.loads(ended.stdout)}
    path = RESULTS / f"{digest}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(stored))
    part.replace(path)
    return stored
