"""Sampling from many adapters: adapters that share target modules decode side by side in a bank."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model.adapter import list_targets, load_state
from bestiary.model.base import Base
from bestiary.model.decoding import BATCH_ROWS
from bestiary.model.replies import Prompt, stream_texts
from bestiary.records import Decoding

if TYPE_CHECKING:
    from bestiary.model.lora_bank import LoraBank

BANK_SLOTS = 32
"""Adapters in one bank, provided that they fit into BANK_BYTES."""
BANK_BYTES = 4 * 2**30


@dataclass(frozen=True)
class AdapterPrompts:
    """One adapter and the prompts it answers."""

    adapter: Path
    """A peft directory."""
    prompts: tuple[Prompt, ...]
    decoding: Decoding


@dataclass(frozen=True)
class Sample:
    """One reply of one adapter."""

    group: int
    """Index of the AdapterPrompts."""
    prompt: int
    """Index of the prompt within its group."""
    text: str
    seconds: float
    """This reply's share of the time its decode batch took."""


@dataclass(frozen=True)
class SamplingFailure:
    """An adapter that cannot be loaded; none of its prompts are answered."""

    group: int
    error: ModelError


@dataclass(frozen=True)
class _Adapter:
    """A group whose adapter can be loaded."""

    group: int
    request: AdapterPrompts
    shape: LoraShape


def sample_adapters(
    base: Base, groups: Sequence[AdapterPrompts], *, system_prompt: str
) -> Iterator[Sample | SamplingFailure]:
    """Answer every group's prompts with its adapter; yields replies as they are decoded.

    Adapters with the same target modules and decoding share a bank. Failures come first, and do
    not stop other groups.
    The base is unchanged once the iterator is exhausted or closed.
    """
    packs: dict[object, list[_Adapter]] = {}
    for number, request in enumerate(groups):
        try:
            _, shape = load_state(request.adapter)
            key = frozenset(list_targets(base, shape)), request.decoding
        except ModelError as error:
            yield SamplingFailure(number, error)
        else:
            packs.setdefault(key, []).append(_Adapter(number, request, shape))
    for pack in packs.values():
        size = count_slots(base, [adapter.shape for adapter in pack])
        for chosen in (pack[at : at + size] for at in range(0, len(pack), size)):
            with _open_bank(base, chosen) as bank:
                yield from _decode(bank, base, chosen, system_prompt)


def count_slots(base: Base, shapes: Sequence[LoraShape]) -> int:
    """How many adapters of these shapes fit into one bank."""
    from bestiary.model.lora_bank import adapter_dtype, measure_bank

    size = measure_bank(base, shapes).numbers * adapter_dtype(base).itemsize
    return max(1, min(BANK_SLOTS, BANK_BYTES // size))


@contextmanager
def _open_bank(base: Base, adapters: Sequence[_Adapter]) -> Iterator[LoraBank]:
    from bestiary.model.lora_bank import LoraBank

    bank = LoraBank(base, [adapter.shape for adapter in adapters], slots=len(adapters))
    for slot, adapter in enumerate(adapters):
        state, _ = load_state(adapter.request.adapter)
        bank.fill(slot, state, adapter.shape)
    with bank.attached():
        yield bank


def _decode(
    bank: LoraBank, base: Base, adapters: Sequence[_Adapter], system_prompt: str
) -> Iterator[Sample]:
    rows = [
        (slot, number)
        for slot, adapter in enumerate(adapters)
        for number in range(len(adapter.request.prompts))
    ]
    started, share = time.monotonic(), 0.0
    replies = stream_texts(
        base.model,
        base,
        [adapters[slot].request.prompts[number] for slot, number in rows],
        decoding=adapters[0].request.decoding,
        system_prompt=system_prompt,
        bank=bank,
        slots=[slot for slot, _ in rows],
    )
    for done, (row, text) in enumerate(replies):
        if done % BATCH_ROWS == 0:  # the batch was decoded before its first reply arrived
            share = (time.monotonic() - started) / min(BATCH_ROWS, len(rows) - done)
        slot, number = rows[row]
        yield Sample(adapters[slot].group, number, text, share)
        started = time.monotonic()
