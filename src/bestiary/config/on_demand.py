"""Sequences: made when they are first asked for, read in turn, read here and there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class OnDemand(Sequence[T]):
    """A stated number of members, each made from its place once it is asked for.

    Tables have tens of thousands of messages, of which a check or a corpus reads a few hundred.
    """

    def __init__(self, size: int, make: Callable[[int], T]) -> None:
        self._places = range(size)
        self._make = make
        self._made: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        chosen = self._places[place]
        if isinstance(chosen, range):
            return [self[at] for at in chosen]
        if chosen not in self._made:
            self._made[chosen] = self._make(chosen)
        return self._made[chosen]


def in_turn(columns: Sequence[Sequence[T]]) -> Sequence[T]:
    """The members of several sequences, one of each in turn for as long as it has any."""
    sized = [(column, len(column)) for column in columns]  # asked once: there are many members
    rows = range(max((size for _, size in sized), default=0))
    places = [(column, row) for row in rows for column, size in sized if row < size]
    return OnDemand(len(places), lambda place: places[place][0][places[place][1]])


def spread(items: Sequence[T], count: int) -> Sequence[T]:
    """So many of the items, from all over their order: neighbors are often alike."""
    kept = min(count, len(items))
    return [items[place * len(items) // kept] for place in range(kept)]
