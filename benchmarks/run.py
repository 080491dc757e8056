"""Runs the named cases, prints their figures and keeps them with their provenance as JSON.

python benchmarks/run.py                      all cases at full size
python benchmarks/run.py heat_step --size 64  one case, small
python benchmarks/run.py --peers quick        the alternatives, too
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from cases import CASES, PEERS
from measure import FULL_SIZE, Setting
from provenance import provenance

from thermosim.backends import select
from thermosim.errors import ThermosimError

FORMAT = "thermosim-benchmark/2"

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" if (HERE.parent / "pyproject.toml").is_file() else Path("benchmark-results")
"""Beside this file in a checkout; where one stands if installed."""


def main(words: list[str] | None = None) -> int:
    """The command; returns 0, whatever the figures are."""
    options = _parser().parse_args(words)
    about = provenance(select(options.backend, options.threads))
    print(f"{about['date']}  commit {about['commit']}  {about['device']}")
    print(f"size {options.size}, {options.repeats} repeats after {options.warm_up} to warm up\n")
    print(f"{'case':18}  {'quantity':34}  {'median':>10}  {'min – max':>21}  {'unit':9}  target")
    names = options.cases or [*CASES, *(PEERS if options.peers != "none" else {})]
    options.output.mkdir(parents=True, exist_ok=True)
    stamp = about["date"].replace(":", "").replace("-", "").removesuffix("+0000")
    path = options.output / f"{stamp}_{about['commit']}_{about['backend']}_{options.size}.json"
    keys = ("size", "repeats", "warm_up", "peers", "fine")
    settings = {key: getattr(options, key) for key in keys}
    found: dict[str, Any] = {}
    record = {"format": FORMAT, "provenance": about, "settings": settings, "cases": found}
    for name in names:
        begun = time.perf_counter()
        # a process of its own: peak memory and caches of one case do not touch the next
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[name] = pool.submit(_run_case, name, options.backend, options.threads, settings).result()
        found[name]["wall_seconds"] = time.perf_counter() - begun
        _show(name, found[name]["quantities"])
        for row in found[name]["details"].get("rows", []):
            if row.get("missing"):
                print(f"{'':18}  {row['peer']}: {row['missing']}")
        # after each case: what is measured stays, whatever becomes of the next one
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten: {path}")
    return 0


def _run_case(name: str, backend: str, threads: int, settings: dict[str, Any]) -> dict[str, Any]:
    case = {**CASES, **PEERS}[name]
    report = case(Setting(select(backend, threads), **settings))
    about = (case.__doc__ or "").splitlines()[0]
    return {"about": about, "quantities": [q.as_dict() for q in report.quantities], "details": report.details}


def _show(name: str, quantities: list[dict[str, Any]]) -> None:
    for quantity in quantities:
        spread = f"{quantity['minimum']:.4g} – {quantity['maximum']:.4g}"
        met = {True: "met", False: "NOT MET", None: ""}[quantity["meets_target"]]
        target = f"{quantity['target']}: {met}" if quantity["target"] else ""
        line = f"{name:18}  {quantity['name']:34}  {quantity['median']:10.4g}  {spread:>21}"
        print(f"{line}  {quantity['unit']:9}  {target}".rstrip(), flush=True)
        name = ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thermosim bench", description="Measures thermosim.", allow_abbrev=False
    )
    names = f"some of {', '.join([*CASES, *PEERS])}; all if none, peers if asked for"
    parser.add_argument("cases", nargs="*", metavar="case", help=names)
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="cells along the demo's edge, even")
    parser.add_argument("--repeats", type=int, default=3, help="samples of each figure")
    parser.add_argument("--warm-up", type=int, default=1, help="runs before the first sample")
    parser.add_argument("--backend", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument(
        "--peers",
        nargs="?",
        const="quick",
        default="none",
        choices=("none", "quick", "full"),
        help="measure alternatives, too; quick: the longest in part and scaled up",
    )
    parser.add_argument("--coarse", dest="fine", action="store_false", help="leave the largest grids out")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON files")
    given = parser.parse_args

    def checked(words: list[str] | None = None) -> argparse.Namespace:
        # key=value serves as --key value, as everywhere in thermosim
        words = [re.sub(r"^([a-z_]+)=", _as_option, w) for w in (sys.argv[1:] if words is None else words)]
        options = given(words)
        for name in options.cases:
            if name not in CASES and name not in PEERS:
                parser.error(f"there is no case {name!r}; choose some of {', '.join([*CASES, *PEERS])}")
        if options.size < 16 or options.size % 2 or options.repeats < 1 or options.warm_up < 0:
            parser.error("--size must be even and at least 16, --repeats at least 1, --warm-up at least 0")
        if options.threads < 0:
            parser.error("--threads must be 0 (all cores) or more")
        return options

    parser.parse_args = checked  # type: ignore[method-assign, assignment]
    return parser


def _as_option(match: re.Match[str]) -> str:
    return f"--{match.group(1).replace('_', '-')}="


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except ThermosimError as error:
        print(f"thermosim: error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
