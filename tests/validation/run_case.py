"""One case in a process of its own: the order as JSON on standard input, figures on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from validation.observe import observe

from thermosim.build import load_case, simulate


def main() -> int:
    order = json.load(sys.stdin)
    case = load_case(order["experiment"], [*order["overrides"], "backend.name=cpu", "backend.threads=1"])
    json.dump(observe(simulate(case), order["requests"]), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
