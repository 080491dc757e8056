"""Every kernel against a NumPy oracle in double precision, on random fields.

All memory is random, ghost cells too: a kernel must read the right neighbour, and must leave every
ghost cell of what it writes as it was. Tolerances count roundings of float32 (`EPSILON`): a sum of
terms t errs by a few EPSILON · Σ|t|, however much of it cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gpu_path import GpuPath
from numpy.typing import NDArray
from ptx import Checks

from thermosim.backends import select
from thermosim.backends.base import Backend, Layout, kernel_signatures
from thermosim.backends.cuda import missing as cuda_missing
from thermosim.numerics.leaks import Leaks, parents_of
from thermosim.tissue import laws
from thermosim.units import GAS_CONSTANT

EPSILON = float(np.finfo(np.float32).eps)
Field = NDArray[Any]
Terms = tuple[Field, ...]

N_LABELS = 5
SHAPES = {
    "odd": (13, 9, 22),
    "flat": (3, 1, 7),
    "large": (43, 41, 39),  # more than 65536 cells: several threads
}


def forward(value: Field, *others: Field) -> Field:
    """Σ|t| of the terms of a sum."""
    return np.asarray(sum(np.abs(term) for term in (value, *others)))


@dataclass
class Bench:
    """A grid on a backend with random fields, and kernels launched by the names of their parameters."""

    backend: Backend
    layout: Layout
    random: np.random.Generator
    launched: set[str]

    # ---- memory

    def memory(self, low: float = -1.0, high: float = 1.0, layout: Layout | None = None) -> Field:
        size = (layout or self.layout).size
        return self.random.uniform(low, high, size).astype(np.float32)

    def labels(self) -> Field:
        return self.random.integers(0, N_LABELS, self.layout.size).astype(np.uint8)

    def table(self, low: float, high: float) -> Field:
        return self.random.uniform(low, high, N_LABELS).astype(np.float32)

    def index(self, layout: Layout | None = None) -> NDArray[np.int64]:
        """Place of every cell of the box in memory, by the rule that kernels/portable.h states."""
        grid = layout or self.layout
        i, j, k = np.indices(grid.shape)
        return np.asarray(grid.origin + i * grid.sx + j * grid.sy + k)

    def inside(self, memory: Field) -> Field:
        return np.asarray(memory[self.index()], dtype=np.float64)

    def steps(self) -> tuple[int, int, int]:
        return self.layout.sx, self.layout.sy, 1

    # ---- launches

    def run(
        self, name: str, writes: tuple[str, ...] = (), n: int | None = None, **given: Any
    ) -> dict[str, Field]:
        """Launch `name`; returns what it wrote, after checking that it wrote nowhere else.

        Parameters are ordered by the kernel's own declaration; numbers and host arrays are turned
        into its types. `n`: a list of entries instead of the grid. Row kernels return `rows`.
        """
        signature = kernel_signatures()[name]
        kinds = {"float": np.float32, "int": np.int32}
        device: dict[str, Any] = {}
        arguments = []
        for c_type, parameter in signature.parameters:
            if (parameter == "rows" and signature.kind == "row") or (parameter == "n" and n is not None):
                continue
            value = given[parameter]
            if c_type in kinds:
                arguments.append(kinds[c_type](value))
            elif isinstance(value, str):  # the same array twice
                arguments.append(device[value])
            else:
                device[parameter] = self.backend.asarray(value, str(value.dtype))
                arguments.append(device[parameter])
        self.launched.add(name)
        results: dict[str, Field] = {}
        if n is not None:
            self.backend.on_entries(name, n, *arguments)
        elif signature.kind == "row" and signature.parameters[-1][1] == "rows":
            n_values = given["n_values"]
            results["rows"] = self.backend.to_host(
                self.backend.on_rows(name, self.layout, n_values, *arguments)
            ).copy()
        else:
            self.backend.on_cells(name, self.layout, *arguments)
        inside = np.zeros(self.layout.size, dtype=bool)
        inside[self.index().ravel()] = True
        for parameter, values in device.items():
            after = self.backend.to_host(values)
            if parameter not in writes:
                assert after.tobytes() == given[parameter].tobytes(), f"{name} changed {parameter}"
                continue
            results[parameter] = after.copy()
            if n is None and after.size == inside.size:  # another level's ghost cells: see its own test
                assert np.array_equal(after[~inside], given[parameter][~inside]), f"{name}: ghost cells"
        return results

    def agree(self, actual: Field, wanted: Field, scale: Field | float, ulps: float = 8.0) -> None:
        """|actual − wanted| ≤ ulps · EPSILON · scale in every cell."""
        memory = actual.shape == (self.layout.size,)
        values = self.inside(actual) if memory else np.asarray(actual, dtype=np.float64)
        assert values.shape == wanted.shape
        excess = np.abs(values - wanted) / (ulps * EPSILON * np.maximum(scale, 1e-30))
        assert np.all(excess <= 1.0), f"{float(np.nanmax(excess)):.3g} of what is allowed"

    def agree_rows(self, actual: Field, wanted: Field, terms: Field) -> None:
        """Sums over rows of nz cells: each addition rounds once."""
        nz = self.layout.shape[2]
        scale = np.abs(terms).sum(axis=2).ravel()
        self.agree(actual, wanted.sum(axis=2).ravel(), scale, ulps=nz + 8.0)


DEVICES = ["cpu"] if cuda_missing() else ["cpu", "cuda"]


@pytest.fixture(scope="module", params=DEVICES)
def backend(request: pytest.FixtureRequest) -> Backend:
    return select(request.param, 2)


@pytest.fixture(params=SHAPES)
def bench(backend: Backend, request: pytest.FixtureRequest) -> Bench:
    return Bench(backend, Layout(SHAPES[request.param]), np.random.default_rng(20240607), set())


ORACLES: dict[str, Callable[[Bench], None]] = {}


def oracle(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """Register the check of the kernel it is named after."""
    ORACLES[check.__name__] = check
    return check


@pytest.mark.parametrize("kernel", sorted(kernel_signatures()))
def test_kernel_does_what_its_oracle_does(kernel: str, bench: Bench) -> None:
    assert kernel in ORACLES, f"kernel {kernel} has no oracle in {__name__}"
    ORACLES[kernel](bench)
    assert kernel in bench.launched


def test_every_oracle_has_a_kernel() -> None:
    assert set(ORACLES) == set(kernel_signatures())


def test_oracles_held_on_a_gpu_too() -> None:
    reason = cuda_missing()
    if reason is not None:
        pytest.skip(f"no GPU: {reason}")
    assert "cuda" in DEVICES


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(5, 3, 9), (7, 4, 71)])  # one pass of a warp along a row, and three
@pytest.mark.parametrize("kernel", sorted(kernel_signatures()))
def test_oracles_hold_for_the_cuda_code(kernel: str, shape: tuple[int, int, int], gpu_path: GpuPath) -> None:
    if gpu_path.watch is not None:
        gpu_path.watch.checks = Checks(races=True, initialised=True)
    ORACLES[kernel](Bench(gpu_path.backend, Layout(shape), np.random.default_rng(1), set()))


# ---------------------------------------------------------------------------- electric potential

CONDUCTIVITY_LAWS = ("constant", "linear", "exponential")
COLLAPSE, WIDTH, FACTOR = 100.0, 5.0, 0.01
REFERENCE = 20.0


def conductivity_arguments(bench: Bench, law: int) -> dict[str, Any]:
    sigma_37, slope = bench.table(0.1, 0.8), bench.table(0.0, 0.03)
    sigma_37[0] = 0.0
    return {
        # −20 to 130 °C: through the linear law's floor and the whole collapse
        "theta": bench.memory(-40.0, 110.0),
        "reference": REFERENCE,
        "label": bench.labels(),
        "sigma_37": sigma_37,
        "slope": slope,
        "inverse_capacity": bench.table(1e-7, 4e-7),
        "law": law,
        "collapse": COLLAPSE,
        "width": WIDTH,
        "log_factor": np.log(FACTOR),
        "q": bench.memory(0.0, 3e7),
        "gain": 0.0,
    }


def sigma_wanted(bench: Bench, given: dict[str, Any]) -> Field:
    label = given["label"][bench.index()]
    ratio = laws.electrical_conductivity_ratio(
        bench.inside(given["theta"]) + REFERENCE,
        given["slope"].astype(float)[label],
        CONDUCTIVITY_LAWS[given["law"]],
        COLLAPSE,
        WIDTH,
        FACTOR,
    )
    return np.asarray(given["sigma_37"].astype(float)[label] * ratio)


def settled(bench: Bench, given: dict[str, Any], old: Field) -> Field:
    """σ between the law's and the `old` one where tissue boils, see `settled_conductivity`."""
    T = bench.inside(given["theta"]) + REFERENCE
    capacity = given["inverse_capacity"].astype(float)[given["label"][bench.index()]]
    g = np.minimum(given["gain"] * bench.inside(given["q"]) * capacity, 4.0)
    boils = (T > COLLAPSE - 2.0) & (T < COLLAPSE + 4.0 * WIDTH) & (old > 0.0)
    now = sigma_wanted(bench, given)
    return np.asarray(np.where(boils, (now + g * old) / (1.0 + g), now))


