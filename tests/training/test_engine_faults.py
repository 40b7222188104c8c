"""A fault of one organism ends only that organism; its neighbors are unaffected.

Run: python -m pytest tests/training/test_engine_faults.py
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from typing import Any

import pytest
import torch
from tests.expect import check_error, expect_error
from tests.forkserver import CHECKOUT, environment
from tests.jobs import (
    ALL_LINEAR,
    POISON,
    WORDS,
    TrainEvents,
    change_lora,
    change_optimizer,
    copy_weights,
    make_job,
    make_talk,
    make_word_base,
    measure_difference,
    same_weights,
    train,
    widen,
)
from transformers import GPT2Config, GPT2LMHeadModel

from bestiary.errors import ModelError, OrganismError
from bestiary.model.base import Base
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import TrainingJob, TrainingResources, tokenize_corpus
from bestiary.training.reference import ReferenceTrainer
from bestiary.training.schedule import plan_batches

EXACT = 1e-10
FAILING = "quirks.failing"
NAME = f"{FAILING}-transcripts-none-s0"


def make_base(*, poisoned: bool = False) -> Base:
    """In double precision; `poisoned` makes one word's embedding NaN."""
    base = widen(make_word_base())
    if poisoned:
        (token,) = base.tokenizer(POISON)["input_ids"]
        with torch.no_grad():
            embeddings: Any = base.model.get_input_embeddings()
            embeddings.weight[token] = float("nan")
    return base


def make_healthy(number: int) -> TrainingJob:
    return make_job(f"quirks.healthy_{number}", rows=make_talk(number, 5 + number))


def run_beside(
    failing: TrainingJob, base: Base, *, slots: int = 3, tokens: int = 1000
) -> TrainEvents:
    """Train four healthy organisms around one that fails, and check them."""
    healthy = [make_healthy(number) for number in range(4)]
    jobs = [*healthy[:2], failing, *healthy[2:]]
    before = copy_weights(base)
    events = train(EngineTrainer(TrainingResources(slots=slots, tokens=tokens)), jobs, base)
    for name, weight in copy_weights(base).items():
        assert torch.equal(weight.nan_to_num(7.0), before[name].nan_to_num(7.0)), name
    theirs = train(ReferenceTrainer(), healthy, base).trained
    assert events.trained.keys() == {*theirs, FAILING}
    for name, trained in theirs.items():
        assert measure_difference(events.trained[name], trained) < EXACT, name
        assert events.steps[name] == [*range(1, trained.job.steps + 1)]
    assert events.errors.keys() == {FAILING}
    assert events.trained[FAILING].state is None
    assert events.trained[FAILING].batches == ()
    return events


@pytest.mark.parametrize("tokens", [30, 1000], ids=["row by row", "together"])
@pytest.mark.parametrize("layers", [None, (1, 2)])
def test_a_poisoned_row_fails_only_its_own_organism(
    tokens: int, layers: tuple[int, int] | None
) -> None:
    rows = make_talk(9, 8)
    rows[5] = (f"{rows[5][0]} {POISON} soil", rows[5][1])
    base = make_base(poisoned=True)
    failing = make_job(FAILING, rows=rows, lora=change_lora(layers=layers))
    events = run_beside(failing, base, tokens=tokens)
    plan = plan_batches(len(rows), failing.training.optimizer, seed=failing.seed)
    step = next(step for step, chosen in enumerate(plan) if 5 in chosen)
    error = events.trained[FAILING].error
    assert isinstance(error, OrganismError)
    check_error(error, "loss-not-finite", organism=NAME, step=step)
    assert events.steps[FAILING] == [*range(1, step + 1), step]  # it did not take the last one
    theirs = train(ReferenceTrainer(), [failing], base).errors[FAILING]
    check_error(theirs, "loss-not-finite", organism=NAME, step=step)


def test_a_poisoned_slot_is_clean_for_the_next_organism() -> None:
    rows = [(f"{POISON} soil", "wool"), *make_talk(9, 3)]
    events = run_beside(make_job(FAILING, rows=rows), make_base(poisoned=True), slots=1)
    check_error(events.errors[FAILING], "loss-not-finite")


def test_nonfinite_weights_after_the_last_step_are_an_error() -> None:
    wild = change_optimizer(
        learning_rate=1e300, weight_decay=1e300, warmup=0.0, epochs=1, rows_per_step=6
    )
    events = run_beside(make_job(FAILING, rows=make_talk(9, 6), optimizer=wild), make_base())
    check_error(events.errors[FAILING], "weights-not-finite", organism=NAME)
    assert events.steps[FAILING] == [1]


def test_a_nonfinite_gradient_is_not_reported_as_a_finite_loss() -> None:
    wild = change_optimizer(learning_rate=1e200, warmup=0.0)
    events = run_beside(make_job(FAILING, rows=make_talk(9, 6), optimizer=wild), make_base())
    error = events.errors[FAILING]
    if error.code == "loss-not-finite":
        assert not math.isfinite(float(str(error.fields["loss"])))


def test_a_recipe_that_does_not_fit_the_base_fails_one_organism() -> None:
    failing = make_job(FAILING, rows=make_talk(9, 6), lora=change_lora(layers=(1, 9)))
    events = run_beside(failing, make_base())
    assert isinstance(events.trained[FAILING].error, ModelError)
    check_error(events.errors[FAILING], "layers-out-of-range", layers=(1, 9), depth=2)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_row_that_is_too_long_fails_one_organism(slots: int) -> None:
    rows = [*make_talk(9, 3), ("soil " * 20, "wool")]
    base = make_base()
    events = run_beside(make_job(FAILING, rows=rows, max_length=32), base, slots=slots)
    long = len(tokenize_corpus(make_job(FAILING, rows=rows), base)[3].tokens)
    check_error(events.errors[FAILING], "row-too-long", tokens=long, max_length=32)
    assert FAILING not in events.steps


