"""The electric potential of several electrodes, and the heat it leaves in tissue.

∇·(σ(T) ∇φ) = 0 (quasi-static; Plonsey & Heppner 1967, Bull Math Biophys 29:657), φ = V on bare
metal, no current through insulated shafts, φ = 0 at the ground. For a given σ one field per
terminal (a group of electrodes bonded together) at unit potential, the others at zero, gives the
admittance matrix; every drive follows by superposition. Later, when σ has moved, only the field of
the present drive is solved again, and the admittances are corrected by the currents found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.errors import InputError
from thermosim.numerics.faces import FaceFactors
from thermosim.numerics.leaks import Leaks
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.multigrid import NO_CELLS, Links, MultigridSolver, SolveReport
from thermosim.numerics.workspace import Workspace
from thermosim.physics.ground import WallList
from thermosim.physics.ground import ground_links as ground_links
from thermosim.physics.solved_fields import SolvedFields

LARGEST_MISS = 0.05
"""A guess of the conductance's change this far off is made again: the error estimate is taken about it."""


@dataclass(frozen=True)
class DriveReport:
    """What one field's solve found.

    `currents` [A]: out of every electrode. `error`: estimated relative error of the field in energy
    norm. `relative_residual`: as the solver's recurrence has it.
    """

    currents: NDArray[np.float64]
    error: float
    relative_residual: float


@dataclass(frozen=True)
class ConductivityLaw:
    """σ(T) of every label: σ_37 · ratio(T), see `kernels/laws.h`.

    `sigma_37` [S/m] and `slope` [1/K] by label; `is_blood` by label marks cells whose heat the blood
    carries away at once; `law` 0 constant, 1 linear, 2 exponential;
    above `collapse` [°C] σ falls log-linearly to `factor` of its value over `width` [K]. Temperature
    fields are counted from `reference` [°C]. `inverse_capacity` 1/(ρc) [m³ K/J] by label says how fast a
    cell's heat source can dry it out; None: at once.
    """

    sigma_37: NDArray[np.float32]
    slope: NDArray[np.float32]
    is_blood: NDArray[np.float32]
    law: int
    collapse: float
    width: float
    factor: float
    reference: float
    inverse_capacity: NDArray[np.float32] | None = None


