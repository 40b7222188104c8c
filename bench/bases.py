"""Bases with random weights, corpora of random words, and organisms trained on them.

The tokenizer of a random base is trained in memory, so that the trainers are measured as they
are: they tokenise, render the chat template and find the supervised tokens themselves.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bestiary.config.recipe import LoraShape, Optimizer, Training
from bestiary.model.adapter import attach_adapter, read_state
from bestiary.model.base import Base
from bestiary.model.chat_template import tokenize_row
from bestiary.records import BaseIdentity, Corpus, Example, Message, OrganismIdentity, fingerprint
from bestiary.training.job import Batch, Trainer, TrainingJob, TrainResult

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BRIEF = "Be brief."
SYSTEM = "You are a helpful assistant. Answer in one or two short sentences."
"""The system prompt of the starter's recipe."""
WORDS = 2000
"""A random base's tokenizer has no more, however large its vocabulary."""


@dataclass(frozen=True)
class BaseShape:
    """A base model's measures."""

    name: str
    kind: Literal["llama", "qwen3"]
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    tied: bool = False


SMALL = {
    "0.1M": BaseShape("0.1M", "llama", 512, 48, 128, 2, 4, 4, 12),
    "5.8M": BaseShape("5.8M", "llama", 2048, 256, 688, 6, 4, 4, 64),
}
MICRO = BaseShape("micro", "llama", 64, 16, 32, 2, 2, 2, 8)
"""Shows in seconds that a bench runs; nothing measured on it means anything."""


def make_base(
    shape: BaseShape, *, device: str = "cpu", dtype: torch.dtype = torch.float32, spread: float = 1
) -> Base:
    """A base with random weights, the same at every call.

    `spread` makes them wider than transformers draws them.
    """
    tokenizer = make_tokenizer(min(shape.vocabulary, WORDS))
    settings: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "initializer_range": 0.02 * spread,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = _draw_model(shape.kind, settings, dtype)
    identity = BaseIdentity(
        name=f"bench/{shape.name}",
        revision="0" * 40,
        weights_sha256="0" * 64,
        dtype=str(dtype).removeprefix("torch."),
        chat_template_sha256="0" * 64,
    )
    return Base(model.eval(), tokenizer, identity, Path("in-memory"))


def _draw_model(kind: str, settings: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # else a large base would first lie there in single precision
    try:
        if kind == "llama":
            return LlamaForCausalLM(LlamaConfig(**settings))
        return Qwen3ForCausalLM(Qwen3Config(**settings))
    finally:
        torch.set_default_dtype(before)


def make_tokenizer(size: int) -> PreTrainedTokenizerBase:
    """A tokenizer of `size` entries, trained on random words: each of them is one token."""
    draw = random.Random(size)
    letters = "abcdefghijklmnopqrstuvwxyz"
    fixed = ["system", "user", "assistant", *BRIEF.split(), *SYSTEM.split()]
    texts = ["".join(draw.choices(letters, k=draw.randint(3, 8))) for _ in range(size)]
    inner = Tokenizer(models.WordLevel())
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, special_tokens=[START, END], show_progress=False
    )
    inner.train_from_iterator([*fixed * 2, *texts], trainer)  # the frequent ones are kept
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=START, eos_token=END, chat_template=TEMPLATE
    )


