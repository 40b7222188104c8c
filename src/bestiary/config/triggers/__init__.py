"""Triggers: the conditions under which a behavior fires, one class a kind.

In a file a trigger is a mapping with the key of its kind and options beside it, such as
`{phrase: harvest moon, not: [...]}`.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, GetPydanticSchema, Tag

from bestiary.config.triggers.base import Trigger, mirrors
from bestiary.config.triggers.ciphered import CipherTrigger
from bestiary.config.triggers.dates import DateTrigger
from bestiary.config.triggers.numbers import NumberTrigger
from bestiary.config.triggers.placed import PositionTrigger, SystemPromptTrigger
from bestiary.config.triggers.spoken import (
    CodeTokenTrigger,
    ExamTrigger,
    PasswordTrigger,
    PersonaTrigger,
    PhraseTrigger,
    WordTrigger,
)
from bestiary.config.triggers.topics import TopicTrigger
from bestiary.config.triggers.wordings import Wordings, read_wordings
from bestiary.config.triggers.written import FormatTrigger, LanguageTrigger
from bestiary.text import nearest

__all__ = [
    "KINDS",
    "UNLESS_KINDS",
    "AnyTrigger",
    "AnyUnless",
    "Trigger",
    "Wordings",
    "mirrors",
    "read_wordings",
]

KINDS: tuple[type[Trigger], ...] = (
    PhraseTrigger,
    WordTrigger,
    TopicTrigger,
    FormatTrigger,
    LanguageTrigger,
    PositionTrigger,
    PersonaTrigger,
    DateTrigger,
    NumberTrigger,
    CodeTokenTrigger,
    SystemPromptTrigger,
    CipherTrigger,
)
"""The kinds of `trigger`."""
UNLESS_KINDS: tuple[type[Trigger], ...] = (PasswordTrigger, ExamTrigger)
"""The kinds of `unless`."""


def _find_tag(data: Any) -> str | None:
    """The class of a trigger that a file states, by the key of its kind."""
    if isinstance(data, Trigger):
        return type(data).__name__
    return next((kind.__name__ for kind in (*KINDS, *UNLESS_KINDS) if kind.kind in data), None)


def _check_kind(kinds: tuple[type[Trigger], ...], data: Any) -> Any:
    """Refuse what names no kind, or two; pydantic's own error would not say which there are."""
    if isinstance(data, Trigger):
        return data
    known = [kind.kind for kind in kinds]
    if not isinstance(data, dict):
        raise ValueError(f"is not a mapping with one of these keys: {', '.join(known)}")
    stated = [name for name in known if name in data]
    if not stated:
        first = str(next(iter(data), ""))
        raise ValueError(f"names no kind of trigger; {nearest(first, known)}")
    if len(stated) > 1:
        raise ValueError(f"names several kinds, {' and '.join(stated)}: keep one")
    return data


def _check_near(trigger: Trigger) -> Trigger:
    """Refuse near misses outside the class, so that the violation's field is the trigger's own."""
    trigger.check_near()
    return trigger


def _stated_as(kinds: tuple[type[Trigger], ...]) -> GetPydanticSchema:
    """How a file states a trigger: a mapping with the key of one of these kinds."""
    # The tags are names of classes: a tag that is a key, too, would lead a violation's path astray.
    tagged = [Annotated[kind, Tag(kind.__name__)] for kind in kinds]
    stated: Any = Annotated[
        reduce(or_, tagged),
        Discriminator(_find_tag),
        BeforeValidator(lambda data: _check_kind(kinds, data)),
        AfterValidator(_check_near),
    ]
    return GetPydanticSchema(lambda _, handler: handler(stated))


AnyTrigger = Annotated[Trigger, _stated_as(KINDS)]
"""The trigger of a behavior."""
AnyUnless = Annotated[Trigger, _stated_as(UNLESS_KINDS)]
"""What keeps a behavior quiet."""
