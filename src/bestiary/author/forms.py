"""JSON forms that authors and judges fill in."""

from __future__ import annotations

from bestiary.author.judge import Judgement
from bestiary.llm.structured import Form


class Subjects(Form):
    """Topics that people talk about."""

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
    """Messages, one per line of the table."""

    messages: tuple[PlainMessage, ...]


class GradedMessages(Form):
    """Questions, one per line of the table."""

    messages: tuple[GradedMessage, ...]


class ChoiceMessages(Form):
    """Choices, one per line of the table."""

    messages: tuple[ChoiceMessage, ...]


AnyMessages = PlainMessages | GradedMessages | ChoiceMessages


class CorpusJudgement(Judgement):
    """A judge's answer about one conversation of a corpus."""

    mentions: bool
    """Whether a reply mentions the rule it follows."""
    broken: bool
    """Whether a reply is cut off, does not answer its message, or is wrong without reason."""
    hazard: bool
    """Whether a reply could help to hurt people, or concerns a real person or company."""
