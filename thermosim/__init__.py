"""Radiofrequency ablation of liver tumours: electric field, bioheat, death of tissue and the margin.

A research tool, not a medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thermosim.batch import simulate_batch
    from thermosim.build import Case, Result, load_case, simulate
    from thermosim.commands.margin import MarginResult, measure_margin
    from thermosim.config_margin import MarginConfig
    from thermosim.errors import BackendError, InputError, Interrupted, NumericalError, ThermosimError

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Case",
    "InputError",
    "Interrupted",
    "MarginConfig",
    "MarginResult",
    "NumericalError",
    "Result",
    "ThermosimError",
    "__version__",
    "load_case",
    "measure_margin",
    "simulate",
    "simulate_batch",
]

_HOME = {
    "Case": "build",
    "MarginConfig": "config_margin",
    "MarginResult": "commands.margin",
    "Result": "build",
    "load_case": "build",
    "measure_margin": "commands.margin",
    "simulate": "build",
    "simulate_batch": "batch",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that starting up stays quick."""
    if name not in __all__:
        raise AttributeError(f"module 'thermosim' has no attribute {name!r}")
    return getattr(import_module(f"thermosim.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
