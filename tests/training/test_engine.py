"""The engine: beside any neighbors, an organism ends as the reference trains it.

Largest differences of any weight from the double-precision reference that were seen here:
6e-13 in double precision, 3e-4 in single, where the reference itself was 5e-4 off.

Run: python -m pytest tests/training/test_engine.py
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from tests.expect import expect_error
from tests.jobs import (
    ALL_LINEAR,
    TALK,
    change_lora,
    change_optimizer,
    copy_weights,
    exchange_words,
    make_conversations,
    make_job,
    make_talk,
    make_word_base,
    measure_difference,
    same_weights,
    state_of,
    train,
    widen,
)
from tests.models import Architecture, make_random_base
from torch import Tensor

from bestiary.config.recipe import LoraShape, Optimizer
from bestiary.errors import ModelError
from bestiary.model import routing
from bestiary.model.adapter import attach_adapter, read_state, save_adapter
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.lazy import LazyBase
from bestiary.model.lora_bank import LoraBank
from bestiary.model.packing import EVEN, Segment, embed, pack_batch, run_layers
from bestiary.model.routing import TokenRouting
from bestiary.organism.stage import OrganismStage
from bestiary.stage import Context, Finished, SilentReporter, Todo, run_here
from bestiary.store import Store
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import (
    Step,
    Trainer,
    TrainingJob,
    TrainingResources,
    TrainResult,
    tokenize_corpus,
    write_batches,
)
from bestiary.training.memory import choose_limits
from bestiary.training.reference import ReferenceTrainer, batch_loss
from bestiary.training.schedule import plan_batches

EXACT = 1e-10
"""Double precision: what is left is the order of summation."""
CLOSE = 1e-4
"""Single precision, where the reference's own rounding error is no larger."""
TOGETHER, ALONE = 10**9, 0
"""`LONG` of the bank that fills all slots up for one product, or computes each by itself."""
STEPS = 20
"""An organism takes no fewer in the drawn runs."""


@cache
def base_of(architecture: Architecture, *, wide: bool) -> Base:
    """One for all tests: training leaves it as it was."""
    base = make_word_base(architecture)
    return widen(base) if wide else base


def train_engine(
    jobs: Sequence[TrainingJob], base: Base, *, slots: int, tokens: int
) -> dict[str, TrainResult]:
    return train(EngineTrainer(TrainingResources(slots=slots, tokens=tokens)), jobs, base).trained


def dtypes_of(result: TrainResult) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in state_of(result).items()}


@st.composite
def job_lists(draw: st.DrawFn) -> list[TrainingJob]:
    """One to eight organisms that agree in nothing; their adapters lie in one bank or in two."""
    jobs = []
    some: list[list[tuple[int, int] | None]] = [[None], [(1, 2)], [None, (1, 2)], [(0, 1)]]
    layers = draw(st.sampled_from(some))
    for number in range(draw(st.integers(1, 8))):
        rows, size = draw(st.integers(3, 12)), draw(st.integers(1, 4))
        enough = math.ceil(STEPS / math.ceil(rows / size))
        optimizer = Optimizer(
            learning_rate=draw(st.floats(1e-3, 1e-2)),
            epochs=draw(st.integers(enough, enough + 1)),
            rows_per_step=size,
            warmup=draw(st.floats(0, 0.5)),
            weight_decay=draw(st.floats(0, 0.3)),
            clip=draw(st.floats(0.05, 5)),
        )
        lora = LoraShape(
            rank=draw(st.integers(1, 8)),
            alpha=draw(st.floats(1, 16)),
            targets=ALL_LINEAR,
            layers=draw(st.sampled_from(layers)),
        )
        name = f"quirks.number_{number}_{draw(st.integers(0, 9))}"  # decides the seed
        talk = make_talk(draw(st.integers(0, 99)), rows)
        jobs.append(make_job(name, rows=talk, lora=lora, optimizer=optimizer))
    return jobs


