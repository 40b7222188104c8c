"""The frozen adapters of all subjects, as rows of one matrix, and the controls that are made here.

The matrix is in main memory; a step copies the rows of its own subjects into a bank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.introspection.subjects import Subject
from bestiary.model.adapter import load_state, read_shape
from bestiary.model.base import Base
from bestiary.model.lora_bank import LoraBank


class SubjectWeights:
    """The adapters of subjects, and a bank of `slots` that holds some of them at a time."""

    def __init__(self, base: Base, subjects: Sequence[Subject], *, slots: int) -> None:
        shapes = read_shapes(subjects)
        self.bank = LoraBank(base, list(dict.fromkeys(shapes)), slots=min(slots, len(subjects)))
        self._rows = torch.zeros(len(subjects), self.bank.weights.shape[1], dtype=self.bank.dtype)
        self._scales = [
            subject.strength * shape.alpha / shape.rank
            for subject, shape in zip(subjects, shapes, strict=True)
        ]
        for number, subject in enumerate(subjects):
            self._fill(number, subject, shapes[number])

    def place(self, subjects: Sequence[int]) -> None:
        """Copy these subjects, by index, into the bank's first slots."""
        for slot, number in enumerate(subjects):
            self.bank.weights[slot] = self._rows[number]
            self.bank.scales[slot] = self._scales[number]

    def _fill(self, number: int, subject: Subject, shape: LoraShape) -> None:
        if subject.kind == "zero_b":
            state = self.bank.init_adapter(shape, seed=subject.seed)
            self.bank.write(self._rows, number, state)
            return
        self.bank.write(self._rows, number, load_state(subject.adapter))
        if subject.kind in ("gaussian", "shuffled"):
            self._randomize(number, shuffle=subject.kind == "shuffled", seed=subject.seed)

    def _randomize(self, number: int, *, shuffle: bool, seed: int) -> None:
        """Replace each layer's pair by a random one whose product has the same Frobenius norm."""
        generator = torch.Generator().manual_seed(seed)
        for _, a, b in self.bank.views(self._rows):
            sides = a[number], b[number]
            norm = _product_norm(*sides)
            for side in sides:
                there = side != 0  # the padding of a smaller rank stays zero
                old = side[there]
                new = (
                    old[torch.randperm(len(old), generator=generator)]
                    if shuffle
                    else torch.randn(len(old), generator=generator, dtype=old.dtype)
                )
                side[there] = new
            found = _product_norm(*sides)
            if found:
                sides[1].mul_(norm / found)


def _product_norm(a: Tensor, b: Tensor) -> float:
    """The Frobenius norm of B A, from its [rank, in] and [rank, out] factors."""
    return float(((a @ a.T) * (b @ b.T)).sum().clamp(min=0).sqrt())


def read_shapes(subjects: Sequence[Subject]) -> list[LoraShape]:
    """The shape of each subject's adapter; raises ModelError if one is more than plain LoRA."""
    return [_read_plain_shape(subject) for subject in subjects]


def _read_plain_shape(subject: Subject) -> LoraShape:
    shape = read_shape(subject.adapter)
    if shape is None:
        raise ModelError(
            f"{subject.id}: its adapter is more than plain LoRA",
            "introspection reads plain LoRA adapters: leave this one out",
            code="adapter-not-plain",
            subject=subject.id,
        )
    return shape
