"""Conjugate gradients preconditioned by geometric multigrid, matrix-free, on any backend.

The matrix is that of `kernels/multigrid.cu`: (A x)_p = Σ_faces g (x_p − x_q) + leak_p x_p. Coarse
levels halve the grid; a coarse face carries half the sum of its four fine faces (one edge of twice
the length, four of them side by side), wall links are summed; residuals are summed over children and
corrections handed down unchanged, each the transpose of the other, so that nothing is interpolated
across a jump of σ: halving the coarse links is what such piecewise constant corrections need (Braess
1995, Computing 55:379). The smoother is Chebyshev's polynomial in D⁻¹A, the same before and after the
coarse correction: the cycle is symmetric, as CG wants it (Tatebe 1993; Adams, Brezina, Hu & Tuminaro 2003,
J Comput Phys 188:593, doi:10.1016/S0021-9991(03)00194-3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Call, Layout
from thermosim.errors import NumericalError
from thermosim.numerics.leaks import Leaks, parents_of
from thermosim.numerics.workspace import Workspace

DEGREE = 2
"""Steps of Chebyshev's iteration before and after each coarse correction; even, so that fields fit."""

LARGEST_EIGENVALUE = 2.0
"""Of D⁻¹A, by Gershgorin's theorem."""

SMOOTHED = 6.0
"""The smoother works on eigenvalues down to the largest over this; the coarse grid has the rest."""

MOST_CYCLES = 8
"""Fields of the workspace are exchanged with others: so many pairings are kept ready."""


def chebyshev_steps(degree: int, largest: float, smallest: float) -> list[tuple[float, float]]:
    """(inertia, step) of each step x ← x + inertia (x − x_before) + step D⁻¹ r of Chebyshev's iteration.

    Least largest residual on eigenvalues of D⁻¹A from `smallest` to `largest` (Saad 2003, Iterative Methods
    for Sparse Linear Systems, algorithm 12.1).

    Examples
    --------
    >>> chebyshev_steps(1, 3.0, 1.0)
    [(0.0, 0.5)]
    """
    middle, half = 0.5 * (largest + smallest), 0.5 * (largest - smallest)
    steps, rho = [(0.0, 1.0 / middle)], half / middle
    for _ in range(degree - 1):
        following = 1.0 / (2.0 * middle / half - rho)
        steps.append((following * rho, 2.0 * following / half))
        rho = following
    return steps


NO_CELLS = np.empty(0, np.int64)


@dataclass
class Links:
    """Conductances of one level [S/m per unit edge]: padded fields, and links to walls."""

    layout: Layout
    gx: Array
    gy: Array
    gz: Array
    leaks: Leaks

    @classmethod
    def empty(cls, backend: Backend, layout: Layout, leaking: NDArray[np.int64] = NO_CELLS) -> Links:
        """No links; `leaking` are the cells that may be linked to walls."""
        gx, gy, gz = (backend.field(layout) for _ in range(3))
        return cls(layout, gx, gy, gz, Leaks(backend, layout, leaking))

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array, Array]:
        """As kernels take them."""
        return self.gx, self.gy, self.gz, *self.leaks.arrays


@dataclass
class _Level:
    """A level's links, and right-hand side, solution and residual of its correction equation."""

    links: Links
    fields: tuple[Array, Array, Array]


LARGEST_GAIN = 2.0
"""The energy norm of the error falls at worst so many times less per iteration than the residual's norm;
seen 0.7 to 1.5, for boiling tissue too."""


@dataclass(frozen=True)
class SolveReport:
    """How a solve ended: iterations, ‖b − A x‖ / ‖b‖ as CG's recurrence has it, and ‖e‖_A.

    `energy_error`: estimate of √(eᵀ A e) for the error e left in x, infinite where no iteration was
    needed; `start_error` the same of the x that the solve began with.
    """

    iterations: int
    relative_residual: float
    energy_error: float = math.inf
    start_error: float = math.inf