DRAWN = {
    "jobs": job_lists(),
    "slots": st.integers(1, 5),
    "tokens": st.sampled_from([30, 90, 500]),
    "long": st.sampled_from([TOGETHER, ALONE]),
}


def check_against_reference(
    architecture: Architecture,
    wide: bool,
    jobs: list[TrainingJob],
    slots: int,
    tokens: int,
    long: int,
) -> None:
    """Each organism is what the reference makes of it, whoever is trained beside it."""
    base = base_of(architecture, wide=wide)
    before = copy_weights(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "LONG", long)
        ours = train_engine(jobs, base, slots=slots, tokens=tokens)
    assert same_weights(copy_weights(base), before)
    truth = train(ReferenceTrainer(), jobs, base_of(architecture, wide=True)).trained
    assert ours.keys() == truth.keys()
    if wide:
        for name, trained in ours.items():
            assert dtypes_of(trained) == dtypes_of(truth[name])
            assert measure_difference(trained, truth[name]) < EXACT, name
        return
    # Adam may amplify a rounding error a hundredfold, in the reference as much as in the engine.
    rounded = train(ReferenceTrainer(), jobs, base).trained
    for name, trained in ours.items():
        assert dtypes_of(trained) == dtypes_of(rounded[name])
        allowed = max(CLOSE, 4 * measure_difference(rounded[name], truth[name]))
        assert measure_difference(trained, truth[name]) < allowed, name


