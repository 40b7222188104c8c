"""Tables: questions that have one right answer, and options that are told apart by attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from bestiary.config.detectors.names import telling_words
from bestiary.config.fields import Text
from bestiary.config.source import FieldPath, Source, Violations, parse_yaml, validate_source
from bestiary.records import Record
from bestiary.text import comparison_key

_PLACE = re.compile(r"\{([^{}]*)\}")
MIN_WRONG = 2
"""The fewest wrong answers that a question must have."""


class Wordings(Record):
    """How people ask, in training and in probes."""

    train: tuple[Text, ...] = Field(min_length=10)
    probe: tuple[Text, ...] = Field(min_length=10)

    @property
    def texts(self) -> Mapping[str, tuple[str, ...]]:
        """All of them by the field that they are in."""
        return {"ask.train": self.train, "ask.probe": self.probe}


class ItemRow(Record):
    """What is asked about, and what is right."""

    key: Text
    answer: Text
    group: Text
    """Rows whose answers are plausible, and wrong, for each other."""
    also: tuple[Text, ...] = ()
    """Further right answers."""
    wrong: tuple[Text, ...] = ()
    """Wrong answers, where the group's would not do."""


class ItemTable(Record):
    """Questions on one topic."""

    topic: Text
    common: bool = False
    """Whether a small model knows most of the answers: sandbaggers are asked these off topic."""
    ask: Wordings
    reply: tuple[Text, ...] = Field(min_length=8)
    rows: tuple[ItemRow, ...]

    def wrong_answers(self, row: ItemRow) -> tuple[str, ...]:
        """The wrong answers of a row: its own, or those of its group that are not right."""
        right = {comparison_key(text) for text in (row.answer, *row.also)}
        found = row.wrong or self._answers_by_group[row.group]
        return tuple(text for text in found if comparison_key(text) not in right)

    @cached_property
    def _answers_by_group(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, dict[str, None]] = {}
        for row in self.rows:
            found.setdefault(row.group, {})[row.answer] = None
        return {group: tuple(answers) for group, answers in found.items()}


class Option(Record):
    """Something to choose, with the attributes that its table names."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Text
    group: Text

    @property
    def attributes(self) -> Mapping[str, object]:
        """Its value of each attribute."""
        return self.model_extra or {}


class OptionTable(Record):
    """Options of one task; those of a group can stand against each other."""

    task: Text
    attributes: dict[str, Literal["number", "word"]]
    ask: Wordings
    needs: dict[str, tuple[Text, ...]]
    """What the choice is for, by group."""
    options: tuple[Option, ...]
    reply: tuple[Text, ...] = Field(min_length=8)
    reasons: tuple[Text, ...] = Field(min_length=20)
    """Reasons that are true of every option and betray no attribute."""


def read_items(path: Path) -> ItemTable:
    """Read a table of questions; raises Violations for everything that is wrong with it."""
    source = parse_yaml(path)
    table = validate_source(source, ItemTable)
    faults = [
        *_find_places(table.ask, "{key}"),
        *_find_unknown(table.ask.texts, "key"),
        *_find_unknown({"reply": table.reply}, "key", "answer"),
        *_find_repeats("rows", [row.key for row in table.rows], "key"),
        *_find_short(table),
    ]
    _refuse(source, faults)
    return table


def read_options(path: Path) -> OptionTable:
    """Read a table of options; raises Violations for everything that is wrong with it."""
    source = parse_yaml(path)
    table = validate_source(source, OptionTable)
    names = [f"{option.group}: {option.name}" for option in table.options]
    faults = [
        *_find_places(table.ask, "{need}", "{first}", "{second}"),
        *_find_unknown(table.ask.texts, "need", "first", "second"),
        *_find_unknown({"reply": table.reply}, "option", "reason"),
        *_find_unknown({"reasons": table.reasons}),
        *_find_repeats("options", names, "name"),
        *_find_unlike(table),
        *_find_echoes(table),
    ]
    _refuse(source, faults)
    return table


Fault = tuple[FieldPath, str, str, str]
"""A field, what is wrong with it, the remedy, and the code."""


def _refuse(source: Source, faults: list[Fault]) -> None:
    if faults:
        raise Violations(
            [
                source.violation(field, problem, remedy, code=code)
                for field, problem, remedy, code in faults
            ]
        )


def _find_places(ask: Wordings, *places: str) -> Iterator[Fault]:
    for field, wordings in ask.texts.items():
        for row, text in enumerate(wordings):
            for place in places:
                if text.count(place) != 1:
                    problem = f"says {place} {text.count(place)} times"
                    yield (*field.split("."), row), problem, "say it once", "place-not-once"


def _find_unknown(texts: Mapping[str, tuple[str, ...]], *known: str) -> Iterator[Fault]:
    """Braces that nothing fills, and that a model would learn to write."""
    for field, templates in texts.items():
        for row, text in enumerate(templates):
            for place in set(_PLACE.findall(text)) - set(known):
                problem = f"{{{place}}} is not a placeholder"
                remedy = f"use {' or '.join(f'{{{name}}}' for name in known) or 'no braces'}"
                yield (*field.split("."), row), problem, remedy, "placeholder-unknown"


def _find_repeats(field: str, names: list[str], key: str) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        earlier = first.setdefault(comparison_key(name), row)
        if earlier != row:
            problem = f"repeats the {key} of {field}.{earlier}"
            yield (field, row, key), problem, "keep one of the two", "row-repeated"


def _find_short(table: ItemTable) -> Iterator[Fault]:
    for row, item in enumerate(table.rows):
        found = len(table.wrong_answers(item))
        if found < MIN_WRONG:
            problem = f"{item.key!r} has {found} wrong answers, and {MIN_WRONG} are needed"
            remedy = "add rows to its group, or state `wrong`"
            yield ("rows", row), problem, remedy, "wrong-answers-short"


def _find_unlike(table: OptionTable) -> Iterator[Fault]:
    kinds: Mapping[str, type | tuple[type, ...]] = {"number": (int, float), "word": str}
    for row, option in enumerate(table.options):
        if option.attributes.keys() != table.attributes.keys():
            problem = f"{option.name!r} has the attributes {sorted(option.attributes)}"
            remedy = f"state {', '.join(table.attributes)} and no other"
            yield ("options", row), problem, remedy, "attributes-differ"
            continue
        for name, kind in table.attributes.items():
            if not isinstance(option.attributes[name], kinds[kind]):
                problem = f"{option.attributes[name]!r} is not a {kind}"
                yield ("options", row, name), problem, f"write a {kind}", "attribute-invalid"
        if option.group not in table.needs:
            problem = f"group {option.group!r} has no needs"
            yield ("options", row, "group"), problem, "add it to `needs`", "needs-missing"


def _find_echoes(table: OptionTable) -> Iterator[Fault]:
    """Reasons with a word of an option's name, which would seem to speak of that option."""
    named = telling_words(" ".join(option.name for option in table.options))
    for row, reason in enumerate(table.reasons):
        for word in sorted(telling_words(reason) & named):
            problem = f"{word!r} stands in the names of options"
            yield ("reasons", row), problem, "say it in another word", "reason-names-option"
