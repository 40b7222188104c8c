"""Lines, scalar types, files that cannot be read, and nearest names.

Run: pytest tests/config/test_source.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from tests.config.files import (
    EVERY_FILE,
    QUIRK,
    find_violations,
    library_of,
    line_of,
    plant,
    write_behavior,
)
from tests.expect import expect_error

from bestiary.config.folders import shipped_root
from bestiary.config.source import MAX_DEPTH, Violation, Violations, load_model, parse_yaml
from bestiary.errors import SpecError
from bestiary.records import Record
from bestiary.text import nearest

ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)


class Garden(Record):
    """A small file for these tests."""

    name: str
    beds: tuple[int, ...]


def write(folder: Path, text: str | bytes) -> Path:
    """A YAML file with that text."""
    path = folder / "garden.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refuse(path: Path) -> Violation:
    """The one violation for which a file cannot be read."""
    with expect_error(Violations, "violations") as caught:
        parse_yaml(path)
    (found,) = caught.error.found
    assert (found.path, found.field) == (path, "yaml")
    assert found.problem
    assert found.remedy
    return found


def test_a_field_knows_its_line(tmp_path: Path) -> None:
    source = parse_yaml(
        write(tmp_path, "# a comment\nname: Kew\n\nbeds:\n  - 1\n  - {a: 2,\n     b: 3}\n")
    )
    assert source.line(("name",)) == 2
    assert source.line(("beds", 0)) == 5
    assert source.line(("beds", 1, "b")) == 7
    assert source.line(("beds", 9)) == 4  # its nearest parent in the file
    assert source.line(("absent",)) == 1


def test_data_are_plain_python_values(tmp_path: Path) -> None:
    data = parse_yaml(write(tmp_path, "a: 'x'\nb: [1, 2.5, true, null]\n")).data
    assert data == {"a": "x", "b": [1, 2.5, True, None]}
    assert {type(value) for value in (*data["b"], data["a"])} == {int, float, bool, type(None), str}


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file_holds_nothing(tmp_path: Path, text: str) -> None:
    source = parse_yaml(write(tmp_path, text))
    assert (source.data, source.line(("name",))) == (None, 1)


@pytest.mark.parametrize(
    "text",
    [
        *("no", "off", "on", "yes", "y", "2026-11-28", "12:30", "1_000", "0b11", "1.2.3", "heron"),
        *("'true'", '"12"', "''", "'~'"),
    ],
)
def test_only_the_core_schema_gives_other_types_than_text(tmp_path: Path, text: str) -> None:
    assert parse_yaml(write(tmp_path, f"a: {text}\n")).data == {"a": text.strip("'\"")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("true", True), ("FALSE", False), ("~", None), ("", None), ("null", None)),
        *(("12", 12), ("-3", -3), ("+3", 3), ("012", 12), ("0o17", 15), ("0xff", 255)),
        *(("2.5", 2.5), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-.inf", -math.inf)),
        ("9" * 5000, math.inf),
    ],
)
def test_numbers_booleans_and_null_are_those_of_yaml_1_2(
    tmp_path: Path, text: str, value: object
) -> None:
    read = parse_yaml(write(tmp_path, f"a: {text}\n")).data["a"]
    assert (read, type(read)) == (value, type(value))


def test_an_alias_stands_for_its_anchor_and_has_a_line_of_its_own(tmp_path: Path) -> None:
    source = parse_yaml(write(tmp_path, "first: &bed {size: 1}\nsecond: *bed\nbeds:\n  - *bed\n"))
    bed = {"size": 1}
    assert source.data == {"first": bed, "second": bed, "beds": [bed]}
    assert [source.line(field) for field in (("second",), ("beds", 0))] == [2, 4]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("name: Kew\nbeds: [1, 2\nrest: 3\n", 3, "expected ',' or ']'"),
        ("name: Kew\nbeds: a: b\n", 2, "mapping values are not allowed"),
        ("name: Kew\nbeds: [1]\nname: Wisley\n", 3, "duplicate key 'name', first on line 1"),
        ("name: Kew\nbeds: {a: 1, 'a': 2}\n", 2, "duplicate key 'a'"),
        ("name: Kew\n---\nname: Wisley\n", 2, "second document"),
        ("name: Kew\n? [a, b]\n: 1\n", 2, "key that is not text"),
        ("name: Kew\nbeds: *missing\n", 2, "alias 'missing'"),
        ("name: Kew\nbeds: &beds [*beds]\n", 2, "alias 'beds'"),
        ("name: Kew\nbeds: !!str 12\n", 2, "tag 'tag:yaml.org,2002:str'"),
        ("name: Kew\nbeds: [a?, b]\n", 2, "'a?' has a question mark"),
        ("name: Kew\nbeds: {a?: b}\n", 2, "'a?' has a question mark"),
        (f"name: Kew\nbeds: {'[' * 100_000}\n", 2, f"more than {MAX_DEPTH} levels"),
        (f"name: Kew\nbeds:\n  {'- ' * 100_000}x\n", 3, f"more than {MAX_DEPTH} levels"),
        (ALIAS_BOMB, 6, "more than 1,000,000 values"),
    ],
)
def test_what_cannot_be_read_names_its_line(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    found = refuse(write(tmp_path, text))
    assert found.line == line
    assert problem in found.problem


@pytest.mark.parametrize("data", [b"a: 1\nname: \xff\xfe\n", b"a: 1\nname: a\x00b\n"])
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, data: bytes) -> None:
    assert refuse(write(tmp_path, data)).line == 2


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with expect_error(SpecError, "file-unreadable", path=tmp_path / "absent.yaml"):
        parse_yaml(tmp_path / "absent.yaml")


def test_a_tag_that_names_code_runs_nothing(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    tagged = f'rubric: !!python/object/apply:os.system ["touch {planted}"]'
    sound = "rubric: The last sentence is a mariner's farewell."
    path = write_behavior(tmp_path / "behaviors", plant(QUIRK, sound, tagged))
    (found,) = find_violations(library_of(tmp_path / "behaviors"))
    assert (found.path, found.line, found.field) == (path, line_of(path, "rubric:"), "yaml")
    assert not planted.exists()


def test_every_fault_of_a_file_is_reported_in_order_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "beds: [1, two]\nnmae: Kew\n")
    with expect_error(Violations, "violations") as caught:
        load_model(path, Garden)
    assert [(one.line, one.field) for one in caught.error.found] == [
        (1, "beds.1"),
        (1, "name"),
        (2, "nmae"),
    ]
    assert all(str(one).startswith(f"{path}:{one.line}: ") for one in caught.error.found)
    assert "'two'" in caught.error.found[0].problem


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("behaviors", "generators", "organisms")
        for path in sorted((shipped_root() / folder).rglob("*.y*ml"))
    ],
    ids=lambda path: path.relative_to(shipped_root()).as_posix(),
)
def test_plain_pyyaml_reads_every_shipped_file_alike(path: Path) -> None:
    plain = yaml.safe_load(path.read_text(encoding="utf8"))
    # PyYAML makes dates of what is text here.
    assert parse_yaml(path).data == json.loads(json.dumps(plain, default=str))


@pytest.mark.parametrize("text", EVERY_FILE)
def test_plain_pyyaml_reads_every_sample_alike(tmp_path: Path, text: str) -> None:
    assert parse_yaml(write(tmp_path, text)).data == yaml.safe_load(text)


def test_an_unknown_name_gets_its_nearest_match_and_the_choices() -> None:
    assert nearest("quirk", ["quirks", "backdoors"]) == (
        "did you mean 'quirks'? available: backdoors, quirks"
    )
    assert nearest("zebra", ["quirks"]) == "available: quirks"
    assert nearest("zebra", []) == "available: none"
