"""Which film, flow and temperature each group of vessels gets, alone and together, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from solver_cases import BLOOD, LIVER, small_problem

from thermosim.anatomy.block import BlockSource
from thermosim.anatomy.grid import Grid
from thermosim.backends import select
from thermosim.build import build_problem, load_case
from thermosim.config import (
    BlockAnatomyConfig,
    BlockTubeConfig,
    SegmentConfig,
    TissueConfig,
    VesselGroupConfig,
    VesselsConfig,
)
from thermosim.errors import InputError
from thermosim.physics.vessel_walls import open_vessels
from thermosim.simulation import Simulation, run

GROUPS = {"portal_vein": (9, 0), "hepatic_vein": (-9, 0), "artery": (0, 9), "vena_cava": (0, -9)}
TISSUE = TissueConfig(state="test", tissues={"liver": LIVER, "background": LIVER, "blood": BLOOD})


@pytest.fixture(scope="module")
def backend():
    return select("cpu", threads=1)


def four_tubes(spacing=2e-3):
    """A block with one tube of each group, and its lumens with centre lines."""
    tubes = [BlockTubeConfig(g, 5.0, [x, y, -40], [x, y, 40]) for g, (x, y) in GROUPS.items()]
    source = BlockSource(BlockAnatomyConfig(size_mm=[90, 90, 90], tubes=tubes))
    n = round(0.048 / spacing)
    anatomy = source.rasterize(Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing), 3e-3)
    lumens = tuple(replace(lumen, tree=source.vessel_tree(lumen.group)) for lumen in anatomy.lumens)
    return replace(anatomy, lumens=lumens)


def opened(vessels, anatomy=None):
    anatomy = four_tubes() if anatomy is None else anatomy
    conductivity = np.array([0.52] * len(anatomy.structures))
    return open_vessels(anatomy, vessels, TISSUE, 200, conductivity)


def groups(**common):
    return {g: VesselGroupConfig(**common) for g in GROUPS}


@pytest.mark.parametrize(
    "models", list(permutations(("isothermal", "convective", "advective", "occluded")))[::5]
)
def test_every_group_has_its_own_state(backend, models):
    """All models side by side, each group in another one, in a run whose books close."""
    chosen = dict(zip(GROUPS, models, strict=True))
    vessels = VesselsConfig(
        groups={
            g: VesselGroupConfig(model=m, flow_ml_min=30.0 if m == "advective" else None)
            for g, m in chosen.items()
        }
    )
    problem = small_problem(anatomy=four_tubes(), segments=[SegmentConfig(duration_min=1.0)])
    result = run(replace(problem, vessels=vessels, tissue=TISSUE), backend)
    assert {v.group: v.model for v in result.vessels} == {g: m for g, m in chosen.items() if m != "occluded"}
    assert result.audit.relative_error < 1e-3  # the audit's promise
    heat = {v.model: v.wall_heat for v in result.vessels}
    # the four tubes stand alike around the needle
    assert heat["isothermal"] > heat["convective"] > heat["advective"] > 0
    assert next(v for v in result.vessels if v.model == "advective").stream.relative_error < 1e-3


def test_an_ignored_group_is_liver_and_takes_nothing(backend):
    vessels = VesselsConfig(model="isothermal", groups={"artery": VesselGroupConfig(model="ignored")})
    found = opened(vessels)
    anatomy = four_tubes()
    artery = anatomy.labels == anatomy.structure("artery").label
    assert (found.labels[artery] == anatomy.structure("block").label).all()
    assert [one.group for one in found.groups] == ["portal_vein", "hepatic_vein", "vena_cava"]
    occluded = opened(VesselsConfig(model="occluded"))
    np.testing.assert_array_equal(occluded.labels, anatomy.labels)
    assert occluded.walls == []


def test_film_by_what_is_known():
    """Given h before a flow, a flow before the common h, `none` for the common h."""

    def film(**own):
        vessels = VesselsConfig(model="convective", groups={"artery": VesselGroupConfig(**own)})
        return next(one for one in opened(vessels).groups if one.group == "artery")

    assert film().film == (1500.0, pytest.approx(1500.0), 1500.0)
    assert film(heat_transfer_coefficient=700.0, flow_ml_min=50.0).film[1] == pytest.approx(700.0)
    assert film(flow_ml_min=50.0, correlation="none").film[1] == pytest.approx(1500.0)
    assert film(flow_ml_min=50.0, correlation="laminar").film[1] == pytest.approx(3.66 * 0.52 / 5e-3)
    developing = film(flow_ml_min=50.0)
    assert developing.film[0] < developing.film[1] < developing.film[2]
    assert developing.flow == pytest.approx(50e-6 / 60)
    # 5 mm and 2 cm/s are 23.6 mL/min
    assert film(velocity_cm_s=2.0).flow == pytest.approx(np.pi / 4 * 25e-6 * 0.02)


def test_a_flow_that_nobody_knows_is_refused():
    with pytest.raises(InputError, match=r"vessels\.groups\.portal_vein.*needs flow_ml_min"):
        opened(VesselsConfig(model="advective"))


def test_a_velocity_in_two_glass_tubes_is_the_flow_of_both():
    tubes = [BlockTubeConfig("artery", 5.0, [x, 0, -40], [x, 0, 40]) for x in (-9, 9)]
    source = BlockSource(BlockAnatomyConfig(size_mm=[90, 90, 90], tubes=tubes))
    anatomy = source.rasterize(Grid.box((0.0, 0.0, 0.0), (24, 24, 24), 2e-3), 3e-3)
    lumens = tuple(replace(lumen, tree=source.vessel_tree(lumen.group)) for lumen in anatomy.lumens)
    own = VesselGroupConfig(velocity_cm_s=2.0, inner_diameter_mm=4.0)
    vessels = VesselsConfig(model="advective", groups={"artery": own})
    found = opened(vessels, replace(anatomy, lumens=lumens))
    assert found.groups[0].flow == pytest.approx(2 * np.pi / 4 * 16e-6 * 0.02)


def test_without_a_centre_line_one_film_serves_the_group():
    anatomy = four_tubes()
    bare = replace(anatomy, lumens=tuple(replace(lumen, tree=None) for lumen in anatomy.lumens))
    vessels = VesselsConfig(model="convective", groups=groups(flow_ml_min=50.0))
    known, unknown = opened(vessels), opened(vessels, bare)
    assert unknown.groups[0].film[0] == unknown.groups[0].film[2]
    # 10 %: mean of the entrance over the lumen against the mean over the wall cells of its pieces
    assert unknown.groups[0].film[1] == pytest.approx(known.groups[0].film[1], rel=0.1)
    with pytest.raises(InputError, match=r"vessels\.groups\.portal_vein.*centre lines"):
        opened(VesselsConfig(model="advective", groups=groups(flow_ml_min=50.0)), bare)


def test_a_wall_of_its_own_is_in_series_with_the_film():
    plain = opened(
        VesselsConfig(
            model="convective", groups={"artery": VesselGroupConfig(heat_transfer_coefficient=500.0)}
        )
    )
    glass = opened(
        VesselsConfig(
            model="convective",
            groups={"artery": VesselGroupConfig(heat_transfer_coefficient=1000.0, wall_resistance=1e-3)},
        )
    )
    # 1/1000 + 1/1000 is 1/500
    first, second = (next(w.links for w in o.walls if w.name == "vessel:artery") for o in (plain, glass))
    np.testing.assert_allclose(first.wall_factors, second.wall_factors, rtol=1e-12)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["+vessels.groups={portal_vein:{flow_ml_min:10,velocity_cm_s:1}}"],
            ["portal_vein", "both", "leave one"],
        ),
        (["+vessels.groups={portal_vein:{flow_ml_min:-1}}"], ["portal_vein.flow_ml_min=-1"]),
        (["+vessels.groups={portal_vein:{model:advective}}"], ["portal_vein", "advective needs flow_ml_min"]),
        (
            ["+vessels.groups={portal_vein:{correlation:magic}}"],
            ["portal_vein.correlation='magic'", "gnielinski"],
        ),
        (["+vessels.groups={portal_vein:{inner_diameter_mm:0}}"], ["inner_diameter_mm=0", "positive"]),
        (["+vessels.groups={portal_vein:{flow_direction:up}}"], ["flow_direction='up'", "to_root"]),
        (["vessels.blood_viscosity=0"], ["vessels.blood_viscosity=0"]),
    ],
)
def test_bad_vessels_are_refused_by_name(overrides, words):
    with pytest.raises(InputError) as caught:
        load_case("demo", overrides)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_flow_without_a_diameter_is_refused(backend):
    case = load_case(
        "ex_vivo",
        [
            "anatomy=block",
            "grid.spacing_mm=4",
            "anatomy.tubes=[{group:artery,diameter_mm:2,start_mm:[9,0,-60],end_mm:[9,0,60]}]",
            "vessels.model=convective",
            "+vessels.groups={artery:{flow_ml_min:20}}",
        ],
    )
    problem, _ = build_problem(case)
    with pytest.raises(InputError, match=r"artery\.flow_ml_min=20 has no diameter.*3 mm"):
        Simulation(problem, backend)


def test_a_run_with_warming_blood_goes_on_from_its_checkpoint(backend, tmp_path):
    problem = small_problem(anatomy=four_tubes(), segments=[SegmentConfig(duration_min=0.5)])
    vessels = VesselsConfig(model="advective", groups=groups(flow_ml_min=5.0))
    problem = replace(problem, vessels=vessels, tissue=TISSUE)
    whole = run(problem, backend)

    first = Simulation(problem, backend)
    while first.clock.time < 12.0:
        first._enter_segment()
        first._step()
        first._end_segment()
    first.save(tmp_path / "checkpoint.h5")
    second = Simulation(problem, backend)
    second.restore(tmp_path / "checkpoint.h5")
    rest = second.run()
    np.testing.assert_array_equal(rest.temperature, whole.temperature)
    for one, other in zip(rest.vessels, whole.vessels, strict=True):
        assert one.stream.enthalpy_gain == other.stream.enthalpy_gain
        np.testing.assert_array_equal(one.stream.outlet_temperature, other.stream.outlet_temperature)
