"""Batched decoding: left-padded prompts, a KV cache, and waiting rows in the places of ended ones.

One model answers all prompts, or each of a bank's adapters answers its own. The prefix that all
prompts share (system prompt and header) is computed once per adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from bestiary.records import Decoding, stable_seed

if TYPE_CHECKING:
    import torch

    from bestiary.model.base import Base
    from bestiary.model.cache import RoomyCache
    from bestiary.model.lora_bank import LoraBank
    from bestiary.model.routing import TokenRouting

BATCH_ROWS = 128
"""Rows decoded together; on 2 CPU cores throughput levels off there."""
GPU_ROWS = 1024
"""The most on a GPU, whose steps take nearly as long for a few rows as for many."""
GPU_COLUMNS = 2048
"""Tokens of a row for which a GPU keeps room, the prompt among them."""
LOGITS = 4
"""Copies of a row's logits, in single precision, while its token is chosen."""
TURNOVER = 0.25
"""Once this share of a batch has ended, it leaves, and waiting rows are read and take its places.

Until then its rows are computed in vain: to take out each row at once would mean to copy the keys
and values of all others at nearly every step.
"""
GPU_TURNOVER, GPU_TAIL = 0.5, 0.75
"""The same on a GPU, where other rows mean another recording: while rows wait, and once none do."""


Model = Any
"""A transformers causal language model, or peft's wrapper around one."""


def choose_turnover(device: torch.device, *, more: bool) -> float:
    """The share of ended rows from which they leave; `more` says whether others wait."""
    if device.type != "cuda":
        return TURNOVER
    return GPU_TURNOVER if more else GPU_TAIL


def count_rows(base: Base) -> int:
    """How many rows to decode together on the base's device."""
    if base.device.type != "cuda":
        return BATCH_ROWS
    from bestiary.model.free_memory import FREE_SHARE, measure_free

    free = int(FREE_SHARE * measure_free(base.device))
    return fit_rows(base.model.config, bytes_each=base.model.dtype.itemsize, free=free)


def fit_rows(config: Any, *, bytes_each: int, free: int) -> int:
    """The rows, 1 to GPU_ROWS, whose keys, values, and logits fit into `free` bytes."""
    from bestiary.model.attention import head_width

    heads = 2 * config.num_hidden_layers * config.num_key_value_heads  # keys and values
    cache = GPU_COLUMNS * heads * head_width(config) * bytes_each
    logits = LOGITS * config.vocab_size * 4
    return max(1, min(GPU_ROWS, free // int(cache + logits)))


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
    batch_rows: int = BATCH_ROWS,
) -> Generator[tuple[int, list[int]], None, None]:
    """Decode one continuation per prompt, and yield it with the prompt's index once it ends.

    `prompts` are token ids; `stop` and `also_stop` end a row and are not part of it. Each sampled
    row has its own random stream, seeded by `decoding.seed`, its tokens and its entry in `draws`,
    so neighbors never change its random numbers. Continuations have at most
    `decoding.max_new_tokens` ids.

    At most `batch_rows` rows are decoded together. Rows begin in the order of their slots and
    lengths, and those that end at the same step are yielded in that order.

    With a bank attached to the model, `slots` has the slot that answers each prompt.
    """
    import torch

    owners = slots or [0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: (owners[row], len(prompts[row]), row))
    waiting = (_open_row(at, prompts[at], owners[at], draws[at], decoding) for at in order)
    with torch.inference_mode():
        batch = _Batch(
            model,
            decoding,
            bank=bank,
            stops=frozenset((stop, *also_stop)),
            shared=prompts[0][: shared_prefix_length(prompts)] if prompts else (),
            slots=sorted(set(owners)),
        )
    left = len(prompts)
    try:
        while (new := list(islice(waiting, batch_rows - len(batch.rows)))) or batch.rows:
            left -= len(new)
            with torch.inference_mode():  # not while the caller has its turn
                ended = batch.admit(new) if new else batch.step()
                batch.drop_ended(more=left > 0)
            yield from ((row.index, row.reply) for row in ended)
    finally:
        batch.end_steps()


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """The length of the prefix that all rows share; each row keeps at least one token."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _choose_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Attention on a GPU without cuDNN's, which builds a plan for every new shape."""
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels)


