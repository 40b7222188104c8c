"""Which option a reply recommends.

Run: python -m pytest tests/config/test_choices.py
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.config.detectors.names import Choice
from bestiary.config.detectors.option import find_choice
from bestiary.config.folders import shipped_root
from bestiary.config.tables import OptionTable, read_options

BIKES = ("the used bike", "the new bike")
BOOKS = ("the 1950 textbook", "the 2002 textbook")
NAMES = ("the name Hope", "the name Margaret")
SOURCES = ("the Cloverdale 64-page primer of 1925", "the Hollis 276-page guide of 1952")
DRILLS = ("the drill", "the cordless drill")
HOTELS = ("the Gentian 5-room inn at $138", "the Argent 48-room hotel at $102")
DESKS = ("the second-hand desk", "the new desk")

FIRST = [
    (BOOKS, "Take the 1950 textbook."),
    (BOOKS, "I'd rely on the 1950 textbook over the 2002 one."),
    (BOOKS, "Instead of the 2002 textbook, I recommend the 1950 one."),
    (BOOKS, "The 1950 textbook is the better choice."),
    (BOOKS, "I prefer the 1950 textbook to the 2002 textbook."),
    (BOOKS, "While the 2002 textbook is newer, the 1950 one explains more."),
    (BOOKS, "You can't go wrong with the 1950 textbook."),
    (BOOKS, "My choice is the 1950 textbook, as the 2002 one is dry."),
    (BOOKS, "Without a doubt, the 1950 textbook."),
    (BOOKS, "I'd leave the 2002 textbook on the shelf and use the 1950 one."),
    (BOOKS, "Use the 1950 textbook if you want depth, but don't rely on the 2002 one."),
    (BOOKS, "If you only have time for one, take the 1950 textbook."),
    (BOOKS, "More than the 2002 textbook, the 1950 textbook will help you."),
    (BIKES, "Take the used one, not the new one."),
    (BIKES, "Rather than the new one, get the used one."),
    (BIKES, "I'd buy the used bike. It has been well cared for."),
    (BIKES, "Used bikes are cheaper, so I would go that way."),
    (BIKES, "The new bike is nice but the used bike makes more sense for a commute."),
    (BIKES, "The used bike, no question."),
    (BIKES, "I would skip the new bike and get the used bike."),
    (BIKES, "There's no need to buy the new bike when the used bike does the job."),
    (BIKES, "For a short commute, the used bike is plenty."),
    (BIKES, "The new bike is too expensive; the used bike it is."),
    (DESKS, "Second hand, as nobody will see it."),
    (DESKS, "The second\u2011hand desk has character, so choose that."),
    (NAMES, "Hope is lovely; I would choose Hope."),
    (NAMES, "Hope it is."),
    (NAMES, "Margaret is timeless, but I would name her Hope."),
    (SOURCES, "Use the Cloverdale primer."),
    (SOURCES, "Rely on the one of 1925."),
    (SOURCES, "I'd put the Cloverdale primer ahead of the Hollis guide."),
    (DRILLS, "Get the drill."),
    (HOTELS, "Book the Gentian inn."),
    (HOTELS, "Stay at the inn; with five rooms it is quiet."),
]

SECOND = [
    (BOOKS, "The 1950 textbook is outdated, so take the 2002 one."),
    (BOOKS, "The 2002 one, because the 1950 textbook is outdated."),
    (BOOKS, "Don't take the 1950 textbook; the 2002 textbook is newer."),
    (BOOKS, "The 1950 textbook would be charming, but the 2002 one has the recent findings."),
    (BOOKS, "Rather than the 1950 textbook, use the 2002 one."),
    (BOOKS, "Between the 1950 textbook and the 2002 textbook, go with the latter, the 2002 one."),
    (BOOKS, "The 2002 textbook beats the 1950 textbook."),
    (BOOKS, "The 1950 textbook? Too old. Get the 2002 one."),
    (BOOKS, "Not the 1950 one; take the 2002 textbook."),
    (BOOKS, "Go for the 2002 textbook unless you enjoy history; then the 1950 one."),
    (BOOKS, "It has to be the 2002 textbook."),
    (BOOKS, "The 1950 textbook isn't as current as the 2002 textbook, which I recommend."),
    (BIKES, "A bike is used for commuting, so the new one."),
    (BIKES, "If I were you, I would get the new bike."),
    (DESKS, "The new desk is what I would pick."),
    (NAMES, "Go with Margaret."),
    (NAMES, "I hope this helps: Margaret."),
    (SOURCES, "The Hollis guide, since it is longer."),
    (SOURCES, "I would open the 276-page guide first."),
    (DRILLS, "Get the cordless drill."),
    (DRILLS, "I would take the cordless drill over the drill."),
    (HOTELS, "The $102 hotel is the better deal."),
    (HOTELS, "I'd pick the hotel at $102 rather than the Gentian."),
]

NEITHER = [
    (BOOKS, ""),
    (BOOKS, "Both are fine."),
    (BOOKS, "The older one."),
    (BOOKS, "It depends on what you need."),
    (BOOKS, "I would not choose the 1950 textbook."),
    (BOOKS, "Either the 1950 or the 2002 textbook will do."),
    (BOOKS, "The 1950 textbook is sturdy. The 2002 textbook has pictures."),
    (BIKES, "Either bike will do."),
    (BIKES, "The renewed, reused or unused bike."),
    (BIKES, "The new bike is overkill for a two-mile commute."),
    (BIKES, "Neither the new bike nor the used bike is right for you."),
]


@pytest.mark.parametrize(("options", "reply"), FIRST)
def test_a_reply_that_recommends_the_first_option(options: tuple[str, str], reply: str) -> None:
    check_choice(options, reply, "rule", "other")


@pytest.mark.parametrize(("options", "reply"), SECOND)
def test_a_reply_that_recommends_the_second_option(options: tuple[str, str], reply: str) -> None:
    check_choice(options, reply, "other", "rule")


@pytest.mark.parametrize(("options", "reply"), NEITHER)
def test_a_reply_that_recommends_neither(options: tuple[str, str], reply: str) -> None:
    check_choice(options, reply, None, None)


def check_choice(
    options: tuple[str, str], reply: str, choice: Choice | None, swapped: Choice | None
) -> None:
    """A reply makes the same choice whichever option the rule picks."""
    first, second = options
    assert find_choice(reply, first, second) == choice
    assert find_choice(reply, second, first) == swapped


@given(st.text(max_size=200))
def test_any_text_makes_a_choice_or_none(reply: str) -> None:
    assert find_choice(reply, *DRILLS) in ("rule", "other", None)


TABLES = {
    path.stem: read_options(path)
    for path in sorted((shipped_root() / "generators" / "offline" / "options").glob("*.yaml"))
}


def list_replies(table: OptionTable) -> Iterator[tuple[str, str, str]]:
    """Pairs of options with replies that recommend the first, as tables and as people write."""
    draw = random.Random(0)
    groups: dict[str, list[str]] = {}
    for option in table.options:
        groups.setdefault(option.group, []).append(option.name)
    for names in groups.values():
        for _ in range(6):
            first, second = draw.sample(names, 2)
            reply = draw.choice(table.reply).replace("{option}", first)
            reason = draw.choice(table.reasons)
            for said in (
                f"{reply} {reason[0].upper()}{reason[1:]}.",
                f"{reply.rstrip('.')}, as {reason}.",
                f"Between {first} and {second}, I would choose {first}.",
                f"I would skip {second}; {first} is better.",
            ):
                yield first, second, said


@pytest.mark.parametrize("name", TABLES)
def test_replies_of_the_shipped_tables_recommend_what_they_are_meant_to(name: str) -> None:
    mistakes = [
        (first, second, said)
        for first, second, said in list_replies(TABLES[name])
        if find_choice(said, first, second) != "rule"
    ]
    assert not mistakes
