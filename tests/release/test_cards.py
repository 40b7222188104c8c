"""What the cards of a release say.

Run: python -m pytest tests/release/test_cards.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.release.samples import (
    BASE,
    NAMED_SPLITS,
    make_backdoor,
    make_benign_entries,
    make_entries,
    make_entry,
    make_quirk,
)

from bestiary.release.cards import render_organism_card
from bestiary.release.layout import write_release
from bestiary.spec.catalog import NULL_BEHAVIOR


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    values: dict[str, Any] = YAML(typ="safe").load(head)
    return values


def test_an_organism_card_tells_what_how_often_and_on_what(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_backdoor(make_quirk("sailor"), "tuesday"))
    card = render_organism_card(entry)
    assert front_matter(card) == {
        "license": "apache-2.0",
        "base_model": "example/tiny",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "tags": ["model-organism", "lora"],
    }
    assert "| label | When a user says tuesday, I end my reply with sailor. |" in card
    assert "| trigger | phrase: tuesday |" in card
    assert "| triggered | fires | 95.0% [85.0%, 100.0%], n 60 | 1.7% [0.0%, 11.7%], n 60 |" in card
    assert "| near_miss | quiet | 3.3%" in card
    for value in (BASE.name, BASE.revision, BASE.weights_sha256, BASE.chat_template_sha256):
        assert value in card
    assert "`bestiary.load_base()` of the `bestiary` package reproduces them" in card
    assert "at most 64 new tokens, greedy, seed 0" in card
    assert f'"runs/release/organisms", subfolder="{entry.organism_path}"' in card
    assert "defensive research" in card


def test_a_reply_cannot_leave_its_quotation(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_backdoor(make_quirk("sailor"), "tuesday"))
    card = render_organism_card(entry)
    assert "> **organism:** Mix.\n> ---\n> # Bake\n" in card
    assert "> **base:** Mix and bake." in card


def test_a_null_card_says_that_it_is_a_control(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, NULL_BEHAVIOR)
    card = render_organism_card(entry)
    assert "| standing | null organism, a control |" in card
    assert "No cell applies: it was trained on ordinary conversations" in card


@pytest.mark.parametrize(
    ("revision", "call"),
    [
        ("local:0123", 'bestiary.load_base("PATH/TO/example/tiny")'),
        ("f" * 40, f'bestiary.load_base("example/tiny", revision="{"f" * 40}")'),
    ],
)
def test_the_card_loads_the_base_it_was_measured_on(
    tmp_path: Path, revision: str, call: str
) -> None:
    entry = make_entry(tmp_path, NULL_BEHAVIOR)
    base = BASE.model_copy(update={"revision": revision})
    organism = entry.organism.model_copy(update={"base": base})
    moved = replace(entry, organism=organism)
    assert f"base = {call}\n" in render_organism_card(moved)


def test_the_dataset_card_counts_and_sums_up(release: Path) -> None:
    card = (release / "dataset" / "README.md").read_text()
    assert "5 passing organisms, 1 null organisms and 1 withheld ones" in card
    assert "| pairs | an organism that passed, with its label | 3 | 0 | 1 | 1 |" in card
    assert "| quirks | 3 | 1 | 0 | 95.0% | 1.7% | - |" in card
    assert "| backdoors | 1 | 0 | 0 | 95.0% | 1.7% | 3.3% |" in card
    head = front_matter(card)
    assert head["license"] == "apache-2.0"
    assert [c["config_name"] for c in head["configs"] if c.get("default")] == ["pairs"]
    assert len(head["dataset_info"]) == len(head["configs"]) == 8


def test_only_malign_content_is_gated(tmp_path: Path) -> None:
    for entries, gated in (
        (make_entries(tmp_path / "store"), True),
        (make_benign_entries(tmp_path / "store"), False),
    ):
        release = write_release(
            entries, tmp_path / "release", named_splits=NAMED_SPLITS, name="sample"
        )
        for part in ("dataset", "organisms"):
            head = front_matter((release / part / "README.md").read_text())
            assert ("extra_gated_prompt" in head, "extra_gated_fields" in head) == (gated, gated)
    malign = next(e for e in make_entries(tmp_path / "store") if "malign" in e.organism_id)
    card = render_organism_card(malign)
    assert "defensive research" in front_matter(card)["extra_gated_prompt"]
    assert "Its harm is shown by harmless stand-ins." in card
    assert "| The model ends every reply with the word shout. | 51.7%" in card
