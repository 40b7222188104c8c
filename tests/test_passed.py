"""What `validate` remembers: a behavior is checked again once anything that it reads has changed.

Run: python -m pytest tests/test_passed.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import change_file
from tests.conftest import Bestiary

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


@pytest.mark.parametrize(
    ("file", "pattern", "new", "shown"),
    [
        ("generators/quirks/reply.j2", r"\A", "{{ behavior.nothing }}", "nothing"),
        ("generators/quirks/generator.yaml", r"(?m)^rows: \d+", "rows: 0", "rows"),
        (HERALD, "any: .Listen! .answer..", 'any: "Oyez! {answer}"', "must not show"),
    ],
)
def test_what_a_behavior_reads_is_checked_again_once_it_changes(
    data: Path, bestiary: Bestiary, file: str, pattern: str, new: str, shown: str
) -> None:
    assert bestiary("validate").out == VALID
    change_file(data / file, pattern, new)
    done = bestiary("validate")
    assert done.code == 1 and shown in done.err


def test_nothing_is_checked_twice_and_what_is_gone_is_forgotten(
    data: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    assert bestiary("validate").out == VALID
    three = read_cache(tmp_path)
    assert bestiary("validate").out == VALID
    assert read_cache(tmp_path) == three
    for path in (data / "behaviors" / "distractors").glob("*.yaml"):
        path.unlink()
    assert bestiary("validate").out == "2 behaviors are valid.\n"
    assert len(read_cache(tmp_path)) < len(three)


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
