"""What a rule found, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from thermosim.anatomy.grid import Vector
from thermosim.config_check import LimitConfig
from thermosim.errors import InputError

Verdict = Literal["pass", "warn", "fail", "not judged"]
Side = Literal["at most", "at least"]

SEVERITY: tuple[Verdict, ...] = ("not judged", "pass", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """One rule on one subject.

    Parameters
    ----------
    subject : the needle, pair, tumour or plan it is about.
    value : what was found, in the rule's unit; None where nothing could be judged.
    sentence : in words.
    places : where to look [m, LPS].
    lacks : whether nothing could be judged because the anatomy lacks what it takes; else the rule does not
        apply to this plan.
    """

    subject: str
    verdict: Verdict
    value: float | None
    sentence: str
    places: tuple[Vector, ...] = ()
    lacks: bool = False


@dataclass(frozen=True)
class RuleResult:
    """One rule with its limits and all it found, the worst first.

    `key` in the configuration, `title` for people, `side`: whether the limits are at most or at least.
    """

    key: str
    title: str
    unit: str
    side: Side
    warn: float | None
    fail: float | None
    source: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        return worst(finding.verdict for finding in self.findings)

    @property
    def lacks(self) -> bool:
        """Whether some of it could not be judged for want of anatomy."""
        return any(finding.lacks for finding in self.findings)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of some verdicts; what could not be judged never hides one that could.

    Examples
    --------
    >>> worst(["pass", "not judged", "warn"]), worst(["not judged"]), worst([])
    ('warn', 'not judged', 'not judged')
    """
    return max(verdicts, key=SEVERITY.index, default="not judged")


def judge(value: float, side: Side, warn: float | None, fail: float | None) -> Verdict:
    """Whether a value keeps its limits; a value that lies on a limit keeps it.

    Examples
    --------
    >>> judge(3.0, "at most", 3.0, 6.0), judge(3.1, "at most", 3.0, 6.0), judge(0.4, "at least", 5.0, 0.5)
    ('pass', 'warn', 'fail')
    """
    for verdict, limit in (("fail", fail), ("warn", warn)):
        if limit is not None and (value > limit if side == "at most" else value < limit):
            return verdict  # type: ignore[return-value]
    return "pass"


class Rule:
    """Collects the findings of one rule.

    Raises
    ------
    InputError : limits that are not finite, or a failing limit that is milder than the warning one.
    """

    def __init__(self, key: str, title: str, unit: str, side: Side, limit: LimitConfig) -> None:
        self.key, self.title, self.unit, self.side, self.limit = key, title, unit, side, limit
        self.findings: list[Finding] = []
        check_limit(key, limit.warn, limit.fail, side)

    def judge(
        self, subject: str, value: float, sentence: str, places: Iterable[Iterable[float]] = ()
    ) -> None:
        """Judge a value; places are kept of what does not pass."""
        value = float(value)
        verdict = judge(value, self.side, self.limit.warn, self.limit.fail)
        kept = () if verdict == "pass" else tuple((float(x), float(y), float(z)) for x, y, z in places)
        self.findings.append(Finding(subject, verdict, value, sentence, kept))

    def leave(self, subject: str, reason: str, lacks: bool = False) -> None:
        """Say why nothing can be judged; `lacks`: what it takes is missing from the anatomy."""
        self.findings.append(Finding(subject, "not judged", None, reason, lacks=lacks))

    def result(self) -> RuleResult:
        sign = -1.0 if self.side == "at most" else 1.0
        order = sorted(
            self.findings,
            key=lambda f: (-SEVERITY.index(f.verdict), 0.0 if f.value is None else sign * f.value),
        )
        limit = self.limit
        return RuleResult(
            self.key, self.title, self.unit, self.side, limit.warn, limit.fail, limit.source, tuple(order)
        )


def check_limit(key: str, warn: float | None, fail: float | None, side: Side) -> None:
    """Refuse limits that contradict each other (InputError)."""
    for name, value in (("warn", warn), ("fail", fail)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"rules.{key}.{name}={value:g} must be finite; use null for no limit")
    if warn is None or fail is None or warn == fail:
        return
    if (fail < warn) == (side == "at most"):
        raise InputError(
            f"rules.{key}: fail={fail:g} is stricter than warn={warn:g}, though {side} is wanted; swap them"
        )
