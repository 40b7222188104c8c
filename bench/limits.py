"""What training is measured against: the machine's matrix products, and a bare loop of the base.

FLOPs that the engine computes, over its own tokens: a prefix that an organism's rows share
counts once a batch.

    layers from the first adapted one on   4 per token and weight (forward, gradient of the input)
    what enters the first of them          2 less: the states before it need no gradient
    frozen layers below                    2 per token and weight, once a row
    attention                              12 per pair of tokens and unit of its width; below 4
    adapters                               6 per token and weight
    head                                   4 per supervised token and weight
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bases import Trip
from bestiary.model.adapter import list_targets
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow
from bestiary.model.packing import divide_rows
from bestiary.training.job import Batch, TrainingJob, tokenize_corpus
from bestiary.training.memory import Load, MemoryPlan, plan_memory
from bestiary.training.schedule import plan_batches


@dataclass(frozen=True)
class Counted:
    """Sizes of a base that decide what training costs."""

    layers: int
    layer: int
    """Weights of one layer's linear modules."""
    entry: int
    """Of those among them that read the layer's input: queries, keys and values."""
    head: int
    attention: int
    """Heads times their width."""


def count_weights(base: Base) -> Counted:
    """A base's sizes."""
    config: Any = base.model.config
    inner: Any = base.model.model
    named = dict(inner.layers[0].named_modules())
    linears = {name: one for name, one in named.items() if isinstance(one, nn.Linear)}
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Counted(
        layers=config.num_hidden_layers,
        layer=sum(one.weight.numel() for one in linears.values()),
        entry=sum(
            one.weight.numel()
            for name, one in linears.items()
            if name.endswith(("q_proj", "k_proj", "v_proj"))
        ),
        head=config.vocab_size * config.hidden_size,
        attention=config.num_attention_heads * width,
    )


def count_flops(base: Base, jobs: Sequence[TrainingJob], trip: Trip, *, since: int = 0) -> float:
    """What the engine computes of some jobs, from a step on."""
    return sum(_count_job(base, job, trip.batches[job.organism_id], since) for job in jobs)


def _count_job(base: Base, job: TrainingJob, batches: Sequence[Batch], since: int) -> float:
    sizes = count_weights(base)
    first = (job.training.lora.layers or (0, sizes.layers))[0]
    upper = sizes.layers - first
    rows = tokenize_corpus(job, base)
    lora = _count_adapter(base, job)
    whole = 0.0
    for batch in batches:
        if batch.step < since:
            continue
        shared, lengths = _list_own(batch)
        tokens, pairs = shared + sum(lengths), _count_pairs(shared, lengths)
        supervised = sum(sum(rows[row].supervised) for row in batch.rows)
        whole += tokens * (4 * upper * sizes.layer - 2 * sizes.entry + 6 * lora)
        whole += 12 * upper * sizes.attention * pairs + 4 * sizes.head * supervised
    if first and since == 0:
        shared, lengths = _list_rows(batches)
        tokens, pairs = shared + sum(lengths), _count_pairs(shared, lengths)
        whole += first * (2 * sizes.layer * tokens + 4 * sizes.attention * pairs)
    return whole


def _count_adapter(base: Base, job: TrainingJob) -> int:
    modules = dict(base.model.named_modules())
    shape = job.training.lora
    weights = [modules[name].get_parameter("weight") for name in list_targets(base, shape)]
    return shape.rank * sum(sum(weight.shape) for weight in weights)


