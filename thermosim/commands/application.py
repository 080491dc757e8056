"""What every subcommand shares: a Hydra application of its own, and errors in one line.

A subcommand is a root config `configs/<root>.yaml` with a typed schema, and a function from `Job` to an
exit code. `run_application` gives it overrides, `--help`, `--cfg job`, `--multirun` and plain errors.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from omegaconf import DictConfig

from thermosim.composition import composition_message
from thermosim.errors import InputError, Interrupted, ThermosimError

UNEXPECTED = 1
BAD_INPUT = 2
STOPPED = 130


class JobFailed(Exception):
    """One job of a sweep failed; its line is printed already."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """One job of an application.

    `settings` as composed; `directory` made for its outputs; `label` to put before each line ("job 3: "
    in a sweep, else nothing); `quiet`: jobs run side by side, so no progress bars; `number` in a sweep.
    """

    settings: DictConfig
    directory: Path
    label: str
    quiet: bool
    number: int = 0


Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class SideBySide(Generic[Prepared]):
    """How the jobs of a sweep run together, where the user has chosen no launcher of Hydra's for them.

    `prepare`: what a job needs, while Hydra's own values are at hand; it may refuse the job. `run`: all jobs
    with that, to exit codes by number; it prints what they say.
    """

    prepare: Callable[[Job], Prepared]
    run: Callable[[Sequence[tuple[Job, Prepared]]], dict[int, int]]


def run_application(
    command: str,
    root: str,
    run: Callable[[Job], int],
    words: list[str],
    files: Collection[str] = (),
    sweep: SideBySide[Any] | None = None,
) -> int:
    """Run a subcommand as a Hydra application; returns its exit code.

    Parameters
    ----------
    command : its name after `thermosim`.
    root : the root config's name in `configs/`; its schemas are registered already.
    run : does one job, a function of a module. What it returns other than 0 is no error but a verdict
        of its own; jobs of a sweep go on after it, and the highest one becomes the exit code.
    words : the words after the subcommand's name.
    files : keys that take the name of a file; an existing file needs no quotes whatever its name is.
    sweep : runs the jobs of a sweep together; None: one after another.
    """
    from hydra import main as hydra_main

    from thermosim.resources import config_directory

    words = [_quoted(word, files) for word in words]
    if _is_sweep(words) and not any(word.startswith("output.directory=") for word in words):
        words = [*words, "output.directory=multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"]
    words = sorted(words, key=_is_setting)  # Hydra wants flags first; the order is the user's otherwise
    with (
        tempfile.TemporaryDirectory() as verdicts,
        _hydra_speaks_plainly([f"thermosim {command}", *words]),
        _composed_once(words),
    ):
        prepared: list[tuple[Job, Any]] = []
        codes: dict[int, int] = {}

        def job(settings: DictConfig) -> None:
            if sweep is not None and _is_plain_sweep():
                _prepare_job(settings, sweep, prepared, codes)
            else:
                _run_job(settings, run, Path(verdicts))

        application = hydra_main(version_base="1.3", config_path=str(config_directory()), config_name=root)
        try:
            application(job)()
        except ValueError as error:  # Hydra's way to refuse, say, vessels=null; jobs never raise it
            emptied = [word for word in words if word.endswith(("=null", "="))]
            hint = f"{emptied[0]}: a group needs one of its options; " if emptied else ""
            raise InputError(hint + " ".join(str(error).split())) from error
        except OSError as error:  # the output directory cannot be made; jobs never raise it
            if not (
                error.strerror and error.filename
            ):  # Hydra's own errors are among these, broken pipes, too
                raise
            raise InputError(
                f"the output directory {error.filename} cannot be made ({error.strerror}); "
                "choose another one with output.directory="
            ) from error
        if sweep is None or not (prepared or codes):
            return max((int(path.name) for path in Path(verdicts).iterdir()), default=0)
    codes |= sweep.run(prepared) if prepared else {}
    failures = [codes[number] for number in sorted(codes) if codes[number]]
    return STOPPED if STOPPED in failures else next(iter(failures), 0)


def _is_plain_sweep() -> bool:
    """Whether this is a sweep whose jobs Hydra would run one after another."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    known = HydraConfig.get()
    return known.mode == RunMode.MULTIRUN and "basic_launcher" in str(known.launcher.get("_target_"))


def _prepare_job(
    settings: DictConfig,
    sweep: SideBySide[Any],
    prepared: list[tuple[Job, Any]],
    codes: dict[int, int],
) -> None:
    """A job of a sweep is made ready, or refused in one line."""
    from hydra.core.hydra_config import HydraConfig

    known = HydraConfig.get()
    number = int(known.job.num)
    job = Job(settings, Path(known.runtime.output_dir), f"job {number}: ", quiet=True, number=number)
    try:
        prepared.append((job, sweep.prepare(job)))
    except Exception as error:
        codes[number] = refuse(error, job.label)
        with contextlib.suppress(OSError):
            job.directory.rmdir()


