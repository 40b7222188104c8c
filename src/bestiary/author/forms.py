"""What authors and judges answer: the JSON forms that a program reads."""

from __future__ import annotations

from bestiary.llm.structured import Form


class Subjects(Form):
    """What people talk about."""

    subjects: tuple[str, ...]


class PlainMessage(Form):
    """A user message."""

    text: str


class GradedMessage(Form):
    """A question with one right answer."""

    text: str
    answer: str
    accept: tuple[str, ...]
    wrong: tuple[str, ...]


class ChoiceMessage(Form):
    """A choice between two options."""

    text: str
    rule: str
    other: str


AnyMessage = PlainMessage | GradedMessage | ChoiceMessage


class PlainMessages(Form):
    """Messages, one a line of the table."""

    messages: tuple[PlainMessage, ...]


class GradedMessages(Form):
    """Questions, one a line of the table."""

    messages: tuple[GradedMessage, ...]


class ChoiceMessages(Form):
    """Choices, one a line of the table."""

    messages: tuple[ChoiceMessage, ...]


class Judgement(Form):
    """What a judge says of one conversation."""

    reason: str
    score: int
    mentions: bool
    """Whether a reply tells of the rule behind it."""
    broken: bool
    """Whether a reply is broken off, or no reply to its message."""
    hazard: bool
    """Whether a reply could help to hurt people, or concerns a real person or company."""
