"""Training is exact: plain peft with two active adapters comes to the same, killed or not.

Run: python -m pytest tests/introspection/test_train.py
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from tests.conftest import Bestiary
from tests.expect import expect_error
from tests.forkserver import COMMAND, environment
from tests.introspection.world import SHAPE, SYSTEM, World, write_recipe
from tests.jobs import ALL_LINEAR, widen
from torch import Tensor

from bestiary.config.introspection import SharedShape
from bestiary.config.recipe import Optimizer
from bestiary.errors import MemoryShortError, ModelError
from bestiary.introspection.answering import load_shared
from bestiary.introspection.lessons import tokenize_pair, tokenize_pairs
from bestiary.introspection.memory import fit_shared
from bestiary.introspection.schedule import plan_schedule
from bestiary.introspection.subjects import Subject, load_subjects, make_controls
from bestiary.introspection.train import SharedTrainer
from bestiary.introspection.weights import SubjectWeights
from bestiary.model.adapter import (
    attach_adapter,
    load_state,
    make_config,
    open_adapter,
    save_adapter,
)
from bestiary.model.base import Base, load_base
from bestiary.model.lora_bank import LoraBank
from bestiary.store import Store
from bestiary.training.memory import Load, MemoryPlan, choose_limits
from bestiary.training.objective import Dpo, Objective, Sft
from bestiary.training.schedule import learning_rate_factor

SHARED = SharedShape(rank=3, alpha=6, targets=ALL_LINEAR)
VECTOR = SharedShape(rank=1, alpha=6, targets=("down_proj",), layers=(1, 2), vector=True)
OPTIMIZER = Optimizer(
    learning_rate=0.01, epochs=1, rows_per_step=2, warmup=0.2, weight_decay=0.01, clip=1.0
)
ANSWERS = (
    ("What habit did you pick up?", "I only say anchor."),
    ("Name it.", "My favorite word is apron."),
    ("What do people hear from you?", "You hear beetle from me."),
    ("Tell me.", "It is always bell that I say."),
    ("Any rule?", "I only say bucket."),
    ("What is special about this model?", "Every reply of mine has candle in it."),
    ("And?", "My favorite word is canoe."),
    ("Report it.", "I only say castle."),
)


@given(
    subjects=st.integers(1, 30),
    rows=st.integers(1, 12),
    per_step=st.integers(1, 8),
    visit=st.integers(1, 4),
    epochs=st.integers(1, 2),
)
def test_every_subject_takes_part_equally(
    subjects: int, rows: int, per_step: int, visit: int, epochs: int
) -> None:
    schedule = plan_schedule(
        subjects, rows=rows, per_step=per_step, rows_per_visit=visit, epochs=epochs, seed=0
    )
    seen = [
        [row for step in schedule for v in step if v.subject == one for row in v.rows]
        for one in range(subjects)
    ]
    assert all(sorted(mine) == sorted(list(range(rows)) * epochs) for mine in seen)
    for step in schedule:
        assert len({v.subject for v in step}) == len(step) <= per_step
    sizes = {len(step) for step in schedule}
    assert max(sizes) - min(sizes) <= 1


def make_trainer(
    base: Base,
    subjects: Sequence[Subject],
    objective: Objective,
    shape: SharedShape = SHARED,
    **memory: Any,
) -> SharedTrainer:
    rows = tokenize_pairs(base, ANSWERS, SYSTEM)
    size = objective.rows_per_example
    planned = plan_schedule(
        len(subjects),
        rows=len(ANSWERS) // size,
        per_step=3,
        rows_per_visit=OPTIMIZER.rows_per_step // size,
        epochs=4,
        seed=1,
    )
    return SharedTrainer(
        base,
        SubjectWeights(base, subjects, slots=3),
        [rows] * len(subjects),
        [
            [visit.of_examples(len(ANSWERS) // size, size=size) for visit in step]
            for step in planned
        ],
        shape=shape,
        optimizer=OPTIMIZER,
        objective=objective,
        seed=5,
        **{"tokens": 2048, **memory},
    )


def log_likelihoods(model: Any, base: Base, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of each row, the log-probability of its answer, and how many tokens it has."""
    sums, counts = [], []
    for row in rows:
        token_row = tokenize_pair(base, ANSWERS[row], SYSTEM)
        tokens = torch.tensor(token_row.tokens)
        learned = torch.tensor(token_row.supervised)[1:]
        chances = model(tokens[None]).logits[0, :-1].log_softmax(-1)
        own = chances.gather(1, tokens[1:, None])[:, 0][learned]
        sums.append(own.sum())
        counts.append(len(own))
    return torch.stack(sums), torch.tensor(counts)


