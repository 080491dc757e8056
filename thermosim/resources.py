"""What the machine and the installation hold.

Finds `configs/`, `kernels/` and `benchmarks/`, in an installed wheel as well as in a checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

from thermosim.errors import InputError

PACKAGE = Path(__file__).resolve().parent


def _find(name: str, mark: str) -> Path:
    """The folder `name`: inside the package (wheel) or beside it (checkout, editable install)."""
    for folder in (PACKAGE / name, PACKAGE.parent / name):
        if (folder / mark).is_file():
            return folder
    raise InputError(
        f"thermosim's folder {name!r} is missing from this installation; install thermosim again"
    )


def config_directory() -> Path:
    """Absolute folder of the YAML groups."""
    return _find("configs", "config.yaml")


def kernel_directory() -> Path:
    """Absolute folder of the kernels' sources."""
    return _find("kernels", "portable.h")


def benchmark_directory() -> Path:
    """Absolute folder of the benchmarks."""
    return _find("benchmarks", "run.py")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_directory() -> Path:
    """Folder for compiled kernels and other things that can be made again.

    ``THERMOSIM_CACHE`` if set, else ``$XDG_CACHE_HOME/thermosim`` or ``~/.cache/thermosim``.
    """
    chosen = os.environ.get("THERMOSIM_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(chosen) if chosen else base / "thermosim"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache folder {folder} cannot be made ({error}); set THERMOSIM_CACHE"
        ) from error
    return folder
