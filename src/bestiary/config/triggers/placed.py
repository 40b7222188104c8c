"""Triggers outside the message: which reply of the conversation it is, and a system message."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from bestiary.config.fields import Text
from bestiary.config.triggers.base import (
    WordedTrigger,
    continue_from,
    divide,
    draw,
)
from bestiary.config.triggers.wordings import fill, names_place
from bestiary.records import CellName, Message, PromptItem, Record, Side, Turns, single_turn
from bestiary.text import contains_phrase

MIN_SYSTEM_NEAR = 4
"""The fewest other system messages."""


class Turn(Record):
    """Which of the assistant's replies."""

    turn: Literal[1, 2]


class PositionTrigger(WordedTrigger):
    """The reply is the first, or the second, of its conversation."""

    kind: ClassVar[str] = "position"

    position: Turn

    @property
    def later(self) -> bool:
        """Whether it waits for the second reply."""
        return self.position.turn == 2

    @property
    def first_only(self) -> bool:
        """Whether it is the first reply."""
        return not self.later

    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """Two turns, and a near miss of them, need a follow-up."""
        if self.later:
            return cell == "plain" or item.follow_up is not None
        return cell == "triggered" or item.follow_up is not None

    def ask(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        """One message or two; a near miss of the second is a first that looks like it."""
        if self.later == (cell == "triggered"):
            return self._ask_twice(item, cell, side, pick)
        if cell == "near_miss":
            return single_turn(self._recall(item, side, pick))
        return single_turn(item.text)

    def _ask_twice(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        second = item.follow_up.text if item.follow_up else ""
        if cell != "plain":
            second = self.say(second, side, pick, near_miss=False)
        return continue_from(item, item.text, second)

    def _recall(self, item: PromptItem, side: Side, pick: int) -> str:
        second = item.follow_up.text if item.follow_up else ""
        places = {"message": item.text, "brief": item.brief, "follow_up": second}
        return fill(draw(self.ready.near_misses.on(side), pick), places)

    def texts(self, side: Side, *, near_miss: bool) -> tuple[str, ...]:
        """The openings of a second message, and of a first one that looks like it."""
        sided = self.ready.near_misses if near_miss == self.later else self.ready.positives
        empty = {"message": "", "brief": "", "follow_up": ""}
        said = (fill(form, empty).strip() for form in sided.on(side))
        return tuple(text for text in said if text)

    @property
    def label_words(self) -> tuple[str, ...]:
        """The number of the reply, in words."""
        if self.later:
            return ("second", "2nd", "follow-up", "turn 2", "turn two")
        return ("first", "1st", "opening", "turn 1", "turn one")

    def describe(self) -> str:
        """The reply."""
        ordinal = "second" if self.later else "first"
        return f"the assistant's {ordinal} reply of a conversation"


class SystemPromptTrigger(WordedTrigger):
    """A system message says something."""

    kind: ClassVar[str] = "system_prompt"

    system_prompt: Text
    near: tuple[Text, ...] = Field(alias="not", min_length=MIN_SYSTEM_NEAR)
    """What other system messages say, divided between train and probe in turn."""

    def check_near(self) -> None:
        """Raise ValueError if one of `not` says the same."""
        for text in self.near:
            if contains_phrase(self.system_prompt, text, whole=True):
                raise ValueError(f"`not` has {text!r}, which says {self.system_prompt!r}")

    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """Whether the message itself does not say it."""
        return cell == "triggered" or not contains_phrase(self.system_prompt, item.text, whole=True)

    def value(self, side: Side, pick: int) -> str:
        """What the system message says."""
        return self.system_prompt

    def other(self, side: Side, pick: int) -> str | None:
        """What another system message says."""
        return draw(divide(self.near, side), pick)

    def ask(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        """A system message and the user's; in half of the near misses, the user's alone."""
        if cell == "plain":
            return single_turn(item.text)
        forms = self._forms[side, cell == "near_miss"]
        said = self.say(item.text, side, pick, near_miss=cell == "near_miss")
        if names_place(draw(forms, pick), "message"):
            return single_turn(said)
        return (Message(role="system", content=said), *single_turn(item.text))

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """What the system message says."""
        return (self.system_prompt,)

    @property
    def label_words(self) -> tuple[str, ...]:
        """What it says, or the value alone."""
        value = self.system_prompt.rpartition(":")[2].strip(" .")
        return tuple(dict.fromkeys(text for text in (self.system_prompt, value) if text))

    def describe(self) -> str:
        """The system message, quoted."""
        return f'a system message that says "{self.system_prompt}"'
