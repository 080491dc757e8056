"""`thermosim simulate`: a treatment in its own output directory, or a sweep of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thermosim.commands.application import Job, SideBySide, progress_bar, run_application, say
from thermosim.errors import InputError, Interrupted, NumericalError

if TYPE_CHECKING:
    from thermosim.backends import Backend
    from thermosim.build import Anatomies, Case, Result


def command(words: list[str]) -> int:
    """`thermosim simulate`: a Hydra application."""
    from thermosim.config import register_schemas

    resumed = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if resumed and resumed[0] not in ("", "null"):
        if len(words) > 1:
            raise InputError("resume=DIRECTORY takes no other settings: the run goes on with its own")
        return _resume(Path(resumed[0].strip("'\"")).expanduser())
    register_schemas()
    words = ["~experiment" if word == "experiment=null" else word for word in words]
    return run_application("simulate", "config", _job, words, sweep=SideBySide(_case, _sweep))


def _case(job: Job) -> Case:
    from thermosim import build

    return build.case_from(job.settings)


def _job(job: Job) -> int:
    """One job: a whole simulation."""
    _run(_case(job), job.directory, label=job.label, quiet=job.quiet, turn=job.number)
    return 0


def _sweep(jobs: Sequence[tuple[Job, Case]]) -> dict[int, int]:
    from thermosim.commands.sweep import run_sweep

    return run_sweep(jobs)


def _resume(directory: Path) -> int:
    """Go on with an interrupted run, in its directory and with its own settings."""
    from thermosim import build

    _run(build.interrupted_case(directory), directory, resume=True)
    return 0


def _run(
    case: Case,
    directory: Path,
    *,
    label: str = "",
    quiet: bool = False,
    resume: bool = False,
    turn: int = 0,
    anatomies: Anatomies | None = None,
) -> None:
    """Simulate one case, write its outputs and say where they lie."""
    with progress_bar(case.config.output.progress and not quiet) as callback:
        result = simulated(
            case,
            directory,
            callbacks=[callback],
            resume=resume,
            turn=turn,
            announce=lambda text: say(iter([text]), label),
            anatomies=anatomies,
        )
    say(saved(result, directory), label)


def simulated(
    case: Case,
    directory: Path,
    *,
    callbacks: Sequence[Callable[[Any], None]] = (),
    resume: bool = False,
    turn: int = 0,
    announce: Callable[[str], None] | None = None,
    backend: Backend | None = None,
    anatomies: Anatomies | None = None,
) -> Result:
    """`build.simulate` with checkpoints in `directory`; errors say how to go on."""
    from thermosim import build

    try:
        return build.simulate(
            case,
            callbacks=callbacks,
            directory=directory,
            resume=resume,
            turn=turn,
            announce=announce,
            backend=backend,
            anatomies=anatomies,
        )
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: thermosim simulate resume={directory}") from error
    except NumericalError as error:
        raise NumericalError(f"{error}; what exists is kept in {directory}") from error
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {build.way_on(directory)}") from None


def saved(result: Result, directory: Path) -> Iterator[str]:
    """Write the outputs; lines that say what was found and where it lies."""
    from thermosim import build

    try:
        files = result.save(directory)
    except KeyboardInterrupt:
        text = "stopped while outputs were written, some are missing"
        raise Interrupted(f"{text}; {build.way_on(directory)}") from None
    build.finish(directory)
    return _closing_lines(result, files, directory)


def _closing_lines(result: Result, files: dict[str, Path], directory: Path) -> Iterator[str]:
    for tumor in result.outcome.tumors:
        yield (
            f"{tumor.name}: minimal ablative margin {round(1e3 * tumor.all_around.minimum, 1) + 0.0:.1f} mm, "
            f"{100 * tumor.coverage:.1f} % ablated, {1e6 * tumor.residual_volume:.2f} ml left alive "
            f"({result.outcome.criterion})"
        )
    yield f"outputs: {directory}"
    if "report" in files:
        yield f"report: {files['report']}"
