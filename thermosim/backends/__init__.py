"""Where kernels are compiled and launched; nobody else asks which device it is."""

from __future__ import annotations

from thermosim.backends.base import Backend
from thermosim.errors import BackendError

__all__ = ["IN_TURN", "Backend", "choice", "n_devices", "probe", "select"]


IN_TURN = -1
"""As `device`: the GPUs of the machine in turn."""


def select(name: str = "auto", threads: int = 0, device: int = 0, turn: int = 0) -> Backend:
    """The backend called `name`: ``cpu``, ``cuda`` or ``auto`` (a GPU if one works, else the CPU).

    With `device` `IN_TURN` jobs that run side by side share out the GPUs by their numbers, `turn`.
    Raises `BackendError` if the one asked for does not work here; nothing falls back silently.
    """
    from thermosim.backends import cpu, cuda

    if name == "auto":
        name = "cuda" if cuda.missing() is None else "cpu"
    if name == "cpu":
        return cpu.CpuBackend(threads)
    if name == "cuda":
        reason = cuda.missing()
        if reason is not None:
            raise BackendError(f"backend=cuda does not work here: {reason}; use backend=cpu or backend=auto")
        return cuda.CudaBackend(turn % cuda.n_devices() if device == IN_TURN else device)
    raise BackendError(f"unknown backend {name!r}; choose auto, cpu or cuda")


def n_devices(name: str) -> int:
    """How many devices of this kind are here: GPUs for ``cuda``, one for ``cpu``."""
    from thermosim.backends import cuda

    return cuda.n_devices() if name == "cuda" else 1


def choice(name: str, backend: Backend) -> str:
    """What was chosen, in one line; why no GPU was, where ``auto`` might have taken one."""
    from thermosim.backends import cuda

    why = f" (no GPU: {cuda.missing()})" if name == "auto" and backend.name == "cpu" else ""
    return f"backend {backend.name}: {backend.device}{why}"


def probe() -> list[dict[str, str | bool]]:
    """One row per backend for `thermosim doctor`: name, works, and the device or what is missing."""
    from thermosim.backends import cpu, cuda

    rows: list[dict[str, str | bool]] = []
    for name, reason in (("cpu", cpu.missing()), ("cuda", cuda.missing())):
        if reason is None:
            try:
                rows.append({"name": name, "works": True, "detail": select(name).device})
            except BackendError as error:
                rows.append({"name": name, "works": False, "detail": str(error)})
        else:
            rows.append({"name": name, "works": False, "detail": reason})
    return rows
