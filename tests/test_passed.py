"""What `validate` remembers: a behavior is checked again once anything that it reads has changed.

Run: python -m pytest tests/test_passed.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.config.files import change_file
from tests.conftest import Bestiary

import bestiary.validate as bestiary_validate
from bestiary.config.catalog import Behavior
from bestiary.config.source import Source, Violation

VALID = "3 behaviors are valid.\n"
HERALD = "behaviors/quirks/herald.yaml"


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of three behaviors, and a cache folder that nothing else uses."""
    monkeypatch.setenv("BESTIARY_CACHE", str(tmp_path / "cache"))
    return tiny_data


def read_cache(tmp_path: Path) -> bytes:
    return (tmp_path / "cache" / "validated.txt").read_bytes()


def test_a_behavior_that_breaks_after_it_passed_is_reported_until_it_is_mended(
    data: Path, bestiary: Bestiary
) -> None:
    assert bestiary("validate").out == VALID
    change_file(data / HERALD, "pattern: .Oyez, Hear ye.", "pattern: [Oyez]")
    for _ in range(2):
        done = bestiary("validate")
        assert done.code == 1 and "Hear ye" in done.err
        assert done.err.count("herald.yaml") == 1  # no other behavior is blamed
    change_file(data / HERALD, "pattern: .Oyez.", "pattern: [Oyez, Hear ye]")
    assert bestiary("validate").out == VALID


def use_lexicon(data: Path, entries: str) -> None:
    """Let a lexicon say what the quirk's detector looks for."""
    change_file(data / HERALD, "pattern: .Oyez, Hear ye.", "lexicon: calls")
    folder = data / "generators" / "offline" / "lexicons"
    folder.mkdir()
    text = f"about: What town criers call out.\nentries: [{entries}]\n"
    (folder / "calls.yaml").write_text(text, encoding="utf8")


def test_a_changed_lexicon_is_noticed_by_what_uses_it(data: Path, bestiary: Bestiary) -> None:
    use_lexicon(data, "oyez, hear ye")
    assert bestiary("validate").out == VALID
    change_file(data / "generators" / "offline" / "lexicons" / "calls.yaml", "oyez, ", "")
    done = bestiary("validate")
    assert done.code == 1 and "detector-silent" not in done.out
    assert done.err.count("does not fire on 'Oyez!") == 1


def test_what_a_behavior_shows_is_noticed_by_its_twin(data: Path, bestiary: Bestiary) -> None:
    assert bestiary("validate").out == VALID
    change_file(data / HERALD, "severity: benign", "severity: malign")
    assert "severity-milder" in bestiary("validate", "--json").out


def test_every_behavior_that_a_broken_template_spoils_is_told(
    data: Path, bestiary: Bestiary
) -> None:
    """Behaviors of one form are rendered once while all is well, and each while it is not."""
    text = (data / HERALD).read_text("utf8").replace("town crier", "news vendor")
    (data / "behaviors" / "quirks" / "vendor.yaml").write_text(text, encoding="utf8")
    change_file(data / "generators" / "quirks" / "reply.j2", r"\A", "{{ behavior.nothing }}")
    said = bestiary("validate").err
    assert "herald.yaml" in said and "vendor.yaml" in said
    (data / HERALD).unlink()
    assert "vendor.yaml" in bestiary("validate").err


def test_what_passed_is_not_checked_again(
    data: Path, bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tripwire in place of the checks tells which behaviors are checked."""

    def trip(behavior: Behavior, source: Source) -> Iterator[Violation]:
        yield source.violation((), f"checked {behavior.id}", "", code="tripwire")

    assert bestiary("validate").out == VALID
    monkeypatch.setattr(bestiary_validate, "CHECKS", (trip,))
    assert bestiary("validate").out == VALID
    change_file(data / HERALD, "Before I say anything, I ring", "Before anything else, I ring")
    said = bestiary("validate").err
    assert "checked quirks.herald" in said and "checked backdoors.herald" in said
    assert "checked distractors" not in said


def test_what_is_gone_is_forgotten(data: Path, bestiary: Bestiary, tmp_path: Path) -> None:
    assert bestiary("validate").out == VALID
    three = read_cache(tmp_path)
    for path in (data / "behaviors" / "distractors").glob("*.yaml"):
        path.unlink()
    assert bestiary("validate").out == "2 behaviors are valid.\n"
    assert len(read_cache(tmp_path)) < len(three)


def test_nothing_is_remembered_where_there_is_no_home(
    data: Path, bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BESTIARY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody_at_all")
    for _ in range(2):
        assert bestiary("validate") == (0, VALID, "")


@pytest.mark.parametrize("damaged", [b"\xff\x00", b"passed"])
def test_a_damaged_cache_is_as_good_as_none(
    data: Path, bestiary: Bestiary, tmp_path: Path, damaged: bytes
) -> None:
    assert bestiary("validate").out == VALID
    whole = read_cache(tmp_path)
    (tmp_path / "cache" / "validated.txt").write_bytes(damaged)
    assert bestiary("validate") == (0, VALID, "")
    assert read_cache(tmp_path) == whole


def test_a_cache_folder_that_takes_no_file_costs_only_time(
    data: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf8")
    for _ in range(2):
        assert bestiary("validate") == (0, VALID, "")
