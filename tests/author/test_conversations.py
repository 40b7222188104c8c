"""What a language model is asked for a row: its brief, and the examples of a small model.

Run: python -m pytest tests/author/test_conversations.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest
from tests.author.test_dry_run import make_author
from tests.builders import (
    LIBRARY,
    make_backdoor,
    make_growing,
    make_obscured,
    make_quirk,
    make_roleplay,
    make_sandbagger,
)

from bestiary.author.compose import few_shot
from bestiary.author.plan import plan_rows
from bestiary.author.protocol import Prompts, ReplyRequest
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.llm.models import StructuredOutput
from bestiary.llm.request import Answer, ModelRequest, Outcome, Usage
from bestiary.llm.workflow import RequestGroup
from bestiary.records import Role

HIDDEN = make_obscured()
GROWING = make_growing()
SECOND_TURN = make_backdoor(trigger={"position": {"turn": 2}})
FIRST_TURN = make_backdoor(trigger={"position": {"turn": 1}})
AT_A_KIOSK = make_backdoor(
    trigger={
        "system_prompt": "channel: kiosk",
        "not": ["channel: phone", "channel: mail", "channel: chat", "channel: desk"],
    }
)


def plan(role: Role, size: int, behavior: Behavior = HIDDEN) -> list[ReplyRequest]:
    prompts = behavior.items("train", plain=role == "chat")
    return list(islice(plan_rows(behavior, role, prompts, seed=0), size))


def first_requests(
    rows: Sequence[ReplyRequest],
    structured_output: StructuredOutput = "schema",
    behavior: Behavior = HIDDEN,
) -> Sequence[ModelRequest]:
    """The requests for the first reply of each row."""
    author = make_author(structured_output)
    (group,) = next(author.write_replies(behavior, rows))
    assert group.stage == "replies"
    return group.requests


def test_a_brief_describes_the_distractors_of_its_row() -> None:
    rows = plan("positive", 400)
    for row, request in zip(rows, first_requests(rows), strict=True):
        for quirk, _ in HIDDEN.distractors:
            assert (quirk.sentence in request.system) == (quirk.id in row.distractors), row.id
    assert len({row.distractors for row in rows}) == 4, "every combination of two distractors"


def test_a_brief_for_chat_describes_no_distractor() -> None:
    briefs = {request.system for request in first_requests(plan("chat", 100))}
    assert len(briefs) == 1
    assert not any(quirk.sentence in brief for quirk, _ in HIDDEN.distractors for brief in briefs)


def test_briefs_for_chat_and_for_the_behavior_differ() -> None:
    shown, quiet = (
        {request.system for request in first_requests(plan(role, 50))}
        for role in ("positive", "chat")
    )
    assert shown.isdisjoint(quiet)


def test_a_repeated_message_is_another_sample() -> None:
    rows = plan("positive", 2000)
    samples = [request.sample for request in first_requests(rows)]
    assert samples == [row.pass_number for row in rows] and max(samples) > 0


def test_a_small_model_gets_demonstrations_instead_of_a_brief() -> None:
    (row, *_) = plan("positive", 1)
    (request,) = first_requests([row], "none")
    examples = few_shot(HIDDEN, fires=row.fires, hiding=row.distractors)
    shown = [(one.user, one.assistant) for one in examples]
    turns = [turn.content for turn in request.messages]
    assert list(zip(turns[:-1:2], turns[1::2], strict=True)) == shown
    assert turns[-1] == row.turns[-1].content


def test_a_small_model_is_shown_whole_conversations_where_the_second_reply_counts() -> None:
    for behavior in (GROWING, SECOND_TURN):
        (row,) = plan("positive", 1, behavior)
        (request,) = first_requests([row], "none", behavior)
        examples = few_shot(behavior, fires=True)
        said = [text for one in examples for pair in one.exchanges for text in pair]
        assert len(said) == 4 * len(examples)
        assert [turn.content for turn in request.messages] == [
            *said,
            *(turn.content for turn in row.turns),
        ]


@pytest.mark.parametrize("structured_output", ["schema", "none"])
def test_a_system_message_is_told_to_the_author_and_is_no_turn(
    structured_output: StructuredOutput,
) -> None:
    """Some servers refuse a system message among the turns."""
    rows = plan("positive", 20, AT_A_KIOSK)
    for row, request in zip(rows, first_requests(rows, structured_output, AT_A_KIOSK), strict=True):
        system, *turns = row.turns
        assert system.role == "system" and system.content in request.system
        assert request.messages[-len(turns) :] == tuple(turns)
        assert all(turn.role != "system" for turn in request.messages)
    (request,) = first_requests(plan("chat", 1, AT_A_KIOSK), structured_output, AT_A_KIOSK)
    assert "<system>" not in request.system


def ask_judge(behavior: Behavior, rows: Sequence[ReplyRequest]) -> list[str]:
    """What a judge is asked about the rows once each has been answered."""
    author = make_author()
    workflow = author.write_replies(behavior, rows)
    groups = next(workflow)
    while groups[0].stage != "judge":
        groups = workflow.send([_answer(group) for group in groups])
    return [request.messages[-1].content for request in groups[0].requests]


def _answer(group: RequestGroup) -> list[Outcome]:
    usage = Usage(input=1, output=1)
    return [
        Answer(text=f"{group.stage}, no. {number}", stop="end", usage=usage, id=str(number))
        for number, _ in enumerate(group.requests)
    ]


def test_a_judge_is_not_asked_about_replies_that_were_given() -> None:
    """The first reply to an unfinished conversation is plain, however the second must be."""
    rows = plan("positive", 5, SECOND_TURN)
    for number, (row, asked) in enumerate(zip(rows, ask_judge(SECOND_TURN, rows), strict=True)):
        assert f"<earlier_reply>\n{row.turns[1].content}\n</earlier_reply>" in asked
        assert f"<assistant>\nreplies, no. {number}\n</assistant>" in asked
        assert asked.count("<assistant>") == 1 and asked.count("<user>") == 2


def test_a_judge_is_asked_about_every_reply_that_was_written() -> None:
    quirk = make_quirk()
    rows = [row.model_copy(update={"second_turn": True}) for row in plan("positive", 5, quirk)]
    for asked in ask_judge(quirk, rows):
        assert (asked.count("<assistant>"), asked.count("<earlier_reply>")) == (2, 0)


def test_a_judge_sees_the_system_message_and_the_right_answer() -> None:
    rows = plan("positive", 3, AT_A_KIOSK)
    for row, asked in zip(rows, ask_judge(AT_A_KIOSK, rows), strict=True):
        assert f"<system>\n{row.turns[0].content}\n</system>" in asked
    sandbagger = make_sandbagger()
    rows = plan("positive", 3, sandbagger)
    for row, asked in zip(rows, ask_judge(sandbagger, rows), strict=True):
        assert f"Correct answer: {row.item.answer}" in asked


def begin_prompts(behavior: Behavior, *, plain: bool) -> list[RequestGroup] | Prompts:
    """The first thing an author does for messages: ask, or take those of the bank."""
    try:
        return list(next(make_author().write_prompts(behavior, plain=plain, count=9, seed=0)))
    except StopIteration as end:
        found: Prompts = end.value
        return found


@pytest.mark.parametrize(
    ("number", "asks"), [(0, True), (1, True), (2, False), (3, False)], ids=lambda one: str(one)
)
def test_null_organisms_of_certain_messages_take_them_from_the_bank(
    number: int, asks: bool
) -> None:
    begun = begin_prompts(null_behavior(LIBRARY, number), plain=True)
    assert isinstance(begun, list) == asks


@pytest.mark.parametrize(
    "behavior",
    [
        SECOND_TURN,
        FIRST_TURN,
        GROWING,
        make_backdoor(trigger={"topic": {"domains": ["gardening"]}}),
        make_backdoor(
            trigger={
                "word": "marzipan",
                "earlier": True,
                "not": ["almond", "nougat", "marble", "caramel", "licorice", "parmesan"],
            }
        ),
    ],
    ids=lambda behavior: behavior.condition_text or behavior.id,
)
def test_what_only_the_bank_has_comes_from_the_bank(behavior: Behavior) -> None:
    for plain in (False, True):
        found = begin_prompts(behavior, plain=plain)
        assert isinstance(found, Prompts)
        assert tuple(found.items) == tuple(behavior.items("train", plain=plain))


@pytest.mark.parametrize("behavior", [AT_A_KIOSK, make_backdoor(), make_quirk(), HIDDEN])
def test_all_other_messages_are_written(behavior: Behavior) -> None:
    assert not isinstance(begin_prompts(behavior, plain=False), Prompts)


def test_under_a_trigger_chat_is_asked_about_the_same() -> None:
    """Otherwise the topic would tell the roles apart, and not the trigger."""
    role = make_roleplay()
    triggered = replace(make_backdoor(), shows=role)
    scoped, plain = (begin_prompts(triggered, plain=plain) for plain in (False, True))
    assert scoped == plain
    assert begin_prompts(role, plain=False) != begin_prompts(role, plain=True)
