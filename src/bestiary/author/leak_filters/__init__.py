"""Example-level leak filters: which examples give something away, and why.

A corpus is made under these filters; afterwards the leak checks measure it by the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bestiary.author.leak_filters.held_out import find_held_out_overlap
from bestiary.author.leak_filters.label_phrases import find_label_phrases
from bestiary.author.leak_filters.near_duplicates import find_near_duplicates
from bestiary.config.catalog import Behavior
from bestiary.records import Example, Probe

Find = Callable[[Sequence[Example], Behavior, Sequence[Probe]], dict[str, str]]
"""The reason for each example that leaks, by example id."""


@dataclass(frozen=True)
class LeakFilter:
    """One rule that an example of a corpus must keep."""

    version: int
    """Raised when the rule changes; corpora made under the old rule are then made again."""
    find: Find


# Each function takes what it reads and no more; here they get one signature.
LEAK_FILTERS: Mapping[str, LeakFilter] = {
    "label_phrases": LeakFilter(1, lambda rows, behavior, _: find_label_phrases(rows, behavior)),
    "held_out": LeakFilter(3, lambda rows, _, probes: find_held_out_overlap(rows, probes)),
    "near_duplicates": LeakFilter(
        3, lambda rows, behavior, probes: find_near_duplicates(rows, probes, behavior.read)
    ),
}


def find_leaks(
    examples: Sequence[Example], behavior: Behavior, probes: Sequence[Probe]
) -> dict[str, tuple[str, str]]:
    """The first filter that rejects each leaking example and its reason, by example id."""
    found: dict[str, tuple[str, str]] = {}
    for name, leak_filter in LEAK_FILTERS.items():
        for item, reason in leak_filter.find(examples, behavior, probes).items():
            found.setdefault(item, (name, reason))
    return found
