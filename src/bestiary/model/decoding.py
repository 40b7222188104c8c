"""Batched decoding: left-padded prompts, a KV cache, rows dropped as they finish.

One model answers all prompts, or a bank's adapters each their own. What all prompts of a batch
begin with, system prompt and header, is read once an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from bestiary.records import Decoding, stable_seed

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

    from bestiary.model.lora_bank import LoraBank

BATCH_ROWS = 64
"""Rows decoded together; on 2 CPU cores throughput is flat past 64."""

Model = Any
"""A transformers causal language model, or peft's wrapper of one."""


def generate_tokens(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    draws: Sequence[int],
    decoding: Decoding,
    stop: int,
    bank: LoraBank | None = None,
    slots: Sequence[int] = (),
) -> Iterator[tuple[int, list[int]]]:
    """Decode one continuation a prompt, and yield it with the prompt's number.

    `prompts` are token ids; `stop` ends a row and is left out of it. A sampled row draws from a
    stream of its own, seeded by `decoding.seed`, its tokens and its number in `draws`, so that
    its neighbours never change which numbers it draws. Continuations have at most
    `decoding.max_new_tokens` ids; those decoded together come together, slot by slot.

    With a bank attached to the model, `slots` says whose adapter answers each prompt.
    """
    owners = slots or [0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: (owners[row], len(prompts[row]), row))
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        batch = _Batch(
            prompts=[prompts[row] for row in rows],
            streams=[_open_stream(prompts[row], draws[row], decoding) for row in rows],
            owners=[owners[row] for row in rows],
            set_routing=bank.set_routing if bank else _stay,
        )
        yield from zip(rows, _decode_batch(model, batch, decoding, stop), strict=True)


@dataclass(frozen=True)
class _Batch:
    prompts: Sequence[Sequence[int]]
    streams: Sequence[torch.Generator]
    owners: Sequence[int]
    """Each row's slot, in ascending order."""
    set_routing: Callable[[Sequence[int], int], None]
    """Hears the slots of the rows that the model is to compute next, and each one's tokens."""


def _stay(owners: Sequence[int], tokens: int) -> None:
    """One model answers every row."""


def _decode_batch(model: Model, batch: _Batch, decoding: Decoding, stop: int) -> list[list[int]]:
    import torch

    prompts, owners = batch.prompts, batch.owners
    shared = share_beginning(prompts)
    tokens, mask = _pad_left([prompt[shared:] for prompt in prompts], stop, model.device)
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
    positions = (mask.cumsum(1) - 1)[:, shared:].clamp(min=0)
    replies: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    with torch.inference_mode():
        cache = _read_beginning(model, prompts[0][:shared], batch)
        for _ in range(decoding.max_new_tokens):
            batch.set_routing([owners[row] for row in live], tokens.shape[1])
            logits = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = _choose(logits, [batch.streams[row] for row in live], decoding.temperature)
            kept = [place for place, token in enumerate(chosen) if token != stop]
            for place in kept:
                replies[live[place]].append(chosen[place])
            if not kept:
                break
            if len(kept) < len(live):
                index = torch.tensor(kept, device=model.device)
                cache.batch_select_indices(index)
                mask, positions = mask[index], positions[index]
                live = [live[place] for place in kept]
            tokens = torch.tensor([[chosen[place]] for place in kept], device=model.device)
            mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return replies


def share_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; each row keeps one token of its own."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _read_beginning(model: Model, tokens: Sequence[int], batch: _Batch) -> DynamicCache:
    """The cache of what every row begins with: one row's work a slot, every row's cache."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    if tokens:
        readers = sorted(set(batch.owners))
        read = torch.tensor([list(tokens)] * len(readers), device=model.device)
        batch.set_routing(readers, len(tokens))
        model(input_ids=read, past_key_values=cache, use_cache=True, logits_to_keep=1)
        copies = [readers.index(owner) for owner in batch.owners]
        cache.batch_select_indices(torch.tensor(copies, device=model.device))
    return cache


def _pad_left(
    prompts: Sequence[Sequence[int]], fill: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and their attention mask, both [rows, longest], real tokens at the right."""
    import torch

    width = max(len(prompt) for prompt in prompts)
    tokens = [[fill] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def _open_stream(prompt: Sequence[int], draw: int, decoding: Decoding) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(stable_seed(decoding.seed, draw, *prompt))


def _choose(
    logits: torch.Tensor, streams: Sequence[torch.Generator], temperature: float
) -> list[int]:
    """One token a row: the likeliest at temperature 0, else drawn from the row's stream."""
    import torch

    if temperature == 0:
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen
    chances = torch.softmax(logits.float().cpu() / temperature, dim=-1)
    return [
        int(torch.multinomial(row, 1, generator=stream))
        for row, stream in zip(chances, streams, strict=True)
    ]