CONDUCTIVITY_ULPS = 150.0
"""T is rounded to 100 EPSILON; where σ collapses a kelvin counts ln(100)/5: 92 roundings, and some more."""


@oracle
def electrical_conductivity(bench: Bench) -> None:
    for law in range(3):
        given = conductivity_arguments(bench, law)
        old = bench.memory(0.0, 1.0)
        old[bench.random.random(old.size) < 0.2] = 0.0  # nothing solved yet: σ is the law's
        for gain in (0.0, 1.5):
            given["gain"] = gain
            out = bench.run("electrical_conductivity", ("sigma",), sigma=old.copy(), **given)
            wanted = settled(bench, given, bench.inside(old))
            bench.agree(out["sigma"], wanted, wanted, CONDUCTIVITY_ULPS)


@oracle
def conductivity_drift(bench: Bench) -> None:
    given = conductivity_arguments(bench, 1)
    solved = bench.memory(0.1, 1.0)
    solved[bench.random.random(solved.size) < 0.2] = 0.0  # metal: no drift there
    given["q"] = bench.memory(0.0, 1.0)
    given["theta"] = bench.memory(-10.0, 70.0)  # most below the collapse: r stays near 1
    still = bench.random.random(bench.layout.shape[:2]) < 0.3  # σ is as it was in such rows
    given["theta"][bench.index()[still]] *= np.float32(0.5 / 70.0)
    given["sigma_37"][0] = 0.3
    given["gain"] = 3e6
    out = bench.run("conductivity_drift", sigma_solved=solved, expected=1.1, n_values=3, **given)["rows"]
    old, heat = bench.inside(solved), bench.inside(given["q"])
    r = np.divide(settled(bench, given, old), 1.1 * old, out=np.ones_like(old), where=old > 0.0)
    r[still] = 1.0 / 1.1
    weight = heat * np.minimum(1.0 / r, 3.0 / (r + 2.0))
    sizes = (heat, heat * r, weight * (r + 1.0) ** 2)  # of what is added and subtracted
    for row, terms, size in zip(out, (heat, heat * r, weight * (r - 1.0) ** 2), sizes, strict=True):
        bench.agree_rows(row, terms, size)


@oracle
def face_conductance(bench: Bench) -> None:
    sigma = bench.memory(0.1, 1.0)
    sigma[bench.random.random(sigma.size) < 0.3] = 0.0
    blank = {name: bench.memory() for name in ("gx", "gy", "gz")}
    out = bench.run("face_conductance", ("gx", "gy", "gz"), sigma=sigma, **blank)
    a = bench.inside(sigma)
    for name, step in zip(("gx", "gy", "gz"), bench.steps(), strict=True):
        b = sigma[bench.index() + step].astype(float)
        wanted = np.divide(2.0 * a * b, a + b, out=np.zeros_like(a), where=a + b > 0.0)
        bench.agree(out[name], wanted, wanted)


