"""Which messages of a language model are used.

Run: python -m pytest tests/author/test_messages.py
"""

from __future__ import annotations

import pytest

from bestiary.author.forms import ChoiceMessage, PlainMessage
from bestiary.author.messages import reject_message, sort_messages
from bestiary.config.grid import Cell
from bestiary.records import PromptItem

CELL = Cell(number=0, topic="tea", register="casual", length="short", persona="beginner")


@pytest.mark.parametrize(
    ("rule", "other", "reason"),
    [
        ("oolong", "sencha", None),
        ("", "sencha", "it does not have two options that differ"),
        ("oolong", " ", "it does not have two options that differ"),
        ("Oolong", "oolong", "it does not have two options that differ"),
    ],
)
def test_a_choice_has_two_options_that_differ(rule: str, other: str, reason: str | None) -> None:
    message = ChoiceMessage(text="Which tea, {first} or {second}?", rule=rule, other=other)
    assert reject_message(CELL, message, ()) == reason


def test_a_message_is_used_once_whatever_space_surrounds_it() -> None:
    messages = [PlainMessage(text="Is tea bitter?"), PlainMessage(text=" Is tea bitter?\n")]
    items: dict[str, PromptItem] = {}
    drops = sort_messages([CELL] * 2, messages, {"tea": "food"}, items, in_scope=True)
    assert list(items) == ["Is tea bitter?"]
    assert [drop.reason for drop in drops] == ["duplicate of an earlier message"]
