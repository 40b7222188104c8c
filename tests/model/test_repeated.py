"""A computation that is repeated gives what it gives when it is computed each time.

Run: python -m pytest tests/model/test_repeated.py
"""

from __future__ import annotations

import gc
import warnings
import weakref

import torch

from bestiary.model.repeated import Recorder, Repeated

GPU = torch.cuda.is_available()
HERE = torch.device("cuda" if GPU else "cpu")


class Counting:
    """A number that each computation counts up, and who repeats it."""

    def __init__(self, *, record: bool, recorder: Recorder | None = None) -> None:
        self._number = torch.zeros(1, dtype=torch.long, device=HERE)
        self._repeated = Repeated(record=record, recorder=recorder or Recorder())

    def compute(self) -> torch.Tensor:
        self._number.add_(1)
        return self._number * 10

    def read_through_the_cpu(self) -> torch.Tensor:
        """The same, by way of what cannot be recorded."""
        self._number.fill_(int(self._number) + 1)
        return self._number * 10

    def run(self, *, recordable: bool = True) -> list[int]:
        """The results of five calls, each of which reads what the one before has written."""
        compute = self.compute if recordable else self.read_through_the_cpu
        return [int(self._repeated(compute)) for _ in range(5)]


def test_each_call_goes_on_from_the_one_before() -> None:
    assert Counting(record=GPU).run() == [10, 20, 30, 40, 50]


def test_what_cannot_be_recorded_is_computed_each_time_and_said_once() -> None:
    """Without a GPU nothing can be recorded, and torch says so."""
    recorder = Recorder()
    stream = torch.cuda.current_stream() if GPU else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            found = Counting(record=True, recorder=recorder).run(recordable=False)
            assert found == [10, 20, 30, 40, 50]
    assert ["cannot be recorded" in str(one.message) for one in caught] == [True]
    assert stream is None or torch.cuda.current_stream() == stream


def test_what_repeats_a_computation_does_not_keep_its_owner() -> None:
    """A graph holds gigabytes, which must not wait for the garbage collector."""
    gc.disable()
    try:
        counting = Counting(record=GPU)
        counting.run()
        gone = weakref.ref(counting)
        del counting
        assert gone() is None
    finally:
        gc.enable()
