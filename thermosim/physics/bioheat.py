"""Pennes' bioheat equation with latent heat, fitted walls and super-time-stepping.

ρc ∂u/∂t = ∇·(k∇T) + ω_b ρ_b c_b (T_a − T) + q + q_m (Pennes 1948, J Appl Physiol 1:93) with the
enthalpy temperature u: T(u) is u up to the boiling range, over which the latent heat is released.
Fields of u and T are counted from a reference temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.super_time_stepping import Stage, n_stages, stages
from thermosim.numerics.workspace import Workspace

GHOST_CONDUCTIVITY = 1e6
"""k beyond the box [W/(m K)]: the harmonic mean with tissue is then 2k, a half cell's conductance."""

NEARLY_PLAIN = 0.005
"""A fitted face this close to the plain one is left plain, a third of the faces beside a vessel; at
0.02 it would be four fifths, and the heat into the vessels of the demo would change by 2 %."""

NOTHING_DIES = (-87.0, 0.0, 0.0)
"""Constants of a rate of death that is zero in float32, see `ThermalLaw.death`."""

SHUTDOWN = {"none": 0, "arrhenius": 1, "viability": 2}


@dataclass(frozen=True)
class ThermalLaw:
    """Thermal properties by label, and what all tissues share. Float32 arrays over labels.

    `capacity` ρc [J/(m³ K)] and `conductivity` k at 37 °C are 0 where no tissue is; `perfusion`
    W = ω_b ρ_b c_b [W/(m³ K)]; `latent` L/(ρc) [K]; `metabolic` [W/m³]. Temperatures
    in °C; fields are counted from `reference`. `death` (d0, d1, d2): what stops perfusion grows at the
    rate exp(d0 − d1/(T + 273.15) + d2 T) [1/s], see `physics.damage.shutdown_rate`.
    """

    capacity: NDArray[np.float32]
    conductivity: NDArray[np.float32]
    slope: NDArray[np.float32]
    perfusion: NDArray[np.float32]
    latent: NDArray[np.float32]
    metabolic: NDArray[np.float32]
    arterial: float
    boundary: float
    boiling: float
    boiling_width: float
    reference: float
    shutdown: str
    shutdown_threshold: float
    death: tuple[float, float, float] = NOTHING_DIES

    @property
    def inverse_capacity(self) -> NDArray[np.float32]:
        return np.divide(1.0, self.capacity, out=np.zeros_like(self.capacity), where=self.capacity > 0)


@dataclass(frozen=True)
class ThermalWall:
    """Walls of one kind: fitted links, one temperature per owner [°C], and a name for the audit.

    `by_owner`: the heat into each owner is booked by itself, and its temperature may be changed.
    """

    name: str
    links: LinkFactors
    temperatures: Sequence[float]
    by_owner: bool = False


@dataclass(frozen=True)
class Outlook:
    """What leads from a moment to the middle of the step that begins there.

    `seconds`: half the coming step; `ahead`: the share of its last change that u will go by then;
    `enthalpy_before`: u before that change, None where nothing is known of it; `alive`: field of the
    alive fraction, needed where perfusion stops by viability.
    """

    seconds: float = 0.0
    ahead: float = 0.0
    enthalpy_before: Array | None = None
    alive: Array | None = None


@dataclass(frozen=True)
class Reading:
    """The tissue at one moment: hottest place [°C], and heat leaving it [W] but for walls.

    `perfusion` and `faces` with the W and k of the coming step, those `_ended` with the ones of the step
    just ended.
    """

    hottest_temperature: float
    is_finite: bool
    perfusion: float
    perfusion_ended: float
    faces: float
    faces_ended: float


@dataclass
class _WallLedger:
    """Heat [J] that has left through one wall since the start of a step, by the stages' own rule.

    E_j = mu E_{j−1} + nu E_{j−2} + mu_tilde τ F(Y_{j−1}) + gamma_tilde τ F(Y_0): what the scheme takes
    out of the cells is booked to the last digit, however fast the flow changes.
    """

    first_flow: Any = 0.0  # a number, or one for each owner of the wall
    last: Any = 0.0
    before: Any = 0.0

    def add(self, stage: Stage, time_step: float, flow: Any, is_first: bool) -> None:
        if is_first:
            self.first_flow, self.last, self.before = flow, stage.mu_tilde * time_step * flow, 0.0
            return
        source = time_step * (stage.mu_tilde * flow + stage.gamma_tilde * self.first_flow)
        self.before, self.last = self.last, stage.mu * self.last + stage.nu * self.before + source


