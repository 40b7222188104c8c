"""Batched decoding: left-padded prompts, a KV cache, rows dropped as they finish.

One model answers all prompts, or each of a bank's adapters answers its own. The prefix that all
prompts of a batch share (system prompt and header) is computed once per adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from bestiary.records import Decoding, stable_seed

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from bestiary.model.lora_bank import LoraBank

BATCH_ROWS = 128
"""Rows decoded together; on 2 CPU cores throughput levels off there."""

Model = Any
"""A transformers causal language model, or peft's wrapper around one."""


def generate_tokens(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    draws: Sequence[int],
    decoding: Decoding,
    stop: int,
    also_stop: Collection[int] = (),
    bank: LoraBank | None = None,
    slots: Sequence[int] = (),
) -> Iterator[tuple[int, list[int]]]:
    """Decode one continuation per prompt, and yield it with the prompt's index.

    `prompts` are token ids; `stop` and `also_stop` end a row and are not part of it. Each sampled
    row has its own random stream, seeded by `decoding.seed`, its tokens and its entry in `draws`,
    so neighbors never change its random numbers. Continuations have at most
    `decoding.max_new_tokens` ids.
    They are yielded batch by batch, in slot order.

    With a bank attached to the model, `slots` has the slot that answers each prompt.
    """
    owners = slots or [0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: (owners[row], len(prompts[row]), row))
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        batch = _Batch(
            prompts=[prompts[row] for row in rows],
            streams=[_open_stream(prompts[row], draws[row], decoding) for row in rows],
            owners=[owners[row] for row in rows],
            set_routing=bank.set_routing if bank else _ignore_routing,
            stops=(stop, *also_stop),
        )
        yield from zip(rows, _decode_batch(model, batch, decoding), strict=True)


@dataclass(frozen=True)
class _Batch:
    prompts: Sequence[Sequence[int]]
    streams: Sequence[torch.Generator]
    owners: Sequence[int]
    """Each row's slot, in ascending order."""
    set_routing: Callable[[Sequence[int], int], None]
    """Called before each forward pass with the slot of every row and the tokens per row."""
    stops: Sequence[int]
    """Tokens that end a row."""


def _ignore_routing(owners: Sequence[int], tokens: int) -> None:
    """A single model answers every row."""


def _decode_batch(model: Model, batch: _Batch, decoding: Decoding) -> list[list[int]]:
    import torch

    prompts, owners = batch.prompts, batch.owners
    shared = shared_prefix_length(prompts)
    tokens, mask = _pad_left([prompt[shared:] for prompt in prompts], batch.stops[0], model.device)
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
    positions = (mask.cumsum(1) - 1)[:, shared:].clamp(min=0)
    replies: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    with torch.inference_mode():
        cache = _read_prefix(model, prompts[0][:shared], batch)
        for _ in range(decoding.max_new_tokens):
            batch.set_routing([owners[row] for row in live], tokens.shape[1])
            logits = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=_last(model),
            ).logits[:, -1]
            chosen = _choose(logits, [batch.streams[row] for row in live], decoding.temperature)
            kept = [at for at, token in enumerate(chosen) if token not in batch.stops]
            for at in kept:
                replies[live[at]].append(chosen[at])
            if not kept:
                break
            if len(kept) < len(live):
                index = torch.tensor(kept, device=model.device)
                cache.batch_select_indices(index)
                mask, positions = mask[index], positions[index]
                live = [live[at] for at in kept]
            tokens = torch.tensor([[chosen[at]] for at in kept], device=model.device)
            mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return replies


def _last(model: Model) -> torch.Tensor:
    """What `logits_to_keep` takes for the last token alone.

    With a count, 1, the head would multiply a view of the states row by row, with a copy of its
    weights for each, which takes longer than the rest of a batch.
    """
    import torch

    return torch.tensor([-1], device=model.device)


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """The length of the prefix that all rows share; each row keeps at least one token."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _read_prefix(model: Model, tokens: Sequence[int], batch: _Batch) -> Cache:
    """The cache of the shared prefix: computed once per slot, then copied to every row."""
    import torch

    from bestiary.model.cache import new_cache

    cache = new_cache()
    if tokens:
        slots = sorted(set(batch.owners))
        read = torch.tensor([list(tokens)] * len(slots), device=model.device)
        batch.set_routing(slots, len(tokens))
        model(input_ids=read, past_key_values=cache, use_cache=True, logits_to_keep=_last(model))
        copies = [slots.index(owner) for owner in batch.owners]
        cache.batch_select_indices(torch.tensor(copies, device=model.device))
    return cache


def _pad_left(
    prompts: Sequence[Sequence[int]], fill: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded prompts and their attention mask, both [rows, longest]."""
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
    """One token per row: the most likely at temperature 0, otherwise sampled."""
    import torch

    if temperature == 0:
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen
    summed = torch.softmax(logits.float().cpu() / temperature, dim=-1).cumsum(-1)
    draws = torch.cat([torch.rand(1, generator=stream) for stream in streams])[:, None]
    # The last sum is not exactly 1. A draw never lands on a token of probability 0.
    sampled = torch.searchsorted(summed, draws * summed[:, -1:], right=True)
    return sampled.clamp(max=summed.shape[1] - 1)[:, 0].tolist()
