"""A KV cache with room to grow: a decoded token is written in place instead of copying the rest."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 32
"""Tokens by which a layer's buffers grow."""


class RoomyLayer(DynamicLayer):
    """The keys and values of one layer: views of buffers that are longer than they are."""

    _buffers: tuple[Tensor, Tensor] | None = None
    """Keys and values, [rows, heads, tokens and room, width]."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append states, [rows, heads, tokens, width], and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end:
            self._grow(key_states, end + ROOM)
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._show(end)

    @property
    def states(self) -> tuple[Tensor, Tensor]:
        """Keys and values, [rows, heads, tokens, width]."""
        return self._show(self.get_seq_length())

    def keep(self, rows: Tensor, columns: int) -> None:
        """Keep some rows, and of each the last `columns` tokens."""
        assert self._buffers is not None
        first = self.get_seq_length() - columns
        # Indexing a slice would take four times as long.
        keys, values = (buffer[:, :, first:].index_select(0, rows) for buffer in self._buffers)
        self._buffers = keys, values
        self._show(columns)

    def add_rows(self, other: RoomyLayer) -> None:
        """Add another layer's rows after these; the shorter of both gets zeros on the left."""
        length = max(self.get_seq_length(), other.get_seq_length())
        pairs = zip(self.states, other.states, strict=True)
        keys, values = (_stack(upper, lower, length) for upper, lower in pairs)
        self._buffers = keys, values
        self._show(length)

    def _grow(self, like: Tensor, length: int) -> None:
        rows, heads, _, width = like.shape
        keys, values = (like.new_empty(rows, heads, length, width) for _ in range(2))
        start = self.get_seq_length()
        if self._buffers is not None:
            for new, old in zip((keys, values), self._buffers, strict=True):
                new[:, :, :start] = old[:, :, :start]
        self._buffers = keys, values

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        assert self._buffers is not None
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _stack(upper: Tensor, lower: Tensor, length: int) -> Tensor:
    """Both tensors' rows, [rows, heads, tokens, width], with their last tokens in one column."""
    rows, heads, _, width = upper.shape
    # Zeros, since a masked value is multiplied by zero, which for what is unset may be NaN.
    both = upper.new_zeros(rows + len(lower), heads, length + ROOM, width)
    both[:rows, :, length - upper.shape[2] : length] = upper
    both[rows:, :, length - lower.shape[2] : length] = lower
    return both


class RoomyCache(Cache):
    """A cache of such layers, whose rows come and go."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RoomyLayer)

    def copy_rows(self, rows: Tensor) -> RoomyCache:
        """A new cache of these rows, each as often as `rows` names it."""
        copy = RoomyCache()
        for number, layer in enumerate(self._roomy_layers):
            keys, values = (states.index_select(0, rows) for states in layer.states)
            copy.update(keys, values, number)
        return copy

    def keep(self, rows: Tensor, columns: int) -> None:
        """Keep some rows, and of each the last `columns` tokens."""
        for layer in self._roomy_layers:
            layer.keep(rows, columns)

    def add_rows(self, other: RoomyCache) -> None:
        """Add another cache's rows after these; all rows end in the same column.

        The other cache must not be used any longer.
        """
        if not self.get_seq_length():
            self.layers = other.layers
            return
        for layer, added in zip(self._roomy_layers, other._roomy_layers, strict=True):
            layer.add_rows(added)

    @property
    def _roomy_layers(self) -> list[RoomyLayer]:
        return [layer for layer in self.layers if isinstance(layer, RoomyLayer)]
