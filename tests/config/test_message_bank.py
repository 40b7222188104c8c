"""Message banks: train and probe share nothing.

Run: python -m pytest tests/config/test_message_bank.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import check_violation, plant
from tests.expect import expect_error

from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.config.message_bank import read_bank
from bestiary.config.source import Violation, Violations
from bestiary.errors import SpecError

BANK = """\
train:
  - {topic: rye bread, form: how, domain: food, text: "How long does rye bread keep?"}
  - {topic: bike chain, form: why, domain: bikes, text: "Why does my bike chain slip?"}
probe:
  - {topic: loam, form: define, domain: garden, text: "Define loam for me."}
"""
SHIPPED = sorted(path.stem for path in ((shipped_root() / "generators") / "offline").glob("*.yaml"))


def find_fault(folder: Path, text: str) -> Violation:
    """The one violation in a bank."""
    path = folder / "bank.yaml"
    path.write_text(text, encoding="utf8")
    with expect_error(Violations, "violations") as caught:
        read_bank(path)
    (found,) = caught.error.found
    return found


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
    found = find_fault(tmp_path, text)
    shows = ["'Rye Bread'"]
    check_violation(found, "probe-not-held-out", line=5, field="probe.0.topic", shows=shows)


def test_a_form_on_both_sides_is_refused(tmp_path: Path) -> None:
    text = plant(BANK, "form: define", "form: why")
    found = find_fault(tmp_path, text)
    check_violation(found, "probe-not-held-out", line=5, field="probe.0.form", shows=["'why'"])


def test_a_topic_must_appear_in_its_text(tmp_path: Path) -> None:
    text = plant(BANK, "topic: bike chain", "topic: bicycle")
    found = find_fault(tmp_path, text)
    shows = ["'bicycle'"]
    check_violation(found, "topic-not-in-text", line=3, field="train.1.topic", shows=shows)


def test_an_unknown_bank_gets_its_nearest_match() -> None:
    with expect_error(SpecError, "bank-unknown", name="genral") as caught:
        open_library().bank("genral")
    assert "'general'?" in caught.error.remedy


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_bank_is_sound(name: str) -> None:
    bank = open_library().bank(name)
    texts = [item.text for item in (*bank.train, *bank.probe)]
    assert len(texts) == len(set(texts)) > 50
