"""Pennes' bioheat equation with latent heat, fitted walls and super-time-stepping.

ρc ∂u/∂t = ∇·(k∇T) + ω_b ρ_b c_b (T_a − T) + q + q_m (Pennes 1948, J Appl Physiol 1:93) with the
enthalpy temperature u: T(u) is u up to the boiling range, over which the latent heat is released.
Fields of u and T are counted from a reference temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.numerics.faces import FaceFactors
from thermosim.numerics.super_time_stepping import Stage, n_stages, stages
from thermosim.numerics.window import SIDES, Side, Window
from thermosim.numerics.workspace import Workspace
from thermosim.physics.wall_links import RIM, CellLists, RimLinks, ThermalWall, WallArrays, WallLinks

GHOST_CONDUCTIVITY = 1e6
"""k beyond the box [W/(m K)]: the harmonic mean with tissue is then 2k, a half cell's conductance."""

NEARLY_PLAIN = 0.005
"""A fitted face this close to the plain one is left plain, a third of the faces beside a vessel; at
0.02 it would be four fifths, and the heat into the vessels of the demo would change by 2 %."""

MOST_PROGRAMS = 32
"""Fields are exchanged from step to step, and steps have few or many stages: so many programs are kept."""

EVERY_SIDE = 0b111111
"""Of a box whose sides all count as the grid's, or of which nobody asks."""

NOTHING_DIES = (-87.0, 0.0, 0.0)
"""Constants of a rate of death that is zero in float32, see `ThermalLaw.death`."""

RIM_DEPTH = 4e-3
"""How far inside the window's rim T is compared with that at the rim [m]: about the length √(k/W) over which
blood takes up conducted heat, 3 mm in liver."""

RIM_CHANGE = 1.0
"""Change of T over `RIM_DEPTH` [K] from which heat comes too near the rim: the zone of the demo is then off
by 0.01 %, that of a needle in tissue without blood by 0.1 %, tissue beyond the rim by 1.6 K at worst."""

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
    """The tissue in the window at one moment: hottest place [°C], and heat leaving it [W] but for walls.

    `perfusion` and `faces` with the W and k of the coming step, those `_ended` with the ones of the step
    just ended. `short_sides`: where heat has come too near the window's rim.
    """

    hottest_temperature: float
    is_finite: bool
    perfusion: float
    perfusion_ended: float
    faces: float
    faces_ended: float
    short_sides: tuple[Side, ...] = ()


@dataclass(frozen=True)
class _Fitted:
    """Cells whose links are not plain: factors on their faces, order +x −x +y −y +z −z, and on all walls."""

    cells: NDArray[np.int64]
    factors: NDArray[np.float64]  # (n, 6)
    walls: NDArray[np.float64]

    @classmethod
    def of(cls, walls: Sequence[ThermalWall], layout: Layout) -> _Fitted:
        _, ny, nz = layout.shape
        step = np.array([ny * nz, nz, 1])
        changed = [np.abs(wall.links.face_factors - 1.0) > NEARLY_PLAIN for wall in walls]
        ends = []
        for wall, which in zip(walls, changed, strict=True):
            faces, axes = wall.links.face_cells[which], wall.links.face_axes[which].astype(np.int64)
            ends.append(((faces, 2 * axes), (faces + step[axes], 2 * axes + 1)))
        lists = [cells for pair in ends for cells, _ in pair] + [wall.links.wall_cells for wall in walls]
        marked = np.zeros(layout.n_cells, dtype=bool)
        for cells in lists:
            marked[cells] = True
        special = np.flatnonzero(marked)
        factors, strength = np.ones((len(special), 6)), np.zeros(len(special))
        for wall, which, pair in zip(walls, changed, ends, strict=True):
            for cells, sides in pair:
                np.multiply.at(
                    factors, (np.searchsorted(special, cells), sides), wall.links.face_factors[which]
                )
            np.add.at(strength, np.searchsorted(special, wall.links.wall_cells), wall.links.wall_factors)
        return cls(special, factors, strength)


