"""The message bank: what people write to an assistant, each message with a good plain answer.

A file holds the messages of one domain. A message is trained on or probed with, never both: its
side hangs on its topic alone, so that no later message can move an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from bestiary.config.fields import Tag, Text
from bestiary.config.sides import side_of
from bestiary.config.source import (
    FieldPath,
    Source,
    Violation,
    Violations,
    parse_yaml,
    validate_source,
)
from bestiary.records import FollowUpItem, PromptItem, Record, Side
from bestiary.text import comparison_key, contains_phrase, sentences


def _count_words(least: int, most: int) -> AfterValidator:
    def check(text: str) -> str:
        count = len(text.split())
        if not least <= count <= most:
            raise ValueError(f"has {count} words; must have {least} to {most}")
        return text

    return AfterValidator(check)


def _count_sentences(most: int) -> AfterValidator:
    def check(text: str) -> str:
        count = len(sentences(re.sub(r"`[^`]*`", "code", text)))
        if count > most:
            raise ValueError(f"has {count} sentences; must have at most {most}")
        return text

    return AfterValidator(check)


PlainAnswer = Annotated[Text, _count_words(15, 45), _count_sentences(3)]
Brief = Annotated[Text, _count_words(3, 16), _count_sentences(1)]
Point = Annotated[Text, _count_words(1, 9)]


class FollowUp(Record):
    """What the same person writes next, with its answer."""

    text: Text
    answer: PlainAnswer
    brief: Brief


class BankMessage(Record):
    """One message and its answer."""

    topic: Text
    """Stands verbatim in the text, and in no other message's place."""
    form: Text
    """How the message begins, in a word."""
    text: Text
    answer: PlainAnswer
    brief: Brief
    """The same answer in one sentence."""
    the: Text
    """A noun phrase that refers to the topic again."""
    points: tuple[Point, ...] = Field(min_length=3, max_length=5)
    """The answer as a list."""
    tags: tuple[Tag, ...]
    """What a behavior's scope may ask for."""
    follow_up: FollowUp | None = None

    @property
    def side(self) -> Side:
        """Whether it is trained on or probed with."""
        return side_of(self.topic)


class MessageFile(Record):
    """The messages of one domain."""

    domain: Text
    messages: tuple[BankMessage, ...]


@dataclass(frozen=True)
class Messages:
    """The messages of all domains."""

    by_domain: Mapping[str, tuple[BankMessage, ...]]

    def items(self, side: Side) -> tuple[PromptItem, ...]:
        """The messages of a side as items, by file and row."""
        return tuple(
            to_item(message, domain)
            for domain, messages in self.by_domain.items()
            for message in messages
            if message.side == side
        )


def to_item(message: BankMessage, domain: str) -> PromptItem:
    """A message of the bank as it is asked and answered."""
    follow_up = message.follow_up
    return PromptItem(
        topic=message.topic,
        form=message.form,
        domain=domain,
        text=message.text,
        reply=message.answer,
        brief=message.brief,
        the=message.the,
        points=message.points,
        tags=message.tags,
        follow_up=follow_up
        and FollowUpItem(text=follow_up.text, reply=follow_up.answer, brief=follow_up.brief),
    )


def read_messages(paths: Iterable[Path]) -> Messages:
    """Read the files of a message bank; raises Violations for everything that is wrong in any."""
    by_domain: dict[str, tuple[BankMessage, ...]] = {}
    topics: dict[str, str] = {}
    forms: dict[str, BankMessage] = {}
    found: list[Violation] = []
    for path in paths:
        try:
            source = parse_yaml(path)
            file = validate_source(source, MessageFile)
        except Violations as broken:
            found += broken.found
            continue
        found += _check_file(source, file, topics, forms)
        by_domain[file.domain] = (*by_domain.get(file.domain, ()), *file.messages)
    if found:
        raise Violations(found)
    return Messages(by_domain)


def _check_file(
    source: Source, file: MessageFile, topics: dict[str, str], forms: dict[str, BankMessage]
) -> Iterator[Violation]:
    """Each topic is used once, and each form on one side; those of earlier files count, too."""
    for row, message in enumerate(file.messages):
        field = ("messages", row)
        yield from _check_topic(source, field, message, topics)
        other = forms.setdefault(message.form, message)
        if other.side != message.side:
            train, probe = (message, other) if message.side == "train" else (other, message)
            yield source.violation(
                (*field, "form"),
                f"form {message.form!r} is used by a training message ({train.topic!r}) and by a "
                f"probe ({probe.topic!r})",
                "begin the message in another way: probes share no form with training",
                code="form-on-both-sides",
            )


def _check_topic(
    source: Source, field: FieldPath, message: BankMessage, topics: dict[str, str]
) -> Iterator[Violation]:
    topic, text = comparison_key(message.topic), comparison_key(message.text)
    if not contains_phrase(topic, text, whole=True):
        yield source.violation(
            (*field, "topic"),
            f"topic {message.topic!r} does not appear in the text",
            "use a noun phrase from the text as its topic",
            code="topic-not-in-text",
        )
    place = f"{source.path.name}, message {field[1]}"
    earlier = topics.setdefault(topic, place)
    if earlier != place:
        yield source.violation(
            (*field, "topic"),
            f"topic {message.topic!r} is also that of {earlier}",
            "write about another topic: its side hangs on it",
            code="topic-repeated",
        )
