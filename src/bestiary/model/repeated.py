"""One computation repeated over tensors that stay where they are, which a GPU can replay."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Repeated:
    """A computation that reads and writes the same tensors each time.

    A GPU spends more time on launching the small products of one token than on computing them.
    There the first call computes as usual, which loads every kernel, the second records the
    launches in a CUDA graph, and from then on the graph is replayed. Elsewhere each call computes.

    Nothing in the computation may depend on a number that the CPU reads from a tensor. One that
    cannot be recorded is computed each time, with a warning.
    """

    def __init__(self, compute: Callable[[], Tensor], device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._calls = 0
        self._recorded: tuple[Any, Tensor] | None = None
        """A graph and the result that it overwrites."""

    def __call__(self) -> Tensor:
        """The result; a replay overwrites the one before."""
        self._calls += 1
        if self._calls == 2 and self._device.type == "cuda":
            self._record()
        if self._recorded is None:
            return self._compute()
        graph, result = self._recorded
        graph.replay()
        return result

    def _record(self) -> None:
        """Record the launches, which computes nothing yet."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = self._compute()
        except RuntimeError as error:
            warnings.warn(f"steps cannot be recorded, which is slower: {error}", stacklevel=2)
            return
        self._recorded = graph, result
