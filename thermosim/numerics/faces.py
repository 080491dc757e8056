"""Conductances of the faces between cells: harmonic means, times factors where a face is fitted to a wall.

The potential and the heat equation keep theirs in the same three fields in turn; whoever needs them asks
whether they still are its own (`Faces.owner`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Call, Layout, row_starts
from thermosim.numerics.window import Window


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

    def calls(self, backend: Backend, conductivity: Array, window: Window | None = None) -> list[Call]:
        """Kernels that fill all faces with the harmonic means of a field of conductivity.

        Those of a window only, if one is given; nothing passes then from the cells below it. (What passes to
        those above it is a matter of factors, see `FaceFactors`.)
        """
        layout = self.layout if window is None else window.layout
        inner = () if window is None else window.inner_sides
        calls = [backend.call_on_cells("face_conductance", layout, conductivity, *self.arrays)]
        for axis, g in enumerate(self.arrays):
            box = layout.lower_ghosts(axis)
            if (axis, False) in inner:
                calls.append(backend.call_on_cells("scale_add", box, np.float32(0), g, np.float32(0), g))
            else:
                calls.append(backend.call_on_cells("face_conductance", box, conductivity, *self.arrays))
        return calls


class FaceFactors:
    """Factors on some of the faces.

    Parameters
    ----------
    cells, axes : (n,) the face between a cell, numbered ``(i * ny + j) * nz + k``, and its next neighbour
        along that axis; a face that is listed twice gets both factors. factors : (n,).
    """

    def __init__(
        self,
        layout: Layout,
        cells: NDArray[np.int64],
        axes: NDArray[np.int8],
        factors: NDArray[np.float64],
    ) -> None:
        self._layout = layout
        self._by_axis: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        for axis in range(3):
            chosen = axes == axis
            unique, inverse = np.unique(cells[chosen], return_inverse=True)
            product = np.ones(len(unique))
            np.multiply.at(product, inverse, factors[chosen])
            self._by_axis.append((unique, product))

    def within(self, backend: Backend, window: Window | None = None) -> FactorLists:
        """Lists of all of them, or of those in a window, over whose upper sides nothing passes then."""
        window = Window.whole(self._layout) if window is None else window
        lists = []
        for axis, (cells, factors) in enumerate(self._by_axis):
            inside = window.contains(cells)
            rim = window.upper_rim(axis)
            for mine, values in ((window.numbers(cells[inside]), factors[inside]), (rim, np.zeros(len(rim)))):
                if len(mine):
                    lists.append(
                        (
                            axis,
                            row_starts(mine, window.layout.shape),
                            backend.asarray(window.layout.memory_index(mine), "int32"),
                            backend.asarray(values, "float32"),
                        )
                    )
        return FactorLists(window.layout, lists)


@dataclass(frozen=True)
class FactorLists:
    """Factors on the device: axis, first entry of each row of cells and the end, faces, and factors."""

    layout: Layout
    lists: list[tuple[int, NDArray[np.int32], Array, Array]]

    def calls(self, backend: Backend, faces: Faces) -> list[Call]:
        """Kernels that apply the factors."""
        return [
            backend.call_on_entries("scale_faces", self.layout, starts, face, factor, faces.arrays[axis])
            for axis, starts, face, factor in self.lists
        ]
