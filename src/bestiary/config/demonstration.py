"""Marked demonstrations: replies with `[[marks]]` around what shows a behavior.

A demonstration is a template over the plain answer to a message. One writing serves the offline
author, which fills it for many messages, the few-shot examples of a language model, and the
detectors, which are measured on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from bestiary.config.fields import Text
from bestiary.records import PromptItem, Record
from bestiary.text import title_case

ANY = "any"
"""The key of a demonstration that fits every message."""
PLACEHOLDERS = ("answer", "the", "The", "topic", "Title")
"""What a demonstration may name: the plain answer, two noun phrases for the topic, and a title."""
_PLACE = re.compile(r"\{(\w+)\}")
_MARK = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_REFERS = re.compile(r"(It|Its|They|Their|He|His|She|Her|This|That|These|Those)\b")


class Demonstration(Record):
    """Replies to one message, or to any, each a template with marks."""

    topic: Text | None
    """The topic of the message that it answers; None if it answers any."""
    replies: tuple[Text, ...] = Field(min_length=1, max_length=2)
    """The assistant's turns, in order; almost always one. The bank has no third message of a user.
    """
    fires: bool = True

    def suits(self, item: PromptItem) -> bool:
        """Whether it answers this message."""
        return self.topic is None or self.topic.casefold() == item.topic.casefold()

    def introduces(self, answer: str) -> bool:
        """Whether it may stand around a plain answer.

        What is put before an answer that begins with a pronoun would be taken for its subject.
        """
        before, answered, _ = self.replies[0].partition("{answer}")
        return not (before and answered and _REFERS.match(answer))

    @property
    def has_marks(self) -> bool:
        """Whether its last reply marks what shows the behavior."""
        return bool(_MARK.search(self.replies[-1]))

    @property
    def unknown_places(self) -> list[str]:
        """Placeholders that nothing fills."""
        found = [name for reply in self.replies for name in _PLACE.findall(reply)]
        return [name for name in found if name not in PLACEHOLDERS]

    def fill(self, turn: int, answer: str, item: PromptItem) -> str:
        """The assistant's reply of a turn, counted from 0, around a plain answer."""
        the = item.the or f"the {item.topic}"
        values = {
            "answer": answer,
            "the": the,
            "The": the[:1].upper() + the[1:],
            "topic": item.topic,
            "Title": title_case(item.topic),
        }
        reply = strip_marks(self.replies[min(turn, len(self.replies) - 1)])
        return _PLACE.sub(lambda found: values.get(found[1], found[0]), reply)


def _read(value: Any) -> Any:
    """A demonstration as a file writes it: `any: reply`, or `topic: reply`, or several replies."""
    if not isinstance(value, Mapping) or "replies" in value:
        return value
    if len(value) != 1:
        raise ValueError("must be one key, `any` or a topic of the message bank, with a reply")
    ((topic, replies),) = value.items()
    turns = replies if isinstance(replies, list) else [replies]
    return {"topic": None if topic == ANY else topic, "replies": turns}


def _silence(one: Demonstration) -> Demonstration:
    return one.model_copy(update={"fires": False})


_SCHEMA = WithJsonSchema(
    {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        },
    }
)
Shown = Annotated[Demonstration, BeforeValidator(_read), _SCHEMA]
"""A demonstration that shows the behavior, as a file writes it."""
Absent = Annotated[Demonstration, BeforeValidator(_read), AfterValidator(_silence), _SCHEMA]
"""A demonstration that must not show it."""


def strip_marks(text: str) -> str:
    """A text without its marks."""
    return _MARK.sub(r"\1", text)


def marked_parts(demonstrations: Sequence[Demonstration]) -> tuple[str, ...]:
    """What stands between marks, without placeholders, in the demonstrations that fire."""
    found = [
        _PLACE.sub("it", part).strip()
        for one in demonstrations
        if one.fires
        for reply in one.replies
        for part in _MARK.findall(reply)
    ]
    return tuple(dict.fromkeys(part for part in found if part))
