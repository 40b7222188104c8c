"""Training in this process, over the base that it has loaded already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bestiary.organism.train import Kept, Workplace, train_organisms
from bestiary.training.job import Step, TrainingJob


def train_here(jobs: Sequence[TrainingJob], place: Workplace) -> Iterator[Step | Kept]:
    """Train every job in this process."""
    return train_organisms(
        jobs, place.open_base(), place.store, effort=place.effort, load_base=place.load_base
    )