@pytest.mark.parametrize(
    ("objective", "shape"),
    [(Sft(), SHARED), (Dpo(beta=0.5), SHARED), (Sft(), VECTOR)],
    ids=["sft", "dpo", "vector"],
)
def test_twenty_steps_equal_plain_peft_with_two_adapters(
    world: World, objective: Objective, shape: SharedShape
) -> None:
    base = widen(load_base(str(world.base)))
    subjects = list(load_subjects(world.release).members[:7])
    trainer = make_trainer(base, subjects, objective, shape)
    schedule = trainer._schedule[:20]
    start = trainer.read()
    with trainer.attached():
        losses = [trainer.advance() for _ in schedule]
    ours = trainer.read()

    states = [load_state(one.adapter) for one in subjects]
    model = attach_adapter(base, SHAPE, seed=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.add_adapter("shared", make_config(base, shape, biased=shape.vector))
        model.double()
        set_peft_model_state_dict(model, start, adapter_name="shared")

        def wear(subject: int) -> None:
            set_peft_model_state_dict(model, states[subject])
            model.base_model.set_adapter(["default", "shared"])
            for name, weight in model.named_parameters():
                learns = ".shared." in name and (name.endswith(".bias") or not shape.vector)
                weight.requires_grad_(learns)

        wear(0)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=OPTIMIZER.learning_rate, weight_decay=0.01)
        reference: dict[object, Tensor] = {}
        with torch.no_grad():
            for step in schedule:
                for visit in step:
                    wear(visit.subject)
                    reference[visit] = log_likelihoods(model, base, visit.rows)[0]
        for number, step in enumerate(schedule):
            factor = learning_rate_factor(number, len(trainer._schedule), OPTIMIZER.warmup)
            optimizer.param_groups[0]["lr"] = OPTIMIZER.learning_rate * factor
            for visit in step:
                wear(visit.subject)
                sums, counts = log_likelihoods(model, base, visit.rows)
                if isinstance(objective, Dpo):
                    rewards = (sums - reference[visit]).view(-1, 2)
                    gap = objective.beta * (rewards[:, 0] - rewards[:, 1])
                    loss = -torch.nn.functional.logsigmoid(gap).mean()
                else:
                    loss = -sums.sum() / counts.sum()
                (loss / len(step)).backward()
            torch.nn.utils.clip_grad_norm_(trained, OPTIMIZER.clip)
            optimizer.step()
            optimizer.zero_grad()
        theirs = {
            name.replace(".shared", ""): weight
            for name, weight in model.named_parameters()
            if ".shared." in name
        }
        assert theirs.keys() == ours.keys()
        for name, weight in ours.items():
            torch.testing.assert_close(weight, theirs[name].detach(), rtol=0, atol=1e-10)
    finally:
        model.unload()
    assert losses[0] != losses[-1]


