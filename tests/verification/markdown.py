"""The verification document as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from verification.sections import Claim, Section

if TYPE_CHECKING:
    from verification.document import Outcome

HEAD = """# Verification

**Does the program solve its equations?** Every section solves a problem whose answer is known by other
means, and states its claims with the limits they are judged by. Whether the equations describe a patient is
another question: validation.

Written by `make verification` (`tests/verification/document.py`); never edited by hand. A claim holds or
fails by the figures of the run below, not by anyone's judgement; the command ends with an error if one fails.
"""


def number(value: float) -> str:
    """Four significant digits; integers as they are."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """A Markdown table; numbers stand to the right."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(columns)} columns")
    numeric = [bool(rows) and all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---:" if n else "---" for n in numeric) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(c if isinstance(c, str) else number(c) for c in row) + " |")
    return "\n".join(lines)


def claims_table(claims: Sequence[Claim]) -> str:
    """What was promised, what was found."""
    rows = [
        (
            c.what,
            number(c.value),
            f"{'≤' if c.sense == 'at most' else '≥'} {number(c.limit)}",
            c.unit,
            verdict(c),
        )
        for c in claims
    ]
    return table(("claim", "found", "limit", "unit", ""), rows)


def verdict(claim: Claim) -> str:
    return "held" if claim.passed else "**FAILED**"


def section_text(outcome: Outcome, number_of: int, pictures: set[str]) -> str:
    """One section with its tables and its plot."""
    parts = [f"## {number_of}. {outcome.title}"]
    if outcome.section is None:
        parts.append(f"**{outcome.state.capitalize()}**: {outcome.message}.")
        return "\n\n".join(parts)
    section: Section = outcome.section
    if not outcome.is_current:
        parts.append(f"*Found on {outcome.date} with an older state of the code ({outcome.code}).*")
    parts.append(section.text.strip())
    if section.columns:
        parts.append(table(section.columns, section.rows))
    name = f"verification_{section.key}.png"
    if name in pictures:
        parts.append(f"![{section.title}](images/{name})")
    if section.claims:
        parts.append(claims_table(section.claims))
    parts.append(f"`{outcome.key}`, {outcome.seconds:.0f} s, code {outcome.code}")
    return "\n\n".join(parts)


def document_text(outcomes: Sequence[Outcome], facts: dict[str, str], pictures: set[str]) -> str:
    """The whole document."""
    overview = []
    for place, o in enumerate(outcomes, 1):
        claims = len(o.section.claims) if o.section else 0
        held = claims - len(o.failed_claims)
        state = (f"{held} of {claims} claims held" if claims else "informs") if o.state == "done" else o.state
        overview.append((str(place), o.title, state if not o.is_bad else f"**{state}**"))
    parts = [
        HEAD.strip(),
        "## The run",
        table(("", ""), list(facts.items())),
        table(("", "section", "result"), overview),
    ]
    old = [o.title for o in outcomes if not o.is_current]
    if old:
        parts.append(f"**Of an older state of the code**: {', '.join(old)}. `make verification` renews them.")
    parts += [section_text(o, place, pictures) for place, o in enumerate(outcomes, 1)]
    return "\n\n".join(parts) + "\n"