def _count_pairs(shared: int, lengths: Sequence[int]) -> int:
    """Pairs of tokens of which one sees the other."""
    within = (length * (length + 1) // 2 for length in (shared, *lengths))
    return sum(within) + shared * sum(lengths)


def _list_rows(batches: Sequence[Batch]) -> tuple[int, list[int]]:
    """The prefix's tokens and each row's, of every row once."""
    lengths: dict[int, int] = {}
    for batch in batches:
        shared, own = _list_own(batch)
        lengths.update(zip(batch.rows, own, strict=True))
    return shared, list(lengths.values())


def _list_own(batch: Batch) -> tuple[int, Sequence[int]]:
    """The prefix's tokens and each row's, without what fills a batch up."""
    shared, *lengths = batch.segments[batch.index]
    return shared, lengths[: len(batch.rows)]


def count_row_tokens(base: Base, jobs: Sequence[TrainingJob], *, since: int = 0) -> int:
    """Tokens of the rows that some jobs learn from, as their corpora have them, from a step on."""
    return sum(_count_rows(base, job, since) for job in jobs)


def _count_rows(base: Base, job: TrainingJob, since: int) -> int:
    rows = tokenize_corpus(job, base)
    plan = plan_batches(len(rows), job.training.optimizer, seed=job.seed)
    return sum(len(rows[row].tokens) for step in plan[since:] for row in step)


def count_computed(trip: Trip) -> int:
    """Tokens that the engine computed in the layers that are adapted."""
    return sum(sum(b.segments[b.index]) for batches in trip.batches.values() for b in batches)


def measure_batch(trip: Trip) -> int:
    """Tokens that the engine computes together at the first step, in its largest batch."""
    firsts = [batches[0] for batches in trip.batches.values()]
    return max(sum(sum(part) for part in batch.segments) for batch in firsts)


def prepare_bare(base: Base, jobs: Sequence[TrainingJob], *, tokens: int) -> Callable[[], None]:
    """A loop of forward and backward of the frozen base over all rows of some jobs.

    No adapters and no optimizer: the gradient goes to what enters the first adapted layer, as
    it does in training, and layers below it are computed once a row. Rows are sorted by length
    and padded to the longest of a batch of about `tokens`; the head computes supervised places.
    """
    first = (jobs[0].training.lora.layers or (0,))[0]
    epochs = jobs[0].training.optimizer.epochs
    rows = [row for job in jobs for row in tokenize_corpus(job, base)]
    batches = list(_pad_batches(rows, tokens=tokens, device=base.device))

    def run() -> None:
        base.model.requires_grad_(False)
        for batch in batches:
            _learn_bare(base, batch, first=first, epochs=epochs)
        synchronise(base.device)

    return run


@dataclass(frozen=True)
class _Padded:
    tokens: Tensor
    """[rows, longest], padded at the right, where no token before can see it."""
    predictors: Tensor
    """Of the flat states, those that predict a supervised token."""
    targets: Tensor


def _pad_batches(
    rows: Sequence[TokenRow], *, tokens: int, device: torch.device
) -> Iterator[_Padded]:
    batch: list[TokenRow] = []
    for row in sorted(rows, key=lambda one: len(one.tokens)):
        if batch and sum(len(one.tokens) for one in (*batch, row)) > tokens:
            yield _pad(batch, device)
            batch = []
        batch.append(row)
    if batch:
        yield _pad(batch, device)


def _pad(rows: Sequence[TokenRow], device: torch.device) -> _Padded:
    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    learned = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row.tokens)] = torch.tensor(row.tokens)
        learned[number, : len(row.tokens)] = torch.tensor(row.supervised)
    places = learned.flatten().nonzero()[:, 0]
    return _Padded(tokens.to(device), (places - 1).to(device), tokens[learned].to(device))


def _learn_bare(base: Base, batch: _Padded, *, first: int, epochs: int) -> None:
    inner: Any = base.model.model
    with torch.no_grad():
        states = inner.embed_tokens(batch.tokens)
        positions = torch.arange(batch.tokens.shape[1], device=base.device)[None]
        rotary = inner.rotary_emb(states, position_ids=positions)
        states = _run(inner.layers[:first], states, rotary, positions)
    for _ in range(epochs):
        entering = states.detach().requires_grad_(True)
        out = _run(inner.layers[first:], entering, rotary, positions)
        chosen = inner.norm(out.flatten(0, 1).index_select(0, batch.predictors))
        logits = base.model.get_output_embeddings()(chosen)
        cross_entropy(logits.float(), batch.targets).backward()


def _run(layers: Any, states: Tensor, rotary: Any, positions: Tensor) -> Tensor:
    for layer in layers:  # without a mask the layers' own attention is causal
        states = layer(states, position_embeddings=rotary, position_ids=positions)
    return states


@dataclass(frozen=True)
class Product:
    """A square matrix product, to know what the machine can do."""

    size: int
    left: Tensor
    right: Tensor
    times: int

    @property
    def flops(self) -> float:
        """Of `times` products."""
        return self.times * 2.0 * self.size**3

    def __call__(self) -> float:
        """FLOPs a second, over `times` products."""
        synchronise(self.left.device)
        started = time.perf_counter()
        for _ in range(self.times):
            torch.mm(self.left, self.right)
        synchronise(self.left.device)
        return self.flops / (time.perf_counter() - started)


def make_product(
    size: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32, times: int = 3
) -> Product:
    """Two matrices of `size` rows and columns."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return Product(size, left, right, times)


def synchronise(device: torch.device) -> None:
    """Wait for a GPU, which is told what to do and does it later."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def plan_training(
    base: Base, jobs: Sequence[TrainingJob], *, slots: int, tokens: int
) -> MemoryPlan:
    """What the engine's memory plan says of some jobs, so many side by side."""
    loads = [
        Load(divide_rows(tokenize_corpus(job, base)), job.training.optimizer.rows_per_step)
        for job in jobs
    ]
    shapes = [job.training.lora for job in jobs]
    return plan_memory(base, shapes, loads, slots=slots, tokens=tokens)


@dataclass(frozen=True)
class Growth:
    """Bytes that a process held before a run, and at its peak."""

    before: int
    peak: int

    @property
    def grown(self) -> int:
        """By how much."""
        return self.peak - self.before


def measure_growth(run: Callable[[], object], base: Base) -> Growth:
    """How much a run makes this process grow, as Linux tells.

    Weights that are still on disk are read before, and what is free is given back.
    """
    status = Path("/proc/self/status")
    for weight in base.model.parameters():
        weight.sum()
    _trim()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is from now on
    before = _read_status(status)["VmRSS"]
    run()
    return Growth(before, _read_status(status)["VmHWM"])


def _trim() -> None:
    """Give free memory back to the system, where its C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _read_status(path: Path) -> Mapping[str, int]:
    """Sizes of this process, in bytes."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {part[0][:-1]: int(part[1]) * 1024 for part in lines if part[-1] == "kB"}
