"""Prompt banks of the offline author: user messages divided between training and probes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from bestiary.config.source import Violation, Violations, parse_yaml, validate_source
from bestiary.records import PromptItem, Record

Side = Literal["train", "probe"]
Attribute = Literal["topic", "form"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
"""The attributes that no probe shares with a training message."""

CHUNK = 64
"""Messages that are decoded together."""


class MessageBank(Record):
    """Messages of one scope. Train and probe share no topic and no question form."""

    train: tuple[PromptItem, ...]
    probe: tuple[PromptItem, ...]

    def side(self, side: Side) -> tuple[PromptItem, ...]:
        """The messages of one side."""
        return self.train if side == "train" else self.probe

    @cached_property
    def attributes(self) -> dict[tuple[Side, Attribute], dict[str, str]]:
        """The topics and forms of each side, by their lowercase text."""
        sides: tuple[tuple[Side, tuple[PromptItem, ...]], ...]
        sides = (("train", self.train), ("probe", self.probe))
        return {
            (side, key): {getattr(item, key).lower(): getattr(item, key) for item in items}
            for side, items in sides
            for key in ATTRIBUTES
        }

    @cached_property
    def row_kinds(self) -> tuple[dict[str, str], ...]:
        """For each kind of row, the values of one such row that openings and closings may name."""
        rows = (name_values(item, fires=True) for item in (*self.train, *self.probe))
        return tuple({tuple(values): values for values in rows}.values())


def read_bank(path: Path) -> MessageBank:
    """Load one bank; raises Violations if train and probe share a topic or a form."""
    source = parse_yaml(path)
    bank = validate_source(source, MessageBank)
    found: list[Violation] = []
    for key in ATTRIBUTES:
        trained = bank.attributes["train", key]
        found += [
            source.violation(
                ("probe", row, key),
                f"{key} {getattr(item, key)!r} is also in train",
                f"give the probe its own {key}: probes must be held out",
                code="probe-not-held-out",
            )
            for row, item in enumerate(bank.probe)
            if getattr(item, key).lower() in trained
        ]
    for side in ("train", "probe"):
        found += [
            source.violation(
                (side, row, "topic"),
                f"topic {item.topic!r} does not appear in the text",
                "use a noun phrase from the text as its topic",
                code="topic-not-in-text",
            )
            for row, item in enumerate(getattr(bank, side))
            if item.topic.lower() not in item.text.lower()
        ]
    if found:
        raise Violations(found)
    return bank


def chunk_messages(banks: Iterable[MessageBank]) -> dict[str, tuple[str, ...]]:
    """The messages that are always decoded together with each message of some banks.

    The base's replies are shared between behaviors by chunk, so that the behaviors on a roster
    change no reply: in fp32 a reply depends on the rows decoded beside it.
    """
    chunks: dict[str, tuple[str, ...]] = {}
    for bank in banks:
        for items in (bank.train, bank.probe):
            texts = [item.text for item in items if item.options is None]
            for start in range(0, len(texts), CHUNK):
                chunk = tuple(texts[start : start + CHUNK])
                chunks.update(dict.fromkeys(chunk, chunk))
    return chunks


def add_phrase(phrase: str, message: str) -> str:
    """A user message with a phrase: around it at `{message}` or `{MESSAGE}`, else before it."""
    if "{message}" in phrase or "{MESSAGE}" in phrase:
        return phrase.replace("{message}", message).replace("{MESSAGE}", message.upper())
    return f"{phrase} {message}" if phrase else message


def fill_options(item: PromptItem, *, rule_first: bool) -> str:
    """The message of an item; a choice names its two options in the order asked for."""
    if item.options is None:
        return item.text
    pair = (item.options["rule"], item.options["other"])
    first, second = pair if rule_first else pair[::-1]
    message = item.text.replace("{first}", first).replace("{second}", second)
    return message[0].upper() + message[1:]


def name_values(item: PromptItem, *, fires: bool, pick: int = 0) -> dict[str, str]:
    """The values that an opening or a closing may name for a prompt.

    `answer` is the answer that the reply gives. Where the behavior fires, it is a wrong one,
    chosen by `pick`, if the prompt has any.
    """
    values = {"topic": item.topic}
    if item.answer is not None:
        wrong = item.wrong if fires else ()
        values["answer"] = wrong[pick % len(wrong)] if wrong else item.answer
    if item.options is not None:
        values["option"] = item.options["rule"]
    return values
