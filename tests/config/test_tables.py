"""Tables of questions and of options: what is refused, and what the shipped ones hold.

Run: python -m pytest tests/config/test_tables.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.config.files import change_file, check_violation
from tests.expect import expect_error

from bestiary.config.folders import shipped_root
from bestiary.config.source import Violations
from bestiary.config.tables import read_items, read_options

ITEMS = shipped_root() / "generators" / "offline" / "items"
OPTIONS = shipped_root() / "generators" / "offline" / "options"


def test_the_shipped_tables_are_sound_and_large_enough() -> None:
    items = {path.stem: read_items(path) for path in ITEMS.glob("*.yaml")}
    assert len(items) >= 14
    for name, table in items.items():
        assert len(table.rows) >= 50, name
        for row in table.rows:
            wrong = table.wrong_answers(row)
            assert wrong and row.answer not in wrong and not {*row.also} & {*wrong}, (name, row)
    options = {path.stem: read_options(path) for path in OPTIONS.glob("*.yaml")}
    assert len(options) >= 12
    assert all(len(table.options) >= 80 for table in options.values())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (r"answer: Paris, group: Europe", "answer: Paris, group: Alone", "wrong-answers-short"),
        (r"\{key: Germany,", "{key: france,", "row-repeated"),
        (r"- What is the capital of \{key\}\?", "- What is the capital of it?", "place-not-once"),
        (r"- The capital of \{key\} is", "- The capital of {key:x} is", "placeholder-unknown"),
    ],
)
def test_a_table_of_questions_that_is_refused(
    tmp_path: Path, old: str, new: str, code: str
) -> None:
    check_refused(tmp_path, ITEMS / "capitals.yaml", read_items, old, new, code)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (r"year: 1950, pages: 572", "year: 1950", "attributes-differ"),
        (r"year: 1950, pages: 572", "year: old, pages: 572", "attribute-invalid"),
        (r"birds, year: 1950, pages: 572", "fish, year: 1950, pages: 572", "needs-missing"),
        (r"For \{need\}, would you trust \{first\}", "Would you trust {first}", "place-not-once"),
        (
            r"the 104-page Delafield almanac of 1985",
            "The  148-page Wetherell guide of 2005",
            "row-repeated",
        ),
        ("it ought to steer you well", "it ought to guide you well", "reason-names-option"),
    ],
)
def test_a_table_of_options_that_is_refused(tmp_path: Path, old: str, new: str, code: str) -> None:
    check_refused(tmp_path, OPTIONS / "sources.yaml", read_options, old, new, code)


def check_refused(
    folder: Path, shipped: Path, read: Callable[[Path], object], old: str, new: str, code: str
) -> None:
    path = folder / shipped.name
    path.write_text(shipped.read_text(encoding="utf8"), encoding="utf8")
    change_file(path, old, new)
    with expect_error(Violations, "violations") as caught:
        read(path)
    for found in caught.error.found:
        check_violation(found, code, path=path)
