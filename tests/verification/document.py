"""Runs the verification sections and writes them, with plots and provenance, to docs/verification.md.

python tests/verification/document.py              all sections; from the cache where no code has changed
python tests/verification/document.py --only KEY   these afresh; the others as they were found last
python tests/verification/document.py --list       keys and titles

Exits with 1 when a claim fails or a section breaks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from matplotlib.figure import Figure  # noqa: E402
from verification.markdown import document_text  # noqa: E402
from verification.sections import SHARED, NotRun, Registered, Section, discover, from_plain, plain  # noqa: E402

from thermosim.backends import select  # noqa: E402
from thermosim.backends.base import Backend  # noqa: E402
from thermosim.backends.cpu import CpuBackend, compiler, compiler_version, processor  # noqa: E402
from thermosim.config import SolverConfig  # noqa: E402
from thermosim.report.provenance import now, versions  # noqa: E402

CACHE = Path(__file__).with_name("results")
WITHOUT_EFFECT = ("report", "study", "cli.py", "doctor.py", "__main__.py")
"""Parts of the package whose changes leave every figure of the document as it is."""


@dataclass(frozen=True)
class Outcome:
    """What became of one section: `state` is done | not run | broken; `code` the digest it was run with."""

    key: str
    title: str
    state: str
    message: str
    section: Section | None
    code: str
    date: str
    seconds: float
    is_current: bool = True

    @property
    def failed_claims(self) -> list[str]:
        return [c.what for c in self.section.claims if not c.passed] if self.section else []

    @property
    def is_bad(self) -> bool:
        return self.state == "broken" or bool(self.failed_claims)


def code_digest(module: Path) -> str:
    """Of all its figures depend on: package, kernels, shared test code, references, the section's module."""
    parts = [p for p in (ROOT / "thermosim").rglob("*.py") if not _is_without_effect(p)]
    parts += [*(ROOT / "kernels").glob("*.cu"), *(ROOT / "kernels").glob("*.h")]
    parts += [*TESTS.glob("*.py"), *(TESTS / "reference").glob("*.py"), *SHARED.glob("reference/*.json")]
    here = Path(__file__).parent
    others = {*here.glob("section_*.py"), *here.glob("test_*.py"), Path(__file__), here / "markdown.py"}
    parts += [p for p in here.glob("*.py") if p not in others] + [module]
    digest = hashlib.sha256(processor().encode())
    for path in sorted(set(parts)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _is_without_effect(path: Path) -> bool:
    return path.relative_to(ROOT / "thermosim").parts[0] in WITHOUT_EFFECT


def run_section(found: Registered, backend: Backend, cache: Path) -> Outcome:
    """Run one section and keep what it found, plot included, in the cache."""
    code, begun = code_digest(_module_file(found)), time.perf_counter()
    state, message, section = "done", "", None
    try:
        section = found.run(backend)
        _draw(section, cache)
    except NotRun as reason:
        state, message = "not run", str(reason)
    except Exception as error:  # the other sections go on; the document and the exit code tell
        state, message, section = "broken", f"{type(error).__name__}: {error}", None
    seconds = time.perf_counter() - begun
    outcome = Outcome(found.key, found.title, state, message, section, code, now(), seconds)
    if state == "done":
        _store(outcome, cache)
    return outcome


def cached(found: Registered, cache: Path) -> Outcome | None:
    """What the cache holds for a section, None if nothing."""
    path = cache / f"{found.key}.json"
    if not path.is_file():
        return None
    stored = json.loads(path.read_text())
    section = from_plain(stored.pop("section"))
    is_current = stored["code"] == code_digest(_module_file(found))
    return Outcome(**stored, section=section, is_current=is_current)


def _module_file(found: Registered) -> Path:
    return Path(str(sys.modules[found.run.__module__].__file__))


def _draw(section: Section, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    picture = cache / f"{section.key}.png"
    picture.unlink(missing_ok=True)
    if section.figure is None:
        return
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    section.figure(figure)
    figure.savefig(picture, dpi=130, metadata={"Software": None})


def _store(outcome: Outcome, cache: Path) -> None:
    assert outcome.section is not None
    stored = {k: v for k, v in vars(outcome).items() if k not in ("section", "is_current")}
    stored["section"] = plain(outcome.section)
    (cache / f"{outcome.key}.json").write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def about(backend: Backend) -> dict[str, str]:
    """Provenance: nothing about who or where."""
    known = versions()
    found = {
        "date": now(),
        "thermosim": known["thermosim"],
        "kernels": backend.kernel_digest[:16],
        "processor": processor(),
        "Python, NumPy, SciPy": ", ".join(known[name] for name in ("python", "numpy", "scipy")),
    }
    if isinstance(backend, CpuBackend):
        found["compiler"] = compiler_version(compiler() or "")
        found["threads"] = str(backend.threads)
    tolerances = {
        k: v for k, v in asdict(SolverConfig()).items() if k.endswith(("tolerance", "step", "rise"))
    }
    found["solver, unless a section says otherwise"] = ", ".join(f"{k} {v:g}" for k, v in tolerances.items())
    return found


def write(outcomes: list[Outcome], facts: dict[str, str], document: Path, cache: Path) -> None:
    """The document and its plots; plots of sections that are gone are removed."""
    images = document.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    kept = set()
    for outcome in outcomes:
        picture = cache / f"{outcome.key}.png"
        if outcome.section is not None and picture.is_file():
            target = images / f"verification_{outcome.key}.png"
            target.write_bytes(picture.read_bytes())
            kept.add(target)
    for old in set(images.glob("verification_*.png")) - kept:
        old.unlink()
    text = document_text(outcomes, facts, {path.name for path in kept})
    partial = document.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, document)


def summary(outcomes: list[Outcome]) -> list[str]:
    """One line per section, and one for each claim that failed."""
    lines = []
    for o in outcomes:
        claims = len(o.section.claims) if o.section else 0
        held = claims - len(o.failed_claims)
        state = f"{held} of {claims} claims held" if o.state == "done" else f"{o.state}: {o.message}"
        lines.append(f"{o.key:24} {o.seconds:7.1f} s  {state}{'' if o.is_current else '  (of older code)'}")
        lines += [f"{'':24} FAILED: {what}" for what in o.failed_claims]
    return lines


def main(words: list[str] | None = None) -> int:
    """The command; 0 when every claim holds."""
    options = _parser().parse_args(words)
    registered = discover()
    if options.list:
        print("\n".join(f"{found.key:24} {found.title}" for found in registered))
        return 0
    unknown = set(options.only) - {found.key for found in registered}
    if unknown:
        print(f"no section is called {', '.join(sorted(unknown))}; --list shows them", file=sys.stderr)
        return 2
    backend = select(options.backend, options.threads)
    outcomes = []
    for found in registered:
        outcome = None if options.fresh or found.key in options.only else cached(found, CACHE)
        skipped = bool(options.only) and found.key not in options.only
        if skipped and outcome is None:
            outcome = Outcome(found.key, found.title, "not run", "left out of this run", None, "", "", 0.0)
        if outcome is None or not (skipped or outcome.is_current):
            print(f"{found.key} ...", flush=True)
            outcome = run_section(found, backend, CACHE)
            print("\n".join(summary([outcome])), flush=True)
        outcomes.append(outcome)
    write(outcomes, about(backend), options.document, CACHE)
    print(f"\n{options.document}\n" + "\n".join(summary(outcomes)))
    bad = [o.key for o in outcomes if o.is_bad]
    print(f"not kept: {', '.join(bad)}" if bad else "every claim held")
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Writes docs/verification.md.", allow_abbrev=False)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY", help="run these sections afresh, no others"
    )
    parser.add_argument("--fresh", action="store_true", help="take nothing from the cache")
    parser.add_argument("--list", action="store_true", help="show the sections and stop")
    parser.add_argument("--backend", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "verification.md", metavar="PATH")
    return parser


if __name__ == "__main__":
    # sections import this folder as a package; there must be one registry, not two
    from verification import document

    raise SystemExit(document.main())
