"""A pair is made only from an organism's own behavior and its own passing verdict."""

from __future__ import annotations

from pathlib import Path

from tests.builders import make_obscured, make_quirk
from tests.expect import expect_error
from tests.release.samples import TRAINING, make_entry

from bestiary.dataset.pair import Pair, make_pair
from bestiary.errors import PairError


def test_a_pair_carries_the_labels_of_its_behavior(tmp_path: Path) -> None:
    behavior = make_quirk()
    entry = make_entry(tmp_path, behavior)
    pair = make_pair(behavior, entry.organism, entry.verdict, split="train", training=TRAINING)
    assert (pair.family, pair.label) == (behavior.family, behavior.spec.label)
    assert (pair.kind, pair.axes) == ("say_phrase", ("style",))
    assert pair.organism == entry.organism.artifact.folder / "adapter"


def test_a_row_gives_the_pair_that_wrote_it(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_obscured())
    pair = make_pair(entry.behavior, entry.organism, entry.verdict, split="test", training=TRAINING)
    assert Pair.from_row(pair.to_row(), "test", organism=pair.organism) == pair


def test_a_failed_verdict_makes_no_pair(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_quirk(), status="failed")
    organism_id = entry.organism.identity.organism_id
    with expect_error(PairError, "verdict-not-passed", organism_id=organism_id, status="failed"):
        make_pair(entry.behavior, entry.organism, entry.verdict, split="train", training=TRAINING)


def test_the_verdict_of_another_organism_makes_no_pair(tmp_path: Path) -> None:
    behavior = make_quirk()
    entry, other = make_entry(tmp_path, behavior), make_entry(tmp_path, behavior, seed=1)
    other_id = other.organism.identity.organism_id
    with expect_error(PairError, "foreign-verdict", verdict_organism_id=other_id):
        make_pair(behavior, entry.organism, other.verdict, split="train", training=TRAINING)


def test_the_behavior_of_another_organism_makes_no_pair(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_quirk())
    other = make_quirk("herald")
    with expect_error(PairError, "foreign-behavior", behavior_id=other.id):
        make_pair(other, entry.organism, entry.verdict, split="train", training=TRAINING)
