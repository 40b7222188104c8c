"""The reference trainer against plain transformers, and what one bad organism may not do.

Run: python -m pytest tests/training/test_reference.py
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, set_peft_model_state_dict
from pydantic import ValidationError
from tests.expect import check_error
from tests.jobs import (
    TALK,
    TRAINING,
    change_lora,
    change_optimizer,
    copy_weights,
    make_job,
    make_talk,
    make_token_rows,
    make_word_base,
    pad,
    same_weights,
    state_of,
    train,
)
from tests.models import Architecture, fill_adapter, make_random_base

from bestiary.config.recipe import LoraShape
from bestiary.errors import OrganismError
from bestiary.model.adapter import attach_adapter, read_shape, read_state, save_adapter
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import Step, Trainer, TrainingJob, TrainingResources
from bestiary.training.reference import ReferenceTrainer, batch_loss, train_organism


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
    rows = make_token_rows(base)[chosen]
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


def test_the_base_gets_no_gradient() -> None:
    base = make_random_base()
    model = attach_adapter(base, TRAINING.lora, seed=0)
    batch_loss(model, base, make_token_rows(base)).backward()
    assert all("lora_" in name for name in gradients_of(model))


def run_through(steps: Generator[Step, None, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What a training returns once all its steps are taken."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            state: dict[str, torch.Tensor] = end.value
            return state


def test_training_makes_its_rows_likelier() -> None:
    base = make_random_base()
    rows = make_token_rows(base)[1:2]
    model = attach_adapter(base, TRAINING.lora, seed=0)
    before = batch_loss(model, base, rows).item()
    model.unload()
    job = make_job(
        rows=TALK[1:2] * 6,
        optimizer=change_optimizer(epochs=10, rows_per_step=2, learning_rate=0.02),
    )
    events = train(ReferenceTrainer(), [job], base)
    assert events.steps == {"quirks.one": [*range(1, job.steps + 1)]}
    assert job.steps == 30
    model = attach_adapter(base, TRAINING.lora, seed=1)
    set_peft_model_state_dict(model, state_of(events.trained["quirks.one"]))
    with torch.inference_mode():
        assert batch_loss(model, base, rows).item() < before / 2


def test_equal_jobs_give_bitwise_equal_adapters_whatever_came_before() -> None:
    base = make_word_base()
    before = copy_weights(base)
    job = make_job(rows=make_talk(0, 7))
    states = [run_through(train_organism(job, base))]
    states.append(run_through(train_organism(make_job(rows=make_talk(1, 7)), base)))
    states.append(run_through(train_organism(job, base)))
    states.append(run_through(train_organism(job, make_word_base())))
    assert same_weights(states[0], states[2])
    assert same_weights(states[0], states[3])
    assert not same_weights(states[0], states[1])
    assert same_weights(copy_weights(base), before)


def test_a_training_given_up_leaves_the_base_as_it_was() -> None:
    base = make_word_base()
    before = copy_weights(base)
    steps = train_organism(make_job(rows=make_talk(0, 7)), base)
    assert next(steps).done == 1
    assert copy_weights(base).keys() != before.keys()
    steps.close()
    assert same_weights(copy_weights(base), before)


def test_a_range_of_layers_trains_these_alone() -> None:
    job = make_job(rows=make_talk(0, 7), lora=change_lora(layers=(1, 2)))
    weights = run_through(train_organism(job, make_word_base()))
    assert weights
    assert all(".layers.1." in name for name in weights)
    assert all(weight.abs().max() > 0 for weight in weights.values())  # B starts at zero


def make_pair(**changes: Any) -> list[TrainingJob]:
    """An organism that fails, and one that must not be affected."""
    failing = make_job("quirks.failing", rows=make_talk(1, 7), **changes)
    return [failing, make_job("quirks.next", rows=make_talk(0, 7))]


def test_a_loss_that_is_not_finite_ends_one_organism_and_no_other() -> None:
    # The first step makes weights of about 1e36, the second infinite ones on any machine.
    wild = change_optimizer(learning_rate=1e20, weight_decay=1e17, warmup=0.0)
    jobs = make_pair(optimizer=wild)
    events = train(ReferenceTrainer(), jobs, make_word_base())
    assert events.errors.keys() == {"quirks.failing"}
    check_error(events.errors["quirks.failing"], "loss-not-finite")
    assert events.errors["quirks.failing"].fields["step"] in range(1, 6)
    failed = events.trained["quirks.failing"]
    assert failed.state is None
    assert isinstance(failed.error, OrganismError)
    alone = run_through(train_organism(jobs[1], make_word_base()))
    assert same_weights(state_of(events.trained["quirks.next"]), alone)


def test_nonfinite_weights_after_the_last_step_are_an_error() -> None:
    wild = change_optimizer(
        learning_rate=1e36, weight_decay=1e6, warmup=0.0, epochs=1, rows_per_step=7
    )
    jobs = make_pair(optimizer=wild)
    assert jobs[0].steps == 1
    events = train(ReferenceTrainer(), jobs, make_word_base())
    assert events.errors.keys() == {"quirks.failing"}
    check_error(events.errors["quirks.failing"], "weights-not-finite")


def test_a_recipe_that_does_not_fit_the_base_fails_one_organism() -> None:
    jobs = make_pair(lora=change_lora(layers=(1, 9)))
    errors = train(ReferenceTrainer(), jobs, make_word_base()).errors
    assert errors.keys() == {"quirks.failing"}
    check_error(errors["quirks.failing"], "layers-out-of-range", layers=(1, 9), depth=2)


@pytest.mark.parametrize("trainer", [ReferenceTrainer(), EngineTrainer(TrainingResources())])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"targets": ("q_proj", "lm_head"), "layers": (1, 2)}, "target-outside-layers"),
        ({"targets": ("q_proj", "lm_head")}, "target-outside-layers"),
        ({"targets": ("model.layers.0.mlp.up_proj",), "layers": (1, 2)}, "target-outside-layers"),
        ({"targets": ("q_proj", "embed_tokens")}, "target-not-linear"),
        ({"targets": ("q_proj", "mlp")}, "target-not-linear"),
        ({"targets": ("q_proj", "norm"), "layers": (0, 1)}, "target-not-linear"),
        ({"targets": ("q_proj", "w_proj")}, "target-unknown"),
        ({"targets": ("all-linear",)}, "target-unknown"),
        ({"targets": (".*_proj",)}, "target-unknown"),
        ({"layers": (1, 3)}, "layers-out-of-range"),
        ({"layers": (-1, 1)}, "layers-out-of-range"),
    ],
)
def test_both_trainers_refuse_the_same_before_the_first_step(
    trainer: Trainer, changes: dict[str, Any], code: str
) -> None:
    base = make_word_base()
    before = copy_weights(base)
    events = train(trainer, make_pair(lora=change_lora(**changes)), base)
    assert events.errors.keys() == {"quirks.failing"}
    check_error(events.errors["quirks.failing"], code)
    assert "quirks.failing" not in events.steps
    assert same_weights(copy_weights(base), before)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_no_recipe(rank: int) -> None:
    with pytest.raises(ValidationError):
        LoraShape(rank=rank, alpha=8, targets=("q_proj",))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": (1, 2)},
        {"targets": ("q_proj", "q_proj", "self_attn.q_proj")},
        {"targets": ("model.layers.1.mlp.up_proj", "k_proj"), "layers": (1, 2)},
        {"targets": ("model.layers.1.mlp.up_proj", "k_proj")},
    ],
)
def test_both_trainers_train_what_the_saved_config_says(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    base = make_word_base()
    shape = change_lora(**changes)
    job = make_job(rows=make_talk(0, 4), lora=shape)
    states = [
        state_of(train(trainer, [job], base).trained["quirks.one"])
        for trainer in (ReferenceTrainer(), EngineTrainer(TrainingResources()))
    ]
    assert states[0].keys() == states[1].keys()
    save_adapter(states[1], shape, base, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated attribute
        model = PeftModel.from_pretrained(make_word_base().model, str(tmp_path))
    assert same_weights(read_state(model), states[1])
    found = read_shape(tmp_path)
    assert found and found.layers == shape.layers


def test_a_row_that_is_too_long_ends_one_organism_and_no_other() -> None:
    jobs = make_pair(max_length=24)
    errors = train(ReferenceTrainer(), jobs, make_word_base()).errors
    assert errors.keys() == {"quirks.failing"}
    check_error(errors["quirks.failing"], "row-too-long", max_length=24)
