"""One computation repeated over tensors that stay where they are, which a GPU can replay."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Compute = Callable[[], Tensor]


class Recorder:
    """Records computations as CUDA graphs, on a stream and in a memory pool that all share.

    What cannot be recorded once is not tried again: a failure costs as much as many steps.
    """

    def __init__(self) -> None:
        self._usable = True
        self._place: tuple[Any, Any] | None = None
        """A stream and a memory pool, made when they are first needed."""

    def record(self, compute: Compute) -> tuple[Any, Tensor] | None:
        """A graph and the result that each replay overwrites; None, with a warning, if it fails.

        Nothing is computed yet.
        """
        if not self._usable:
            return None
        try:
            try:
                return self._record(compute)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()  # which is impossible while something is recorded
                return self._record(compute)
        except RuntimeError as error:
            self._usable = False
            warnings.warn(f"steps cannot be recorded, which is slower: {error}", stacklevel=2)
            return None

    def _record(self, compute: Compute) -> tuple[Any, Tensor]:
        graph: Any = torch.cuda.CUDAGraph()
        if self._place is None:
            self._place = torch.cuda.Stream(), torch.cuda.MemPool()
        stream, pool = self._place
        with torch.cuda.stream(stream):  # torch.cuda.graph would not leave it after a failure
            graph.capture_begin(pool=pool.id, capture_error_mode="thread_local")
            try:
                result = compute()
            finally:
                graph.capture_end()
        return graph, result


SHARED = Recorder()


class Repeated:
    """A computation that reads and writes the same tensors each time.

    A GPU spends more time on launching the small products of one token than on computing them.
    There the first call computes as usual, which loads every kernel, the second records the
    launches, and from then on they are replayed. Elsewhere each call computes.

    Nothing in the computation may depend on a number that the CPU reads from a tensor.
    """

    def __init__(self, device: torch.device, recorder: Recorder = SHARED) -> None:
        self._device, self._recorder = device, recorder
        self._calls = 0
        self._recorded: tuple[Any, Tensor] | None = None

    def __call__(self, compute: Compute) -> Tensor:
        """The result of the computation, the same one at every call; the next overwrites it.

        The computation is not kept: its owner, which keeps this, would never be freed in time.
        """
        self._calls += 1
        if self._calls == 2 and self._device.type == "cuda":
            self._recorded = self._recorder.record(compute)
        if self._recorded is None:
            return compute()
        graph, result = self._recorded
        graph.replay()
        return result
