"""What was parsed before is not parsed again, and never comes back as anything else.

Run: python -m pytest tests/config/test_parsed.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.config.parsed import ParsedTexts
from bestiary.config.source import parse_yaml

PARSER = b"the code of a parser"
SCALARS = st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.floats() | st.text()
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where texts are kept; its folder does not exist yet."""
    return tmp_path / "cache" / "parsed.txt"


def keep(path: Path, *texts: bytes) -> None:
    """A run that parses some texts, each of which says itself, twice."""
    run = ParsedTexts(path, PARSER)
    for text in texts:
        run.add(text, [text.decode(), text.decode()])
    run.save()


@given(data=TREES)
def test_what_a_text_says_comes_back_as_it_was(
    data: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cache") / "parsed.txt"
    run = ParsedTexts(path, PARSER)
    run.add(b"a text", data)
    run.save()
    assert repr(ParsedTexts(path, PARSER).find(b"a text")) == repr(data)


def test_a_run_that_parses_nothing_new_writes_nothing(kept: Path) -> None:
    keep(kept, b"one")
    written = kept.read_bytes()
    run = ParsedTexts(kept, PARSER)
    run.find(b"one")
    run.save()
    assert kept.read_bytes() == written


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_damaged_byte_costs_parsing_again_and_never_changes_what_is_said(
    kept: Path, place: int
) -> None:
    keep(kept, b"one", b"two")
    content = bytearray(kept.read_bytes())
    content[place % len(content)] ^= 1
    kept.write_bytes(content)
    run = ParsedTexts(kept, PARSER)
    for text in (b"one", b"two"):
        try:
            assert run.find(text) == [text.decode()] * 2
        except KeyError:
            run.add(text, [text.decode()] * 2)
    run.save()
    mended = ParsedTexts(kept, PARSER)
    assert [mended.find(b"one"), mended.find(b"two")] == [["one", "one"], ["two", "two"]]


def test_a_file_that_was_cut_off_loses_one_text(kept: Path) -> None:
    keep(kept, b"one", b"two")
    kept.write_bytes(kept.read_bytes()[:-10])
    run = ParsedTexts(kept, PARSER)
    assert run.find(b"one") == ["one", "one"]
    with pytest.raises(KeyError):
        run.find(b"two")


def test_another_parser_knows_nothing(kept: Path) -> None:
    keep(kept, b"one")
    with pytest.raises(KeyError):
        ParsedTexts(kept, b"another parser").find(b"one")


def test_texts_that_are_no_longer_read_are_forgotten(kept: Path) -> None:
    keep(kept, b"one", b"two", b"three")
    run = ParsedTexts(kept, PARSER)
    run.find(b"two")
    run.add(b"four", 4)
    run.save()
    after = ParsedTexts(kept, PARSER)
    assert [after.find(b"two"), after.find(b"four")] == [["two", "two"], 4]
    with pytest.raises(KeyError):
        after.find(b"one")


def test_a_folder_that_takes_no_file_costs_only_time(kept: Path) -> None:
    kept.parent.write_text("a file where the folder should be")
    keep(kept, b"one")
    with pytest.raises(KeyError):
        ParsedTexts(kept, PARSER).find(b"one")


def test_a_file_known_from_before_still_says_where_its_fields_are(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("first: 1\nsecond:\n  third: [a, b]\n")
    fresh, known = parse_yaml(path), parse_yaml(path)
    assert known.data == fresh.data
    assert known.line(("second", "third", 1)) == 3


def test_a_changed_file_is_read_anew_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    script = (
        "import sys; from pathlib import Path;"
        "from bestiary.config.source import parse_yaml, parsed_texts;"
        "print(parse_yaml(Path(sys.argv[1])).data); parsed_texts().save()"
    )
    said = []
    for text in ("a: 1", "a: 2", "a: 1"):
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", script, path],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "BESTIARY_CACHE": str(tmp_path / "cache")},
        )
        said.append(done.stdout)
    assert said == ["{'a': 1}\n", "{'a': 2}\n", "{'a': 1}\n"]
