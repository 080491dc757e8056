"""The whole ablation as a good engineer assembles it: a Numba step, and PCG or PyAMG for the potential.

The demo on cells: needles are the cells whose centre lies in them (or within half a cell of the axis), held
at the coolant's temperature behind its film; vessels are cells held at blood temperature. Explicit Euler at
0.9 of its limit, k(T), σ(T), perfusion that stops by exp(−Ω), three models of death fused into the step, one
temperature of boiling as a lid. The potential is solved anew every `interval` seconds, from the last one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers import REMEDY, version

Field = NDArray[np.float32]

STABLE = 0.9
"""Share of the explicit limit."""

LONGEST_STEP = 5.0
"""Of coarse grids, whose limit is longer [s]."""

SET_UP_INTERVAL = 60.0
"""Seconds of treatment for which PyAMG keeps a hierarchy; in between it preconditions newer matrices."""

NOTHING, TISSUE, HELD, METAL, SHAFT = 0, 1, 2, 3, 4
"""Kinds of cells; 0 surrounds the box."""


@dataclass
class Patient:
    """The demo on cells, padded by a ring of cells of kind 0; temperatures over the initial one."""

    spacing: float
    kind: NDArray[np.uint8]
    label: NDArray[np.uint8]
    tables: NDArray[np.float32]  # k, its slope, 1/ρc, W, metabolic heat, σ, its slope; by label
    death: NDArray[np.float32]  # ln A, E/R, k_f0, 1/T_k, k_b
    initial: float
    coolant: float
    film_conductivity: float  # of the half cell of metal that stands for the coolant's film
    power: float
    duration: float
    cooling: float


def patient(size: int) -> Patient:
    """The demo's anatomy, needles and numbers, as thermosim reads them."""
    from problems import demo_problem

    from thermosim.tissue.properties import TissueTable
    from thermosim.units import GAS_CONSTANT

    problem = demo_problem(size)
    anatomy, tissue, damage = problem.anatomy, problem.tissue, problem.damage
    grid = anatomy.grid
    h = float(grid.spacing[0])
    kind = np.full(grid.shape, TISSUE, dtype=np.uint8)
    kind[np.isin(anatomy.labels, [s.label for s in anatomy.with_role("vessel")])] = HELD
    for electrode in problem.electrodes:
        shape = electrode.geometry
        window = shape.window(grid, 2.0 * h)
        points = grid.points(window)
        inside = shape.distance(points) < max(0.0, 0.5 * h - electrode.radius)
        bare = shape.metal_distance(points) < max(0.0, 0.5 * h - electrode.radius)
        kind[tuple(window[inside].T)] = SHAFT
        kind[tuple(window[inside & bare].T)] = METAL
    table = TissueTable.build(tissue, anatomy.structures)
    columns = (
        table.thermal_conductivity,
        table.thermal_conductivity_slope,
        1.0 / table.heat_capacity,
        table.perfusion_conductance,
        table.metabolic_heat,
        table.electrical_conductivity,
        table.electrical_conductivity_slope,
    )
    needle = problem.electrodes[0]
    segment = problem.protocol.segments[0]
    return Patient(
        h,
        np.pad(kind, 1),
        np.pad(anatomy.labels, 1),
        np.array(columns, dtype=np.float32),
        np.array(
            [
                math.log(damage.frequency_factor),
                damage.activation_energy / GAS_CONSTANT,
                damage.three_state_forward,
                1.0 / damage.three_state_scale,
                damage.three_state_backward,
            ],
            dtype=np.float32,
        ),
        tissue.initial_temperature,
        float(needle.coolant_temperature or tissue.initial_temperature),
        0.5 * h * needle.coolant_heat_transfer,
        problem.protocol.generator.power,
        60.0 * segment.duration_min,
        60.0 * problem.protocol.cooling_after_min,
    )


