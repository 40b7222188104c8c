"""Checkpoints: an organism stopped at any step goes on in any slot as if it had never stopped.

Run: python -m pytest tests/training/test_checkpoint.py
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.forkserver import CHECKOUT, environment
from tests.jobs import (
    ALL_LINEAR,
    TrainEvents,
    change_lora,
    change_optimizer,
    make_job,
    make_talk,
    make_word_base,
    measure_difference,
    same_weights,
    train,
    widen,
)
from torch import Tensor

from bestiary.model.base import Base
from bestiary.model.lazy import LazyBase
from bestiary.organism.stage import OrganismStage
from bestiary.stage import Context, SilentReporter, Todo, run_here
from bestiary.store import PART, Store
from bestiary.training.checkpoint import STAGE, Checkpoint, Checkpoints
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import Batch, Step, TrainingJob, TrainingResources, TrainResult

EVERY = 3
EXACT = 1e-10
KILLED_AT = 8
"""Two steps past a checkpoint."""


@cache
def wide_base() -> Base:
    return widen(make_word_base())


def make_jobs(count: int = 3) -> list[TrainingJob]:
    """Organisms of 12 steps, of unlike rank and length."""
    return [
        make_job(
            f"quirks.number_{number}",
            rows=make_talk(number, 6 + number),
            lora=change_lora(rank=2 + number, targets=ALL_LINEAR),
            optimizer=change_optimizer(
                epochs=12 // (3 if number else 2), weight_decay=0.1, clip=0.3 + number
            ),
        )
        for number in range(count)
    ]


def open_trainer(root: Path, *, slots: int = 3) -> EngineTrainer:
    effort = TrainingResources(slots=slots, tokens=200)
    return EngineTrainer(effort, Checkpoints(Store(root), every=EVERY))


def train_until(root: Path, jobs: list[TrainingJob], step: int) -> None:
    """Train side by side, and give up when all have taken so many steps."""
    waited_for = {job.organism_id for job in jobs}
    events: Any = open_trainer(root)(jobs, wide_base())
    for event in events:
        assert isinstance(event, Step)
        if event.done == step:
            waited_for.discard(event.job.organism_id)
        if not waited_for:
            events.close()
            return
    raise AssertionError(f"{waited_for} took fewer than {step} steps")


@cache
def train_unbroken() -> TrainEvents:
    return train(EngineTrainer(TrainingResources(slots=3, tokens=200)), make_jobs(), wide_base())


def list_kept(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "store" / STAGE).glob("*"))


def make_state(step: int = 6) -> Checkpoint:
    def draw(seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(3, 2, generator=generator) for name in ("a.weight", "b.weight")}

    batch = Batch(step=step - 1, rows=(2, 0), segments=((3, 5, 4), (1, 2)), index=0, loss=1 / 3)
    return Checkpoint(
        step=step,
        seconds=1.25,
        batches=(batch,),
        weights=draw(0),
        first=draw(1),
        second=draw(2),
    )


def test_a_checkpoint_is_found_as_it_was_kept(tmp_path: Path) -> None:
    checkpoints, job, other = Checkpoints(Store(tmp_path)), *make_jobs(2)
    state = make_state()
    assert checkpoints.find(job) is None
    checkpoints.save(job, state)
    found = checkpoints.find(job)
    assert found is not None
    assert (found.step, found.seconds, found.batches) == (6, 1.25, state.batches)
    for one, two in (
        (found.weights, state.weights),
        (found.first, state.first),
        (found.second, state.second),
    ):
        assert same_weights(dict(one), dict(two))
    assert checkpoints.find(other) is None


def test_the_newest_checkpoint_alone_is_kept(tmp_path: Path) -> None:
    checkpoints, job, other = Checkpoints(Store(tmp_path)), *make_jobs(2)
    checkpoints.save(other, make_state(9))
    for step in (98, 99, 100):
        checkpoints.save(job, make_state(step))
    assert list_kept(tmp_path) == sorted([f"{job.key}-000100", f"{other.key}-000009"])
    found = checkpoints.find(job)
    assert found is not None
    assert found.step == 100


def test_the_newer_of_two_that_a_kill_left_is_found(tmp_path: Path) -> None:
    checkpoints, (job,) = Checkpoints(Store(tmp_path)), make_jobs(1)
    checkpoints.save(job, make_state(9))
    newer = tmp_path / "kept"
    (tmp_path / "store" / STAGE / f"{job.key}-000009").rename(newer)
    checkpoints.save(job, make_state(6))
    newer.rename(tmp_path / "store" / STAGE / f"{job.key}-000009")
    found = checkpoints.find(job)
    assert found is not None
    assert found.step == 9
    checkpoints.drop(job)
    assert list_kept(tmp_path) == []


def test_a_checkpoint_that_was_never_committed_is_none(tmp_path: Path) -> None:
    store, (job,) = Store(tmp_path), make_jobs(1)
    checkpoints = Checkpoints(store)
    checkpoints.save(job, make_state(6))
    part = store.folder(STAGE, f"{job.key}-000009.elsewhere-1{PART}")
    part.mkdir()
    (part / "state.json").write_text("{", encoding="utf8")
    found = checkpoints.find(job)
    assert found is not None
    assert found.step == 6


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_dropped(name: str, tmp_path: Path) -> None:
    checkpoints, (job,) = Checkpoints(Store(tmp_path)), make_jobs(1)
    checkpoints.save(job, make_state())
    flip_byte(next(tmp_path.glob(f"store/{STAGE}/*/{name}")))
    assert checkpoints.find(job) is None
    assert list_kept(tmp_path) == []


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_checkpoints_are_kept_at_their_steps_and_not_at_the_last(tmp_path: Path) -> None:
    jobs = make_jobs()
    assert [job.steps for job in jobs] == [12, 12, 12]
    kept: list[tuple[int, int]] = []
    for event in open_trainer(tmp_path)(jobs, wide_base()):
        if isinstance(event, Step) and event.job is jobs[0]:
            name = f"{jobs[0].key}-"
            steps = [int(one.removeprefix(name)) for one in list_kept(tmp_path) if name in one]
            assert len(steps) <= 1
            kept.append((event.done, sum(steps)))
    assert kept == [(step, (step - 1) // EVERY * EVERY) for step in range(1, 13)]


def test_a_stopped_organism_goes_on_in_another_slot_beside_others(tmp_path: Path) -> None:
    jobs = make_jobs()
    train_until(tmp_path, jobs[:2], KILLED_AT)
    new = make_job("quirks.new", rows=make_talk(7, 9), lora=change_lora(rank=3, targets=ALL_LINEAR))
    # Backwards, behind a new one, and one that did not run before in between.
    events = train(open_trainer(tmp_path), [new, jobs[1], jobs[2], jobs[0]], wide_base())
    whole = train_unbroken()
    for number in range(3):
        name = f"quirks.number_{number}"
        trained = events.trained[name]
        assert measure_difference(trained, whole.trained[name]) < EXACT
        first = 7 if number < 2 else 1
        assert events.steps[name] == [*range(first, 13)]
        rows = Counter((batch.step, row) for batch in trained.batches for row in batch.rows)
        assert set(rows.values()) == {1}
        assert {step for step, _ in rows} == set(range(12))
    assert events.steps["quirks.new"] == [*range(1, new.steps + 1)]


def test_an_organism_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    jobs = make_jobs()
    for step in (4, 5, 8, 10):
        train_until(tmp_path, jobs, step)
    events = train(open_trainer(tmp_path, slots=1), jobs, wide_base())
    for name, trained in events.trained.items():
        assert events.steps[name] == [10, 11, 12]
        assert measure_difference(trained, train_unbroken().trained[name]) < EXACT
        assert trained.seconds > 0


def test_stopped_and_continued_alike_gives_the_same_bits(tmp_path: Path) -> None:
    jobs = make_jobs()
    train_until(tmp_path, jobs, KILLED_AT)
    events = train(open_trainer(tmp_path), jobs, wide_base())
    for name, trained in events.trained.items():
        whole = train_unbroken().trained[name]
        assert trained.batches == whole.batches
        assert measure_difference(trained, whole) == 0


def test_a_damaged_checkpoint_lets_its_organism_start_over(tmp_path: Path) -> None:
    jobs = make_jobs()
    train_until(tmp_path, jobs, KILLED_AT)
    flip_byte(tmp_path / "store" / STAGE / f"{jobs[1].key}-000006" / "state.safetensors")
    events = train(open_trainer(tmp_path), jobs, wide_base())
    assert [events.steps[f"quirks.number_{number}"][0] for number in range(3)] == [7, 1, 7]
    for name, trained in events.trained.items():
        assert measure_difference(trained, train_unbroken().trained[name]) < EXACT


def test_the_checkpoints_of_finished_organisms_are_deleted(tmp_path: Path) -> None:
    jobs = make_jobs(2)
    wild = change_optimizer(learning_rate=1e300, warmup=0.0)
    failing = make_job(
        "quirks.failing", rows=make_talk(5, 3), lora=jobs[0].training.lora, optimizer=wild
    )
    store = Store(tmp_path)
    base = wide_base()
    lazy = LazyBase("tiny", None, base.identity, _loaded=[base])
    stage = OrganismStage(lazy, TrainingResources(slots=3, checkpoint_steps=1))
    seen: set[str] = set()

    class Watcher(SilentReporter):
        def advance(self, item_id: str, done: int) -> None:
            seen.update(name.partition("-")[0] for name in list_kept(tmp_path))

    keys = {job.organism_id: job.key for job in (*jobs, failing)}
    todo = [Todo(job, job.key) for job in (*jobs, failing)]
    ends = {
        keys[end.item_id]: end.error is None
        for end in run_here(stage, todo, Context(store, Watcher()))
    }
    assert ends == {jobs[0].key: True, jobs[1].key: True, failing.key: False}
    assert seen == set(ends)
    assert list_kept(tmp_path) == []
    assert sorted(store.names("organism", "")) == sorted(job.key for job in jobs)


KILLED = f"""
import os, signal, sys
from pathlib import Path
from tests.training.test_checkpoint import make_jobs, open_trainer, wide_base
for event in open_trainer(Path(sys.argv[1]))(make_jobs(), wide_base()):
    if event.done == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_does_again_fewer_steps_than_lie_between_checkpoints(
    tmp_path: Path,
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], cwd=CHECKOUT, env=environment(), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list_kept(tmp_path)) == 3
    store = Store(tmp_path)
    with store.lock():
        events = train(open_trainer(tmp_path), make_jobs(), wide_base())
    for name, trained in events.trained.items():
        assert 0 <= KILLED_AT - events.steps[name][0] + 1 < EVERY
        assert events.steps[name] == [*range(7, 13)]
        assert measure_difference(trained, train_unbroken().trained[name]) < EXACT


def test_a_run_without_checkpoints_writes_nothing(tmp_path: Path) -> None:
    events = [*EngineTrainer(TrainingResources())(make_jobs(1), wide_base())]
    assert isinstance(events[-1], TrainResult)
    assert list(tmp_path.iterdir()) == []
