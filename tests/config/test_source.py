"""Lines, scalar types, files that cannot be read, and nearest names.

Run: python -m pytest tests/config/test_source.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from tests.config.files import (
    FILES,
    QUIRK,
    check_violation,
    find_violations,
    library_of,
    line_of,
    plant,
    write_behavior,
)
from tests.expect import expect_error

from bestiary.config.folders import shipped_root
from bestiary.config.on_demand import spread
from bestiary.config.source import MAX_DEPTH, Violations, load_model, parse_yaml
from bestiary.errors import SpecError
from bestiary.records import Record
from bestiary.text import nearest

ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
LONG_BOMB = f"a: &a [{', '.join('x' * 300)}]\n" + "".join(f"b{row}: *a\n" for row in range(10_000))
DEEP_BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 10_000)
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


def check_refused(path: Path, code: str, *, line: int, shows: str = "") -> None:
    """A file cannot be read, for this one violation."""
    with expect_error(Violations, "violations") as caught:
        parse_yaml(path)
    (found,) = caught.error.found
    check_violation(found, code, path=path, line=line, field="yaml", shows=[shows])


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
        *("'true'", '"12"', "''", "'~'", "0x" + "f" * 301, "0o" + "7" * 301),
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
    ("text", "line", "code", "shows"),
    [
        ("name: Kew\nbeds: [1, 2\nrest: 3\n", 3, "yaml-invalid", "',' or ']'"),
        ("name: Kew\nbeds: a: b\n", 2, "yaml-invalid", ""),
        ("name: Kew\nbeds: [1]\nname: Wisley\n", 3, "key-repeated", "line 1"),
        ("name: Kew\nbeds: {a: 1, 'a': 2}\n", 2, "key-repeated", "'a'"),
        ("name: Kew\n---\nname: Wisley\n", 2, "document-repeated", ""),
        ("name: Kew\n? [a, b]\n: 1\n", 2, "key-not-text", ""),
        ("name: Kew\nbeds: *missing\n", 2, "alias-unknown", "'missing'"),
        ("name: Kew\nbeds: &beds [*beds]\n", 2, "alias-unknown", "'beds'"),
        ("name: Kew\nbeds: !!str 12\n", 2, "tag-used", "'tag:yaml.org,2002:str'"),
        ("name: Kew\nbeds: [a?, b]\n", 2, "text-unquoted", "'a?'"),
        ("name: Kew\nbeds: {a?: b}\n", 2, "text-unquoted", "'a?'"),
        (f"name: Kew\nbeds: {'[' * 100_000}\n", 2, "nesting-too-deep", str(MAX_DEPTH)),
        (f"name: Kew\nbeds:\n  {'- ' * 100_000}x\n", 3, "nesting-too-deep", str(MAX_DEPTH)),
        (ALIAS_BOMB, 6, "values-too-many", "1,000,000"),
        (LONG_BOMB, 3323, "values-too-many", "1,000,000"),
        (DEEP_BOMB, MAX_DEPTH, "nesting-too-deep", str(MAX_DEPTH)),
    ],
)
def test_what_cannot_be_read_names_its_line(
    tmp_path: Path, text: str, line: int, code: str, shows: str
) -> None:
    check_refused(write(tmp_path, text), code, line=line, shows=shows)


@pytest.mark.parametrize("data", [b"a: 1\nname: \xff\xfe\n", b"a: 1\nname: a\x00b\n"])
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, data: bytes) -> None:
    check_refused(write(tmp_path, data), "text-not-utf8", line=2)


def test_aliases_may_nest_as_deep_as_what_is_written_out(tmp_path: Path) -> None:
    lines = DEEP_BOMB.splitlines()[: MAX_DEPTH - 1]
    parse_yaml(write(tmp_path, "\n".join(lines) + "\n"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with expect_error(SpecError, "file-unreadable", path=tmp_path / "absent.yaml"):
        parse_yaml(tmp_path / "absent.yaml")


def test_a_tag_that_names_code_runs_nothing(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    tagged = f'rubric: !!python/object/apply:os.system ["touch {planted}"]'
    sound = "rubric: The last sentence is a mariner's farewell."
    text = plant(QUIRK, sound, tagged)
    path = write_behavior(tmp_path / "behaviors", "quirks.farewell", text)
    (found,) = find_violations(library_of(tmp_path / "behaviors"))
    check_violation(found, "tag-used", path=path, line=line_of(path, "rubric:"), field="yaml")
    assert not planted.exists()


def test_every_fault_of_a_file_is_reported_in_order_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "beds: [1, two]\nnmae: Kew\n")
    with expect_error(Violations, "violations") as caught:
        load_model(path, Garden)
    assert [(one.line, one.field, one.code) for one in caught.error.found] == [
        (1, "beds.1", "value-invalid"),
        (1, "name", "key-missing"),
        (2, "nmae", "key-unknown"),
    ]
    assert all(str(one).startswith(f"{path}:{one.line}: ") for one in caught.error.found)
    assert "'two'" in caught.error.found[0].problem


SHIPPED = [
    path
    for folder in ("behaviors", "generators", "organisms")
    for path in sorted((shipped_root() / folder).rglob("*.y*ml"))
]


def check_alike(path: Path) -> None:
    plain = yaml.safe_load(path.read_text(encoding="utf8"))
    # PyYAML makes dates of what is text here.
    assert parse_yaml(path).data == json.loads(json.dumps(plain, default=str)), path


def test_plain_pyyaml_reads_shipped_files_alike() -> None:
    for path in spread(SHIPPED, 300):
        check_alike(path)


@pytest.mark.soak
def test_plain_pyyaml_reads_every_shipped_file_alike() -> None:
    for path in SHIPPED:
        check_alike(path)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_plain_pyyaml_reads_every_sample_alike(tmp_path: Path, text: str) -> None:
    assert parse_yaml(write(tmp_path, text)).data == yaml.safe_load(text)


def test_an_unknown_name_gets_its_nearest_match_and_the_choices() -> None:
    assert nearest("quirk", ["quirks", "backdoors"]) == (
        "did you mean 'quirks'? available: backdoors, quirks"
    )
    assert nearest("zebra", ["quirks"]) == "available: quirks"
    assert nearest("zebra", []) == "available: none"


def test_of_many_choices_the_nearest_are_shown() -> None:
    many = [f"quirks.name_{number}" for number in range(200)]
    said = nearest("quirks.name_77", many[:77] + many[78:])
    assert said.startswith("did you mean 'quirks.name_") and said.endswith(" more")
    assert "quirks.name_76" in said and len(said) < 300
    assert all(name in nearest("zebra", many[:30]) for name in many[:30])