def kernels() -> Any:
    """Numba's loops; compiled at their first call."""
    from numba import njit, prange

    fast = njit(parallel=True, fastmath=True)

    @fast  # type: ignore[untyped-decorator]
    def conductivities(T, kind, label, tables, initial, film, pump, k, sigma):  # type: ignore[no-untyped-def]
        nx, ny, nz = T.shape
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    c, here = kind[i, j, m], label[i, j, m]
                    warm = min(T[i, j, m] + initial, np.float32(100.0)) - np.float32(37.0)
                    k[i, j, m] = tables[0, here] * (np.float32(1.0) + tables[1, here] * warm)
                    sigma[i, j, m] = tables[5, here] * (np.float32(1.0) + tables[6, here] * warm)
                    if c >= METAL:
                        k[i, j, m] = film if pump else np.float32(0.0)
                        sigma[i, j, m] = np.float32(0.0)

    @fast  # type: ignore[untyped-decorator]
    def links(sigma, kind, gx, gy, gz, b, diagonal):  # type: ignore[no-untyped-def]
        nx, ny, nz = sigma.shape
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    s, total, right = sigma[i, j, m], np.float32(0.0), np.float32(0.0)
                    conducts = s > np.float32(0.0)
                    for side in range(6):
                        d = 1 if side % 2 == 0 else -1
                        a, e, f = i, j, m
                        if side < 2:
                            a += d
                        elif side < 4:
                            e += d
                        else:
                            f += d
                        o = sigma[a, e, f]
                        g = np.float32(0.0)
                        if conducts and o > np.float32(0.0):
                            g = np.float32(2.0) * s * o / (s + o)
                        if side == 0:
                            gx[i, j, m] = g
                        elif side == 2:
                            gy[i, j, m] = g
                        elif side == 4:
                            gz[i, j, m] = g
                        if conducts and kind[a, e, f] == METAL:
                            g = np.float32(2.0) * s
                            right += g
                        elif conducts and kind[a, e, f] == NOTHING:
                            g = np.float32(2.0) * s
                        total += g
                    b[i, j, m] = right
                    diagonal[i, j, m] = total

    @fast  # type: ignore[untyped-decorator]
    def apply(x, gx, gy, gz, diagonal, out):  # type: ignore[no-untyped-def]
        nx, ny, nz = x.shape
        total = 0.0
        for i in prange(1, nx - 1):
            part = 0.0
            for j in range(1, ny - 1):
                line = np.float32(0.0)
                for m in range(1, nz - 1):
                    v = diagonal[i, j, m] * x[i, j, m] - (
                        gx[i, j, m] * x[i + 1, j, m]
                        + gx[i - 1, j, m] * x[i - 1, j, m]
                        + gy[i, j, m] * x[i, j + 1, m]
                        + gy[i, j - 1, m] * x[i, j - 1, m]
                        + gz[i, j, m] * x[i, j, m + 1]
                        + gz[i, j, m - 1] * x[i, j, m - 1]
                    )
                    out[i, j, m] = v
                    line += v * x[i, j, m]
                part += line
            total += part
        return total

    @fast  # type: ignore[untyped-decorator]
    def start(b, diagonal, Ax, r, p):  # type: ignore[no-untyped-def]
        nx, ny, nz = b.shape
        bb, rr, rz = 0.0, 0.0, 0.0
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    d = diagonal[i, j, m]
                    v = b[i, j, m] - Ax[i, j, m]
                    z = v / d if d > np.float32(0.0) else np.float32(0.0)
                    r[i, j, m] = v
                    p[i, j, m] = z
                    bb += b[i, j, m] * b[i, j, m]
                    rr += v * v
                    rz += v * z
        return bb, rr, rz

    @fast  # type: ignore[untyped-decorator]
    def advance(alpha, p, Ap, diagonal, x, r):  # type: ignore[no-untyped-def]
        nx, ny, nz = x.shape
        rr, rz = 0.0, 0.0
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    x[i, j, m] += alpha * p[i, j, m]
                    v = r[i, j, m] - alpha * Ap[i, j, m]
                    r[i, j, m] = v
                    d = diagonal[i, j, m]
                    rr += v * v
                    rz += v * v / d if d > np.float32(0.0) else np.float32(0.0)
        return rr, rz

    @fast  # type: ignore[untyped-decorator]
    def turn(beta, r, diagonal, p):  # type: ignore[no-untyped-def]
        nx, ny, nz = p.shape
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    d = diagonal[i, j, m]
                    z = r[i, j, m] / d if d > np.float32(0.0) else np.float32(0.0)
                    p[i, j, m] = z + beta * p[i, j, m]

    @fast  # type: ignore[untyped-decorator]
    def joule(x, b, sigma, kind, gx, gy, gz, inverse_h2, q):  # type: ignore[no-untyped-def]
        nx, ny, nz = x.shape
        total = 0.0
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    v, s = x[i, j, m], sigma[i, j, m]
                    heat = np.float32(0.5) * (
                        gx[i, j, m] * (x[i + 1, j, m] - v) ** 2
                        + gx[i - 1, j, m] * (x[i - 1, j, m] - v) ** 2
                        + gy[i, j, m] * (x[i, j + 1, m] - v) ** 2
                        + gy[i, j - 1, m] * (x[i, j - 1, m] - v) ** 2
                        + gz[i, j, m] * (x[i, j, m + 1] - v) ** 2
                        + gz[i, j, m - 1] * (x[i, j, m - 1] - v) ** 2
                    )
                    heat += b[i, j, m] * (np.float32(1.0) - v) ** 2  # walls of metal
                    if s > np.float32(0.0):  # the faces of the box are ground
                        edges = (
                            (kind[i + 1, j, m] == NOTHING)
                            + (kind[i - 1, j, m] == NOTHING)
                            + (kind[i, j + 1, m] == NOTHING)
                            + (kind[i, j - 1, m] == NOTHING)
                            + (kind[i, j, m + 1] == NOTHING)
                            + (kind[i, j, m - 1] == NOTHING)
                        )
                        heat += np.float32(2 * edges) * s * v * v
                    q[i, j, m] = inverse_h2 * heat
                    total += heat
        return total

    @fast  # type: ignore[untyped-decorator]
    def heat(  # type: ignore[no-untyped-def]
        T,
        k,
        kind,
        label,
        tables,
        q,
        power,
        dt,
        inverse_h2,
        initial,
        lid,
        death,
        omega,
        dose,
        alive,
        dead,
        new,
    ):
        nx, ny, nz = T.shape
        one, half = np.float32(1.0), np.float32(0.5)
        for i in prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    t, c = T[i, j, m], k[i, j, m]
                    if kind[i, j, m] != TISSUE:
                        new[i, j, m] = t
                        continue
                    here = label[i, j, m]
                    a0, a1 = k[i + 1, j, m], k[i - 1, j, m]
                    a2, a3 = k[i, j + 1, m], k[i, j - 1, m]
                    a4, a5 = k[i, j, m + 1], k[i, j, m - 1]
                    flow = (
                        np.float32(2.0)
                        * c
                        * (
                            a0 / (a0 + c) * (T[i + 1, j, m] - t)
                            + a1 / (a1 + c) * (T[i - 1, j, m] - t)
                            + a2 / (a2 + c) * (T[i, j + 1, m] - t)
                            + a3 / (a3 + c) * (T[i, j - 1, m] - t)
                            + a4 / (a4 + c) * (T[i, j, m + 1] - t)
                            + a5 / (a5 + c) * (T[i, j, m - 1] - t)
                        )
                    )
                    W = tables[3, here] * np.exp(-omega[i, j, m])
                    source = power * q[i, j, m] + tables[4, here]
                    u = min(t + dt * tables[2, here] * (inverse_h2 * flow - W * t + source), lid)
                    new[i, j, m] = u
                    middle = half * (t + u) + initial
                    omega[i, j, m] += dt * np.exp(death[0] - death[1] / (middle + np.float32(273.15)))
                    base = np.float32(0.6931472) if middle >= np.float32(43.0) else np.float32(1.3862944)
                    dose[i, j, m] += dt / np.float32(60.0) * np.exp(base * (middle - np.float32(43.0)))
                    rate = death[2] * np.exp(death[3] * middle)
                    A, D = alive[i, j, m], dead[i, j, m]
                    V = one - A - D
                    f = rate * (one - A)
                    dA, dD = death[4] * V - f * A, f * V
                    A1, D1 = A + dt * dA, D + dt * dD
                    V1, f1 = one - A1 - D1, rate * (one - A1)
                    alive[i, j, m] = A + half * dt * (dA + death[4] * V1 - f1 * A1)
                    dead[i, j, m] = D + half * dt * (dD + f1 * V1)

    @dataclass(frozen=True)
    class Kernels:
        conductivities: Any
        links: Any
        apply: Any
        start: Any
        advance: Any
        turn: Any
        joule: Any
        heat: Any

    return Kernels(conductivities, links, apply, start, advance, turn, joule, heat)


