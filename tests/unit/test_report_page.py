"""The page: self-contained, safe against its own inputs, right about sides and colours."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from thermosim.anatomy.anatomy import Structure
from thermosim.report import charts
from thermosim.report.html import report_page
from thermosim.report.margin_map import map_rays, mollweide, unfolded
from thermosim.report.meshes import needle_meshes, scene_meshes
from thermosim.report.page_data import packed_mesh
from thermosim.report.slices import MOST_CELLS, slice_volume
from thermosim.report.summary import summarize
from thermosim.report.trace_charts import Series, chart
from thermosim.report.verdict import MARGIN_CLASSES, direction_in_words, margin_color, verdict
from thermosim.simulation_result import TreatmentEvent

CASE = runpy.run_path(str(Path(__file__).with_name("report_case.py")))
make_case = CASE["make_case"]
EVIL = "<script>alert('x')</script>"


class Parsed(HTMLParser):
    """Tags with their attributes, texts of scripts, and visible words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts.append(text)
        elif self.inside != "style":
            self.words += text


@pytest.fixture(scope="module")
def case():
    return make_case()


def page_of(case, title="A case", picture=None):
    result, outcome, surfaces, config = case
    summary = summarize(result, outcome, config, title)
    return report_page(summary, result, outcome, scene_meshes(result, outcome, surfaces), picture)


@pytest.fixture(scope="module")
def page(case):
    return page_of(case)


