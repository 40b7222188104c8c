"""Training passes over batches of few shapes, which a GPU records and replays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bestiary.model.attention import FlatRows, choose_attention
from bestiary.model.base import Base
from bestiary.model.repeated import Repeated

if TYPE_CHECKING:
    from bestiary.training.inputs import Inputs

LAUNCH_BOUND = 4e12
"""Weights times tokens up to which a GPU spends longer on launching a pass than on computing it.

By arithmetic, not measured: some 6,000 launches of 7 microseconds each, against 4 operations per
weight and token at 4e14 a second.
"""
SHAPES = 32
"""Shapes of batches that are kept at once."""


def count_evened(base: Base) -> int:
    """Tokens of a batch up to which launches take longer than products; none on a CPU.

    None either where attention would pad every row to what fills a batch up.
    """
    if base.device.type == "cpu" or choose_attention(base) is not FlatRows:
        return 0
    layers = base.model.model.layers
    return int(LAUNCH_BOUND / sum(weight.numel() for weight in layers.parameters()))


class RepeatedPasses:
    """A pass for every shape of a batch, over tensors that stay where they are."""

    def __init__(self, device: torch.device) -> None:
        self._record = device.type == "cuda"
        self._kept: dict[Hashable, tuple[Inputs, Repeated]] = {}

    def __call__(
        self, first: int, inputs: Inputs, compute: Callable[[int, Inputs], Tensor]
    ) -> Tensor:
        """The result of `compute` for a batch that begins at slot `first`, until the next call."""
        key = (first, inputs.shape)
        if key in self._kept:
            held, repeated = self._kept.pop(key)
            held.take(inputs)
        else:
            held, repeated = inputs, Repeated(record=self._record)
            if len(self._kept) == SHAPES:
                del self._kept[next(iter(self._kept))]  # the one that was used the longest ago
        self._kept[key] = held, repeated
        # A pass needs memory only while it runs, and its result is read at once.
        pools = (other.pool for _, other in self._kept.values())
        return repeated(partial(compute, first, held), pool=next(filter(None, pools), None))

    def forget(self) -> None:
        """Free what is kept."""
        self._kept.clear()
