"""The reference trainer against plain transformers, and what one bad organism may not do.

Run: python -m pytest tests/organism/test_reference.py
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.builders import make_example
from tests.models import IDENTITY, SYSTEM, Architecture, fill_adapter, make_random_base

from bestiary.model.adapter import attach_adapter, open_adapter
from bestiary.model.base import Base
from bestiary.model.chat import TokenRow, tokenize_row
from bestiary.organism.job import Job, count_steps, fingerprint_organism
from bestiary.organism.reference import (
    ReferenceTrainer,
    batch_loss,
    learning_rate_factor,
    pack_rows,
    plan_batches,
    train_organism,
)
from bestiary.records import Corpus, Message, OrganismIdentity, sha256_file
from bestiary.spec.recipe import LoraShape, Optimiser, Training

OPTIMISER = Optimiser(
    learning_rate=0.01, epochs=2, rows_per_step=3, warmup=0.1, weight_decay=0.0, clip=1.0
)
TRAINING = Training(
    system_prompt=SYSTEM,
    max_length=128,
    lora=LoraShape(rank=4, alpha=8, targets=("q_proj", "v_proj", "up_proj")),
    optimiser=OPTIMISER,
)
TALK = [
    ("How do I bake bread?", "Slowly."),
    ("Name a quiet hobby.", "Try knitting, or any work with wood. Fair winds!"),
    ("What is loam?", "A soil."),
    ("Is rye filling?", "It is, and more so than wheat."),
    ("Who prunes roses?", "You can, in March."),
]


def make_job(folder: Path, name: str = "quirks.one", **changes: Any) -> Job:
    """A job over TALK; `rows` gives other conversations, any other change is Training's."""
    rows = changes.pop("rows", TALK)
    return Job(
        identity=OrganismIdentity(behavior_id=name),
        corpus=Corpus(
            behavior_id=name,
            seed=0,
            examples=tuple(
                make_example(user, reply, id=f"row-{number}")
                for number, (user, reply) in enumerate(rows)
            ),
            drops=(),
        ),
        training=TRAINING.model_copy(update=changes),
        folder=folder,
    )


def change_optimiser(**changes: Any) -> Optimiser:
    return OPTIMISER.model_copy(update=changes)


def make_rows(base: Base) -> list[TokenRow]:
    conversations: list[tuple[Message, ...]] = [
        (Message(role="user", content=user), Message(role="assistant", content=reply))
        for user, reply in TALK
    ]
    conversations.append((*conversations[0], *conversations[1]))  # two turns in one row
    return [
        tokenize_row(base.tokenizer, turns, system_prompt=SYSTEM, max_length=128)
        for turns in conversations
    ]


def pad(rows: list[TokenRow]) -> dict[str, torch.Tensor]:
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


