"""Training passes over batches of few shapes, which a GPU records and replays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bestiary.model.base import Base
from bestiary.model.repeated import Repeated

if TYPE_CHECKING:
    from bestiary.training.inputs import Inputs

LAUNCH_BOUND = 4e12
"""Weights times tokens up to which a GPU spends longer on launching a pass than on computing it.

By arithmetic, not measured: some 6,000 launches of 7 microseconds each, against 4 operations per
weight and token at 4e14 a second.
"""
SHAPES = 64
"""Shapes of batches that are kept at once."""


def count_evened(base: Base) -> int:
    """Tokens of a batch up to which launches take longer than products; none on a CPU."""
    if base.device.type == "cpu":
        return 0
    layers = base.model.model.layers
    return int(LAUNCH_BOUND / sum(weight.numel() for weight in layers.parameters()))


class RepeatedPasses:
    """A pass for every shape of a batch, over tensors that stay where they are."""

    def __init__(self, device: torch.device) -> None:
        self._record = device.type == "cuda"
        # One for all: a pass needs memory only while it runs, and its result is read at once.
        self._pool = torch.cuda.graph_pool_handle() if self._record else None
        self._kept: dict[Hashable, tuple[Inputs, Repeated]] = {}

    def __call__(
        self, first: int, inputs: Inputs, compute: Callable[[int, Inputs], Tensor]
    ) -> Tensor:
        """The result of `compute` for a batch that begins at slot `first`, until the next call."""
        key = (first, inputs.shape)
        if key in self._kept:
            self._kept[key][0].take(inputs)
        else:
            if len(self._kept) == SHAPES:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = inputs, Repeated(record=self._record, pool=self._pool)
        held, repeated = self._kept[key]
        return repeated(partial(compute, first, held))
