"""Logs of real generators: what is read, what is refused, and the comparison with a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thermosim.errors import InputError
from thermosim.report.generator_log import (
    MOST_ROWS,
    at_the_clamps,
    deviations,
    log_summary,
    read_generator_log,
)
from thermosim.simulation_result import Traces


def write(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text)
    return path


def test_columns_units_and_times(tmp_path: Path) -> None:
    text = "# exported\nTime_s;Power_W; Current_mA;impedance_Ohm\n0;10;250;\n1:05.5;20;;90\n1:00:00;5;1;80\n"
    log = read_generator_log(write(tmp_path, text))
    assert log.time.tolist() == [0.0, 65.5, 3600.0]
    assert log.readings["power_w"].tolist() == [10.0, 20.0, 5.0]
    assert log.readings["current_a"] == pytest.approx([0.25, np.nan, 0.001], nan_ok=True)
    assert log.readings["impedance_ohm"] == pytest.approx([np.nan, 90.0, 80.0], nan_ok=True)
    log = read_generator_log(write(tmp_path, "time_min,temperature_C\n0,37\n0.5,50\n2:00,60\n"))
    assert log.time.tolist() == [0.0, 30.0, 120.0]  # with a colon it is minutes and seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("power_W\n1\n", "0 columns of time"),
        ("time,time_s,power_W\n1,1,1\n", "2 columns of time"),
        ("time\n1\n", "no reading"),
        ("time,powr\n1,1\n", "column 'powr' is not known"),
        ("time,power_W,power_kW\n1,1,1\n", "a quantity twice"),
        ("time,power_W\n", "no readings"),
        ("time,power_W\n0,1\n1,2,3\n", "line 3 has 3 fields, the header 2"),
        ("time,power_W\n0,1\n\n# note\nnow,2\n", "line 5: 'now' is no time"),
        ("time,power_W\n1:75,2\n", "line 2: '1:75' is no time"),
        ("time,power_W\n-1,2\n", "line 2: '-1' is no time"),
        ("time,power_W\ninf,2\n", "line 2: 'inf' is no time"),
        ("time,power_W\n5,1\n5,2\n", "line 3: its time 5 is not after"),
        ("time,power_W\n0,12 W\n", "line 2: '12 W' under power_w is no number"),
        ("time,power_W\n0,nan\n", "line 2: nan under power_w is out of range"),
        ("time,power_W\n0,-3\n", "out of range"),
        ("time,temperature_C\n0,900\n", "out of range"),
    ],
)
def test_what_is_no_log_is_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        read_generator_log(write(tmp_path, text))
    assert str(tmp_path) not in str(error.value)  # no folder in what may be shown to others
    assert "\n" not in str(error.value)


def test_missing_binary_and_large_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv cannot be read: No such file"):
        read_generator_log(tmp_path / "gone.csv")
    path = tmp_path / "log.csv"
    path.write_bytes(b"time,power_W\n\xff\xfe\x00\n")
    with pytest.raises(InputError, match="no UTF-8 text"):
        read_generator_log(path)
    with path.open("wb") as file:
        file.truncate(20_000_001)
    with pytest.raises(InputError, match="at most 20 MB"):
        read_generator_log(path)
    rows = "\n".join(f"{n},1" for n in range(MOST_ROWS + 1))
    with pytest.raises(InputError, match=f"at most {MOST_ROWS} are read"):
        read_generator_log(write(tmp_path, f"time,power_W\n{rows}\n"))


def traces() -> Traces:
    """20 W into 80 Ω for 20 s (16 W arrive), 10 s off; a sensor that warms by 1 K/s and one at rest."""
    time = np.array([0.0, 10.0, 20.0, 30.0])
    power = np.array([20.0, 20.0, 0.0, 0.0])
    impedance = np.array([80.0, 80.0, np.nan, np.nan])
    none = np.zeros((4, 1))
    sensors = np.stack([37.0 + time, np.full(4, 37.0)], axis=1)
    return Traces(
        *(time, none, none, none, impedance, 0.8 * power, 37.0 + time, time, time),
        sensor_temperature=sensors,
        generator_power=power,
    )


def test_readings_at_the_clamps() -> None:
    found = at_the_clamps(traces(), "highest")
    assert found["voltage_v"] == pytest.approx([40.0, 40.0, 0.0, 0.0])
    assert found["current_a"] == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert found["temperature_c"].tolist() == [37.0, 47.0, 57.0, 67.0]
    assert at_the_clamps(traces(), "lowest")["temperature_c"].tolist() == [37.0] * 4


def test_deviations_count_each_reading_for_its_time(tmp_path: Path) -> None:
    # 16 W for the first 19 s or so, right afterwards; readings after the run do not count
    rows = ("0,16,70,", "10,16,70,42", "18,16,70,46", "20,0,,47", "28,0,500,51", "50,9,9,9")
    text = "\n".join(("time_s,power_W,impedance_Ohm,temperature_C", *rows))
    log = read_generator_log(write(tmp_path, text))
    found = deviations(log, traces())
    # each reading stands for 5, 9, 5, 5, 15 s: 4 W too much over 19 of 39 s
    assert found["power_w"].mean == pytest.approx(4.0 * 19.0 / 39.0)
    assert found["power_w"].rms == pytest.approx(np.sqrt(16.0 * 19.0 / 39.0))
    assert found["power_w"].n_readings == 5
    # off from 20 s on, where no impedance can be compared
    assert (found["impedance_ohm"].mean, found["impedance_ohm"].n_readings) == (pytest.approx(10.0), 3)
    # the mean of both sensors warms by half a kelvin per second, as was logged
    assert found["temperature_c"].rms == pytest.approx(0.0, abs=1e-12)
    summary = log_summary(log, traces(), "mean")
    assert summary is not None
    assert summary["last_reading_s"] == 50.0
    assert log_summary(None, traces(), "mean") is None


def test_a_log_of_another_time_has_no_deviation(tmp_path: Path) -> None:
    log = read_generator_log(write(tmp_path, "time_s,power_W\n100,1\n200,1\n"))
    assert deviations(log, traces())["power_w"].n_readings == 0
    assert np.isnan(deviations(log, traces())["power_w"].mean)
