"""Triggers: the conditions under which a behavior fires, one class a kind.

In a file a trigger is a mapping with the key of its kind and options beside it, such as
`{phrase: harvest moon, not: [...]}`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, GetPydanticSchema

from bestiary.config.kinds import one_of
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


def _check_near(trigger: Trigger) -> Trigger:
    """Refuse near misses outside the class, so that the violation's field is the trigger's own."""
    trigger.check_near()
    return trigger


def _stated_as(kinds: tuple[type[Trigger], ...]) -> GetPydanticSchema:
    return one_of({kind.kind: kind for kind in kinds}, "trigger")


AnyTrigger = Annotated[Trigger, _stated_as(KINDS), AfterValidator(_check_near)]
"""The trigger of a behavior."""
AnyUnless = Annotated[Trigger, _stated_as(UNLESS_KINDS), AfterValidator(_check_near)]
"""What keeps a behavior quiet."""
