"""The composition root: box, memory, resuming, and the lazy public names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import thermosim
from thermosim import checks
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.protocol import Protocol
from thermosim.build import (
    CHECKPOINT_FILE,
    RESUME_FILE,
    _store_for_resuming,
    build_problem,
    grid_around,
    interrupted_case,
    load_case,
)
from thermosim.config import GridConfig
from thermosim.errors import InputError

NEEDLE = Electrode("a", (0.0, 0.0, 0.0), (0.0, -0.1, 0.0), 0.735e-3, 0.03)


def test_the_box_has_the_size_asked_for_around_the_exposed_metal():
    grid = grid_around(GridConfig(spacing_mm=1.0, size_mm=[128.0, 128.0, 64.0]), (NEEDLE,))
    assert grid.shape == (128, 128, 64)
    middle = 0.5 * (grid.lower_corner + grid.upper_corner)
    np.testing.assert_allclose(middle, [0.0, -0.015, 0.0], atol=1e-12)  # round-off


def test_edges_are_rounded_up_to_an_even_number_of_cells():
    assert grid_around(GridConfig(spacing_mm=0.7, size_mm=[128.0] * 3), (NEEDLE,)).shape == (184, 184, 184)


def test_a_margin_goes_beyond_the_metal_on_each_side():
    grid = grid_around(GridConfig(spacing_mm=1.0, size_mm=None, margin_mm=20.0), (NEEDLE,))
    # Metal from y = -30.735 to 0.735 mm; x and z only the radius.
    assert (grid.upper_corner >= [0.020735, 0.020735, 0.020735]).all()
    assert (grid.lower_corner <= [-0.020735, -0.050735, -0.020735]).all()
    assert grid.shape == (42, 72, 42)


def test_a_centre_can_be_given():
    grid = grid_around(GridConfig(size_mm=[64.0] * 3, center_mm=[10.0, 0.0, -5.0]), (NEEDLE,))
    np.testing.assert_allclose(0.5 * (grid.lower_corner + grid.upper_corner), [0.01, 0.0, -0.005], atol=1e-12)


def test_a_box_of_too_few_cells_is_refused():
    with pytest.raises(InputError, match="fewer than 8 cells"):
        grid_around(GridConfig(spacing_mm=20.0, size_mm=[64.0] * 3), (NEEDLE,))


def test_a_grid_that_does_not_fit_is_refused_with_both_figures():
    with pytest.raises(InputError, match=r"needs about 5 GB .* 2 GB .*memory_limit_gb"):
        checks.check_memory(5_000_000_000, (500, 500, 500), 2.0)
    checks.check_memory(1_000_000_000, (100, 100, 100), 2.0)


def test_an_absurd_spacing_is_refused_without_allocating():
    grid = grid_around(GridConfig(spacing_mm=0.001, size_mm=[128.0] * 3), (NEEDLE,))
    assert grid.shape == (128_000,) * 3
    # 100 bytes a cell is less than any run needs.
    with pytest.raises(InputError, match=r"raise grid\.spacing_mm"):
        checks.check_memory(100 * grid.n_cells, grid.shape, None)


def test_unknown_needles_of_a_segment_are_refused():
    protocol = load_case("quick", ["protocol.segments=[{duration_min:1,needles:[left]}]"]).config.protocol
    with pytest.raises(InputError, match="'left' is not in the layout; it has needle_1"):
        Protocol(protocol, ["needle_1"])


def test_a_case_survives_being_stored_for_resuming(tmp_path):
    case = load_case("quick", ["grid.spacing_mm=2.5", "vessels=convective"])
    _store_for_resuming(case, tmp_path)
    with pytest.raises(InputError, match="no interrupted run"):
        interrupted_case(tmp_path)
    (tmp_path / CHECKPOINT_FILE).touch()
    again = interrupted_case(tmp_path)
    assert dataclasses.asdict(again.config) == dataclasses.asdict(case.config)


@pytest.mark.parametrize("text", ["[1, 2", "- 1\n- 2\n", "grid: {spacing_mm: wide}\n", "\x00"])
def test_a_damaged_stored_case_is_refused(tmp_path, text):
    (tmp_path / CHECKPOINT_FILE).touch()
    (tmp_path / RESUME_FILE).write_text(text)
    with pytest.raises(InputError) as caught:
        interrupted_case(tmp_path)
    assert "\n" not in str(caught.value)


def test_public_names_are_importable_and_no_others():
    for name in thermosim.__all__:
        assert getattr(thermosim, name) is not None
    with pytest.raises(AttributeError):
        thermosim.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("protocol.generator.target_temperature=106", r"=106 °C is refused; it must be at most 105 °C"),
        ("protocol.generator.target_temperature=37", r"=37 °C is refused; it must lie above .*=37 °C"),
        ("protocol.segments.0.target_temperature=120", r"segments\[0\].target_temperature=120 °C"),
        ("protocol.generator.hold_time=-1", "hold_time=-1"),
        ("protocol.generator.controlled_sensor=best", "controlled_sensor='best'"),
    ],
)
def test_a_temperature_that_cannot_be_held_is_refused(override, words):
    with pytest.raises(InputError, match=words):
        load_case("quick", ["protocol=temperature_controlled", override])


@pytest.mark.parametrize(
    "protocol",
    ["constant_current", "temperature_controlled", "ramp_to_roll_off", "impedance_pulses_200w", "multipolar"],
)
def test_every_way_of_driving_fits_a_layout_of_three_needles(protocol):
    config = load_case("quick", [f"protocol={protocol}"]).config.protocol
    assert Protocol(config, ["a", "b", "c"]).duration > 600.0


def test_a_generator_log_is_read_before_any_heavy_work(tmp_path, monkeypatch):
    case = load_case("quick", [f"output.generator_log_file={tmp_path / 'gone.csv'}"])
    monkeypatch.setattr("thermosim.build.build_problem", lambda _case: pytest.fail("heavy work was done"))
    with pytest.raises(InputError, match=r"generator_log_file=gone\.csv cannot be read"):
        thermosim.simulate(case)


def test_a_bipolar_needle_against_the_ground_is_said():
    device = "applicators=bipolar_15g_30mm"
    problem, _ = build_problem(load_case("quick", [device]))
    assert any("monopolar" in note and "drive: bipolar" in note for note in problem.anatomy.notes)
    problem, _ = build_problem(load_case("quick", [device, "protocol=multipolar"]))
    assert not any("monopolar" in note for note in problem.anatomy.notes)


def test_a_limit_that_refuses_is_named():
    with pytest.raises(InputError, match=r"power=100 W is refused.*50 W, the generator's maximum_power"):
        load_case("quick", ["protocol.generator.power=100", "protocol.generator.maximum_power=50"])