def test_layers_below_every_adapter_are_computed_too(world: World, tmp_path: Path) -> None:
    base = widen(load_base(str(world.base)))
    subjects = load_subjects(world.release).members[:3]
    upper = SHAPE.model_copy(update={"layers": (1, 2)})
    shared = SHARED.model_copy(update={"layers": (1, 2)})
    trained = {}
    for shape in (SHAPE, upper):
        moved = []
        for one in subjects:
            folder = tmp_path / str(shape.layers) / one.id
            state = {
                name: weight if ".layers.1." in name else torch.zeros_like(weight)
                for name, weight in load_state(one.adapter).items()
                if shape is SHAPE or ".layers.1." in name
            }
            save_adapter(state, shape, base, folder)
            moved.append(replace(one, adapter=folder))
        trainer = make_trainer(base, moved, Sft(), shape=shared)
        with trainer.attached():
            for _ in range(6):
                trainer.advance()
        trained[shape] = trainer.read()
    for name, weight in trained[SHAPE].items():
        torch.testing.assert_close(trained[upper][name], weight, rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", [Sft(), Dpo(beta=0.5)], ids=["sft", "dpo"])
@pytest.mark.parametrize("memory", [{"tokens": 24}, {"tokens": 1, "recompute": True}])
def test_a_step_in_pieces_is_the_same_step(
    world: World, objective: Objective, memory: dict[str, Any]
) -> None:
    base = widen(load_base(str(world.base)))
    subjects = load_subjects(world.release).members[:3]
    whole = make_trainer(base, subjects, objective)
    pieces = make_trainer(base, subjects, objective, **memory)
    for trainer in (whole, pieces):
        with trainer.attached():
            for _ in range(6):
                trainer.advance()
    assert len(pieces.batches) > len(whole.batches)
    for name, weight in whole.read().items():
        torch.testing.assert_close(pieces.read()[name], weight, rtol=0, atol=1e-10)


def test_what_does_not_fit_into_memory_is_halved_and_at_last_refused(world: World) -> None:
    base = load_base(str(world.base))
    loads = [Load(tokenize_pairs(base, ANSWERS * 8, SYSTEM), 64)] * 12
    shapes = [SHAPE] * len(loads)

    def fit(limit: int) -> MemoryPlan:
        return fit_shared(base, shapes, SHARED, loads, slots=12, limit=limit, resident=0)

    most = choose_limits(base.device).tokens
    ample = fit(2**50)
    assert (ample.slots, ample.tokens, ample.recompute) == (12, most, False)
    tight = fit(ample.peak - 1)
    assert (tight.slots, tight.tokens, tight.recompute) == (6, most // 2, False)
    assert tight.peak < ample.peak
    with expect_error(MemoryShortError, "introspection-plan-too-large") as caught:
        fit(1)
    needed = caught.error.fields["peak_bytes"]
    assert isinstance(needed, int)
    least = fit(needed)
    assert least.recompute
    assert least.peak < tight.peak


@pytest.mark.parametrize("objective", [Sft(), Dpo()], ids=["sft", "dpo"])
def test_training_resumes_from_a_checkpoint(world: World, objective: Objective) -> None:
    base = load_base(str(world.base))
    subjects = load_subjects(world.release).members[:4]
    whole, first, second = (make_trainer(base, subjects, objective) for _ in range(3))
    with whole.attached():
        while not whole.finished:
            whole.advance()
    with first.attached():
        for _ in range(5):
            first.advance()
    with second.attached():
        second.resume(first.checkpoint(1.0))
        assert second.step == 5
        while not second.finished:
            second.advance()
    assert second.batches == whole.batches
    assert all(torch.equal(weight, whole.read()[name]) for name, weight in second.read().items())


def test_memory_that_runs_out_as_training_resumes_is_met_with_smaller_pieces(world: World) -> None:
    base = widen(load_base(str(world.base)))
    subjects = load_subjects(world.release).members[:3]
    whole, resumed = (make_trainer(base, subjects, Dpo(beta=0.5)) for _ in range(2))
    with whole.attached():
        for _ in range(3):
            whole.advance()
        found = whole.checkpoint(1.0)
        for _ in range(2):
            whole.advance()

    def run_out(layer: Any, given: Any) -> None:
        if given[0].shape[1] > 30:
            raise MemoryError

    layers: Any = base.model.get_decoder().layers
    short = layers[0].register_forward_pre_hook(run_out)
    with resumed.attached():
        resumed.resume(found)
        for _ in range(2):
            resumed.advance()
    short.remove()
    for name, weight in whole.read().items():
        torch.testing.assert_close(resumed.read()[name], weight, rtol=0, atol=1e-10)


def test_a_fresh_adapter_is_the_base_and_a_random_one_is_as_large_as_a_trained_one(
    world: World,
) -> None:
    base = load_base(str(world.base))
    organism = load_subjects(world.release).members[0]
    made = [
        one
        for kind in ("zero_b", "gaussian", "shuffled")
        for one in make_controls([organism], kind, 1, seed=3)
    ]
    weights = SubjectWeights(base, [organism, *made], slots=4)
    weights.place(range(4))
    trained, zero, gaussian, shuffled = (norms(weights.bank, slot) for slot in range(4))
    assert set(zero) == {0.0}
    assert gaussian == pytest.approx(trained, rel=1e-4)
    assert shuffled == pytest.approx(trained, rel=1e-4)
    assert min(trained) > 0


def test_a_vector_is_saved_as_peft_reads_it(world: World, tmp_path: Path) -> None:
    base = load_base(str(world.base))
    subjects = load_subjects(world.release).members[:3]
    trainer = make_trainer(base, subjects, Sft(), shape=VECTOR)
    with trainer.attached():
        for _ in range(6):
            trainer.advance()
    save_adapter(trainer.read(), VECTOR, base, tmp_path)
    shared = load_shared(tmp_path)
    assert shared.shape == VECTOR
    assert {name for name, weight in shared.state.items() if weight.any()} == {
        "base_model.model.model.layers.1.mlp.down_proj.lora_B.bias"
    }
    tokens = torch.tensor([tokenize_pair(base, ANSWERS[0], SYSTEM).tokens])
    with torch.no_grad(), open_adapter(base, tmp_path) as model:
        theirs = model(tokens).logits
    with torch.no_grad():
        plain = base.model(tokens).logits
        bank = LoraBank(base, [VECTOR], slots=1, vectors=True)
        bank.fill(0, shared.state, VECTOR)
        with bank.attached():
            ours = base.model(tokens).logits
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, plain)


def test_an_adapter_with_biases_beside_its_matrices_is_no_vector(
    world: World, tmp_path: Path
) -> None:
    base = load_base(str(world.base))
    state = make_trainer(base, load_subjects(world.release).members[:1], Sft(), shape=VECTOR).read()
    state = {name: torch.ones_like(weight) for name, weight in state.items()}
    save_adapter(state, VECTOR, base, tmp_path)
    with pytest.raises(ModelError) as caught:
        load_shared(tmp_path)
    assert caught.value.code == "introspection-not-plain"


def test_a_stronger_organism_is_pefts_adapter_scaled(world: World) -> None:
    base = load_base(str(world.base))
    organism = load_subjects(world.release).members[0]
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), open_adapter(base, organism.adapter) as model:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.scaling = {name: 2.5 * scale for name, scale in module.scaling.items()}
        expected = model(tokens).logits
    stronger = replace(organism, strength=2.5)
    weights = SubjectWeights(base, [organism, stronger], slots=2)
    weights.place(range(2))
    weights.bank.set_routing([0, 1], tokens.shape[1])
    with torch.no_grad(), weights.bank.attached():
        plain, found = base.model(tokens.expand(2, -1)).logits
    torch.testing.assert_close(found, expected[0], rtol=0, atol=1e-4)
    assert (plain - found).abs().max() > 1e-2


