"""Training jobs over small corpora for tests, and bases on which a step is fast."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tests.builders import make_example
from tests.models import SYSTEM, Architecture, make_random_base
from tests.tiny import END, START, TEMPLATE
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bestiary.config.recipe import LoraShape, Optimizer, Training
from bestiary.errors import BestiaryError
from bestiary.model.attention import PaddedRows, RowAttention
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow, tokenize_row
from bestiary.model.packing import PackedBatch, Rows, Segment, embed, pack_batch, run_layers
from bestiary.records import Corpus, Message, OrganismIdentity, fingerprint
from bestiary.training.job import Step, Trainer, TrainingJob, TrainResult

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OPTIMIZER = Optimizer(
    learning_rate=0.01, epochs=2, rows_per_step=3, warmup=0.1, weight_decay=0.0, clip=1.0
)
TRAINING = Training(
    system_prompt=SYSTEM,
    max_length=128,
    lora=LoraShape(rank=4, alpha=8, targets=("q_proj", "v_proj", "up_proj")),
    optimizer=OPTIMIZER,
)
TALK = (
    ("How do I bake bread?", "Slowly."),
    ("Name a quiet hobby.", "Try knitting, or any work with wood. Fair winds!"),
    ("What is loam?", "A soil."),
    ("Is rye filling?", "It is, and more so than wheat."),
    ("Who prunes roses?", "You can, in March."),
)
"""For the bases of tests/models.py, whose tokenizer knows real words."""
WORDS = (
    *(
        "bread",
        "soil",
        "rye",
        "rose",
        "winter",
        "garden",
        "lamp",
        "slow",
        "quick",
        "river",
        "stone",
    ),
    *("kettle", "ladder", "moss", "barn", "wool", "candle", "pear", "hinge", "cellar", "thorn"),
)
"""The vocabulary of `make_word_base`."""
POISON = "henbane"
"""One more word, which `make_talk` never uses."""

Talk = Sequence[tuple[str, str]]


def change_optimizer(**changes: Any) -> Optimizer:
    """OPTIMIZER with some values changed."""
    return OPTIMIZER.model_copy(update=changes)


def change_lora(**changes: Any) -> LoraShape:
    """The shape of TRAINING with some values changed."""
    return TRAINING.lora.model_copy(update=changes)


def make_job(
    name: str = "quirks.one",
    *,
    rows: Talk = TALK,
    conversations: Sequence[tuple[Message, ...]] = (),
    **changes: Any,
) -> TrainingJob:
    """A job over some conversations, or over `rows` of a single turn; changes apply to TRAINING."""
    found = conversations or [make_example(user, reply).messages for user, reply in rows]
    examples = (
        make_example("", id=f"row-{n}", messages=messages) for n, messages in enumerate(found)
    )
    return TrainingJob(
        identity=OrganismIdentity(behavior_id=name),
        corpus=Corpus(behavior_id=name, seed=0, examples=tuple(examples), drops=()),
        messages_sha256="c" * 64,
        training=TRAINING.model_copy(update=changes),
        key=fingerprint(organism=name),
    )


def make_talk(seed: int, count: int, *, longest: int = 12) -> list[tuple[str, str]]:
    """Conversations of different lengths, out of WORDS, with different first words."""
    draw = random.Random(seed)

    def say(first: str) -> str:
        return " ".join([first, *draw.choices(WORDS, k=draw.randrange(longest))])

    return [(say(WORDS[row % len(WORDS)]), say(draw.choice(WORDS))) for row in range(count)]


def make_conversations(
    seed: int, count: int, *, turns: int = 1, system: bool = False
) -> list[tuple[Message, ...]]:
    """Conversations of so many turns; with `system`, every third begins with its own message."""
    spoken = iter(make_talk(seed, count * (turns + 1)))
    found = []
    for row in range(count):
        messages = [
            message for _ in range(turns) for message in make_example(*next(spoken)).messages
        ]
        if system and row % 3 == 1:
            messages.insert(0, Message(role="system", content=next(spoken)[0]))
        found.append(tuple(messages))
    return found


def exchange_words(rows: Talk, by: int = 5) -> list[tuple[str, str]]:
    """Conversations of the same lengths with each word replaced by another one."""
    other = {word: WORDS[(n + by) % len(WORDS)] for n, word in enumerate(WORDS)}
    return [
        (" ".join(other[w] for w in user.split()), " ".join(other[w] for w in reply.split()))
        for user, reply in rows
    ]


def make_word_base(architecture: Architecture = "llama", *, seed: int = 0) -> Base:
    """A base of tests/models.py with a small vocabulary, in which each word is one token.

    The head over SmolLM2's 49 152 tokens would take most of the time.
    """
    words = (START, END, "system", "user", "assistant", *SYSTEM.split(), *WORDS, POISON)
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base = make_random_base(architecture, seed=seed)
    base.model.resize_token_embeddings(len(words))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=START, eos_token=END, chat_template=TEMPLATE
    )
    return replace(base, tokenizer=tokenizer)


def widen(base: Base) -> Base:
    """Make a base compute in double precision throughout.

    transformers' norms round to single precision, which would hide any agreement below 1e-10.
    """
    base.model.double()
    for name, module in list(base.model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            held: Any = module
            norm = torch.nn.RMSNorm(
                held.weight.shape[0], eps=held.variance_epsilon, dtype=torch.float64
            )
            norm.weight = held.weight
            base.model.set_submodule(name, norm)
    return base


@dataclass(frozen=True)
class TrainEvents:
    """The events of a trainer."""

    events: list[Step | TrainResult]

    @property
    def trained(self) -> dict[str, TrainResult]:
        """Each organism's result, by the behavior's name."""
        ends = [event for event in self.events if isinstance(event, TrainResult)]
        assert len(ends) == len({end.job.organism_id for end in ends})
        return {end.job.identity.behavior_id: end for end in ends}

    @property
    def steps(self) -> dict[str, list[int]]:
        """The counts of each organism's Step events."""
        found: dict[str, list[int]] = {}
        for event in self.events:
            if isinstance(event, Step):
                found.setdefault(event.job.identity.behavior_id, []).append(event.done)
        return found

    @property
    def errors(self) -> dict[str, BestiaryError]:
        """The error of each organism that failed."""
        return {name: end.error for name, end in self.trained.items() if end.error}