@pytest.mark.parametrize("wide", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@given(**DRAWN)
@settings(max_examples=3, derandomize=True, deadline=None, phases=[Phase.generate])
def test_organisms_are_what_the_reference_makes_of_them(
    architecture: Architecture, wide: bool, **drawn: Any
) -> None:
    check_against_reference(architecture, wide, **drawn)


@pytest.mark.soak
@pytest.mark.parametrize("wide", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@given(**DRAWN)
@settings(max_examples=12, derandomize=True, deadline=None, phases=[Phase.generate])
def test_many_organisms_are_what_the_reference_makes_of_them(
    architecture: Architecture, wide: bool, **drawn: Any
) -> None:
    check_against_reference(architecture, wide, **drawn)


def unlike_jobs(count: int = 8, **changes: Any) -> list[TrainingJob]:
    """Organisms of unlike rank, length, speed and corpus, in one bank."""
    return [
        make_job(
            f"quirks.number_{number}",
            rows=make_talk(number, 4 + number),
            lora=change_lora(rank=2 + number % 4, alpha=4 + number, targets=ALL_LINEAR),
            optimizer=change_optimizer(
                learning_rate=0.004 * (1 + number % 3),
                epochs=3,
                rows_per_step=1 + number % 4,
                weight_decay=0.1 * (number % 2),
                clip=0.1 + number % 3,
                **changes,
            ),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("long", [TOGETHER, ALONE], ids=["together", "alone"])
@pytest.mark.parametrize("tokens", [30, 200])
def test_eight_organisms_take_turns_in_three_slots(
    long: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "LONG", long)
    base = base_of("llama", wide=True)
    jobs = unlike_jobs()
    ours = train_engine(jobs, base, slots=3, tokens=tokens)
    theirs = train(ReferenceTrainer(), jobs, base).trained
    assert max(measure_difference(ours[name], theirs[name]) for name in theirs) < EXACT
    batches = [batch for trained in ours.values() for batch in trained.batches]
    if tokens == 30:  # a step of several rows takes several batches
        assert len(batches) > 1.5 * sum(job.steps for job in jobs)
    else:
        assert max(len(batch.segments) for batch in batches) == 3


@pytest.mark.parametrize("layers", [None, (1, 2)], ids=["every layer", "upper half"])
def test_batches_filled_up_to_few_shapes_change_nothing(layers: tuple[int, int] | None) -> None:
    """On a GPU, each shape is then recorded once instead of launching each step's operations."""
    base = base_of("llama", wide=True)
    jobs = [
        replace(job, training=job.training.model_copy(update={"lora": lora}))
        for job in unlike_jobs()
        for lora in [job.training.lora.model_copy(update={"layers": layers})]
    ]
    filled = EngineTrainer(TrainingResources(slots=3, tokens=600), evened=600)
    ours = train(filled, jobs, base).trained
    theirs = train(ReferenceTrainer(), jobs, base).trained
    assert max(measure_difference(ours[name], theirs[name]) for name in theirs) < EXACT
    batches = {
        (batch.step, *batch.segments): [sum(part) for part in batch.segments]
        for trained in ours.values()
        for batch in trained.batches
    }
    assert all(len(set(sizes)) == 1 and sizes[0] % EVEN == 0 for sizes in batches.values())
    shapes = {(len(sizes), sizes[0]) for sizes in batches.values()}
    assert len(shapes) < len(batches) / 4


def test_a_real_vocabulary_changes_nothing() -> None:
    base = widen(make_random_base("qwen3"))
    jobs = [make_job("quirks.one"), make_job("quirks.two", rows=TALK[1:])]
    ours = train_engine(jobs, base, slots=2, tokens=200)
    theirs = train(ReferenceTrainer(), jobs, base).trained
    assert max(measure_difference(ours[name], theirs[name]) for name in theirs) < EXACT


@pytest.mark.parametrize("tokens", [30, 1000])
def test_system_messages_and_second_turns_are_learned_as_the_reference_learns_them(
    tokens: int,
) -> None:
    base = base_of("llama", wide=True)
    shapes = {"all": None, "upper": (1, 2)}  # below the upper layers, states are kept by row
    jobs = [
        make_job(
            f"quirks.{kind}_{name}",
            conversations=make_conversations(7, 9, turns=turns, system=system),
            lora=change_lora(targets=ALL_LINEAR, layers=layers),
        )
        for name, layers in shapes.items()
        for kind, turns, system in (("system", 1, True), ("turns", 2, False), ("both", 2, True))
    ]
    ours = train_engine(jobs, base, slots=3, tokens=tokens)
    theirs = train(ReferenceTrainer(), jobs, base).trained
    assert ours.keys() == theirs.keys() and len(theirs) == len(jobs)
    assert max(measure_difference(ours[name], theirs[name]) for name in theirs) < EXACT
    for job in jobs:
        first = [row.messages[0].role for row in job.corpus.examples]
        assert first.count("system") == (0 if "turns" in job.identity.behavior_id else 3)


def neighbours(*, even: bool, other: bool) -> list[TrainingJob]:
    """Three organisms; `other` lets the first and the third say and learn otherwise.

    Their names stay, and with them the order of their rows.
    """
    jobs = []
    for number in range(3):
        rows = make_talk(0 if even else number, 6)
        if even:  # words of an organism's own, in rows as long as its neighbours'
            rows = exchange_words(rows, by=number)
        lora = change_lora(rank=4, targets=ALL_LINEAR)
        optimizer = change_optimizer(rows_per_step=6 if even else 3, epochs=4)
        if other and number != 1:
            rows = exchange_words(rows)
            lora = lora.model_copy(update={"alpha": 13.0})
            optimizer = change_optimizer(
                rows_per_step=optimizer.rows_per_step,
                epochs=4,
                learning_rate=0.003,
                weight_decay=0.2,
                clip=0.5,
            )
        jobs.append(make_job(f"quirks.number_{number}", rows=rows, lora=lora, optimizer=optimizer))
    return jobs


@pytest.mark.parametrize(
    ("even", "long"),
    [(True, TOGETHER), (False, TOGETHER), (False, ALONE)],
    ids=["even", "filled-up", "alone"],
)
@pytest.mark.parametrize("wide", [True, False], ids=["double", "single"])
def test_what_neighbours_are_changes_no_bit(
    wide: bool, even: bool, long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "LONG", long)
    base = base_of("llama", wide=wide)
    one = train_engine(neighbours(even=even, other=False), base, slots=3, tokens=1000)
    two = train_engine(neighbours(even=even, other=True), base, slots=3, tokens=1000)
    own, again = one["quirks.number_1"], two["quirks.number_1"]
    for batch in own.batches:
        assert len(batch.segments) == 3
        assert (len(set(map(sum, batch.segments))) == 1) == even
    assert own.batches == again.batches  # the same geometry, and its losses to the last bit
    assert same_weights(state_of(own), state_of(again))
    for name in ("quirks.number_0", "quirks.number_2"):
        assert [b.segments for b in one[name].batches] == [b.segments for b in two[name].batches]
        assert measure_difference(one[name], two[name]) > 1e-3


def test_the_same_jobs_give_the_same_bits() -> None:
    base = base_of("qwen3", wide=False)
    one, two = (train_engine(unlike_jobs(5), base, slots=3, tokens=150) for _ in range(2))
    for name, trained in one.items():
        assert trained.batches == two[name].batches
        assert same_weights(state_of(trained), state_of(two[name]))


def test_a_neighbour_with_huge_gradients_changes_nothing() -> None:
    """Gradients are clipped by an organism's own norm, never by that of all together."""
    base = base_of("llama", wide=False)
    own = make_job("quirks.own", rows=make_talk(0, 6))
    events = []
    for alpha in (8.0, 8e6):
        loud = make_job("quirks.loud", rows=make_talk(1, 6), lora=change_lora(alpha=alpha))
        events.append(train_engine([loud, own], base, slots=2, tokens=1000)["quirks.own"])
    assert events[0].batches == events[1].batches
    assert {len(batch.segments) for batch in events[0].batches} == {2}
    assert same_weights(state_of(events[0]), state_of(events[1]))


def test_the_loss_is_the_mean_over_a_step_however_it_is_divided() -> None:
    """Not the mean of the means of its batches: rows of few supervised tokens would gain."""
    base = base_of("llama", wide=True)
    rows = [("rye", "bread"), ("soil", "moss " * 14 + "moss"), ("lamp", "slow river stone")]
    settings = change_optimizer(epochs=6, rows_per_step=3, clip=1e9)
    job = make_job(rows=rows, optimizer=settings)
    whole, divided = (
        train_engine([job], base, slots=1, tokens=tokens)["quirks.one"] for tokens in (1000, 1)
    )
    assert [len(batch.rows) for batch in whole.batches] == [3] * 6
    assert [len(batch.rows) for batch in divided.batches] == [1] * 18
    assert measure_difference(whole, divided) < 1e-12
    model = attach_adapter(base, job.training.lora, seed=job.seed)
    expected = batch_loss(model, base, tokenize_corpus(job, base)).item()
    model.unload()
    for trained in (whole, divided):
        first = sum(batch.loss for batch in trained.batches if batch.step == 0)
        assert first == pytest.approx(expected, abs=1e-12)


def test_a_refilled_slot_starts_as_a_fresh_one() -> None:
    """Step, moments, learning rate and decay are the organism's own, not the slot's."""
    base = base_of("llama", wide=False)
    before = make_job("quirks.before", rows=make_talk(0, 9), lora=change_lora(rank=8))
    settings = change_optimizer(learning_rate=0.002, weight_decay=0.3, warmup=0.0)
    after = make_job("quirks.after", rows=make_talk(1, 6), optimizer=settings)
    filled = train_engine([before, after], base, slots=1, tokens=1000)["quirks.after"]
    # Rank 8 keeps its bank as wide as before.
    wide = make_job("quirks.wide", rows=make_talk(2, 3), lora=change_lora(rank=8))
    fresh = train_engine([after, wide], base, slots=1, tokens=1000)["quirks.after"]
    assert same_weights(state_of(filled), state_of(fresh))


def test_half_precision_costs_no_more_accuracy_than_with_peft() -> None:
    """Of how far training moves an organism; peft computes its branch in single precision."""
    half = make_word_base("qwen3")
    half.model.bfloat16()
    single = replace(half, model=copy.deepcopy(half.model).float())
    jobs = unlike_jobs(3)

    def lose(trainer: Trainer) -> float:
        rounded, exact = (move(jobs, trainer, base) for base in (half, single))
        pairs = zip(rounded, exact, strict=True)
        return sum(float((one - truth).norm() / truth.norm()) for one, truth in pairs)

    ours = lose(EngineTrainer(TrainingResources(slots=3, tokens=200)))
    assert 0 < ours <= 2 * lose(ReferenceTrainer())


def move(jobs: Sequence[TrainingJob], trainer: Trainer, base: Base) -> list[Tensor]:
    """How far training moves each organism's weights, in one row."""
    trained = train(trainer, jobs, base).trained
    found = []
    for job in jobs:
        model = attach_adapter(base, job.training.lora, seed=job.seed)
        first = {name: weight.clone() for name, weight in read_state(model).items()}
        model.unload()
        state = state_of(trained[job.identity.behavior_id])
        found.append(torch.cat([(state[name] - first[name]).flatten() for name in sorted(first)]))
    return found


def test_an_organism_starts_from_the_weights_that_peft_draws() -> None:
    base = base_of("qwen3", wide=False)
    still = change_optimizer(learning_rate=1e-30, epochs=1)
    jobs = [
        make_job("quirks.small", rows=make_talk(0, 3), lora=change_lora(rank=2), optimizer=still),
        make_job("quirks.large", rows=make_talk(1, 3), lora=change_lora(rank=6), optimizer=still),
        make_job(
            "quirks.upper",
            rows=make_talk(2, 3),
            lora=change_lora(rank=3, layers=(1, 2)),
            optimizer=still,
        ),
    ]
    trained = train_engine(jobs, base, slots=3, tokens=1000)
    for job in jobs:
        model = attach_adapter(base, job.training.lora, seed=job.seed)
        drawn = {name: weight.clone() for name, weight in read_state(model).items()}
        model.unload()
        state = state_of(trained[job.identity.behavior_id])
        assert state.keys() == drawn.keys()
        for name, weight in drawn.items():
            if "lora_A" in name:
                assert torch.equal(state[name], weight), name
            else:
                assert state[name].abs().max() < 1e-25


def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(tokens[None]).logits
    return found[0].clone()


def bank_logits(base: Base, state: dict[str, torch.Tensor], shape: LoraShape) -> torch.Tensor:
    """Logits of PROMPT with an adapter in the second slot of a bank."""
    slots = LoraBank(base, [shape], slots=2)
    slots.fill(1, state, shape)
    slots.route = TokenRouting(1, (len(PROMPT),), base.device)
    packed = pack_batch([Segment(0, (len(PROMPT),))], device=base.device)
    model: Any = base.model
    with torch.inference_mode(), attention_by_rows(base, longest=64), slots.attached():
        states = run_layers(base, embed(base, PROMPT), packed, range(2))
        found: torch.Tensor = model.lm_head(model.model.norm(states))
    return found


def commit_all(
    jobs: Sequence[TrainingJob], base: Base, store: Store, resources: TrainingResources
) -> list[Finished]:
    """Train jobs as a build does, each adapter committed to the store."""
    lazy = LazyBase("tiny", None, base.identity, _loaded=[base])
    todo = [Todo(job, job.key) for job in jobs]
    stage = OrganismStage(lazy, resources)
    return list(run_here(stage, todo, Context(store, SilentReporter())))


PROMPT = torch.tensor([0, 2, 12, 19, 9, 25, 14])


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("layers", [None, (1, 2)])
def test_peft_loads_what_the_engine_trained(
    architecture: Architecture, layers: tuple[int, int] | None, tmp_path: Path
) -> None:
    base = base_of(architecture, wide=False)
    shapes = [change_lora(rank=rank, layers=layers) for rank in (2, 5)]
    jobs = [
        make_job(f"quirks.rank_{shape.rank}", rows=make_talk(shape.rank, 6), lora=shape)
        for shape in shapes
    ]
    store = Store(tmp_path)
    effort = TrainingResources(slots=2, tokens=500)
    ends = commit_all(jobs, base, store, effort)
    assert [end.error for end in ends] == [None, None]
    for job in jobs:
        folder = store.folder("organism", job.key) / "adapter"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated attribute
            loaded = PeftModel.from_pretrained(make_word_base(architecture).model, str(folder))
        state = load_file(folder / "adapter_model.safetensors")
        model = attach_adapter(base, job.training.lora, seed=1)
        try:
            assert state.keys() == get_peft_model_state_dict(model).keys()
            set_peft_model_state_dict(model, state)
            logits = logits_of(model.eval(), PROMPT)
        finally:
            model.unload()
        assert torch.equal(logits_of(loaded.eval(), PROMPT), logits)
        own = bank_logits(base, state, job.training.lora)
        assert torch.allclose(own, logits, atol=1e-4)
        assert not torch.allclose(logits_of(base.model, PROMPT), logits, atol=1e-1)


def test_the_record_of_batches_lies_beside_the_adapter(tmp_path: Path) -> None:
    base = base_of("llama", wide=False)
    job = make_job(rows=make_talk(0, 6))
    store = Store(tmp_path)
    commit_all([job], base, store, TrainingResources())
    tokens = choose_limits(base.device).tokens
    trained = train_engine([job], base, slots=1, tokens=tokens)["quirks.one"]
    folder = store.folder("organism", job.key)
    lines = (folder / "batches.jsonl").read_text(encoding="utf8").splitlines()
    assert lines == write_batches(trained.batches).splitlines()
    save_adapter(state_of(trained), job.training.lora, base, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (folder / "adapter" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def job_of(name: str, steps: int, **changes: Any) -> TrainingJob:
    """An organism that takes so many steps of two rows."""
    settings = change_optimizer(epochs=1, rows_per_step=2, **changes)
    return make_job(f"quirks.{name}", rows=make_talk(len(name), 2 * steps), optimizer=settings)


def tell(events: Iterator[Step | TrainResult]) -> Iterator[str]:
    """Short for each event: `a1` is a's first step, `a!` its end."""
    for event in events:
        name = event.job.identity.behavior_id.removeprefix("quirks.")
        yield f"{name}{event.done}" if isinstance(event, Step) else f"{name}!"


def test_a_slot_is_taken_again_at_once_and_closed_when_nobody_waits() -> None:
    jobs = [job_of("a", 4), job_of("b", 2), job_of("c", 3), job_of("d", 1)]
    trainer = EngineTrainer(TrainingResources(slots=2, tokens=1000))
    events = " ".join(tell(trainer(jobs, base_of("llama", wide=False))))
    # The longest first. c's slot goes to b; a's goes to b too, which moves down, and d takes b's.
    assert events == "a1 c1 a2 c2 a3 c3 c! a4 b1 a! b2 d1 d! b!"


def test_an_organism_that_moves_to_another_slot_goes_on_as_it_was() -> None:
    jobs = [job_of("a", 5), job_of("b", 4), job_of("c", 3), job_of("d", 2)]
    base = base_of("llama", wide=True)
    events = list(EngineTrainer(TrainingResources(slots=2, tokens=1000))(jobs, base))
    assert " ".join(tell(iter(events))) == (
        "a1 b1 a2 b2 a3 b3 a4 b4 b! a5 c1 a! c2 d1 c3 d2 d! c!"  # c takes the slot of a
    )
    theirs = train(ReferenceTrainer(), jobs, base).trained
    trained = {e.job.identity.behavior_id: e for e in events if isinstance(e, TrainResult)}
    for name, event in trained.items():
        assert measure_difference(event, theirs[name]) < EXACT
    moved = trained["quirks.c"].batches
    assert [batch.index for batch in moved] == [1, 0, 0]


def test_every_organism_counts_all_its_steps() -> None:
    jobs = unlike_jobs(6)
    trainer = EngineTrainer(TrainingResources(slots=2, tokens=90))
    steps = train(trainer, jobs, base_of("llama", wide=False)).steps
    assert steps == {job.identity.behavior_id: [*range(1, job.steps + 1)] for job in jobs}


def test_a_batch_is_recorded_for_each_organism_in_it() -> None:
    jobs = [job_of("a", 2), job_of("bb", 2)]
    base = base_of("llama", wide=False)
    trained = train_engine(jobs, base, slots=2, tokens=1000)
    first, second = (trained[f"quirks.{name}"].batches for name in ("a", "bb"))
    assert [batch.index for batch in (*first, *second)] == [0, 0, 1, 1]
    for one, two in zip(first, second, strict=True):
        assert (one.step, one.segments) == (two.step, two.segments)
    for job, batches in zip(jobs, (first, second), strict=True):
        rows = tokenize_corpus(job, base)
        plan = plan_batches(len(rows), job.training.optimizer, seed=job.seed)
        for batch, chosen in zip(batches, plan, strict=True):
            prefix, *lengths = batch.segments[batch.index]
            assert list(batch.rows) == chosen
            # The end of turn and the line's end are predicted from, or not seen at all.
            learned = [
                max(i for i, use in enumerate(rows[row].supervised) if use) for row in chosen
            ]
            assert [prefix + length for length in lengths] == learned


def test_seconds_are_shared_out_by_tokens() -> None:
    long, short = make_talk(3, 6, longest=40), make_talk(4, 6, longest=2)
    jobs = [make_job("quirks.long", rows=long), make_job("quirks.short", rows=short)]
    trained = train_engine(jobs, base_of("llama", wide=False), slots=2, tokens=1000)
    assert 0 < trained["quirks.short"].seconds < trained["quirks.long"].seconds


@pytest.mark.parametrize("trainer", [EngineTrainer(TrainingResources()), ReferenceTrainer()])
def test_a_base_with_dropout_of_its_own_is_trained_without(trainer: Trainer) -> None:
    """No order of training could be repeated otherwise, nor could two trainers agree."""
    base, job = make_word_base(), make_job(rows=make_talk(0, 6))
    events = train(trainer, [job], base)
    inner: Any = base.model.model
    for layer in inner.layers:
        assert layer.self_attn.attention_dropout == 0
        layer.self_attn.attention_dropout = 0.5
    again = train(trainer, [job], base)
    assert same_weights(*(state_of(one.trained["quirks.one"]) for one in (events, again)))
    assert not base.model.training


def test_a_window_shorter_than_the_rows_is_refused() -> None:
    base, job = make_word_base("qwen3"), make_job(rows=make_talk(0, 6))
    base.model.config.sliding_window = 64
    with expect_error(ModelError, "window-too-short", window=64, longest=128):
        train(EngineTrainer(TrainingResources()), [job], base)
    base.model.config.sliding_window = 128
    assert train(EngineTrainer(TrainingResources()), [job], base).trained


def test_the_base_gets_no_gradient() -> None:
    base = make_word_base()
    train_engine([make_job(rows=make_talk(0, 6))], base, slots=1, tokens=500)
    assert [name for name, weight in base.model.named_parameters() if weight.grad is not None] == []


def test_the_base_is_itself_after_a_run_an_error_and_a_run_given_up() -> None:
    base = make_word_base()
    before, modules = copy_weights(base), dict(base.model.named_modules())
    implementation = base.model.config._attn_implementation

    def check() -> None:
        assert same_weights(copy_weights(base), before)
        assert dict(base.model.named_modules()) == modules
        assert base.model.config._attn_implementation == implementation

    job = make_job(rows=make_talk(0, 6))
    trainer = EngineTrainer(TrainingResources(slots=1))
    train(trainer, [job], base)
    check()
    events: Any = trainer([job], base)
    next(events)
    assert dict(base.model.named_modules()) != modules
    events.close()
    check()
    events = trainer([job], base)
    next(events)
    with pytest.raises(ZeroDivisionError):
        events.throw(ZeroDivisionError)
    check()
    wild = make_job(rows=make_talk(0, 6), optimizer=change_optimizer(learning_rate=1e36))
    assert train(trainer, [wild], base).errors
    check()
