"""Blood that warms along its way, step by step beside the tissue, with books that close."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.numerics.link_factors import LinkFactors
from thermosim.physics.bioheat import Bioheat
from thermosim.physics.blood_network import BloodNetwork

Index = NDArray[np.int64]


@dataclass
class BloodStream:
    """The blood of one group of vessels during a run.

    At the start of each step its temperatures follow from the tissue's at that moment (`follow`). In the
    step the tissue changes, and the heat it really gives differs a little: by about as much as in the step
    before, which the estimate takes in, and what the blood is still owed is handed to it in the next step
    (`book`), so that over a run outlet enthalpy − inlet enthalpy is the
    heat taken from tissue plus the Joule heat in the blood, but for the debt of the last step.

    Parameters
    ----------
    name : of its wall in the heat equation.
    cells, cell_segments : cells of the lumen [flat], and the segment each lies in.
    wall_segments : the segment of each wall link.
    """

    name: str
    network: BloodNetwork
    cells: Index
    cell_segments: Index
    wall_segments: Index
    mean: NDArray[np.float64] = field(init=False)  # temperature of the blood in each segment [°C]
    highest: NDArray[np.float64] = field(init=False)
    outlet_temperature: float = field(init=False)
    debt: NDArray[np.float64] = field(init=False)  # heat [J] each segment has got but not yet carried away
    surplus: NDArray[np.float64] = field(init=False)  # heat [W] beyond the estimate in the last step
    carried: float = 0.0  # Σ (outlet − inlet enthalpy) [J]
    wall_heat: float = 0.0  # [J] from tissue
    joule_heat: float = 0.0  # [J] produced in the blood
    times: list[float] = field(default_factory=list)
    outlet_temperatures: list[float] = field(default_factory=list)
    step_before: float = 0.0

    def __post_init__(self) -> None:
        n = self.network.tree.n_segments
        self.mean = np.full(n, self.network.inlet_temperature)
        self.highest = self.mean.copy()
        self.outlet_temperature = self.network.inlet_temperature
        self.debt, self.surplus = np.zeros(n), np.zeros(n)
        self._where: Array | None = None
        self._given = self._estimate = np.zeros(n)
        self._joule = self._gain = 0.0

    def owned(self, links: LinkFactors) -> LinkFactors:
        """The links with the segments as owners of the wall."""
        return replace(links, wall_owners=self.wall_segments.astype(np.int32))

    def follow(
        self,
        backend: Backend,
        layout: Layout,
        bioheat: Bioheat,
        temperature: Array,
        heat: Array,
        power: float,
        step: float,
    ) -> None:
        """Blood temperatures for the coming step of `step` seconds, handed to the wall.

        Joule heat of the step is `power` · `heat`, as in `Bioheat.advance`.
        """
        if self._where is None:
            self._where = backend.asarray(layout.memory_index(self.cells), "int32")
        (density,) = backend.fetch(backend.take(heat, self._where))
        joule = np.bincount(self.cell_segments, density, minlength=len(self.mean))
        self.follow_with(bioheat, temperature, power * bioheat.spacing**3 * joule.astype(np.float64), step)

    def follow_with(
        self, bioheat: Bioheat, temperature: Array, joule: NDArray[np.float64], step: float
    ) -> None:
        """The same with the Joule heat of each segment [W]."""
        # a debt from a long step must not come back all at once in a very short one
        rate = self.debt / max(step, self.step_before) + self.surplus
        conductance, tissue = bioheat.wall_exchange(self.name, temperature)
        mean, out = self.network.temperatures(conductance, tissue, joule + rate)
        self.outlet_temperature, self._gain = self.network.outlet(out)
        self._estimate, self._given = conductance * (tissue - mean), rate
        self._joule = float(joule.sum())
        self.mean = mean
        np.maximum(self.highest, mean, out=self.highest)
        bioheat.set_wall_temperatures(self.name, mean)

    def book(self, bioheat: Bioheat, step: float) -> None:
        """After the step: what the blood carried away, and what it is still owed."""
        taken = bioheat.owner_heat[self.name]
        self.surplus = taken / step - self._estimate
        self.debt = self.debt + step * (self.surplus - self._given)
        self.carried += step * self._gain
        self.wall_heat += float(taken.sum())
        self.joule_heat += step * self._joule
        self.step_before = step

    def record(self, time: float) -> None:
        """A row of the trace of the outlet's temperature."""
        self.times.append(time)
        self.outlet_temperatures.append(self.outlet_temperature)

    _FIELDS = ("mean", "highest", "debt", "surplus")
    _KEPT = ("outlet_temperature", "carried", "wall_heat", "joule_heat", "step_before")

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        arrays = {name: getattr(self, name).tolist() for name in self._FIELDS}
        lists = {"times": list(self.times), "outlet_temperatures": list(self.outlet_temperatures)}
        return {**arrays, **lists, **{name: getattr(self, name) for name in self._KEPT}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name in self._FIELDS:
            setattr(self, name, np.asarray(state[name], dtype=np.float64))
        for name in (*self._KEPT, "times", "outlet_temperatures"):
            setattr(self, name, state[name])
