"""Who trains what together, and what is made of a worker's death.

Run: python -m pytest tests/executor/test_groups.py
"""

from __future__ import annotations

import pytest
from tests.jobs import change_lora, change_optimizer, make_job, make_talk

from bestiary.executor.groups import DEATHS, Group, deal_jobs, regroup_jobs
from bestiary.training.job import TrainingJob


def job_of(name: str, steps: int, **lora: object) -> TrainingJob:
    return make_job(
        f"quirks.{name}",
        rows=make_talk(0, steps),
        lora=change_lora(**lora),
        optimizer=change_optimizer(epochs=1, rows_per_step=1),
    )


def names_of(groups: list[Group]) -> list[str]:
    """Each group as its organisms' letters."""
    return [
        "".join(job.identity.behavior_id.removeprefix("quirks.") for job in group.jobs)
        for group in groups
    ]


def test_steps_are_dealt_out_evenly_and_each_group_keeps_the_order() -> None:
    jobs = [job_of(name, steps) for name, steps in zip("abcdef", (3, 9, 1, 8, 2, 4), strict=True)]
    groups = deal_jobs(jobs, workers=2)
    assert names_of(groups) == ["abe", "cdf"]
    assert [group.steps for group in groups] == [14, 13]
    assert groups == deal_jobs(jobs, workers=2)


def test_organisms_that_adapt_other_modules_are_never_together() -> None:
    alike = [job_of(name, 4) for name in "ab"]
    others = [job_of(name, 2, targets=("q_proj",)) for name in "cd"]
    lower = job_of("e", 1, layers=(0, 1))
    jobs = [alike[0], others[0], lower, alike[1], others[1]]
    assert names_of(deal_jobs(jobs, workers=1)) == ["ab", "cd", "e"]
    assert names_of(deal_jobs(jobs, workers=2)) == ["a", "b", "c", "d", "e"]


def test_the_order_of_targets_makes_no_difference() -> None:
    jobs = [
        job_of("a", 2, targets=("q_proj", "v_proj")),
        job_of("b", 2, targets=("v_proj", "q_proj")),
    ]
    assert names_of(deal_jobs(jobs, workers=1)) == ["ab"]


def test_no_worker_is_given_nothing() -> None:
    assert names_of(deal_jobs([job_of("a", 2)], workers=8)) == ["a"]


def test_a_group_that_got_further_starts_again_with_a_clean_slate() -> None:
    jobs = tuple(job_of(name, 2) for name in "abc")
    again = regroup_jobs(Group(jobs, DEATHS - 1), jobs[1:], further=True)
    assert again == [Group(jobs[1:])]


def test_a_first_death_may_be_anything() -> None:
    jobs = tuple(job_of(name, 2) for name in "abc")
    assert regroup_jobs(Group(jobs), jobs, further=False) == [Group(jobs, 1)]


@pytest.mark.parametrize(
    ("letters", "expected"), [("abcde", ["ab", "cde"]), ("ab", ["a", "b"]), ("a", []), ("", [])]
)
def test_two_deaths_halve_a_group_down_to_the_organism_at_fault(
    letters: str, expected: list[str]
) -> None:
    jobs = tuple(job_of(name, 2) for name in letters)
    again = regroup_jobs(Group(jobs, DEATHS - 1), jobs, further=False)
    assert names_of(again) == expected
    assert [group.deaths for group in again] == [0] * len(expected)
