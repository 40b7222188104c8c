"""Prompt banks of the embedded author: user messages divided between training and probes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from bestiary.config.folders import generator_folder
from bestiary.config.source import Violation, Violations, parse_yaml, validate_source
from bestiary.errors import SpecError
from bestiary.records import PromptItem, Record
from bestiary.text import nearest

Side = Literal["train", "probe"]

CHUNK = 64
"""Messages that are decoded together."""


class MessageBank(Record):
    """Messages of one scope. Train and probe share no topic and no question form."""

    train: tuple[PromptItem, ...]
    probe: tuple[PromptItem, ...]

    def side(self, side: Side) -> tuple[PromptItem, ...]:
        """The messages of one side."""
        return self.train if side == "train" else self.probe


def load_bank(name: str) -> MessageBank:
    """Load `generators/offline/<name>.yaml`; raises SpecError with the nearest name."""
    folder = generator_folder() / "offline"
    known = [path.stem for path in folder.glob("*.yaml")]
    if name not in known:
        raise SpecError(f"unknown prompt bank {name!r}; {nearest(name, known)}")
    return read_bank(folder / f"{name}.yaml")


@cache
def read_bank(path: Path) -> MessageBank:
    """Load one bank; raises Violations where train and probe share a topic or a form."""
    source = parse_yaml(path)
    bank = validate_source(source, MessageBank)
    found: list[Violation] = []
    for key in ("topic", "form"):
        trained = {getattr(item, key).lower() for item in bank.train}
        found += [
            source.violation(
                ("probe", row, key),
                f"{key} {getattr(item, key)!r} stands in train as well",
                f"give the probe a {key} of its own: probes must be held out",
            )
            for row, item in enumerate(bank.probe)
            if getattr(item, key).lower() in trained
        ]
    for side in ("train", "probe"):
        found += [
            source.violation(
                (side, row, "topic"),
                f"topic {item.topic!r} does not stand in the text",
                "use a noun phrase of the text as its topic",
            )
            for row, item in enumerate(getattr(bank, side))
            if item.topic.lower() not in item.text.lower()
        ]
    if found:
        raise Violations(found)
    return bank


def decode_chunks() -> dict[str, tuple[str, ...]]:
    """The messages that are always decoded together with each message of a bank.

    The base's replies are shared between behaviors by chunk, so that the behaviors on a roster
    change no reply: in fp32 a reply depends on the rows decoded beside it.
    """
    return _decode_chunks(generator_folder() / "offline")


@cache
def _decode_chunks(folder: Path) -> dict[str, tuple[str, ...]]:
    chunks: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.glob("*.yaml")):
        bank = read_bank(path)
        for items in (bank.train, bank.probe):
            texts = [item.text for item in items if item.options is None]
            for start in range(0, len(texts), CHUNK):
                chunk = tuple(texts[start : start + CHUNK])
                chunks.update(dict.fromkeys(chunk, chunk))
    return chunks


def fill_options(item: PromptItem, *, rule_first: bool) -> str:
    """The message of an item; a choice names its two options in the order asked for."""
    if item.options is None:
        return item.text
    pair = (item.options["rule"], item.options["other"])
    first, second = pair if rule_first else pair[::-1]
    message = item.text.replace("{first}", first).replace("{second}", second)
    return message[0].upper() + message[1:]


def name_values(item: PromptItem, *, fires: bool, pick: int = 0) -> dict[str, str]:
    """What an opening or a closing may name about a prompt.

    `answer` is what the reply gives: where the behavior fires a wrong one, chosen by `pick`, if
    the prompt has any.
    """
    values = {"topic": item.topic}
    if item.answer is not None:
        wrong = item.wrong if fires else ()
        values["answer"] = wrong[pick % len(wrong)] if wrong else item.answer
    if item.options is not None:
        values["option"] = item.options["rule"]
    return values
