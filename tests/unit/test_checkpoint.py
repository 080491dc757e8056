"""Interrupted and resumed runs are the uninterrupted ones, bit for bit; what is no checkpoint is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from solver_cases import needle, plain_anatomy, small_problem, two_needles, vessel_anatomy

from thermosim import checkpoint as checkpoints
from thermosim.backends import select
from thermosim.callbacks import Progress
from thermosim.config import GeneratorConfig, SegmentConfig, SolverConfig, TissueConfig
from thermosim.errors import InputError, Interrupted
from thermosim.simulation import Problem, Simulation, SimulationResult, run

FIELDS = (
    "temperature",
    "highest_temperature",
    "damage_integral",
    "thermal_dose",
    "dead_fraction",
    "volumetric_heat_source",
    "electric_potential",
    "solid_mask",
    "admittance_matrix",
)


def pausing() -> Problem:
    """Boils early; the generator pauses again and again."""
    generator = GeneratorConfig(
        mode="impedance_controlled",
        power=45.0,
        power_ramp=10.0,
        impedance_rise=8.0,
        pause=10.0,
        baseline_time=5.0,
    )
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        generator=generator,
        segments=[SegmentConfig(duration_min=1.5)],
        cooling=10.0,
    )


def switching() -> Problem:
    return small_problem(
        anatomy=vessel_anatomy((24, 22, 26), 2.5e-3),
        electrodes=two_needles(coolant=10.0),
        generator=GeneratorConfig(mode="constant_power", power=50.0),
        segments=[SegmentConfig(duration_min=1.0, drive="switching", dwell_time=7.0)],
        cooling=10.0,
    )


def two_segments() -> Problem:
    """Pulled back between segments, and another drive."""
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        electrodes=(
            needle("left", (-0.0075, 0.0004, -0.016), (0.28, 0.0, 0.96)),
            needle("right", (0.0082, 0.0, -0.010)),
        ),
        segments=[
            SegmentConfig(duration_min=0.5),
            SegmentConfig(duration_min=0.5, drive="sequence", pull_back_mm=8.0, voltage=26.0),
        ],
        cooling=15.0,
    )


def held() -> Problem:
    """A temperature held for 10 s, then a second segment at constant settings begins early."""
    generator = GeneratorConfig(
        mode="temperature_controlled", power=12.0, target_temperature=55.0, hold_time=10.0
    )
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        generator=generator,
        segments=[
            SegmentConfig(duration_min=4.0),
            SegmentConfig(duration_min=3.0, pull_back_mm=5.0, target_temperature=50.0),
        ],
        cooling=10.0,
    )


def rolling_off() -> Problem:
    generator = GeneratorConfig(
        mode="ramp_to_roll_off",
        power=45.0,
        power_ramp=30.0,
        impedance_rise=8.0,
        pause=10.0,
        power_reduction=0.7,
    )
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        generator=generator,
        segments=[SegmentConfig(duration_min=5.0), SegmentConfig(duration_min=0.2)],
        cooling=10.0,
    )


def constant_current() -> Problem:
    generator = GeneratorConfig(mode="constant_current", current=0.3, maximum_impedance=150.0)
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3), generator=generator, segments=[SegmentConfig(0.5)]
    )


def multipolar() -> Problem:
    needles = (
        needle("a", (0.0, 0.009, -0.010)),
        needle("b", (0.008, -0.006, -0.010)),
        needle("c", (-0.008, -0.006, -0.010)),
    )
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        electrodes=needles,
        generator=GeneratorConfig(mode="constant_power", power=15.0),
        segments=[SegmentConfig(duration_min=0.6, drive="bipolar", dwell_time=5.0)],
        ground="none",
        cooling=5.0,
    )


def serial_positions() -> Problem:
    """One needle after another, each with a pull-back: only one stands in the tissue."""
    problem = small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        electrodes=two_needles(),
        segments=[SegmentConfig(duration_min=0.1), SegmentConfig(duration_min=0.1, pull_back_mm=5.0)],
        cooling=3.0,
    )
    return replace(problem, protocol=replace(problem.protocol, serial="needles"))


Stop = Callable[[Progress], bool]


def uninterrupted(problem: Problem) -> SimulationResult:
    return run(problem, select("cpu", 1))


def interrupted_and_resumed(problem: Problem, path: Path, stops: list[Stop]) -> SimulationResult:
    """Ctrl-C at the first moment that each of `stops` accepts, then resumed in a new simulation."""
    for number, stop in enumerate(stops):
        pressed = [False]

        def press(progress: Progress, stop: Stop = stop, pressed: list[bool] = pressed) -> None:
            if not pressed[0] and stop(progress):
                pressed[0] = True
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted):
            run(problem, select("cpu", 1), callbacks=[press], checkpoint=path, resume=number > 0)
        assert path.is_file()
    return run(problem, select("cpu", 1), checkpoint=path, resume=True)


def check_identical(one: SimulationResult, other: SimulationResult) -> None:
    for name in FIELDS:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        assert np.array_equal(a, b, equal_nan=a.dtype != bool), name
    for name in one.traces.__dataclass_fields__:
        a, b = getattr(one.traces, name), getattr(other.traces, name)
        assert np.array_equal(a, b, equal_nan=True), name
    assert one.audit == other.audit
    for name in (
        "units",
        "sensors",
        "events",
        "unit_impedances",
        "segment_times",
        "places",
        "treatment_time",
    ):
        assert getattr(one, name) == getattr(other, name), name
    assert one.initial_impedance == other.initial_impedance
    assert one.final_impedance == other.final_impedance
    assert one.power_relative_error == other.power_relative_error
    assert one.electrodes == other.electrodes
    for name in ("time_steps", "cell_updates", "potential_solves", "potential_iterations"):
        assert getattr(one.run, name) == getattr(other.run, name), name


def after(time: float) -> Stop:
    return lambda progress: progress.time >= time - 1e-6


def after_an_early_end(planned: float) -> Stop:
    """Once the whole duration is less than was `planned` [s]."""
    return lambda progress: progress.duration < planned - 1.0


def in_a_pause(progress: Progress) -> bool:
    return progress.power == 0.0 and 5.0 < progress.time < 85.0


@pytest.mark.parametrize(
    ("problem", "stops"),
    [
        (pausing, [in_a_pause]),
        (pausing, [after(3.0)]),
        (pausing, [after(20.0), after(41.0), after(66.0)]),
        (switching, [after(10.0)]),
        (serial_positions, [after(4.0), after(14.0), after(21.0)]),  # in three of its four burns
        (switching, [after(21.0)]),  # at the moment of a switch
        (switching, [after(31.5), after(62.0)]),  # and while tissue cools, with the pump off
        (two_segments, [after(30.0)]),  # at the very end of the first segment
        (two_segments, [after(30.2)]),  # right after the needles have moved
        (two_segments, [after(45.0)]),  # where the sequence moves on
        (two_segments, [after(60.0)]),  # at the end of the treatment
        (held, [after(9.0)]),  # on the way to the target
        (held, [after(50.0), after(75.0)]),
        (held, [after_an_early_end(430.0)]),
        (rolling_off, [in_a_pause]),
        (rolling_off, [after_an_early_end(322.0)]),
        (constant_current, [after(11.0)]),
        (multipolar, [after(12.0), after(25.0)]),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    problem: Callable[[], Problem], stops: list[Stop], tmp_path: Path
) -> None:
    whole = uninterrupted(problem())
    check_identical(whole, interrupted_and_resumed(problem(), tmp_path / "checkpoint.h5", stops))


def test_the_pausing_case_does_pause_and_boil() -> None:
    result = uninterrupted(pausing())
    on = result.traces.total_power[result.traces.time < 85.0] > 0.0
    assert not on.all()
    assert result.traces.hottest_temperature.max() > 100.0


def test_the_cases_that_end_early_do() -> None:
    for problem, planned in ((held(), 430.0), (rolling_off(), 322.0)):
        told: list[Progress] = []
        result = run(problem, select("cpu", 1), callbacks=[told.append])
        assert result.completed
        assert told[0].duration == pytest.approx(planned)
        assert result.treatment_time == told[-1].duration < planned - 30.0
        assert np.all(np.diff([p.duration for p in told]) <= 0.0)
        (_, first_end), (second_start, _) = result.segment_times
        assert first_end == second_start


def test_checkpoints_are_written_in_time_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thermosim.simulation.WORTH_KEEPING", 0.0)
    problem = replace(switching(), solver=SolverConfig(checkpoint_interval_min=0.25))
    path = tmp_path / "deep" / "checkpoint.h5"
    written: list[int] = []

    def watch(_progress: Progress) -> None:
        if path.is_file() and path.stat().st_mtime_ns not in written:
            written.append(path.stat().st_mtime_ns)

    result = run(problem, select("cpu", 1), callbacks=[watch], checkpoint=path)
    assert 3 <= len(written) <= 5  # 70 s, one every 15 s
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.h5"]  # nothing unfinished left
    check_identical(run(problem, select("cpu", 1)), result)


def test_what_is_quick_to_do_again_is_not_kept(tmp_path: Path) -> None:
    problem = replace(switching(), solver=SolverConfig(checkpoint_interval_min=0.25))
    run(problem, select("cpu", 1), checkpoint=tmp_path / "checkpoint.h5")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- refusals


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of the switching case at 10 s."""
    simulation = Simulation(switching(), select("cpu", 1))
    path = tmp_path / "checkpoint.h5"

    def press(progress: Progress) -> None:
        if progress.time > 10.0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        simulation.run([press], path)
    return path


