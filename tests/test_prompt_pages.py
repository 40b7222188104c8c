"""The committed pages of prompts are what the templates render, for every behavior there is.

Run: python -m pytest tests/test_prompt_pages.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bestiary.prompt_pages import list_prompts, write_prompt_pages
from bestiary.spec.behavior import CORPUS_CATEGORIES
from bestiary.spec.catalog import NULL_BEHAVIOR, Behavior, load_catalog

PAGES = Path(__file__).resolve().parents[1] / "docs" / "prompts"
CATALOG = load_catalog()
BEHAVIORS = [*CATALOG.values(), NULL_BEHAVIOR]


def test_the_pages_are_what_the_templates_say(tmp_path: Path) -> None:
    pages = write_prompt_pages(CATALOG, tmp_path)
    written = {path.name: path.read_text(encoding="utf8") for path in pages}
    assert set(written) == {f"{category}.md" for category in CORPUS_CATEGORIES}
    for name, text in written.items():
        stale = f"docs/prompts/{name} is out of date; run `make schemas`"
        assert (PAGES / name).read_text(encoding="utf8") == text, stale


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.id)
def test_no_prompt_has_a_hole_or_gives_the_label_away(behavior: Behavior) -> None:
    prompts = list(list_prompts(behavior))
    assert len({prompt.step for prompt in prompts}) == len(prompts)
    for step, system, user in prompts:
        assert len(system) > 200 and user, step
        assert "{{" not in system + user and "{%" not in system + user
        assert "\n\n\n" not in system, step
        assert behavior.spec.label not in system + user, step


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.id)
def test_whoever_writes_messages_hears_nothing_of_the_behavior(behavior: Behavior) -> None:
    """Else they would lean towards it, and what a model learns were in the question."""
    asked = {prompt.step: prompt for prompt in list_prompts(behavior)}
    shown = behavior.carrier.behavior if behavior.carrier else behavior.spec.behavior
    for step in ("subjects", "messages", "second messages"):
        assert shown not in asked[step].system + asked[step].user, step
