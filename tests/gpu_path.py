"""The CUDA backend for tests: on a GPU, or with its kernels in the PTX interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ptx.stand_in import Observations

    from thermosim.backends.base import KernelSignature
    from thermosim.backends.cuda import CudaBackend


@dataclass
class GpuPath:
    """The CUDA backend under test, how often each kernel was launched, and the stand-in's eyes.

    `watch` is None on a real GPU.
    """

    backend: CudaBackend
    launches: Counter[str]
    watch: Observations | None


@pytest.fixture(scope="module")
def gpu_path(request: pytest.FixtureRequest) -> Iterator[GpuPath]:
    """The CUDA backend: on a GPU with `--gpu`, else its compiled kernels run in the PTX interpreter."""
    with ExitStack() as stack:
        watch = None
        if not request.config.getoption("--gpu"):
            request.getfixturevalue("nvrtc")
            from ptx import stand_in

            watch = stack.enter_context(stand_in.installed())
        from thermosim.backends.cuda import CudaBackend

        launches: Counter[str] = Counter()
        launch = CudaBackend._launch

        def counted(
            self: CudaBackend, signature: KernelSignature, extent: tuple[int, ...], arguments: Any
        ) -> None:
            launches[signature.name] += 1
            launch(self, signature, extent, arguments)

        stack.enter_context(pytest.MonkeyPatch.context()).setattr(CudaBackend, "_launch", counted)
        yield GpuPath(CudaBackend(0), launches, watch)
