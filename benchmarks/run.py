"""Runs the named cases, prints their figures and keeps them with their provenance as JSON.

python benchmarks/run.py                     all cases at full size
python benchmarks/run.py heat_step --size 64  one case, small
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from cases import CASES, FULL_SIZE, Setting
from provenance import provenance

from thermosim.backends import select

RESULTS = Path(__file__).with_name("results")


def main(words: list[str] | None = None) -> int:
    """The command; returns 0, whatever the figures are."""
    options = _parser().parse_args(words)
    about = provenance(select(options.backend, options.threads))
    print(f"{about['date']}  commit {about['commit']}  {about['device']}")
    print(f"size {options.size}, {options.repeats} repeats after {options.warm_up} to warm up\n")
    print(f"{'case':18}  {'quantity':28}  {'median':>10}  {'min – max':>21}  {'unit':9}  target")
    found = {}
    for name in options.cases or CASES:
        arguments = (name, options.backend, options.threads, options.size, options.repeats, options.warm_up)
        # a process of its own: peak memory and caches of one case do not touch the next
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[name] = pool.submit(_run_case, *arguments).result()
        _show(name, found[name]["quantities"])
    settings = {key: getattr(options, key) for key in ("size", "repeats", "warm_up")}
    record = {"format": "thermosim-benchmark/1", "provenance": about, "settings": settings, "cases": found}
    options.output.mkdir(parents=True, exist_ok=True)
    stamp = about["date"].replace(":", "").replace("-", "").removesuffix("+0000")
    path = options.output / f"{stamp}_{about['commit']}_{about['backend']}_{options.size}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten: {path}")
    return 0


def _run_case(name: str, backend: str, threads: int, size: int, repeats: int, warm_up: int) -> dict[str, Any]:
    report = CASES[name](Setting(select(backend, threads), size, repeats, warm_up))
    about = (CASES[name].__doc__ or "").splitlines()[0]
    return {"about": about, "quantities": [q.as_dict() for q in report.quantities], "details": report.details}


def _show(name: str, quantities: list[dict[str, Any]]) -> None:
    for quantity in quantities:
        spread = f"{quantity['minimum']:.4g} – {quantity['maximum']:.4g}"
        met = {True: "met", False: "NOT MET", None: ""}[quantity["meets_target"]]
        target = f"{quantity['target']}: {met}" if quantity["target"] else ""
        line = f"{name:18}  {quantity['name']:28}  {quantity['median']:10.4g}  {spread:>21}"
        print(f"{line}  {quantity['unit']:9}  {target}".rstrip(), flush=True)
        name = ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measures thermosim.", allow_abbrev=False)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"some of {', '.join(CASES)}; all if none")
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="cells along the demo's edge, even")
    parser.add_argument("--repeats", type=int, default=3, help="samples of each figure")
    parser.add_argument("--warm-up", type=int, default=1, help="runs before the first sample")
    parser.add_argument("--backend", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON files")
    given = parser.parse_args

    def checked(words: list[str] | None = None) -> argparse.Namespace:
        options = given(words)
        for name in options.cases:
            if name not in CASES:
                parser.error(f"there is no case {name!r}; choose some of {', '.join(CASES)}")
        if options.size < 16 or options.size % 2 or options.repeats < 1 or options.warm_up < 0:
            parser.error("--size must be even and at least 16, --repeats at least 1, --warm-up at least 0")
        return options

    parser.parse_args = checked  # type: ignore[method-assign, assignment]
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
