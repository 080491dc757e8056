"""The wheel: what is in it, and that it runs from an empty directory without this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import thermosim

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str | Path, cwd: Path, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed, without this checkout on Python's path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(w) for w in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_version_stands_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == thermosim.__version__


def test_the_extras_are_those_of_the_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cuda12", "cuda13", "test"} <= set(project["optional-dependencies"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.packaging
def test_the_wheel_is_pure_and_has_no_other_top_level_package(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"thermosim", f"thermosim-{thermosim.__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.packaging
@pytest.mark.parametrize("folder", ["benchmarks", "configs", "kernels", "thermosim"])
def test_the_wheel_holds_every_file_of(folder, wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    prefix = "" if folder == "thermosim" else "thermosim/"
    sources = [
        p
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and p.suffix in (".yaml", ".py", ".h", ".cu", ".cpp", ".css", ".js")
    ]
    assert sources
    missing = [p for p in sources if f"{prefix}{p.relative_to(ROOT).as_posix()}" not in inside]
    assert missing == []


@pytest.mark.packaging
def test_an_installed_wheel_simulates_from_an_empty_directory(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    run(
        scripts / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        wheel,
        cwd=tmp_path,
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    run(scripts / "thermosim", "doctor", cwd=empty)
    done = run(scripts / "thermosim", "simulate", "experiment=quick", "output.directory=run", cwd=empty)
    assert "minimal ablative margin" in done.stdout
    assert [path.name for path in empty.iterdir()] == ["run"]
    assert (empty / "run" / "summary.json").stat().st_size > 0
    assert (empty / "run" / "report.html").stat().st_size > 0
    assert str(tmp_path) not in (empty / "run" / "summary.json").read_text()