class MultigridSolver:
    """Solves A x = b for any right-hand side, given the links of the finest level.

    Parameters
    ----------
    finest : links, filled by the caller; call `coarsen` whenever they change.
    leaking : the cells that may be linked to walls; see `set_leaking`.
    workspace : overwritten by every solve.
    """

    def __init__(
        self, backend: Backend, finest: Links, workspace: Workspace, leaking: NDArray[np.int64] = NO_CELLS
    ) -> None:
        self.backend = backend
        self.finest = finest
        self._workspace = workspace
        self._coarse: list[_Level] = []
        self._cycles: dict[tuple[int, ...], Callable[[], None]] = {}
        self._rows = backend.full(finest.layout.n_rows, 0.0, "float64")
        shape = finest.layout.shape
        while max(shape) > 1:
            shape = tuple(-(-n // 2) for n in shape)  # type: ignore[assignment]
            layout = Layout(shape)
            fields = (backend.field(layout), backend.field(layout), backend.field(layout))
            self._coarse.append(_Level(Links.empty(backend, layout), fields))
        self.set_leaking(leaking)

    def set_leaking(self, cells: NDArray[np.int64]) -> None:
        """Make room for links of these cells to walls, and of none else, on all levels."""
        self._cycles.clear()
        fine = self.finest.layout
        self.finest.leaks = Leaks(self.backend, fine, cells)
        for level in self._coarse:
            cells = parents_of(cells, fine, level.links.layout)
            fine = level.links.layout
            level.links.leaks = Leaks(self.backend, fine, cells)

    @property
    def residual(self) -> Array:
        """b − A x as the last solve left it, until the workspace is used for something else."""
        return self._workspace.first

    @property
    def _levels(self) -> list[_Level]:
        space = self._workspace  # its fields may have been exchanged since the last solve
        return [_Level(self.finest, (space.first, space.second, space.zeroed)), *self._coarse]

    def coarsen(self) -> None:
        """Bring the coarse levels up to date with the finest links."""
        for fine, coarse in zip(self._levels, self._levels[1:], strict=False):
            f, c = fine.links.layout, coarse.links.layout
            place = (np.int32(f.sx), np.int32(f.sy), np.int32(f.origin))
            faces = (*fine.links.arrays[:3], *coarse.links.arrays[:3])
            self.backend.on_cells("coarsen_links", c, *place, *faces)
            shapes = (np.int32(n) for n in (*c.shape[1:], *f.shape))
            leaks = (*fine.links.leaks.arrays, coarse.links.leaks.rows, coarse.links.leaks.values)
            self.backend.on_entries("coarsen_leaks", c.n_rows, *shapes, *leaks)

    def _square_norm_of(self, fill: Callable[[Array], None]) -> Array:
        """b · b of a right-hand side that `fill` adds to a field of zeros, on the device."""
        layout, b = self.finest.layout, self._workspace.first
        self.backend.on_cells("scale_add", layout, np.float32(0), b, np.float32(0), b)
        fill(b)
        return self._dot(b, b)

    def _dot(self, a: Array, b: Array) -> Array:
        """a · b on the device."""
        return self.backend.sums(self.backend.on_rows("dot", self.finest.layout, 1, a, b))

    def solve(
        self,
        solution: Array,
        add_right_hand_side: Callable[[Array], None],
        tolerance: float,
        maximum_iterations: int,
        energy_tolerance: float = 0.0,
        earlier: Array | None = None,
    ) -> SolveReport:
        """Improve `solution` until ‖b − A x‖ ≤ tolerance · ‖b‖, or until ‖e‖_A ≤ energy_tolerance.

        `add_right_hand_side(r)` adds b to a field. One cycle M is nearly A⁻¹, so that r · M r = ‖e‖_A²
        before each step, within a tenth; after the step the error is smaller by the factor of the
        residual, `LARGEST_GAIN` at most. Where the energy ends the solve, x is scaled so that
        x · (b − A x) = 0, the least error along x: power put in and power lost are then equal.

        `earlier`: the solution before the one that `solution` holds, of an A that moves slowly; x first goes
        as far along their difference as is best, and what it was is left in `earlier`. See `_go_on`.

        Raises `NumericalError` if the residual is not finite or the tolerance is not reached.
        """
        backend, layout, space = self.backend, self.finest.layout, self._workspace
        r, z, d, Ad = space.first, space.second, space.third, space.zeroed
        cycle = self._bound_cycle()
        norm, residual = self._true_residual(solution, add_right_hand_side)
        if norm == 0.0:
            raise NumericalError("no electrode touches conducting tissue: the potential has no source")
        if earlier is not None and residual > tolerance:
            residual = self._go_on(solution, earlier, Ad, r) / norm
        previous_rz, iterations, before = 0.0, 0, residual
        energy_error = start_error = math.inf
        while not (residual <= tolerance or energy_error <= energy_tolerance):  # also if not a number
            if not math.isfinite(residual):
                raise NumericalError(f"the potential became non-finite after {iterations} iterations")
            if iterations == maximum_iterations:
                raise NumericalError(
                    f"the potential did not converge: residual {residual:.1e} after {iterations} iterations, "
                    f"wanted {tolerance:.1e}; raise solver.maximum_iterations or solver.potential_tolerance"
                )
            cycle()
            rz = self._total()
            beta = rz / previous_rz if iterations else 0.0
            previous_rz = rz
            turn = backend.call_on_cells("search_direction", layout, z, np.float32(beta), d)
            apply = backend.call_on_cells("apply_and_dot", layout, d, *self.finest.arrays, Ad, self._rows)
            backend.program([turn, apply])()
            dAd = self._total()
            alpha = rz / dAd if dAd > 0.0 else math.nan
            rr = backend.row_sums("step_and_norm", layout, 1, np.float32(alpha), d, Ad, solution, r)[0]
            before, residual = residual, math.sqrt(rr) / norm
            iterations += 1
            energy_error = math.sqrt(max(rz, 0.0)) * min(1.0, LARGEST_GAIN * residual / before)
            start_error = math.sqrt(max(rz, 0.0)) if iterations == 1 else start_error
        if energy_tolerance > 0.0 and iterations:
            residual = self._balance(solution, add_right_hand_side, Ad, r) / norm
        return SolveReport(iterations, residual, energy_error, start_error)

    def _total(self) -> float:
        """Sum of what the last kernel left per row."""
        return self._numbers(self.backend.sums(self._rows.reshape(1, -1)))[0]

    def _numbers(self, *sums: Array) -> list[float]:
        """Numbers of the device, for which the host waits once."""
        return [float(number[0]) for number in self.backend.fetch(*sums)]

    def _go_on(self, solution: Array, earlier: Array, Ad: Array, r: Array) -> float:
        """x ← x + α (x − earlier) of the least ‖e‖_A, given r = b − A x; earlier ← the old x. Returns ‖r‖.

        The projection on the last difference of successive solutions (Fischer 1998, Comput Methods Appl Mech
        Eng 163:193, doi:10.1016/S0045-7825(98)00012-7): a step of conjugate gradients without a cycle.
        """
        backend, layout = self.backend, self.finest.layout
        turn = backend.call_on_cells("search_direction", layout, solution, np.float32(-1.0), earlier)
        apply = backend.call_on_cells("apply_and_dot", layout, earlier, *self.finest.arrays, Ad, self._rows)
        backend.program([turn, apply])()
        dAd, rd = self._numbers(backend.sums(self._rows.reshape(1, -1)), self._dot(r, earlier))
        alpha = np.float32(rd / dAd if dAd > 0.0 else 0.0)
        rr = backend.row_sums("step_and_norm", layout, 1, alpha, earlier, Ad, solution, r)[0]
        backend.on_cells("search_direction", layout, solution, -alpha, earlier)
        return math.sqrt(rr)

    def _balance(
        self, solution: Array, add_right_hand_side: Callable[[Array], None], Ax: Array, r: Array
    ) -> float:
        """Scale x so that x · r = 0, given r = b − A x; returns ‖r‖."""
        backend, layout = self.backend, self.finest.layout
        backend.on_cells("scale_add", layout, np.float32(-1.0), r, np.float32(0.0), Ax)
        add_right_hand_side(Ax)  # A x = b − r
        xAx, xr = self._numbers(self._dot(solution, Ax), self._dot(solution, r))
        step = np.float32(xr / xAx if xAx > 0.0 else 0.0)
        return math.sqrt(backend.row_sums("step_and_norm", layout, 1, step, solution, Ax, solution, r)[0])

    def true_relative_residual(self, solution: Array, add_right_hand_side: Callable[[Array], None]) -> float:
        """‖b − A x‖ / ‖b‖ computed afresh."""
        return self._true_residual(solution, add_right_hand_side)[1]

    def _true_residual(
        self, solution: Array, add_right_hand_side: Callable[[Array], None]
    ) -> tuple[float, float]:
        """‖b‖ and ‖b − A x‖ / ‖b‖, NaN where b is zero; b − A x is left in the workspace."""
        r = self._workspace.first
        square = self._square_norm_of(add_right_hand_side)
        self.backend.on_cells("minus_operator", self.finest.layout, solution, *self.finest.arrays, r)
        add_right_hand_side(r)
        norm, residual = (math.sqrt(number) for number in self._numbers(square, self._dot(r, r)))
        return norm, residual / norm if norm else math.nan

    def _bound_cycle(self) -> Callable[[], None]:
        """One V-cycle on the fields that the workspace holds now."""
        levels = self._levels
        key = tuple(id(field) for field in levels[0].fields)
        if key not in self._cycles:
            if len(self._cycles) == MOST_CYCLES:
                self._cycles.clear()
            self._cycles[key] = self.backend.joined(list(self._cycle(levels, 0)))
        return self._cycles[key]

    def _cycle(self, levels: list[_Level], depth: int) -> Iterator[Callable[[], None]]:
        """The programs of one V-cycle for level `depth`, from zero."""
        level, backend = levels[depth], self.backend
        layout, arrays = level.links.layout, level.links.arrays
        b, x, other = level.fields

        def smooth(inertia: float, carry: float, step: float, source: Array, target: Array) -> Call:
            numbers = (np.float32(v) for v in (inertia, carry, step))
            return backend.call_on_cells("smooth", layout, *numbers, b, *arrays, source, target, target)

        if (
            depth == len(levels) - 1
        ):  # one cell: a step of 1 solves it, and the constant that little ground holds
            step = np.float32(1.0)
            yield backend.program([backend.call_on_cells("smooth_from_zero", layout, step, b, *arrays, x)])
            return
        steps = chebyshev_steps(DEGREE, LARGEST_EIGENVALUE, LARGEST_EIGENVALUE / SMOOTHED)
        first = np.float32(steps[0][1])
        down = [backend.call_on_cells("smooth_from_zero", layout, first, b, *arrays, other)]
        source, target = other, x
        for number, (inertia, step_length) in enumerate(steps[1:]):
            carry = inertia if number else 0.0  # the iterate before the first is zero
            down.append(smooth(inertia, carry, step_length, source, target))
            source, target = target, source
        # `source` is x again; `other` has ghost cells of zero, as the sum over children needs them
        down.append(backend.call_on_cells("residual", layout, b, x, *arrays, other))
        c = levels[depth + 1].links.layout
        coarse_b, coarse_x, _ = levels[depth + 1].fields
        place = (np.int32(layout.sx), np.int32(layout.sy), np.int32(layout.origin))
        down.append(backend.call_on_cells("restrict_sum", c, *place, other, coarse_b, ratio=2))
        yield backend.program(down)
        yield from self._cycle(levels, depth + 1)
        up = [backend.call_on_cells("prolongate_add", c, *layout.arguments, coarse_x, x, ratio=2)]
        for inertia, step_length in steps:
            up.append(smooth(inertia, inertia, step_length, source, target))
            source, target = target, source
        if depth == 0:
            up.append(backend.call_on_cells("dot", layout, b, x, self._rows))
        yield backend.program(up)
