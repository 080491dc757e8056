"""A patient under treatment: the state on the device and the physics that changes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy
from thermosim.applicators.electrode import Electrode
from thermosim.backends.base import Array, Backend, Layout
from thermosim.config import DamageConfig, ProtocolConfig, SolverConfig, TissueConfig, VesselsConfig
from thermosim.errors import InputError
from thermosim.numerics.fitted_links import fit_cooled_wall_links, fit_electrode_links
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.window import Window
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import Bioheat, ThermalLaw
from thermosim.physics.damage import DamageModels, DamageState, shutdown_rate
from thermosim.physics.electric_potential import ConductivityLaw, ElectricPotential, ground_links
from thermosim.physics.far_field import MARGIN, FarField
from thermosim.physics.needle_wall_heat import NeedleWallHeat
from thermosim.physics.thermometer import Thermometer
from thermosim.physics.vessel_walls import open_vessels
from thermosim.physics.wall_links import ThermalWall
from thermosim.tissue.laws import enthalpy_from_temperature, temperature_from_enthalpy
from thermosim.tissue.properties import TissueTable

CONDUCTIVITY_LAWS = {"constant": 0, "linear": 1, "exponential": 2}


@dataclass(frozen=True)
class Problem:
    """Everything a simulation needs to know.

    `exterior_mask`: optional cells outside the body (a sample in a bath): they are held at the
    boundary temperature and at ground potential.
    """

    anatomy: Anatomy
    electrodes: tuple[Electrode, ...]
    tissue: TissueConfig
    vessels: VesselsConfig
    protocol: ProtocolConfig
    damage: DamageConfig
    solver: SolverConfig
    exterior_mask: NDArray[np.bool_] | None = None


class Treatment:
    """State fields on the device, and the equations on this geometry.

    Labels are added to those of the anatomy: metal (nothing lives there), open lumen (blood conducts
    current, its heat is carried away at once), and copies of the tissues with 2, 4, 8 and 16 times
    the heat capacity. The copies stand for cells whose centre is so close to a vessel or a cooled
    needle that their link to it would force tiny time steps: such a cell is held at the wall's
    temperature either way, only the fraction of a second it takes to get there changes.
    """

    def __init__(self, problem: Problem, backend: Backend) -> None:
        self.problem, self.backend = problem, backend
        anatomy = problem.anatomy
        self.grid = anatomy.grid
        self.spacing = float(self.grid.spacing[0])
        self.layout = Layout(self.grid.shape)
        self.metal = max(s.label for s in anatomy.structures) + 1
        self.lumen = self.metal + 1
        if self.lumen > 255:
            raise InputError(f"{self.metal} structures, at most 253 are possible; join some")
        self.n_inertias = min(4, (255 - self.lumen) // self.metal)
        tissue = problem.tissue
        self.boundary_temperature = (
            tissue.initial_temperature if tissue.boundary_temperature is None else tissue.boundary_temperature
        )
        self.table = TissueTable.build(tissue, anatomy.structures)
        self.open_vessels = open_vessels(
            anatomy, problem.vessels, tissue, self.lumen, self.table.thermal_conductivity
        )
        self._anatomy_labels, self._vessel_walls = self.open_vessels.labels, self.open_vessels.walls
        self.labels = backend.field(self.layout, 0, "uint8")
        self.reference = tissue.initial_temperature
        border = self.boundary_temperature - self.reference
        self.workspace = Workspace.allocate(backend, self.layout, border)
        self.thermal_law = self._thermal_law()
        self.conductivity_law = self._conductivity_law()
        # temperatures on the device are counted from the initial one: see kernels/bioheat.cu
        self.enthalpy = backend.field(self.layout, border)
        self.layout.interior(self.enthalpy)[:] = 0.0
        # the first group's cells are in all later lists
        for cells, blood in reversed(self.open_vessels.blood_cells):
            where = backend.asarray(self.layout.memory_index(cells), "int32")
            self.enthalpy[where] = np.float32(blood - self.reference)
        self.temperature = self.enthalpy  # one field until something boils: see Bioheat.advance
        self.heat = backend.field(self.layout)
        self.damage = DamageState.start(backend, self.layout, problem.damage, tissue.initial_temperature)
        self.damage_models = DamageModels(backend, self.layout, self.labels, problem.damage, self.thermal_law)
        self.bioheat = Bioheat(
            backend, self.layout, self.spacing, self.labels, self.thermal_law, [], self.workspace
        )
        self.far_field = FarField(self.bioheat, self.damage_models, self.damage)
        self.electrodes: tuple[Electrode, ...] = ()
        self.potential: ElectricPotential | None = None
        self.explicit_limit = 0.0

    # ------------------------------------------------------------------ tissue

    def _thermal_law(self) -> ThermalLaw:
        tissue, damage, table = self.problem.tissue, self.problem.damage, self.table

        inertia = np.repeat(2.0 ** np.arange(1, self.n_inertias + 1), self.metal)

        def padded(values: NDArray[np.float64], power: int = 0) -> NDArray[np.float32]:
            copies = np.tile(values, self.n_inertias) * inertia**power
            return np.concatenate([values, np.zeros(2), copies]).astype(np.float32)

        return ThermalLaw(
            capacity=padded(table.heat_capacity, power=1),
            conductivity=padded(table.thermal_conductivity),
            slope=padded(table.thermal_conductivity_slope),
            perfusion=padded(table.perfusion_conductance),
            latent=padded(table.latent_temperature, power=-1),
            metabolic=padded(table.metabolic_heat),
            arterial=tissue.arterial_temperature,
            boundary=self.boundary_temperature,
            boiling=tissue.vaporization_temperature,
            boiling_width=tissue.vaporization_width,
            reference=tissue.initial_temperature,
            shutdown=damage.perfusion_shutdown,
            shutdown_threshold=damage.three_state_threshold,
            death=shutdown_rate(damage),
        )

    def _conductivity_law(self) -> ConductivityLaw:
        tissue, table = self.problem.tissue, self.table
        sigma, slope = (
            np.concatenate([v, np.zeros(2), np.tile(v, self.n_inertias)]).astype(np.float32)
            for v in (table.electrical_conductivity, table.electrical_conductivity_slope)
        )
        if self.open_vessels.blood_tissue is not None:
            blood = tissue.tissues[self.open_vessels.blood_tissue]
            sigma[self.lumen] = blood.electrical_conductivity
            slope[self.lumen] = blood.electrical_conductivity_slope
        is_blood = np.zeros_like(sigma)
        is_blood[self.lumen] = 1.0
        return ConductivityLaw(
            sigma,
            slope,
            is_blood,
            CONDUCTIVITY_LAWS[tissue.conductivity_law],
            tissue.conductivity_collapse_temperature,
            tissue.conductivity_collapse_width,
            tissue.conductivity_collapse_factor,
            tissue.initial_temperature,
            self.thermal_law.inverse_capacity,
        )

    # ------------------------------------------------------------------ vessels and needles

    def place(self, electrodes: tuple[Electrode, ...]) -> None:
        """Put the needles where they are to be; tissue keeps its state.

        A cell that metal leaves (pull-back) takes the mean temperature of its neighbours.
        """
        backend, grid, problem = self.backend, self.grid, self.problem
        links = self._electrode_links = fit_electrode_links(grid, [e.geometry for e in electrodes])
        labels = self._anatomy_labels.copy()
        metal = np.zeros(grid.n_cells, dtype=bool)
        metal[links.solid_cells] = True
        if problem.exterior_mask is not None:
            metal |= problem.exterior_mask.ravel()
        vacated = self._vacated(metal)
        labels.ravel()[metal] = self.metal
        ground, exterior = self._ground(electrodes, metal)
        if self.potential is None:
            self.potential = ElectricPotential(
                backend,
                self.layout,
                self.spacing,
                self.labels,
                self.conductivity_law,
                links,
                len(electrodes),
                ground,
                self.workspace,
            )
        else:
            self.potential.set_geometry(links, len(electrodes), ground)
        self._tissue_labels, self._exterior_walls = labels, exterior
        if self._has_far_field:
            self._open_window(electrodes)
        self.electrodes = electrodes
        self.solid_mask = metal.reshape(grid.shape)
        points = [e.sensors for e in electrodes]
        self.thermometer = Thermometer(backend, self.layout, grid, points, self.solid_mask, self.reference)
        self.cool_needles(True)
        if len(vacated):
            self._fill(vacated, metal)
            self.far_field.take(self.enthalpy)

    @property
    def _has_far_field(self) -> bool:
        """Whether far from the needles nothing but current and metabolism warms or cools tissue at first."""
        start, tissue = self.problem.tissue.initial_temperature, self.problem.tissue
        blood = [temperature for _, temperature in self.open_vessels.blood_cells]
        return (
            self.problem.solver.active_box
            and self.problem.exterior_mask is None
            and all(temperature == start for temperature in (self.boundary_temperature, *blood))
            and (tissue.arterial_temperature == start or not self.table.perfusion_conductance.any())
        )

    def _open_window(self, electrodes: tuple[Electrode, ...]) -> None:
        """Follow heat and death step by step around the needles, and where they were followed before."""
        points = np.vstack(
            [p for e in electrodes for p in (*e.metal_lines, *np.reshape(e.sensors, (-1, 1, 3)))]
        )
        corner, reach = self.grid.lower_corner, MARGIN + max(e.radius for e in electrodes)
        lower = np.floor((points.min(axis=0) - reach - corner) / self.spacing).astype(int)
        upper = np.ceil((points.max(axis=0) + reach - corner) / self.spacing).astype(int)
        if self.backend.prefers_whole_rows:
            lower[2], upper[2] = 0, self.layout.shape[2]
        window = Window.around(self.layout, lower.tolist(), upper.tolist())
        self.bioheat.window = self.bioheat.window.joined(window) if self.electrodes else window

    def cool_needles(self, pump_is_on: bool) -> None:
        """Let coolant flow in the needles that have it, or stop it: then their walls pass no heat."""
        walls = [*self._vessel_walls]
        self._needle_heat: NeedleWallHeat | None = None
        if pump_is_on:
            walls += self._cooled_walls(self.electrodes)
        if self._exterior_walls is not None:
            walls.append(ThermalWall("exterior", self._exterior_walls, [self.boundary_temperature]))
        self.bioheat.set_walls(walls)
        labels = self._tissue_labels.copy()
        plain, cells, rates = self.bioheat.fastest_rates(self._tissue_labels)
        heavier = np.clip(np.ceil(np.log2(np.maximum(rates / plain, 1.0))), 0, self.n_inertias).astype(int)
        self.explicit_limit = 2.0 / float(max(plain, np.max(rates / 2.0**heavier, initial=0.0)))
        stiff = heavier > 0
        labels.ravel()[cells[stiff]] += (2 + self.metal * heavier[stiff]).astype(np.uint8)
        self._keep_temperature(labels)
        self.layout.interior(self.labels)[:] = self.backend.asarray(labels, "uint8")
        self.bioheat.labels_changed()
        volumes = np.bincount(labels.ravel(), minlength=256)[: self.lumen + 1 + self.n_inertias * self.metal]
        self.metabolic_power = float(self.spacing**3 * (volumes @ self.thermal_law.metabolic))

    def _keep_temperature(self, labels: NDArray[np.uint8]) -> None:
        """Cells that boil keep T, not u, when they get another heat capacity and so another T(u)."""
        before = np.asarray(self.backend.to_host(self.layout.interior(self.labels))).ravel()
        changed = np.flatnonzero(before != labels.ravel())
        where = self.backend.asarray(self.layout.memory_index(changed), "int32")
        law = self.thermal_law
        u = np.asarray(self.backend.to_host(self.enthalpy[where]), dtype=float) + self.reference
        boils = u > law.boiling
        if not boils.any():
            return
        latent = law.latent.astype(float)
        old, new = latent[before[changed]], latent[labels.ravel()[changed]]
        temperature = temperature_from_enthalpy(u, law.boiling, law.boiling_width, old)
        kept = enthalpy_from_temperature(temperature, law.boiling, law.boiling_width, new)
        values = np.where(boils, kept, u) - self.reference
        self.enthalpy[where] = self.backend.asarray(values, "float32")

    def _cooled_walls(self, electrodes: tuple[Electrode, ...]) -> list[ThermalWall]:
        cooled = [i for i, e in enumerate(electrodes) if e.coolant_temperature is not None]
        if not cooled:
            return []
        k = self.table.thermal_conductivity[self.problem.anatomy.labels]
        film = [electrodes[i].coolant_heat_transfer for i in cooled]
        known = self._electrode_links if len(cooled) == len(electrodes) else None
        links = fit_cooled_wall_links(self.grid, [electrodes[i].geometry for i in cooled], k, film, known)
        temperatures = [float(electrodes[i].coolant_temperature or 0.0) for i in cooled]
        self._needle_heat = NeedleWallHeat(
            self.backend, self.layout, links, cooled, [t - self.reference for t in temperatures]
        )
        return [ThermalWall("needles", links, temperatures)]

    def _ground(
        self, electrodes: tuple[Electrode, ...], metal: NDArray[np.bool_]
    ) -> tuple[tuple[NDArray[np.int64], NDArray[np.float64]], LinkFactors | None]:
        """Links to ground, and thermal links to cells outside the body."""
        middle = np.mean([e.center for e in electrodes], axis=0)
        center = middle - self.grid.lower_corner
        cells, factors = ground_links(self.grid.shape, self.problem.protocol.ground, self.spacing, center)
        mask = self.problem.exterior_mask
        if mask is None:
            return (cells, factors), None
        outside = np.pad(mask, 1)
        count = np.zeros(mask.shape)
        for axis in range(3):
            for shift in (-1, 1):
                count += np.roll(outside, shift, axis)[1:-1, 1:-1, 1:-1]
        count.ravel()[metal] = 0.0
        rim = np.flatnonzero(count)
        # half a cell to the surface, whose place is known to half a cell only
        weight = np.asarray(2.0 * count.ravel()[rim])
        bath = slice(None) if self.problem.protocol.ground != "none" else slice(0)  # an isolated bath
        unique, inverse = np.unique(np.concatenate([cells, rim[bath]]), return_inverse=True)
        total = np.bincount(inverse, weights=np.concatenate([factors, weight[bath]]))
        exterior = LinkFactors(
            np.flatnonzero(mask),
            np.empty(0, np.int64),
            np.empty(0, np.int8),
            np.empty(0),
            rim,
            np.zeros(len(rim), np.int32),
            weight,
            np.full(len(rim), self.spacing**2),
        )
        return (unique, np.asarray(total, dtype=np.float64)), exterior

    def _vacated(self, metal: NDArray[np.bool_]) -> NDArray[np.int64]:
        before = getattr(self, "solid_mask", None)
        if before is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(before.ravel() & ~metal)

    def _fill(self, cells: NDArray[np.int64], metal: NDArray[np.bool_]) -> None:
        """Give cells that metal left the mean of their living neighbours."""
        shape = self.grid.shape
        valid = ~metal
        valid[cells] = False
        fields = (self.enthalpy, self.temperature, *self.damage.arrays)
        host = [self.backend.to_host(self.layout.interior(f)).copy() for f in fields]
        waiting = set(cells.tolist())
        while waiting:
            done: dict[int, list[float]] = {}
            for cell in waiting:
                i, j, k = np.unravel_index(cell, shape)
                near = [
                    (i + a, j + b, k + c)
                    for a, b, c in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
                    if 0 <= i + a < shape[0] and 0 <= j + b < shape[1] and 0 <= k + c < shape[2]
                ]
                near = [n for n in near if valid[np.ravel_multi_index(n, shape)]]
                if near:
                    done[cell] = [float(np.mean([f[n] for n in near])) for f in host]
            if not done:
                break
            for cell, values in done.items():
                where = np.unravel_index(cell, shape)
                for f, value in zip(host, values, strict=True):
                    f[where] = value
                valid[cell] = True
                waiting.discard(cell)
        for f, values_host in zip(fields, host, strict=True):
            self.layout.interior(f)[:] = self.backend.asarray(values_host, "float32")

    # ------------------------------------------------------------------ blood

    def learn_needle_heat(self, voltages: NDArray[np.float64], scratch: Array) -> None:
        """Remember the heat on the links to cooled needles for these terminal voltages [V]."""
        potential = self.potential
        if self._needle_heat is None or potential is None:
            return
        of_electrodes = np.zeros(len(self.electrodes))
        for voltage, terminal in zip(voltages, potential.terminals, strict=True):
            of_electrodes[list(terminal)] = voltage
        potential.superpose(voltages, scratch)
        self._needle_heat.learn(scratch, potential.sigma, of_electrodes)

    def cool_needle_heat(self, power: float) -> None:
        """Let the coolant take the heat that arises at its walls, `power` times that of the field learnt."""
        if self._needle_heat is not None:
            values = self._needle_heat.seeming_temperatures(self.bioheat.conductivity, power)
            self.bioheat.set_link_temperatures("needles", values)

    def follow_blood(self, power: float, step: float) -> None:
        """Let blood that warms along its way follow the tissue, before a step of `step` seconds."""
        for stream in self.open_vessels.streams:
            stream.follow(self.backend, self.layout, self.bioheat, self.temperature, self.heat, power, step)

    def book_blood(self, step: float) -> None:
        """Book what that blood carried away in the step."""
        for stream in self.open_vessels.streams:
            stream.book(self.bioheat, step)

    def show_blood(self) -> None:
        """Give the cells of such vessels the temperature of their blood, for the result."""
        for stream in self.open_vessels.streams:
            where = self.backend.asarray(self.layout.memory_index(stream.cells), "int32")
            values = self.backend.asarray(stream.mean[stream.cell_segments] - self.reference, "float32")
            self.temperature[where] = values

    # ------------------------------------------------------------------ access

    @property
    def window(self) -> Window:
        """The cells on which heat and death are followed step by step."""
        return self.bioheat.window

    def release(self) -> None:
        """Give back the memory of everything but the state: nothing can be computed afterwards."""
        del self.potential, self.bioheat, self.far_field, self.workspace

    def host(self, field: Array) -> NDArray[np.float32]:
        """A field without its ghost cells, in host memory."""
        return np.ascontiguousarray(self.backend.to_host(self.layout.interior(field)))

    def where_broken(self) -> tuple[float, float, float]:
        """LPS point [m] of the first cell whose temperature is not finite."""
        bad = np.argwhere(~np.isfinite(self.host(self.temperature)))
        point = self.grid.points(bad[0] if len(bad) else np.zeros(3))
        return float(point[0]), float(point[1]), float(point[2])