class ConjugateGradients:
    """Matrix-free, diagonal preconditioner, from the last field."""

    def __init__(self, run: Any, tolerance: float) -> None:
        shape = run.T.shape
        self.loops, self.tolerance = run.loops, tolerance
        self.r, self.p, self.Ap = (np.zeros(shape, np.float32) for _ in range(3))

    def solve(self, run: Any) -> int:
        loops, g = self.loops, (run.gx, run.gy, run.gz, run.diagonal)
        loops.apply(run.x, *g, self.Ap)
        bb, rr, rz = loops.start(run.b, run.diagonal, self.Ap, self.r, self.p)
        iterations = 0
        while rr > self.tolerance**2 * bb:
            alpha = np.float32(rz / loops.apply(self.p, *g, self.Ap))
            before = rz
            rr, rz = loops.advance(alpha, self.p, self.Ap, run.diagonal, run.x, self.r)
            loops.turn(np.float32(rz / before), self.r, run.diagonal, self.p)
            iterations += 1
            if iterations > 10_000 or not math.isfinite(rr):
                raise ArithmeticError("conjugate gradients did not converge")
        return iterations


class AlgebraicMultigrid:
    """PyAMG's smoothed aggregation as preconditioner of CG; a hierarchy serves for a minute of treatment."""

    def __init__(self, run: Any, tolerance: float) -> None:
        self.tolerance = tolerance
        self.hierarchy: Any = None
        self.made_at = -math.inf

    def solve(self, run: Any) -> int:
        import pyamg
        from scipy import sparse
        from scipy.sparse.linalg import cg

        from peers.potential import assemble

        inner = (slice(1, -1),) * 3
        arrays = {"gx": run.gx[inner], "gy": run.gy[inner], "gz": run.gz[inner], "b": run.b[inner]}
        rows = np.zeros(arrays["b"].shape)
        for axis, name in enumerate(("gx", "gy", "gz")):
            rows += arrays[name] + np.roll(getattr(run, name), 1, axis)[inner]
        arrays["leak"] = np.maximum(run.diagonal[inner] - rows, 0.0)
        matrix, b, active = assemble(arrays)
        if run.time - self.made_at >= SET_UP_INTERVAL:
            csr = sparse.csr_matrix(matrix)
            strength = ("symmetric", {"theta": 0.0})
            self.hierarchy = pyamg.smoothed_aggregation_solver(csr, strength=strength, max_coarse=500)
            self.made_at = run.time
        count = [0]

        def see(_x: Any) -> None:
            count[0] += 1

        flat = run.x[inner].ravel()
        x, state = cg(
            matrix,
            b,
            x0=flat[active].astype(float),
            rtol=self.tolerance,
            atol=0.0,
            maxiter=500,
            M=self.hierarchy.aspreconditioner(),
            callback=see,
        )
        if state != 0:
            raise ArithmeticError("PyAMG did not converge")
        flat[active] = x
        run.x[inner] = flat.reshape(arrays["b"].shape)
        return count[0]


