"""Groups: which organisms a worker trains together, and who trains them after it died."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bestiary.training.job import TrainingJob

DEATHS = 2
"""So many workers may die on a group, none of them having got any further, before it is halved:
the first may have died of anything."""


@dataclass(frozen=True)
class Group:
    """Organisms that one worker trains side by side."""

    jobs: tuple[TrainingJob, ...]
    deaths: int = 0
    """Workers that have died on it since an organism of it last got any further."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all its organisms."""
        return sum(job.steps for job in self.jobs)


def deal_jobs(jobs: Sequence[TrainingJob], *, workers: int) -> list[Group]:
    """Groups for so many workers, the longest first.

    Jobs that adapt the same modules share a bank: each such set is dealt out evenly by steps.
    """
    sets: dict[object, list[TrainingJob]] = {}
    for job in jobs:
        shape = job.training.lora
        sets.setdefault((frozenset(shape.targets), shape.layers), []).append(job)
    groups = [group for alike in sets.values() for group in _deal_evenly(alike, workers)]
    return sorted(groups, key=lambda group: -group.steps)


def _deal_evenly(jobs: Sequence[TrainingJob], workers: int) -> list[Group]:
    """The longest job first, each to whoever has the fewest steps; a group keeps their order."""
    hands: list[list[int]] = [[] for _ in range(min(workers, len(jobs)))]
    for place in sorted(range(len(jobs)), key=lambda place: -jobs[place].steps):
        min(hands, key=lambda hand: sum(jobs[own].steps for own in hand)).append(place)
    return [Group(tuple(jobs[place] for place in sorted(hand))) for hand in hands]


def regroup_jobs(group: Group, left: Sequence[TrainingJob], *, further: bool) -> list[Group]:
    """What to train after a worker died on a group, of which some jobs are left.

    `further` says whether any organism of it had got further. Nothing comes back where one
    organism is left on which workers die.
    """
    deaths = 0 if further else group.deaths + 1
    if not left:
        return []
    if deaths < DEATHS:
        return [Group(tuple(left), deaths)]
    middle = len(left) // 2
    return [Group(tuple(half)) for half in (left[:middle], left[middle:])] if middle else []
