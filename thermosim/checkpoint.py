"""Keeping and restoring a run: one HDF5 file, written whole or not at all, nothing unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import InputError

FORMAT = "thermosim-checkpoint-2"


def _digest(fields: Mapping[str, NDArray[Any]], state: str) -> str:
    """Over every byte: a bit that flips on the disk must not go on living in a treatment."""
    digest = hashlib.blake2b(state.encode(), digest_size=20)
    for name in sorted(fields):
        values = fields[name]
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def save(path: Path, fields: Mapping[str, NDArray[Any]], state: dict[str, Any], fingerprint: str) -> None:
    """Write fields and plain values; `fingerprint` says which problem they belong to.

    Fields are asked for one by one, so that a mapping which copies them from a device holds one at a time.
    """
    import h5py  # takes long to import, and many runs keep nothing

    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(state)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(unfinished, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["fingerprint"] = fingerprint
            file.attrs["state"] = text
            file.attrs["digest"] = _digest(fields, text)
            for name in fields:
                file.create_dataset(name, data=fields[name])
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path, fingerprint: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a checkpoint back.

    Raises
    ------
    InputError
        When the file is missing, damaged, or belongs to another problem.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"no checkpoint {path.name} in {path.parent}; nothing to resume")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path.name} is not a checkpoint of this version; start the run anew")
            if file.attrs.get("fingerprint") != fingerprint:
                raise InputError(
                    f"{path.name} belongs to another case (configuration, anatomy or kernels have changed); "
                    "start the run anew"
                )
            text = str(file.attrs["state"])
            fields = {name: np.asarray(file[name]) for name in file}
            if file.attrs.get("digest") != _digest(fields, text):
                raise InputError(f"{path.name} is damaged (its content has changed); start the run anew")
            state = json.loads(text)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path.name} is damaged ({error}); start the run anew") from error
    if not isinstance(state, dict):
        raise InputError(f"{path.name} is damaged (no state); start the run anew")
    return fields, state
