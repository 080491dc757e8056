"""The `thermosim` command; each subcommand is a thin call."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig

from thermosim import __version__
from thermosim.errors import InputError, Interrupted, NumericalError, ThermosimError

HELP = """thermosim: radiofrequency ablation of liver tumours (a research tool, not a medical device)

  thermosim simulate [key=value ...]   simulate a treatment; --multirun sweeps, --help lists all groups
  thermosim fetch DATASET [--list]     download a public data set of anatomy
  thermosim doctor [key=value ...]     what works on this machine, and the memory a grid takes
  thermosim --version
  thermosim --help

Without settings `thermosim simulate` runs the demo. Examples:
  thermosim simulate grid.spacing_mm=2 vessels=occluded output.directory=results
  thermosim simulate --multirun grid.spacing_mm=1,2
  thermosim simulate resume=results
"""

UNEXPECTED = 1
BAD_INPUT = 2
STOPPED = 130


class JobFailed(Exception):
    """One job of a sweep failed; its line is printed already."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code.

    0: done; 2: refused input or backend; 3: numerical failure; 130: stopped by the user; 1: a defect.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "simulate": _simulate,
        "fetch": _fetch,
        "doctor": _doctor,
    }
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0 if words else BAD_INPUT
    if words[0] in ("--version", "-V"):
        print(f"thermosim {__version__}")
        return 0
    if words[0] not in commands:
        return _refuse(InputError(f"{words[0]!r} is no subcommand; use {', '.join(commands)}, or --help"))
    try:
        return commands[words[0]](words[1:])
    except JobFailed as error:
        return error.exit_code
    except KeyboardInterrupt:
        print("thermosim: stopped", file=sys.stderr)
        return STOPPED
    except Exception as error:
        return _refuse(error)


def _refuse(error: Exception, job: str = "") -> int:
    """Print one line on stderr and return the exit code that goes with the error."""
    if os.environ.get("THERMOSIM_DEBUG") == "1" and not isinstance(error, ThermosimError):
        raise error
    code, text = _explain(error)
    print(f"thermosim: error: {job}{text}", file=sys.stderr, flush=True)
    return code


def _explain(error: Exception) -> tuple[int, str]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from thermosim.build import composition_message

    if isinstance(error, ThermosimError):
        return error.exit_code, " ".join(str(error).split())
    if isinstance(error, HydraException | OmegaConfBaseException):
        return BAD_INPUT, composition_message(error)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return BAD_INPUT, f"{name}{error.strerror}"
    if isinstance(error, MemoryError):
        return BAD_INPUT, "memory ran out; raise grid.spacing_mm or shrink grid.size_mm"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return UNEXPECTED, f"this is a defect, please report it with the output of THERMOSIM_DEBUG=1: {text}"


# ---------------------------------------------------------------------------- simulate


def _simulate(words: list[str]) -> int:
    """`thermosim simulate`: a Hydra application."""
    from hydra import main as hydra_main

    from thermosim.config import register_schemas
    from thermosim.resources import config_directory

    resumed = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if resumed and resumed[0] not in ("", "null"):
        if len(words) > 1:
            raise InputError("resume=DIRECTORY takes no other settings: the run goes on with its own")
        return _resume(Path(resumed[0].strip("'\"")).expanduser())
    if _is_sweep(words) and not any(word.startswith("output.directory=") for word in words):
        words = [*words, "output.directory=multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"]
    register_schemas()
    application = hydra_main(version_base="1.3", config_path=str(config_directory()), config_name="config")(
        _job
    )
    words = ["~experiment" if word == "experiment=null" else word for word in words]
    words = sorted(words, key=_is_setting)  # Hydra wants flags first; the order is the user's otherwise
    with _hydra_speaks_plainly(["thermosim simulate", *words]):
        try:
            application()
        except ValueError as error:  # Hydra's way to refuse, say, vessels=null; jobs never raise it
            emptied = [word for word in words if word.endswith(("=null", "="))]
            hint = f"{emptied[0]}: a group needs one of its options; " if emptied else ""
            raise InputError(hint + " ".join(str(error).split())) from error
        except OSError as error:  # the output directory cannot be made; jobs never raise it
            if not error.strerror:  # Hydra's own errors are among these, too
                raise
            raise InputError(
                f"the output directory {error.filename} cannot be made ({error.strerror}); "
                "choose another one with output.directory="
            ) from error
    return 0


def _is_setting(word: str) -> bool:
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def _is_sweep(words: list[str]) -> bool:
    return any(word in ("--multirun", "-m", "hydra.mode=MULTIRUN") for word in words)


