"""Under which circumstances figures were measured: nothing about who or where."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from thermosim import __version__
from thermosim.backends.base import Backend
from thermosim.backends.cpu import FLAGS, CpuBackend, compiler, compiler_version, processor
from thermosim.report.provenance import now, versions

ROOT = Path(__file__).resolve().parents[1]


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def commit() -> str:
    """Short name of the commit, with ``+changes`` where the working tree differs from it."""
    if not (ROOT / "pyproject.toml").is_file():  # installed: the folder may lie in somebody else's repository
        return f"v{__version__}"
    name = _git("rev-parse", "--short=10", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "thermosim", "kernels", "configs")
    return f"{name}+changes" if changed else name


def provenance(backend: Backend) -> dict[str, Any]:
    """Date, commit, device, compiler, flags, digest of the kernels, versions, and how busy the machine is."""
    found: dict[str, Any] = {
        "date": now(),
        "commit": commit(),
        "backend": backend.name,
        "device": backend.device,
        "kernel_digest": backend.kernel_digest,
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": os.getloadavg()[0],
        "versions": versions(),
    }
    if isinstance(backend, CpuBackend):
        found |= {
            "processor": processor(),
            "processors_available": len(os.sched_getaffinity(0)),
            "threads": backend.threads,
            "compiler": compiler_version(compiler() or ""),
            "flags": list(FLAGS),
        }
    return found
