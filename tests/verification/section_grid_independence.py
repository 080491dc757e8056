"""The same treatment on coarser and finer grids, and with longer and shorter time steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from solver_cases import needle, small_problem, vessel_anatomy
from verification.sections import Claim, Section, section

from thermosim.backends.base import Backend
from thermosim.build import build_problem, load_case
from thermosim.config import GeneratorConfig, SegmentConfig, SolverConfig
from thermosim.outcome.assess import assess
from thermosim.simulation import Problem, SimulationResult, run

SPACINGS = (2e-3, 1e-3, 0.5e-3)
DEMO_SPACINGS = (2e-3, 1e-3)
VOLUME = {2e-3: 4.0, 1e-3: 1.5}
"""Largest change of the zone's volume [%] against the finest grid."""


@dataclass(frozen=True)
class Figures:
    """What a run is judged by: volumes [ml], resistance [Ω], extents and margin [mm]."""

    volume: float
    strict_volume: float  # by CEM43
    resistance: float
    long_axis: float
    short_axis: float
    margin: float
    edge: np.ndarray  # outline of the zone in one plane [mm], for the plot


def figures(result: SimulationResult, problem: Problem) -> Figures:
    outcome = assess(result, problem.damage)
    zone = outcome.zones["arrhenius"]
    margins = [tumor.all_around.minimum for tumor in outcome.tumors]
    return Figures(
        volume=1e6 * zone.volume,
        strict_volume=1e6 * outcome.zones["cem43"].volume,
        resistance=result.final_impedance,
        long_axis=1e3 * zone.long_axis,
        short_axis=1e3 * zone.short_axis,
        margin=1e3 * min(margins, default=float("nan")),
        edge=1e3 * outline(zone.surface.points, zone.surface.triangles),
    )


def outline(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Segments (n, 2, 2) in which a plane y = constant through its middle cuts a surface: x and z [m]."""
    points = points - np.array([0.0, round(1e3 * float(points[:, 1].mean())) * 1e-3, 0.0])
    above = points[triangles][:, :, 1] > 0.0
    segments = []
    for triangle, side in zip(points[triangles], above, strict=True):
        if side.all() or not side.any():
            continue
        ends = []
        for a, b in ((0, 1), (1, 2), (2, 0)):
            if side[a] != side[b]:
                p, q = triangle[a], triangle[b]
                ends.append((p + (q - p) * p[1] / (p[1] - q[1]))[[0, 2]])
        segments.append(ends)
    return np.array(segments) if segments else np.empty((0, 2, 2))


def beside_a_vessel(spacing: float, solver: SolverConfig | None = None) -> Problem:
    """A tilted cooled needle 10 mm from a vessel of 8 mm diameter, in a box of 48 mm."""
    n = round(48e-3 / spacing)
    direction = np.array([0.36, 0.48, 0.80])
    tip = np.array([-2.3e-3, 0.4e-3, 1.1e-3]) - 0.5 * 20e-3 * direction
    electrode = needle(
        target=(float(tip[0]), float(tip[1]), float(tip[2])), direction=(0.36, 0.48, 0.80), coolant=10.0
    )
    return small_problem(
        anatomy=vessel_anatomy((n, n, n), spacing, place=11e-3),
        electrodes=(electrode,),
        generator=GeneratorConfig(mode="constant_power", power=16.0),
        segments=[SegmentConfig(duration_min=6.0)],
        cooling=60.0,
        solver=solver,
    )


def demo(spacing: float) -> Problem:
    """The demo's three needles, tumour and vessels; in a box of 96 mm, all the zone needs."""
    overrides = [f"grid.spacing_mm={1e3 * spacing:g}", "grid.size_mm=[96,96,96]"]
    return build_problem(load_case("demo", overrides))[0]


def solve(problem: Problem, backend: Backend) -> Figures:
    return figures(run(problem, backend), problem)


def _change(value: float, finest: float) -> float:
    return 100.0 * (value / finest - 1.0)


def _row(case: str, name: str, one: Figures, finest: Figures) -> list[str | float]:
    margin = f"{one.margin:.2f} mm" if np.isfinite(one.margin) else "–"
    return [
        case,
        name,
        f"{one.volume:.3f} ml",
        f"{_change(one.volume, finest.volume):+.2f} %",
        f"{_change(one.strict_volume, finest.strict_volume):+.2f} %",
        f"{_change(one.resistance, finest.resistance):+.2f} %",
        f"{one.long_axis - finest.long_axis:+.2f} mm",
        f"{one.short_axis - finest.short_axis:+.2f} mm",
        margin,
    ]


COLUMNS = (
    "case",
    "grid or step",
    "zone",
    "zone − finest",
    "zone by CEM43",
    "resistance, end",
    "long axis",
    "short axis",
    "thinnest margin",
)


def _draw(figure: Figure, small: dict[float, Figures], large: dict[float, Figures]) -> None:
    figure.set_size_inches(10.5, 4.2)
    axes = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 0.9))
    colors = {2e-3: "#55a868", 1e-3: "#c44e52", 0.5e-3: "#4c72b0"}
    for axis, found, title in (
        (axes[0], small, "Zone beside a vessel"),
        (axes[1], large, "Zone of the demo"),
    ):
        for h, one in found.items():
            for number, part in enumerate(one.edge):
                label = f"{1e3 * h:g} mm" if number == 0 else None
                axis.plot(part[:, 0], part[:, 1], color=colors[h], lw=1.0, label=label)
        axis.set(xlabel="x [mm]", ylabel="z [mm]", title=title, aspect="equal")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7)
    for found, marker, label in ((small, "o-", "beside a vessel"), (large, "^-", "demo")):
        finest = found[min(found)].volume
        rest = [h for h in found if h != min(found)]
        change = [_change(found[h].volume, finest) for h in rest]
        axes[2].plot([1e3 * h for h in rest], change, marker, mfc="none", label=label)
    for h, limit in VOLUME.items():
        axes[2].plot([1e3 * h] * 2, [-limit, limit], "_", color="black", ms=14)
    axes[2].axhline(0.0, color="black", lw=0.8)
    axes[2].set(
        xlabel="spacing [mm]", ylabel="volume against the finest grid [%]", title="Change (bars: limits)"
    )
    axes[2].legend(frameon=False, fontsize=7)


