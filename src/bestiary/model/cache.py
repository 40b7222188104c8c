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

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        length = self.get_seq_length()
        if self._buffers is not None:
            keys, values = self._buffers
            self._buffers = keys[indices], values[indices]
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


def new_cache() -> Cache:
    """An empty cache of such layers."""
    return Cache(layer_class_to_replicate=RoomyLayer)
