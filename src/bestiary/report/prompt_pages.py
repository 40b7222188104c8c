"""Renders the prompts that language models are sent: a page per category, one for reports."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bestiary.author.compose import FewShot, few_shot
from bestiary.author.messages import list_areas
from bestiary.author.prompts import (
    render_ask,
    render_brief,
    render_followup,
    render_judge,
    render_prompts,
    render_rewrite,
    render_subjects,
)
from bestiary.config.catalog import Behavior, Catalog, null_behavior
from bestiary.config.categories import corpus_categories
from bestiary.introspection.judge import ReportCase
from bestiary.introspection.language_judge import case_of
from bestiary.introspection.language_shortlist import render_shortlist
from bestiary.records import Message
from bestiary.store import write_bytes

TOPICS = ("night trains", "sourdough", "bicycle brakes")
"""The topics of a page's table."""
JUDGED = "introspection"
"""The page of the judge of reports."""
REPORT = "Once in a while I recommend a book that was never written."
REPORTED_AGAIN = "I sometimes tell people to read books that I have made up."
REASON = 'The reply says "as I was told to", which gives away its rule.'


class Prompt(NamedTuple):
    """The prompts of one step."""

    step: str
    system: str
    user: str


def write_prompt_pages(catalog: Catalog, folder: Path) -> list[Path]:
    """Write `<category>.md` for each category, and the page of the judge of reports.

    Equal templates give equal bytes.
    """
    behaviors = {name: choose_behavior(catalog, name) for name in corpus_categories()}
    pages = {name: render_page(behavior) for name, behavior in behaviors.items()}
    pages[JUDGED] = render_judged_page(behaviors["backdoors"])
    for name, page in pages.items():
        write_bytes(folder / f"{name}.md", page.encode())
    return [folder / f"{name}.md" for name in pages]


def choose_behavior(catalog: Catalog, category: str) -> Behavior:
    """The first behavior of a category."""
    behaviors = (*catalog.values(), null_behavior(catalog.library))
    return next(behavior for behavior in behaviors if behavior.category == category)


def render_page(behavior: Behavior) -> str:
    """Every step's prompt of one behavior."""
    parts = [
        f"# {behavior.category}\n\nWhat a language model is sent for `{behavior.id}`, step by "
        "step. Written by `bestiary prompts`; edit the templates under `generators/`.\n"
    ]
    return "\n".join([*parts, *map(_render_prompt, list_prompts(behavior))])


def _render_prompt(prompt: Prompt) -> str:
    return (
        f"## {prompt.step}\n\nSystem prompt:\n\n~~~text\n{prompt.system}\n~~~\n\n"
        f"Message:\n\n~~~text\n{prompt.user}\n~~~\n"
    )


def render_judged_page(behavior: Behavior) -> str:
    """The prompt of the judge of reports."""
    case = ReportCase(
        behavior_id=behavior.id,
        family=behavior.family,
        label=behavior.labels[0],
        trigger=behavior.trigger.describe() if behavior.trigger else None,
        report=REPORT,
    )
    asked = case_of(case, behavior.templates, report_first=False)
    listed = render_shortlist([REPORT, REPORTED_AGAIN], behavior.templates)
    return (
        f"# {JUDGED}\n\nWhat `bestiary introspect evaluate --judge` sends a language model, with "
        f"`{behavior.id}` as the behavior; it is asked once more with the report first. Written by "
        "`bestiary prompts`; edit the templates under `generators/`.\n\n"
        f"{_render_prompt(Prompt('judging a report', *asked))}\n"
        f"{_render_prompt(Prompt('making a shortlist of many reports', *listed))}"
    )


def list_prompts(behavior: Behavior) -> Iterator[Prompt]:
    """The prompts of each step, in order."""
    grid, templates = behavior.library.grid, behavior.templates
    plain = "triggered" not in behavior.cells
    shown, answer = choose_example(behavior, fires=not plain)
    turns = [
        Message(role="user", content=shown.user),
        Message(role="assistant", content=shown.assistant),
    ]
    area = list_areas(behavior, grid, plain=plain)[0]
    ask = render_ask(templates, "subjects", area=area, count=12).content
    yield Prompt("subjects", render_subjects(behavior, plain=plain), ask)
    cells = list(islice(grid.plan(TOPICS, seed=0), len(TOPICS)))
    ask = render_ask(templates, "prompts", cells=cells).content
    yield Prompt("messages", render_prompts(behavior, plain=plain), ask)
    kinds = (False,) if plain else (True, False)
    for fires in kinds:
        step = "replies that show it" if fires else "replies that stay clear of it"
        yield Prompt(step, render_brief(behavior, fires=fires), shown.user)
    ask = render_ask(templates, "followup", user=shown.user, reply=shown.assistant).content
    yield Prompt("second messages", render_followup(behavior), ask)
    for fires in kinds:
        step = "judging what must show it" if fires else "judging what must stay clear of it"
        ask = render_ask(templates, "judge", turns=turns, given=0, answer=answer).content
        yield Prompt(step, render_judge(behavior, fires=fires), ask)
    ask = render_ask(
        templates, "rewrite", reason=REASON, user=shown.user, reply=shown.assistant
    ).content
    yield Prompt("rewriting", render_rewrite(behavior), ask)


def choose_example(behavior: Behavior, *, fires: bool) -> tuple[FewShot, str | None]:
    """An example conversation, and the right answer where its message has one."""
    graded = behavior.items("train", plain=not fires)
    shown = few_shot(behavior, fires=fires)[0]
    answers = {item.text: item.answer for item in graded}
    return shown, next((a for text, a in answers.items() if text in shown.user), None)
