"""The `thermosim` command; each subcommand is a thin call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from thermosim import __version__
from thermosim.commands.application import BAD_INPUT, STOPPED, JobFailed, refuse
from thermosim.errors import InputError

HELP = """thermosim: radiofrequency ablation of liver tumours (a research tool, not a medical device)

  thermosim simulate [key=value ...]   simulate a treatment; --multirun sweeps, --help lists all groups
  thermosim check [key=value ...]      judge a plan of needles before any heat (exit code 0, 4 or 5)
  thermosim margin [key=value ...]     the margin of a tumour in an ablation zone, from clinical files
  thermosim compare [key=value ...]    a predicted zone against the one observed after treatment
  thermosim calibrate [key=value ...]  perfusion, conductivity, coupling fitted to an observed zone
  thermosim fetch DATASET [--list]     download a public data set of anatomy
  thermosim doctor [key=value ...]     what works on this machine, and the memory a grid takes
  thermosim study perturb [key=value ...]  how a plan's margin is spread when needles and tissue differ
  thermosim bench [CASE ...] [--peers] measure speed on this machine; --help lists the cases
  thermosim --version
  thermosim --help

Without settings `thermosim simulate` runs the demo. Examples:
  thermosim simulate grid.spacing_mm=2 vessels=occluded output.directory=results
  thermosim simulate --multirun grid.spacing_mm=1,2
  thermosim simulate resume=results
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code.

    0: done; 2: refused input or backend; 3: numerical failure; 130: stopped by the user; 1: a defect. What
    `check` found: 4 some rules warn, 5 some fail.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "simulate": _simulate,
        "fetch": _fetch,
        "doctor": _doctor,
        "margin": _margin,
        "check": _check,
        "compare": _compare,
        "calibrate": _calibrate,
        "bench": _bench,
        "study": _study,
    }
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0 if words else BAD_INPUT
    if words[0] in ("--version", "-V"):
        print(f"thermosim {__version__}")
        return 0
    if words[0] not in commands:
        return refuse(InputError(f"{words[0]!r} is no subcommand; use {', '.join(commands)}, or --help"))
    try:
        return _refusing(commands[words[0]], words[1:])
    except KeyboardInterrupt:
        print("thermosim: stopped", file=sys.stderr)
        return STOPPED


def _refusing(command: Callable[[list[str]], int], words: list[str]) -> int:
    """Run a subcommand; errors become one line and an exit code."""
    try:
        return command(words)
    except JobFailed as error:
        return error.exit_code
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return refuse(error)


# ---------------------------------------------------------------------------- others


def _simulate(words: list[str]) -> int:
    """`thermosim simulate`."""
    from thermosim.commands.simulate import command

    return command(words)


def _calibrate(words: list[str]) -> int:
    """`thermosim calibrate observation=…`."""
    from thermosim.commands.calibrate import command

    return command(words)


def _compare(words: list[str]) -> int:
    """`thermosim compare prediction=… observation=…`."""
    from thermosim.commands.compare import command

    return command(words)


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


# ---------------------------------------------------------------------------- commands of their own


def _check(words: list[str]) -> int:
    """`thermosim check`."""
    from thermosim.commands.check import main as check

    return check(words)


def _margin(words: list[str]) -> int:
    """`thermosim margin`."""
    from thermosim.commands.margin import command

    return command(words)


def _study(words: list[str]) -> int:
    """`thermosim study`."""
    from thermosim.commands.study import command

    return command(words)


def _bench(words: list[str]) -> int:
    """`thermosim bench`: the benchmarks in a Python of their own; their parser knows the words."""
    import subprocess

    from thermosim.resources import benchmark_directory

    script = benchmark_directory() / "run.py"
    return subprocess.run([sys.executable, str(script), *words], check=False).returncode
