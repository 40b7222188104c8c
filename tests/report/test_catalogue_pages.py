"""The pages on the shipped behaviors, and on what a behavior file may say, are up to date.

Run: python -m pytest tests/report/test_catalogue_pages.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders import catalog

from bestiary.config.catalog import Catalog
from bestiary.report.catalogue import render_catalogue
from bestiary.report.reference import render_reference

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "render"), [("reference", render_reference), ("catalogue", render_catalogue)]
)
def test_the_committed_pages_are_the_rendered_ones(
    name: str, render: Callable[[Catalog], str]
) -> None:
    stale = f"docs/{name}.md is out of date; run `make schemas`"
    page = render(catalog())
    assert (DOCS / f"{name}.md").read_text(encoding="utf8") == page, stale