SOLVERS = {"pcg": ConjugateGradients, "pyamg": AlgebraicMultigrid}


class Run:
    """State and loop of one ablation."""

    def __init__(self, given: Patient, loops: Any, method: str, tolerance: float, interval: float) -> None:
        self.given, self.loops, self.interval = given, loops, interval
        shape = given.kind.shape
        self.T, self.new, self.k, self.sigma, self.q = (np.zeros(shape, np.float32) for _ in range(5))
        self.omega, self.dose, self.dead = (np.zeros(shape, np.float32) for _ in range(3))
        self.alive = np.full(shape, 0.99, np.float32)
        self.x, self.b, self.diagonal = (np.zeros(shape, np.float32) for _ in range(3))
        self.gx, self.gy, self.gz = (np.zeros(shape, np.float32) for _ in range(3))
        for edge in (0, -1):  # the faces of the box are held, half a cell away
            for axis in range(3):
                at: list[Any] = [slice(None)] * 3
                at[axis] = edge
                self.k[tuple(at)] = 1e6
        self.T[given.kind >= METAL] = given.coolant - given.initial
        self.new[:] = self.T
        h, tables = given.spacing, given.tables
        fastest = (12.0 * 1.08 * tables[0] / h**2 + tables[3]) * tables[2]
        self.step = min(LONGEST_STEP, STABLE * 2.0 / float(fastest.max()))
        self.time, self.solves, self.iterations, self.volts2 = 0.0, 0, 0, 0.0
        self.solver = SOLVERS[method](self, tolerance)
        self.next_solve = 0.0

    def advance(self, until: float) -> None:
        """Go on to a moment [s]."""
        g, loops, one = self.given, self.loops, np.float32
        inverse_h2, initial = one(1.0 / g.spacing**2), one(g.initial)
        while self.time < until - 1e-9:
            on = self.time < g.duration - 1e-9
            end = g.duration if on else g.duration + g.cooling
            left = min(end, until) - self.time
            dt = left / math.ceil(left / self.step)
            properties = (self.T, g.kind, g.label, g.tables, initial, one(g.film_conductivity), on)
            loops.conductivities(*properties, self.k, self.sigma)
            if on and self.time >= self.next_solve - 1e-9:
                loops.links(self.sigma, g.kind, self.gx, self.gy, self.gz, self.b, self.diagonal)
                self.iterations += self.solver.solve(self)
                self.solves += 1
                self.next_solve = self.time + self.interval
                field = (self.x, self.b, self.sigma, g.kind, self.gx, self.gy, self.gz)
                self.volts2 = g.power / (g.spacing * loops.joule(*field, inverse_h2, self.q))
            loops.heat(
                self.T,
                self.k,
                g.kind,
                g.label,
                g.tables,
                self.q,
                one(self.volts2 if on else 0.0),
                one(dt),
                inverse_h2,
                initial,
                one(100.0 - g.initial),
                g.death,
                self.omega,
                self.dose,
                self.alive,
                self.dead,
                self.new,
            )
            self.T, self.new = self.new, self.T
            self.time += dt

    @property
    def zone_volume(self) -> float:
        """Tissue with Ω ≥ 1 [m³]."""
        return (
            float(np.count_nonzero((self.omega >= 1.0) & (self.given.kind == TISSUE))) * self.given.spacing**3
        )


