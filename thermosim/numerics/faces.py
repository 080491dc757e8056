"""Conductances of the faces between cells: harmonic means, times factors where a face is fitted to a wall.

The potential and the heat equation keep theirs in the same three fields in turn; whoever needs them asks
whether they still are its own (`Faces.owner`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Call, Layout, row_starts


@dataclass
class Faces:
    """gx[p] belongs to the face between cell p and its next neighbour along x, the ghost cells' upper faces
    included; so do gy and gz. `owner`: whose values they hold."""

    layout: Layout
    gx: Array
    gy: Array
    gz: Array
    owner: object | None = field(default=None, repr=False)

    @classmethod
    def allocate(cls, backend: Backend, layout: Layout) -> Faces:
        return cls(layout, *(backend.field(layout) for _ in range(3)))

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        return self.gx, self.gy, self.gz

    def calls(self, backend: Backend, conductivity: Array) -> list[Call]:
        """Kernels that fill all faces with the harmonic means of a field of conductivity."""
        boxes = [self.layout, *(self.layout.lower_ghosts(axis) for axis in range(3))]
        return [backend.call_on_cells("face_conductance", box, conductivity, *self.arrays) for box in boxes]


class FaceFactors:
    """Factors on some of the faces.

    Parameters
    ----------
    cells, axes : (n,) the face between a cell, numbered ``(i * ny + j) * nz + k``, and its next neighbour
        along that axis; a face that is listed twice gets both factors. factors : (n,).
    """

    def __init__(
        self,
        backend: Backend,
        layout: Layout,
        cells: NDArray[np.int64],
        axes: NDArray[np.int8],
        factors: NDArray[np.float64],
    ) -> None:
        self._lists: list[tuple[NDArray[np.int32], Array, Array]] = []
        for axis in range(3):
            chosen = axes == axis
            unique, inverse = np.unique(cells[chosen], return_inverse=True)
            product = np.ones(len(unique))
            np.multiply.at(product, inverse, factors[chosen])
            self._lists.append(
                (
                    row_starts(unique, layout.shape),
                    backend.asarray(layout.memory_index(unique), "int32"),
                    backend.asarray(product, "float32"),
                )
            )

    def calls(self, backend: Backend, faces: Faces) -> list[Call]:
        """Kernels that apply the factors."""
        return [
            backend.call_on_entries("scale_faces", faces.layout, starts, face, factor, g)
            for (starts, face, factor), g in zip(self._lists, faces.arrays, strict=True)
        ]
