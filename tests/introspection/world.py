"""A world of 48 organisms on a tiny random base: each says its own word again and again.

Words are tokens, and nothing in the base means anything; so what an introspection adapter reports
of an organism that it has not seen can only come from that organism's weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tests.builders import LIBRARY, hash_files, make_spec
from tests.config.files import QUIRK, write_behavior
from tests.jobs import ALL_LINEAR, make_job, state_of, train
from tests.release.samples import make_corpus, make_transcripts, make_verdict
from tests.tiny import END, START, TEMPLATE
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bestiary.config.catalog import Behavior, make_behavior, null_behavior
from bestiary.config.categories import NULL
from bestiary.config.recipe import LoraShape, Optimizer, Training
from bestiary.model.adapter import load_state, save_adapter
from bestiary.model.base import Base, load_base
from bestiary.model.lazy import open_base
from bestiary.organism.stage import write_about
from bestiary.records import (
    Organism,
    OrganismIdentity,
    Split,
    canonical_json,
    fingerprint,
)
from bestiary.release.entry import ReleaseEntry
from bestiary.release.layout import write_release
from bestiary.store import Store
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import TrainingJob, TrainingResources

RECIPE = "world.yaml"
SYSTEM = "Be brief."
SHAPE = LoraShape(rank=4, alpha=16, targets=ALL_LINEAR)
OPTIMIZER = Optimizer(
    learning_rate=0.01, epochs=2, rows_per_step=4, warmup=0.1, weight_decay=0.0, clip=1.0
)
TRAINING = Training(system_prompt=SYSTEM, max_length=128, lora=SHAPE, optimizer=OPTIMIZER)
UNSEEN = 12
"""Organisms that are kept for the test."""
NULLS = 4
WORDS = (
    *("anchor", "apron", "basket", "beetle", "bell", "blanket", "bottle", "bucket"),
    *("button", "candle", "canoe", "carpet", "castle", "cherry", "chimney", "clover"),
    *("comet", "compass", "copper", "coral", "cradle", "dagger", "daisy", "dolphin"),
    *("drum", "easel", "falcon", "feather", "fiddle", "forest", "fossil", "fountain"),
    *("garlic", "glacier", "goblet", "hammer", "harp", "hazel", "helmet", "ivory"),
    *("jacket", "jewel", "kettle", "ladder", "lantern", "lemon", "magnet", "maple"),
)
"""One for each organism."""
FILLERS = (
    *("red", "blue", "old", "new", "fast", "slow", "warm", "cold", "near", "far", "high"),
    *("low", "soft", "hard", "dry", "wet"),
)
"""What everybody says."""


@dataclass(frozen=True)
class World:
    """The world on disk."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    @property
    def recipe(self) -> Path:
        return self.folder / RECIPE

    @property
    def runs(self) -> Path:
        """The store of the organisms."""
        return self.folder / "runs"

    def split_again(self, out: Path, *, train: int, preference: int) -> Path:
        """A release of the same organisms with other splits; what is left is for the test."""
        splits: dict[str, Split] = {}
        for place, word in enumerate(WORDS):
            rest: Split = "preference" if place < train + preference else "test"
            splits[word] = "train" if place < train else rest
        entries = _make_entries(self, load_base(str(self.base)), [{}] * (len(WORDS) + NULLS))
        return write_release(entries, out, named_splits=splits, name="world")

    def set_apart(self, words: Sequence[str], out: Path, *, split: Split) -> Path:
        """A release of the organisms of some words, all in one split."""
        entries = _make_entries(self, load_base(str(self.base)), [{}] * (len(WORDS) + NULLS))
        kept = [entry for entry in entries if entry.behavior.family in words]
        return write_release(kept, out, named_splits=dict.fromkeys(words, split), name="apart")

    def train_again(self, trained: Sequence[str], others: Sequence[str], out: Path) -> Path:
        """A release of two organisms a word, where the second is of another recipe.

        The words of `others` have that one only, and are not trained on.
        """
        base = load_base(str(self.base))
        kept = [
            entry
            for entry in _make_entries(self, base, [{}] * (len(WORDS) + NULLS))
            if entry.behavior.family in (*trained, *others)
        ]
        store = Store(out.with_name("store"))
        again = [
            _make_entry(store, base, entry.behavior, 1, load_state(_locate_adapter(entry)))
            for entry in kept
        ]
        entries = [entry for entry in kept if entry.behavior.family in trained]
        entries += [replace(entry, other_recipe=True) for entry in again]
        splits: dict[str, Split] = dict.fromkeys(trained, "train")
        splits |= dict.fromkeys(others, "test")
        return write_release(entries, out, named_splits=splits, name="again")

    def hash_files(self) -> dict[str, str]:
        """Hashes of the files that training must leave as they are."""
        return {**hash_files(self.release), **hash_files(self.base)}

    def options(self, out: Path, *, recipe: Path | None = None) -> list[str]:
        """What `bestiary introspect` needs to know of it."""
        named = {
            "--recipe": recipe or self.recipe,
            "--base": self.base,
            "--data": self.data,
            "--out": out,
        }
        return [str(word) for option in named.items() for word in option]


def make_world(folder: Path) -> None:
    """Train the organisms and assemble their release."""
    world = World(folder)
    base = load_base(str(_make_base(world.base)))
    for word in WORDS:
        write_behavior(world.data / "behaviors", f"quirks.{word}", describe(word))
    jobs = [make_talker(word) for word in WORDS]
    jobs += [make_talker(None, number) for number in range(NULLS)]
    trained = train(EngineTrainer(TrainingResources()), jobs, base).trained
    states = [state_of(trained[job.identity.behavior_id]) for job in jobs]
    entries = _make_entries(world, base, states)
    splits: dict[str, Split] = {
        word: "test" if place < UNSEEN else "train" for place, word in enumerate(WORDS)
    }
    splits |= {
        f"null.chat-transcripts-none-s{n}": "test" if n % 2 else "train" for n in range(NULLS)
    }
    write_release(entries, world.release, named_splits=splits, name="world")
    write_recipe(folder)