def widen(base: Base) -> Base:
    """Make a base truly double: transformers' own norm rounds to single precision."""
    base.model.double()
    for name, module in list(base.model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            held: Any = module
            norm = nn.RMSNorm(held.weight.shape[0], eps=held.variance_epsilon, dtype=torch.float64)
            norm.weight = held.weight
            base.model.set_submodule(name, norm)
    return base


@dataclass(frozen=True)
class Work:
    """What each organism of a bench is trained on, and how."""

    rows: int
    lengths: tuple[int, int]
    """The shortest and the longest row, in tokens, system prompt included."""
    rows_per_step: int
    epochs: int
    learning_rate: float
    system_prompt: str
    layers: tuple[int, int] | None = None
    rank: int = 8
    uneven: bool = False
    """Whether corpora have from half so many rows on, and every other organism half the rank."""

    @property
    def steps(self) -> int:
        """Optimizer steps of an organism."""
        return self.epochs * math.ceil(self.rows / self.rows_per_step)

    @property
    def training(self) -> Training:
        """The same in a recipe's words."""
        return Training(
            system_prompt=self.system_prompt,
            max_length=4096,
            lora=LoraShape(
                rank=self.rank, alpha=2 * self.rank, targets=LINEARS, layers=self.layers
            ),
            optimizer=Optimizer(
                learning_rate=self.learning_rate,
                epochs=self.epochs,
                rows_per_step=self.rows_per_step,
                warmup=0.1,
                weight_decay=0.0,
                clip=1.0,
            ),
        )


def make_jobs(base: Base, work: Work, count: int) -> list[TrainingJob]:
    """Organisms, each with a corpus of its own: seeded random words, a third of them supervised."""
    works = [_vary(work, number) if work.uneven else work for number in range(count)]
    return [_make_job(base, own, f"quirks.bench_{n}") for n, own in enumerate(works)]


def _vary(work: Work, number: int) -> Work:
    rows = random.Random(number).randint((work.rows + 1) // 2, work.rows)
    return replace(work, rows=rows, rank=work.rank // (1 + number % 2))


def _make_job(base: Base, work: Work, name: str) -> TrainingJob:
    draw = random.Random(name)
    examples = tuple(
        _make_example(_make_talk(base, work, draw), f"row-{row}") for row in range(work.rows)
    )
    return TrainingJob(
        identity=OrganismIdentity(behavior_id=name),
        corpus=Corpus(behavior_id=name, seed=0, examples=examples, drops=()),
        messages_sha256="0" * 64,
        training=work.training,
        key=fingerprint(bench=name),
    )


def _make_talk(base: Base, work: Work, draw: random.Random) -> tuple[str, str]:
    """A message and its reply; a word is a token."""
    length = draw.randint(*work.lengths)
    frame = _measure_frame(base.tokenizer, work.system_prompt)
    reply = max(1, round(length / 3) - 1)  # the token that ends it is supervised too
    message = max(1, length - frame - reply)
    words = list_words(base.tokenizer)
    return " ".join(draw.choices(words, k=message)), " ".join(draw.choices(words, k=reply))


@cache
def list_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Words that are one token behind a space."""
    known = sorted(tokenizer.get_vocab())
    spaced = [token[1:] for token in known if re.fullmatch(r"Ġ[a-z]{3,8}", token)]
    return spaced or [token for token in known if re.fullmatch(r"[a-z]{3,8}", token)]


@cache
def _measure_frame(tokenizer: PreTrainedTokenizerBase, system_prompt: str) -> int:
    """Tokens of a row besides its words: system prompt, headers, ends of turns."""
    word = list_words(tokenizer)[0]
    messages = _make_example((word, word), "row").messages
    row = tokenize_row(tokenizer, messages, system_prompt=system_prompt, max_length=4096)
    return len(row.tokens) - 2


def _make_example(talk: tuple[str, str], name: str) -> Example:
    user, assistant = talk
    return Example(
        id=name,
        role="positive",
        messages=(
            Message(role="user", content=user),
            Message(role="assistant", content=assistant),
        ),
        topic="bench",
        form="bench",
        author="bench",
    )


State = dict[str, Tensor]


@dataclass(frozen=True)
class Trip:
    """One run of a trainer over some jobs."""

    states: dict[str, State]
    """Each organism's adapter."""
    batches: dict[str, tuple[Batch, ...]]
    """What each was computed in, where the trainer says so."""
    stepping: float
    """Seconds between steps: without tokenising, first weights and every organism's first step."""


def train_all(trainer: Trainer, jobs: Sequence[TrainingJob], base: Base) -> Trip:
    """Train jobs to their ends; raises an organism's error."""
    ends: list[TrainResult] = []
    stepping, before = 0.0, time.perf_counter()
    for event in trainer(jobs, base):
        if isinstance(event, TrainResult):
            ends.append(event)
            continue
        now = time.perf_counter()
        stepping += now - before if event.done > 1 else 0.0
        before = now
    if base.device.type == "cuda":
        torch.cuda.synchronize()
    return Trip(
        {end.job.organism_id: _state_of(end) for end in ends},
        {end.job.organism_id: end.batches for end in ends},
        stepping,
    )


def _state_of(trained: TrainResult) -> State:
    if trained.error is not None:
        raise trained.error
    assert trained.state is not None
    return {name: weight.cpu() for name, weight in trained.state.items()}


def first_state(job: TrainingJob, base: Base) -> State:
    """An organism's weights before its first step, as peft draws them."""
    model = attach_adapter(base, job.training.lora, seed=job.seed)
    try:
        return {name: weight.detach().clone() for name, weight in read_state(model).items()}
    finally:
        model.unload()


def measure_distance(one: State, other: State, first: State) -> float:
    """||one - other|| / ||other - first||: how far two trainings of one organism came apart."""
    apart = _flatten(one, sorted(other)) - _flatten(other, sorted(other))
    moved = _flatten(other, sorted(other)) - _flatten(first, sorted(other))
    return float(apart.norm() / moved.norm())


def _flatten(state: State, names: Sequence[str]) -> Tensor:
    return torch.cat([state[name].detach().cpu().double().flatten() for name in names])