def test_nothing_is_loaded_from_outside(page):
    for tag, attributes in Parsed(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:"), f"{tag} {name}={value[:60]}"
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    script = Parsed(page).scripts[-1]
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", script)
    assert "default-src 'none'" in page


def test_it_is_small(page):
    assert len(page.encode()) < 8e6  # the limit that a mail server lets through


def test_texts_of_the_user_cannot_become_code(case):
    result, outcome, surfaces, config = case
    anatomy = result.anatomy
    structures = (
        *anatomy.structures[:5],
        Structure(5, EVIL, "stomach", "risk"),
    )
    anatomy = dataclasses.replace(anatomy, structures=structures, notes=(EVIL,))
    electrodes = tuple(dataclasses.replace(e, name=EVIL) for e in result.electrodes)
    result = dataclasses.replace(result, anatomy=anatomy, electrodes=electrodes)
    tumors = tuple(dataclasses.replace(t, name=EVIL) for t in outcome.tumors)
    risks = tuple(dataclasses.replace(r, name=EVIL) for r in outcome.structures_at_risk)
    outcome = dataclasses.replace(outcome, tumors=tumors, structures_at_risk=risks)
    config = {
        **config,
        "applicators": {"name": EVIL},
        "vessels": {"model": EVIL, "groups": {EVIL: {"a": EVIL}}},
    }
    text = page_of((result, outcome, {**surfaces, EVIL: surfaces["liver"]}, config), title=EVIL)
    clean = Parsed(page_of(case))
    evil = Parsed(text)
    assert [t for t, _ in evil.tags].count("script") == [t for t, _ in clean.tags].count("script") == 2
    assert "alert('x')" not in evil.scripts[-1]
    assert EVIL in evil.words  # shown as text
    json.loads(evil.scripts[0])


def test_the_verdict_stands_in_words(case, page):
    said = verdict(case[1].tumors[0], case[0].anatomy)
    words = Parsed(page).words
    assert said.sentence in words
    assert "not a medical device" in words
    assert words.index(said.sentence) < 900  # before anything else but title and warning


def test_what_weakens_the_verdict_stands_beside_it_and_once(case):
    result, outcome, surfaces, config = case
    caution = "5 ml of the zone lie outside the liver"
    outcome = dataclasses.replace(outcome, cautions=(caution,), notes=(*outcome.notes, caution))
    words = Parsed(page_of((result, outcome, surfaces, config))).words
    said = verdict(outcome.tumors[0], result.anatomy)
    assert words.count(caution) == 1
    assert 0 < words.index(caution) - words.index(said.sentence) < 600


def test_the_picture_stands_in_where_there_is_no_webgl(case):
    text = page_of(case, picture=b"PNGBYTES")
    assert base64.b64encode(b"PNGBYTES").decode() in text
    assert "no WebGL" not in Parsed(text).words


@pytest.mark.parametrize(
    ("minimum", "level", "word"),
    [
        (-0.004, "residual", "not covered"),
        (0.0, "thin", "thinly"),
        (0.0049, "thin", "4.9 mm"),
        (0.005, "adequate", "5.0 mm"),
        (0.010, "wide", "wide margin"),
    ],
)
def test_levels_of_the_verdict(case, minimum, level, word):
    tumor = case[1].tumors[0]
    tumor = dataclasses.replace(tumor, all_around=dataclasses.replace(tumor.all_around, minimum=minimum))
    said = verdict(tumor, case[0].anatomy)
    assert said.level == level
    assert word in said.sentence
    assert "left" in said.sentence  # the cooling vein of the made-up case lies on the left


def test_directions_are_those_of_the_patient():
    for vector, words in {
        (1, 0, 0): "left",
        (-1, 0, 0): "right",
        (0, 1, 0): "back",
        (0, -1, 0): "front",
        (0, 0, 1): "head",
        (0, 0, -1): "feet",
        (-3, -2, -2): "right, front and feet",
    }.items():
        assert direction_in_words(np.array(vector, float)) == words


def test_packed_meshes_come_back(case):
    result, outcome, surfaces, _ = case
    for mesh in scene_meshes(result, outcome, surfaces):
        packed = packed_mesh(mesh)
        coded = np.frombuffer(base64.b64decode(packed["points"]), "<u2").reshape(-1, 3)
        points = np.array(packed["lower"]) + np.array(packed["scale"]) * coded
        # Half a step of 1/65535 of a mesh of at most 200 mm.
        np.testing.assert_allclose(points, 1e3 * mesh.points, atol=0.5 * 200 / 65535)
        triangles = np.frombuffer(base64.b64decode(packed["triangles"]), "<u4" if packed["wide"] else "<u2")
        np.testing.assert_array_equal(triangles.reshape(-1, 3), mesh.triangles)
        if mesh.values is not None:
            margin = 0.01 * np.frombuffer(base64.b64decode(packed["margin"]), "<i2")
            # One step of 0.01 mm, rounded down so that a margin never looks larger than it is.
            assert np.all((1e3 * mesh.values - margin >= -1e-9) & (1e3 * mesh.values - margin < 0.011))


def test_needles_are_drawn_where_they_are(case):
    electrode = case[0].electrodes[0]
    tip, shaft = needle_meshes(electrode)
    along = (tip.points - electrode.target_point) @ electrode.direction
    # 1e-6 m: float32 points of the drawing library.
    assert along.min() == pytest.approx(0.0, abs=1e-6)
    assert along.max() == pytest.approx(electrode.active_length, abs=1e-6)
    assert ((shaft.points - electrode.target_point) @ electrode.direction).max() == pytest.approx(
        0.11, abs=1e-6
    )


@pytest.mark.parametrize("n_cells", [64, 96])
def test_slices_show_the_fields(n_cells):
    result, outcome, _, _ = make_case(n_cells=n_cells)
    volume = slice_volume(result, outcome)
    # The floor of each edge plus one cell may exceed the aim a little.
    assert np.prod(volume.shape) < 1.06 * MOST_CELLS
    grid = result.anatomy.grid
    tumor = outcome.tumors[0].surface.points
    last = volume.origin + volume.spacing * (np.array(volume.shape) - 1)
    assert np.all(tumor.min(axis=0) > volume.origin)
    assert np.all(tumor.max(axis=0) < last)
    generator = np.random.default_rng(3)
    cells = np.stack([generator.integers(0, n, 300) for n in volume.shape], axis=-1)
    points = volume.origin + volume.spacing * cells
    nearest = tuple(np.round(grid.indices(points)).astype(int).T)
    shown = volume.temperature_offset + volume.temperature_step * volume.temperature[tuple(cells.T)]
    # Half a step of the 8-bit code, and up to half a cell's difference where the field is resampled.
    gradient = np.max([np.abs(np.diff(result.highest_temperature, axis=d)).max() for d in range(3)])
    limit = 0.51 * volume.temperature_step + (0.0 if n_cells == 64 else 1.5 * gradient)
    assert np.abs(shown - result.highest_temperature[nearest]).max() <= limit
    np.testing.assert_array_equal(volume.labels[tuple(cells.T)], result.anatomy.labels[nearest])


def test_the_map_puts_every_side_in_its_place(case):
    """A margin that is low on one side only shows up in the right column and row."""
    tumor = case[1].tumors[0]
    center = tumor.surface.points.mean(axis=0)
    rays = tumor.surface.points - center
    rays /= np.linalg.norm(rays, axis=1)[:, None]
    for side, (row, column) in {
        (-1, 0, 0): (0.5, 0.25),  # patient's right: a quarter from the left edge
        (0, -1, 0): (0.5, 0.5),
        (1, 0, 0): (0.5, 0.75),
    }.items():
        low = dataclasses.replace(tumor, margin=np.where(rays @ np.array(side) > 0.9, -0.002, 0.01))
        found = np.argwhere(unfolded(low, 120)[0] < 0)
        # 0.02: the middle of the spot to about two of the map's cells.
        np.testing.assert_allclose(found.mean(axis=0) / [120, 240], (row, column), atol=0.02)
    head = dataclasses.replace(tumor, margin=np.where(rays[:, 2] > 0.9, -0.002, 0.01))
    assert np.argwhere(unfolded(head, 120)[0] < 0)[:, 0].max() < 25  # upper fifth only


def test_the_map_is_equal_area_and_its_inverse_is_its_inverse():
    rays = map_rays(200)
    on_map = np.isfinite(rays[..., 0])
    # 0.003: pixels at the rim of an ellipse of 400 × 200.
    assert on_map.mean() == pytest.approx(np.pi / 4, abs=0.003)
    for axis in np.vstack([np.eye(3), -np.eye(3), [[0.6, 0.48, 0.64]]]):
        for height in (0.5, 0.9):  # a cap of the sphere above height h has the share (1 − h)/2
            share = (rays[on_map] @ axis > height).mean()
            assert share == pytest.approx((1 - height) / 2, abs=0.003)
    place = mollweide(rays[on_map])
    rows, columns = np.nonzero(on_map)
    # 1e-6: Newton's iteration beside the poles
    np.testing.assert_allclose(place[:, 0], -1 + (columns + 0.5) / 200, atol=1e-6)
    np.testing.assert_allclose(place[:, 1], 1 - (rows + 0.5) / 100, atol=1e-6)


def test_histogram_adds_up_to_the_whole_surface(case):
    tumor = case[1].tumors[0]
    # 1e-9: both are sums over the same triangles.
    assert charts.vertex_areas(tumor).sum() == pytest.approx(tumor.all_around.surface_area, rel=1e-9)
    text = charts.margin_histogram(tumor)
    bars = [(float(h), c) for h, c in re.findall(r'height="([\d.]+)" fill="(#\w+)"', text)]
    total = sum(h for h, _ in bars)
    red = sum(h for h, c in bars if c == MARGIN_CLASSES[0][2]) / total
    # 0.003: heights in the drawing have one decimal.
    assert red == pytest.approx(tumor.all_around.fraction_below[0], abs=0.003)


def test_gaps_of_a_trace_stay_gaps():
    minutes = np.arange(6.0)
    values = np.array([1.0, 2.0, np.nan, np.nan, 3.0, 4.0])
    text = chart("Impedance", "Ω", [Series("", "#000", minutes, values)], None)
    path = re.search(r'<path d="(M[^"]*)" fill="none"', text).group(1)
    assert path.count("M") == 2
    assert "nan" not in text.lower()
    nothing = Series("", "#000", minutes, np.full(6, np.nan))
    assert "no readings" in chart("P", "W", [nothing], 0.0)


def test_colors_have_no_gap():
    assert [margin_color(mm) for mm in (-5.0, 0.0, 4.99, 5.0, 9.99, 10.0, 50.0)] == [
        MARGIN_CLASSES[i][2] for i in (0, 1, 1, 2, 2, 3, 3)
    ]


def test_a_measured_curve_lies_over_the_simulated_one_with_events_above():
    minutes = np.linspace(0.0, 2.0, 5)
    simulated = Series("simulated", "#24508f", minutes, np.array([10.0, 20.0, 20.0, 0.0, 0.0]), steps=True)
    measured = Series("measured", "#111111", minutes, np.array([12.0, 18.0, 21.0, 1.0, 0.0]), dashed=True)
    events = [TreatmentEvent(60.0, "rise", "a <needle>", 120.0), TreatmentEvent(600.0, "pulse", "late", 1.0)]
    text = chart("Power", "W", [simulated, measured], 0.0, events)
    assert text.count('fill="none"') == 2
    assert text.count("stroke-dasharray") == 1
    assert ">measured</text>" in text
    # a step holds its value until the next reading: a horizontal run before each drop
    step = re.search(r'<path d="(M[^"]*)" fill="none" stroke="#24508f"', text).group(1)
    assert step.count("H") == 4
    # an event beyond the end of the readings is not drawn
    assert text.count('v6"') == 1
    assert "<needle>" not in text


def test_the_report_compares_with_a_log():
    result, outcome, _, config = make_case()
    log = CASE["make_log"]()
    summary = summarize(result, outcome, config, "t", log=log)
    page = report_page(summary, result, outcome, [], None, (), log)
    assert "Against the generator" in page
    assert ">measured</text>" in page
    assert "Against the generator" not in report_page(
        summarize(result, outcome, config, "t"), result, outcome, [], None
    )
