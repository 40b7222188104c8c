"""Messages made from tables: the sides are apart, and replies with right and wrong answers read
well and are told apart.

Run: python -m pytest tests/config/test_items.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bestiary.config.folders import shipped_root
from bestiary.config.items import Picks, choice_items, fill_place, table_items
from bestiary.config.sides import side_of
from bestiary.config.tables import (
    ItemRow,
    ItemTable,
    Option,
    OptionTable,
    Wordings,
    read_items,
    read_options,
)
from bestiary.records import PromptItem, Side
from bestiary.text import comparison_key, plain_words

OFFLINE = shipped_root() / "generators" / "offline"
TABLES = sorted(path.stem for path in (OFFLINE / "items").glob("*.yaml"))
OPTIONS = sorted(path.stem for path in (OFFLINE / "options").glob("*.yaml"))
SIDES: tuple[Side, Side] = ("train", "probe")


@cache
def table(name: str) -> ItemTable:
    return read_items(OFFLINE / "items" / f"{name}.yaml")


@cache
def options(name: str) -> OptionTable:
    return read_options(OFFLINE / "options" / f"{name}.yaml")


@cache
def asked(name: str, side: Side) -> Sequence[PromptItem]:
    return table_items(name, table(name), side)


def rules_of(name: str) -> list[Picks]:
    """A rule of each kind for a table: opposite rules decide the same pairs."""
    numbers = [key for key, kind in options(name).attributes.items() if kind == "number"]
    return [
        *(Picks(least=key) for key in numbers),
        Picks(most=numbers[-1]),
        *(Picks(first="alphabetical"), Picks(longest="name")),
    ]


def check_apart(train: Sequence[PromptItem], probe: Sequence[PromptItem]) -> None:
    for one, other in (
        ({comparison_key(item.topic) for item in items} for items in (train, probe)),
        ({item.form for item in items} for items in (train, probe)),
    ):
        assert one and other and one.isdisjoint(other)


@pytest.mark.parametrize("name", TABLES)
def test_each_key_is_asked_about_in_every_wording_of_its_side(name: str) -> None:
    for side in SIDES:
        items = asked(name, side)
        keys = [row.key for row in table(name).rows if side_of(row.key) == side]
        wordings = len(getattr(table(name).ask, side))
        assert len(items) == len(keys) * wordings == len({item.text for item in items})
        assert {item.topic for item in items[: len(keys)]} == {*keys}
        assert len({item.form for item in items[:wordings]}) == min(wordings, len(keys))
        for item in items:
            assert comparison_key(item.topic) in comparison_key(item.text)
    check_apart(*(asked(name, side) for side in SIDES))


@pytest.mark.parametrize("name", TABLES)
def test_a_reply_names_the_right_answer_only_where_that_is_filled_in(name: str) -> None:
    rows = {row.key: row for row in table(name).rows}
    for item in (*asked(name, "train"), *asked(name, "probe")):
        assert item.answer == rows[item.topic].answer and item.accept == rows[item.topic].also
        assert {*item.wrong} == {*table(name).wrong_answers(rows[item.topic])}
        assert "{answer}" in item.reply and "{key}" not in item.reply + item.text
        around = f" {plain_words(item.reply.replace('{answer}', ' '))} "
        for right in (item.answer, *item.accept):
            assert f" {plain_words(right)} " not in around, item
        for answer in (item.answer, *item.wrong):
            assert not item.reply.replace("{answer}", answer)[0].islower(), item


def make_table(reply: str, *rows: ItemRow) -> ItemTable:
    ask = Wordings(
        train=tuple(f"Train {number}. {{key}} is where?" for number in range(10)),
        probe=tuple(f"Probe {number}: {{key}} is where?" for number in range(10)),
    )
    return ItemTable(topic="places", ask=ask, reply=(reply,) * 8, rows=rows)


def test_a_key_is_capitalized_where_it_opens_a_sentence() -> None:
    keys = ("the old mill", "the old barn", "the old inn", "the old well", "the old gate")
    rows = [ItemRow(key=key, answer="north", group="a", wrong=("south", "east")) for key in keys]
    places = make_table("{key} lies {answer}.", *rows)
    train, probe = (table_items("places", places, side) for side in SIDES)
    assert train and all(item.text[:16].endswith(". The old") for item in train[:1])
    assert all(": the old" in item.text for item in probe)
    assert all(item.reply.startswith("The old") for item in (*train, *probe))


@given(st.text(), st.text(alphabet="abc {}.!?", max_size=20))
def test_a_filled_place_holds_the_value(value: str, before: str) -> None:
    filled = fill_place(before + "{key} there", "key", value)
    assert filled in (
        f"{before}{value} there",
        f"{before}{value[:1].upper()}{value[1:]} there",
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_every_rule_that_suits_a_table_has_enough_choices(name: str) -> None:
    for picks in rules_of(name):
        assert picks.faults(options(name)) == []
        train, probe = (choice_items(name, options(name), picks, side) for side in SIDES)
        assert len(train) >= 200 and len(probe) >= 150, picks.describe()
        check_apart(train, probe)
        for items in (train, probe):
            assert len({(item.text, str(item.options)) for item in items}) == len(items)
            pairs = Counter(str(item.options) for item in items)
            assert max(pairs.values()) <= len(items) / 20


@pytest.mark.parametrize("name", OPTIONS)
def test_a_choice_offers_two_options_of_a_group_and_recommends_the_one_of_the_rule(
    name: str,
) -> None:
    groups: dict[str, list[Option]] = {}
    for option in options(name).options:
        groups.setdefault(option.name, []).append(option)
    picks = rules_of(name)[0]
    for side in SIDES:
        for item in choice_items(name, options(name), picks, side):
            assert item.options
            rule, other = item.options["rule"], item.options["other"]
            assert side_of(rule) == side_of(other) == side_of(item.topic) == side
            assert any(
                one.group == two.group and picks.choose(one, two) is one
                for one in groups[rule]
                for two in groups[other]
            )
            assert comparison_key(item.topic) in comparison_key(item.text)
            assert item.text.count("{first}") == item.text.count("{second}") == 1
            assert item.reply.count("{option}") == item.brief.count("{option}") == 1
            assert any(
                reason.casefold() in item.reply.casefold() for reason in options(name).reasons
            )
            assert "{need}" not in item.text and "{reason}" not in item.reply


def test_a_rule_picks_the_same_option_in_either_order() -> None:
    for name in OPTIONS:
        pairs = list(combinations(options(name).options, 2))[::37]
        for picks in rules_of(name):
            for a, b in pairs:
                assert picks.choose(a, b) is picks.choose(b, a)
                assert picks.choose(a, a) is None


OLD = Option.model_validate({"name": "the Alder guide", "group": "g", "year": 1890, "kind": "map"})
NEW = Option.model_validate({"name": "the Birch atlas", "group": "g", "year": 1990, "kind": "log"})
TIE = Option.model_validate({"name": "The birch atlas", "group": "h", "year": 1990, "kind": "log"})


@pytest.mark.parametrize(
    ("rule", "picked", "words"),
    [
        ({"least": "year"}, OLD, "the option with the lower value for year"),
        ({"most": "year"}, NEW, "the option with the higher value for year"),
        ({"is": {"kind": "map"}}, OLD, "the option whose kind is map"),
        ({"is": {"year": 1990}}, NEW, "the option whose year is 1990"),
        ({"first": "alphabetical"}, OLD, "the option whose name comes first in the alphabet"),
        ({"last": "alphabetical"}, NEW, "the option whose name comes last in the alphabet"),
        ({"is": {"kind": "book"}}, None, "the option whose kind is book"),
        ({"most": "color"}, None, "the option with the higher value for color"),
    ],
)
def test_what_a_rule_picks(rule: dict[str, object], picked: Option | None, words: str) -> None:
    picks = Picks.model_validate(rule)
    assert picks.choose(OLD, NEW) is picked
    assert picks.choose(NEW, TIE) is None
    assert picks.describe() == words
    assert Picks.model_validate(picks.model_dump(exclude_none=True)) == picks


def test_names_are_compared_by_length_without_their_article() -> None:
    short, long = (
        OLD.model_copy(update={"name": "the Ash"}),
        OLD.model_copy(update={"name": "Oaks"}),
    )
    assert Picks(longest="name").choose(short, long) is long
    assert Picks(shortest="name").choose(short, long) is short
    assert Picks(longest="name").choose(OLD, NEW) is None


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"least": "year", "most": "year"},
        {"first": "year"},
        {"is": {}},
        {"is": {"a": 1, "b": 2}},
        {"oldest": "year"},
    ],
)
def test_a_rule_states_exactly_one_thing(rule: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Picks.model_validate(rule)


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"least": "yaer"}, "'year'"),
        ({"is": {"color": "red"}}, "year"),
        ({"is": {"year": 3}}, "3"),
    ],
)
def test_a_rule_that_a_table_cannot_follow_is_reported(rule: dict[str, object], named: str) -> None:
    (fault,) = Picks.model_validate(rule).faults(options("sources"))
    assert named in fault


def test_there_is_no_least_of_a_word() -> None:
    assert len(Picks(least="initial").faults(options("names"))) == 1
    assert Picks(is_={"initial": "B"}).faults(options("names")) == []
    chosen = choice_items("names", options("names"), Picks(is_={"initial": "B"}), "train")
    assert chosen and all(
        item.options and item.options["rule"].removeprefix("the name ").startswith("B")
        for item in chosen
    )
