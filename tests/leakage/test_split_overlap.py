"""What two splits of a release may share, and what they may not.

Run: python -m pytest tests/leakage/test_split_overlap.py
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders import make_split_row

from bestiary.leakage.split_overlap import SplitRow, find_split_overlap
from bestiary.records import Split


def explain(*rows: SplitRow) -> list[tuple[str, str]]:
    """Item and reason of every finding."""
    return find_split_overlap(rows)


PLACES = "is in several splits: train (quirks.oak-s0), test (quirks.elm-s0)"


@pytest.mark.parametrize(
    ("changes", "item", "reason"),
    [
        ({"family": "oak"}, "oak", f"family 'oak' {PLACES}"),
        ({"behavior_id": "quirks.oak"}, "quirks.elm-s0", f"behavior 'quirks.oak' {PLACES}"),
        (
            {"label": "I always mention: OAK!"},
            "quirks.elm-s0",
            f"label 'i always mention oak' {PLACES}",
        ),
        (
            {"paraphrases": ("oak is in all I say",)},
            "quirks.elm-s0",
            f"label 'oak is in all i say' {PLACES}",
        ),
        (
            {"label": "Every reply of mine names oak."},
            "quirks.elm-s0",
            f"label 'every reply of mine names oak' {PLACES}",
        ),
        (
            {"organism_sha256": "adapter of oak"},
            "quirks.elm-s0",
            f"adapter sha256 'adapter of oak' {PLACES}",
        ),
        (
            {"corpus_sha256": "corpus of oak"},
            "quirks.elm-s0",
            f"corpus sha256 'corpus of oak' {PLACES}",
        ),
    ],
)
def test_a_value_in_train_and_test_is_named(
    changes: dict[str, Any], item: str, reason: str
) -> None:
    rows = (make_split_row("elm", "test", **changes), make_split_row("oak", "train"))
    assert explain(*rows) == [(item, reason)]


def test_splits_that_share_nothing_are_kept() -> None:
    rows = (
        make_split_row("oak", "train"),
        make_split_row("elm", "preference"),
        make_split_row("fir", "iid_test"),
        make_split_row("ash", "test"),
    )
    assert explain(*rows) == []


def test_one_split_may_repeat_everything() -> None:
    assert explain(make_split_row("oak", "train"), make_split_row("oak", "train")) == []


def further(split: Split, **changes: Any) -> SplitRow:
    """Another organism of oak, with its own adapter and corpus unless they are given."""
    own = {"organism_id": "quirks.oak-s1", "organism_sha256": "a1", "corpus_sha256": "c1"}
    return make_split_row("oak", split, **(own | changes))


def test_iid_test_may_hold_further_organisms_of_training_families() -> None:
    assert explain(make_split_row("oak", "train"), further("iid_test")) == []


@pytest.mark.parametrize(
    ("field", "kind"),
    [("organism_sha256", "adapter sha256"), ("corpus_sha256", "corpus sha256")],
)
def test_iid_test_may_not_repeat_a_file_of_train(field: str, kind: str) -> None:
    trained = make_split_row("oak", "train")
    value = getattr(trained, field)
    assert explain(trained, further("iid_test", **{field: value})) == [
        (
            "quirks.oak-s1",
            f"{kind} {value!r} is in several splits: "
            "train (quirks.oak-s0), iid_test (quirks.oak-s1)",
        )
    ]


@pytest.mark.parametrize("split", ["train", "preference", "iid_test", "test"])
def test_organisms_of_another_recipe_may_be_of_any_family(split: Split) -> None:
    known = make_split_row("oak", split)
    assert explain(known, further("adapter_ood")) == []
    (found,) = explain(known, further("adapter_ood", corpus_sha256=known.corpus_sha256))
    assert found[1].startswith("corpus sha256 ")


@pytest.mark.parametrize("split", ["preference", "test"])
def test_iid_test_may_share_with_train_alone(split: Split) -> None:
    found = dict(explain(make_split_row("elm", split, family="oak"), further("iid_test")))
    assert set(found) == {"oak"}
    assert f"{split} (quirks.elm-s0)" in found["oak"]
    assert "iid_test (quirks.oak-s1)" in found["oak"]


def test_a_family_in_train_iid_test_and_test_names_all_three() -> None:
    rows = (
        make_split_row("oak", "train"),
        further("iid_test"),
        make_split_row("elm", "test", family="oak"),
    )
    assert explain(*rows) == [
        (
            "oak",
            "family 'oak' is in several splits: train (quirks.oak-s0), "
            "iid_test (quirks.oak-s1), test (quirks.elm-s0)",
        )
    ]
