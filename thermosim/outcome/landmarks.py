"""The same places marked before and after treatment: a rigid motion from them, or a measure of one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import InputError
from thermosim.outcome.registration import Motion
from thermosim.units import MILLIMETRE

MOST_LANDMARKS = 500


@dataclass(frozen=True)
class Landmarks:
    """The same places before and after treatment, (n, 3) LPS [m]."""

    names: tuple[str, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def read_landmarks(path: Path) -> Landmarks:
    """Landmarks from CSV: name, before_x, before_y, before_z, after_x, after_y, after_z (LPS, mm).

    Raises
    ------
    InputError : no such file, missing columns, text that is no number, more than 500 rows.
    """
    columns = [f"{when}_{axis}" for when in ("before", "after") for axis in "xyz"]
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            missing = [c for c in columns if c not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"landmarks: column {missing[0]!r} is missing; needed: name, {', '.join(columns)}"
                )
            names: list[str] = []
            rows: list[list[float]] = []
            for number, row in enumerate(reader, 2):
                if len(rows) >= MOST_LANDMARKS:
                    raise InputError(f"landmarks: more than {MOST_LANDMARKS} rows; leave some out")
                try:
                    rows.append([float(row[c]) for c in columns])
                except (TypeError, ValueError):
                    raise InputError(f"landmarks: line {number} has a coordinate that is no number") from None
                names.append(str(row.get("name") or len(rows)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"landmarks cannot be read ({type(error).__name__}); give a CSV file") from error
    values = np.asarray(rows, dtype=np.float64).reshape(-1, 6) * MILLIMETRE
    if len(values) == 0 or not np.isfinite(values).all() or np.abs(values).max() > 100.0:
        raise InputError("landmarks: at least one row of finite coordinates in mm is needed")
    return Landmarks(tuple(names), values[:, :3], values[:, 3:])


def motion_of_landmarks(landmarks: Landmarks) -> tuple[Motion, NDArray[np.float64]]:
    """The rigid motion nearest to all landmarks, and the error at each one when it is left out [m].

    Least squares by singular values (Arun, Huang & Blostein, IEEE PAMI 9 (1987), 698).
    """
    n = len(landmarks.before)
    if n < 4:
        raise InputError(f"fusion.method=landmarks needs at least 4 landmarks, the file has {n}")
    spread = np.linalg.svd(landmarks.before - landmarks.before.mean(axis=0), compute_uv=False)
    if spread[1] < 5e-3 * np.sqrt(n):
        raise InputError(
            "landmarks: they lie on one line, so that the turn about it is not known; add others"
        )
    errors = np.empty(n)
    for left_out in range(n):
        keep = np.arange(n) != left_out
        matrix = _nearest_rigid(landmarks.before[keep], landmarks.after[keep])
        moved = matrix[:3, :3] @ landmarks.before[left_out] + matrix[:3, 3]
        errors[left_out] = np.linalg.norm(moved - landmarks.after[left_out])
    return _rigid(_nearest_rigid(landmarks.before, landmarks.after)), errors


def _nearest_rigid(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    middle_before, middle_after = before.mean(axis=0), after.mean(axis=0)
    u, _, v = np.linalg.svd((before - middle_before).T @ (after - middle_after))
    turn = v.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(v.T @ u.T))]) @ u.T
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, middle_after - turn @ middle_before
    return matrix


def _rigid(matrix: NDArray[np.float64]) -> Motion:
    import SimpleITK as sitk

    transform = sitk.Euler3DTransform()
    transform.SetMatrix([float(x) for x in matrix[:3, :3].ravel()], 1e-6)
    transform.SetTranslation([float(x) / MILLIMETRE for x in matrix[:3, 3]])
    return Motion("landmarks", transform, matrix)
