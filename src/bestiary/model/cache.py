"""A KV cache with room to grow: a decoded token is written in place instead of copying the rest.

While it is held, its buffers stay where they are and the place of the next token is a tensor, so
that one recorded step can be replayed for token after token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 32
"""Tokens by which a layer's buffers grow."""
GPU_ROOM = 128
"""The same on a GPU, where other buffers mean another recording."""


def choose_room(device: torch.device) -> int:
    """Tokens by which a layer's buffers grow on a device."""
    return GPU_ROOM if device.type == "cuda" else ROOM


class RoomyLayer(DynamicLayer):
    """The keys and values of one layer: views of buffers that are longer than they are."""

    is_compileable = True
    """Asks transformers not to read from the device whether a step's mask can be left out."""
    _buffers: tuple[Tensor, Tensor] | None = None
    """Keys and values, [rows, heads, tokens and room, width]."""
    _column: Tensor | None = None
    """[1]: where the next token is written while the layer is held."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append states, [rows, heads, tokens, width], and return all of them.

        A held layer takes one token a row and returns its room, too.
        """
        if self._column is not None:
            assert self._buffers is not None
            for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
                buffer.index_copy_(2, self._column, states)
            return self._buffers
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.capacity < end:
            self._grow(key_states, end + choose_room(key_states.device))
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._show(end)

    def hold(self, column: Tensor) -> None:
        """Write each next token at `column`, [1], until released; there must be room for it."""
        self._column = column

    def release(self, columns: int) -> None:
        """Append as usual again, after the first `columns` tokens."""
        self._column = None
        self._show(columns)

    def get_seq_length(self) -> Any:
        """Tokens of each row: a number, or a tensor while the layer is held."""
        return super().get_seq_length() if self._column is None else self._column

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a query may see, and the first one's number."""
        return super().get_mask_sizes(query_length) if self._column is None else (self.capacity, 0)

    @property
    def capacity(self) -> int:
        """Tokens and room."""
        return 0 if self._buffers is None else self._buffers[0].shape[-2]

    def make_room(self) -> None:
        """Leave room for at least one more token."""
        length = self.get_seq_length()
        if self._buffers is not None and self.capacity == length:
            self._grow(self._buffers[0], length + choose_room(self._buffers[0].device))
            self._show(length)  # of the new buffers, so that the old ones are free

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
        # Zeros, since a masked value is multiplied by zero, which for what is unset may be NaN.
        keys, values = (like.new_zeros(rows, heads, length, width) for _ in range(2))
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
    room = choose_room(upper.device)
    both = upper.new_zeros(rows + len(lower), heads, length + room, width)
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

    def hold(self) -> tuple[Tensor, int]:
        """Keep the buffers where they are, and write each next token at a column that is a tensor.

        Returns that column, [1], which the caller moves on, and the columns that there are.
        """
        for layer in self._roomy_layers:
            layer.make_room()
        first = self._roomy_layers[0]
        column = torch.full((1,), first.get_seq_length(), device=first.device)
        for layer in self._roomy_layers:
            layer.hold(column)
        return column, first.capacity

    def release(self, columns: int) -> None:
        """Append as usual again, after the first `columns` tokens."""
        for layer in self._roomy_layers:
            layer.release(columns)

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
