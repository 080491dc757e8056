"""The walls of open vessels: links, film and blood of each group, as its model says."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.checks import VESSEL_MODELS, needs_centre_lines, vessel_flow_given, vessel_model
from thermosim.config import TissueConfig, VesselGroupConfig, VesselsConfig
from thermosim.errors import InputError
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.vessel_links import behind_film, fit_vessel_links
from thermosim.physics.blood_network import (
    BloodNetwork,
    entrance_lengths,
    film_coefficients,
    murray_flows,
)
from thermosim.physics.blood_stream import BloodStream
from thermosim.physics.vessel_flow import (
    Blood,
    film_coefficient,
    mean_velocity,
    nusselt,
    reynolds,
    volume_flow,
)
from thermosim.physics.wall_links import ThermalWall

Index = NDArray[np.int64]

MILLILITRE_PER_MINUTE = 1e-6 / 60.0
LONGEST_SEGMENT = 4e-3
"""Pieces of vessel with one blood temperature [m]."""

LONG_TRANSIT = 20.0
"""Seconds that blood may take through the box before a note says that its steady state is doubtful."""


@dataclass(frozen=True)
class OpenGroup:
    """What is known of one group of open vessels before the run.

    `flow` [m³/s] through all its roots (None: not needed); `film` h [W/(m² K)] (least, mean over the wall,
    largest), None for a wall at blood temperature.
    """

    group: str
    model: str
    blood_temperature: float
    flow: float | None
    film: tuple[float, float, float] | None


@dataclass
class OpenVessels:
    """The open vessels of one anatomy.

    `labels` with their cells marked; `walls` for the heat equation; `blood_cells`: cells [flat] and
    temperature of each group in the order they were marked; `blood_tissue`: name of the one tissue that
    flows; `streams`: blood that warms along its way.
    """

    labels: NDArray[np.uint8]
    walls: list[ThermalWall] = field(default_factory=list)
    blood_cells: list[tuple[Index, float]] = field(default_factory=list)
    blood_tissue: str | None = None
    groups: list[OpenGroup] = field(default_factory=list)
    streams: list[BloodStream] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_fits: dict[int, tuple[weakref.ref[Lumen], Grid, LinkFactors]] = {}


def _wall_links(grid: Grid, lumen: Lumen) -> LinkFactors:
    """Links to walls at blood temperature, fitted once for all cases that share a lumen."""
    key = id(lumen)
    if key in _fits and _fits[key][0]() is lumen and _fits[key][1] == grid:
        return _fits[key][2]
    links = fit_vessel_links(grid, lumen.signed_distance, lumen.radius, 0.0)
    forget = weakref.ref(lumen, lambda _: _fits.pop(key, None))
    _fits[key] = (forget, grid, links)
    return links


def open_vessels(
    anatomy: Anatomy,
    vessels: VesselsConfig,
    tissue: TissueConfig,
    lumen_label: int,
    conductivity: NDArray[np.float64],
) -> OpenVessels:
    """Mark open lumens and fit their walls.

    Parameters
    ----------
    lumen_label : label that open lumens get. conductivity : k at 37 °C by label [W/(m K)].

    Raises
    ------
    InputError
        For an unknown model, a flow without a diameter or a centre line, two kinds of blood.
    """
    grid, found = anatomy.grid, OpenVessels(anatomy.labels.copy())
    liver = next((s for s in anatomy.structures if s.role == "organ"), anatomy.structures[0])
    _check_diameters(anatomy, vessels)
    for lumen in anatomy.lumens:
        model = vessel_model(vessels, lumen.group)
        if model not in VESSEL_MODELS:
            raise InputError(f"vessels model {model!r}: choose one of {', '.join(VESSEL_MODELS)}")
        members = [s.label for s in anatomy.structures if s.vessel_group == lumen.group]
        inside = np.isin(found.labels, members)
        if model == "ignored":
            found.labels[inside] = liver.label
        if model in ("occluded", "ignored"):
            continue
        blood = _blood(anatomy, vessels, tissue, lumen.group, found)
        links = _wall_links(grid, lumen)
        k = conductivity[np.minimum(found.labels.ravel()[links.wall_cells], len(conductivity) - 1)]
        k = np.where(k > 0, k, conductivity[liver.label])
        found.labels[inside] = lumen_label
        found.labels.ravel()[links.solid_cells] = lumen_label
        own = vessels.groups.get(lumen.group) or VesselGroupConfig()
        warmth = vessels.blood_temperature if own.blood_temperature is None else own.blood_temperature
        name = f"vessel:{lumen.group}"
        wide = _wide_tree(lumen, vessels, own) if needs_centre_lines(vessels, lumen.group) else None
        film: NDArray[np.float64] | None = None
        flow = None
        if model != "isothermal":
            film, flow = _film(grid, lumen, vessels, own, blood, wide, links.wall_cells)
            links = behind_film(links, grid.spacing[0], k * (1.0 / film + own.wall_resistance))
        if model == "advective":
            if wide is None:
                raise InputError(
                    f"vessels.groups.{lumen.group}: advective blood needs centre lines, and none are known; "
                    "use convective"
                )
            tree, flows, _ = wide
            network = BloodNetwork(
                tree, _to_root(lumen.group, own), flows, warmth, blood.volumetric_heat_capacity
            )
            cells = np.union1d(np.flatnonzero(inside.ravel()), links.solid_cells)
            stream = BloodStream(
                name,
                network,
                cells,
                tree.nearest_segment(_points(grid, cells)),
                tree.nearest_segment(_points(grid, links.wall_cells)),
            )
            found.streams.append(stream)
            links = stream.owned(links)
            found.walls.append(ThermalWall(name, links, [warmth] * tree.n_segments, by_owner=True))
            seconds = network.transit_time(grid)
            if seconds > LONG_TRANSIT:
                found.notes.append(
                    f"{lumen.group}: blood takes {seconds:.0f} s through the box; its temperatures are those "
                    "of a steady stream and run ahead of the real ones by about that time"
                )
        else:
            found.walls.append(ThermalWall(name, links, [warmth]))
        found.blood_cells.append((np.flatnonzero(found.labels.ravel() == lumen_label), warmth))
        found.groups.append(OpenGroup(lumen.group, model, warmth, flow, _spread(film, links.wall_areas)))
    return found


def _points(grid: Grid, cells: Index) -> NDArray[np.float64]:
    return grid.points(np.stack(np.unravel_index(cells, grid.shape), axis=1))


def _spread(
    film: NDArray[np.float64] | None, areas: NDArray[np.float64]
) -> tuple[float, float, float] | None:
    if film is None or not len(film):
        return None
    return float(film.min()), float(np.average(film, weights=areas)), float(film.max())


def _check_diameters(anatomy: Anatomy, vessels: VesselsConfig) -> None:
    """Refuse a group's own flow where the grid holds no vessel of it, whose diameter would be needed."""
    known = {lumen.group for lumen in anatomy.lumens}
    for name, own in vessels.groups.items():
        given = "flow_ml_min" if own.flow_ml_min else "velocity_cm_s" if own.velocity_cm_s else None
        if given and name not in known and vessel_model(vessels, name) in ("convective", "advective"):
            raise InputError(
                f"vessels.groups.{name}.{given}={getattr(own, given):g} has no diameter: no {name} of at "
                f"least vessels.minimum_diameter_mm={vessels.minimum_diameter_mm:g} mm lies in the box; "
                "lower that, enlarge the box, or leave the flow out"
            )


