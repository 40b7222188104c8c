"""Which messages of a written table are used.

Run: python -m pytest tests/author/test_written_messages.py
"""

from __future__ import annotations

import pytest

from bestiary.author.forms import AnyMessage, ChoiceMessage, PlainMessage
from bestiary.author.messages import reject_message, sort_messages
from bestiary.config.grid import Cell
from bestiary.records import PromptItem

CHOICE = "For rye bread, {first} or {second}?"


def make_cell(number: int = 0) -> Cell:
    return Cell(number, "rye", register="plain", length="short", persona="a baker")


@pytest.mark.parametrize(
    ("rule", "other", "reason"),
    [
        ("the old mill", "the new mill", None),
        ("", "the new mill", "one of its two options is empty"),
        ("the old mill", " \n", "one of its two options is empty"),
        ("\u200b", "the new mill", "one of its two options is empty"),
        ("The  mill", "the mill", "its two options are the same"),
    ],
)
def test_the_options_of_a_choice_are_two(rule: str, other: str, reason: str | None) -> None:
    message = ChoiceMessage(text=CHOICE, rule=rule, other=other)
    assert reject_message(make_cell(), message, {}) == reason


def test_space_around_a_message_makes_no_other_message() -> None:
    messages: list[AnyMessage] = [PlainMessage(text=text) for text in (" Why rye?", "Why rye? ")]
    items: dict[str, PromptItem] = {}
    (drop,) = sort_messages(
        [make_cell(0), make_cell(1)], messages, {"rye": "food"}, items, in_scope=True
    )
    assert {name: item.text for name, item in items.items()} == {"Why rye?": "Why rye?"}
    assert drop.reason == "duplicate of an earlier message"
