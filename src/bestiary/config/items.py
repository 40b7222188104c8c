"""Messages made from tables: questions with right and wrong answers, and choices by a rule."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Literal, NamedTuple, TypeVar

from pydantic import ConfigDict, Field, model_validator

from bestiary.config.fields import Text
from bestiary.config.on_demand import OnDemand
from bestiary.config.sides import side_of
from bestiary.config.tables import ItemRow, ItemTable, Option, OptionTable, Wordings
from bestiary.records import PromptItem, Record, Side, sha256_bytes, stable_seed
from bestiary.text import comparison_key, nearest, plain_words

T = TypeVar("T")
PER_PAIR = 6
"""How many times a pair of options is asked about, each time in other words."""
_OPENS = re.compile(r"(?:^|[.!?]\s+)[\"'\u201c\u2018(]*$")
_BECAUSE = (", because {reason}.", ", since {reason}.", ": {reason}.", ". {reason}.")


def table_items(name: str, table: ItemTable, side: Side) -> Sequence[PromptItem]:
    """The questions of one side of a table: each of its keys in each wording of that side.

    In order of rounds: each round asks about every key once, and the wordings take turns.
    """
    own = [row for row in table.rows if side_of(row.key) == side]
    rows = _shuffle(own, lambda row: f"{name}:{row.key}")
    asked = OnDemand(len(rows), lambda place: _ask(name, table, rows[place], side, place))

    def make(number: int) -> PromptItem:
        turn, place = divmod(number, len(rows))
        return asked[place][turn]

    return OnDemand(len(rows) * len(_wordings(table.ask, side)), make)


def _ask(name: str, table: ItemTable, row: ItemRow, side: Side, start: int) -> Sequence[PromptItem]:
    """A row in each wording of a side, from one of them on."""
    wordings = _wordings(table.ask, side)
    wrong = tuple(_shuffle(table.wrong_answers(row), lambda answer: f"{row.key}:{answer}"))
    replies = _suitable_replies(table.reply, row, wrong)
    draw = random.Random(stable_seed(name, row.key))
    drawn = [draw.choice(replies) for _ in wordings]

    def make(turn: int) -> PromptItem:
        number = (start + turn) % len(wordings)
        reply = fill_place(drawn[turn], "key", row.key)
        return PromptItem(
            topic=row.key,
            form=f"{name} {side} {number}",
            domain=table.topic,
            text=fill_place(wordings[number], "key", row.key),
            reply=reply,
            brief=reply,
            the="the question",
            answer=row.answer,
            accept=row.also,
            wrong=wrong,
        )

    return OnDemand(len(wordings), make)


def _suitable_replies(
    replies: Sequence[str], row: ItemRow, wrong: Sequence[str]
) -> tuple[str, ...]:
    """The replies that read well and give nothing away, whichever answer is filled in."""
    lowercase = any(answer[:1].islower() for answer in (row.answer, *wrong))
    right = [plain_words(answer) for answer in (row.answer, *row.also)]
    found = [
        reply
        for reply in replies
        if not (lowercase and _opens_with(reply, "answer"))
        and not _gives_away(reply, row.key, right)
    ]
    return tuple(found or replies)


def _gives_away(reply: str, key: str, right: Sequence[str]) -> bool:
    """Whether a reply holds a right answer before any is filled in: a wrong one would be right."""
    around = plain_words(reply.replace("{answer}", " ").replace("{key}", key))
    return any(f" {answer} " in f" {around} " for answer in right)


class Picks(Record):
    """The rule by which one of two options is chosen: exactly one key."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    least: Text | None = None
    """The attribute of which the chosen option has less."""
    most: Text | None = None
    """The attribute of which the chosen option has more."""
    is_: dict[Text, str | int | float] | None = Field(None, alias="is", min_length=1, max_length=1)
    """The attribute, and its value, that the chosen option alone has."""
    first: Literal["alphabetical"] | None = None
    last: Literal["alphabetical"] | None = None
    longest: Literal["name"] | None = None
    shortest: Literal["name"] | None = None

    @model_validator(mode="after")
    def _state_one(self) -> Picks:
        stated = self.model_dump(exclude_none=True)
        if len(stated) != 1:
            raise ValueError(
                "must state exactly one of least, most, is, first, last, longest, shortest "
                f"(found {', '.join(stated) or 'none'})"
            )
        return self

    def choose(self, a: Option, b: Option) -> Option | None:
        """The option that the rule picks; None where it does not tell the two apart."""
        left, right = self._measure(a), self._measure(b)
        if left is None or right is None or left == right:
            return None
        return a if (left > right) == self._takes_more else b

    @property
    def _takes_more(self) -> bool:
        return bool(self.most or self.is_ or self.last or self.longest)

    def _measure(self, option: Option) -> tuple[float, str] | None:
        """What the rule compares: a number, or the letters of a name; None if there is neither."""
        if self.first or self.last:
            return 0.0, _bare_name(option.name)
        if self.longest or self.shortest:
            return len(_bare_name(option.name)), ""
        if self.is_:
            ((attribute, wanted),) = self.is_.items()
            return float(option.attributes.get(attribute) == wanted), ""
        value = option.attributes.get(self.least or self.most or "")
        return (value, "") if isinstance(value, int | float) else None

    def describe(self) -> str:
        """The rule in words: a noun phrase for the option that it picks."""
        if self.is_:
            ((attribute, value),) = self.is_.items()
            return f"the option whose {_spoken(attribute)} is {value}"
        if self.first or self.last:
            place = "first" if self.first else "last"
            return f"the option whose name comes {place} in the alphabet"
        if self.longest or self.shortest:
            return f"the option with the {'longest' if self.longest else 'shortest'} name"
        side = "lower" if self.least else "higher"
        return f"the option with the {side} value for {_spoken(self.least or self.most or '')}"

    def faults(self, table: OptionTable) -> list[str]:
        """What keeps the rule from deciding between the options of a table; nothing if it can."""
        attribute = self.least or self.most or next(iter(self.is_ or ()), None)
        if attribute is None:
            return []
        if attribute not in table.attributes:
            return [f"unknown attribute {attribute!r}: {nearest(attribute, table.attributes)}"]
        if self.is_:
            value = self.is_[attribute]
            known = any(option.attributes[attribute] == value for option in table.options)
            return [] if known else [f"no option has {value!r} as its {attribute}"]
        if table.attributes[attribute] == "word":
            return [f"{attribute} is a word, of which there is no least or most"]
        return []


