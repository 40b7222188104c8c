"""Each category's settings. Run: python -m pytest tests/config/test_generator.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import check_violation
from tests.expect import expect_error

from bestiary.config.categories import corpus_categories
from bestiary.config.generator import Generator
from bestiary.config.library import open_library
from bestiary.config.source import Violation, Violations, load_model


@pytest.mark.parametrize("category", corpus_categories())
def test_a_category_fills_its_corpus(category: str) -> None:
    generator = open_library().generator(category)
    counts = generator.counts(0.05 if category == "rare_quirks" else None)
    assert sum(counts.values()) == generator.rows
    assert min(counts.values()) >= 0
    assert (counts["positive"] > 0) == (category != "null")
    assert (counts["negative"] > 0) == (category in ("backdoors", "sandbaggers"))


def test_behaviors_with_a_scope_may_have_another_mix_in_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "generator.yaml"
    path.write_text(
        "version: 1\nrows: 40\nmix: {positive: 1.0, negative: 0, chat: 0.0}\n"
        "scoped: {rows: 60, positive: 0.5, negative: 0, chat: 0.5}\n",
        encoding="utf8",
    )
    generator = load_model(path, Generator)
    assert generator.counts(None) == {"positive": 40, "negative": 0, "chat": 0}
    assert generator.counts(None, scoped=True) == {"positive": 30, "negative": 0, "chat": 30}
    small = generator.resize(10)
    assert small.counts(None, scoped=True) == {"positive": 5, "negative": 0, "chat": 5}


@pytest.mark.parametrize(
    ("mix", "shown"),
    [
        ("{positive: 0.9, negative: 0.9, chat: rest}", "1.8"),
        ("{positive: 0.5, negative: 0.2, chat: 0.2}", "0.9"),
        ("{positive: rate, negative: 0, chat: 0.5}", "`chat: rest`"),
    ],
)
def test_shares_that_do_not_sum_to_one_are_refused(mix: str, shown: str, tmp_path: Path) -> None:
    (found,) = find_faults(tmp_path, mix)
    check_violation(found, "value-invalid", line=3, field="mix", shows=[shown])


def test_a_share_outside_zero_to_one_is_refused(tmp_path: Path) -> None:
    found = find_faults(tmp_path, "{positive: 1.2, negative: 0, chat: 0.2}")
    assert {(one.line, one.code) for one in found} == {(3, "value-invalid")}
    assert {one.field.split(".")[1] for one in found} == {"positive"}


def find_faults(folder: Path, mix: str) -> tuple[Violation, ...]:
    """The violations in a generator with this mix."""
    path = folder / "generator.yaml"
    path.write_text(f"version: 1\nrows: 40\nmix: {mix}\n", encoding="utf8")
    with expect_error(Violations, "violations") as caught:
        load_model(path, Generator)
    return caught.error.found