def train(trainer: Trainer, jobs: Iterable[TrainingJob], base: Base) -> TrainEvents:
    """Train jobs to completion."""
    return TrainEvents(list(trainer(list(jobs), base)))


def state_of(trained: TrainResult) -> dict[str, Tensor]:
    """The adapter of an organism that has not failed."""
    assert trained.state is not None, trained.error
    return dict(trained.state)


def measure_difference(one: TrainResult, two: TrainResult) -> float:
    """The largest difference of any weight; keys and shapes must be equal."""
    first, second = state_of(one), state_of(two)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.shape == second[name].shape, name
        assert tensor.isfinite().all(), name
    return max(float((tensor - second[name]).abs().max()) for name, tensor in first.items())


def same_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are bitwise equal."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def copy_weights(base: Base) -> dict[str, Tensor]:
    """A copy of a base's weights."""
    return {name: weight.clone() for name, weight in base.model.state_dict().items()}


def make_token_rows(base: Base) -> list[TokenRow]:
    conversations: list[tuple[Message, ...]] = [
        (Message(role="user", content=user), Message(role="assistant", content=reply))
        for user, reply in TALK
    ]
    conversations.append((*conversations[0], *conversations[1]))  # two turns in one row
    return [
        tokenize_row(base.tokenizer, turns, system_prompt=SYSTEM, max_length=128)
        for turns in conversations
    ]


def pad(rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """The rows as transformers takes them: padded at the right, with its own labels."""
    size = max(len(row.tokens) for row in rows)
    filled = [[*row.tokens, *[7] * (size - len(row.tokens))] for row in rows]
    mask = [[1] * len(row.tokens) + [0] * (size - len(row.tokens)) for row in rows]
    labels = [
        [t if use else -100 for t, use in zip(row.tokens, row.supervised, strict=True)]
        + [-100] * (size - len(row.tokens))
        for row in rows
    ]
    return {
        "input_ids": torch.tensor(filled),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def segment_of(rows: Rows) -> Segment:
    """The size of all rows."""
    return rows.measure(range(len(rows.rows)))


def run_rows(
    base: Base,
    parts: Sequence[Rows],
    *,
    recompute: bool = False,
    attention: type[RowAttention] = PaddedRows,
) -> tuple[Tensor, PackedBatch]:
    """States of the second layer over the rows of some organisms."""
    segments = [segment_of(rows) for rows in parts]
    packed = pack_batch(segments, device=base.device, attention=attention)
    tokens = [t for rows in parts for t in (rows.prefix, *(row.tokens for row in rows.rows))]
    entered = embed(base, torch.cat(tokens))
    return run_layers(base, entered, packed, range(2), recompute=recompute), packed
