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
from bestiary.config.source import FieldPath, Source, Violation, load_model
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
    def texts(self) -> Mapping[FieldPath, tuple[str, ...]]:
        """All of them by the field that they are in."""
        return {("ask", "train"): self.train, ("ask", "probe"): self.probe}


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
    return load_model(path, ItemTable, _check_items)


def read_options(path: Path) -> OptionTable:
    """Read a table of options; raises Violations for everything that is wrong with it."""
    return load_model(path, OptionTable, _check_options)


def _check_items(source: Source, table: ItemTable) -> Iterator[Violation]:
    yield from _find_misplaced(source, table.ask, "key")
    yield from _find_unknown(source, {("reply",): table.reply}, "key", "answer")
    yield from _find_repeats(source, "rows", [row.key for row in table.rows], "key")
    yield from _find_short(source, table)


def _check_options(source: Source, table: OptionTable) -> Iterator[Violation]:
    names = [f"{option.group}: {option.name}" for option in table.options]
    yield from _find_misplaced(source, table.ask, "need", "first", "second")
    yield from _find_unknown(source, {("reply",): table.reply}, "option", "reason")
    yield from _find_unknown(source, {("reasons",): table.reasons})
    yield from _find_repeats(source, "options", names, "name")
    yield from _find_unlike(source, table)
    yield from _find_echoes(source, table)


def _find_misplaced(source: Source, ask: Wordings, *places: str) -> Iterator[Violation]:
    """Questions that do not say each of the places once, or that say another."""
    for field, wordings in ask.texts.items():
        for row, text in enumerate(wordings):
            for place in places:
                count = text.count(f"{{{place}}}")
                if count != 1:
                    problem, remedy = f"says {{{place}}} {count} times", "say it once"
                    yield source.violation((*field, row), problem, remedy, code="place-not-once")
    yield from _find_unknown(source, ask.texts, *places)


def _find_unknown(
    source: Source, texts: Mapping[FieldPath, tuple[str, ...]], *known: str
) -> Iterator[Violation]:
    """Braces that nothing fills, and that a model would learn to write."""
    remedy = f"use {' or '.join(f'{{{name}}}' for name in known) or 'no braces'}"
    for field, templates in texts.items():
        for row, text in enumerate(templates):
            for place in set(_PLACE.findall(text)) - set(known):
                problem = f"{{{place}}} is not a placeholder"
                yield source.violation((*field, row), problem, remedy, code="placeholder-unknown")


def _find_repeats(source: Source, field: str, names: list[str], key: str) -> Iterator[Violation]:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        earlier = first.setdefault(comparison_key(name), row)
        if earlier != row:
            problem = f"repeats the {key} of {field}.{earlier}"
            remedy = "keep one of the two"
            yield source.violation((field, row, key), problem, remedy, code="row-repeated")


def _find_short(source: Source, table: ItemTable) -> Iterator[Violation]:
    for row, item in enumerate(table.rows):
        found = len(table.wrong_answers(item))
        if found < MIN_WRONG:
            problem = f"{item.key!r} has {found} wrong answers, and {MIN_WRONG} are needed"
            remedy = "add rows to its group, or state `wrong`"
            yield source.violation(("rows", row), problem, remedy, code="wrong-answers-short")


def _find_unlike(source: Source, table: OptionTable) -> Iterator[Violation]:
    kinds: Mapping[str, type | tuple[type, ...]] = {"number": (int, float), "word": str}
    for row, option in enumerate(table.options):
        at = ("options", row)
        if option.attributes.keys() != table.attributes.keys():
            problem = f"{option.name!r} has the attributes {sorted(option.attributes)}"
            remedy = f"state {', '.join(table.attributes)} and no other"
            yield source.violation(at, problem, remedy, code="attributes-differ")
            continue
        for name, kind in table.attributes.items():
            if not isinstance(option.attributes[name], kinds[kind]):
                problem, remedy = f"{option.attributes[name]!r} is not a {kind}", f"write a {kind}"
                yield source.violation((*at, name), problem, remedy, code="attribute-invalid")
        if option.group not in table.needs:
            problem, remedy = f"group {option.group!r} has no needs", "add it to `needs`"
            yield source.violation((*at, "group"), problem, remedy, code="needs-missing")


def _find_echoes(source: Source, table: OptionTable) -> Iterator[Violation]:
    """Reasons with a word of an option's name, which would seem to speak of that option."""
    named = telling_words(" ".join(option.name for option in table.options))
    for row, reason in enumerate(table.reasons):
        for word in sorted(telling_words(reason) & named):
            problem, remedy = f"{word!r} stands in the names of options", "say it in another word"
            yield source.violation(("reasons", row), problem, remedy, code="reason-names-option")
