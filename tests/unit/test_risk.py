"""Structures at risk and the whole outcome."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.errors import InputError, NumericalError
from thermosim.outcome.assess import assess
from thermosim.outcome.criteria import CRITERIA, level_set, zone_level_set
from thermosim.outcome.risk import structures_at_risk

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

DAMAGE = DamageConfig()


def result_with_organs():
    """Zone of 12 mm; a gallbladder from x = 10 mm on; a vessel of 3 mm radius along z at y = 8 mm."""
    grid = Grid.box((0.0, 0.0, 0.0), (40, 40, 40), 1e-3)
    points = synthetic.cell_points(grid)
    labels = np.ones(grid.shape, dtype=np.uint8)
    labels[points[..., 0] > 0.010] = 4
    wall = np.hypot(points[..., 0], points[..., 1] - 0.008) - 0.003
    labels[wall < 0] = 3
    result = synthetic.synthetic_result(
        grid,
        synthetic.sphere_level(grid, 0.012),
        labels=labels,
        lumens=[("portal_vein", wall)],
        liver_mask=labels != 4,
    )
    blood = labels == 3
    cooled = {}
    for name, cold in (("highest_temperature", 37.0), ("damage_integral", 0.1), ("thermal_dose", 1.0)):
        field = getattr(result, name).copy()
        field[blood] = cold
        cooled[name] = field
    return replace(result, **cooled)


def risks_of(result):
    return structures_at_risk(result, zone_level_set(result, "arrhenius", DAMAGE))


def test_each_structure_reports_its_hottest_tissue():
    result = result_with_organs()
    risks = {r.name: r for r in risks_of(result)}
    assert set(risks) == {"liver", "portal vein", "gallbladder"}
    # The gallbladder's nearest cell centre is (10.5, ±0.5, ±0.5) mm; 60 °C at the zone's edge, 1 K per mm.
    near = 1e3 * np.sqrt(0.0105**2 + 2 * 0.0005**2)
    assert risks["gallbladder"].highest_temperature == pytest.approx(60.0 + 12.0 - near, abs=1e-3)
    assert risks["gallbladder"].damage_integral == pytest.approx(np.exp(12.0 - near), rel=1e-3)
    assert risks["gallbladder"].thermal_dose == pytest.approx(240 * np.exp(12.0 - near), rel=1e-3)
    # A spherical cap of height 2 mm, π h² (R − h/3), counted in 1 mm cells (±20 % of so small a body).
    cap = np.pi * 0.002**2 * (0.012 - 0.002 / 3)
    assert risks["gallbladder"].dead_volume == pytest.approx(cap, rel=0.2)


def test_a_vessel_is_judged_by_the_tissue_at_its_wall():
    risks = {r.name: r for r in risks_of(result_with_organs())}
    vein = risks["portal vein"]
    # The wall is 5 mm from the centre: tissue there reaches about 67 °C though the blood has 37 °C.
    assert 65.0 < vein.highest_temperature < 69.0  # one cell of 1 K per mm and its diagonal
    assert vein.dead_volume > 0.0


def test_dead_cells_are_counted_as_on_the_whole_grid():
    result = result_with_organs()
    dead = level_set(result, "arrhenius", DAMAGE) > 0
    risks = {r.name: r for r in risks_of(result)}
    for name, label in (("liver", 1), ("gallbladder", 4)):
        count = np.count_nonzero(dead & (result.anatomy.labels == label))
        assert risks[name].dead_volume == count * result.anatomy.grid.cell_volume
    assert {r.dead_volume for r in structures_at_risk(result, None)} == {0.0}


def test_a_field_that_is_not_finite_is_refused_wherever_it_lies():
    result = result_with_organs()
    broken = result.damage_integral.copy()
    broken[39, 1, 2] = np.nan  # far from the zone
    with pytest.raises(NumericalError, match=r"'arrhenius'.*\(39, 1, 2\)"):
        assess(replace(result, damage_integral=broken), DAMAGE)
    metal = np.zeros(broken.shape, dtype=bool)
    metal[39, 1, 2] = True
    assess(replace(result, damage_integral=broken, solid_mask=metal), DAMAGE)


def test_metal_is_no_tissue():
    result = result_with_organs()
    hot = result.highest_temperature.copy()
    hot[35, 20, 20] = 500.0
    metal = np.zeros(hot.shape, dtype=bool)
    metal[35, 20, 20] = True
    risks = risks_of(replace(result, highest_temperature=hot, solid_mask=metal))
    assert max(r.highest_temperature for r in risks) < 100.0


def test_the_outcome_has_everything():
    outcome = assess(result_with_organs(), DAMAGE)
    assert tuple(outcome.zones) == CRITERIA
    assert outcome.criterion == "arrhenius"
    assert outcome.zones["arrhenius_99"].volume < outcome.zones["arrhenius"].volume
    assert outcome.zones["isotherm_54"].volume < outcome.zones["isotherm_50"].volume
    assert outcome.zones["isotherm_50"].touches_box  # 22 mm radius in a box of 40 mm
    assert [t.name for t in outcome.tumors] == ["tumor"]
    assert outcome.structures_at_risk[0].name == "liver"


def test_threads_change_nothing():
    result = result_with_organs()
    alone, together = assess(result, DAMAGE), assess(result, DAMAGE, threads=3)
    assert tuple(together.zones) == tuple(alone.zones)
    for criterion, zone in alone.zones.items():
        assert zone.volume == together.zones[criterion].volume
        assert np.array_equal(zone.surface.points, together.zones[criterion].surface.points)
    assert np.array_equal(alone.tumors[0].margin, together.tumors[0].margin)
    assert alone.tumors[0].shell_coverage == together.tumors[0].shell_coverage
    assert alone.structures_at_risk == together.structures_at_risk
    assert alone.notes == together.notes
    with pytest.raises(InputError, match="not one of"):
        assess(result, replace(DAMAGE, criterion="boiled"), threads=2)


def test_notes_tell_what_a_reader_must_know():
    grid = Grid.box((0.0, 0.0, 0.0), (32, 32, 32), 1e-3)
    points = synthetic.cell_points(grid)
    inside = synthetic.sphere_surface
    result = synthetic.synthetic_result(
        grid,
        synthetic.sphere_level(grid, 0.017),
        tumors={
            "near": inside(0.006),
            "cut": inside(0.006, (0.014, 0, 0)),
            "far": inside(0.006, (0.05, 0, 0)),
        },
        liver_mask=points[..., 2] < 0.010,
        electrodes=[synthetic.needle(target=(0, 0, -0.01))],
    )
    outcome = assess(result, DAMAGE)
    text = "\n".join(outcome.cautions)
    assert set(outcome.cautions) <= set(outcome.notes)
    assert "reaches the faces of the computed box" in text
    assert "cut lies partly outside" in text
    assert "far lies outside" in text
    assert "bare metal of needle needle reaches outside the liver" in text
    assert [t.name for t in outcome.tumors] == ["near", "cut"]
    apart = np.maximum(
        synthetic.sphere_level(grid, 0.005, (-0.008, 0, 0)),
        synthetic.sphere_level(grid, 0.005, (0.008, 0, 0)),
    )
    assert any("2 separate parts" in n for n in assess(synthetic.synthetic_result(grid, apart), DAMAGE).notes)
    nothing = assess(synthetic.synthetic_result(grid, synthetic.sphere_level(grid, -0.02)), DAMAGE)
    assert any("no tissue died" in n for n in nothing.notes)
    assert nothing.tumors[0].coverage == 0.0


def test_an_unknown_criterion_is_refused():
    with pytest.raises(InputError, match="not one of"):
        assess(result_with_organs(), replace(DAMAGE, criterion="boiled"))