def resume(path: Path, problem: Problem | None = None) -> None:
    run(problem or switching(), select("cpu", 1), checkpoint=path, resume=True)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint gone\.h5 in .*nothing to resume"):
        resume(tmp_path / "gone.h5")
    with pytest.raises(InputError, match="resume needs the file"):
        run(switching(), select("cpu", 1), resume=True)


def test_a_truncated_checkpoint(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 7, len(content) // 3, len(content) - 100):
        saved.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"checkpoint\.h5 is damaged"):
            resume(saved)


def test_a_file_that_is_something_else(saved: Path, tmp_path: Path) -> None:
    saved.write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.h5 is damaged"):
        resume(saved)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file.attrs["format"] = "something-else"
    with pytest.raises(InputError, match=r"other\.h5 is not a checkpoint of this version"):
        resume(other)


def test_a_flipped_bit(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    with h5py.File(saved) as file:
        place = file["damage_integral"].id.get_offset() + 4000
    content[place] ^= 0x10
    saved.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"checkpoint\.h5 is damaged"):
        resume(saved)


@pytest.mark.parametrize("dataset", ["enthalpy", "damage_integral", "sigma", "potential_0"])
def test_a_missing_or_changed_field(saved: Path, dataset: str) -> None:
    with h5py.File(saved, "a") as file:
        values = file[dataset][...]
        del file[dataset]
    with pytest.raises(InputError, match=r"checkpoint\.h5 is damaged"):
        resume(saved)
    with h5py.File(saved, "a") as file:
        file[dataset] = values[:-1]
    with pytest.raises(InputError, match=r"checkpoint\.h5 is damaged"):
        resume(saved)