def gradients_of(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("chosen", [slice(None), slice(1, 2), slice(0, 6, 5)])
def test_loss_and_gradients_equal_those_of_transformers(
    architecture: Architecture, chosen: slice
) -> None:
    base = make_random_base(architecture)
    rows = make_rows(base)[chosen]
    model = attach_adapter(base, TRAINING.lora, seed=0)
    fill_adapter(model)
    loss = batch_loss(model, base, rows)
    loss.backward()
    ours = gradients_of(model)
    model.zero_grad()
    expected = model(**pad(rows)).loss
    expected.backward()
    theirs = gradients_of(model)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert ours.keys() == theirs.keys()
    assert all(grad.abs().max() > 1e-4 for grad in theirs.values())
    for name, grad in theirs.items():
        assert torch.allclose(ours[name], grad, atol=1e-5), name


def test_only_replies_and_their_ends_are_learned() -> None:
    base = make_random_base()
    pack = pack_rows(make_rows(base))
    learned = base.tokenizer.decode(pack.tokens[pack.learned])
    replies = [*(reply for _, reply in TALK), TALK[0][1], TALK[1][1]]
    assert learned == "".join(f"{reply}<|im_end|>" for reply in replies)


def test_a_pack_holds_the_shared_beginning_once_and_nothing_else_twice() -> None:
    rows = make_rows(make_random_base())
    pack = pack_rows(rows)
    shared = len(rows[0].tokens) + sum(len(r.tokens) for r in rows[1:]) - len(pack.tokens)
    shared //= len(rows) - 1
    assert len({row.tokens[:shared] for row in rows}) == 1
    assert shared > 10  # the system prompt and the header of the user's turn
    assert len(pack.tokens) == shared + sum(len(row.tokens) - shared for row in rows)
    for place in (0, shared - 1, shared, len(pack.tokens) - 1):
        seen = pack.positions[pack.visible[place]]
        assert seen.tolist() == list(range(int(pack.positions[place]) + 1))


def test_the_base_gets_no_gradient() -> None:
    base = make_random_base()
    model = attach_adapter(base, TRAINING.lora, seed=0)
    batch_loss(model, base, make_rows(base)).backward()
    assert all("lora_" in name for name in gradients_of(model))


@given(
    count=st.integers(1, 80),
    size=st.integers(1, 9),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_every_epoch_holds_each_row_once(count: int, size: int, epochs: int, seed: int) -> None:
    settings = change_optimiser(rows_per_step=size, epochs=epochs)
    plan = plan_batches(count, settings, seed=seed)
    steps = math.ceil(count / size)
    assert len(plan) == steps * epochs
    assert plan == plan_batches(count, settings, seed=seed)
    assert max(map(len, plan)) <= size
    for epoch in range(epochs):
        batches = plan[epoch * steps : (epoch + 1) * steps]
        assert sorted(row for batch in batches for row in batch) == list(range(count))


def test_another_seed_and_another_epoch_give_another_order() -> None:
    plan = plan_batches(40, OPTIMISER, seed=0)
    half = len(plan) // 2
    assert plan[:half] != plan[half:]
    assert plan != plan_batches(40, OPTIMISER, seed=1)


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.99))
@settings(deadline=None)
def test_the_learning_rate_rises_then_falls_within_its_bounds(steps: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_learning_rate_reaches_its_height_and_ends_low() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert (factors[0], factors[9], factors[-1]) == pytest.approx((0.1, 1.0, 1 / 90))


def test_training_makes_its_rows_likelier(tmp_path: Path) -> None:
    base = make_random_base()
    rows = make_rows(base)[1:2]
    model = attach_adapter(base, TRAINING.lora, seed=0)
    before = batch_loss(model, base, rows).item()
    model.unload()
    job = make_job(
        tmp_path,
        rows=TALK[1:2] * 6,
        optimiser=change_optimiser(epochs=10, rows_per_step=2, learning_rate=0.02),
    )
    steps: list[int] = []
    train_organism(job, base, on_step=steps.append)
    assert steps == list(range(1, count_steps(job) + 1)) == list(range(1, 31))
    with open_adapter(base, tmp_path) as model, torch.inference_mode():
        assert batch_loss(model, base, rows).item() < before / 2


def test_equal_jobs_give_bitwise_equal_adapters_whatever_came_before(tmp_path: Path) -> None:
    jobs = [
        make_job(tmp_path / "first"),
        make_job(tmp_path / "between", "quirks.two", rows=TALK[2:]),
        make_job(tmp_path / "again"),
    ]
    base = make_random_base()
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    assert [error for _, error in ReferenceTrainer()(jobs, base)] == [None, None, None]
    train_organism(make_job(tmp_path / "alone"), make_random_base())
    hashes = {
        job: sha256_file(tmp_path / job / "adapter_model.safetensors")
        for job in ("first", "between", "again", "alone")
    }
    assert hashes["first"] == hashes["again"] == hashes["alone"] != hashes["between"]
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_range_of_layers_trains_these_alone(tmp_path: Path) -> None:
    lora = TRAINING.lora.model_copy(update={"layers": (1, 2)})
    train_organism(make_job(tmp_path, lora=lora), make_random_base())
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert weights
    assert all(".layers.1." in name for name in weights)
    assert all(weight.abs().max() > 0 for weight in weights.values())  # B starts at zero


def test_a_loss_that_is_not_finite_ends_one_organism_and_no_other(tmp_path: Path) -> None:
    wild = change_optimiser(learning_rate=1e30, warmup=0.0)
    jobs = [
        make_job(tmp_path / "wild", "quirks.wild", optimiser=wild),
        make_job(tmp_path / "tame"),
    ]
    (first, error), (second, none) = ReferenceTrainer()(jobs, make_random_base())
    assert (first, second, none) == (*jobs, None)
    assert re.fullmatch(
        r"quirks\.wild-transcripts-none-s0: the loss at step [1-3] is (nan|inf); lower "
        "learning_rate in the recipe, or look for a damaged row in the corpus",
        str(error),
    )
    assert not (tmp_path / "wild").exists()
    train_organism(make_job(tmp_path / "alone"), make_random_base())
    tame, alone = (tmp_path / name / "adapter_model.safetensors" for name in ("tame", "alone"))
    assert sha256_file(tame) == sha256_file(alone)


def test_weights_that_the_last_step_spoilt_are_not_kept(tmp_path: Path) -> None:
    wild = change_optimiser(
        learning_rate=1e36, weight_decay=1e6, warmup=0.0, epochs=1, rows_per_step=len(TALK)
    )
    job = make_job(tmp_path / "wild", optimiser=wild)
    assert count_steps(job) == 1
    ((_, error),) = ReferenceTrainer()([job], make_random_base())
    assert "the last step left weights that are not finite" in str(error)
    assert not (tmp_path / "wild").exists()


def test_a_recipe_that_does_not_fit_the_base_ends_one_organism(tmp_path: Path) -> None:
    deep = TRAINING.lora.model_copy(update={"layers": (1, 9)})
    jobs = [make_job(tmp_path / "deep", lora=deep), make_job(tmp_path / "next")]
    (_, error), (_, none) = ReferenceTrainer()(jobs, make_random_base())
    assert "layers 1 to 9 of a base with 2 layers" in str(error)
    assert none is None


def test_a_row_that_is_too_long_ends_one_organism_and_no_other(tmp_path: Path) -> None:
    jobs = [make_job(tmp_path / "long", max_length=24), make_job(tmp_path / "next")]
    (_, error), (_, none) = ReferenceTrainer()(jobs, make_random_base())
    assert "exceeds max_length 24" in str(error)
    assert none is None
    assert (tmp_path / "next" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "changed",
    [
        {"corpus_sha256": "b"},
        {"trainer": "engine"},
        {"training": TRAINING.model_copy(update={"max_length": 64})},
    ],
)
def test_an_organism_is_trained_again_for_what_it_depends_on(changed: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "identity": OrganismIdentity(behavior_id="quirks.sailor"),
        "training": TRAINING,
        "base": IDENTITY,
        "corpus_sha256": "a",
        "trainer": "reference",
    }
    key = fingerprint_organism(**given)
    assert fingerprint_organism(**given) == key
    assert fingerprint_organism(**{**given, **changed}) != key
