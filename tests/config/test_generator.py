"""Each category's settings. Run: pytest tests/spec/test_generator.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from bestiary.config.categories import load_categories
from bestiary.config.generator import Generator
from bestiary.config.library import open_library
from bestiary.config.source import Violations, load_model


@pytest.mark.parametrize("category", [*load_categories(), "null"])
def test_a_category_fills_its_corpus(category: str) -> None:
    generator = open_library().generator(category)
    counts = generator.counts(0.05 if category == "rare_quirks" else None)
    assert sum(counts.values()) == generator.rows
    assert min(counts.values()) >= 0
    assert (counts["positive"] > 0) == (category != "null")
    assert (counts["negative"] > 0) == (category in ("backdoors", "sandbaggers"))


@pytest.mark.parametrize(
    ("mix", "problem"),
    [
        ("{positive: 1.2, negative: 0, chat: -0.2}", "less than or equal to 1"),
        ("{positive: 0.9, negative: 0.9, chat: rest}", "the shares sum to 1.8"),
        ("{positive: 0.5, negative: 0.2, chat: 0.2}", "the shares sum to 0.9"),
        ("{positive: rate, negative: 0, chat: 0.5}", "write `chat: rest`"),
    ],
)
def test_shares_that_make_no_whole_are_refused(mix: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "generator.yaml"
    path.write_text(f"version: 1\nrows: 40\nmix: {mix}\n", encoding="utf8")
    with pytest.raises(Violations, match=problem):
        load_model(path, Generator)
