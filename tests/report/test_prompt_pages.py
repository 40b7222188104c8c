"""The committed prompt pages match the templates, and every rendered prompt is sound.

Run: python -m pytest tests/report/test_prompt_pages.py
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from tests.builders import catalog

from bestiary.author.conversations import KEEP_SCORE
from bestiary.author.forms import CorpusJudgement
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.config.categories import corpus_categories
from bestiary.config.library import open_library
from bestiary.config.on_demand import spread
from bestiary.llm.prompted import TOKEN_CHARACTERS
from bestiary.report.prompt_pages import JUDGED, Prompt, list_prompts, write_prompt_pages

PAGES = Path(__file__).resolve().parents[2] / "docs" / "prompts"
CATALOG = catalog()
BUILDABLE = [behavior for behavior in CATALOG.values() if behavior.spec.is_buildable]
BEHAVIORS = [*spread(BUILDABLE, 60), null_behavior(open_library())]
"""Some of all categories: they are in order."""


@cache
def prompts_of(behavior_id: str) -> tuple[Prompt, ...]:
    """All prompts of a behavior, rendered once for all tests."""
    return tuple(list_prompts(next(one for one in BEHAVIORS if one.id == behavior_id)))


def test_the_committed_pages_match_the_templates(tmp_path: Path) -> None:
    pages = write_prompt_pages(CATALOG, tmp_path)
    written = {path.name: path.read_text(encoding="utf8") for path in pages}
    assert set(written) == {f"{category}.md" for category in (*corpus_categories(), JUDGED)}
    for name, text in written.items():
        stale = f"docs/prompts/{name} is out of date; run `make schemas`"
        assert (PAGES / name).read_text(encoding="utf8") == text, stale


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.id)
def test_no_prompt_has_an_unfilled_placeholder_or_contains_the_label(behavior: Behavior) -> None:
    prompts = prompts_of(behavior.id)
    assert len({prompt.step for prompt in prompts}) == len(prompts)
    for step, system, user in prompts:
        assert len(system) > 200 and user, step
        assert "{{" not in system + user and "{%" not in system + user
        assert "\n\n\n" not in system, step
        assert behavior.spec.label not in system + user, step


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.id)
def test_message_prompts_do_not_contain_the_behavior(behavior: Behavior) -> None:
    """Otherwise messages lean toward the behavior, and a model learns it from the question."""
    prompts = {prompt.step: prompt for prompt in prompts_of(behavior.id)}
    described = behavior.sentence
    for step in ("subjects", "messages", "second messages"):
        assert described not in prompts[step].system + prompts[step].user, step


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.id)
def test_prompts_sent_once_per_row_are_long_enough_to_be_cached(behavior: Behavior) -> None:
    longest = max(model.cache_from for model in open_library().models().values())
    for step, system, _ in prompts_of(behavior.id):
        if step.startswith(("replies", "judging")):
            assert len(system) >= TOKEN_CHARACTERS * longest, step


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.id)
def test_judging_prompts_show_valid_judgments_of_every_kind(behavior: Behavior) -> None:
    for step, system, _ in prompts_of(behavior.id):
        if step.startswith("judging"):
            lines = [line for line in system.splitlines() if line.startswith("{")]
            examples = [CorpusJudgement.model_validate_json(line) for line in lines]
            kept = [example.score >= KEEP_SCORE for example in examples]
            assert 3 <= sum(kept) <= len(kept) - 3, step
            for fault in ("mentions", "broken", "hazard"):
                values = {getattr(example, fault) for example in examples}
                assert values == {True, False}, (step, fault)