class Bioheat:
    """Advances the enthalpy temperature; owns k and W of the present step.

    `advance` overwrites the workspace and exchanges the state's fields with it. It works on the cells of
    `window`, at first the whole grid; no heat passes the window's rim. Beyond it `boiling_temperature` holds
    the temperature of the far field (`physics.far_field`).
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
        self.cell_updates = 0
        self.all_rows = True
        self.window = Window.whole(layout)
        self.wall_heat: dict[str, float] = {}  # heat [J] into each kind of wall in the last step
        self.owner_heat: dict[str, NDArray[np.float64]] = {}  # the same owner by owner, for walls `by_owner`
        self._schemes = backend.full(4 * 16, 0.0, "float32")
        self._plain_rates: tuple[NDArray[np.uint8], NDArray[np.float32], float] | None = None
        self.set_walls(walls)

    def set_walls(self, walls: Sequence[ThermalWall]) -> None:
        """Take over the links to needles and vessels."""
        changed = [np.abs(wall.links.face_factors - 1.0) > NEARLY_PLAIN for wall in walls]
        links = [(wall.links, which) for wall, which in zip(walls, changed, strict=True)]
        self._all_factors = FaceFactors(
            self.layout,
            np.concatenate([np.empty(0, np.int64), *(one.face_cells[which] for one, which in links)]),
            np.concatenate([np.empty(0, np.int8), *(one.face_axes[which] for one, which in links)]),
            np.concatenate([np.empty(0), *(one.face_factors[which] for one, which in links)]),
        )
        self._all_walls = WallLinks(walls, self.layout, self.law.reference)
        self._fitted = _Fitted.of(walls, self.layout)
        self.set_window(self.window)

    def set_window(self, window: Window) -> None:
        """Work on these cells of the grid; wall temperatures set since `set_walls` must be set again."""
        self.window = window
        self._programs: dict[tuple[Any, ...], Callable[[], None]] = {}
        self._face_factors = self._all_factors.within(self.backend, window)
        self._walls, self._lists = self._all_walls.within(self.backend, window)
        self._rim = None if window.is_whole else RimLinks.of(self.backend, window, self.spacing)

    def set_wall_temperatures(self, name: str, temperatures: NDArray[np.float64]) -> None:
        """Change the temperature of each owner of one wall [°C]."""
        wall = self._walls[name]
        if wall.n:
            self.backend.write(wall.temperature, temperatures[wall.owner] - self.law.reference)
            self.backend.put(self._lists.temperatures, wall.places, wall.temperature)

    def set_link_temperatures(self, name: str, values: Array) -> None:
        """Give each link of one wall, in the order of its links, a temperature from the reference [K].

        All of them must lie in the window.
        """
        wall = self._walls[name]
        if values.size != wall.n:
            raise ValueError(f"{values.size} temperatures for {wall.n} links of {name}")
        if wall.n:
            self.backend.put(wall.temperature, wall.given, values)
            self.backend.put(self._lists.temperatures, wall.places, wall.temperature)

    def set_rim_temperatures(self, heat: Array, tables: Sequence[NDArray[np.float64]]) -> None:
        """Change the temperatures to which heat flows over the rim, by tables of `temperature_beyond`."""
        if self._rim is not None:
            wall, on_device = self._rim.wall, [self.backend.asarray(t, "float32") for t in tables]
            self.backend.on_entries(
                "temperature_beyond",
                wall.n,
                self._rim.beyond,
                self.labels,
                self.boiling_temperature,
                heat,
                *on_device,
                wall.temperature,
                self._rim.lists.temperatures,
            )

    def wall_exchange(self, name: str, temperature: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Conductance G [W/K] from tissue to each owner of a wall `by_owner`, and tissue's mean T there [°C].

        The mean is weighted by the links, so that the heat into the owner is G (T − its temperature).
        """
        wall = self._walls[name]
        if not wall.n:
            return np.zeros(wall.n_owners), np.full(wall.n_owners, self.law.reference)
        factor, k, tissue = self.backend.fetch(
            wall.factor, *(self.backend.take(field, wall.cell) for field in (self.conductivity, temperature))
        )
        link = np.asarray((factor * k).astype(np.float32), dtype=np.float64) * self.spacing
        conductance = np.asarray(np.bincount(wall.owner, link, wall.n_owners), dtype=np.float64)
        total = np.asarray(np.bincount(wall.owner, link * tissue, wall.n_owners), dtype=np.float64)
        mean = np.divide(total, conductance, out=np.zeros_like(total), where=conductance > 0)
        return conductance, mean + self.law.reference

    def labels_changed(self) -> None:
        """Look up again what is kept per cell."""
        self.all_rows = True
        table = self._table["inverse_capacity"]
        self.backend.on_cells("look_up", self.layout, self.labels, table, self._inverse_capacity)

    def fastest_rates(
        self, labels: NDArray[np.uint8]
    ) -> tuple[float, NDArray[np.int64], NDArray[np.float64]]:
        """Bounds on the eigenvalues of −L [1/s] (Gershgorin), at the largest k.

        2 (Σ k_face + k_wall / 2) / (ρc h²) + W/(ρc): the largest of all cells without any wall; the cells
        whose links are not plain; and theirs. The same `labels` are looked through once.
        """
        law = self.law
        if self._plain_rates is None or self._plain_rates[0] is not labels:
            self._plain_rates = (labels, *self._rates_without_walls(labels))
        _, k, plain = self._plain_rates
        special, factors, walls = self._fitted.cells, self._fitted.factors, self._fitted.walls
        index = np.stack(np.unravel_index(special, labels.shape)) + 1
        own, fitted = k[tuple(index)].astype(np.float64), np.zeros(len(special))
        for side in range(6):
            beside = index.copy()
            beside[side // 2] += 1 - 2 * (side % 2)
            other = k[tuple(beside)]
            both = own + other
            fitted += factors[:, side] * 2.0 * own * other / np.where(both > 0, both, 1.0)
        label = labels.ravel()[special]
        inverse = law.inverse_capacity[label] / self.spacing**2
        perfused = law.perfusion[label] * self.spacing**2
        return plain, special, (2.0 * fitted + own * walls + perfused) * inverse

    def _rates_without_walls(self, labels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """k at its largest, with ghost cells, and the fastest rate of a cell with plain links."""
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
            upper: list[slice] = [slice(1, -1)] * 3
            lower = list(upper)
            upper[axis], lower[axis] = slice(1, None), slice(None, -1)
            a, b = k[tuple(lower)], k[tuple(upper)]
            both = a + b
            face = 2.0 * a * b / np.where(both > 0, both, 1.0)
            front, back = [slice(None)] * 3, [slice(None)] * 3
            front[axis], back[axis] = slice(None, -1), slice(1, None)
            total += face[tuple(front)]
            total += face[tuple(back)]
        inverse = law.inverse_capacity / self.spacing**2
        rates = (2.0 * total + (self.spacing**2 * law.perfusion)[labels]) * inverse[labels]
        return k, float(rates.max())

    def prepare(
        self,
        enthalpy: Array,
        temperature: Array,
        damage: Array,
        baseline: float,
        outlook: Outlook = Outlook(),
    ) -> Reading:
        """k(T) and W of the middle of the coming step, and what the window's tissue shows at this moment.

        `damage` is Ω or the dead fraction, whichever stops perfusion; `baseline` is the Ω that
        unheated tissue has in the middle of the step, which stops nothing. Without an outlook k and W
        are those of the moment.
        """
        if self.all_rows:  # beyond the window nothing happens to k and W between such calls
            far = self.boiling_temperature
            for part in self.window.outside:
                self._prepare(part, far, far, damage, baseline, Outlook())
        rows = self._prepare(self.window.layout, enthalpy, temperature, damage, baseline, outlook)
        self.all_rows = False
        sums, maxima = self.backend.fetch(self.backend.sums(rows), self.backend.maxima(rows))
        taken, _, broken, taken_ended, faces, faces_ended = map(float, sums[:6])
        hottest, rim = float(maxima[1]), float(maxima[6:].max())
        short = self._short_sides(rows[6:]) if rim > RIM_CHANGE else ()
        volume = self.spacing**3
        return Reading(
            hottest_temperature=hottest + self.law.reference,
            is_finite=broken == 0.0,
            perfusion=volume * taken,
            perfusion_ended=volume * taken_ended,
            faces=self.spacing * faces,
            faces_ended=self.spacing * faces_ended,
            short_sides=short,
        )

    def _short_sides(self, rim: Array) -> tuple[Side, ...]:
        """Sides of the window that heat has come too near, from the rows' readings of the rim."""
        along, below, above = self.backend.fetch(rim)[0].reshape(3, *self.window.layout.shape[:2])
        changes = zip(SIDES, (along[0], along[-1], along[:, 0], along[:, -1], below, above), strict=True)
        inner = self.window.inner_sides
        return tuple(side for side, values in changes if side in inner and values.max() > RIM_CHANGE)

    def _prepare(
        self,
        layout: Layout,
        enthalpy: Array,
        temperature: Array,
        damage: Array,
        baseline: float,
        outlook: Outlook,
    ) -> Array:
        before = enthalpy if outlook.enthalpy_before is None else outlook.enthalpy_before
        return self.backend.on_rows(
            "prepare_step",
            layout,
            9,
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
            np.float32(self.law.boundary - self.law.reference),
            np.int32(self.all_rows),
            np.int32(self.window.sides if layout is self.window.layout else EVERY_SIDE),
            np.int32(min(max(1, round(RIM_DEPTH / self.spacing)), min(self.window.layout.shape) - 1)),
            self.conductivity,
            self.perfusion,
        )

    def temperature_ahead(self, enthalpy: Array, outlook: Outlook, out: Array) -> None:
        """T of the middle of the coming step by the outlook; beyond the window that of now."""
        before = enthalpy if outlook.enthalpy_before is None else outlook.enthalpy_before
        boxes = [(self.window.layout, before), *((part, enthalpy) for part in self.window.outside)]
        for box, earlier in boxes:
            self.backend.on_cells(
                "temperature_ahead",
                box,
                enthalpy,
                earlier,
                np.float32(outlook.ahead),
                self.labels,
                self._table["latent"],
                *self._boil,
                out,
            )

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
        backend, layout, table, space = self.backend, self.window.layout, self._table, self._workspace
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
        coefficients = stages(n_stages(time_step, explicit_limit))
        self._set_scheme(coefficients, time_step)
        for lists in self._all_lists:
            backend.on_entries("wall_drive", lists.n, *lists.links, lists.beside[-1])
        key = (id(enthalpy), id(temperature), id(first), id(second), id(L0), len(coefficients), boils)
        if key not in self._programs:
            if len(self._programs) == MOST_PROGRAMS:
                self._programs.clear()
            self._programs[key] = self._program(enthalpy, temperature, len(coefficients), boils)
        self._programs[key]()
        space.faces.owner = self
        out = first if len(coefficients) % 2 else second
        self.evaluations += len(coefficients)
        self.cell_updates += len(coefficients) * layout.n_cells
        self._book()
        # `out` is the new state; its place in the workspace is taken by the old one
        space.first, space.second = enthalpy, second if out is first else first
        return out, self.boiling_temperature if boils else out, enthalpy

    @property
    def _all_arrays(self) -> dict[str, WallArrays]:
        """Walls, and the rim as one."""
        return self._walls if self._rim is None else {**self._walls, RIM: self._rim.wall}

    @property
    def _all_lists(self) -> list[CellLists]:
        return [self._lists] if self._rim is None else [self._lists, self._rim.lists]

    def _set_scheme(self, coefficients: Sequence[Stage], time_step: float) -> None:
        """Put the stages' coefficients where the kernels read them."""
        n = len(coefficients)
        if 4 * n > self._schemes.size:
            self._schemes = self.backend.full(4 * 2 * n, 0.0, "float32")
            self._programs.clear()  # they know the old place
        values = [
            (stage.mu, stage.nu, stage.mu_tilde * time_step, stage.gamma_tilde * time_step)
            for stage in coefficients
        ]
        self.backend.write(self._schemes, np.ravel(values))

    def _program(self, enthalpy: Array, temperature: Array, n_stages: int, boils: bool) -> Callable[[], None]:
        """The kernels of one step from these fields, with stages whose coefficients are in `_schemes`."""
        backend, layout, space = self.backend, self.window.layout, self._workspace
        faces = space.faces
        L0, call = space.zeroed, backend.call_on_cells
        common = (
            *faces.arrays,
            self.perfusion,
            self._source,
            self._inverse_capacity,
            self._inverse_h2,
            self._arterial,
        )
        before, two_before, T = enthalpy, enthalpy, temperature
        calls = [
            *faces.calls(backend, self.conductivity, self.window),
            *self._face_factors.calls(backend, faces),
        ]
        for number in range(n_stages):
            scheme = self._schemes[4 * number : 4 * number + 4]
            is_first, out = np.int32(number == 0), space.second if number % 2 else space.first
            for wall in self._all_arrays.values():
                links = (wall.cell, wall.factor, wall.temperature, T, self.conductivity, scheme, is_first)
                calls.append(backend.call_on_entries("book_walls", layout, wall.starts, *links, *wall.ledger))
            if number == 0:
                calls.append(call("first_stage", layout, enthalpy, T, *common, scheme, L0, out))
            else:
                fields = (scheme, L0, before, two_before, out)
                calls.append(call("next_stage", layout, enthalpy, T, *common, *fields))
            rest = (T, self.conductivity, self._inverse_capacity, self._inverse_h2, scheme, is_first, L0, out)
            for lists in self._all_lists:
                calls.append(backend.call_on_entries("add_walls", layout, lists.starts, *lists.beside, *rest))
            two_before, before, T = before, out, out
            if boils:
                T = self.boiling_temperature
                boiling = (self.labels, self._table["latent"], *self._boil)
                calls.append(call("temperature_of", layout, out, *boiling, T))
        return backend.program(calls)

    def _book(self) -> None:
        """Heat [J] that the walls took in the step."""
        self.wall_heat, self.owner_heat = {}, {}
        walls = self._all_arrays
        if not walls:
            return
        on_device = [
            wall.booked if wall.n_owners else self.backend.sums(wall.booked.reshape(1, -1))
            for wall in walls.values()
        ]
        for (name, wall), booked in zip(walls.items(), self.backend.fetch(*on_device), strict=True):
            if wall.n_owners:
                heat = np.bincount(wall.owner, booked[: wall.n], wall.n_owners)
                self.owner_heat[name] = np.asarray(self.spacing * heat, dtype=np.float64)
            self.wall_heat[name] = self.spacing * float(
                booked[: wall.n].sum() if wall.n_owners else booked[0]
            )

    def stored_heat(self, enthalpy: Array) -> float:
        """Σ ρc (u − reference) h³ [J]."""
        rows = self.backend.row_sums("stored_heat", self.layout, 1, enthalpy, self.labels, self._capacity)
        return self.spacing**3 * rows[0]

    def fastest_heating(self, heat: Array, boxes: Sequence[Layout] | None = None) -> float:
        """Largest q/(ρc) [K/s] of a heat source, in the window or in boxes of the grid's cells."""
        boxes = [self.window.layout] if boxes is None else boxes
        maxima = [
            self.backend.maxima(self.backend.on_rows("fastest_heating", box, 1, heat, self._inverse_capacity))
            for box in boxes
        ]
        return max((float(largest[0]) for largest in self.backend.fetch(*maxima)), default=0.0)
