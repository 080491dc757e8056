"""Conjugate gradients preconditioned by geometric multigrid, matrix-free, on any backend.

The matrix is that of `kernels/multigrid.cu`: (A x)_p = Σ_faces g (x_p − x_q) + leak_p x_p. Coarse
levels halve the grid; a coarse face carries half the sum of its four fine faces (one edge of twice
the length, four of them side by side), wall links are summed; cell-centred trilinear prolongation;
red-black Gauss-Seidel, colours reversed after the coarse correction, which keeps the cycle nearly
symmetric (restriction is a plain sum, not the transpose of the prolongation; CG does not mind)
(Trottenberg, Oosterlee & Schüller 2001, Multigrid, ch. 5; Tatebe 1993 for its use in CG).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thermosim.backends.base import Array, Backend, Layout
from thermosim.errors import NumericalError
from thermosim.numerics.workspace import Workspace

SWEEPS = 2
"""Gauss-Seidel sweeps before and after each coarse correction."""

COARSEST_SWEEPS = 1
"""The coarsest grid is one cell: a sweep solves it, and with it the constant that little ground holds."""


@dataclass
class Links:
    """Conductances of one level [S/m per unit edge], padded fields."""

    layout: Layout
    gx: Array
    gy: Array
    gz: Array
    leak: Array

    @classmethod
    def empty(cls, backend: Backend, layout: Layout) -> Links:
        return cls(layout, *(backend.field(layout) for _ in range(4)))

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        return self.gx, self.gy, self.gz, self.leak


@dataclass
class _Level:
    """A level's links, and right-hand side, solution and residual of its correction equation."""

    links: Links
    fields: tuple[Array, Array, Array]


@dataclass(frozen=True)
class SolveReport:
    """How a solve ended: iterations, and ‖b − A x‖ / ‖b‖ as CG's recurrence has it."""

    iterations: int
    relative_residual: float