def test_an_edited_state(saved: Path) -> None:
    with h5py.File(saved, "a") as file:
        state = json.loads(str(file.attrs["state"]))
        state["clock"]["time"] += 1.0
        file.attrs["state"] = json.dumps(state)
    with pytest.raises(InputError, match=r"checkpoint\.h5 is damaged"):
        resume(saved)


@pytest.mark.parametrize(
    "missing", ["clock", "ledger", "records", "plain", "generator", "terminals", "arrays"]
)
def test_a_whole_file_that_lacks_something(saved: Path, missing: str) -> None:
    # what another version may have written under the same format: the digest fits, the content does not
    simulation = Simulation(switching(), select("cpu", 1))
    fields, state = checkpoints.load(saved, simulation._fingerprint())
    del state[missing]
    checkpoints.save(saved, fields, state, simulation._fingerprint())
    with pytest.raises(InputError, match=rf"checkpoint\.h5 is damaged.*{missing}"):
        resume(saved)


def is_refused(path: Path, problem: Problem) -> bool:
    simulation = Simulation(problem, select("cpu", 1))
    try:
        simulation.restore(path)
    except InputError as error:
        return "belongs to another case" in str(error)
    return False


def test_a_checkpoint_of_another_case(saved: Path) -> None:
    problem = switching()
    tissue, anatomy = problem.tissue, problem.anatomy
    outside = np.zeros(anatomy.grid.shape, dtype=bool)
    outside[0] = True
    other_tissue = (replace(anatomy.structures[0], tissue="blood"), *anatomy.structures[1:])
    others = {
        "protocol": replace(problem, protocol=replace(problem.protocol, cooling_after_min=0.5)),
        "tissue": replace(problem, tissue=TissueConfig(**{**vars(tissue), "arterial_temperature": 37.5})),
        "needle": replace(problem, electrodes=two_needles(0.017, coolant=10.0)),
        "coolant": replace(problem, electrodes=two_needles(coolant=12.0)),
        "solver": replace(problem, solver=SolverConfig(maximum_time_step=4.0)),
        "vessels": replace(problem, vessels=replace(problem.vessels, model="convective")),
        "grid": replace(problem, anatomy=vessel_anatomy((22, 22, 26), 2.5e-3)),
        "exterior": replace(problem, exterior_mask=outside),
        "structures": replace(problem, anatomy=replace(anatomy, structures=other_tissue)),
        "vessel wall": replace(problem, anatomy=vessel_anatomy((24, 22, 26), 2.5e-3, radius=4.1e-3)),
    }
    for what, other in others.items():
        assert is_refused(saved, other), f"{what}: another one was accepted"


def test_an_unfinished_write_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    simulation = Simulation(switching(), select("cpu", 1))
    simulation.restore(saved)

    def full_disk(*_arguments: object, **_options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full_disk)
    with pytest.raises(OSError, match="no space"):
        simulation.save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["checkpoint.h5"]
