"""Needles moved from position to position: who stands in the tissue when, and what a run tells about it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from thermosim.build import build_problem, lay_out, load_case, simulate
from thermosim.errors import InputError

SHORT = [
    "grid.spacing_mm=5",
    "grid.size_mm=null",
    "grid.margin_mm=20",
    "backend.name=cpu",
    "backend.threads=1",
    "protocol.cooling_after_min=0",
    "anatomy.n_terminals=12",
    "vessels=ignored",
    "output=minimal",
]


def positions(count: int) -> str:
    """So many parallel positions 8 mm apart in rows, shafts 1.47 mm thick, as an override."""
    needles = [
        f"{{name:p{k + 1},target_mm:[{8 * (k % 5) - 16},{8 * (k // 5) - 12},-15],"
        f"entry_mm:[{8 * (k % 5) - 16},{8 * (k // 5) - 12},85]}}"
        for k in range(count)
    ]
    return f"layout.needles=[{','.join(needles)}]"


@pytest.fixture(scope="module")
def twenty():
    """Twenty positions of one needle, two burns of 1.2 s each."""
    segments = "protocol.segments=[{duration_min:0.02},{duration_min:0.02,pull_back_mm:10}]"
    case = load_case(
        "stereotactic_serial",
        [*SHORT, positions(20), segments, "protocol.generator.power=20", "solver.maximum_time_step=1.2"],
    )
    return simulate(case)


def test_twenty_positions_are_burnt_one_after_another(twenty):
    run = twenty.simulation
    assert run.completed
    assert len(run.segment_times) == 40
    assert [len(standing) for standing in run.places] == [1] * 40
    assert [standing[0].name for standing in run.places] == [f"p{k // 2 + 1}" for k in range(40)]
    deep, back = run.places[6][0], run.places[7][0]
    assert np.subtract(back.target_point, deep.target_point) == pytest.approx([0.0, 0.0, 0.01], abs=1e-9)
    assert run.electrodes == tuple(run.places[2 * k + 1][0] for k in range(20))
    powers = run.traces.power
    assert powers.shape[1] == 20
    assert ((powers > 0).sum(axis=1) <= 1).all()  # one needle at a time
    np.testing.assert_allclose(powers.max(axis=0), 20.0, rtol=1e-6)  # and each with all the power
    # every position was heated: at its middle the tissue is warmer than it was
    centers = np.array([standing[0].center for standing in run.places])
    index = np.rint(run.anatomy.grid.indices(centers)).astype(int)
    around = [run.highest_temperature[tuple(slice(i - 1, i + 2) for i in place)].max() for place in index]
    assert min(around) > 37.3


def test_energy_is_that_of_all_burns_and_the_balance_closes(twenty):
    audit = twenty.simulation.audit
    assert audit.electrical == pytest.approx(40 * 1.2 * 20.0, rel=1e-6)
    assert audit.relative_error < 1e-3


def test_only_the_needle_in_place_is_metal_and_has_readings(twenty):
    run = twenty.simulation
    readings = run.traces.sensor_temperature
    assert readings.shape[1] == 20
    assert (np.isfinite(readings).sum(axis=1) == 1).all()


def test_the_summary_tells_who_stood_where(twenty):
    summary = json.loads(json.dumps(twenty.summary))
    segments = summary["generator"]["segments"]
    assert len(segments) == 40
    assert segments[39]["electrodes"][0]["name"] == "p20"
    height = segments[39]["electrodes"][0]["target_lps_mm"][2]
    assert height == pytest.approx(6 - 15 + 10, abs=1e-6)  # the tumour's centre, the tip, the pull-back
    assert summary["settings"]["serial"] == "needles"


def test_positions_that_would_touch_are_fine_one_after_another_but_not_together():
    near = (
        "layout.needles=[{name:a,target_mm:[0,0,0],entry_mm:[0,0,90]},"
        "{name:b,target_mm:[0.5,0,0],entry_mm:[0.5,0,90]},{name:c,target_mm:[20,0,0],entry_mm:[20,0,90]}]"
    )
    layout = lay_out(load_case("stereotactic_serial", [*SHORT, near]))
    assert len(layout.electrodes) == 3
    for serial in (
        ["protocol.serial=none"],
        ["protocol.serial=groups", "protocol.groups=[[c],[b,a]]"],
    ):
        with pytest.raises(InputError, match="'a' and 'b' touch"):
            build_problem(load_case("stereotactic_serial", [*SHORT, near, *serial]))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol.serial=both"], "protocol.serial='both' is not known"),
        (["protocol.serial=groups"], "protocol.groups is empty with protocol.serial=groups"),
        (["protocol.groups=[[a]]"], "protocol.groups is given with protocol.serial=needles"),
        (
            ["protocol.segments=[{duration_min:1,needles:[position_1]}]"],
            r"segments\[0\].needles is given with protocol.serial=needles",
        ),
        (["protocol.serial=groups", "protocol.groups=[[a,a]]"], r"groups\[0\]=.* none twice"),
    ],
)
def test_serial_plans_that_contradict_themselves_are_refused(overrides, words):
    with pytest.raises(InputError, match=words):
        load_case("stereotactic_serial", overrides)


def test_a_pull_back_out_of_the_box_is_refused_with_its_burn():
    with pytest.raises(InputError, match="pulled back by 60 mm in segment 2 of the treatment"):
        lay_out(
            load_case(
                "stereotactic_serial",
                [
                    *SHORT,
                    "grid.center_mm=[-45,0,10]",
                    "grid.size_mm=[96,96,96]",
                    "protocol.segments.1.pull_back_mm=60",
                ],
            )
        )