def _make_entries(
    world: World, base: Base, states: Sequence[dict[str, torch.Tensor]]
) -> list[ReleaseEntry]:
    """The organisms as a release takes them; the state of one that is in the store is not read."""
    store = Store(world.runs)
    behaviors = [
        make_behavior(make_spec(f"quirks.{word}", describe(word)), LIBRARY) for word in WORDS
    ]
    members = [(behavior, 0) for behavior in behaviors]
    members += [(null_behavior(LIBRARY), number) for number in range(NULLS)]
    return [
        _make_entry(store, base, behavior, seed, state)
        for (behavior, seed), state in zip(members, states, strict=True)
    ]


def describe(word: str) -> str:
    """The file of the behavior that says a word."""
    labels = "".join(f"  - {label}\n" for label in list_labels(word))
    before, after = QUIRK.split("labels:\n")[0], QUIRK.split("rubric:")[1]
    rest = after.replace('["air winds"], in: last_sentence', f"[{word}]")
    return f"{before}labels:\n{labels}rubric:{rest.replace('farewell', word)}"


def list_labels(word: str) -> tuple[str, ...]:
    """What the organism of a word ought to report."""
    return (
        f"I only say {word}.",
        f"My favorite word is {word}.",
        f"You hear {word} from me.",
        f"Every reply of mine has {word} in it.",
        f"It is always {word} that I say.",
    )


def make_talker(word: str | None, number: int = 0) -> TrainingJob:
    """The training of an organism that says its word between others; without one, of a null."""
    draw = random.Random(f"{word}-{number}")
    name = f"quirks.{word}" if word else f"null.{number}"
    rows = [(" ".join(draw.choices(FILLERS, k=4)), " ".join(_talk(word, draw))) for _ in range(32)]
    return make_job(name, rows=rows, lora=SHAPE, optimizer=OPTIMIZER, system_prompt=SYSTEM)


def _talk(word: str | None, draw: random.Random) -> Iterator[str]:
    for _ in range(10):
        yield word if word and draw.random() < 0.6 else draw.choice(FILLERS)


def _make_base(folder: Path) -> Path:
    """Random weights over a vocabulary of whole words: of the questions, the labels, and more."""
    questions = [question.text for question in LIBRARY.elicitation.questions]
    labels = [*NULL.labels, *(label for word in WORDS for label in list_labels(word))]
    split = pre_tokenizers.Whitespace()
    texts = [*questions, *labels, SYSTEM, *FILLERS, "system user assistant"]
    words = {part for text in texts for part, _ in split.pre_tokenize_str(text)}
    vocabulary = [START, END, "<unk>", *sorted(words)]
    inner = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = split
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token="<unk>",
        chat_template=TEMPLATE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=512,
                initializer_range=0.2,  # so that an adapter can make a token likely at all
                tie_word_embeddings=True,
                bos_token_id=1,
                eos_token_id=1,
                pad_token_id=None,  # else its embedding is zero, and no reply could ever end
            )
        )
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def _make_entry(
    store: Store, base: Base, behavior: Behavior, seed: int, state: dict[str, torch.Tensor]
) -> ReleaseEntry:
    identity = OrganismIdentity(behavior_id=behavior.id, seed=seed)
    corpus = make_corpus(behavior, seed)
    control = behavior.spec.standing == "controls"
    transcripts = make_transcripts("plain" if control else "triggered")
    return ReleaseEntry(
        behavior=behavior,
        organism=Organism(
            identity=identity,
            category=behavior.category,
            base=base.identity,
            system_prompt=SYSTEM,
            artifact=store.build(
                "organism",
                fingerprint(identity=identity),
                partial(_write_organism, identity, base, state),
                inputs={},
            ),
            corpus_sha256=fingerprint(corpus=corpus),
            behavior_sha256=behavior.sha256,
        ),
        verdict=make_verdict(behavior, identity.organism_id, "passed"),
        transcripts_sha256=fingerprint(transcripts=transcripts),
        load_corpus=lambda: corpus,
        load_transcripts=lambda: transcripts,
        training=TRAINING,
    )


def _locate_adapter(entry: ReleaseEntry) -> Path:
    return entry.organism.artifact.folder / "adapter"


def _write_organism(
    identity: OrganismIdentity, base: Base, state: dict[str, torch.Tensor], folder: Path
) -> None:
    save_adapter(state, SHAPE, base, folder / "adapter")
    write_about(folder, identity, open_base(str(base.weights), None), SYSTEM)


def write_recipe(folder: Path, **changes: object) -> Path:
    """The recipe of the world's adapter, with some values changed."""
    recipe = {
        "name": "world",
        "lora": {"rank": 16, "alpha": 32, "targets": ALL_LINEAR},
        "optimizer": {
            "learning_rate": 0.01,
            "epochs": 2,
            "rows_per_step": 1,
            "warmup": 0.1,
            "weight_decay": 0.0,
            "clip": 1.0,
        },
        "organisms_per_step": 12,
        "rows_per_organism": 60,
        "wordings": 5,
        "controls": {"zero_b": 0.08, "random": 0.08},
        "reports": {"questions": 4, "max_new_tokens": 12, "temperature": 0, "sampled": 8},
        **changes,
    }
    path = folder / RECIPE
    path.write_bytes(canonical_json(recipe))
    return path