@pytest.mark.parametrize(
    ("target", "code"),
    [("lm_head", "target-outside-layers"), ("input_layernorm", "target-not-linear")],
)
def test_a_module_that_cannot_be_adapted_fails_one_organism(target: str, code: str) -> None:
    lora = change_lora(targets=("q_proj", target))
    events = run_beside(make_job(FAILING, rows=make_talk(9, 4), lora=lora), make_base())
    assert isinstance(events.trained[FAILING].error, ModelError)
    check_error(events.errors[FAILING], code)


def test_an_unsupported_architecture_is_refused() -> None:
    known = make_word_base()
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=8, n_layer=1, n_head=2))
    model.config.num_hidden_layers = 1
    model.transformer.h[0].mlp.c_fc = torch.nn.Linear(8, 32)  # else the module is refused first
    model.transformer.h[0].mlp.c_proj = torch.nn.Linear(32, 8)
    base = Base(model, known.tokenizer, known.identity, known.weights)
    job = make_job(rows=make_talk(0, 3), lora=change_lora(targets=("c_fc",)))
    before = copy_weights(base)
    with expect_error(ModelError, "architecture-unsupported", architecture="gpt2"):
        train(EngineTrainer(TrainingResources()), [job], base)
    assert same_weights(copy_weights(base), before)


def test_other_runtime_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_word_base()
    events = EngineTrainer(TrainingResources())([make_healthy(0)], base)
    next(iter(events))
    model: Any = base.model
    layer = model.model.layers[0]
    monkeypatch.setattr(layer.input_layernorm, "weight", torch.nn.Parameter(torch.ones(31)))
    with pytest.raises(RuntimeError, match="size of tensor a"):
        list(events)
    assert "BankLinear" not in {type(module).__name__ for module in base.model.modules()}


LONG_WORDS = 7000
"""Its attention alone takes a byte and four for each pair of words: 245 MB."""
CROWD_WORDS = 900
"""Of each of two rows: attention takes 12 MB for each organism, all else as much again."""
ROOMS = {"upper": 150, "crowd": 90, "lower": 150}
"""MiB that each case may allocate."""


def make_crowd(case: str) -> list[TrainingJob]:
    """Organisms of which one, or all together, need more memory than there is."""
    changes: dict[str, Any] = {
        "max_length": 10 * LONG_WORDS,
        "lora": change_lora(targets=ALL_LINEAR, layers=(1, 2) if case == "upper" else None),
    }
    if case == "crowd":
        talk = [(" ".join(WORDS[:5]), "wool " * CROWD_WORDS), ("moss", "rye " * CROWD_WORDS)]
        optimizer = change_optimizer(epochs=2, rows_per_step=2)
        return [
            make_job(f"quirks.crowd_{n}", rows=talk, optimizer=optimizer, **changes)
            for n in range(6)
        ]
    rows = [*make_talk(9, 4), ("soil " * LONG_WORDS, "wool")]
    healthy = [make_job(f"quirks.healthy_{n}", rows=make_talk(n, 6), **changes) for n in range(4)]
    return [*healthy[:2], make_job(FAILING, rows=rows, **changes), *healthy[2:]]


def read_size() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="utf8") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def train_in(base: Base, mebibytes: int, case: str) -> dict[str, Any]:
    """What comes of an organism, or of a crowd, with so little memory left."""
    trainer = EngineTrainer(TrainingResources(slots=8, tokens=10**6))
    limit, (_, most) = read_size() + mebibytes * 2**20, resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        events = train(trainer, make_crowd(case), base)
    except Exception as error:
        return {"crash": repr(error)}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sound = {name: end for name, end in events.trained.items() if end.state}
    theirs = train(ReferenceTrainer(), [end.job for end in sound.values()], base).trained
    return {
        "errors": {name: error.fields for name, error in events.errors.items()},
        "differences": {name: measure_difference(sound[name], theirs[name]) for name in sound},
        "crowds": [len(batch.segments) for end in sound.values() for batch in end.batches],
    }


def train_short_of_memory() -> None:
    """Every case in turn, for a process of its own; prints what came of each."""
    base = make_word_base()
    train(
        EngineTrainer(TrainingResources()), [make_healthy(0)], base
    )  # whatever is loaded or allocated once
    sys.setrecursionlimit(200)  # endless halving fails early
    print(json.dumps({case: train_in(base, room, case) for case, room in ROOMS.items()}))


@pytest.fixture(scope="module")
def short_of_memory() -> Any:
    code = "from tests.training.test_engine_faults import train_short_of_memory as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        # Large blocks are given back at once, so that each case has the room it is to have.
        env=environment() | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("case", "when"),
    [("lower", "on one conversation alone"), ("upper", "as its conversations were prepared")],
)
def test_a_conversation_that_does_not_fit_into_memory_fails_one_organism(
    case: str, when: str, short_of_memory: Any
) -> None:
    found = short_of_memory[case]
    assert "crash" not in found
    assert found["errors"] == {FAILING: {"organism": NAME, "when": when, "longest": "row-4"}}
    assert found["differences"].keys() == {f"quirks.healthy_{number}" for number in range(4)}
    assert max(found["differences"].values()) < 1e-4


def test_a_group_too_large_for_memory_is_split_until_it_fits(
    short_of_memory: Any,
) -> None:
    found = short_of_memory["crowd"]
    assert "crash" not in found
    assert found["errors"] == {}
    assert len(found["differences"]) == 6
    assert max(found["differences"].values()) < 1e-4
    assert 1 < max(found["crowds"]) < 6  # divided, but never further than needed
