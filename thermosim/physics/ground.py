"""Walls at a known potential: their links on the device, and where the box is grounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.errors import InputError

FACES = ("-x", "+x", "-y", "+y", "-z", "+z")


@dataclass(frozen=True)
class WallList:
    """The links of one wall on the device: cells in memory, factors, and how many."""

    n: int
    cell: Array
    factor: Array

    @classmethod
    def of(
        cls, backend: Backend, layout: Layout, cells: NDArray[np.int64], factors: NDArray[np.float64]
    ) -> WallList:
        return cls(
            len(cells),
            backend.asarray(layout.memory_index(cells), "int32"),
            backend.asarray(factors, "float32"),
        )


def ground_links(
    shape: tuple[int, int, int], ground: str, spacing: float, center: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Links of boundary cells to the ground: cells and factors (conductance = h · factor · σ).

    `ground`: ``faces`` grounds all six faces of the box (factor 2: half a cell), a list such as
    ``-z,+z`` only those, ``far_field`` mimics a large body: φ falls as 1/r from `center` (m from
    the box's lower corner), so −∂φ/∂n = φ (n·r)/r² on the faces, in series with the half cell.
    ``none``: all faces insulate, current flows between electrodes alone.
    """
    if ground == "none":
        return np.empty(0, np.int64), np.empty(0)
    n_cells = int(np.prod(shape))
    cell = np.arange(n_cells).reshape(shape)
    if ground == "far_field" or ground == "faces":
        faces: Sequence[str] = FACES
    else:
        faces = [face.strip() for face in ground.split(",")]
        unknown = [face for face in faces if face not in FACES]
        if unknown or not faces:
            raise InputError(
                f"protocol.ground={ground!r}: choose faces, far_field, none or some of {', '.join(FACES)}"
            )
    cells, factors = [], []
    for face in faces:
        axis = "xyz".index(face[1])
        where: list[slice | int] = [slice(None)] * 3
        where[axis] = 0 if face[0] == "-" else shape[axis] - 1
        chosen = cell[tuple(where)].ravel()
        if ground == "far_field":
            ijk = np.stack(np.unravel_index(chosen, shape), axis=-1).astype(float)
            point = (ijk + 0.5) * spacing
            point[:, axis] = 0.0 if face[0] == "-" else shape[axis] * spacing
            arm = point - center
            normal = np.abs(arm[:, axis])
            length = np.sum(arm**2, axis=1) / np.maximum(normal, 0.25 * spacing)
            factor = spacing / (0.5 * spacing + length)
        else:
            factor = np.full(len(chosen), 2.0)
        cells.append(chosen)
        factors.append(factor)
    unique, inverse = np.unique(np.concatenate(cells), return_inverse=True)
    return unique, np.asarray(np.bincount(inverse, weights=np.concatenate(factors)), dtype=np.float64)
