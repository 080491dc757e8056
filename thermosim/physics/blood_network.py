"""One-dimensional energy balance of the blood along a tree of vessels.

ṁ c dT_b/ds = q'(s), q' = h · perimeter · (T_wall − T_b) + Joule heat in the blood [W/m]. Steady along the
tree at each moment: blood crosses the heated stretch in a time short against the minutes in which tissue
heats, and it stores little heat (`transit_time` says how long). Conduction along the vessel is left out:
the Péclet number v L/α of a centimetre at 1 mm/s is about 70. Streams that meet are mixed by their flows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.errors import InputError
from thermosim.physics.vessel_flow import Blood, film_coefficient, mean_velocity, nusselt, reynolds

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MURRAY_EXPONENT = 3.0
"""Flow goes as the radius cubed: C. D. Murray, PNAS 12 (1926) 207, doi:10.1073/pnas.12.3.207."""


def murray_flows(tree: VesselTree, flow: float) -> Array:
    """Flow [m³/s] in each segment when all roots together carry `flow`.

    Roots share it as r³, and at each junction the branches share their parent's as r³ (Murray 1926); what
    leaves through branches that the tree does not have is not known and stays in those it has.
    """
    power = tree.radii**MURRAY_EXPONENT
    roots = tree.parents < 0
    total = np.bincount(tree.parents[~roots], power[~roots], minlength=tree.n_segments)
    flows = np.empty(tree.n_segments)
    flows[roots] = flow * power[roots] / power[roots].sum()
    for i in np.flatnonzero(~roots):  # parents come before their children
        parent = tree.parents[i]
        flows[i] = flows[parent] * power[i] / total[parent]
    return flows


@dataclass(frozen=True)
class BloodNetwork:
    """The blood in one group's vessels.

    Segments are those of `tree`; all arrays are (m,). `to_root`: blood flows towards the roots (hepatic
    veins), else away from them. `flow` [m³/s] of each segment. `inlet_temperature` [°C] of all blood that
    comes from beyond the tree: at its roots, or at its tips and, where a tip's side branches were left
    out, at its junctions. `volumetric_heat_capacity` ρ c of blood [J/(m³ K)].
    """

    tree: VesselTree
    to_root: bool
    flow: Array
    inlet_temperature: float
    volumetric_heat_capacity: float

    def __post_init__(self) -> None:
        if not np.all(self.flow > 0):
            raise InputError(
                f"vessels.groups.{self.tree.group}: a segment carries {float(self.flow.min()):g} m³/s; "
                "advective blood must flow: give a positive flow_ml_min, or use the model occluded"
            )

    @property
    def order(self) -> Index:
        """Segments in the direction of flow."""
        order = np.arange(self.tree.n_segments)
        return order[::-1] if self.to_root else order

    @property
    def heat_capacity_rate(self) -> Array:
        """ρ c Q [W/K]."""
        return self.volumetric_heat_capacity * self.flow

    def temperatures(self, conductance: Array, wall_temperature: Array, heat: Array) -> tuple[Array, Array]:
        """Mean and outflow temperature of the blood in each segment [°C].

        Within a segment wall temperature and conductance are even, so that
        C dT/dx = G (T_w − T) + J, x from 0 to 1, has the solution T_w' + (T_in − T_w') exp(−x G/C) with
        T_w' = T_w + J/G; the mean follows from the balance C (T_out − T_in) = G (T_w − T_mean) + J.

        Parameters
        ----------
        conductance : G between blood and the tissue it is linked to [W/K].
        wall_temperature : T_w, mean temperature of that tissue weighted by its links [°C]; any value where
            G is 0.
        heat : J produced in the blood [W].
        """
        capacity = self.heat_capacity_rate
        exchange = conductance > 1e-9 * capacity
        safe = np.where(exchange, conductance, 1.0)
        target = wall_temperature + heat / safe
        decay = np.exp(-np.where(exchange, safe, 0.0) / capacity)
        mean, out = np.empty(len(capacity)), np.empty(len(capacity))
        parents = self.tree.parents
        carried, arrived = np.zeros(len(capacity)), np.zeros(len(capacity))
        for i in self.order:
            parent = int(parents[i])
            if self.to_root:  # the blood that does not come through known branches comes fresh
                known = min(float(arrived[i]), capacity[i])
                start = self.inlet_temperature
                if known > 0.0:
                    start += (carried[i] / arrived[i] - start) * known / capacity[i]
            else:
                start = self.inlet_temperature if parent < 0 else out[parent]
            if exchange[i]:
                out[i] = target[i] + (start - target[i]) * decay[i]
                mean[i] = target[i] - capacity[i] * (out[i] - start) / conductance[i]
            else:
                out[i] = start + heat[i] / capacity[i]
                mean[i] = 0.5 * (start + out[i])
            if self.to_root and parent >= 0:
                arrived[parent] += capacity[i]
                carried[parent] += capacity[i] * out[i]
        return mean, out

    def outlet(self, out: Array) -> tuple[float, float]:
        """Mixed temperature of all blood that leaves the tree [°C], and its enthalpy over the inlet's [W].

        Away from the roots blood leaves at each tip and, where flows do not add up, at junctions.
        """
        capacity = self.heat_capacity_rate
        if self.to_root:
            leaving = np.where(self.tree.parents < 0, capacity, 0.0)
        else:
            child = self.tree.parents >= 0
            onward = np.bincount(self.tree.parents[child], capacity[child], minlength=len(capacity))
            leaving = np.maximum(capacity - onward, 0.0)
        gained = float(leaving @ (out - self.inlet_temperature))
        return self.inlet_temperature + gained / float(leaving.sum()), gained

    def transit_time(self, grid: Grid) -> float:
        """Longest time [s] that blood takes through the computing box."""
        tree = self.tree
        length = np.linalg.norm(tree.ends - tree.starts, axis=1)
        inside = grid.contains(0.5 * (tree.starts + tree.ends))
        area = math.pi * tree.radii**2
        time = np.where(inside, length * area / self.flow, 0.0)
        total = np.zeros(len(time))
        for i in range(len(time)):
            parent = tree.parents[i]
            total[i] = time[i] + (total[parent] if parent >= 0 else 0.0)
        return float(total.max())


def entrance_lengths(tree: VesselTree, grid: Grid, to_root: bool) -> tuple[Array, Array]:
    """How far behind the start of its thermal boundary layer each segment begins and ends [m], (m,) each.

    The layer starts where blood enters the computing box (beyond it, blood and tissue have one
    temperature) and anew at each junction, which mixes the stream.
    """
    length = np.linalg.norm(tree.ends - tree.starts, axis=1)
    inside = grid.contains(tree.starts) | grid.contains(tree.ends)
    begin = np.zeros(tree.n_segments)
    order = range(tree.n_segments - 1, -1, -1) if to_root else range(tree.n_segments)
    only_child = np.full(tree.n_segments, -1)
    has_parent = np.flatnonzero(tree.parents >= 0)
    only_child[tree.parents[has_parent]] = has_parent
    only_child[tree.n_children != 1] = -1
    for i in order:
        parent = int(tree.parents[i])
        if to_root:
            upstream = int(only_child[i])
        else:
            upstream = parent if parent >= 0 and only_child[parent] == i else -1
        if upstream >= 0 and inside[upstream]:
            begin[i] = begin[upstream] + length[upstream]
    return begin, begin + length


def film_coefficients(
    tree: VesselTree,
    flow: Array,
    blood: Blood,
    correlation: str,
    entrance: tuple[Array, Array],
    inner_diameter: float | None = None,
) -> Array:
    """h [W/(m² K)] in each segment from its flow, diameter and way behind the inlet, (m,).

    `inner_diameter` [m]: of the stream where a wall of its own (a glass tube) narrows it; h then still
    refers to the wall that tissue touches, and is smaller by the ratio of the circumferences.
    """
    films = np.empty(tree.n_segments)
    for i in range(tree.n_segments):
        outer = 2.0 * float(tree.radii[i])
        diameter = outer if inner_diameter is None else inner_diameter
        re = reynolds(mean_velocity(float(flow[i]), diameter), diameter, blood)
        first, last = float(entrance[0][i]) / diameter, float(entrance[1][i]) / diameter
        try:
            nu = nusselt(correlation, re, blood.prandtl, first, last)
        except InputError as error:
            raise InputError(f"vessels.groups.{tree.group}: {error}") from error
        films[i] = film_coefficient(nu, diameter, blood) * diameter / outer
    return films
