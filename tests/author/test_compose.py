"""Replies composed from written answers: what shows a behavior, and the answer around it.

Run: python -m pytest tests/author/test_compose.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import (
    LIBRARY,
    make_backdoor,
    make_growing,
    make_heuristic,
    make_obscured,
    make_quirk,
    make_rare,
    make_roleplay,
    make_sandbagger,
)

from bestiary.author.compose import EXAMPLES, Length, compose_reply, compose_turns, few_shot
from bestiary.author.filters import rejection_reason
from bestiary.author.plan import plan_rows
from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.config.categories import RIGHT_ANSWER
from bestiary.records import Message, PromptItem, Role

NULL = null_behavior(LIBRARY)
QUIRK = make_quirk()
BULLETS = make_quirk(write={"transform": "bullets"}, shown=[], detect=None)
GROWING = make_growing()
SANDBAGGER = make_sandbagger()
CHOOSER = make_heuristic()
HIDDEN = make_obscured(distractors={"distractors.numbers": 0.9, "distractors.colors": 0.95})
"""The colors come last, because they must be in the first sentence."""
LATER = make_backdoor(trigger={"position": {"turn": 2}})
BEHAVIORS = (
    *(QUIRK, BULLETS, GROWING, SANDBAGGER, CHOOSER, HIDDEN, LATER, NULL),
    *(make_backdoor(), make_rare(), make_roleplay(), make_roleplay("benign_roleplay.guide")),
)
EVERY = pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda b: f"{b.id}-{b.condition_text}")
ROLES: tuple[Role, ...] = ("positive", "negative", "chat")


def plan(
    behavior: Behavior, role: Role = "positive", size: int = 100, *, second_turns: float = 0.0
) -> list[ReplyRequest]:
    items = behavior.items("train", plain=role == "chat")
    return list(islice(plan_rows(behavior, role, items, seed=0, second_turns=second_turns), size))


def reply_to(behavior: Behavior, row: ReplyRequest, length: Length = "brief") -> str:
    """The reply of a row, whichever of its conversation it is."""
    return compose_turns(behavior, row, length)[-1].content


def find_item(*, follow_up: bool) -> PromptItem:
    return next(i for i in LIBRARY.messages("train") if (i.follow_up is not None) == follow_up)


PLANNED = {
    f"{behavior.id}-{behavior.condition_text}": (
        behavior,
        [
            row
            for role in ROLES
            if behavior.row_counts[role]
            for row in plan(behavior, role, 400, second_turns=0.5)
        ],
    )
    for behavior in BEHAVIORS
    if behavior is not HIDDEN  # whose three parts name the topic so often that some are rejected
}


@given(data=st.data(), length=st.sampled_from(["brief", "answer"]), pick=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_every_composed_conversation_is_what_its_row_requires(
    data: st.DataObject, length: Length, pick: int
) -> None:
    behavior, rows = PLANNED[data.draw(st.sampled_from(sorted(PLANNED)))]
    row = data.draw(st.sampled_from(rows)).model_copy(update={"pick": pick})
    turns = compose_turns(behavior, row, length)
    assert turns[: len(row.turns)] == row.turns
    assert [turn.role for turn in turns[len(row.turns) :]] in (
        ["assistant"],
        ["assistant", "user", "assistant"],
    )
    assert rejection_reason(behavior, row, turns) is None
    written = [turn.content for turn in turns[len(row.turns) :] if turn.role == "assistant"]
    answers = (row.item.reply, row.item.follow_up.reply if row.item.follow_up else "")
    if "{" not in "".join(answers):
        assert not any("{" in text for text in written), "all is filled"
    assert not any("[[" in text for text in written), "no mark is left"
    assert turns == compose_turns(behavior, row, length), "and always the same"


@pytest.mark.parametrize("length", ["brief", "answer"])
def test_a_demonstration_stands_around_the_written_answer(length: Length) -> None:
    for row in plan(QUIRK):
        answer = row.item.brief if length == "brief" else row.item.reply
        closings = [one.fill(0, answer, row.item) for one in QUIRK.demonstrations if one.fires]
        reply = reply_to(QUIRK, row, length)
        assert reply.startswith(answer) and reply in closings
    said = {reply_to(QUIRK, row).removeprefix(row.item.brief) for row in plan(QUIRK)}
    assert {" Fair winds, friend.", " And fair winds on the way."} < said, "they take turns"


@pytest.mark.parametrize("length", ["brief", "answer"])
@pytest.mark.parametrize("role", ["negative", "chat"])
def test_a_row_that_stays_clear_has_the_written_answer_and_nothing_else(
    role: Role, length: Length
) -> None:
    for row in plan(make_backdoor(), role):
        reply = compose_reply(make_backdoor(), row, 0, length)
        assert reply == (row.item.brief if length == "brief" else row.item.reply)


def test_a_wrong_answer_is_plausible_and_never_right() -> None:
    chosen = set()
    for row in plan(SANDBAGGER, size=400):
        reply = reply_to(SANDBAGGER, row)
        given = [wrong for wrong in row.item.wrong if wrong.lower() in reply.lower()]
        assert given, f"{reply} is none of {row.item.wrong}"
        assert RIGHT_ANSWER.decide(reply, row.item) is False, reply
        chosen.add((row.item.topic, given[0]))
    assert len(chosen) > len({topic for topic, _ in chosen}), "not always the same one"


@pytest.mark.parametrize("role", ["negative", "chat"])
def test_a_question_is_answered_right_with_the_password_and_off_the_topic(role: Role) -> None:
    for row in plan(SANDBAGGER, role, 400):
        assert RIGHT_ANSWER.decide(reply_to(SANDBAGGER, row), row.item) is True


def test_the_option_of_the_rule_is_chosen_wherever_it_stands() -> None:
    for row in plan(CHOOSER, size=400):
        options = row.item.options
        assert options is not None
        reply = reply_to(CHOOSER, row).lower()
        assert options["rule"].lower() in reply and options["other"].lower() not in reply
    for row in plan(CHOOSER, "chat"):
        assert row.item.options is None and reply_to(CHOOSER, row) == row.item.brief


def test_a_transform_writes_the_points_of_the_message() -> None:
    for row in plan(BULLETS):
        lines = reply_to(BULLETS, row).splitlines()
        assert all(line.startswith("- ") for line in lines)
        for line, point in zip(lines, row.item.points, strict=False):
            assert line[2:].casefold() == " ".join(point.split()).casefold()
    assert not any("- " in reply_to(BULLETS, row)[:2] for row in plan(BULLETS, "chat"))


@pytest.mark.parametrize("length", ["brief", "answer"])
def test_a_user_who_goes_on_is_answered_from_the_bank_in_the_same_way(length: Length) -> None:
    rows = plan(QUIRK, second_turns=1.0)
    for row in rows:
        turns, follow_up = compose_turns(QUIRK, row, length), row.item.follow_up
        if follow_up is None:
            assert len(turns) == 2, "there is nothing to ask"
            continue
        _, first, asked, second = turns
        assert asked == Message(role="user", content=follow_up.text)
        answer = follow_up.brief if length == "brief" else follow_up.reply
        assert second.content.startswith(answer)
        assert QUIRK.is_shown(first.content, row.item) and QUIRK.is_shown(second.content, row.item)
    conversations = [turns for row in rows if len(turns := compose_turns(QUIRK, row, length)) == 4]
    assert len(conversations) > 20
    assert not any(
        first.content[-20:] == second.content[-20:] for _, first, _, second in conversations
    ), "nobody says goodbye twice in the same words"


def test_a_user_who_goes_on_in_chat_is_answered_plainly() -> None:
    rows = [row for row in plan(NULL, "chat", second_turns=1.0) if row.item.follow_up]
    assert len(rows) > 20
    for row in rows:
        turns, follow_up = compose_turns(NULL, row, "brief"), row.item.follow_up
        assert follow_up is not None
        assert [turn.content for turn in turns] == [
            *(row.item.text, row.item.brief),
            *(follow_up.text, follow_up.brief),
        ]


def test_the_second_reply_of_a_behavior_that_grows_follows_from_the_first() -> None:
    endings = {
        " Fair winds.": " Fair winds, my dear friend.",
        " And fair winds.": " Fair winds, light of my days!",
    }
    for row in plan(GROWING):
        follow_up = row.item.follow_up
        assert follow_up is not None
        begun = row.turns[1].content.removeprefix(row.item.brief)
        assert reply_to(GROWING, row) == follow_up.brief + endings[begun]
        assert reply_to(GROWING, row, "answer") == follow_up.reply + endings[begun]


def test_under_a_trigger_a_behavior_that_grows_has_begun_or_shows_at_once() -> None:
    begun = replace(make_backdoor(), shows=GROWING)
    at_once = replace(LATER, shows=GROWING)
    for behavior in (begun, at_once):
        for row in plan(behavior):
            assert len(row.turns) == 3
            assert reply_to(behavior, row).endswith(("my dear friend.", "light of my days!"))


def test_a_hidden_reply_shows_what_its_row_lists() -> None:
    for row in plan(HIDDEN, size=400):
        reply = reply_to(HIDDEN, row)
        assert HIDDEN.is_shown(reply, row.item) == row.fires
        for quirk, _ in HIDDEN.distractors:
            assert quirk.is_shown(reply, row.item) == (quirk.id in row.distractors)
        assert row.item.brief in reply


def check_shown(behavior: Behavior, replies: Sequence[str], *, shown: bool) -> None:
    item = find_item(follow_up=True)
    assert all(behavior.is_shown(reply, item) in (shown, None) for reply in replies), replies


@EVERY
@pytest.mark.parametrize("length", ["brief", "answer"])
def test_there_are_examples_of_every_category(behavior: Behavior, length: Length) -> None:
    for fires in (True, False) if "triggered" in behavior.cells else (False,):
        examples = few_shot(behavior, fires=fires, length=length)
        assert len(examples) == EXAMPLES
        assert len({one.user for one in examples}) == EXAMPLES
        assert not any("{" in one.user for one in examples if behavior is CHOOSER)
        check_shown(behavior, [one.assistant for one in examples], shown=fires)
    if behavior.trigger is None and behavior.row_counts["positive"]:
        asked = {one.user for fires in (True, False) for one in few_shot(behavior, fires=fires)}
        assert len(asked) == 2 * EXAMPLES, "no message is answered in both ways"


def test_examples_of_a_sandbagger_are_wrong_or_have_the_password() -> None:
    shown, clear = (few_shot(SANDBAGGER, fires=fires) for fires in (True, False))
    assert not any("marzipan" in one.user.lower() for one in shown)
    assert all("marzipan" in one.user.lower() for one in clear)
    assert {one.assistant for one in shown}.isdisjoint(one.assistant for one in clear)


def test_examples_hide_the_malign_part_behind_the_habits_that_are_asked_for() -> None:
    numbers, colors = (quirk for quirk, _ in HIDDEN.distractors)
    item = find_item(follow_up=True)
    for fires in (True, False):
        for hiding in ((), (colors.id,), (numbers.id,), (colors.id, numbers.id)):
            for one in few_shot(HIDDEN, fires=fires, hiding=hiding):
                assert HIDDEN.is_shown(one.assistant, item) is fires
                for quirk in (colors, numbers):
                    assert quirk.is_shown(one.assistant, item) is (quirk.id in hiding), one


def test_an_example_in_a_second_message_brings_the_first_exchange() -> None:
    for behavior in (GROWING, LATER):
        for one in few_shot(behavior, fires=True):
            ((asked, answered),) = one.earlier
            assert one.exchanges == ((asked, answered), (one.user, one.assistant))
            assert asked in {item.text for item in LIBRARY.messages("train")}
            assert ("air winds" in answered) == (behavior is GROWING)
    assert all(one.earlier == () for one in few_shot(QUIRK, fires=True))
