"""What else a good engineer could use, on the same problems: each peer gets a process of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

REMEDY = "install thermosim with its extra `peers`"


def version(package: str) -> str | None:
    """Version of an installed package, or None."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def in_own_process(work: Callable[..., dict[str, Any]], threads: int, *arguments: Any) -> dict[str, Any]:
    """Run `work` in a fresh process whose libraries all see the same number of threads.

    A peer that fails is a row that says why, not the end of the benchmark.
    """
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except Exception as error:
        return {"missing": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
