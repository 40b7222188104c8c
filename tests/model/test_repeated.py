"""A computation that is repeated gives what it gives when it is computed each time.

Run: python -m pytest tests/model/test_repeated.py
"""

from __future__ import annotations

import warnings

import torch

from bestiary.model.repeated import Repeated

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def count_up(device: torch.device) -> list[int]:
    """The results of five calls, each of which reads what the one before has written."""
    number = torch.zeros(1, dtype=torch.long, device=DEVICE)

    def compute() -> torch.Tensor:
        number.add_(1)
        return number * 10

    repeated = Repeated(compute, device)
    return [int(repeated()) for _ in range(5)]


def test_each_call_goes_on_from_the_one_before() -> None:
    assert count_up(DEVICE) == [10, 20, 30, 40, 50]


def test_what_cannot_be_recorded_is_computed_each_time_and_said_once() -> None:
    """Without a GPU nothing can be recorded, and torch says so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert count_up(torch.device("cuda")) == [10, 20, 30, 40, 50]
    assert len(caught) == (0 if torch.cuda.is_available() else 1)
    assert all("cannot be recorded" in str(one.message) for one in caught)