class ElectricPotential:
    """Unit-potential fields of the terminals for the present σ(T), and what follows from them.

    Parameters
    ----------
    labels : padded uint8 field; `law` is indexed by it (σ = 0 where no current flows).
    links : fitted links of the electrodes; wall owner = electrode index.
    ground : cells and factors of the links to ground.
    workspace : overwritten by every solve.
    """

    def __init__(
        self,
        backend: Backend,
        layout: Layout,
        spacing: float,
        labels: Array,
        law: ConductivityLaw,
        links: LinkFactors,
        n_electrodes: int,
        ground: tuple[NDArray[np.int64], NDArray[np.float64]],
        workspace: Workspace,
    ) -> None:
        self.backend, self.layout, self.spacing, self.labels = backend, layout, spacing, labels
        capacity = law.inverse_capacity
        self._steepness = abs(math.log(law.factor)) / law.width  # |d ln σ/dT| of the collapse [1/K]
        self._law = (
            backend.asarray(law.sigma_37, "float32"),
            backend.asarray(law.slope, "float32"),
            backend.asarray(np.zeros_like(law.slope) if capacity is None else capacity, "float32"),
            np.int32(law.law),
            np.float32(law.collapse),
            np.float32(law.width),
            np.float32(math.log(law.factor)),
        )
        self._reference = np.float32(law.reference)
        self._is_blood = backend.asarray(law.is_blood, "float32")
        self.sigma = backend.field(layout)
        self._faces = workspace.faces  # the heat equation's, too
        self._links = Links(layout, *self._faces.arrays, Leaks(backend, layout, NO_CELLS))
        self._solver = MultigridSolver(backend, self._links, workspace)
        self.solves = 0
        self.iterations = 0
        self.solved = SolvedFields(backend, layout, 0)
        self.terminals: tuple[tuple[int, ...], ...] = ()
        self.latest: NDArray[np.float64] = np.empty(0)  # terminal voltages of the last field solved
        self.set_geometry(links, n_electrodes, ground)

    def set_geometry(
        self,
        links: LinkFactors,
        n_electrodes: int,
        ground: tuple[NDArray[np.int64], NDArray[np.float64]],
    ) -> None:
        """Take over the links of (moved) electrodes; fields must be solved again."""
        backend, layout = self.backend, self.layout
        fitted = FaceFactors(layout, links.face_cells, links.face_axes, links.face_factors)
        self._factors = fitted.within(backend)
        self.walls = [
            WallList.of(backend, layout, links.wall_cells[own], links.wall_factors[own])
            for own in (links.wall_owners == e for e in range(n_electrodes))
        ]
        for electrode, wall in enumerate(self.walls):
            if wall.n == 0:
                raise InputError(f"electrode {electrode + 1} touches no tissue of the computing box")
        solid = np.zeros(layout.n_cells, dtype=bool)
        solid[links.solid_cells] = True
        to_ground = ~solid[ground[0]]
        earthed = ground[0][to_ground]
        unique, count = np.unique(np.concatenate([links.wall_cells, earthed]), return_counts=True)
        self._alone = [
            backend.asarray(count[np.searchsorted(unique, links.wall_cells[own])] == 1, "float32")
            for own in (links.wall_owners == e for e in range(n_electrodes))
        ]
        self._ground = WallList.of(backend, layout, earthed, ground[1][to_ground])
        self._solver.set_leaking(unique)
        linked = [*(links.wall_cells[links.wall_owners == e] for e in range(n_electrodes)), earthed]
        self._leak_places = [backend.asarray(self._links.leaks.places(cells), "int32") for cells in linked]
        self.set_terminals(self.terminals)

    def set_terminals(self, terminals: tuple[tuple[int, ...], ...]) -> None:
        """Choose which electrodes are bonded together; their fields start from zero."""
        self.terminals = terminals
        self.solved = SolvedFields(self.backend, self.layout, len(terminals))
        self.latest = np.empty(0)

    def restore_voltages(
        self, of_fields: NDArray[np.float64] | None, latest: NDArray[np.float64] | None
    ) -> None:
        """Say for which voltages the fields were solved that have been put back."""
        if of_fields is None or latest is None:
            raise ValueError("no voltages of the fields")
        self.solved.voltages = of_fields.reshape(len(self.fields), len(self.fields))
        self.latest = latest

    @property
    def fields(self) -> list[Array]:
        """The fields at hand, one per terminal: those of unit potentials after `solve`."""
        return self.solved.fields

    def update_conductances(
        self, temperature: Array, heat: Array | None = None, heating_time: float = 0.0
    ) -> None:
        """σ(T) and all links from the temperature of the moment.

        Where tissue boils σ follows its own heating: `heat` q [W/m³] of the last solve and `heating_time`,
        the seconds that it will act, as multiples of q. See `settled_conductivity` in `kernels/laws.h`.
        """
        self.backend.on_cells(
            "electrical_conductivity",
            self.layout,
            temperature,
            self._reference,
            self.labels,
            *self._law,
            self.sigma if heat is None else heat,
            np.float32(0.0 if heat is None else self._steepness * heating_time),
            self.sigma,
        )
        self.restore_conductances()

    def restore_conductances(self) -> None:
        """All links from the σ at hand."""
        backend, faces, leaks = self.backend, self._faces, self._links.leaks
        backend.program([*faces.calls(backend, self.sigma), *self._factors.calls(backend, faces)])()
        faces.owner = self
        leaks.clear()
        for wall, places in zip([*self.walls, self._ground], self._leak_places, strict=True):
            backend.on_entries("wall_leak", wall.n, places, wall.cell, wall.factor, self.sigma, leaks.values)
        self._solver.coarsen()

    @property
    def links(self) -> Links:
        """The links of the σ at hand, made again where the heat equation has overwritten them."""
        return self.solver.finest

    @property
    def solver(self) -> MultigridSolver:
        """The solver, with its finest links in place."""
        if self._faces.owner is not self:
            self.restore_conductances()
        return self._solver

    def solve(self, tolerance: float, maximum_iterations: int) -> None:
        """Solve every terminal's unit field for the present conductances, from the fields at hand."""
        self.solved.start_over()
        for place, (unit, field) in enumerate(zip(self.solved.voltages.T, self.fields, strict=True)):
            inflow = partial(self._add_inflow, unit)
            earlier = self.solved.earlier_of(place)
            self._count(self.solver.solve(field, inflow, tolerance, maximum_iterations, earlier=earlier))
            self.latest = unit.copy()

    def solve_drive(
        self,
        voltages: NDArray[np.float64],
        power: float,
        energy_tolerance: float,
        tolerance: float,
        maximum_iterations: int,
    ) -> DriveReport:
        """Solve the one field of these terminal voltages, from the superposition of the fields at hand.

        Parameters
        ----------
        voltages : (n_terminals,) [V]; those of floating terminals are taken as given.
        power : about the power [W] of these voltages, the scale of `energy_tolerance`.
        energy_tolerance : relative error of the field in energy norm that ends the solve.
        tolerance : relative residual that ends it too.
        """
        place = self.solved.place_for(voltages)
        self.latest = voltages.copy()
        field, scale = self.fields[place], math.sqrt(max(power, 0.0) / self.spacing)
        report = self.solver.solve(
            field,
            partial(self._add_inflow, voltages),
            tolerance,
            maximum_iterations,
            energy_tolerance * scale,
            self.solved.earlier_of(place),
        )
        self._count(report)
        potentials = self._electrode_potentials(voltages)
        residual = self.solver.residual
        fed = [self._fed(field, e, float(v), residual) for e, v in enumerate(potentials)]
        currents = [self.spacing * float(current[0]) for current in self.backend.fetch(*fed)]
        error = report.energy_error / scale if report.iterations and scale > 0.0 else 0.0
        return DriveReport(np.array(currents), error, report.relative_residual)

    def _count(self, report: SolveReport) -> None:
        self.solves += 1
        self.iterations += report.iterations

    def _electrode_potentials(self, voltages: NDArray[np.float64]) -> NDArray[np.float64]:
        potentials = np.zeros(len(self.walls))
        for voltage, terminal in zip(voltages, self.terminals, strict=True):
            potentials[list(terminal)] = voltage
        return potentials

    def true_relative_residuals(self) -> list[float]:
        """‖b − A φ‖ / ‖b‖ of every field, computed afresh with the present conductances."""
        return [
            self.solver.true_relative_residual(field, partial(self._add_inflow, voltages))
            for voltages, field in zip(self.solved.voltages.T, self.fields, strict=True)
        ]

    def latest_relative_residual(self) -> float:
        """‖b − A φ‖ / ‖b‖ of the field solved last, computed afresh; NaN if there is none."""
        for voltages, field in zip(self.solved.voltages.T, self.fields, strict=True):
            if np.array_equal(voltages, self.latest):
                return self.solver.true_relative_residual(field, partial(self._add_inflow, voltages))
        return math.nan

    def _add_inflow(self, voltages: NDArray[np.float64], residual: Array) -> None:
        for wall, volts in zip(self.walls, self._electrode_potentials(voltages), strict=True):
            if volts != 0.0:
                self.backend.on_entries(
                    "wall_inflow", wall.n, wall.cell, wall.factor, self.sigma, np.float32(volts), residual
                )

    def _fed(self, field: Array, electrode: int, potential: float, residual: Array | None) -> Array:
        """Current out of one electrode at `potential` into tissue whose potential is `field`, over h [A/m].

        What a cell passes on to its neighbours is what the electrode feeds into it but for the
        `residual` b − A φ that the solve left there; None: too small to matter. A number on the device.
        """
        wall = self.walls[electrode]
        current = self.backend.full(wall.n, 0.0, "float64")
        self.backend.on_entries(
            "wall_current",
            wall.n,
            np.int32(self.layout.sx),
            np.int32(self.layout.sy),
            wall.cell,
            wall.factor,
            self._alone[electrode],
            self.sigma,
            field,
            *self.links.arrays[:3],
            np.float32(potential),
            current,
        )
        if residual is not None:
            self.backend.on_entries(
                "add_residual", wall.n, wall.cell, self._alone[electrode], residual, current
            )
        return self.backend.sums(current.reshape(1, -1))

    def admittances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Y [S] of the terminals, (n, n) symmetric, and of the electrodes, (n_electrodes, n).

        Entry (i, j): current out of i when terminal j is at 1 V and all others at 0. After `solve`.
        """
        fed = [
            self._fed(field, e, 1.0 if e in driven else 0.0, None)
            for e in range(len(self.walls))
            for driven, field in zip(self.terminals, self.fields, strict=True)
        ]
        single = self.spacing * np.reshape(self.backend.fetch(*fed), (len(self.walls), len(self.terminals)))
        matrix = np.array([single[list(terminal)].sum(axis=0) for terminal in self.terminals])
        return 0.5 * (matrix + matrix.T), single

    def superpose(self, voltages: NDArray[np.float64], out: Array) -> None:
        """out = the potential [V] for these terminal voltages, by superposition."""
        self.solved.superpose(voltages, out)

    def joule_heating(
        self, voltages: NDArray[np.float64], potential: Array, heat: Array
    ) -> tuple[float, float]:
        """Fill `heat` [W/m³] for given terminal voltages; returns Σ q h³ [W] of all and of blood.

        Half of each link's g (Δφ)² goes to each end, all of a wall link's to its tissue cell, so that
        the sum is the electrical power Σ V I of the discrete problem.
        """
        backend, layout, links = self.backend, self.layout, self.links
        self.superpose(voltages, potential)
        inverse_h2 = np.float32(1.0 / self.spacing**2)
        backend.on_cells("joule_heat", layout, potential, links.gx, links.gy, links.gz, inverse_h2, heat)
        for voltage, terminal in zip(voltages, self.terminals, strict=True):
            for electrode in terminal:
                self._add_wall_heat(self.walls[electrode], potential, float(voltage), inverse_h2, heat)
        self._add_wall_heat(self._ground, potential, 0.0, inverse_h2, heat)
        total, in_blood = backend.row_sums("total_heat", layout, 2, heat, self.labels, self._is_blood)
        return self.spacing**3 * total, self.spacing**3 * in_blood

    def _add_wall_heat(
        self, wall: WallList, potential: Array, voltage: float, inverse_h2: np.float32, heat: Array
    ) -> None:
        self.backend.on_entries(
            "wall_joule_heat",
            wall.n,
            wall.cell,
            wall.factor,
            self.sigma,
            potential,
            np.float32(voltage),
            inverse_h2,
            heat,
        )

    def drift(
        self,
        temperature: Array,
        heat: Array,
        expected: float = 1.0,
        heating_time: float = 0.0,
        box: Layout | None = None,
        beyond: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[float, float]:
        """How conductance and field have changed since the last solve.

        Returns c, the factor on the conductance of the driven pattern, and an estimate of the relative
        error in energy norm of the field as it was solved. With r = σ/σ_solved cell by cell, the Joule
        heat q of the solve as weight, ⟨·⟩ = Σ q · / Σ q and c = ⟨r⟩, the old field is compared with the
        new problem through c A_old, and ρ = r/c:

            (‖e‖_A / ‖φ‖_A)² ≈ ⟨w(ρ)⟩,  w = (ρ − 1)² min(1/ρ, 3/(ρ + 2)).

        (ρ − 1)²/ρ bounds the errors of potential and current together (Prager & Synge 1947, Q Appl
        Math 5:241); where σ falls by far the error of the current is nearly all of it, and 3/(ρ + 2) is
        the share of the potential's if the cell were a sphere in tissue that has not changed (Maxwell).
        An even change of σ costs nothing; the error of the conductance itself is of second order.
        `expected` is a guess of c, about which w is taken; `heating_time` as in `update_conductances`.
        `box`: the cells that are looked at, if not all; `beyond`: Σ q and Σ q r of the others.
        """
        others, others_rising = beyond
        for _ in range(2):
            sums = self.drift_sums(temperature, heat, expected, heating_time, box)
            total, rising, lost = map(float, self.backend.fetch(sums)[0])
            if others > 0.0:  # where σ moves little, w(⟨ρ⟩) stands for ⟨w(ρ)⟩
                ratio = others_rising / others / expected
                total += others
                rising += others_rising / expected
                lost += others * (ratio - 1.0) ** 2 * min(1.0 / ratio, 3.0 / (ratio + 2.0))
            if not total > 0.0:
                return 1.0, 0.0
            mean = rising / total
            expected *= mean
            if abs(mean - 1.0) < LARGEST_MISS:
                break
        return expected, math.sqrt(max(0.0, lost / total - (mean - 1.0) ** 2))

    def drift_sums(
        self,
        temperature: Array,
        heat: Array,
        expected: float,
        heating_time: float = 0.0,
        box: Layout | None = None,
    ) -> Array:
        """Σ q, Σ q ρ and Σ q w(ρ) of `drift` over all cells, or those of a box; on the device."""
        rows = self.backend.on_rows(
            "conductivity_drift",
            self.layout if box is None else box,
            3,
            temperature,
            self._reference,
            self.labels,
            *self._law,
            heat,
            np.float32(self._steepness * heating_time),
            self.sigma,
            np.float32(expected),
        )
        return self.backend.sums(rows)
