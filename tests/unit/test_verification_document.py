"""The verification document says what its sections found, and fails when a claim does."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from verification import document, sections
from verification.document import cached, run_section, write
from verification.markdown import number, table
from verification.sections import Claim, NotRun, Registered, Section, discover

from thermosim.backends import select
from thermosim.backends.base import Backend


def found(value: float = 0.5) -> Section:
    def figure(figure: Figure) -> None:
        figure.subplots().plot([0.0, 1.0], [0.0, value])

    claims = (Claim("error", value, 1.0, "K"), Claim("order", 2.0, 1.8, "", "at least"))
    return Section("some", "Some title", "Some text.", ("h", "error"), [(1.0, value)], figure, claims)


def registered(value: float = 0.5) -> Registered:
    def run(_backend: Backend) -> Section:
        return found(value)

    run.__module__ = __name__
    return Registered("some", "Some title", 1.0, run)


def failing(error: Exception) -> Registered:
    def run(_backend: Backend) -> Section:
        raise error

    run.__module__ = __name__
    return Registered("some", "Some title", 1.0, run)


@pytest.fixture
def backend() -> Backend:
    return select("cpu", 1)


@pytest.mark.parametrize(
    ("value", "limit", "sense", "passed"),
    [
        (1.0, 1.0, "at most", True),
        (1.1, 1.0, "at most", False),
        (1.1, 1.0, "at least", True),
        (0.9, 1.0, "at least", False),
        (math.nan, 1.0, "at most", False),
        (-math.inf, 1.0, "at most", False),
        (math.inf, 1.0, "at least", False),
    ],
)
def test_a_claim_holds_by_its_figures(value: float, limit: float, sense: str, passed: bool) -> None:
    assert Claim("x", value, limit, "mm", sense).passed is passed  # type: ignore[arg-type]


def test_every_section_is_found_once_and_in_order() -> None:
    known = discover()
    keys = [section.key for section in known]
    assert len(keys) == len(set(keys)) >= 12
    assert [s.order for s in known] == sorted(s.order for s in known)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys)


def test_a_key_belongs_to_one_module() -> None:
    discover()
    with pytest.raises(ValueError, match="two sections are called 'slab'"):
        sections.section("slab", "Another", 1.0)(registered().run)


def test_a_section_is_kept_and_found_again(tmp_path: Path, backend: Backend) -> None:
    outcome = run_section(registered(), backend, tmp_path)
    assert outcome.state == "done"
    assert not outcome.is_bad
    again = cached(registered(), tmp_path)
    assert again is not None
    assert again.is_current
    assert again.section is not None
    assert again.section.claims == list(found().claims)
    stored = json.loads((tmp_path / "some.json").read_text())
    (tmp_path / "some.json").write_text(json.dumps(stored | {"code": "another"}))
    older = cached(registered(), tmp_path)
    assert older is not None
    assert not older.is_current


def test_the_document_shows_tables_plot_and_verdicts(tmp_path: Path, backend: Backend) -> None:
    cache, target = tmp_path / "cache", tmp_path / "verification.md"
    gone = tmp_path / "images" / "verification_gone.png"
    gone.parent.mkdir()
    gone.write_bytes(b"")
    outcome = run_section(registered(3.0), backend, cache)
    write([outcome], {"date": "today"}, target, cache)
    text = target.read_text()
    assert "| error | 3 | ≤ 1 | K | **FAILED** |" in text
    assert "| order | 2 | ≥ 1.8 |  | held |" in text
    assert "**1 of 2 claims held**" in text
    assert "![Some title](images/verification_some.png)" in text
    assert (tmp_path / "images" / "verification_some.png").stat().st_size > 1000
    assert not gone.exists()
    assert outcome.is_bad


def test_what_cannot_be_run_is_no_failure_and_what_breaks_is(tmp_path: Path, backend: Backend) -> None:
    missing = run_section(failing(NotRun("the folder is not there")), backend, tmp_path)
    broken = run_section(failing(ValueError("a defect")), backend, tmp_path)
    assert (missing.state, missing.is_bad) == ("not run", False)
    assert (broken.state, broken.is_bad) == ("broken", True)
    write([missing, broken], {}, tmp_path / "verification.md", tmp_path)
    text = (tmp_path / "verification.md").read_text()
    assert "**Not run**: the folder is not there." in text
    assert "**Broken**: ValueError: a defect." in text
    assert cached(registered(), tmp_path) is None


@pytest.mark.parametrize(("value", "status"), [(0.5, 0), (2.0, 1)])
def test_the_command_fails_when_a_claim_does(
    value: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "discover", lambda: [registered(value)])
    monkeypatch.setattr(document, "CACHE", tmp_path)
    words = ["--threads", "1", "--document", str(tmp_path / "verification.md")]
    assert document.main(words) == status
    assert document.main([*words, "--only", "nothing"]) == 2


def test_the_digest_follows_the_code(tmp_path: Path) -> None:
    module = tmp_path / "section_of_mine.py"
    module.write_text("a = 1\n")
    first = document.code_digest(module)
    assert document.code_digest(module) == first
    module.write_text("a = 2\n")
    assert document.code_digest(module) != first


def test_tables_refuse_rows_of_another_length() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        table(("a", "b"), [("x",)])
    assert [number(v) for v in (3.0, 0.12345, 1e-7, math.nan)] == ["3", "0.1235", "1e-07", "–"]