TITLE = "The grid and the time step"

TEXT = """\
Two treatments on several grids. **Beside a vessel**: a cooled needle of 20 mm, tilted against the grid,
16 W for 6 min and a minute of cooling; an isothermal vessel of 8 mm, blood of 0.7 S/m; box of 48 mm; 2, 1
and 0.5 mm. **Demo**: the three cooled needles, tumour and vessel trees of the shipped case in a box of 96
mm, 2 and 1 mm (0.5 mm is 7 million cells: left out for its time, so that 2 mm is judged against 1 mm
there, with the limit of 2 mm). Then the first case on 1 mm with time steps of at most half and an eighth
of the shipped ones.

The zone is Ω ≥ 1, its surface found between the cells; what a planner reads is its volume, extents and
the thinnest margin. Limits: 4 % of the volume at 2 mm and 1.5 % at 1 mm; 0.5 mm in the thinnest margin, a
tenth of the 5 mm that are asked for clinically; 1 % from time steps."""


@section("grid_independence", TITLE, 38)
def grid_independence(backend: Backend) -> Section:
    small = {h: solve(beside_a_vessel(h), backend) for h in SPACINGS}
    large = {h: solve(demo(h), backend) for h in DEMO_SPACINGS}
    shipped = SolverConfig()
    shorter = {
        part: replace(
            shipped,
            maximum_time_step=shipped.maximum_time_step / part,
            maximum_temperature_rise=shipped.maximum_temperature_rise / part,
        )
        for part in (2, 8)
    }
    stepped = {part: solve(beside_a_vessel(1e-3, solver), backend) for part, solver in shorter.items()}
    rows = [_row("beside a vessel", f"{1e3 * h:g} mm", one, small[SPACINGS[-1]]) for h, one in small.items()]
    rows += [_row("demo", f"{1e3 * h:g} mm", one, large[DEMO_SPACINGS[-1]]) for h, one in large.items()]
    rows += [_row("1 mm, time step", "as shipped", small[1e-3], stepped[8])]
    rows += [_row("1 mm, time step", f"1/{part}", one, stepped[8]) for part, one in stepped.items()]
    claims = [
        Claim(
            f"volume at {1e3 * h:g} mm against 0.5 mm, beside a vessel",
            abs(_change(small[h].volume, small[0.5e-3].volume)),
            limit,
            "%",
        )
        for h, limit in VOLUME.items()
    ]
    coarse, fine = large[2e-3], large[1e-3]
    zone_change = abs(_change(small[1e-3].volume, stepped[8].volume))
    resistance_change = abs(_change(small[1e-3].resistance, stepped[8].resistance))
    claims += [
        Claim(
            "volume at 2 mm against 1 mm, demo", abs(_change(coarse.volume, fine.volume)), VOLUME[2e-3], "%"
        ),
        Claim("thinnest margin at 2 mm against 1 mm, demo", abs(coarse.margin - fine.margin), 0.5, "mm"),
        Claim("volume, shipped time steps against 1/8", zone_change, 1.0, "%"),
        Claim("resistance at the end, shipped time steps against 1/8", resistance_change, 1.0, "%"),
    ]

    def draw(figure: Figure) -> None:
        _draw(figure, small, large)

    return Section("grid_independence", TITLE, TEXT, COLUMNS, rows, draw, claims)