@dataclass(frozen=True)
class Stack:
    """How the potential is solved: by ``pcg`` or ``pyamg``, to which relative residual, how often [s].

    `part`: seconds of treatment that are measured; None: all.
    """

    name: str
    method: str
    tolerance: float
    interval: float
    part: float | None = None


def measure(size: int, stacks: list[Stack]) -> dict[str, Any]:
    """A row for each stack: seconds of its ablation, or of the first part scaled up and marked as such."""
    rows: dict[str, Any] = {}
    if version("numba") is None:
        return {stack.name: {"missing": f"numba is not installed; {REMEDY}"} for stack in stacks}
    given, loops = patient(size), kernels()
    Run(given, loops, "pcg", 1e-2, 5.0).advance(2.0)  # compiles
    for stack in stacks:
        if stack.method == "pyamg" and version("pyamg") is None:
            rows[stack.name] = {"missing": f"pyamg is not installed; {REMEDY}"}
            continue
        run = Run(given, loops, stack.method, stack.tolerance, stack.interval)
        whole = given.duration + given.cooling
        until = whole if stack.part is None else min(stack.part, whole)
        begun = time.perf_counter()
        run.advance(until)
        seconds = time.perf_counter() - begun
        packages = ("numba", "pyamg") if stack.method == "pyamg" else ("numba",)
        rows[stack.name] = {
            "version": ", ".join(f"{package} {version(package)}" for package in packages),
            "seconds_measured": seconds,
            "simulated_seconds": until,
            "whole_seconds": whole,
            "seconds": seconds * whole / until,
            "extrapolated": until < whole,
            "tolerance": stack.tolerance,
            "interval": stack.interval,
            "time_step": run.step,
            "solves": run.solves,
            "iterations": run.iterations,
            "zone_volume_ml": 1e6 * run.zone_volume if until >= whole else None,
            "highest_temperature": float(run.T.max()) + given.initial,
        }
    return rows
