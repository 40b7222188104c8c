"""Which items a worker runs together, and what is run after a worker died."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bestiary.stage import Item, Stage, Todo

DEATHS = 2
"""Workers that may die on a group without any item having advanced before the group is halved: the
first one may have died of anything."""

In = TypeVar("In", bound=Item)


@dataclass(frozen=True)
class Bucket(Generic[In]):
    """Items that one worker runs side by side."""

    todo: tuple[Todo[In], ...]
    size: int
    """Units of work of all its items."""
    deaths: int = 0
    """Workers that have died on it since one of its items last advanced."""


def partition(stage: Stage[In, Any], todo: Sequence[Todo[In]], workers: int) -> list[Bucket[In]]:
    """Buckets for some workers, the largest first.

    Items of equal affinity are spread evenly by size over the workers.
    """
    alike: dict[Hashable, list[Todo[In]]] = {}
    for one in todo:
        alike.setdefault(stage.affinity(one.item), []).append(one)
    buckets = [one for group in alike.values() for one in _spread(stage, group, workers)]
    return sorted(buckets, key=lambda bucket: -bucket.size)


def _spread(stage: Stage[In, Any], todo: Sequence[Todo[In]], workers: int) -> list[Bucket[In]]:
    """Largest item first, each into the bucket with the least work; a bucket keeps their order."""
    sizes = [stage.size(one.item) for one in todo]
    buckets: list[list[int]] = [[] for _ in range(min(workers, len(todo)))]
    for place in sorted(range(len(todo)), key=lambda place: -sizes[place]):
        min(buckets, key=lambda bucket: sum(sizes[own] for own in bucket)).append(place)
    return [
        Bucket(
            todo=tuple(todo[place] for place in sorted(bucket)),
            size=sum(sizes[place] for place in bucket),
        )
        for bucket in buckets
    ]


def requeue_after_death(
    stage: Stage[In, Any], bucket: Bucket[In], left: Sequence[Todo[In]], *, advanced: bool
) -> list[Bucket[In]]:
    """What to run after a worker died on a bucket of which some items are left.

    `advanced` says whether any of its items had advanced. Returns nothing if the one item left is
    the one on which workers die.
    """
    deaths = 0 if advanced else bucket.deaths + 1
    if not left:
        return []
    if deaths < DEATHS:
        return [_make_bucket(stage, left, deaths)]
    middle = len(left) // 2
    halves = (left[:middle], left[middle:])
    return [_make_bucket(stage, half, 0) for half in halves] if middle else []


def _make_bucket(stage: Stage[In, Any], todo: Sequence[Todo[In]], deaths: int) -> Bucket[In]:
    return Bucket(tuple(todo), sum(stage.size(one.item) for one in todo), deaths)