@dataclass(frozen=True)
class _WallArrays:
    n: int
    cell: Array
    factor: Array
    temperature: Array
    buffer: Array
    owner: NDArray[np.int32]
    n_owners: int  # 0: booked as one
    places: Array  # of its entries in the list of special cells


class Bioheat:
    """Advances the enthalpy temperature; owns k and W of the present step.

    `advance` overwrites the workspace and exchanges the state's fields with it.
    """

    def __init__(
        self,
        backend: Backend,
        layout: Layout,
        spacing: float,
        labels: Array,
        law: ThermalLaw,
        walls: Sequence[ThermalWall],
        workspace: Workspace,
    ) -> None:
        self.backend, self.layout, self.spacing = backend, layout, spacing
        self.law, self.labels, self._workspace = law, labels, workspace
        self._table = {
            name: backend.asarray(getattr(law, name), "float32")
            for name in ("conductivity", "slope", "perfusion", "latent", "metabolic", "inverse_capacity")
        }
        self._capacity = backend.asarray(law.capacity, "float32")
        self.conductivity = backend.field(layout, GHOST_CONDUCTIVITY)
        self._source = backend.field(layout)
        self._inverse_capacity = backend.field(layout)
        self.boiling_temperature = backend.field(layout, law.boundary - law.reference)
        self.perfusion = backend.field(layout)
        self._boil = (np.float32(law.boiling - law.reference), np.float32(law.boiling_width))
        self._arterial = np.float32(law.arterial - law.reference)
        self._inverse_h2 = np.float32(1.0 / spacing**2)
        self.evaluations = 0
        self.all_rows = True
        self.wall_heat: dict[str, float] = {}  # heat [J] into each kind of wall in the last step
        self.owner_heat: dict[str, NDArray[np.float64]] = {}  # the same owner by owner, for walls `by_owner`
        self.set_walls(walls)

    def set_walls(self, walls: Sequence[ThermalWall]) -> None:
        """Take over the links to needles and vessels."""
        backend, layout = self.backend, self.layout
        _, ny, nz = layout.shape
        step = np.array([ny * nz, nz, 1])
        cells = [np.empty(0, np.int64)]
        for wall in walls:
            changed = np.abs(wall.links.face_factors - 1.0) > NEARLY_PLAIN
            faces, axes = wall.links.face_cells[changed], wall.links.face_axes[changed]
            cells += [faces, faces + step[axes], wall.links.wall_cells]
        special = np.unique(np.concatenate(cells))
        factors = np.ones((len(special), 6))
        entries: list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = []
        self._walls: dict[str, _WallArrays] = {}
        for wall in walls:
            links = wall.links
            changed = np.abs(links.face_factors - 1.0) > NEARLY_PLAIN
            faces, axes = links.face_cells[changed], links.face_axes[changed].astype(np.int64)
            for side, ends in enumerate((faces, faces + step[axes])):
                place = (np.searchsorted(special, ends), 2 * axes + side)
                np.multiply.at(factors, place, links.face_factors[changed])
            temperature = np.asarray(wall.temperatures, dtype=float)[links.wall_owners] - self.law.reference
            entries.append((np.searchsorted(special, links.wall_cells), links.wall_factors, temperature))
            self._walls[wall.name] = _WallArrays(
                len(links.wall_cells),
                backend.asarray(layout.memory_index(links.wall_cells), "int32"),
                backend.asarray(links.wall_factors, "float32"),
                backend.asarray(temperature, "float32"),
                backend.full(max(1, len(links.wall_cells)), 0.0, "float64"),
                links.wall_owners,
                len(wall.temperatures) if wall.by_owner else 0,
                backend.asarray(np.empty(0), "int32"),
            )
        owner = np.concatenate([e[0] for e in entries]) if entries else np.empty(0, np.int64)
        strength = np.concatenate([e[1] for e in entries]) if entries else np.empty(0)
        value = np.concatenate([e[2] for e in entries]) if entries else np.empty(0)
        order = np.argsort(owner, kind="stable")
        start = np.searchsorted(owner[order], np.arange(len(special) + 1))
        places, begin = np.argsort(order), 0
        for name, arrays in self._walls.items():
            mine = backend.asarray(places[begin : begin + arrays.n], "int32")
            self._walls[name], begin = replace(arrays, places=mine), begin + arrays.n
        pad = 1 if len(order) == 0 else 0  # a kernel argument may not be empty
        self._special = (
            len(special),
            backend.asarray(layout.memory_index(special), "int32"),
            backend.asarray(factors.ravel(), "float32"),
            backend.asarray(start, "int32"),
            backend.asarray(np.pad(strength[order], (0, pad)), "float32"),
            backend.asarray(np.pad(value[order], (0, pad)), "float32"),
        )
        self._special_host = (special, factors, np.bincount(owner, weights=strength, minlength=len(special)))

    def set_wall_temperatures(self, name: str, temperatures: NDArray[np.float64]) -> None:
        """Change the temperature of each owner of one wall [°C]."""
        wall = self._walls[name]
        if wall.n:
            values = self.backend.asarray(temperatures[wall.owner] - self.law.reference, "float32")
            wall.temperature[:] = values
            self._special[-1][wall.places] = values

    def set_link_temperatures(self, name: str, values: Array) -> None:
        """Give each link of one wall a temperature of its own, counted from the reference [K]."""
        wall = self._walls[name]
        if wall.n:
            wall.temperature[:] = values
            self._special[-1][wall.places] = values

    def wall_exchange(self, name: str, temperature: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Conductance G [W/K] from tissue to each owner of a wall `by_owner`, and tissue's mean T there [°C].

        The mean is weighted by the links, so that the heat into the owner is G (T − its temperature).
        """
        wall = self._walls[name]
        if not wall.n:
            return np.zeros(wall.n_owners), np.full(wall.n_owners, self.law.reference)
        host = self.backend.to_host
        link = np.asarray(host(wall.factor * self.conductivity[wall.cell]), dtype=np.float64) * self.spacing
        tissue = np.asarray(host(temperature[wall.cell]), dtype=np.float64)
        conductance = np.asarray(np.bincount(wall.owner, link, wall.n_owners), dtype=np.float64)
        total = np.asarray(np.bincount(wall.owner, link * tissue, wall.n_owners), dtype=np.float64)
        mean = np.divide(total, conductance, out=np.zeros_like(total), where=conductance > 0)
        return conductance, mean + self.law.reference

    def labels_changed(self) -> None:
        """Look up again what is kept per cell."""
        self.all_rows = True
        table = self._table["inverse_capacity"]
        self.backend.on_cells("look_up", self.layout, self.labels, table, self._inverse_capacity)

    def fastest_rates(self, labels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Bounds on the eigenvalues of −L [1/s] cell by cell (Gershgorin), at the largest k.

        2 (Σ k_face + k_wall / 2) / (ρc h²) + W/(ρc); and the largest of them without any wall.
        """
        law = self.law
        warm = np.maximum(1.0, 1.0 + law.slope * 63.0) * law.conductivity
        k = np.pad(warm[labels], 1)
        for axis in range(3):
            ghosts: list[slice | list[int]] = [slice(1, -1)] * 3
            ghosts[axis] = [0, -1]
            k[tuple(ghosts)] = GHOST_CONDUCTIVITY
        inside = k[1:-1, 1:-1, 1:-1]
        total = np.zeros_like(inside)
        for axis in range(3):
            for offset in (0, 2):
                at = [slice(1, -1)] * 3
                at[axis] = slice(offset, offset + labels.shape[axis])
                other = k[tuple(at)]
                both = inside + other
                np.add(total, 2.0 * inside * other / np.where(both > 0, both, 1.0), out=total)
        inverse = law.inverse_capacity[labels] / self.spacing**2
        rates = (2.0 * total + self.spacing**2 * law.perfusion[labels]) * inverse
        plain = float(rates.max())
        special, factors, walls = self._special_host
        if len(special):
            index = np.stack(np.unravel_index(special, labels.shape)) + 1
            own, fitted = k[tuple(index)], np.zeros(len(special))
            for side in range(6):
                beside = index.copy()
                beside[side // 2] += 1 - 2 * (side % 2)
                other = k[tuple(beside)]
                both = own + other
                fitted += factors[:, side] * 2.0 * own * other / np.where(both > 0, both, 1.0)
            perfused = law.perfusion[labels.ravel()[special]] * self.spacing**2
            rates.ravel()[special] = (2.0 * fitted + own * walls + perfused) * inverse.ravel()[special]
        return rates, plain

    def prepare(
        self,
        enthalpy: Array,
        temperature: Array,
        damage: Array,
        baseline: float,
        outlook: Outlook = Outlook(),
    ) -> Reading:
        """k(T) and W of the middle of the coming step, and what the tissue shows at this moment.

        `damage` is Ω or the dead fraction, whichever stops perfusion; `baseline` is the Ω that
        unheated tissue has in the middle of the step, which stops nothing. Without an outlook k and W
        are those of the moment.
        """
        before = enthalpy if outlook.enthalpy_before is None else outlook.enthalpy_before
        faces_ended = self._face_flow(temperature)
        rows = self.backend.on_rows(
            "prepare_step",
            self.layout,
            4,
            temperature,
            enthalpy,
            before,
            np.float32(0.0 if outlook.enthalpy_before is None else outlook.ahead),
            np.float32(self.law.reference),
            self.labels,
            self._table["latent"],
            *self._boil,
            self._table["conductivity"],
            self._table["slope"],
            self._table["perfusion"],
            np.int32(SHUTDOWN[self.law.shutdown]),
            damage,
            damage if outlook.alive is None else outlook.alive,
            np.float32(outlook.seconds),
            *(np.float32(d) for d in self.law.death),
            np.float32(baseline),
            np.float32(self.law.shutdown_threshold),
            self._arterial,
            np.int32(self.all_rows),
            self.conductivity,
            self.perfusion,
        )
        self.all_rows = False
        volume = self.spacing**3
        return Reading(
            hottest_temperature=float(rows[1].max()) + self.law.reference,
            is_finite=float(rows[2].sum()) == 0.0,
            perfusion=volume * float(rows[0].sum()),
            perfusion_ended=volume * float(rows[3].sum()),
            faces=self._face_flow(temperature),
            faces_ended=faces_ended,
        )

    def temperature_ahead(self, enthalpy: Array, outlook: Outlook, out: Array) -> None:
        """T of the middle of the coming step, by the outlook."""
        self.backend.on_cells(
            "temperature_ahead",
            self.layout,
            enthalpy,
            enthalpy if outlook.enthalpy_before is None else outlook.enthalpy_before,
            np.float32(outlook.ahead),
            self.labels,
            self._table["latent"],
            *self._boil,
            out,
        )

    def _face_flow(self, temperature: Array) -> float:
        """Heat [W] that leaves through the box's faces."""
        interior_T = self.layout.interior(temperature)
        interior_k = self.layout.interior(self.conductivity)
        faces: Any = 0.0  # a number on the device: one wait for all six
        for axis in range(3):
            for end in (0, -1):
                at: list[slice | int] = [slice(None)] * 3
                at[axis] = end
                where = tuple(at)
                lost = (
                    2.0
                    * interior_k[where]
                    * (interior_T[where] - np.float32(self.law.boundary - self.law.reference))
                )
                faces = faces + lost.sum(dtype="float64")
        return self.spacing * float(faces)

    def _wall_flows(self, temperature: Array) -> dict[str, Any]:
        """Heat [W] from tissue into each kind of wall, or into each owner of it."""
        flows: dict[str, Any] = {}
        for name, wall in self._walls.items():
            if wall.n:
                self.backend.on_entries(
                    "wall_heat",
                    wall.n,
                    wall.cell,
                    wall.factor,
                    wall.temperature,
                    temperature,
                    self.conductivity,
                    wall.buffer,
                )
                if wall.n_owners:
                    heat = np.asarray(self.backend.to_host(wall.buffer))
                    flows[name] = self.spacing * np.bincount(wall.owner, heat, minlength=wall.n_owners)
                else:
                    flows[name] = self.spacing * float(wall.buffer.sum())
            else:
                flows[name] = np.zeros(wall.n_owners) if wall.n_owners else 0.0
        return flows

    def advance(
        self,
        enthalpy: Array,
        temperature: Array,
        heat: Array,
        power: float,
        time_step: float,
        explicit_limit: float,
        boils: bool,
    ) -> tuple[Array, Array, Array]:
        """One RKL2 step of `time_step` seconds with heat source `power` · `heat`.

        `boils`: whether T and u may differ; while they do not, one field serves as both.

        Returns (enthalpy, temperature, enthalpy before): fields are exchanged with the workspace; the
        enthalpy before stays intact there until something else uses the workspace.
        """
        backend, layout, table, space = self.backend, self.layout, self._table, self._workspace
        first, second, L0 = space.first, space.second, space.zeroed
        backend.on_cells(
            "heat_source",
            layout,
            heat,
            np.float32(power),
            self.labels,
            table["metabolic"],
            self._source,
        )
        common = (
            self.conductivity,
            self.perfusion,
            self._source,
            self._inverse_capacity,
            self._inverse_h2,
            self._arterial,
        )
        ledgers = {name: _WallLedger() for name in self._walls}
        before, two_before, T = enthalpy, enthalpy, temperature
        coefficients = stages(n_stages(time_step, explicit_limit))
        for number, stage in enumerate(coefficients):
            for name, flow in self._wall_flows(T).items():
                ledgers[name].add(stage, time_step, flow, number == 0)
            step = np.float32(stage.mu_tilde * time_step)
            out = first if number % 2 == 0 else second
            if number == 0:
                backend.on_cells("first_stage", layout, enthalpy, T, *common, step, L0, out)
            else:
                backend.on_cells(
                    "next_stage",
                    layout,
                    enthalpy,
                    T,
                    *common,
                    np.float32(stage.mu),
                    np.float32(stage.nu),
                    step,
                    np.float32(stage.gamma_tilde * time_step),
                    L0,
                    before,
                    two_before,
                    out,
                )
            self._correct(T, step, number == 0, L0, out)
            two_before, before = before, out
            T = self._temperature_of(out) if boils else out
        self.evaluations += len(coefficients)
        self.wall_heat = {name: float(np.sum(ledger.last)) for name, ledger in ledgers.items()}
        self.owner_heat = {
            name: np.asarray(ledger.last) for name, ledger in ledgers.items() if self._walls[name].n_owners
        }
        # `before` is the new state; its place in the workspace is taken by the old one
        space.first, space.second = enthalpy, second if before is first else first
        return before, T, enthalpy

    def _correct(self, T: Array, step: np.float32, is_first: bool, L0: Array, out: Array) -> None:
        """Add to a stage what flows through fitted faces and walls."""
        n, *lists = self._special
        self.backend.on_entries(
            "correct_stage",
            n,
            np.int32(self.layout.sx),
            np.int32(self.layout.sy),
            *lists,
            T,
            self.conductivity,
            self._inverse_capacity,
            self._inverse_h2,
            step,
            np.int32(is_first),
            L0,
            out,
        )

    def _temperature_of(self, enthalpy: Array) -> Array:
        """T(u), in the one field kept for it."""
        self.backend.on_cells(
            "temperature_of",
            self.layout,
            enthalpy,
            self.labels,
            self._table["latent"],
            *self._boil,
            self.boiling_temperature,
        )
        return self.boiling_temperature

    def stored_heat(self, enthalpy: Array) -> float:
        """Σ ρc (u − reference) h³ [J]."""
        rows = self.backend.row_sums("stored_heat", self.layout, 1, enthalpy, self.labels, self._capacity)
        return self.spacing**3 * rows[0]

    def fastest_heating(self, heat: Array) -> float:
        """Largest q/(ρc) [K/s] of a heat source."""
        rows = self.backend.on_rows("fastest_heating", self.layout, 1, heat, self._inverse_capacity)
        return float(rows.max())

    def largest_change(self, temperature: Array, enthalpy_before: Array) -> float:
        """Largest |ΔT| [K] over the step that led from `enthalpy_before` to `temperature`."""
        rows = self.backend.on_rows(
            "largest_change",
            self.layout,
            1,
            temperature,
            enthalpy_before,
            self.labels,
            self._table["latent"],
            *self._boil,
        )
        return float(rows.max())
