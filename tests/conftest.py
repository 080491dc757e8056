"""What tests share: things that lie beside the checkout, the CUDA compiler, the GPU or its interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_path import gpu_path as gpu_path

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the folder {name!r} of real data is not beside this checkout ({folder})")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real anatomy and files that nobody here wrote."""
    return _folder("data")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Independent reference solutions."""
    return _folder("reference")


@pytest.fixture(scope="session")
def nvrtc() -> None:
    """The CUDA compiler, which needs no GPU."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception as error:  # the library behind the bindings may be missing, too
        pytest.skip(f"NVRTC cannot be loaded (extra 'test'): {str(error).splitlines()[0]}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--gpu`: what is marked `gpu` runs on the GPU of this machine instead of in the interpreter."""
    parser.addoption("--gpu", action="store_true", help="run tests marked gpu on this machine's GPU")


def pytest_sessionstart(session: pytest.Session) -> None:
    """With `--gpu` and no GPU: say what is missing and stop."""
    if session.config.getoption("--gpu"):
        from thermosim.backends import cuda

        if reason := cuda.missing():
            pytest.exit(f"no test was run on a GPU: {reason}; `thermosim doctor` says more", returncode=2)