def _run_job(settings: DictConfig, run: Callable[[Job], int], verdicts: Path) -> None:
    """One job of Hydra in its own output directory."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    known = HydraConfig.get()
    directory = Path(known.runtime.output_dir)
    sweep = known.mode == RunMode.MULTIRUN
    label = f"job {known.job.num}: " if sweep else ""
    parallel = "basic_launcher" not in str(known.launcher.get("_target_"))
    try:
        number = int(known.job.num) if sweep else 0
        code = run(Job(settings, directory, label, quiet=sweep and parallel, number=number))
    except Exception as error:
        code = refuse(error, label)
        with contextlib.suppress(OSError):
            directory.rmdir()  # only if nothing was written
        if sweep and not (isinstance(error, Interrupted) and not parallel):
            raise JobFailed(code) from None
        raise SystemExit(code) from None
    (verdicts / str(code)).touch()  # jobs may run in other processes


def refuse(error: Exception, label: str = "") -> int:
    """Print one line on stderr and return the exit code that goes with the error.

    Ctrl-C while settings are composed may come out as an error of Hydra's; it is Ctrl-C all the same.
    """
    if not isinstance(error, Interrupted) and _was_interrupted(error):
        raise KeyboardInterrupt from None
    if os.environ.get("THERMOSIM_DEBUG") == "1" and not isinstance(error, ThermosimError):
        raise error
    code, text = explain(error)
    print(f"thermosim: error: {label}{text}", file=sys.stderr, flush=True)
    return code


def _was_interrupted(error: BaseException) -> bool:
    """Whether a KeyboardInterrupt led to this error."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and not any(cause is other for other in seen):
            seen.append(cause)
            waiting += [cause.__cause__, cause.__context__]
    return any(isinstance(cause, KeyboardInterrupt) for cause in seen)


def say(lines: Iterator[str], label: str = "") -> None:
    """Print the closing lines of a job; whoever reads them may stop listening."""
    try:
        for line in lines:
            print(f"{label}{line}", flush=True)
    except BrokenPipeError:  # the job is whole all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """A bar over simulated time, on a terminal only."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from tqdm import tqdm  # slow to import, and mostly nobody looks

    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=0, bar_format=form, desc="treatment") as bar:

        def show(progress: Any) -> None:
            bar.total = progress.duration
            bar.set_postfix_str(
                f"{progress.hottest_temperature:.0f} °C, {progress.power:.0f} W, "
                f"{1e-6 * progress.cell_updates_per_second:.0f} Mcell/s",
                refresh=False,
            )
            bar.update(progress.time - bar.n)

        yield show


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and line of an error."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, ThermosimError):
        return error.exit_code, " ".join(str(error).split())
    if isinstance(error, HydraException | OmegaConfBaseException):
        return BAD_INPUT, composition_message(error)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return BAD_INPUT, f"{name}{error.strerror}"
    if isinstance(error, MemoryError):
        return BAD_INPUT, "memory ran out; raise grid.spacing_mm or shrink grid.size_mm, or crop the images"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return UNEXPECTED, f"this is a defect, please report it with the output of THERMOSIM_DEBUG=1: {text}"


def _quoted(word: str, files: Collection[str]) -> str:
    """`key=name of a file (1).nii` as Hydra wants it, where `key` takes files and that file exists."""
    key, separator, value = word.partition("=")
    if not separator or key.lstrip("+") not in files or not value or value[0] in "'\"":
        return word
    path = Path(value).expanduser()
    if not path.exists():
        return word
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{text}'"


def _is_setting(word: str) -> bool:
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def _is_sweep(words: list[str]) -> bool:
    return any(word in ("--multirun", "-m", "hydra.mode=MULTIRUN") for word in words)


@contextlib.contextmanager
def _composed_once(words: list[str]) -> Iterator[None]:
    """Spare Hydra a second composition, which only asks for `hydra.mode`: none of our configs sets it."""
    from hydra._internal.hydra import Hydra
    from hydra.types import RunMode

    foreign = ("--config", "-cd", "-cp", "-cn", "hydra.mode", "+hydra.mode", "++hydra.mode")
    if _is_sweep(words) or any(word.startswith(foreign) for word in words):
        yield
        return
    ask = Hydra.get_mode
    Hydra.get_mode = lambda self, config_name, overrides: RunMode.RUN  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = ask  # type: ignore[method-assign]


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
