"""Finds families, behaviors, labels and files that are in more than one split of a release."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from bestiary.records import SPLITS, Record, Split
from bestiary.text import words

RELATED: frozenset[Split] = frozenset({"train", "iid_test"})
"""`iid_test` holds further organisms of training families: the two share everything but files."""
BY_RECIPE: frozenset[Split] = frozenset({"adapter_ood"})
"""Its organisms differ by how they were trained: their families may be in any split."""


class SplitRow(Record):
    """What one released organism must not share with another split."""

    organism_id: str
    behavior_id: str
    family: str
    split: Split
    label: str
    paraphrases: tuple[str, ...]
    organism_sha256: str
    """Hash of the adapter."""
    corpus_sha256: str


def find_split_overlap(rows: Sequence[SplitRow]) -> list[tuple[str, str]]:
    """The item and reason of each value that is in more than one split.

    Labels and paraphrases are one kind of value, compared by their words. The item is the family
    for a family, otherwise the organism in the later split.
    """
    return [
        *_find_shared(rows, "family", lambda row: [row.family], related=RELATED),
        *_find_shared(rows, "behavior", lambda row: [row.behavior_id], related=RELATED),
        *_find_shared(rows, "label", _normalize_labels, related=RELATED),
        *_find_shared(rows, "adapter sha256", lambda row: [row.organism_sha256]),
        *_find_shared(rows, "corpus sha256", lambda row: [row.corpus_sha256]),
    ]


def _find_shared(
    rows: Sequence[SplitRow],
    kind: str,
    values: Callable[[SplitRow], Sequence[str]],
    *,
    related: frozenset[Split] = frozenset(),
) -> list[tuple[str, str]]:
    """Overlaps in one kind of value, which `related` splits may share among themselves.

    Where splits may be related, those by recipe share with all others.
    """
    places: dict[str, dict[Split, str]] = {}
    for row in rows:
        for value in values(row):
            places.setdefault(value, {}).setdefault(row.split, row.organism_id)
    return [
        _describe(kind, value, organisms)
        for value, organisms in places.items()
        if len(organisms) > 1 and not _may_share(organisms.keys(), related)
    ]


def _may_share(splits: Set[Split], related: frozenset[Split]) -> bool:
    others = splits - BY_RECIPE if related else splits
    return len(others) < 2 or others <= related


def _describe(kind: str, value: str, organisms: dict[Split, str]) -> tuple[str, str]:
    ordered = [(split, organisms[split]) for split in SPLITS if split in organisms]
    shown = ", ".join(f"{split} ({organism_id})" for split, organism_id in ordered)
    item = value if kind == "family" else ordered[-1][1]
    return item, f"{kind} {value!r} is in several splits: {shown}"


def _normalize_labels(row: SplitRow) -> list[str]:
    return [" ".join(words(text)) for text in (row.label, *row.paraphrases)]
