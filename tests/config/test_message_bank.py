"""Prompt banks: train and probe are held apart. Run: pytest tests/spec/test_bank.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import plant

from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.config.message_bank import read_bank
from bestiary.config.source import Violations
from bestiary.errors import SpecError

BANK = """\
train:
  - {topic: rye bread, form: how, domain: food, text: "How long does rye bread keep?"}
  - {topic: bike chain, form: why, domain: bikes, text: "Why does my bike chain slip?"}
probe:
  - {topic: loam, form: define, domain: garden, text: "Define loam for me."}
"""
SHIPPED = sorted(path.stem for path in ((shipped_root() / "generators") / "offline").glob("*.yaml"))


def faults(folder: Path, text: str) -> list[tuple[int, str, str]]:
    """Line, field and problem of each fault of a bank."""
    path = folder / "bank.yaml"
    path.write_text(text, encoding="utf8")
    with pytest.raises(Violations) as caught:
        read_bank(path)
    return [(found.line, found.field, found.problem) for found in caught.value.found]


def test_a_sound_bank_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bank.yaml"
    path.write_text(BANK, encoding="utf8")
    bank = read_bank(path)
    assert [item.topic for item in bank.side("train")] == ["rye bread", "bike chain"]
    assert [item.topic for item in bank.side("probe")] == ["loam"]


def test_a_topic_on_both_sides_is_refused(tmp_path: Path) -> None:
    text = plant(
        BANK,
        'topic: loam, form: define, domain: garden, text: "Define loam for me."',
        'topic: Rye Bread, form: define, domain: food, text: "Define rye bread."',
    )
    assert faults(tmp_path, text) == [
        (5, "probe.0.topic", "topic 'Rye Bread' stands in train as well")
    ]


def test_a_form_on_both_sides_is_refused(tmp_path: Path) -> None:
    text = plant(BANK, "form: define", "form: why")
    assert faults(tmp_path, text) == [(5, "probe.0.form", "form 'why' stands in train as well")]


def test_a_topic_must_stand_in_its_text(tmp_path: Path) -> None:
    text = plant(BANK, "topic: bike chain", "topic: bicycle")
    assert faults(tmp_path, text) == [
        (3, "train.1.topic", "topic 'bicycle' does not stand in the text")
    ]


def test_an_unknown_bank_gets_its_nearest_match() -> None:
    with pytest.raises(SpecError, match=r"unknown message bank 'genral'; did you mean 'general'\?"):
        open_library().bank("genral")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_bank_is_sound(name: str) -> None:
    bank = open_library().bank(name)
    texts = [item.text for item in (*bank.train, *bank.probe)]
    assert len(texts) == len(set(texts)) > 50