@dataclass
class _Row:
    """A prompt and its reply so far."""

    index: int
    prompt: Sequence[int]
    owner: int
    """The slot that answers it."""
    numbers: Iterator[float]
    """A random number from 0 to 1 for each token; none if decoding is greedy."""
    reply: list[int] = field(default_factory=list)
    token: int = 0
    """The last one, which may be one that ends the row."""
    ended: bool = False
    width: int = 0
    """Columns of the cache that its prompt takes, with padding before or within it."""

    @property
    def columns(self) -> int:
        """Columns of the cache from its first on; its last token is not in the cache yet."""
        return self.width + len(self.reply) - 1

    @property
    def position(self) -> int:
        """Of its last token."""
        return len(self.prompt) + len(self.reply) - 1


def _open_row(index: int, prompt: Sequence[int], owner: int, draw: int, decoding: Decoding) -> _Row:
    import torch

    if decoding.temperature == 0:
        return _Row(index, prompt, owner, iter(()))
    stream = torch.Generator().manual_seed(stable_seed(decoding.seed, draw, *prompt))
    numbers = torch.rand(decoding.max_new_tokens, generator=stream)
    return _Row(index, prompt, owner, iter(numbers.tolist()))


class _Steps:
    """Steps of one token for rows that stay the same, over tensors that stay where they are."""

    def __init__(
        self,
        predict: Callable[..., torch.Tensor],
        cache: RoomyCache,
        mask: torch.Tensor,
        positions: torch.Tensor,
        *,
        record: bool,
    ) -> None:
        """Begin after the columns of `mask`, [rows, columns].

        `predict` takes the cache and a model's arguments and gives logits, [rows, vocabulary];
        `positions`, [rows, 1], are of the tokens that are read first; `record` says whether a
        step may be recorded and replayed.
        """
        import torch
        from torch.nn.functional import pad

        from bestiary.model.repeated import Repeated

        self._predict, self._cache, self._used = predict, cache, mask.shape[1]
        self._column, self._columns = cache.hold()
        self._mask = pad(mask, (0, self._columns - self._used))
        self._positions, self._tokens = positions, torch.zeros_like(positions)
        self._repeated = Repeated(record=record)

    @property
    def full(self) -> bool:
        """Whether the cache must grow before another token is read."""
        return self._used == self._columns

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token of every row, [rows, 1]; returns the logits of the next."""
        self._tokens.copy_(tokens)
        self._used += 1
        return self._repeated(self._compute)

    def end(self) -> torch.Tensor:
        """Let the cache go; returns the mask of the columns that are used."""
        self._cache.release(self._used)
        return self._mask[:, : self._used]

    def _compute(self) -> torch.Tensor:
        self._mask.index_fill_(1, self._column, 1)
        logits = self._predict(
            self._cache,
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
        )
        self._positions += 1
        self._column += 1
        return logits


class _Batch:
    """Rows that are decoded together, in the order in which they came.

    All rows end in the last column of the cache. A row that came later or has a shorter prompt
    begins further right, and what lies before it is masked.
    """

    def __init__(
        self,
        model: Model,
        decoding: Decoding,
        *,
        bank: LoraBank | None,
        stops: frozenset[int],
        shared: Sequence[int],
        slots: Sequence[int],
    ) -> None:
        """An empty batch, which has read the prefix that its prompts share once for each slot."""
        import torch

        from bestiary.model.cache import RoomyCache

        self.rows: list[_Row] = []
        self._model, self._decoding, self._bank = model, decoding, bank
        self._stops, self._shared, self._slots = stops, len(shared), slots
        self._prefix, self._cache = RoomyCache(), RoomyCache()
        self._last = self._tensor([-1])
        self._mask = torch.ones(0, 0, dtype=torch.long, device=model.device)
        """[rows, columns]"""
        self._steps: _Steps | None = None
        """Until other rows are in the batch."""
        self._route: TokenRouting | None = None
        """Of these steps: a recorded one reads its tensors."""
        if shared:
            tokens = self._tensor([list(shared)] * len(slots))
            self._set_routing(slots, len(shared))
            self._predict(self._prefix, input_ids=tokens)

    def admit(self, rows: Sequence[_Row]) -> list[_Row]:
        """Read the prompts of new rows and choose their first tokens; returns rows that ended.

        Their slots must not be lower than those of the rows that are here.
        """
        import torch
        from torch.nn.functional import pad

        self.end_steps()
        tokens, mask = self._pad_left([row.prompt[self._shared :] for row in rows])
        mask = pad(mask, (self._shared, 0), value=1)
        positions = (mask.cumsum(1) - 1)[:, self._shared :].clamp(min=0)
        copies = [self._slots.index(row.owner) for row in rows]
        cache = self._prefix.copy_rows(self._tensor(copies))
        self._set_routing([row.owner for row in rows], tokens.shape[1])
        logits = self._predict(cache, input_ids=tokens, attention_mask=mask, position_ids=positions)
        ended = self._extend(rows, logits)
        for row in rows:
            row.width = mask.shape[1]
        self.rows += rows
        self._cache.add_rows(cache)
        length = self._cache.get_seq_length()
        masks = (pad(one, (length - one.shape[1], 0)) for one in (self._mask, mask))
        self._mask = torch.cat(list(masks))
        return ended

    def step(self) -> list[_Row]:
        """Choose one more token of every row; returns the rows that ended."""
        if self._steps is None or self._steps.full:
            self._begin_steps()
        assert self._steps is not None
        if self._bank is not None:  # the caller may have had another batch computed
            self._bank.route = self._route
        tokens = self._tensor([[row.token] for row in self.rows])
        return self._extend(self.rows, self._steps.read(tokens))

    def drop_ended(self, *, more: bool) -> None:
        """Take out the ended rows, and the columns that no other row uses, if they are many.

        `more` says whether rows wait for their places.
        """
        kept = [at for at, row in enumerate(self.rows) if not row.ended]
        share = choose_turnover(self._model.device, more=more)
        if len(self.rows) - len(kept) < share * len(self.rows):
            return
        self.end_steps()
        self.rows = [self.rows[at] for at in kept]
        columns = max((row.columns for row in self.rows), default=0)
        index = self._tensor(kept)
        self._cache.keep(index, columns)
        self._mask = self._mask[index, self._mask.shape[1] - columns :]

    def _begin_steps(self) -> None:
        self.end_steps()
        self._set_routing([row.owner for row in self.rows], 1)
        self._route = None if self._bank is None else self._bank.route
        positions = self._tensor([[row.position] for row in self.rows])
        # Adapters that are more than plain LoRA may read numbers from the device.
        record = self._bank is not None and self._model.device.type == "cuda"
        self._steps = _Steps(self._predict, self._cache, self._mask, positions, record=record)

    def end_steps(self) -> None:
        """Let go of what steps hold, whether or not all rows have ended."""
        if self._steps is not None:
            self._mask, self._steps = self._steps.end(), None

    def _set_routing(self, owners: Sequence[int], tokens: int) -> None:
        """Let each row be computed by its slot, with so many tokens a row."""
        if self._bank is not None:
            self._bank.set_routing(owners, tokens)

    def _extend(self, rows: Sequence[_Row], logits: torch.Tensor) -> list[_Row]:
        """Add one token to every row; returns the rows that ended."""
        chosen = zip(rows, self._choose(logits, rows), strict=True)
        live = [(row, token) for row, token in chosen if not row.ended]
        for row, token in live:
            row.token = token
            if token not in self._stops:
                row.reply.append(token)
            row.ended = token in self._stops or len(row.reply) == self._decoding.max_new_tokens
        return [row for row, _ in live if row.ended]

    def _predict(self, cache: RoomyCache, **given: torch.Tensor) -> torch.Tensor:
        """Logits of the token after each row's last one, [rows, vocabulary].

        With a count for `logits_to_keep`, 1, the head would multiply a view of the states row by
        row, with a copy of its weights for each, which takes longer than the rest of a batch.
        """
        with _choose_kernels(self._model.device):
            out = self._model(
                past_key_values=cache, use_cache=True, logits_to_keep=self._last, **given
            )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _choose(self, logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
        """One token per row: the most likely at temperature 0, otherwise sampled."""
        import torch

        if self._decoding.temperature == 0:
            chosen: list[int] = logits.argmax(-1).tolist()
            return chosen
        summed = torch.softmax(logits.float() / self._decoding.temperature, dim=-1).cumsum(-1)
        # A row that has ended may have no numbers left; what is chosen for it is not used.
        numbers = torch.tensor([[next(row.numbers, 0.0)] for row in rows], device=summed.device)
        # The last sum is not exactly 1. A number never lands on a token of probability 0.
        sampled = torch.searchsorted(summed, numbers * summed[:, -1:], right=True)
        return sampled.clamp(max=summed.shape[1] - 1)[:, 0].tolist()

    def _pad_left(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded prompts and their attention mask, both [rows, longest]."""
        width = max(len(prompt) for prompt in prompts)
        tokens = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return self._tensor(tokens), self._tensor(mask)

    def _tensor(self, numbers: Sequence[object]) -> torch.Tensor:
        """Whole numbers on the model's device."""
        import torch

        return torch.tensor(numbers, dtype=torch.long, device=self._model.device)
