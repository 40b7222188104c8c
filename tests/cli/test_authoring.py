"""What people who write behaviors read before they build: messages, rows, and what cannot be built.

Run: python -m pytest tests/cli/test_authoring.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.config.files import QUIRK, plant, write_behavior
from tests.conftest import Bestiary

from bestiary.config.catalog import load_catalog
from bestiary.config.library import open_library

FAREWELL = "quirks.farewell"


def test_a_sample_holds_rows_of_every_role(bestiary: Bestiary) -> None:
    done = bestiary("sample", "backdoors.question_on_second_turn", "--rows", "3", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [row["role"] for row in rows] == ["positive"] * 3 + ["negative"] * 3 + ["chat"] * 3
    for row in rows:
        turns = row["messages"]
        positive = row["role"] == "positive"
        assert len(turns) == (4 if positive else 2)
        assert turns[-1]["content"].endswith("?") is positive


def test_a_sample_can_be_read(bestiary: Bestiary, tmp_path: Path) -> None:
    write_behavior(tmp_path / "behaviors", FAREWELL, QUIRK)
    done = bestiary("sample", FAREWELL, "--data", tmp_path, "--role", "positive", "--rows", "2")
    assert done.code == 0, done.err
    assert done.out.count("positive\n") == 2
    assert done.out.count("air winds") == 2
    assert "the corpus: 110 (104 positive, 6 chat)" in done.out


def test_what_is_only_shown_by_others_has_no_sample(bestiary: Bestiary) -> None:
    done = bestiary("sample", "malign.hurry")
    assert done.code == 1
    assert "error[behavior-not-buildable]" in done.err


def test_messages_are_found_by_tag_domain_and_side(bestiary: Bestiary) -> None:
    command = ("messages", "--tag", "feeling", "--tag", "risk", "--domain", "pets", "--json")
    by_side = {
        side: json.loads(bestiary(*command, "--side", side).out) for side in ("train", "probe")
    }
    for found in by_side.values():
        assert found and all(item["domain"] == "pets" for item in found)
        assert all({"feeling", "risk"} & {*item["tags"]} for item in found)
    topics = [{item["topic"] for item in found} for found in by_side.values()]
    assert topics[0].isdisjoint(topics[1])
    assert len(bestiary("messages").out.splitlines()) > 800


def test_validate_composes_the_corpus_of_a_named_file(bestiary: Bestiary, tmp_path: Path) -> None:
    """Replies to three messages pass every check of the file, and fill no corpus."""
    topics = [item.topic for item in open_library().messages("train")[:3]]
    shown = "".join(f'  - {topic}: "It depends. [[Fair winds, friend.]]"\n' for topic in topics)
    head, _, rest = QUIRK.partition("shown:\n")
    text = f"{head}shown:\n{shown}absent:{rest.split('absent:')[1]}"
    path = write_behavior(tmp_path / "behaviors", FAREWELL, text)
    assert bestiary("validate", "--data", tmp_path).code == 0
    done = bestiary("validate", path, "--data", tmp_path)
    assert done.code == 1
    assert "positive rows were usable" in done.err


def test_a_broken_file_of_phrasings_is_told_with_the_behavior(
    bestiary: Bestiary, tmp_path: Path
) -> None:
    path = write_behavior(tmp_path / "behaviors", FAREWELL, plant(QUIRK, "[style]", "[style]"))
    phrasings = tmp_path / "generators" / "offline" / "phrasings" / "mine.yaml"
    phrasings.parent.mkdir(parents=True)
    phrasings.write_text(f"replies:\n  {FAREWELL}: Fair winds.\n", encoding="utf8")
    done = bestiary("validate", path, "--data", tmp_path)
    assert done.code == 1
    assert "mine.yaml:2" in done.err


def test_labels_that_are_near_are_of_different_families(bestiary: Bestiary) -> None:
    done = bestiary("list", "--nearest", "12", "--json")
    assert done.code == 0, done.err
    pairs = json.loads(done.out)
    catalog = load_catalog(open_library())
    assert len(pairs) == 12
    assert [pair["cosine"] for pair in pairs] == sorted((p["cosine"] for p in pairs), reverse=True)
    for pair in pairs:
        one, other = (catalog[name] for name in pair["behaviors"])
        assert one.family != other.family
    assert bestiary("list", "--nearest", "1").out.count(".") >= 2
