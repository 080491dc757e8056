"""The command line: exit codes, one line per error, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from omegaconf.errors import ConfigKeyError

from thermosim import __version__, build, cli
from thermosim.backends.cuda import missing
from thermosim.commands import simulate, sweep
from thermosim.errors import InputError, Interrupted, NumericalError


def command(capfd, *words):
    code = cli.main(list(words))
    out, err = capfd.readouterr()
    return code, out, err


def refused(capfd, *words):
    """The single line on stderr of a refused command."""
    code, _, err = command(capfd, *words)
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("thermosim: error: ")
    return lines[0]


def simulate_code(*words):
    """Exit code of `simulate`, whether Hydra leaves by SystemExit or by returning."""
    try:
        return cli.main(["simulate", *words])
    except SystemExit as stop:
        return stop.code


def test_help_lists_the_subcommands(capfd):
    code, out, _ = command(capfd, "--help")
    assert code == 0
    for name in ("simulate", "fetch", "doctor"):
        assert f"thermosim {name}" in out


def test_version(capfd):
    assert command(capfd, "--version") == (0, f"thermosim {__version__}\n", "")


def test_unknown_subcommand_names_the_known_ones(capfd):
    said = refused(capfd, "simulat")
    assert all(name in said for name in ("simulate", "check", "fetch", "doctor"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["grid.spacing_mm=wide"], "grid.spacing_mm"),
        (["grid.spacin=1"], "spacin"),
        (["vessels=warm"], "isothermal"),
        (["resume=nowhere"], "nowhere"),
        (["resume=.", "grid.spacing_mm=1"], "no other settings"),
        (["anatomy.seed=["], "anatomy.seed"),
        (["vessels=null"], "vessels=null: a group needs one of its options"),
    ],
)
def test_composition_errors_are_one_line(capfd, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(capfd, "simulate", *words)
    assert list(tmp_path.iterdir()) == []


def test_doctor_refuses_flags(capfd):
    assert "--fast" in refused(capfd, "doctor", "--fast")


def test_a_bad_value_is_one_line_and_leaves_no_directory(capfd, tmp_path):
    code = simulate_code("grid.spacing_mm=-1", f"output.directory={tmp_path / 'run'}")
    _, err = capfd.readouterr()
    assert code == 2
    assert err.strip().splitlines() == [
        "thermosim: error: grid.spacing_mm=-1 mm is refused; it must be positive and at most 20 mm"
    ]
    assert not (tmp_path / "run").exists()


def test_a_sweep_reports_each_bad_job_and_fails(capfd, tmp_path):
    code = simulate_code("--multirun", "grid.spacing_mm=-1,-2", f"output.directory={tmp_path}")
    _, err = capfd.readouterr()
    assert code == 2
    assert [line[:38] for line in err.strip().splitlines()] == [
        "thermosim: error: job 0: grid.spacing_",
        "thermosim: error: job 1: grid.spacing_",
    ]


def test_cfg_prints_the_composed_case(capfd):
    code, out, err = command(capfd, "simulate", "--cfg", "job", "grid.spacing_mm=3")
    assert (code, err) == (0, "")
    assert "spacing_mm: 3.0" in out
    assert "kind: phantom" in out


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (NumericalError("temperature is not finite after 3 s"), 3, "what exists is kept in"),
        (Interrupted("stopped after 60 s"), 130, "thermosim simulate resume="),
        (ZeroDivisionError("division by zero"), 1, "please report it"),
        (MemoryError(), 2, "grid.spacing_mm"),
    ],
)
def test_failures_during_a_run_have_their_exit_codes(capfd, tmp_path, monkeypatch, error, code, expected):
    def fail(case, **options):
        raise error

    monkeypatch.setattr(build, "simulate", fail)
    monkeypatch.delenv("THERMOSIM_DEBUG", raising=False)
    assert simulate_code(f"output.directory={tmp_path / 'run'}") == code
    _, err = capfd.readouterr()
    assert len(err.strip().splitlines()) == 1
    assert expected in err


class _Unwritten:
    """A result whose outputs the user does not wait for."""

    def save(self, directory):
        raise KeyboardInterrupt


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_stopping_while_outputs_are_written_says_how_to_go_on(capfd, tmp_path, monkeypatch, has_checkpoint):
    run = tmp_path / "run"

    def simulate(case, directory, **options):
        (directory / build.RESUME_FILE).write_text("title: x")
        if has_checkpoint:
            (directory / build.CHECKPOINT_FILE).write_text("fields")
        return _Unwritten()

    monkeypatch.setattr(build, "simulate", simulate)
    assert simulate_code(f"output.directory={run}") == 130
    _, err = capfd.readouterr()
    assert len(err.strip().splitlines()) == 1
    assert (f"resume={run}" in err) == has_checkpoint
    # what a resumed run needs stays, and nothing pretends to be resumable that is not
    assert (run / build.CHECKPOINT_FILE).exists() == (run / build.RESUME_FILE).exists() == has_checkpoint


def test_an_output_directory_that_is_a_file_is_refused_in_one_line(capfd, tmp_path):
    file = tmp_path / "taken"
    file.write_text("")
    assert "output.directory" in refused(capfd, "simulate", f"output.directory={file}")


def one_at_a_time(monkeypatch, run):
    """Jobs of a sweep go through `run`, in this process."""
    monkeypatch.setattr(sweep, "plan_of", lambda cases: sweep.Plan(1, 1, 1))
    monkeypatch.setattr(sweep, "_run", run)


def test_a_sweep_runs_each_job_in_its_own_numbered_directory(capfd, tmp_path, monkeypatch):
    seen = []

    def record(case, directory, **options):
        seen.append((directory, case.config.grid.spacing_mm))

    one_at_a_time(monkeypatch, record)
    assert simulate_code("--multirun", "grid.spacing_mm=1,2", f"output.directory={tmp_path}") == 0
    assert seen == [(tmp_path / "0", 1.0), (tmp_path / "1", 2.0)]


def test_flags_may_stand_anywhere(capfd, tmp_path, monkeypatch):
    seen = []
    one_at_a_time(monkeypatch, lambda case, directory, **options: seen.append(case.config))
    assert (
        simulate_code("vessels=ignored", "--multirun", "grid.spacing_mm=1,2", f"output.directory={tmp_path}")
        == 0
    )
    assert [(one.vessels.model, one.grid.spacing_mm) for one in seen] == [("ignored", 1.0), ("ignored", 2.0)]


def test_an_unknown_flag_is_one_line(capfd):
    assert simulate_code("grid.spacing_mm=2", "--fast") == 2
    _, err = capfd.readouterr()
    assert err.strip().splitlines() == ["thermosim simulate: error: unrecognized arguments: --fast"]


def test_a_sweep_without_a_directory_goes_to_multirun(capfd, tmp_path, monkeypatch):
    seen = []
    monkeypatch.chdir(tmp_path)
    one_at_a_time(monkeypatch, lambda case, directory, **options: seen.append(directory))
    assert simulate_code("-m", "grid.spacing_mm=1,2") == 0
    assert {path.relative_to(tmp_path).parts[0] for path in seen} == {"multirun"}
    assert len({path.parent for path in seen}) == 1


def test_a_run_without_a_directory_goes_to_outputs(capfd, tmp_path, monkeypatch):
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(simulate, "_run", lambda case, directory, **options: seen.append(directory))
    assert simulate_code() == 0
    assert seen[0].relative_to(tmp_path).parts[0] == "outputs"


def test_starting_up_does_not_import_what_only_a_report_needs():
    script = (
        "import sys, thermosim.cli, thermosim.build, thermosim; "
        "sys.exit(', '.join(m for m in ('pyvista', 'vtk', 'matplotlib', 'nibabel', 'SimpleITK', 'cupy')"
        " if m in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ.copy(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"imported at start: {done.stderr}"


def test_ctrl_c_that_comes_out_as_an_error_of_composition_is_still_ctrl_c(capfd, monkeypatch):
    """Clean-up in OmegaConf may fail while a KeyboardInterrupt passes through it."""

    def interrupted(words):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise InputError("") from AttributeError("no attribute '_invalidate_flags_cache'")

    monkeypatch.setattr(cli, "_study", interrupted)
    code, _, err = command(capfd, "study")
    assert code == 130
    assert err == "thermosim: stopped\n"


def test_an_error_of_composition_without_words_is_still_one_line(capfd, monkeypatch):
    def wordless(words):
        raise ConfigKeyError("")

    monkeypatch.setattr(cli, "_study", wordless)
    refused(capfd, "study")


def test_whoever_reads_may_stop_listening():
    """As with `thermosim --help | head -0`."""
    words = [sys.executable, "-m", "thermosim", "simulate", "--cfg", "job"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_benchmarks_refuse_a_missing_gpu_in_one_line(capfd):
    if missing() is None:
        pytest.skip("there is a GPU")
    refused(capfd, "bench", "triad", "backend=cuda")