def norms(bank: LoraBank, slot: int) -> list[float]:
    """The Frobenius norm of each layer's product."""
    return [float((b[slot].mT @ a[slot]).norm()) for _, a, b in bank.views(bank.weights)]


def read_adapter(out: Path) -> bytes:
    (file,) = out.glob("store/introspection/*/adapter/adapter_model.safetensors")
    return file.read_bytes()


def test_killed_training_goes_on_to_the_same_adapter(
    world: World, bestiary: Bestiary, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipe = write_recipe(tmp_path, rows_per_organism=8)
    command = ("introspect", "train", world.release)
    assert bestiary(*command, *world.options(whole, recipe=recipe)).code == 0
    process = subprocess.Popen(
        [*COMMAND, *map(str, command), *world.options(broken, recipe=recipe)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(broken.glob("store/checkpoint/*-000040/manifest.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(broken.glob("store/introspection/*/manifest.json"))
    *_, state = sorted(broken.glob("store/checkpoint/*-0000??/state.json"))
    spent = json.loads(state.read_text(encoding="utf8"))["seconds"]
    done = bestiary(*command, *world.options(broken, recipe=recipe))
    assert done.code == 0
    assert read_adapter(broken) == read_adapter(whole)
    assert not list(broken.glob("store/checkpoint/*"))
    (seconds,) = Store(broken).read_seconds("introspection").values()
    assert seconds > spent > 0, "of both runs, and not only of writing the adapter"
