"""Keeps the phantom's venous trees in the user's cache folder: they take longer to grow than all else."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.config import PhantomAnatomyConfig
from thermosim.errors import InputError
from thermosim.resources import cache_directory

Grown = tuple[VesselTree, VesselTree, tuple[str, ...]]
"""Portal tree, hepatic tree and notes."""

GROUPS = ("portal_vein", "hepatic_vein")
PARTS = {"nodes": np.float64, "segments": np.int64, "parents": np.int64, "radii": np.float64}
MOST_BYTES = 4_000_000
"""Larger files are not read; the largest phantom takes a tenth of it."""


def remembered(config: PhantomAnatomyConfig, grow: Callable[[], Grown]) -> Grown:
    """The trees of a phantom, read from the cache, or grown and kept there.

    The file's name is a digest of the configuration and of the code that grows, so that neither can
    change unseen; a damaged file is not trusted, a folder that cannot be written only costs time.
    """
    path = cache_directory() / f"trees-{_digest(config)}.npz"
    stored = _read(path)
    if stored is None:
        stored = grow()
        _write(path, stored)
    return stored


def _digest(config: PhantomAnatomyConfig) -> str:
    settings = json.dumps(asdict(config), sort_keys=True)
    return hashlib.sha256(f"{_code()} {settings}".encode()).hexdigest()[:24]


@cache
def _code() -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256(np.__version__.encode())
    for name in sorted([*folder.glob("phantom*.py"), *folder.glob("vessel_*.py"), Path(__file__)]):
        digest.update(name.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> Grown | None:
    with suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, InputError):
        if path.stat().st_size > MOST_BYTES:
            return None
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                return None
        with np.load(path, allow_pickle=False) as arrays:
            trees = [
                VesselTree(
                    group, *(_of_type(arrays[f"{group}_{part}"], kind) for part, kind in PARTS.items())
                )
                for group in GROUPS
            ]
            return trees[0], trees[1], tuple(str(note) for note in json.loads(str(arrays["notes"])))
    return None


def _of_type(array: np.ndarray[Any, Any], kind: Any) -> np.ndarray[Any, Any]:
    if array.dtype != np.dtype(kind):
        raise ValueError(f"{array.dtype} is not {kind}")
    return array


def _write(path: Path, grown: Grown) -> None:
    arrays: dict[str, Any] = {"notes": np.array(json.dumps(grown[2]))}
    for group, tree in zip(GROUPS, grown[:2], strict=True):
        arrays |= {f"{group}_{part}": getattr(tree, part) for part in PARTS}
    with suppress(OSError):
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
