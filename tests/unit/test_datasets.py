"""Fetching and finding the public data set; the network is never used."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from thermosim.anatomy import datasets
from thermosim.anatomy.datasets import DATASETS, SCIKIT_LIVER, fetch, locate
from thermosim.errors import InputError


@pytest.fixture
def small_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of two files in a folder that plays the server."""
    server = tmp_path / "server"
    server.mkdir()
    files = {"a.vtk": b"first", "b.vtk": b"second"}
    for name, content in files.items():
        (server / name).write_bytes(content)
    copied: list[str] = []

    def copy(url: str, output_file: str, _: object) -> None:
        copied.append(url)
        Path(output_file).write_bytes((server / url.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr(datasets.pooch, "HTTPDownloader", lambda **_: copy)
    dataset = replace(
        SCIKIT_LIVER,
        name="small",
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    monkeypatch.setitem(DATASETS, "small", dataset)
    monkeypatch.setattr(datasets, "_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("THERMOSIM_DATA", raising=False)
    return server


def test_fetch_puts_all_files_and_says_whom_to_thank(small_dataset: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = fetch("small", tmp_path / "here", say=said.append)
    assert sorted(p.name for p in folder.iterdir()) == ["a.vtk", "b.vtk"]
    assert (folder / "b.vtk").read_bytes() == b"second"
    assert "University College London" in said[0]
    assert "BSD-3-Clause" in said[0]


def test_fetch_refuses_a_file_with_another_hash(small_dataset: Path, tmp_path: Path) -> None:
    (small_dataset / "b.vtk").write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"b\.vtk is not the file expected"):
        fetch("small", tmp_path / "here", say=lambda _: None)
    assert not (tmp_path / "here" / "b.vtk").exists()


def test_fetch_says_what_to_do_without_network(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets.pooch, "HTTPDownloader", lambda **_: fail)
    with pytest.raises(InputError, match="THERMOSIM_DATA"):
        fetch("small", tmp_path / "here", say=lambda _: None)


def test_locate_finds_cache_and_environment(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"thermosim fetch small.*THERMOSIM_DATA"):
        locate("small")
    cached = fetch("small", say=lambda _: None)
    assert locate("small") == cached
    for parent, folder in (
        (small_dataset, small_dataset),
        (tmp_path / "p", tmp_path / "p" / "small"),
        (tmp_path / "q", tmp_path / "q" / "geometry" / "small"),
    ):
        fetch("small", folder, say=lambda _: None)
        monkeypatch.setenv("THERMOSIM_DATA", str(parent))
        assert locate("small") == folder


def test_unknown_data_set_is_refused() -> None:
    with pytest.raises(InputError, match="known are scikit_liver"):
        fetch("nonsense")


def test_hashes_are_those_of_the_real_files(data_dir: Path) -> None:
    folder = data_dir / "geometry" / "scikit_liver"
    for name, digest in SCIKIT_LIVER.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
