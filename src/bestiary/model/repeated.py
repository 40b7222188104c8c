"""One computation repeated over tensors that stay where they are, which a GPU can replay."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE as Pool

Compute = Callable[[], Tensor]


class Recorder:
    """Records computations as CUDA graphs, whose memory can be freed with the last one of a pool.

    Once something cannot be recorded, nothing more is: a failure costs as much as many steps.
    """

    def __init__(self) -> None:
        self._usable = True
        self._stream: torch.cuda.Stream | None = None

    def record(
        self, compute: Compute, pool: Pool | None = None
    ) -> tuple[torch.cuda.CUDAGraph, Tensor] | None:
        """A graph and the result that each replay overwrites; None, with a warning, if it fails.

        Nothing is computed yet. Graphs of one `pool` share their memory: the result of one is
        gone once another is replayed.
        """
        if not self._usable:
            return None
        failure = ""
        for _ in range(2):
            try:
                return self._record(compute, pool)
            except torch.OutOfMemoryError as error:
                failure = str(error)
            except RuntimeError as error:
                failure = str(error.__context__ or error)  # the cause, if ending it failed as well
                break
            # Outside the clauses, whose traceback holds the tensors of the attempt.
            torch.cuda.empty_cache()
        self._usable = False
        warnings.warn(
            f"steps cannot be recorded, which changes no result but is slower, and may keep memory "
            f"occupied; if memory runs out, start again with fewer --slots: {failure}",
            stacklevel=2,
        )
        return None

    def _record(self, compute: Compute, pool: Pool | None) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        with torch.cuda.stream(self._stream):  # torch.cuda.graph would not leave it after a failure
            # Other threads, which draw first weights, may do what a recording may not.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                result = compute()
            finally:
                graph.capture_end()
        return graph, result


RECORDER = Recorder()
"""The process's own: what failed once is not tried again."""


class Repeated:
    """A computation that reads and writes the same tensors each time.

    A GPU spends more time on launching the small products of one token than on computing them.
    If `record` is true, the first call computes as usual, which loads every kernel, the second
    records the launches, and from then on they are replayed. Otherwise each call computes.

    Nothing in the computation may depend on a number that the CPU reads from a tensor.
    """

    def __init__(self, *, record: bool, recorder: Recorder = RECORDER) -> None:
        self._record, self._recorder = record, recorder
        self._calls = 0
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    @property
    def pool(self) -> Pool | None:
        """Where its graph has its memory; None while there is no graph."""
        return self._recorded[0].pool() if self._recorded else None

    def __call__(self, compute: Compute, *, pool: Pool | None = None) -> Tensor:
        """The result of the computation, the same one at every call; the next overwrites it.

        The computation is not kept: its owner, which keeps this, would never be freed in time. A
        graph has a pool of its own, unless it is to share that of another one, which still exists.
        """
        self._calls += 1
        if self._calls == 2 and self._record:
            self._recorded = self._recorder.record(compute, pool)
        if self._recorded is None:
            return compute()
        graph, result = self._recorded
        graph.replay()
        return result