def _blood(
    anatomy: Anatomy, vessels: VesselsConfig, tissue: TissueConfig, group: str, found: OpenVessels
) -> Blood:
    """What flows in a group; in all open vessels it is one tissue."""
    for structure in anatomy.structures:
        if structure.vessel_group == group:
            if found.blood_tissue not in (None, structure.tissue):
                raise InputError(
                    f"open vessels are made of {found.blood_tissue!r} and {structure.tissue!r} "
                    f"({structure.name}); give all of them one tissue, such as blood"
                )
            found.blood_tissue = structure.tissue
    if found.blood_tissue is None:
        return Blood(viscosity=vessels.blood_viscosity)
    fluid = tissue.tissues[found.blood_tissue]
    return Blood(
        fluid.density, fluid.specific_heat_capacity, fluid.thermal_conductivity, vessels.blood_viscosity
    )


def _to_root(group: str, own: VesselGroupConfig) -> bool:
    """Whether blood flows towards the root: in hepatic veins, if nothing else is said."""
    if own.flow_direction is None:
        return group == "hepatic_vein"
    return own.flow_direction == "to_root"


def _wide_tree(
    lumen: Lumen, vessels: VesselsConfig, own: VesselGroupConfig
) -> tuple[VesselTree, NDArray[np.float64], float] | None:
    """The part of a group's tree that is geometry, the flow in each segment, and through all roots [m³/s].

    The flow is split in the whole tree, thin branches included.
    """
    tree = lumen.tree
    if tree is None:
        return None
    roots = tree.radii[tree.parents < 0]
    total = _flow_from(vessels, own, lumen.group, float(np.sqrt(np.sum((2.0 * roots) ** 2))), len(roots))
    flows = murray_flows(tree, total)
    keep = tree.wide_enough(1e-3 * vessels.minimum_diameter_mm)
    pruned = tree.pruned(1e-3 * vessels.minimum_diameter_mm)
    if pruned is None:  # the grid's own measure of the width differs a little from the centre line's
        pruned, keep = tree, np.ones(tree.n_segments, dtype=bool)
    fine, source = pruned.cut(LONGEST_SEGMENT)
    return fine, flows[keep][source], total