def some_cells(bench: Bench) -> NDArray[np.int32]:
    """A third of the box's cells, each once, in no order."""
    cells = bench.index().ravel()
    return bench.random.permutation(cells)[: max(1, len(cells) // 3)].astype(np.int32)


def entries(bench: Bench, n: int, low: float = 0.1, high: float = 3.0) -> Field:
    return bench.random.uniform(low, high, n).astype(np.float32)


def elsewhere_untouched(before: Field, after: Field, cells: Field) -> None:
    rest = np.ones(before.size, dtype=bool)
    rest[cells] = False
    assert np.array_equal(before[rest], after[rest])


@oracle
def scale_faces(bench: Bench) -> None:
    cells, g = some_cells(bench), bench.memory(0.1, 1.0)
    factor = entries(bench, len(cells), 0.0, 3.0)
    out = bench.run("scale_faces", ("g",), n=len(cells), face=cells, factor=factor, g=g)["g"]
    wanted = g[cells].astype(float) * factor
    bench.agree(out[cells], wanted, wanted, 1.0)
    elsewhere_untouched(g, out, cells)


@oracle
def wall_leak(bench: Bench) -> None:
    cells, sigma, leak = some_cells(bench), bench.memory(0.1, 1.0), bench.memory()
    factor = entries(bench, len(cells))
    places = bench.random.permutation(leak.size)[: len(cells)].astype(np.int32)
    given = {"place": places, "cell": cells, "factor": factor, "sigma": sigma}
    out = bench.run("wall_leak", ("leak",), n=len(cells), leak=leak, **given)["leak"]
    added = factor.astype(float) * sigma[cells]
    bench.agree(out[places], leak[places] + added, forward(leak[places], added), 2.0)
    elsewhere_untouched(leak, out, places)


@oracle
def wall_inflow(bench: Bench) -> None:
    cells, sigma, residual = some_cells(bench), bench.memory(0.1, 1.0), bench.memory()
    factor = entries(bench, len(cells))
    given = {"n": len(cells), "cell": cells, "factor": factor, "sigma": sigma, "potential": -0.7}
    out = bench.run("wall_inflow", ("residual",), residual=residual, **given)["residual"]
    inflow = -0.7 * factor.astype(float) * sigma[cells]
    bench.agree(out[cells], residual[cells] + inflow, forward(residual[cells], inflow), 3.0)
    elsewhere_untouched(residual, out, cells)


def leaks_of(bench: Bench, links: Field, layout: Layout) -> Leaks:
    """Links to walls, given for every cell of a level."""
    leaks = Leaks(bench.backend, layout, np.flatnonzero(links))
    leaks.set_all(links)
    assert np.array_equal(leaks.on_host(), links)
    return leaks


def on_host(bench: Bench, leaks: Leaks) -> tuple[Field, Field]:
    values, rows = (np.array(bench.backend.to_host(array)) for array in leaks.arrays)
    return values, rows


def conductances(bench: Bench) -> dict[str, Field]:
    """Links of a matrix, some of them cut, and some cells with none at all."""
    links = {name: bench.memory(0.1, 1.0) for name in ("gx", "gy", "gz")}
    links["wall"] = bench.memory(0.0, 0.5)
    for values in links.values():
        values[bench.random.random(values.size) < 0.2] = 0.0
    sx, sy, _ = bench.steps()
    lonely = bench.index().ravel()[::11]
    links["wall"][lonely] = 0.0
    inside = bench.layout.interior(links["wall"])
    inside[1::3, :, 1:-1] = inside[2::3, 1::2] = 0.0  # rows with links at their ends alone, and with none
    links["leak"], links["leak_rows"] = on_host(bench, leaks_of(bench, inside, bench.layout))
    for name, step in (("gx", sx), ("gy", sy), ("gz", 1)):
        links[name][lonely] = links[name][lonely - step] = 0.0
    return links


def neighbours(bench: Bench, links: dict[str, Field], x: Field) -> list[tuple[Field, Field]]:
    """(g, x_p − x_q) of the six links of every cell."""
    p, own = bench.index(), bench.inside(x)
    pairs = []
    for name, step in zip(("gx", "gy", "gz"), bench.steps(), strict=True):
        g, values = links[name].astype(float), x.astype(float)
        pairs += [(g[p], own - values[p + step]), (g[p - step], own - values[p - step])]
    return pairs


def applied(bench: Bench, links: dict[str, Field], x: Field) -> tuple[Field, Field]:
    """A x and Σ|t| of its terms."""
    terms = [g * drop for g, drop in neighbours(bench, links, x)]
    terms.append(bench.inside(links["wall"]) * bench.inside(x))
    return np.asarray(sum(terms)), forward(*terms)


def diagonal(bench: Bench, links: dict[str, Field]) -> Field:
    return np.asarray(sum(g for g, _ in neighbours(bench, links, links["gx"])) + bench.inside(links["wall"]))


@oracle
def wall_current(bench: Bench) -> None:
    cells, sigma, phi = some_cells(bench), bench.memory(0.1, 1.0), bench.memory(0.0, 1.0)
    links, n = conductances(bench), len(cells)
    del links["leak"]
    factor, alone = entries(bench, n), (bench.random.random(n) < 0.5).astype(np.float32)
    sx, sy, _ = bench.steps()
    out = bench.run(
        "wall_current",
        ("current",),
        n=n,
        sx=sx,
        sy=sy,
        cell=cells,
        factor=factor,
        alone=alone,
        sigma=sigma,
        phi=phi,
        potential=0.75,
        current=np.full(n, 7.0),
        **links,
    )["current"]
    terms = [g * drop for g, drop in neighbours(bench, links, phi)]
    where = [np.zeros(bench.layout.size) for _ in range(2)]
    where[0][bench.index()], where[1][bench.index()] = np.asarray(sum(terms)), forward(*terms)
    fed = factor.astype(float) * sigma[cells] * (0.75 - phi[cells].astype(float))
    wanted = np.where(alone > 0.0, where[0][cells], fed)
    # summed in double precision; only factor · σ is rounded to float32
    bench.agree(out, wanted, np.where(alone > 0.0, where[1][cells], np.abs(fed)), 1.0)


@oracle
def joule_heat(bench: Bench) -> None:
    links, phi = conductances(bench), bench.memory()
    del links["leak"]
    out = bench.run("joule_heat", ("q",), phi=phi, inverse_h2=4.0e6, q=bench.memory(), **links)["q"]
    wanted = np.asarray(sum(0.5 * 4.0e6 * g * drop**2 for g, drop in neighbours(bench, links, phi)))
    bench.agree(out, wanted, wanted)


@oracle
def wall_joule_heat(bench: Bench) -> None:
    cells, sigma, phi, q = some_cells(bench), bench.memory(0.1, 1.0), bench.memory(), bench.memory(0.0, 1e6)
    factor = entries(bench, len(cells))
    out = bench.run(
        "wall_joule_heat",
        ("q",),
        n=len(cells),
        cell=cells,
        factor=factor,
        sigma=sigma,
        phi=phi,
        potential=1.5,
        inverse_h2=1.0e6,
        q=q,
    )["q"]
    added = 1.0e6 * factor.astype(float) * sigma[cells] * (1.5 - phi[cells].astype(float)) ** 2
    bench.agree(out[cells], q[cells] + added, forward(q[cells], added))
    elsewhere_untouched(q, out, cells)


@oracle
def scale_add(bench: Bench) -> None:
    x, before = bench.memory(), bench.memory()
    out = bench.run("scale_add", ("out",), a=1.7, x=x, b=-0.6, out=before)["out"]
    terms = (float(np.float32(1.7)) * bench.inside(x), float(np.float32(-0.6)) * bench.inside(before))
    bench.agree(out, terms[0] + terms[1], forward(*terms))
    # b = 0 clears whatever was there, even what is no number
    before[:] = np.nan
    given = before.copy()
    given[np.isin(np.arange(given.size), bench.index(), invert=True)] = 0.0
    cleared = bench.run("scale_add", ("out",), a=2.0, x=x, b=0.0, out=given)["out"]
    assert np.array_equal(cleared[bench.index()], 2.0 * x[bench.index()])


@oracle
def total_heat(bench: Bench) -> None:
    q, label = bench.memory(0.0, 1e6), bench.labels()
    is_blood = np.array([0, 1, 0, 0, 1], dtype=np.float32)
    out = bench.run("total_heat", q=q, label=label, is_blood=is_blood, n_values=2)["rows"]
    heat = bench.inside(q)
    blood = heat * is_blood[label[bench.index()]]
    # summed in double precision: nothing but the order of summation differs
    assert out[0] == pytest.approx(heat.sum(axis=2).ravel(), rel=1e-13)
    assert out[1] == pytest.approx(blood.sum(axis=2).ravel(), rel=1e-13, abs=1e-12)


# ---------------------------------------------------------------------------- multigrid


@oracle
def smooth(bench: Bench) -> None:
    links, b, x, before = conductances(bench), bench.memory(), bench.memory(), bench.memory()
    d = diagonal(bench, links)
    inverse = np.divide(1.0, d, out=np.zeros_like(d), where=d > 0.0)
    product, size = applied(bench, links, x)
    inertia, step = 0.3, 0.8
    for carry in (inertia, 0.0):
        given = {"inertia": inertia, "carry": carry, "step": step, "b": b, "x": x, **links}
        out = bench.run("smooth", ("out",), before=before, out=bench.memory(), **given)["out"]
        terms = (
            (1.0 + inertia) * bench.inside(x),
            -carry * bench.inside(before),
            step * inverse * (bench.inside(b) - product),
        )
        wanted = np.where(d > 0.0, sum(terms), 0.0)  # 0 where no link leads
        allowed = forward(*terms[:2], step * inverse * (forward(bench.inside(b)) + size))
        bench.agree(out, wanted, allowed)
        in_place = bench.run("smooth", ("before", "out"), before=before, out="before", **given)["before"]
        assert np.array_equal(in_place[bench.index()], out[bench.index()])


@oracle
def smooth_from_zero(bench: Bench) -> None:
    links, b, step = conductances(bench), bench.memory(), 0.8
    d = diagonal(bench, links)
    out = bench.run("smooth_from_zero", ("out",), step=step, b=b, out=bench.memory(), **links)["out"]
    wanted = step * np.divide(bench.inside(b), d, out=np.zeros_like(d), where=d > 0.0)
    bench.agree(out, wanted, np.abs(wanted))


@oracle
def residual(bench: Bench) -> None:
    links, b, x = conductances(bench), bench.memory(), bench.memory()
    out = bench.run("residual", ("r",), b=b, x=x, r=bench.memory(), **links)["r"]
    product, scale = applied(bench, links, x)
    bench.agree(out, bench.inside(b) - product, forward(bench.inside(b), scale))


@oracle
def minus_operator(bench: Bench) -> None:
    links, x = conductances(bench), bench.memory()
    out = bench.run("minus_operator", ("r",), x=x, r=bench.memory(), **links)["r"]
    product, scale = applied(bench, links, x)
    bench.agree(out, -product, scale)


def other_level(bench: Bench, shape: tuple[int, ...]) -> tuple[Layout, dict[str, int]]:
    layout = Layout((shape[0], shape[1], shape[2]))
    return layout, {"sx": layout.sx, "sy": layout.sy, "origin": layout.origin}


def eight(bench: Bench, fine: Layout) -> NDArray[np.int64]:
    """(8, nx, ny, nz) memory places of the children of every cell in the finer level."""
    i, j, k = np.indices(bench.layout.shape)
    return np.stack(
        [
            fine.origin + (2 * i + a) * fine.sx + (2 * j + b) * fine.sy + 2 * k + c
            for a in (0, 1)
            for b in (0, 1)
            for c in (0, 1)
        ]
    )


@oracle
def restrict_sum(bench: Bench) -> None:
    # an odd finer level: its last children are ghost cells
    fine, place = other_level(bench, tuple(2 * n - 1 for n in bench.layout.shape))
    values = bench.memory(layout=fine)
    out = bench.run(
        "restrict_sum",
        ("coarse",),
        fine=values,
        coarse=bench.memory(),
        **{f"fine_{name}": number for name, number in place.items()},
    )["coarse"]
    children = values.astype(float)[eight(bench, fine)]
    bench.agree(out, children.sum(axis=0), np.abs(children).sum(axis=0))


@oracle
def coarsen_links(bench: Bench) -> None:
    fine, place = other_level(bench, tuple(2 * n - 1 for n in bench.layout.shape))
    given = {f"fine_{name}": number for name, number in place.items()}
    values = {f"fine_{name}": bench.memory(0.0, 1.0, fine) for name in ("gx", "gy", "gz")}
    blank = {name: bench.memory() for name in ("gx", "gy", "gz")}
    out = bench.run("coarsen_links", tuple(blank), **given, **values, **blank)
    children = eight(bench, fine).reshape(2, 2, 2, *bench.layout.shape)
    for axis, name in enumerate(("gx", "gy", "gz")):
        # the faces above the upper children carry the coarse face
        upper = values[f"fine_{name}"].astype(float)[np.take(children, 1, axis)]
        wanted = 0.5 * upper.sum(axis=(0, 1))
        bench.agree(out[name], wanted, wanted)


@oracle
def coarsen_leaks(bench: Bench) -> None:
    coarse = bench.layout
    for odd in (0, 1):
        fine, _ = other_level(bench, tuple(2 * n - odd for n in coarse.shape))
        links = bench.random.uniform(0.1, 1.0, fine.shape).astype(np.float32)
        links[2::4, :, 1:-1] = links[3::4, :, 1:-1] = links[:, 4:6] = 0.0
        leaks = leaks_of(bench, links, fine)
        room = Leaks(bench.backend, coarse, parents_of(np.flatnonzero(links), fine, coarse))
        fine_leak, fine_rows = on_host(bench, leaks)
        before, rows = on_host(bench, room)
        shapes = dict(zip(("ny", "nz"), coarse.shape[1:], strict=True))
        shapes |= {f"fine_n{axis}": n for axis, n in zip("xyz", fine.shape, strict=True)}
        given = {"fine_leak": fine_leak, "fine_leak_rows": fine_rows, "leak_rows": rows, **shapes}
        out = bench.run("coarsen_leaks", ("leak",), n=coarse.n_rows, leak=before, **given)["leak"]
        room.values[:] = bench.backend.asarray(out, "float32")
        padded = np.pad(links.astype(float), [(0, odd)] * 3)
        wanted = padded.reshape(*(n for size in coarse.shape for n in (size, 2))).sum(axis=(1, 3, 5))
        bench.agree(room.on_host(), wanted, wanted)
        shared = -(-coarse.shape[2] // 8) * 24
        assert np.array_equal(out[:shared], before[:shared])


@oracle
def prolongate_add(bench: Bench) -> None:
    shape = bench.layout.shape
    # an odd finer level: what lies beyond it are ghost cells, which must stay as they are
    fine_layout = Layout((2 * shape[0] - 1, 2 * shape[1], 2 * shape[2] - 1))
    values, fine = bench.memory(), bench.memory(layout=fine_layout)
    place = zip(("nx", "ny", "nz", "sx", "sy", "origin"), fine_layout.arguments, strict=True)
    given = {f"fine_{name}": int(number) for name, number in place}
    out = bench.run("prolongate_add", ("fine",), coarse=values, fine=fine, **given)["fine"]
    before = np.asarray(fine_layout.interior(fine), dtype=float)
    parent = bench.inside(values)[np.ix_(*(np.arange(n) // 2 for n in fine_layout.shape))]
    size = np.abs(before) + np.abs(parent)
    assert np.all(np.abs(fine_layout.interior(out) - (before + parent)) <= EPSILON * size)
    fine_layout.interior(out)[:] = fine_layout.interior(fine)
    assert np.array_equal(out, fine)


@oracle
def search_direction(bench: Bench) -> None:
    z, d = bench.memory(), bench.memory()
    out = bench.run("search_direction", ("d",), z=z, beta=0.3, d=d)["d"]
    old = float(np.float32(0.3)) * bench.inside(d)
    bench.agree(out, bench.inside(z) + old, forward(bench.inside(z), old))
    fresh = bench.run("search_direction", ("d",), z=z, beta=0.0, d=d)["d"]
    assert np.array_equal(fresh[bench.index()], z[bench.index()])


@oracle
def apply_and_dot(bench: Bench) -> None:
    links, d = conductances(bench), bench.memory()
    out = bench.run("apply_and_dot", ("Ad",), d=d, Ad=bench.memory(), n_values=1, **links)
    product, scale = applied(bench, links, d)
    bench.agree(out["Ad"], product, scale)
    bench.agree_rows(out["rows"][0], bench.inside(d) * product, np.abs(bench.inside(d)) * scale)


@oracle
def step_and_norm(bench: Bench) -> None:
    d, Ad, x, r = (bench.memory() for _ in range(4))
    out = bench.run("step_and_norm", ("x", "r"), alpha=0.4, d=d, Ad=Ad, x=x, r=r, n_values=1)
    alpha = float(np.float32(0.4))
    bench.agree(
        out["x"],
        bench.inside(x) + alpha * bench.inside(d),
        forward(bench.inside(x), alpha * bench.inside(d)),
    )
    wanted = bench.inside(r) - alpha * bench.inside(Ad)
    scale = forward(bench.inside(r), alpha * bench.inside(Ad))
    bench.agree(out["r"], wanted, scale)
    bench.agree_rows(out["rows"][0], wanted**2, scale**2)


@oracle
def dot(bench: Bench) -> None:
    a, b = bench.memory(), bench.memory()
    terms = bench.inside(a) * bench.inside(b)
    bench.agree_rows(bench.run("dot", a=a, b=b, n_values=1)["rows"][0], terms, terms)


# ---------------------------------------------------------------------------- bioheat


def rates_of_death(shutdown: int, temperature: Field, alive: Field, dead: Field) -> Field:
    """dΩ/dt or dD/dt [1/s], whichever stops perfusion."""
    if shutdown == 1:
        return laws.arrhenius_rate(temperature, 7.39e39, 2.577e5)
    if shutdown == 2:
        return laws.three_state_rates(temperature, alive, dead, 3.33e-3, 40.5, 7.77e-3)[1]
    return np.zeros_like(temperature)


@oracle
def prepare_step(bench: Bench) -> None:
    nx, ny, nz = bench.layout.shape
    names = ("none", "arrhenius", "viability")
    for shutdown in range(3):
        for all_rows in (0, 1):
            T, damage = bench.memory(-10.0, 70.0), bench.memory(0.0, 3.0)
            k, W, label = bench.memory(0.4, 0.6), bench.memory(0.0, 5e4), bench.labels()
            place = bench.index()
            kind = bench.random.integers(0, 4, (nx, ny))
            still = kind == 0  # neither warm nor hurt: such a row may keep k and W
            calm = np.repeat((kind < 3)[:, :, None], nz, axis=2)
            calm[kind == 1, nz // 3] = calm[kind == 2, nz - 1] = False  # one such cell wakes the whole row
            T[place[calm]] *= np.float32(0.5 / 70.0)
            damage[place[calm]] *= np.float32(0.02 / 3.0)
            T[place[kind == 1, nz // 3]] = -1.0 if shutdown == 2 else 1.0
            damage[place[kind == 1, nz // 3]] = 0.0
            damage[place[kind == 2, nz - 1]], T[place[kind == 2, nz - 1]] = 0.1, 0.0
            tables = {"k_37": bench.table(0.3, 0.7), "slope": bench.table(0.0, 2e-3)}
            tables["W_37"], tables["latent"] = bench.table(0.0, 6e4), bench.table(300.0, 500.0)
            baseline, threshold, arterial, border = 1e-3, 0.8, 17.0, -12.0
            # some sides are no faces of the grid: there T is compared with T further in
            rim_cells, sides = 2, int(bench.random.integers(0, 63)) if all_rows else 63
            for axis, n in enumerate((nx, ny, nz)):
                sides |= (3 << 2 * axis) if n <= rim_cells else 0
            # the middle of the coming step: some cells boil there, at T ≤ 70 K nothing does now
            u_before, ahead, half_step = bench.memory(-10.0, 70.0), 0.6, 2.5
            alive = (bench.random.random(damage.size) * (1.0 - np.minimum(damage, 1.0))).astype(np.float32)
            death = {
                0: (-87.0, 0.0, 0.0),
                1: (math.log(7.39e39), 2.577e5 / GAS_CONSTANT, 0.0),
                2: (math.log(3.33e-3), 0.0, 1.0 / 40.5),
            }[shutdown]
            arguments: dict[str, Any] = {
                "u": T,
                "u_before": u_before,
                "ahead": ahead,
                "boiling": 62.0,
                "boiling_width": 1.0,
                "alive": alive,
                "half_step": half_step,
                **dict(zip(("d0", "d1", "d2"), death, strict=True)),
                **tables,
            }
            out = bench.run(
                "prepare_step",
                ("k", "W"),
                n_values=9,
                sides=sides,
                rim_cells=rim_cells,
                T=T,
                reference=REFERENCE,
                label=label,
                shutdown=shutdown,
                damage=damage,
                baseline=baseline,
                threshold=threshold,
                arterial=arterial,
                border=border,
                all_rows=all_rows,
                k=k,
                W=W,
                **arguments,
            )
            number, t, hurt = label[place], bench.inside(T), bench.inside(damage)
            u_middle = t + float(np.float32(ahead)) * (t - bench.inside(u_before))
            latent = tables["latent"].astype(float)[number]
            middle = laws.temperature_from_enthalpy(u_middle, 62.0, 1.0, latent)
            ratio = laws.thermal_conductivity_ratio(middle + REFERENCE, tables["slope"].astype(float)[number])
            growth = half_step * rates_of_death(
                shutdown, 0.5 * (t + middle) + REFERENCE, bench.inside(alive), hurt
            )
            later = hurt + growth
            # Ω counts from what unheated tissue has by then, and a little less than that is no life
            fraction = np.maximum(later - float(np.float32(baseline)), 0.0) if shutdown == 1 else later
            perfused = laws.perfusion_factor(names[shutdown], fraction, float(np.float32(threshold)))
            # exponents of up to 190 are rounded to EPSILON, and with them the growth
            loose = np.abs(growth) * np.exp(-np.clip(fraction, 0.0, 80.0)) if shutdown == 1 else 0.0
            if shutdown == 2:  # a step: nothing is asked where rounding decides
                loose = np.where(np.abs(later - threshold) < 1e-4, 1e9, 0.0)
            kept = still[:, :, None] & (all_rows == 0)
            k_wanted = np.where(kept, bench.inside(k), tables["k_37"].astype(float)[number] * ratio)
            W_wanted = np.where(kept, bench.inside(W), tables["W_37"].astype(float)[number] * perfused)
            bench.agree(out["k"], k_wanted, k_wanted)
            W_scale = W_wanted + np.where(kept, 0.0, 6e4 * 60.0 * loose)
            bench.agree(out["W"], W_wanted, W_scale + 1e-30)
            new, ended = W_wanted * (t - arterial), bench.inside(W) * (t - arterial)
            spread = forward(t, np.full_like(t, arterial))
            bench.agree_rows(out["rows"][0], new, W_scale * spread)
            assert np.array_equal(out["rows"][1], T[place].max(axis=2).ravel())
            assert not out["rows"][2].any()
            bench.agree_rows(out["rows"][3], ended, bench.inside(W) * spread)
            on_border = np.zeros((nx, ny, nz))
            inward = np.zeros((3, nx, ny))  # changes of T along rows on the rim, and at the rows' ends
            for side in range(6):
                axis, end = side // 2, (0, -1)[side % 2]
                if sides >> side & 1:
                    np.moveaxis(on_border, axis, 0)[end] += 2.0
                    continue
                layers = np.moveaxis(T[place], axis, 0)
                change = np.abs(layers[end] - layers[(rim_cells, -1 - rim_cells)[side % 2]])
                if axis == 2:
                    inward[1 + side % 2] = change
                else:
                    of_rows = np.moveaxis(inward[0], axis, 0)[end]
                    np.maximum(of_rows, change.max(axis=1), out=of_rows)
            assert np.array_equal(out["rows"][6:], inward.reshape(3, nx * ny))
            for row, conductivity in ((4, bench.inside(out["k"])), (5, bench.inside(k))):
                lost = on_border * conductivity * (t - border)
                bench.agree_rows(out["rows"][row], lost, np.abs(lost) + on_border * conductivity * 12.0)
            if all_rows:
                continue
            # a single broken value is seen, in a still row too
            where = tuple(np.argwhere(still)[0]) if still.any() else (0, 0)
            for value in (np.nan, np.inf, -np.inf):
                broken = T.copy()
                broken[place[where][nz // 2]] = value
                rows = bench.run(
                    "prepare_step",
                    ("k", "W"),
                    n_values=9,
                    sides=sides,
                    rim_cells=rim_cells,
                    T=broken,
                    reference=REFERENCE,
                    label=label,
                    shutdown=shutdown,
                    damage=damage,
                    baseline=baseline,
                    threshold=threshold,
                    arterial=arterial,
                    border=border,
                    all_rows=0,
                    k=k,
                    W=W,
                    **arguments,
                )["rows"]
                assert rows[2].sum() == 1.0
                assert rows[2].reshape(nx, ny)[where] == 1.0


@oracle
def temperature_ahead(bench: Bench) -> None:
    u, before, label = bench.memory(0.0, 800.0), bench.memory(0.0, 800.0), bench.labels()
    latent, boiling, width, ahead = bench.table(100.0, 500.0), 79.0, 1.0, 0.6
    out = bench.run(
        "temperature_ahead",
        ("T",),
        u=u,
        u_before=before,
        ahead=ahead,
        label=label,
        latent=latent,
        boiling=boiling,
        boiling_width=width,
        T=bench.memory(),
    )["T"]
    middle = bench.inside(u) + float(np.float32(ahead)) * (bench.inside(u) - bench.inside(before))
    wanted = laws.temperature_from_enthalpy(
        middle, boiling, width, latent.astype(float)[label[bench.index()]]
    )
    bench.agree(out, wanted, 1800.0, 2.0)


def stage_arguments(bench: Bench) -> dict[str, Any]:
    inverse = bench.memory(2e-7, 3e-7)
    inverse[bench.random.random(inverse.size) < 0.2] = 0.0  # metal keeps its temperature
    faces = {name: bench.memory(0.3, 0.7) for name in ("kx", "ky", "kz")}
    for face in faces.values():
        face[bench.random.random(face.size) < 0.2] = 0.0
    return {
        "u0": bench.memory(0.0, 60.0),
        "T": bench.memory(0.0, 60.0),
        "W": bench.memory(0.0, 5e4),
        "source": bench.memory(0.0, 3.0e7),
        "inverse_capacity": inverse,
        "inverse_h2": 1.0e6,
        "arterial": 17.0,
        **faces,
    }


def heating_rate(bench: Bench, given: dict[str, Any]) -> tuple[Field, Field]:
    """du/dt [K/s] of a stage, and Σ|t| of its terms."""
    p, T = bench.index(), given["T"].astype(float)
    own, terms = T[p], []
    for step, name in zip(bench.steps(), ("kx", "ky", "kz"), strict=True):
        face = given[name].astype(float)
        terms.append(given["inverse_h2"] * face[p] * (T[p + step] - own))
        terms.append(given["inverse_h2"] * face[p - step] * (T[p - step] - own))
    terms.append(bench.inside(given["W"]) * (given["arterial"] - own))
    terms.append(bench.inside(given["source"]))
    inverse = bench.inside(given["inverse_capacity"])
    return np.asarray(inverse * sum(terms)), inverse * forward(*terms)


SCHEME = np.array([1.9, -0.92, 0.7, -0.3], dtype=np.float32)
"""mu, nu, step, step0 of a stage."""


@oracle
def look_up(bench: Bench) -> None:
    label, table = bench.labels(), bench.table(0.0, 1.0)
    out = bench.run("look_up", ("out",), label=label, table=table, out=bench.memory())["out"]
    assert np.array_equal(out[bench.index()], table[label[bench.index()]])


@oracle
def heat_source(bench: Bench) -> None:
    q, label, metabolic = bench.memory(0.0, 1.0), bench.labels(), bench.table(0.0, 1e4)
    out = bench.run(
        "heat_source", ("source",), q=q, power=3.0e7, label=label, metabolic=metabolic, source=bench.memory()
    )["source"]
    wanted = 3.0e7 * bench.inside(q) + metabolic.astype(float)[label[bench.index()]]
    bench.agree(out, wanted, wanted, 2.0)


@oracle
def first_stage(bench: Bench) -> None:
    given, step = stage_arguments(bench), float(SCHEME[2])
    out = bench.run("first_stage", ("L0", "u1"), scheme=SCHEME, L0=bench.memory(), u1=bench.memory(), **given)
    rate, scale = heating_rate(bench, given)
    # differences of temperatures up to 60 K on links: a few roundings of each
    bench.agree(out["L0"], rate, scale, 16.0)
    bench.agree(out["u1"], bench.inside(given["u0"]) + step * rate, 60.0 + step * scale, 16.0)


@oracle
def next_stage(bench: Bench) -> None:
    given = stage_arguments(bench)
    more = {
        "L0": bench.memory(),
        "u_before": bench.memory(0.0, 60.0),
        "u_two_before": bench.memory(0.0, 60.0),
    }
    out = bench.run("next_stage", ("u",), scheme=SCHEME, u=bench.memory(), **more, **given)["u"]
    rate, scale = heating_rate(bench, given)
    u0, before, two = (bench.inside(m) for m in (given["u0"], more["u_before"], more["u_two_before"]))
    mu, nu, step, step0 = (float(v) for v in SCHEME)
    terms = (u0, mu * (before - u0), nu * (two - u0), step0 * bench.inside(more["L0"]))
    wanted = np.asarray(sum(terms)) + step * rate
    bench.agree(out, wanted, forward(*terms) + 60.0 + step * scale, 16.0)


@oracle
def temperature_of(bench: Bench) -> None:
    u, label = bench.memory(0.0, 800.0), bench.labels()
    latent = bench.table(100.0, 500.0)
    latent[0] = 0.0
    boiling, width = 79.0, 1.0
    edge = bench.index().ravel()
    u[edge[: len(edge) // 4]] = bench.random.uniform(78.0, 82.0, len(edge) // 4)  # around the kinks
    out = bench.run(
        "temperature_of",
        ("T",),
        u=u,
        label=label,
        latent=latent,
        boiling=boiling,
        boiling_width=width,
        T=bench.memory(),
    )["T"]
    wanted = laws.temperature_from_enthalpy(
        bench.inside(u), boiling, width, latent.astype(float)[label[bench.index()]]
    )
    bench.agree(out, wanted, 800.0, 2.0)


@oracle
def advance_without_conduction(bench: Bench) -> None:
    u, q, label = bench.memory(-3.0, 3.0), bench.memory(0.0, 1e5), bench.labels()
    tables = {
        "decay": bench.table(0.2, 1.0),
        "gain": bench.table(0.0, 3e-5),
        "offset": bench.table(0.0, 0.2),
        "capacity": bench.table(3e6, 4e6),
        "metabolic_energy": bench.table(0.0, 1e5),
    }
    # no tissue: nothing happens
    for name, value in zip(tables, (1.0, 0.0, 0.0, 0.0), strict=False):
        tables[name][1] = value
    out = bench.run(
        "advance_without_conduction",
        ("u",),
        n_values=2,
        u_old=u,
        q=q,
        label=label,
        energy=70.0,
        u=bench.memory(),
        **tables,
    )
    number = label[bench.index()]
    decay, gain, offset, capacity, metabolic = (t.astype(float)[number] for t in tables.values())
    old, heat = bench.inside(u), bench.inside(q)
    wanted = decay * old + gain * heat + offset
    bench.agree(out["u"], wanted, forward(decay * old, gain * heat, offset), 2.0)
    assert np.array_equal(bench.inside(out["u"])[number == 1], old[number == 1])
    # what stays is rounded with u, to about 1e-7 of 8 K
    given = np.where(capacity > 0, 70.0 * heat + metabolic, 0.0)
    bench.agree_rows(out["rows"][0], given - capacity * (wanted - old), given + capacity * 8.0)
    bench.agree(out["rows"][1], np.abs(bench.inside(out["u"])).max(axis=2).ravel(), 0.0)


@oracle
def temperature_beyond(bench: Bench) -> None:
    cells, u, q = some_cells(bench), bench.memory(-3.0, 3.0), bench.memory(0.0, 1e5)
    n, label = len(cells), bench.labels()
    tables = {"decay": bench.table(0.2, 1.0), "gain": bench.table(0.0, 3e-5), "offset": bench.table(0.0, 0.2)}
    out = bench.run(
        "temperature_beyond",
        ("temperature", "wall_temperature"),
        n=n,
        beyond=cells,
        label=label,
        u=u,
        q=q,
        temperature=entries(bench, n),
        wall_temperature=entries(bench, n),
        **tables,
    )
    decay, gain, offset = (t.astype(float)[label[cells]] for t in tables.values())
    wanted = decay * u[cells] + gain * q[cells] + offset
    bench.agree(out["temperature"], wanted, forward(decay * u[cells], gain * q[cells], offset), 2.0)
    assert np.array_equal(out["wall_temperature"], out["temperature"])


@oracle
def wall_drive(bench: Bench) -> None:
    n = 37
    start = np.concatenate([[0], np.cumsum(bench.random.integers(0, 3, n))]).astype(np.int32)
    factor = entries(bench, max(1, int(start[-1])))
    temperature = entries(bench, len(factor), -30.0, 0.0)
    out = bench.run(
        "wall_drive",
        ("drive",),
        n=n,
        wall_start=start,
        wall_factor=factor,
        wall_temperature=temperature,
        drive=np.full(n, 7.0, np.float32),
    )["drive"]
    terms = factor.astype(float) * temperature
    wanted = np.array([terms[start[e] : start[e + 1]].sum() for e in range(n)])
    size = np.array([np.abs(terms[start[e] : start[e + 1]]).sum() for e in range(n)])
    bench.agree(out, wanted, size)


@oracle
def add_walls(bench: Bench) -> None:
    cells, given, k = some_cells(bench), stage_arguments(bench), bench.memory(0.3, 0.7)
    n, step = len(cells), float(SCHEME[2])
    strength, drive = entries(bench, n), entries(bench, n, -60.0, 0.0)
    L0, u = bench.memory(), bench.memory(0.0, 60.0)
    own = strength.astype(float) * given["T"][cells]
    flow, size = k[cells] * (drive.astype(float) - own), k[cells] * forward(drive.astype(float), own)
    inverse = given["inverse_capacity"].astype(float)[cells] * given["inverse_h2"]
    for is_first in (0, 1):
        out = bench.run(
            "add_walls",
            ("L0", "u"),
            n=n,
            cell=cells,
            strength=strength,
            drive=drive,
            k=k,
            scheme=SCHEME,
            is_first=is_first,
            L0=L0,
            u=u,
            **{name: given[name] for name in ("T", "inverse_capacity", "inverse_h2")},
        )
        bench.agree(out["u"][cells], u[cells] + step * inverse * flow, 60.0 + step * inverse * size)
        wanted = L0[cells] + is_first * inverse * flow
        bench.agree(out["L0"][cells], wanted, forward(L0[cells], is_first * inverse * size))
        elsewhere_untouched(u, out["u"], cells)
        elsewhere_untouched(L0, out["L0"], cells)


@oracle
def book_walls(bench: Bench) -> None:
    cells, T, k = some_cells(bench), bench.memory(0.0, 60.0), bench.memory(0.3, 0.7)
    n = len(cells)
    factor, temperature = entries(bench, n), entries(bench, n, -30.0, 0.0)
    ledger = {name: bench.random.uniform(1.0, 9.0, n) for name in ("first_flow", "booked", "booked_before")}
    mu, nu, step, step0 = (float(v) for v in SCHEME)
    flow = factor.astype(float) * k[cells] * (T[cells].astype(float) - temperature)
    for is_first in (0, 1):
        out = bench.run(
            "book_walls",
            tuple(ledger),
            n=n,
            cell=cells,
            factor=factor,
            temperature=temperature,
            T=T,
            k=k,
            scheme=SCHEME,
            is_first=is_first,
            **ledger,
        )
        first, last, before = (np.zeros(n), np.zeros(n), np.zeros(n)) if is_first else ledger.values()
        first = flow if is_first else first
        # factor · k is rounded to float32 once; all else is double precision
        bench.agree(out["first_flow"], first, forward(first), 2.0)
        wanted = mu * last + nu * before + step * flow + step0 * first
        bench.agree(out["booked"], wanted, forward(mu * last, nu * before, step * flow, step0 * first), 2.0)
        bench.agree(out["booked_before"], last, forward(last), 2.0)


@oracle
def stored_heat(bench: Bench) -> None:
    u, label, capacity = bench.memory(-10.0, 500.0), bench.labels(), bench.table(3e6, 4e6)
    out = bench.run("stored_heat", u=u, label=label, capacity=capacity, n_values=1)["rows"][0]
    terms = capacity.astype(float)[label[bench.index()]] * bench.inside(u)
    # double precision throughout
    assert np.abs(out - terms.sum(axis=2).ravel()).max() <= 1e-13 * np.abs(terms).sum(axis=2).max()


@oracle
def fastest_heating(bench: Bench) -> None:
    q, inverse = bench.memory(0.0, 1e7), bench.memory(2e-7, 3e-7)
    out = bench.run("fastest_heating", q=q, inverse_capacity=inverse, n_values=1)["rows"][0]
    wanted = (bench.inside(q) * bench.inside(inverse)).max(axis=2).ravel()
    bench.agree(out, wanted, wanted, 1.0)


# ---------------------------------------------------------------------------- damage

FREQUENCY_FACTOR, ACTIVATION_ENERGY = 7.39e39, 2.577e5
FORWARD, SCALE, BACKWARD = 3.33e-3, 40.5, 7.77e-3


@oracle
def advance_damage(bench: Bench) -> None:
    boiling = 62.0
    u, T, label = bench.memory(-5.0, 70.0), bench.memory(-5.0, 70.0), bench.labels()
    latent = bench.table(100.0, 500.0)
    state = {
        "omega": bench.memory(0.0, 1.0),
        "dose": bench.memory(0.0, 100.0),
        "alive": bench.memory(0.0, 1.0),
        "dead": bench.memory(0.0, 1.0),
        "hottest": bench.memory(37.0, 90.0),
    }
    state["dead"] *= 1.0 - state["alive"]
    for boils in (1, 0):
        if not boils:  # then u is T
            u = np.minimum(u, np.float32(boiling))
        check_damage(bench, state, u, T, label, latent, boils)


def check_damage(
    bench: Bench, state: dict[str, Field], u: Field, T: Field, label: Field, latent: Field, boils: int
) -> None:
    reference, boiling, width, dt = 37.0, 62.0, 1.0, 3.0
    given = {
        "reference": reference,
        "label": label,
        "latent": latent,
        "boiling": boiling,
        "boiling_width": width,
        "boils": boils,
        "dt": dt,
        "log_A": np.log(FREQUENCY_FACTOR),
        "activation": ACTIVATION_ENERGY / GAS_CONSTANT,
        "forward": FORWARD,
        "inverse_scale": 1.0 / SCALE,
        "backward": BACKWARD,
        "n_values": 1,
    }
    out = bench.run("advance_damage", tuple(state), u_old=u, T=T, **given, **state)
    before = reference + laws.temperature_from_enthalpy(
        bench.inside(u), boiling, width, latent.astype(float)[label[bench.index()]]
    )
    after = reference + bench.inside(T)
    middle = 0.5 * (before + after)
    # ln A = 91.8 and E/(R T) up to 100 are each rounded, and their difference is an exponent
    damage = dt * laws.arrhenius_rate(middle, FREQUENCY_FACTOR, ACTIVATION_ENERGY)
    bench.agree(out["omega"], bench.inside(state["omega"]) + damage, 1.0 + 100.0 * damage, 4.0)
    # an exponent of up to 45 ln 2 from a temperature rounded to 100 EPSILON
    dose = dt / 60.0 * laws.thermal_dose_rate(middle)
    bench.agree(out["dose"], bench.inside(state["dose"]) + dose, 100.0 + 100.0 * dose, 4.0)

    A, D = bench.inside(state["alive"]), bench.inside(state["dead"])
    slopes = [laws.three_state_rates(middle, A, D, FORWARD, SCALE, BACKWARD)]
    slopes.append(
        laws.three_state_rates(middle, A + dt * slopes[0][0], D + dt * slopes[0][1], FORWARD, SCALE, BACKWARD)
    )
    for name, old, place in (("alive", A, 0), ("dead", D, 1)):
        wanted = np.clip(old + 0.5 * dt * (slopes[0][place] + slopes[1][place]), 0.0, 1.0)
        bench.agree(out[name], wanted, 2.0)
    bench.agree(out["hottest"], np.maximum(bench.inside(state["hottest"]), after), 100.0, 1.0)
    top = reference + boiling + width
    change = np.abs(np.minimum(after, top) - np.minimum(before, top))
    bench.agree(out["rows"][0], change.max(axis=2).ravel(), 200.0, 2.0)

    # 160 to 210 °C, boiled dry: a dose rate without bounds would overflow
    T = bench.memory(130.0, 170.0)
    out = bench.run("advance_damage", tuple(state), u_old=T + 500.0, T=T, **given, **state)
    dose = bench.inside(state["dose"]) + dt / 60.0 * laws.thermal_dose_rate(200.0)
    bench.agree(out["dose"], dose, 100.0 * dose, 4.0)


@oracle
def count_dead(bench: Bench) -> None:
    damage, k = bench.memory(0.0, 2.0), bench.memory(0.3, 0.7)
    k[bench.random.random(k.size) < 0.2] = 0.0
    damage[bench.index().ravel()[::5]] = 1.0  # exactly at the threshold: dead
    out = bench.run("count_dead", damage=damage, k=k, threshold=1.0, n_values=1)["rows"][0]
    dead = (damage[bench.index()] >= 1.0) & (k[bench.index()] > 0.0)
    assert np.array_equal(out, dead.sum(axis=2).ravel())


# ---------------------------------------------------------------------------- entries of arrays


@oracle
def half_link_heat(bench: Bench) -> None:
    cells, sigma, phi = some_cells(bench), bench.memory(0.1, 1.0), bench.memory(0.0, 1.0)
    n = len(cells)
    potential = entries(bench, n)
    out = bench.run(
        "half_link_heat",
        ("half",),
        n=n,
        cell=cells,
        potential=potential,
        sigma=sigma,
        phi=phi,
        half=np.full(n, 7.0, np.float32),
    )["half"]
    drop = potential.astype(float) - phi[cells]
    scale = 0.5 * sigma[cells] * forward(potential, phi[cells]) ** 2
    bench.agree(out, 0.5 * sigma[cells].astype(float) * drop**2, scale)


@oracle
def seeming_wall(bench: Bench) -> None:
    cells, k = some_cells(bench), bench.memory(0.3, 0.7)
    k[cells[::3]] = 0.0
    n = len(cells)
    coolant, half = entries(bench, n, -30.0, 0.0), entries(bench, n)
    out = bench.run(
        "seeming_wall",
        ("seeming",),
        n=n,
        cell=cells,
        coolant=coolant,
        half=half,
        power=3.0,
        k=k,
        seeming=np.full(n, 7.0, np.float32),
    )["seeming"]
    colder = 3.0 * half.astype(float) / np.where(k[cells] > 0.0, k[cells].astype(float), 1.0)
    bench.agree(out, coolant - colder, forward(coolant, colder))


@oracle
def add_residual(bench: Bench) -> None:
    cells, residual = some_cells(bench), bench.memory()
    n = len(cells)
    alone, before = (bench.random.random(n) < 0.5).astype(np.float32), bench.random.random(n)
    out = bench.run(
        "add_residual", ("current",), n=n, cell=cells, alone=alone, residual=residual, current=before
    )["current"]
    assert np.array_equal(out, before + alone * residual[cells])  # the product with 0 or 1 is exact


@oracle
def take(bench: Bench) -> None:
    cells, field = some_cells(bench), bench.memory()
    out = bench.run(
        "take", ("out",), n=len(cells), index=cells, field=field, out=np.full(len(cells), 7.0, np.float32)
    )["out"]
    assert np.array_equal(out, field[cells])
    assert np.array_equal(bench.backend.to_host(bench.backend.take(*on_device(bench, field, cells))), out)


@oracle
def put(bench: Bench) -> None:
    cells, target = some_cells(bench), bench.memory()
    values = entries(bench, len(cells))
    out = bench.run("put", ("target",), n=len(cells), index=cells, values=values, target=target)["target"]
    wanted = target.copy()
    wanted[cells] = values
    assert np.array_equal(out, wanted)
    there, where, given = on_device(bench, target, cells, values)
    bench.backend.put(there, where, given)
    assert np.array_equal(bench.backend.to_host(there), wanted)


@oracle
def copy_entries(bench: Bench) -> None:
    target = bench.memory()
    values = entries(bench, 41)
    wanted = np.concatenate([values, target[41:]])
    out = bench.run("copy_entries", ("target",), n=41, values=values, target=target)["target"]
    assert np.array_equal(out, wanted)
    (there,) = on_device(bench, target)
    bench.backend.write(there, values.astype(float))
    assert np.array_equal(bench.backend.to_host(there), wanted)


def on_device(bench: Bench, *arrays: Field) -> list[Any]:
    return [bench.backend.asarray(array, str(array.dtype)) for array in arrays]


def reduced(bench: Bench, kernel: str) -> None:
    """Two lists of 300 numbers by parts of 128, and lists long enough to need several rounds."""
    parts = Layout((2, 3, 128))
    parts.__dict__.update(sx=300, sy=128, origin=0)
    values, begin = bench.random.normal(size=600), bench.random.random(6)
    given, out = on_device(bench, values, begin)
    bench.launched.add(kernel)
    bench.backend.on_cells(kernel, parts, given, out)
    found = bench.backend.to_host(out)
    of = np.sum if kernel == "sum_parts" else np.max
    wanted = [of(row[first : first + 128]) for row in values.reshape(2, 300) for first in (0, 128, 256)]
    assert found == pytest.approx(wanted, rel=0 if of is np.max else 1e-13, abs=0 if of is np.max else 1e-12)
    reduce = bench.backend.sums if kernel == "sum_parts" else bench.backend.maxima
    for n in (1, 1024, 1025, 256 * 1024 + 1):
        rows = bench.random.normal(size=(2, n))
        (there,) = on_device(bench, rows.ravel())
        result = bench.backend.to_host(reduce(there.reshape(2, n)))
        assert result.shape == (2,)
        # sums of so many doubles in any order: each addition rounds once
        assert result == pytest.approx(of(rows, axis=1), rel=0 if of is np.max else 1e-10, abs=1e-9)


@oracle
def sum_parts(bench: Bench) -> None:
    reduced(bench, "sum_parts")


@oracle
def max_parts(bench: Bench) -> None:
    reduced(bench, "max_parts")