@contextlib.contextmanager
def _hydra_speaks_plainly(arguments: list[str]) -> Iterator[None]:
    """Give Hydra its arguments; make it raise its errors instead of printing them its own way."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = arguments, "1"
    try:
        with contextlib.redirect_stderr(_WithoutEcho(sys.stderr)):
            yield
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


class _WithoutEcho:
    """stderr less what Hydra adds to a line that has said why already: an echo, and the usage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if text.startswith(("Error executing job with overrides:", "usage:")):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _job(settings: DictConfig) -> None:
    """One job of Hydra: a whole simulation in its own output directory."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from thermosim import build

    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    sweep = job.mode == RunMode.MULTIRUN
    label = f"job {job.job.num}: " if sweep else ""
    parallel = "basic_launcher" not in str(job.launcher.get("_target_"))
    try:
        _run(build.case_from(settings), directory, label=label, quiet=sweep and parallel)
    except Exception as error:
        code = _refuse(error, label)
        with contextlib.suppress(OSError):
            directory.rmdir()  # only if nothing was written
        if sweep and not (isinstance(error, Interrupted) and not parallel):
            raise JobFailed(code) from None
        raise SystemExit(code) from None


def _resume(directory: Path) -> int:
    """Go on with an interrupted run, in its directory and with its own settings."""
    from thermosim import build

    case = build.interrupted_case(directory)
    _run(case, directory, resume=True)
    return 0


def _run(case: Any, directory: Path, *, label: str = "", quiet: bool = False, resume: bool = False) -> None:
    """Simulate one case, write its outputs and say where they lie."""
    from thermosim import build

    try:
        with _progress_bar(case.config.output.progress and not quiet) as callback:
            result = build.simulate(case, callbacks=[callback], directory=directory, resume=resume)
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: thermosim simulate resume={directory}") from error
    except NumericalError as error:
        raise NumericalError(f"{error}; what exists is kept in {directory}") from error
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {build.way_on(directory)}") from None
    try:
        files = result.save(directory)
    except KeyboardInterrupt:
        text = "stopped while outputs were written, some are missing"
        raise Interrupted(f"{text}; {build.way_on(directory)}") from None
    build.finish(directory)
    try:
        for line in _closing_lines(result, files, directory):
            print(f"{label}{line}", flush=True)
    except BrokenPipeError:  # whoever read the lines has heard enough; the run is whole
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _closing_lines(result: Any, files: dict[str, Path], directory: Path) -> Iterator[str]:
    for tumor in result.outcome.tumors:
        yield (
            f"{tumor.name}: minimal ablative margin {round(1e3 * tumor.all_around.minimum, 1) + 0.0:.1f} mm, "
            f"{100 * tumor.coverage:.1f} % ablated, {1e6 * tumor.residual_volume:.2f} ml left alive "
            f"({result.outcome.criterion})"
        )
    yield f"outputs: {directory}"
    if "report" in files:
        yield f"report: {files['report']}"


@contextlib.contextmanager
def _progress_bar(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """A bar over simulated time, on a terminal only."""
    from tqdm import tqdm

    hidden = not wanted or not sys.stderr.isatty()
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=0, disable=hidden, bar_format=form, desc="treatment") as bar:

        def show(progress: Any) -> None:
            if hidden:
                return
            bar.total = progress.duration
            bar.set_postfix_str(
                f"{progress.hottest_temperature:.0f} °C, {progress.power:.0f} W, "
                f"{1e-6 * progress.cell_updates_per_second:.0f} Mcell/s",
                refresh=False,
            )
            bar.update(progress.time - bar.n)

        yield show


# ---------------------------------------------------------------------------- fetch, doctor


def _fetch(words: list[str]) -> int:
    """`thermosim fetch DATASET`."""
    from thermosim.anatomy import datasets

    if not words or words[0] in ("--help", "-h", "--list"):
        print("thermosim fetch DATASET [directory=PATH]: download a public data set and check its digests")
        print("data sets:", ", ".join(sorted(datasets.DATASETS)))
        return 0 if words else BAD_INPUT
    destination = None
    for word in words[1:]:
        key, separator, value = word.partition("=")
        if key != "directory" or not separator or not value:
            raise InputError(f"{word!r} is not known to fetch; only directory=PATH is")
        destination = Path(value).expanduser()
    print(datasets.fetch(words[0], destination))
    return 0


def _doctor(words: list[str]) -> int:
    """`thermosim doctor [key=value ...]`."""
    from thermosim.build import load_case
    from thermosim.doctor import examine

    if words and words[0] in ("--help", "-h"):
        print("thermosim doctor [key=value ...]: what works here, and the memory the grid of that case takes")
        return 0
    flags = [word for word in words if "=" not in word]
    if flags:
        raise InputError(
            f"{flags[0]!r} is not known to doctor; it takes settings such as grid.spacing_mm=0.5"
        )
    experiments = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    others = [word for word in words if not word.startswith("experiment=")]
    case = load_case(experiments[-1] if experiments else "demo", others)
    for line in examine(case):
        print(line)
    return 0
