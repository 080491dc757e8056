"""What a section of the verification document is, and how it gets into it.

A module `section_*.py` of this folder holds functions marked with `section`; each is called with a backend
and returns a `Section`. `document.py` finds, runs and writes them.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from thermosim.backends.base import Backend

FOLDER = Path(__file__).resolve().parent
SHARED = FOLDER.parents[2] / "shared"
"""Reference solutions and real data beside the checkout, where they are there."""


class NotRun(Exception):
    """A section that cannot be computed here; the message says what is missing."""


@dataclass(frozen=True)
class Claim:
    """One promise with the figure that keeps or breaks it: `value` is at most (or at least) `limit`."""

    what: str
    value: float
    limit: float
    unit: str = ""
    sense: Literal["at most", "at least"] = "at most"

    @property
    def passed(self) -> bool:
        """Computed, never given; a value that is not a number keeps no promise."""
        if not math.isfinite(self.value):
            return False
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


@dataclass(frozen=True)
class Section:
    """One section: words, a table, a plot and the claims that are judged by it.

    Parameters
    ----------
    key : short name for `--only` and for the plot's file. title : heading.
    text : Markdown: the problem solved, the exact solution and its source, why the limits are what they are.
    columns, rows : the table; cells are text or numbers (shown to four digits).
    figure : draws on the empty figure it is given, with units on every axis; None for no plot.
    claims : what is promised. An empty list makes a section that only informs.
    """

    key: str
    title: str
    text: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str | float]] = ()
    figure: Callable[[Figure], None] | None = None
    claims: Sequence[Claim] = field(default_factory=tuple)


@dataclass(frozen=True)
class Registered:
    """A section before it is run; `order` is its place in the document."""

    key: str
    title: str
    order: float
    run: Callable[[Backend], Section]


REGISTRY: dict[str, Registered] = {}


def section(
    key: str, title: str, order: float
) -> Callable[[Callable[[Backend], Section]], Callable[[Backend], Section]]:
    """Mark a function as a section. `order`: 10 closed forms, 20 orders, 30 references, 40 energy, ..."""

    def register(run: Callable[[Backend], Section]) -> Callable[[Backend], Section]:
        # by file, not by module: a test runner may import one file under two names
        if key in REGISTRY and REGISTRY[key].run.__code__.co_filename != run.__code__.co_filename:
            raise ValueError(f"two sections are called {key!r}")
        REGISTRY[key] = Registered(key, title, order, run)
        return run

    return register


def discover() -> list[Registered]:
    """All sections of all `section_*.py` beside this file, in the document's order."""
    for path in sorted(FOLDER.glob("section_*.py")):
        importlib.import_module(f"verification.{path.stem}")
    return sorted(REGISTRY.values(), key=lambda found: (found.order, found.key))


def shared_folder(name: str) -> Path:
    """A folder beside the checkout.

    Raises
    ------
    NotRun
        When it is not there.
    """
    folder = SHARED / name
    if not folder.is_dir():
        raise NotRun(f"the folder `shared/{name}` is not beside this checkout")
    return folder


def plain(item: Section) -> dict[str, Any]:
    """Everything but the plot, as JSON can keep it."""
    return {
        "key": item.key,
        "title": item.title,
        "text": item.text,
        "columns": list(item.columns),
        "rows": [[cell if isinstance(cell, str) else float(cell) for cell in row] for row in item.rows],
        "claims": [
            {
                "what": c.what,
                "value": float(c.value),
                "limit": float(c.limit),
                "unit": c.unit,
                "sense": c.sense,
            }
            for c in item.claims
        ],
    }


def from_plain(stored: dict[str, Any]) -> Section:
    """The section that `plain` kept, without its plot."""
    claims = [Claim(**claim) for claim in stored["claims"]]
    return Section(
        **{**{k: stored[k] for k in ("key", "title", "text", "columns", "rows")}, "claims": claims}
    )
