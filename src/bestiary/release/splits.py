"""Assigns splits: a family hashes to one, so adding a behavior moves no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bestiary.errors import ReleaseError
from bestiary.records import Split, canonical_json, sha256_bytes
from bestiary.release.entry import ReleaseEntry

TEST_SHARE = 0.12
"""Families never seen in training: the share that introspection adapters were evaluated with."""
PREFERENCE_SHARE = 0.10
"""Of the remaining families: kept for preference training."""


def assign_split(family: str, *, named: Mapping[str, Split]) -> Split:
    """The split of a family: the one in `named`, otherwise the one its name hashes to.

    Raises ReleaseError if `named` says `iid_test`, which cannot hold a whole family.
    """
    if family in named:
        return _check_named(family, named[family])
    place = _place(family)
    if place < TEST_SHARE:
        return "test"
    preference = PREFERENCE_SHARE * (1 - TEST_SHARE)
    return "preference" if place < TEST_SHARE + preference else "train"


def _place(family: str) -> float:
    """Where a family stands between 0 and 1, by a hash of its own: published splits hang on it."""
    digest = sha256_bytes(canonical_json(["split", family]))
    return (int(digest[:16], 16) >> 1) / 2**63


def split_entries(
    entries: Sequence[ReleaseEntry], *, named: Mapping[str, Split]
) -> dict[str, Split]:
    """The split of every organism, by organism id.

    In a training family, the lowest passing seed of each behavior is in `train` and later seeds
    in `iid_test`; a null organism hashes by its own id, unless it is for
    tests alone. Organisms of another recipe are in
    `adapter_ood`, whatever their family, unless all of them are of a suite.
    Raises ReleaseError if `named` gives a family a split that no family can have.
    """
    lowest: dict[str, int] = {}
    for entry in entries:
        if entry.standing == "pairs" and not entry.other_recipe:
            behavior, seed = entry.behavior.id, entry.organism.identity.seed
            lowest[behavior] = min(seed, lowest.get(behavior, seed))
    splits: dict[str, Split] = {}
    for entry in entries:
        held_out = entry.behavior.spec.held_out and entry.split_key not in named
        split = "test" if held_out else assign_split(entry.split_key, named=named)
        seed = entry.organism.identity.seed
        if entry.other_recipe and split != "suite":
            split = "adapter_ood"
        elif split == "train" and seed > lowest.get(entry.behavior.id, seed):
            split = "iid_test"
        splits[entry.organism_id] = split
    return splits


def _check_named(family: str, split: Split) -> Split:
    if split == "iid_test":
        raise ReleaseError(
            f"split 'iid_test' for family {family!r}: it holds further seeds of training families, "
            "never a family",
            "name train, preference or test",
            code="family-iid-test",
            family=family,
        )
    return split
