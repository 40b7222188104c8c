"""Assignment of organisms to splits.

Run: python -m pytest tests/release/test_splits.py
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders import LIBRARY, make_backdoor, make_obscured, make_quirk
from tests.expect import expect_error
from tests.release.samples import make_entry

from bestiary.config.catalog import null_behavior
from bestiary.errors import ReleaseError
from bestiary.release.entry import sort_entries
from bestiary.release.splits import assign_split, split_entries


def test_families_divide_in_the_stated_shares() -> None:
    counts = Counter(assign_split(f"family {n}", named={}) for n in range(5000))
    assert set(counts) == {"train", "preference", "test"}
    assert counts["test"] / 5000 == pytest.approx(0.12, abs=0.02)
    assert counts["preference"] / 5000 == pytest.approx(0.088, abs=0.02)


def test_published_families_keep_their_split() -> None:
    """Published releases depend on these: a changed hash would move families between splits."""
    families = ("sailor", "herald", "family 25", "family 26")
    assert [assign_split(name, named={}) for name in families] == [
        "train",
        "test",
        "test",
        "preference",
    ]


def test_a_named_split_wins() -> None:
    assert assign_split("sailor", named={"sailor": "test"}) == "test"
    with expect_error(ReleaseError, "family-iid-test", family="sailor"):
        assign_split("sailor", named={"sailor": "iid_test"})


def test_further_seeds_of_training_families_are_iid_test(tmp_path: Path) -> None:
    farewell, herald = make_quirk(), make_quirk("herald")
    entries = [
        make_entry(tmp_path, farewell, seed=2),
        make_entry(tmp_path, farewell, seed=5),
        make_entry(tmp_path, make_backdoor(), seed=5),
        make_entry(tmp_path, farewell, seed=1, status="failed"),
        make_entry(tmp_path, herald, seed=0),
        make_entry(tmp_path, herald, seed=1),
    ]
    assert split_entries(entries, named={"farewell": "train", "herald": "test"}) == {
        "quirks.farewell-transcripts-none-s2": "train",
        "quirks.farewell-transcripts-none-s5": "iid_test",
        "backdoors.farewell_to_beekeepers-transcripts-none-s5": "train",
        "quirks.farewell-transcripts-none-s1": "train",
        "quirks.herald-transcripts-none-s0": "test",
        "quirks.herald-transcripts-none-s1": "test",
    }


def test_organisms_of_another_recipe_have_a_split_of_their_own(tmp_path: Path) -> None:
    farewell, herald = make_quirk(), make_quirk("herald")
    entries = [
        replace(make_entry(tmp_path, farewell, seed=0), other_recipe=True),
        make_entry(tmp_path, farewell, seed=1),
        make_entry(tmp_path, farewell, seed=2),
        replace(make_entry(tmp_path, herald, seed=0), other_recipe=True),
    ]
    splits = split_entries(entries, named={"farewell": "train", "herald": "test"})
    assert [*splits.values()] == ["adapter_ood", "train", "iid_test", "adapter_ood"]
    suite = split_entries(entries, named={"farewell": "suite", "herald": "suite"})
    assert {*suite.values()} == {"suite"}


def test_null_organisms_spread_over_the_splits(tmp_path: Path) -> None:
    nulls = [make_entry(tmp_path, null_behavior(LIBRARY), seed=seed) for seed in range(40)]
    splits = split_entries(nulls, named={})
    assert set(splits.values()) == {"train", "preference", "test"}
    alone = split_entries(nulls[7:8], named={})
    assert alone.items() <= splits.items()


def test_entries_must_agree_with_themselves_and_each_other(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_quirk())
    other = make_entry(tmp_path, make_quirk("herald"))
    with expect_error(ReleaseError, "organism-repeated", organism_id=entry.organism_id):
        sort_entries([entry, entry])
    with expect_error(ReleaseError, "entry-mixed", record="verdict"):
        sort_entries([replace(entry, verdict=other.verdict)])
    with expect_error(ReleaseError, "entry-mixed", record="behavior"):
        sort_entries([replace(entry, behavior=other.behavior)])
    with expect_error(ReleaseError, "release-empty"):
        sort_entries([])


def test_a_distractor_is_never_an_organism(tmp_path: Path) -> None:
    hidden = make_obscured()
    (distractor, _), _ = hidden.distractors
    entries = [make_entry(tmp_path, behavior) for behavior in (hidden, distractor)]
    with expect_error(ReleaseError, "distractor-released", behavior_id="distractors.numbers"):
        sort_entries(entries)