def _flow_from(
    vessels: VesselsConfig, own: VesselGroupConfig, group: str, diameter: float, n_roots: int = 1
) -> float:
    """Flow of a group [m³/s]; `diameter` [m] of one tube as wide as all its roots together."""
    if own.velocity_cm_s is not None:
        if own.inner_diameter_mm is not None:
            return n_roots * volume_flow(1e-2 * own.velocity_cm_s, 1e-3 * own.inner_diameter_mm)
        return volume_flow(1e-2 * own.velocity_cm_s, diameter)
    given = vessel_flow_given(vessels, group)
    if given is None:
        raise InputError(
            f"vessels.groups.{group}: the model advective needs flow_ml_min or velocity_cm_s (or the group's "
            "entry in vessels.typical_flow_ml_min)"
        )
    return given * MILLILITRE_PER_MINUTE


def _film(
    grid: Grid,
    lumen: Lumen,
    vessels: VesselsConfig,
    own: VesselGroupConfig,
    blood: Blood,
    wide: tuple[VesselTree, NDArray[np.float64], float] | None,
    wall_cells: Index,
) -> tuple[NDArray[np.float64], float | None]:
    """h at each wall cell [W/(m² K)], and the group's flow [m³/s] if it is known."""
    ones = np.ones(len(wall_cells))
    correlation = own.correlation or vessels.correlation
    flow = None if wide is None else wide[2]
    if own.heat_transfer_coefficient is not None:
        return own.heat_transfer_coefficient * ones, flow
    if vessel_flow_given(vessels, lumen.group) is None or correlation == "none":
        return vessels.heat_transfer_coefficient * ones, flow
    inner = None if own.inner_diameter_mm is None else 1e-3 * own.inner_diameter_mm
    if wide is not None:
        tree, flows, _ = wide
        entrance = entrance_lengths(tree, grid, _to_root(lumen.group, own))
        films = film_coefficients(tree, flows, blood, correlation, entrance, inner)
        return films[tree.nearest_segment(_points(grid, wall_cells))], flow
    # no centre line: one h from the mean diameter at the wall and the lumen's longest extent in the box
    outer = 2.0 * float(lumen.radius.ravel()[wall_cells].mean()) if len(wall_cells) else 1e-3
    diameter = outer if inner is None else inner
    flow = _flow_from(vessels, own, lumen.group, outer)
    cells = np.argwhere(lumen.signed_distance < 0)
    length = grid.spacing[0] * float(np.ptp(cells, axis=0).max() + 1) if len(cells) else diameter
    re = reynolds(mean_velocity(flow, diameter), diameter, blood)
    nu = nusselt(correlation, re, blood.prandtl, 0.0, max(length / diameter, 1e-3))
    return film_coefficient(nu, diameter, blood) * diameter / outer * ones, flow