class MultigridSolver:
    """Solves A x = b for any right-hand side, given the links of the finest level.

    Parameters
    ----------
    finest : links, filled by the caller; call `coarsen` whenever they change.
    workspace : overwritten by every solve.
    """

    def __init__(self, backend: Backend, finest: Links, workspace: Workspace) -> None:
        self.backend = backend
        self.finest = finest
        self._workspace = workspace
        self._coarse: list[_Level] = []
        shape = finest.layout.shape
        while max(shape) > 1:
            shape = tuple(-(-n // 2) for n in shape)  # type: ignore[assignment]
            layout = Layout(shape)
            fields = (backend.field(layout), backend.field(layout), backend.field(layout))
            self._coarse.append(_Level(Links.empty(backend, layout), fields))

    @property
    def _levels(self) -> list[_Level]:
        space = self._workspace  # its fields may have been exchanged since the last solve
        return [_Level(self.finest, (space.first, space.second, space.zeroed)), *self._coarse]

    def coarsen(self) -> None:
        """Bring the coarse levels up to date with the finest links."""
        for fine, coarse in zip(self._levels, self._levels[1:], strict=False):
            f = fine.links.layout
            self.backend.on_cells(
                "coarsen_links",
                coarse.links.layout,
                np.int32(f.sx),
                np.int32(f.sy),
                np.int32(f.origin),
                *fine.links.arrays,
                *coarse.links.arrays,
            )

    def norm_of(self, fill: Callable[[Array], None]) -> float:
        """‖b‖ of a right-hand side that `fill` adds to a field of zeros."""
        layout, b = self.finest.layout, self._workspace.first
        self.backend.on_cells("scale_add", layout, np.float32(0), b, np.float32(0), b)
        fill(b)
        return math.sqrt(self.backend.row_sums("dot", layout, 1, b, b)[0])

    def solve(
        self,
        solution: Array,
        add_right_hand_side: Callable[[Array], None],
        tolerance: float,
        maximum_iterations: int,
    ) -> SolveReport:
        """Improve `solution` until ‖b − A x‖ ≤ tolerance · ‖b‖.

        `add_right_hand_side(r)` adds b to a field. Raises `NumericalError` if the residual is not
        finite or the tolerance is not reached.
        """
        backend, layout, space = self.backend, self.finest.layout, self._workspace
        r, z, d, Ad = space.first, space.second, space.third, space.zeroed
        levels = self._levels
        norm = self.norm_of(add_right_hand_side)
        if norm == 0.0:
            raise NumericalError("no electrode touches conducting tissue: the potential has no source")
        backend.on_cells("minus_operator", layout, solution, *self.finest.arrays, r)
        add_right_hand_side(r)
        residual = math.sqrt(backend.row_sums("dot", layout, 1, r, r)[0]) / norm
        previous_rz, iterations = 0.0, 0
        while not residual <= tolerance:  # also if it is not a number
            if not math.isfinite(residual):
                raise NumericalError(f"the potential became non-finite after {iterations} iterations")
            if iterations == maximum_iterations:
                raise NumericalError(
                    f"the potential did not converge: residual {residual:.1e} after {iterations} iterations, "
                    f"wanted {tolerance:.1e}; raise solver.maximum_iterations or solver.potential_tolerance"
                )
            self._cycle(levels, 0)
            rz = backend.row_sums("dot", layout, 1, r, z)[0]
            beta = rz / previous_rz if iterations else 0.0
            previous_rz = rz
            backend.on_cells("search_direction", layout, z, np.float32(beta), d)
            dAd = backend.row_sums("apply_and_dot", layout, 1, d, *self.finest.arrays, Ad)[0]
            alpha = rz / dAd if dAd > 0.0 else math.nan
            rr = backend.row_sums("step_and_norm", layout, 1, np.float32(alpha), d, Ad, solution, r)[0]
            residual = math.sqrt(rr) / norm
            iterations += 1
        return SolveReport(iterations, residual)

    def true_relative_residual(self, solution: Array, add_right_hand_side: Callable[[Array], None]) -> float:
        """‖b − A x‖ / ‖b‖ computed afresh."""
        layout, r = self.finest.layout, self._workspace.first
        norm = self.norm_of(add_right_hand_side)
        self.backend.on_cells("minus_operator", layout, solution, *self.finest.arrays, r)
        add_right_hand_side(r)
        return math.sqrt(self.backend.row_sums("dot", layout, 1, r, r)[0]) / norm

    def _cycle(self, levels: list[_Level], depth: int) -> None:
        """One V-cycle for level `depth`, from zero."""
        backend, level = self.backend, levels[depth]
        layout, arrays = level.links.layout, level.links.arrays
        b, x, residual = level.fields
        coarsest = depth == len(levels) - 1
        sweeps = COARSEST_SWEEPS if coarsest else SWEEPS
        backend.on_cells("smooth_from_zero", layout, np.int32(0), b, *arrays, x)
        backend.on_cells("smooth", layout, np.int32(1), b, *arrays, x, x)
        for _ in range(sweeps - 1):
            backend.on_cells("smooth", layout, np.int32(0), b, *arrays, x, x)
            backend.on_cells("smooth", layout, np.int32(1), b, *arrays, x, x)
        if not coarsest:
            c = levels[depth + 1].links.layout
            coarse_b, coarse_x, _ = levels[depth + 1].fields
            backend.on_cells("residual", layout, b, x, *arrays, residual)
            steps = (np.int32(layout.sx), np.int32(layout.sy), np.int32(layout.origin))
            backend.on_cells("restrict_sum", c, *steps, residual, coarse_b)
            self._cycle(levels, depth + 1)
            steps = (np.int32(c.sx), np.int32(c.sy), np.int32(c.origin))
            backend.on_cells("prolongate_add", layout, *steps, coarse_x, *arrays, x)
        for _ in range(sweeps):
            backend.on_cells("smooth", layout, np.int32(1), b, *arrays, x, x)
            backend.on_cells("smooth", layout, np.int32(0), b, *arrays, x, x)
