"""What can go wrong, by name. Every message gives the value, the limit and the remedy."""

from __future__ import annotations


class ThermosimError(Exception):
    """Base class of the errors a user may meet; the command line prints them in one line."""

    exit_code = 1


class InputError(ThermosimError):
    """An input is refused before any heavy work (exit code 2)."""

    exit_code = 2


class BackendError(ThermosimError):
    """A backend was asked for that does not work on this machine (exit code 2)."""

    exit_code = 2


class NumericalError(ThermosimError):
    """A field became non-finite or a solver did not converge; says where and when (exit code 3)."""

    exit_code = 3


class Interrupted(ThermosimError):
    """The user stopped a run; its checkpoint is kept (exit code 130)."""

    exit_code = 130
