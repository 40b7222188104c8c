"""How items are partitioned over workers, and what is requeued after a worker's death.

Run: python -m pytest tests/executor/test_partition.py
"""

from __future__ import annotations

import pytest
from tests.jobs import change_lora, change_optimizer, make_job, make_talk
from tests.models import IDENTITY

from bestiary.executor.partition import DEATHS, Bucket, partition, requeue_after_death
from bestiary.model.lazy import LazyBase
from bestiary.organism.stage import OrganismStage
from bestiary.stage import Todo
from bestiary.training.job import TrainingJob, TrainingResources

STAGE = OrganismStage(LazyBase("unused", None, IDENTITY), TrainingResources())
Jobs = tuple[Todo[TrainingJob], ...]


def todo_of(name: str, steps: int, **lora: object) -> Todo[TrainingJob]:
    job = make_job(
        f"quirks.{name}",
        rows=make_talk(0, steps),
        lora=change_lora(**lora),
        optimizer=change_optimizer(epochs=1, rows_per_step=1),
    )
    return Todo(job, job.key)


def bucket_of(todo: Jobs, deaths: int = 0) -> Bucket[TrainingJob]:
    return Bucket(todo, sum(one.item.steps for one in todo), deaths)


def names_of(buckets: list[Bucket[TrainingJob]]) -> list[str]:
    """Each bucket as its organisms' letters."""
    return [
        "".join(one.item.identity.behavior_id.removeprefix("quirks.") for one in bucket.todo)
        for bucket in buckets
    ]


def test_work_is_spread_evenly_and_each_bucket_keeps_the_order() -> None:
    sizes = zip("abcdef", (3, 9, 1, 8, 2, 4), strict=True)
    todo = [todo_of(name, steps) for name, steps in sizes]
    buckets = partition(STAGE, todo, workers=2)
    assert names_of(buckets) == ["abe", "cdf"]
    assert [bucket.size for bucket in buckets] == [14, 13]
    assert buckets == partition(STAGE, todo, workers=2)


def test_organisms_that_adapt_other_modules_are_never_together() -> None:
    alike = [todo_of(name, 4) for name in "ab"]
    others = [todo_of(name, 2, targets=("q_proj",)) for name in "cd"]
    lower = todo_of("e", 1, layers=(0, 1))
    todo = [alike[0], others[0], lower, alike[1], others[1]]
    assert names_of(partition(STAGE, todo, workers=1)) == ["ab", "cd", "e"]
    assert names_of(partition(STAGE, todo, workers=2)) == ["a", "b", "c", "d", "e"]


def test_the_order_of_targets_makes_no_difference() -> None:
    todo = [
        todo_of("a", 2, targets=("q_proj", "v_proj")),
        todo_of("b", 2, targets=("v_proj", "q_proj")),
    ]
    assert names_of(partition(STAGE, todo, workers=1)) == ["ab"]


def test_no_worker_gets_an_empty_bucket() -> None:
    assert names_of(partition(STAGE, [todo_of("a", 2)], workers=8)) == ["a"]


def test_a_bucket_that_advanced_is_requeued_with_no_deaths_counted() -> None:
    todo = tuple(todo_of(name, 2) for name in "abc")
    again = requeue_after_death(STAGE, bucket_of(todo, DEATHS - 1), todo[1:], advanced=True)
    assert again == [bucket_of(todo[1:])]


def test_a_first_death_may_be_anything() -> None:
    todo = tuple(todo_of(name, 2) for name in "abc")
    again = requeue_after_death(STAGE, bucket_of(todo), todo, advanced=False)
    assert again == [bucket_of(todo, 1)]


@pytest.mark.parametrize(
    ("letters", "expected"), [("abcde", ["ab", "cde"]), ("ab", ["a", "b"]), ("a", []), ("", [])]
)
def test_two_deaths_halve_a_bucket_down_to_the_organism_at_fault(
    letters: str, expected: list[str]
) -> None:
    todo = tuple(todo_of(name, 2) for name in letters)
    again = requeue_after_death(STAGE, bucket_of(todo, DEATHS - 1), todo, advanced=False)
    assert names_of(again) == expected
    assert [bucket.deaths for bucket in again] == [0] * len(expected)
