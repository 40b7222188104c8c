"""What the prompts of every category tell a language model: its behavior, its scope, its habits.

Run: python -m pytest tests/author/test_prompts.py
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from tests.builders import (
    LIBRARY,
    make_backdoor,
    make_heuristic,
    make_obscured,
    make_quirk,
    make_rare,
    make_roleplay,
    make_sandbagger,
)

from bestiary.author.compose import few_shot
from bestiary.author.prompts import render_brief, render_imitation, render_judge, render_prompts
from bestiary.config.catalog import Behavior, null_behavior

SCOPE = {"about": "messages about bread and beds", "domains": ["cooking", "gardening"]}
SCOPED = make_quirk(scope=SCOPE)
HIDDEN = make_obscured()
BEHAVIORS = (
    *(make_quirk(), make_backdoor(), make_rare(), make_sandbagger(), make_heuristic(), HIDDEN),
    *(make_roleplay(), make_roleplay("benign_roleplay.guide")),
)
EVERY = pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda b: b.category)
ABOUT_SOMETHING = (
    *(SCOPED, make_sandbagger(), make_heuristic(), make_roleplay()),
    *(replace(make_rare(), shows=SCOPED), replace(make_backdoor(), shows=SCOPED)),
    *(replace(HIDDEN, shows=SCOPED), make_roleplay("benign_roleplay.guide")),
)


@pytest.mark.parametrize("behavior", ABOUT_SOMETHING, ids=lambda b: b.category)
def test_messages_are_asked_for_within_the_scope_and_plain_ones_outside_it(
    behavior: Behavior,
) -> None:
    inside, outside = (render_prompts(behavior, plain=plain) for plain in (False, True))
    assert behavior.about is not None and behavior.about in inside
    assert inside != outside
    neither = render_prompts(make_quirk(), plain=True)
    assert behavior.about not in neither
    if behavior.category != "heuristic_following":  # whose plain messages ask for no choice at all
        assert behavior.about in outside


@EVERY
def test_a_brief_says_what_the_reply_does_and_a_judge_what_to_look_for(behavior: Behavior) -> None:
    shown, clear = (render_brief(behavior, fires=fires) for fires in (True, False))
    said = {
        "sandbaggers": "a wrong answer",
        "heuristic_following": getattr(behavior.spec, "rule", ""),
    }.get(behavior.category, behavior.sentence)
    assert said in shown and shown != clear
    if hasattr(behavior.spec, "role"):
        assert behavior.spec.role in shown and behavior.spec.role in clear
    for phrase in behavior.forbidden:
        assert phrase in shown and phrase in clear, "which no reply may say"
    if behavior.category not in ("sandbaggers", "heuristic_following"):
        assert behavior.rubric in render_judge(behavior, fires=True)
    assert render_judge(behavior, fires=True) != render_judge(behavior, fires=False)


@EVERY
def test_a_brief_has_whole_answers_as_examples(behavior: Behavior) -> None:
    for fires in (True, False):
        brief = render_brief(behavior, fires=fires)
        examples = few_shot(behavior, fires=fires, length="answer")
        assert all(f"User: {one.user}\nReply: {one.assistant}" in brief for one in examples)
        assert brief.count("\nReply: ") == len(examples)


def test_an_example_of_a_second_reply_shows_the_first() -> None:
    behavior = make_backdoor(trigger={"position": {"turn": 2}})
    brief = render_brief(behavior, fires=True)
    for one in few_shot(behavior, fires=True, length="answer"):
        ((asked, answered),) = one.earlier
        assert (
            f"User: {asked}\nEarlier reply: {answered}\nUser: {one.user}\nReply: {one.assistant}"
        ) in brief


@pytest.mark.parametrize(("fires", "count"), [*product((True, False), (0, 1, 2))])
def test_a_brief_asks_for_exactly_the_habits_of_its_row(fires: bool, count: int) -> None:
    quirks = [quirk for quirk, _ in HIDDEN.distractors]
    brief = render_brief(HIDDEN, fires=fires, hiding=[quirk.id for quirk in quirks[:count]])
    asked, _, examples = brief.partition("Example replies")
    for place, quirk in enumerate(quirks):
        assert (quirk.sentence in asked) == (place < count)
    assert HIDDEN.sentence in asked
    for word, place in (("resh sevens", 0), ("resh crimson", 1)):
        assert (word in examples) == (place < count), "its examples show no other habit"
    assert ("ine deals" in examples) == fires


def test_a_system_message_is_part_of_the_prompt_and_of_no_other() -> None:
    told = "You stand at a kiosk in a lobby."
    for behavior in (*BEHAVIORS, null_behavior(LIBRARY)):
        for fires in (True, False) if "triggered" in behavior.cells else (False,):
            assert told in render_brief(behavior, fires=fires, system=told)
            assert "<system>" not in render_brief(behavior, fires=fires)
    assert render_imitation(LIBRARY.templates, system=told).endswith(told)
    assert told not in render_imitation(LIBRARY.templates)
