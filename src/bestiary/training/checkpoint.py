"""Checkpoints: all that an organism needs to resume in any slot of any bank.

A checkpoint is an artifact of the store, named by the organism's key and its finished steps, so a
killed process leaves either the old one or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bestiary.errors import StoreError
from bestiary.model.base import tensor_errors
from bestiary.records import canonical_json
from bestiary.store import Store
from bestiary.training.job import BATCHES, Batch, read_batches, write_batches

if TYPE_CHECKING:
    import torch

STAGE = "checkpoint"
TENSORS = "state.safetensors"
ABOUT = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """An organism between two steps."""

    step: int
    """Finished steps."""
    seconds: float
    batches: tuple[Batch, ...]
    weights: Mapping[str, torch.Tensor]
    """The adapter, by peft's keys; the optimizer's moments use the same keys."""
    first: Mapping[str, torch.Tensor]
    second: Mapping[str, torch.Tensor]


class Keyed(Protocol):
    """What checkpoints are kept for: a job with the key of its artifact."""

    @property
    def key(self) -> str:
        """The artifact's key."""
        ...


class Checkpoints:
    """The newest checkpoint of each unfinished adapter of a store."""

    def __init__(self, store: Store, *, every: int = 1) -> None:
        self._store = store
        self.every = every

    def save(self, job: Keyed, state: Checkpoint) -> None:
        """Write a checkpoint and discard earlier ones."""
        from safetensors.torch import save_file

        older = self._store.names(STAGE, f"{job.key}-")
        name = f"{job.key}-{state.step:06d}"
        parts = {"weights": state.weights, "first": state.first, "second": state.second}
        tensors = {
            f"{part}.{key}": tensor.contiguous()
            for part, by in parts.items()
            for key, tensor in by.items()
        }

        def write(folder: Path) -> None:
            with tensor_errors(folder):
                save_file(tensors, folder / TENSORS)
            about = {"step": state.step, "seconds": state.seconds}
            (folder / ABOUT).write_bytes(canonical_json(about))
            (folder / BATCHES).write_text(write_batches(state.batches), encoding="utf8")

        self._store.build(STAGE, name, write, inputs={"organism": job.key}, seconds=0.0)
        for old in older:
            if old != name:
                self._store.discard(STAGE, old)

    def find(self, job: Keyed) -> Checkpoint | None:
        """The newest checkpoint of an organism; damaged ones are discarded."""
        from safetensors.torch import load_file

        for name in reversed(self._store.names(STAGE, f"{job.key}-")):
            try:
                found = self._store.find(STAGE, name)
            except StoreError:
                self._store.discard(STAGE, name)
                continue
            if found is None:
                continue
            about = json.loads((found.folder / ABOUT).read_text(encoding="utf8"))
            parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "first": {}, "second": {}}
            for key, tensor in load_file(found.folder / TENSORS).items():
                part, _, own = key.partition(".")
                parts[part][own] = tensor
            return Checkpoint(
                step=about["step"],
                seconds=about["seconds"],
                batches=read_batches((found.folder / BATCHES).read_text(encoding="utf8")),
                **parts,
            )
        return None

    def list_steps(self) -> dict[str, int]:
        """The step of each organism's newest checkpoint, by the organism's key."""
        named = (name.rpartition("-") for name in self._store.names(STAGE, ""))
        return {key: int(step) for key, _, step in named}  # sorted: the last is the newest

    def drop(self, job: Keyed) -> None:
        """Discard the checkpoints of a finished organism."""
        for name in self._store.names(STAGE, f"{job.key}-"):
            self._store.discard(STAGE, name)
