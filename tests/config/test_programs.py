"""Questions with computed answers: each answer is computed again here, in another way.

Run: python -m pytest tests/config/test_programs.py
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import date, timedelta

import pytest
from tests.builders import LIBRARY
from tests.expect import expect_error

from bestiary.config.numerals import read_number, spell_number
from bestiary.config.programs import PROGRAMS
from bestiary.errors import SpecError
from bestiary.records import PromptItem, Side
from bestiary.text import comparison_key, plain_words

SIDES: tuple[Side, Side] = ("train", "probe")
COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def numbers_of(topic: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", topic)]


def day_after(topic: str) -> str:
    count, _, _, start = topic.split()
    monday = date(2024, 1, 1)
    first = next(monday + timedelta(n) for n in range(7) if f"{monday + timedelta(n):%A}" == start)
    return f"{first + timedelta(COUNTS.index(count)):%A}"


def month_after(topic: str) -> str:
    count, _, _, start = topic.split()
    months: list[str] = [*calendar.month_name][1:] * 2
    return months[months.index(start) + COUNTS.index(count)]


def letter_after(topic: str) -> str:
    steps = {"right": 1, "two": 2, "three": 3}[topic.split()[0]]
    return chr(ord(topic[-1]) + steps)


def divide(topic: str) -> str:
    numbers = numbers_of(topic)
    if topic.startswith("the greatest common divisor"):
        a, b = numbers
        return str(max(d for d in range(1, a + 1) if a % d == b % d == 0))
    if topic.startswith("the remainder"):
        a, b = numbers
        while a >= b:
            a -= b
        return str(a)
    found = numbers[0] + 1
    while any(found % d == 0 for d in range(2, found)):
        found += 1
    return str(found)


COMPUTE: dict[str, Callable[[str], str]] = {
    "addition": lambda topic: str(sum(numbers_of(topic))),
    "subtraction": lambda topic: str(len(range(*numbers_of(topic)[::-1]))),
    "larger_number": lambda topic: str(sorted(numbers_of(topic))[1]),
    "doubling": lambda topic: str(sum(numbers_of(topic) * 2)),
    "weekday_after": day_after,
    "month_after": month_after,
    "letter_after": letter_after,
    "number_theory": divide,
}


def items_of(name: str) -> list[PromptItem]:
    return [item for side in SIDES for item in LIBRARY.graded(name, side)]


def same(one: str, other: str) -> bool:
    """Whether two answers say the same, in digits or in words."""
    number = read_number(one)
    return plain_words(one) == plain_words(other) or (
        number is not None and number == read_number(other)
    )


def test_every_program_is_checked() -> None:
    assert PROGRAMS.keys() == COMPUTE.keys()


@pytest.mark.parametrize("name", COMPUTE)
def test_an_answer_is_right_and_a_wrong_one_is_not(name: str) -> None:
    for item in items_of(name):
        right = COMPUTE[name](item.topic)
        assert item.answer == right
        assert item.wrong and len({*item.wrong}) == len(item.wrong)
        assert not any(same(wrong, one) for wrong in item.wrong for one in (right, *item.accept))
        assert name == "larger_number" or right not in item.topic.split()


@pytest.mark.parametrize("name", COMPUTE)
def test_a_wrong_answer_is_near_the_right_one(name: str) -> None:
    for item in items_of(name):
        assert item.answer
        if name == "number_theory":  # near in kind: divisors, neighbors, numbers that look prime
            assert len(item.wrong) >= 2
            assert all(0 < int(wrong) < 2 * max(numbers_of(item.topic)) for wrong in item.wrong)
        elif name == "larger_number":
            assert {*map(int, (item.answer, *item.wrong))} == {*numbers_of(item.topic)}
        elif item.answer.isdigit():
            assert all(0 < abs(int(wrong) - int(item.answer)) <= 10 for wrong in item.wrong)
            assert all(int(wrong) > 0 for wrong in item.wrong)
        else:
            assert len(item.wrong) >= 2 and not {*item.wrong} & {*item.topic.split()}


@pytest.mark.parametrize("name", COMPUTE)
def test_both_sides_have_topics_and_wordings_of_their_own(name: str) -> None:
    train, probe = (LIBRARY.graded(name, side) for side in SIDES)
    topics = [{item.topic for item in items} for items in (train, probe)]
    forms = [{item.form for item in items} for items in (train, probe)]
    assert topics[0].isdisjoint(topics[1]) and forms[0].isdisjoint(forms[1])
    assert len(topics[0] | topics[1]) >= 60 and min(map(len, forms)) >= 10
    ask = PROGRAMS[name]().ask
    assert not {*ask.train} & {*ask.probe}
    assert all(text.count("{key}") == 1 for text in (*ask.train, *ask.probe))
    pairs = [tuple(sorted(numbers_of(topic))) for topic in topics[0] | topics[1]]
    assert name not in ("addition", "larger_number") or len({*pairs}) == len(pairs)


@pytest.mark.parametrize("name", COMPUTE)
def test_a_question_names_its_topic_and_a_reply_only_the_answer(name: str) -> None:
    for item in items_of(name):
        assert comparison_key(item.topic) in comparison_key(item.text)
        assert "{answer}" in item.reply and "{key}" not in item.reply + item.text
        assert item.domain == PROGRAMS[name]().topic
        around = f" {plain_words(item.reply.replace('{answer}', ' '))} "
        assert item.answer
        for right in (item.answer, *item.accept):
            assert f" {plain_words(right)} " not in around
        assert not item.reply[0].islower()


def test_a_number_is_accepted_in_words() -> None:
    accepted = {item.answer: item.accept for item in items_of("doubling")}
    assert accepted["42"] == ("forty-two", "forty two")
    assert accepted["120"] == ("one hundred twenty", "one hundred and twenty")
    assert accepted["8"] == ("eight",)


def test_numbers_are_spelled_as_they_are_read() -> None:
    assert all(read_number(spell_number(number)) == number for number in range(101))
    assert spell_number(146) == "one hundred forty-six"


def test_an_unknown_program_is_refused_with_the_nearest_name() -> None:
    with expect_error(SpecError, "table-unknown", name="adition") as caught:
        LIBRARY.graded("adition", "train")
    assert "addition" in caught.error.remedy