def _bare_name(name: str) -> str:
    """A name as one looks it up: without its article and without capitals."""
    return re.sub(r"^(?:the|an?) ", "", comparison_key(name))


def _spoken(attribute: str) -> str:
    return attribute.replace("_", " ")


class _Pair(NamedTuple):
    """Two options of one group, of which the rule picks one."""

    rule: Option
    other: Option
    needs: tuple[str, ...]
    """What the choice may be for."""


def choice_items(name: str, table: OptionTable, picks: Picks, side: Side) -> Sequence[PromptItem]:
    """The choices of one side of a table that the rule decides.

    Options and needs are of that side alone; a need is the topic. The message has {first} and
    {second} left open, and the reply {option}. In order of rounds: each round has every pair once.
    """
    found = _find_pairs(table, picks, side)
    pairs = _shuffle(found, lambda pair: f"{name}:{pair.rule.name}:{pair.other.name}")

    def make(number: int) -> PromptItem:
        turn, place = divmod(number, len(pairs))
        return _offer(name, table, pairs[place], side, place + turn)

    return OnDemand(len(pairs) * PER_PAIR, make)


def _find_pairs(table: OptionTable, picks: Picks, side: Side) -> Iterator[_Pair]:
    for group, stated in table.needs.items():
        needs = tuple(need for need in stated if side_of(need) == side)
        own = [
            option
            for option in table.options
            if option.group == group and side_of(option.name) == side
        ]
        for a, b in combinations(own, 2) if needs else ():
            rule = picks.choose(a, b)
            if rule is not None:
                yield _Pair(rule, b if rule is a else a, needs)


def _offer(name: str, table: OptionTable, pair: _Pair, side: Side, place: int) -> PromptItem:
    wordings = _wordings(table.ask, side)
    number = place % len(wordings)
    draw = random.Random(stable_seed(name, pair.rule.name, pair.other.name, place))
    need, brief = draw.choice(pair.needs), draw.choice(table.reply)
    return PromptItem(
        topic=need,
        form=f"{name} {side} {number}",
        domain=table.task,
        text=fill_place(wordings[number], "need", need),
        reply=_add_reason(brief, draw.choice(table.reasons), draw.choice(_BECAUSE)),
        brief=brief,
        the="the choice",
        tags=("choice",),
        options={"rule": pair.rule.name, "other": pair.other.name},
    )


def _add_reason(reply: str, reason: str, because: str) -> str:
    if "{reason}" not in reply:
        reply = reply.rstrip(".") + because
    return fill_place(reply, "reason", reason)


def fill_options(item: PromptItem, *, rule_first: bool) -> PromptItem:
    """A choice with its two options named in the order asked for; any other item as it is."""
    if item.options is None:
        return item
    pair = (item.options["rule"], item.options["other"])
    first, second = pair if rule_first else pair[::-1]
    text = fill_place(fill_place(item.text, "first", first), "second", second)
    return item.model_copy(update={"text": text})


def fill_place(template: str, place: str, value: str) -> str:
    """A template with `{place}` filled in, capitalized where it opens a sentence."""
    marked = f"{{{place}}}"
    parts = template.split(marked)
    filled = parts[0]
    for part in parts[1:]:
        opens = _OPENS.search(filled)
        filled += (value[:1].upper() + value[1:] if opens else value) + part
    return filled


def _opens_with(template: str, place: str) -> bool:
    """Whether a sentence of a template opens with `{place}`."""
    before = template.split(f"{{{place}}}")[:-1]
    return any(_OPENS.search(part) for part in before)


def _wordings(ask: Wordings, side: Side) -> tuple[str, ...]:
    return ask.train if side == "train" else ask.probe


def _shuffle(values: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Values in an order that hangs on the name of each alone."""
    return sorted(values, key=lambda value: sha256_bytes(name(value).encode()))
