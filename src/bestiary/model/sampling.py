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
from bestiary.model.adapter import list_targets, load_state, open_adapter, read_shape
from bestiary.model.base import Base
from bestiary.model.decoding import count_rows
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
    """Its share of the decoding: the shares of all replies sum up to the time that it took."""


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

    Adapters with the same target modules and decoding share a bank; what is more than plain LoRA
    is left to peft, one adapter at a time. A failure does not stop other groups. The base is
    unchanged once the iterator is exhausted or closed.
    """
    packs: dict[object, list[_Adapter]] = {}
    for number, request in enumerate(groups):
        try:
            load_state(request.adapter)  # what is damaged fails before anything is decoded
            shape = _find_bank_shape(base, request.adapter)
            key = frozenset(list_targets(base, shape)) if shape else None, request.decoding
        except ModelError as error:
            yield SamplingFailure(number, error)
            continue
        if shape is None:
            yield from _sample_with_peft(base, number, request, system_prompt)
        else:
            packs.setdefault(key, []).append(_Adapter(number, request, shape))
    for pack in packs.values():
        size = count_slots(base, [adapter.shape for adapter in pack])
        for chosen in (pack[at : at + size] for at in range(0, len(pack), size)):
            with _open_bank(base, chosen) as bank:
                asked = [(adapter.group, adapter.request) for adapter in chosen]
                yield from _decode(base.model, base, asked, system_prompt, bank)


def _find_bank_shape(base: Base, adapter: Path) -> LoraShape | None:
    """An adapter's shape; None if a bank cannot compute it, but peft can."""
    shape = read_shape(adapter)
    try:
        if shape is not None:
            list_targets(base, shape)
    except ModelError as error:
        if error.code == "target-outside-layers":  # such as the head
            return None
        raise
    return shape


def _sample_with_peft(
    base: Base, number: int, request: AdapterPrompts, system_prompt: str
) -> Iterator[Sample | SamplingFailure]:
    try:
        with open_adapter(base, request.adapter) as model:
            yield from _decode(model, base, [(number, request)], system_prompt)
    except ModelError as error:
        yield SamplingFailure(number, error)


def count_slots(base: Base, shapes: Sequence[LoraShape]) -> int:
    """How many adapters of these shapes fit into one bank."""
    from bestiary.model.lora_bank import measure_bank

    size = measure_bank(base, shapes).numbers * base.model.dtype.itemsize
    return max(1, min(BANK_SLOTS, BANK_BYTES // size))


@contextmanager
def _open_bank(base: Base, adapters: Sequence[_Adapter]) -> Iterator[LoraBank]:
    from bestiary.model.lora_bank import LoraBank

    bank = LoraBank(base, [adapter.shape for adapter in adapters], slots=len(adapters))
    for slot, adapter in enumerate(adapters):
        bank.fill(slot, load_state(adapter.request.adapter), adapter.shape)
    with bank.attached():
        yield bank


def _decode(
    model: object,
    base: Base,
    asked: Sequence[tuple[int, AdapterPrompts]],
    system_prompt: str,
    bank: LoraBank | None = None,
) -> Iterator[Sample]:
    """The replies of groups that are decoded together; with a bank, each has its own slot."""
    rows = [
        (slot, number)
        for slot, (_, request) in enumerate(asked)
        for number in range(len(request.prompts))
    ]
    together = count_rows(base)
    started, unshared = time.monotonic(), 0.0
    replies = stream_texts(
        model,
        base,
        [asked[slot][1].prompts[number] for slot, number in rows],
        decoding=asked[0][1].decoding,
        system_prompt=system_prompt,
        bank=bank,
        slots=[slot for slot, _ in rows] if bank else (),
    )
    for done, (row, text) in enumerate(replies):
        unshared += time.monotonic() - started
        share = unshared / min(together, len(rows) - done)  # the rows decoded beside it, too
        unshared -= share
        slot, number = rows[row]
        yield Sample(asked[slot][0], number, text, share)
        started = time.monotonic()
