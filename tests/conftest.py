"""Where tests find things that lie beside the checkout, and say so when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

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
