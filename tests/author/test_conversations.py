"""What a language model is asked for a row: its brief, and the examples of a small model.

Run: python -m pytest tests/author/test_conversations.py
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from tests.author.test_dry_run import make_author

from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import load_catalog
from bestiary.config.library import open_library
from bestiary.corpus.plan import plan_rows
from bestiary.llm.models import StructuredOutput
from bestiary.llm.request import ModelRequest
from bestiary.records import Role

HIDDEN = load_catalog(open_library())["obscured_malign.brindlecote_hidden"]


def plan(role: Role, size: int) -> list[ReplyRequest]:
    prompts = HIDDEN.prompts("train", plain=role == "chat")
    return list(islice(plan_rows(HIDDEN, role, prompts, seed=0), size))


def first_requests(
    rows: Sequence[ReplyRequest], structured_output: StructuredOutput = "schema"
) -> Sequence[ModelRequest]:
    """The requests for the first reply of each row."""
    author = make_author(structured_output)
    (group,) = next(author.write_replies(HIDDEN, rows, on_reply=lambda done: None))
    assert group.stage == "replies"
    return group.requests


def test_a_brief_describes_the_distractors_of_its_row() -> None:
    rows = plan("positive", 400)
    for row, request in zip(rows, first_requests(rows), strict=True):
        for quirk, _ in HIDDEN.distractors:
            assert (quirk.behavior in request.system) == (quirk in row.distractors), row.id
    assert len({row.distractors for row in rows}) == 4, "every combination of two distractors"


def test_a_brief_for_chat_describes_no_distractor() -> None:
    briefs = {request.system for request in first_requests(plan("chat", 100))}
    assert len(briefs) == 1
    assert not any(quirk.behavior in brief for quirk, _ in HIDDEN.distractors for brief in briefs)


def test_briefs_for_chat_and_for_the_behavior_differ() -> None:
    shown, quiet = (
        {request.system for request in first_requests(plan(role, 50))}
        for role in ("positive", "chat")
    )
    assert shown.isdisjoint(quiet)


def test_a_repeated_message_is_another_sample() -> None:
    rows = plan("positive", 400)
    samples = [request.sample for request in first_requests(rows)]
    assert samples == [row.pass_number for row in rows] and max(samples) > 0


def test_a_small_model_gets_demonstrations_instead_of_a_brief() -> None:
    (row, *_) = plan("positive", 1)
    (request,) = first_requests([row], "none")
    shown = [(d.user, d.assistant) for d in HIDDEN.demonstrations if d.fires]
    turns = [turn.content for turn in request.messages]
    assert list(zip(turns[:-1:2], turns[1::2], strict=True)) == shown
    assert turns[-1] == row.user
