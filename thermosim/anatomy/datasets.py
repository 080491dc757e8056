"""Public anatomies: fetched once, checked by their hashes, found again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch

from thermosim.errors import InputError

ENVIRONMENT = "THERMOSIM_DATA"


@dataclass(frozen=True)
class Dataset:
    """A public data set: where its files lie, their SHA-256, and whom to thank."""

    name: str
    base_url: str
    files: dict[str, str]
    attribution: str


SCIKIT_LIVER = Dataset(
    name="scikit_liver",
    base_url=(
        "https://raw.githubusercontent.com/SciKit-Surgery/scikit-surgeryvtk/"
        "756bb9f83df23ce27561faab216f2481f0315161/tests/data/models/Liver/"
    ),
    files={
        "arteries.vtk": "91b6ab7abeecdcef1c9748c89c562a1f1d23ea16161fa0c4252d25b3aebbbf4e",
        "biliary_tract.vtk": "0ade6535f486045e9b0f89ba98ce123b588e03fd90c70c2b845ba7f17992d8ee",
        "gallbladder.vtk": "afa9f58462c0b72c9aef17106e602e8be7a3215c4754a048809ec79e31cf0fa2",
        "gastric_vein.vtk": "d0422cb007065b95bb139ec75c3cd855c00c55875edf372a9cafa6e8e4b09c6d",
        "hepatic_veins.vtk": "981a64cd2ba322a2364ba0ecce6edf83e7c892ff298a135e82ef8e7596a14777",
        "liver.vtk": "05a0191ba9b60b37299e789301757261bd0f2f0e686bfe37e798f62316efe450",
        "liver_cysts.vtk": "2e417978adab488b123b1f43096f477d00e093c8c4257ba5bd0fae1581ea8c6a",
        "liver_tumours.vtk": "05dad9bc93fc7725608257600c968cf8269506fa646819bb19de3dac9d74a824",
        "portal_vein.vtk": "da65256f525b8ffba498c4aaf727a7b9101f7ec4d1bb1f8c58123e4873764750",
    },
    attribution=(
        "Liver model from SciKit-Surgery/scikit-surgeryvtk (tests/data/models/Liver, commit 756bb9f8).\n"
        "Copyright (c) 2018, University College London. BSD-3-Clause licence: keep this notice with copies."
    ),
)

DATASETS = {SCIKIT_LIVER.name: SCIKIT_LIVER}


def fetch(name: str, destination: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Download a data set file by file and check each one's SHA-256.

    Parameters
    ----------
    name : of the data set. destination : folder to put the files in; None: the cache.
    say : where the attribution goes.

    Returns
    -------
    The folder that holds the files.

    Raises
    ------
    InputError : unknown name, no network, or a file that is not the one expected.
    """
    dataset = _known(name)
    folder = Path(destination).expanduser() if destination is not None else _cache(name)
    downloader = pooch.HTTPDownloader(timeout=60, progressbar=False)
    for file, digest in dataset.files.items():
        address = dataset.base_url + file
        try:
            pooch.retrieve(
                address,
                known_hash=f"sha256:{digest}",
                fname=file,
                path=folder,
                downloader=downloader if address.startswith("http") else None,
            )
        except ValueError as error:
            raise InputError(
                f"{name}: {file} is not the file expected (its SHA-256 differs); remove it and fetch again"
            ) from error
        except OSError as error:
            raise InputError(
                f"{name}: {file} could not be fetched ({type(error).__name__}); check the network, or put "
                f"the files in a folder and set {ENVIRONMENT} to it"
            ) from error
    say(dataset.attribution)
    return folder


def locate(name: str) -> Path:
    """Folder of a data set: THERMOSIM_DATA or the cache; nothing is downloaded.

    THERMOSIM_DATA may be the folder itself or a parent holding ``<name>/`` or ``geometry/<name>/``.

    Raises
    ------
    InputError : unknown name, or not there; says how to get it.
    """
    dataset = _known(name)
    folders = []
    if parent := os.environ.get(ENVIRONMENT):
        root = Path(parent).expanduser()
        folders = [root, root / name, root / "geometry" / name]
    for folder in [*folders, _cache(name)]:
        if all((folder / file).is_file() for file in dataset.files):
            return folder
    raise InputError(
        f"data set {name!r} is not on this machine; run `thermosim fetch {name}` or set {ENVIRONMENT}"
    )


def _known(name: str) -> Dataset:
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]


def _cache(name: str) -> Path:
    return Path(pooch.os_cache("thermosim")) / name
