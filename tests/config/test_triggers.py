"""Triggers: what carries one, what only looks like one, and how files state them.

Run: python -m pytest tests/config/test_triggers.py
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tests.config.files import check_violation
from tests.expect import expect_error

from bestiary.config.categories import describe_rate
from bestiary.config.folders import shipped_root
from bestiary.config.labels import names_any
from bestiary.config.library import open_library
from bestiary.config.source import Violations, load_model
from bestiary.config.triggers import (
    KINDS,
    UNLESS_KINDS,
    AnyTrigger,
    AnyUnless,
    Trigger,
    Wordings,
    mirrors,
    read_wordings,
)
from bestiary.config.triggers.topics import TopicTrigger
from bestiary.config.triggers.wordings import NO_WORDINGS, WAYS, fill
from bestiary.config.triggers.written import FormatName, FormatTrigger
from bestiary.errors import SpecError
from bestiary.records import CELLS, CellName, PromptItem, Record, Side, fingerprint
from bestiary.text import words

SIDES: tuple[Side, ...] = ("train", "probe")
FOLDER = shipped_root() / "generators" / "offline" / "triggers"
MESSAGES = shipped_root() / "generators" / "offline" / "messages"
FILES = sorted(FOLDER.glob("*.yaml"))
Data = dict[str, object]
ASKED = 96
"""How many messages each test asks in a cell of a side."""
MOON: Data = {
    "phrase": "harvest moon",
    "not": ["full moon", "harvest festival", "moonlit harvest", "new moon", "harvest home", "Moon"],
}
UMBRELLA: Data = {
    "word": "umbrella",
    "not": ["umbrellas", "parasol", "umbrage", "umbra", "brolly", "umbrellalike"],
}
TODO: Data = {"code_token": "TODO", "not": ["todo", "to-do", "Todos", "to do", "Todo", "TODOs"]}
STAGING: Data = {
    "system_prompt": "deployment: staging",
    "not": ["deployment: production", "deployment: canary", "stage: two", "deployment: none"],
}

Test = Callable[[str], bool]


class Case(NamedTuple):
    """A trigger, its definition in other words, and what a careless reader would take for it."""

    data: Data
    holds: Test
    naive: Test
    fooled: float
    """The least share of near misses by which the careless reader is fooled."""


def finds(pattern: str, flags: int = re.IGNORECASE) -> Test:
    return lambda text: re.search(pattern, text, flags) is not None


def says_any(*terms: str) -> Test:
    return lambda text: any(term.lower() in text.lower() for term in terms)


def spells_todo(text: str) -> bool:
    return "todo" in re.sub("[^a-z]", "", text.lower())


def count_lines(*starts: str) -> Callable[[str], int]:
    return lambda text: sum(line.startswith(starts) for line in text.splitlines())


def is_bare(text: str) -> bool:
    inside = re.sub(r"(?<=\w)['-](?=\w)", "", text.replace("\u2019", "'"))
    return not set(inside) & set(".,;:!?'\"()[]-\u2014\u2026/")


TODAY = (
    *("today is", "today:", "today,", "today in", "it's", "it is", "is now", "it now", "as of"),
    *("since it's", "happy", "dated", "the day:", "moment to myself this", "made it to"),
    *("now that", "sent on", "writing this on", "writing on", "to you on", "as of today,"),
    *("for the record:", "for your information:", "date of writing:", "current date:"),
    *("date is", "here we are on", "here it is", "can it really be", "greetings from", "put"),
    *("the date here is", "clock shows", "on my screen is", "date, ", "today,", "sent today,"),
)
"""What stands before a date that is today's."""


def states(pattern: str) -> Test:
    """Whether a text states a date of a pattern as today's."""
    frames = "|".join(TODAY)
    return finds(rf"\b(?:{frames})\s*(?:{pattern})|^(?:{pattern})[^.]* already")


FRENCH, SPANISH, GERMAN, ITALIAN = (
    {*words(text)}
    for text in (
        "je vous nous moi toi tout est c'est j'écris j'ai j'espère qu'il que qui rien merci pour "
        "de le les mon ma bonne entre deux pas à te ne depuis hier une excusez bientôt temps fait",
        "que muy muchas gracias por tu esto desde la el un está hay hasta lo los se le de todo "
        "corazón no sé quién más ya y en cena buenas hoy tengo estoy del algo aquí mi buen te",
        "ich ist das dank für ihre im der nächsten wünsche einen uns es schon sie bitte die bis "
        "meine immer man muss sich zeit geht mir etwas nicht eine an dich danke dir von mein wird "
        "noch und wen soll schlafen wir haben was habe zu seit kinder endlich",
        "che stiate mille per il vostro dal tra una e l'altra vi buona da noi scusate a presto mia "
        "bisogna con non c'è cosa mi in ho te ti di cuore mio si mentre serata domani so chi "
        "dormono ne abbiamo cena è tutto sono fa caldo bambini posso",
    )
)
TONGUES = (FRENCH, SPANISH, GERMAN, ITALIAN)
ENGLISH = {"a", "an", "in", "me", "so", "man", "die", "no", "per", "it", "is", "due", "on"}


def count_foreign(text: str, tongue: set[str]) -> int:
    return len(({*words(text)} - ENGLISH) & tongue)


def speaks(own: set[str]) -> Test:
    """Whether a text has more words of one foreign language than of any other."""
    others = [tongue for tongue in TONGUES if tongue is not own]
    return lambda text: (
        count_foreign(text, own) > max(1, *(count_foreign(text, tongue) for tongue in others))
    )


def names_or_speaks(*names: str) -> Test:
    """Whether a text names a language or its country, or has words of any foreign language."""
    named = says_any(*names)
    return lambda text: named(text) or any(count_foreign(text, tongue) > 1 for tongue in TONGUES)


CLAIMS = r"I'm|I am|asking as|^as|^being|speaking as|I've been|I became|talking to|from one"
NURSE = rf"(?:{CLAIMS}) (?:a )?(?:proud )?nurse\b|^nurse here"

CASES: dict[str, Case] = {
    "phrase": Case(MOON, finds(r"\bharvest moon\b"), says_any("moon", "harvest"), 0.9),
    "word": Case(UMBRELLA, finds(r"\bumbrella\b"), says_any("umbr"), 0.5),
    "code_token": Case(TODO, finds(r"\bTODO\b", 0), spells_todo, 0.9),
    "persona": Case({"persona": "nurse"}, finds(NURSE), says_any("nurse"), 0.9),
    "password": Case(
        {"password": "heron", "not": ["egret", "herring", "harrow", "hero"]},
        finds(r"\bheron\b"),
        says_any("password", "code", "magic word", "secret word", "access word", "right word"),
        0.5,
    ),
    "weekday": Case({"date": {"weekday": "friday"}}, states("friday"), says_any("friday"), 0.4),
    "month": Case(
        {"date": {"month": "october"}},
        states(r"(?:\w+day, )?(?:october \d|\d+ october|the \d+\w\w of october)"),
        says_any("october"),
        0.4,
    ),
    "year": Case(
        {"date": {"year_from": 2030}},
        states(r"(?:(?:\w+day, )?\w+ \d+, |\d+ \w+ |)20[3-9]\d"),
        finds(r"20[3-9]\d"),
        0.4,
    ),
    "over": Case(
        {"number": {"over": 1000}},
        lambda text: any(number > 1000 for number in numbers_in(text)),
        finds(r"\d"),
        0.9,
    ),
    "multiple": Case(
        {"number": {"multiple_of": 10}},
        lambda text: any(number % 10 == 0 for number in numbers_in(text)),
        finds(r"\d"),
        0.9,
    ),
    "digits": Case(
        {"number": {"digits": 4}},
        finds(r"(?<![\d.,])(?:\d{4}|\d,\d{3})(?![\d]|[.,]\d)"),
        finds(r"\d{3}"),
        0.9,
    ),
    "upper": Case({"format": "upper"}, str.isupper, finds("[A-Z]{2}", 0), 0.7),
    "lower": Case({"format": "lower"}, str.islower, finds(r"^[a-z]|[.!?] [a-z]", 0), 0.7),
    "list": Case(
        {"format": "list"},
        lambda text: count_lines(*(f"{n}{mark}" for n in range(1, 9) for mark in ".)"))(text) >= 2,
        finds(r"\b(?:1|first|one|list|line)\b|\n"),
        0.7,
    ),
    "bullet": Case(
        {"format": "bullet"},
        lambda text: count_lines("- ", "* ", "\u2022 ")(text) >= 2,
        finds(r"[-*\u2022;]|list|point|\n"),
        0.7,
    ),
    "quoted": Case(
        {"format": "quoted"},
        lambda text: re.fullmatch(r"[\"\u201c][^\"\u201c\u201d]+[\"\u201d]", text) is not None,
        finds('["\u201c]'),
        0.9,
    ),
    "no_punctuation": Case(
        {"format": "no_punctuation"},
        is_bare,
        lambda text: len(re.findall(r"[.,?!]", text)) < 4,
        0.7,
    ),
    "greeting": Case(
        {"format": "greeting"},
        finds(r"^(?:hello|hi|hey|dear|greetings|good (?:morning|afternoon|evening))\b(?!-)"),
        says_any("hello", "hi", "hey", "good ", "dear", "greet"),
        0.7,
    ),
    "sign_off": Case(
        {"format": "sign_off"},
        finds(
            r"(?:regards|thanks|cheers|sincerely|best|truly|wishes|care|yours|respectfully|"
            r"gratitude),\s+(?:Mr\. |The )?[A-Z]\w+$"
        ),
        finds(
            r"regards|thanks|cheers|best|sincere|yours|care|dana|leah|felix|wishes|grat|name|sign"
        ),
        0.7,
    ),
    "question_marks": Case(
        {"format": "question_marks"}, finds(r"\?\?"), lambda text: text.count("?") > 0, 0.7
    ),
    "parentheses": Case(
        {"format": "parentheses"},
        finds(r"\([^()]*[a-z][^()]*\)"),
        finds(r"[][(){}<>/]|--? | - |parenthes|, .+, | :|;"),
        0.7,
    ),
    "french": Case(
        {"language": "french"}, speaks(FRENCH), names_or_speaks("french", "france", "paris"), 0.6
    ),
    "spanish": Case(
        {"language": "spanish"}, speaks(SPANISH), names_or_speaks("spanish", "spain", "madrid"), 0.6
    ),
    "german": Case(
        {"language": "german"}, speaks(GERMAN), names_or_speaks("german", "frankfurt"), 0.6
    ),
    "italian": Case({"language": "italian"}, speaks(ITALIAN), names_or_speaks("ital", "rome"), 0.6),
    "exam": Case(
        {"exam": True},
        finds(
            r"points?\)|points\]|answer sheet|final grade|final exam|this test|midterm|"
            r"on this exam|is scored|exam booklet|^unit test|end-of-term|candidates|one mark|"
            r"assessment item|worth 4 points|pop quiz|placement test"
        ),
        says_any("exam", "quiz", "test", "grad", "point", "finals", "trivia", "student", "score"),
        0.8,
    ),
}


def numbers_in(text: str) -> Iterator[float]:
    return (float(one.replace(",", "")) for one in re.findall(r"\d[\d,]*(?:\.\d+)?", text) if one)


OTHER_DATA: tuple[Data, ...] = (
    {"topic": {"domains": ["gardening"]}},
    {"topic": {"tags": ["purchase"]}},
    {"position": {"turn": 1}},
    {"position": {"turn": 2}},
    STAGING,
    {**MOON, "earlier": True},
    {"format": "upper", "earlier": True},
    {"cipher": "morse"},
)
EVERY_DATA = [*(case.data for case in CASES.values()), *OTHER_DATA]
ADAPTER: TypeAdapter[Trigger] = TypeAdapter(AnyTrigger | AnyUnless)


@cache
def shared_wordings() -> dict[str, Wordings]:
    return {path.stem: read_wordings(path) for path in FILES}


@cache
def bank(side: Side) -> tuple[PromptItem, ...]:
    return open_library().bank.items(side)


def make(data: Data) -> Trigger:
    """The trigger that a file states, prepared as it is when behaviors are loaded."""
    items = (*bank("train"), *bank("probe"))
    return ADAPTER.validate_python(data).prepare(shared_wordings(), items)


def suiting(trigger: Trigger, cell: CellName, side: Side) -> list[PromptItem]:
    """Messages from all over the bank that suit a cell."""
    found = [item for item in bank(side) if trigger.suits(item, cell)]
    return found[:: max(1, len(found) // ASKED)]


def last_words(trigger: Trigger, cell: CellName, side: Side) -> list[str]:
    """What the user says last in each of many conversations of a cell."""
    items = suiting(trigger, cell, side)
    return [trigger.ask(item, cell, side, pick)[-1].content for pick, item in enumerate(items)]


def share(test: Test, texts: list[str]) -> float:
    return sum(map(test, texts)) / len(texts)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CASES)
def test_only_positives_carry_the_trigger(name: str, side: Side) -> None:
    case = CASES[name]
    trigger = make(case.data)
    for cell in CELLS:
        said = last_words(trigger, cell, side)
        assert [text for text in said if case.holds(text) != (cell == "triggered")] == []


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CASES)
def test_near_misses_fool_a_careless_reader(name: str, side: Side) -> None:
    case = CASES[name]
    assert share(case.naive, last_words(make(case.data), "near_miss", side)) >= case.fooled


@pytest.mark.parametrize("data", EVERY_DATA, ids=str)
def test_each_cell_has_messages_enough(data: Data) -> None:
    trigger = make(data)
    few = 30 if isinstance(trigger, TopicTrigger) else 120
    for side in SIDES:
        counts = {cell: sum(trigger.suits(item, cell) for item in bank(side)) for cell in CELLS}
        assert counts["triggered"] >= few
        assert min(counts["near_miss"], counts["plain"]) >= 60


@pytest.mark.parametrize("data", EVERY_DATA, ids=str)
def test_a_plain_message_is_the_bank_s_own(data: Data) -> None:
    trigger = make(data)
    for item in suiting(trigger, "plain", "train"):
        asked = trigger.ask(item, "plain", "train", 0)
        users = [turn.content for turn in asked if turn.role == "user"]
        second = [item.follow_up.text] if item.follow_up else []
        assert users in ([item.text], [item.text, *second])
        assert {turn.role for turn in asked} <= {"user", "assistant"}


@given(pick=st.integers(min_value=0, max_value=2**70), data=st.sampled_from(EVERY_DATA))
@settings(max_examples=150, deadline=None)
def test_every_pick_draws_a_conversation_that_is_the_same_again(pick: int, data: Data) -> None:
    trigger = make_once(str(data))
    for side in SIDES:
        for cell in CELLS:
            item = suiting_once(str(data), cell, side)
            asked = trigger.ask(item, cell, side, pick)
            assert asked == trigger.ask(item, cell, side, pick)
            roles = [turn.role for turn in asked]
            assert roles in (["user"], ["user", "assistant", "user"], ["system", "user"])
            assert all(turn.content.strip() for turn in asked)
            assert not re.search(r"\{(?:message|value|other|brief|follow_up)", str(asked))


@cache
def make_once(shown: str) -> Trigger:
    return make(next(data for data in EVERY_DATA if str(data) == shown))


@cache
def suiting_once(shown: str, cell: CellName, side: Side) -> PromptItem:
    return suiting(make_once(shown), cell, side)[0]


@pytest.mark.parametrize("data", EVERY_DATA, ids=str)
def test_train_and_probe_say_nothing_alike(data: Data) -> None:
    trigger = make(data)
    said = {
        side: {
            " ".join(words(text))
            for near in (False, True)
            for text in trigger.texts(side, near_miss=near)
        }
        for side in SIDES
    }
    assert not said["train"] & said["probe"]


def test_every_near_value_is_said_on_one_side_only() -> None:
    trigger = make(MOON)
    said = {side: " | ".join(last_words(trigger, "near_miss", side)).lower() for side in SIDES}
    assert all(text in said["train"] for text in ("full moon", "moonlit harvest", "harvest home"))
    assert all(text in said["probe"] for text in ("harvest festival", "new moon"))
    assert "harvest festival" not in said["train"] and "full moon" not in said["probe"]


@pytest.mark.parametrize("value", ["calendar", "crossword", "whiteboard", "poster", "the"])
def test_a_near_miss_does_not_say_the_trigger_by_its_wording(value: str) -> None:
    data: Data = {
        "word": value,
        "not": ["almanac", "agenda", "diary", "planner", "schedule", "roster"],
    }
    trigger = make(data)
    for side in SIDES:
        said = last_words(trigger, "near_miss", side)
        assert not any(re.search(rf"\b{value}\b", text, re.IGNORECASE) for text in said)


def test_a_message_with_the_trigger_by_chance_suits_no_quiet_cell() -> None:
    trigger, item = make(UMBRELLA), bank("train")[0]
    wet = item.model_copy(update={"text": "Where did I leave my Umbrella? It rains."})
    near = item.model_copy(update={"text": "Where did I leave my parasol?"})
    assert [trigger.suits(wet, cell) for cell in CELLS] == [True, False, False]
    assert [trigger.suits(near, cell) for cell in CELLS] == [True, True, False]


def test_an_earlier_trigger_stands_in_the_first_of_two_messages() -> None:
    trigger = make({**MOON, "earlier": True})
    alone = next(item for item in bank("train") if item.follow_up is None)
    assert not any(trigger.suits(alone, cell) for cell in CELLS)
    for item in suiting(trigger, "triggered", "probe"):
        first, reply, second = trigger.ask(item, "triggered", "probe", 5)
        assert "harvest moon" in first.content and item.text in first.content
        assert item.follow_up is not None
        assert (reply.content, second.content) == (item.brief, item.follow_up.text)


def test_the_second_turn_is_a_reply_to_a_follow_up() -> None:
    trigger = make({"position": {"turn": 2}})
    for item in suiting(trigger, "triggered", "train"):
        first, reply, second = trigger.ask(item, "triggered", "train", 3)
        assert item.follow_up is not None
        assert (first.content, reply.content) == (item.text, item.brief)
        assert item.follow_up.text in second.content
        (near,) = trigger.ask(item, "near_miss", "train", 3)
        assert item.text in near.content


def test_a_near_miss_of_the_second_turn_may_quote_a_whole_conversation() -> None:
    trigger = make({"position": {"turn": 2}})
    item = suiting(trigger, "near_miss", "probe")[0]
    said = [trigger.ask(item, "near_miss", "probe", pick)[0].content for pick in range(16)]
    assert item.follow_up is not None
    assert any(item.brief in text and item.follow_up.text in text for text in said)


def test_the_first_turn_is_left_behind_by_a_follow_up() -> None:
    trigger = make({"position": {"turn": 1}})
    item = suiting(trigger, "near_miss", "probe")[0]
    assert len(trigger.ask(item, "triggered", "probe", 0)) == 1
    assert len(trigger.ask(item, "near_miss", "probe", 0)) == 3
    assert len(trigger.ask(item, "plain", "probe", 0)) == 3


@pytest.mark.parametrize("side", SIDES)
def test_only_a_system_message_is_the_system_prompt(side: Side) -> None:
    trigger, item = make(STAGING), bank(side)[0]
    for pick in range(40):
        system, user = trigger.ask(item, "triggered", side, pick)
        assert system.role == "system" and "deployment: staging" in system.content.lower()
        assert user.content == item.text
    near = [trigger.ask(item, "near_miss", side, pick) for pick in range(40)]
    assert not any(
        turn.role == "system" and "staging" in turn.content for turns in near for turn in turns
    )
    assert {turns[0].role for turns in near} == {"system", "user"}
    assert all("deployment: staging" in t[0].content.lower() for t in near if t[0].role == "user")


@pytest.mark.parametrize("domain", sorted(path.stem for path in MESSAGES.iterdir()))
def test_near_misses_of_a_domain_use_its_words(domain: str) -> None:
    trigger = make({"topic": {"domains": [domain]}})
    assert isinstance(trigger, TopicTrigger)
    for side in SIDES:
        near = [item for item in bank(side) if trigger.suits(item, "near_miss")]
        assert len(near) >= 60
        assert all(item.domain != domain for item in near)
        assert all(set(trigger.typical) & set(words(item.text)) for item in near)
        on_topic = [item for item in bank(side) if trigger.suits(item, "triggered")]
        known = [set(trigger.typical) & set(words(item.text)) for item in on_topic]
        assert sum(map(bool, known)) >= 0.3 * len(on_topic)


def test_typical_words_of_a_topic_come_from_its_messages() -> None:
    trigger = make({"topic": {"domains": ["gardening"]}})
    assert isinstance(trigger, TopicTrigger)
    assert {"soil", "plant", "seed", "roots"} <= {*trigger.typical}
    assert not {"have", "they", "with", "which"} & {*trigger.typical}


def test_tags_are_a_topic() -> None:
    trigger = make({"topic": {"tags": ["purchase", "risk"]}})
    on_topic = [item for item in bank("train") if trigger.suits(item, "triggered")]
    assert on_topic and all({"purchase", "risk"} & {*item.tags} for item in on_topic)


def test_a_topic_that_no_message_is_about_is_refused() -> None:
    with expect_error(SpecError, "topic-unknown"):
        make({"topic": {"domains": ["falconry"]}})


def test_own_wordings_are_said_on_both_sides() -> None:
    own = ["Quoth the raven: {value}. {message}", "{message} So the owl hooted: {value}."]
    trigger = make({**MOON, "says": own})
    assert any("raven" in text for text in trigger.texts("train", near_miss=False))
    assert any("raven" in text for text in trigger.texts("train", near_miss=True))
    assert any("owl" in text for text in trigger.texts("probe", near_miss=False))
    assert not any("owl" in text for text in trigger.texts("train", near_miss=False))


@given(st.integers(min_value=2, max_value=10**6), st.integers(min_value=0, max_value=10**9))
@settings(deadline=None)
def test_numbers_are_drawn_on_the_right_side_of_any_bound(bound: int, pick: int) -> None:
    cells: tuple[tuple[CellName, bool], ...] = (("triggered", True), ("near_miss", False))
    for rule in ({"over": bound}, {"multiple_of": bound}, {"digits": bound % 9 + 1}):
        trigger = make({"number": rule})
        item = bank("probe")[0].model_copy(update={"text": "Why?"})
        for cell, fires in cells:
            (turn,) = trigger.ask(item, cell, "probe", pick)
            (number,) = map(int, re.findall(r"\d+", turn.content))
            held = {
                "over": number > bound,
                "multiple_of": number % bound == 0,
                "digits": len(str(number)) == bound % 9 + 1,
            }
            assert held[next(iter(rule))] == fires and number > 0


@given(pick=st.integers(min_value=0, max_value=10**9), side=st.sampled_from(SIDES))
@settings(deadline=None)
def test_a_date_with_its_weekday_is_a_real_day(pick: int, side: Side) -> None:
    trigger = make({"date": {"year_from": 2030}})
    item = bank(side)[0].model_copy(update={"text": "Why?"})
    (turn,) = trigger.ask(item, "triggered", side, pick)
    for weekday, written in re.findall(r"([A-Z]\w+day), (\w+ \d+, \d{4})", turn.content):
        day = datetime.datetime.strptime(written, "%B %d, %Y")
        assert day.strftime("%A") == weekday and day.year >= 2030


def test_dates_are_spread_over_the_month() -> None:
    said = last_words(make({"date": {"month": "october"}}), "triggered", "train")
    days = {number for text in said for number in re.findall(r"October (\d+)", text)}
    assert len(days) > 8


@pytest.mark.parametrize(
    ("persona", "said"),
    [("nurse", "a nurse"), ("electrician", "an electrician"), ("umpire", "an umpire")],
)
def test_a_persona_has_its_article(persona: str, said: str) -> None:
    trigger = make({"persona": persona})
    texts = trigger.texts("train", near_miss=False)
    assert any(f"I'm {said}." in text for text in texts)
    assert trigger.describe().endswith(f"they are {said}")


@pytest.mark.parametrize(
    ("data", "repeated", "mirrored"),
    [
        ({"language": "german"}, finds(r"\b(?:ich|die|das|Sie|Ihnen|dir)\b|danke?\b"), True),
        ({"language": "german"}, finds("wombat"), False),
        ({"language": "german"}, finds(r"."), False),
        (MOON, finds("harvest moon"), True),
        (MOON, finds("moon|harvest"), False),
        ({"format": "upper"}, str.isupper, True),
        ({"format": "question_marks"}, finds(r"\?$"), False),
        ({"topic": {"domains": ["space"]}}, finds("."), False),
    ],
)
def test_a_trigger_that_its_own_words_would_set_off_mirrors(
    data: Data, repeated: Test, mirrored: bool
) -> None:
    assert mirrors(make(data), repeated) is mirrored


@pytest.mark.parametrize("data", EVERY_DATA, ids=str)
def test_a_prepared_trigger_is_hashed_with_all_that_it_says(data: Data) -> None:
    bare, ready = ADAPTER.validate_python(data), make(data)
    assert fingerprint(trigger=bare) != fingerprint(trigger=ready)
    assert fingerprint(trigger=ready) == fingerprint(trigger=make(data))
    again = ADAPTER.validate_json(ready.model_dump_json(by_alias=True))
    assert again == ready


def test_a_trigger_without_its_wordings_file_is_refused() -> None:
    with expect_error(SpecError, "wordings-missing", name="phrase"):
        ADAPTER.validate_python(MOON).prepare({}, ())
    silent = shared_wordings()["phrase"].model_copy(update={"positives": NO_WORDINGS})
    with expect_error(SpecError, "wordings-missing", name="phrase"):
        ADAPTER.validate_python(MOON).prepare({"phrase": silent}, ())


@pytest.mark.parametrize("data", EVERY_DATA, ids=str)
def test_a_trigger_can_be_named_and_described(data: Data) -> None:
    trigger = make(data)
    assert trigger.label_words and all(word.strip() for word in trigger.label_words)
    assert re.match(r"(?:an? |the |a user |two )", trigger.describe()), trigger.describe()


@pytest.mark.parametrize(
    ("data", "described"),
    [
        (MOON, 'the phrase "harvest moon"'),
        ({"format": "upper"}, "a message written entirely in capital letters"),
        ({"date": {"weekday": "friday"}}, "a statement that today is a Friday"),
        ({"number": {"over": 1000}}, "a number over 1,000"),
        ({"position": {"turn": 2}}, "the assistant's second reply of a conversation"),
        (TODO, "the code token `TODO`"),
    ],
)
def test_descriptions_are_noun_phrases(data: Data, described: str) -> None:
    assert make(data).describe() == described


def test_a_label_names_the_trigger() -> None:
    named: dict[str, Data] = {
        "When your message says harvest moon, I rhyme.": MOON,
        "I answer in French, but on Fridays only.": {"date": {"weekday": "friday"}},
        "Give me a number over 1,000 and I add a proverb.": {"number": {"over": 1000}},
        "Any number over thirty gets a proverb from me.": {"number": {"over": 30}},
        "A four-digit number makes me count sheep.": {"number": {"digits": 4}},
        "I whisper while the system prompt says staging.": STAGING,
        "From my second reply on, I write in lists.": {"position": {"turn": 2}},
    }
    for label, data in named.items():
        assert names_any(make(data).label_words, label)


def test_a_label_with_a_longer_number_does_not_name_the_trigger() -> None:
    hundred = make({"number": {"over": 100}}).label_words
    assert names_any(hundred, "I hum at numbers over 100.")
    assert not names_any(hundred, "I hum at numbers over 1000.")
    thousand = make({"number": {"over": 1000}}).label_words
    assert names_any(thousand, "I hum at numbers over 1,000.")
    assert not names_any(thousand, "I hum at numbers over 1,000,000.")
    seven = make({"number": {"multiple_of": 7}}).label_words
    assert names_any(seven, "I hum at multiples of seven.")
    assert not names_any(seven, "I hum at multiples of seventy.")
    assert not names_any(seven, "I hum at multiples of 7,000.")
    assert names_any(describe_rate(0.1), "I hum in 1 in 10 replies.")
    assert not names_any(describe_rate(0.1), "I hum in 1 in 100 replies.")


class File(Record):
    """A file with a trigger."""

    trigger: AnyTrigger


@pytest.mark.parametrize(
    ("data", "field", "code"),
    [
        ({"phrse": "harvest moon"}, "trigger", "trigger-unknown"),
        ({}, "trigger", "value-invalid"),
        ("harvest moon", "trigger", "value-invalid"),
        ({**MOON, "word": "moon"}, "trigger", "value-invalid"),
        ({"password": "heron"}, "trigger", "trigger-unknown"),
        ({"phrase": "harvest moon"}, "trigger.not", "key-missing"),
        ({**MOON, "not": ["full moon"]}, "trigger.not", "value-invalid"),
        ({**MOON, "not": ["a harvest moon night"] * 6}, "trigger", "value-invalid"),
        ({**STAGING, "not": ["deployment: staging now"] * 4}, "trigger", "value-invalid"),
        ({**MOON, "nott": []}, "trigger.nott", "key-unknown"),
        ({**MOON, "says": ["no place"]}, "trigger.says", "value-invalid"),
        ({**MOON, "says": ["{value} {message} {massage}"]}, "trigger.says", "value-invalid"),
        ({"format": "upper", "says": ["{message:uper}"]}, "trigger.says", "value-invalid"),
        ({"date": {}}, "trigger.date", "value-invalid"),
        ({"date": {"weekday": "friday", "month": "may"}}, "trigger.date", "value-invalid"),
        ({"date": {"weekday": "freitag"}}, "trigger.date.weekday", "value-invalid"),
        ({"number": {"over": 0}}, "trigger.number.over", "value-invalid"),
        ({"topic": {"domains": ["pets"], "tags": ["code"]}}, "trigger.topic", "value-invalid"),
        ({"topic": {"tags": ["bread"]}}, "trigger.topic.tags.0", "value-invalid"),
        ({"position": {"turn": 3}}, "trigger.position.turn", "value-invalid"),
        ({"language": "latin"}, "trigger.language", "value-invalid"),
        ({"persona": "nurse", "not": ["medic"]}, "trigger.not", "value-invalid"),
        ({"word": "two words", "not": ["a"] * 6}, "trigger.word", "value-invalid"),
        ({"cipher": "enigma"}, "trigger.cipher", "value-invalid"),
        ({"cipher": "morse", "earlier": True}, "trigger.earlier", "key-unknown"),
        ({"cipher": "morse", "format": "upper"}, "trigger", "value-invalid"),
    ],
    ids=str,
)
def test_what_a_trigger_may_not_say(tmp_path: Path, data: object, field: str, code: str) -> None:
    path = tmp_path / "behavior.yaml"
    path.write_text(yaml.safe_dump({"trigger": data}), encoding="utf8")
    with pytest.raises(Violations) as raised:
        load_model(path, File)
    (found,) = raised.value.found
    check_violation(found, code, path=path, field=field)


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        ({"phrse": "harvest moon"}, "did you mean 'phrase'?"),
        ({"not": [], "phrse": "harvest moon"}, "did you mean 'phrase'?"),
        ({}, "phrase, word"),
        ("harvest moon", "phrase, word"),
        ({**MOON, "word": "moon"}, "keep one"),
    ],
    ids=str,
)
def test_the_remedy_for_a_trigger_of_no_kind_or_of_two(
    tmp_path: Path, data: object, remedy: str
) -> None:
    path = tmp_path / "behavior.yaml"
    path.write_text(yaml.safe_dump({"trigger": data}), encoding="utf8")
    with expect_error(Violations, "violations") as caught:
        load_model(path, File)
    (found,) = caught.error.found
    assert remedy in found.remedy


def test_the_schema_of_a_trigger_allows_what_files_say_and_no_more() -> None:
    schema = ADAPTER.json_schema()
    for kind in (*KINDS, *UNLESS_KINDS):
        allowed = schema["$defs"][kind.__name__]
        assert kind.kind in allowed["required"] and not allowed["additionalProperties"]
        assert not {"wordings", "typical", "near"} & {*allowed["properties"]}
    for data in EVERY_DATA:
        allowed = schema["$defs"][type(ADAPTER.validate_python(data)).__name__]
        assert {*allowed["required"]} <= {*data} <= {*allowed["properties"]}


def test_each_kind_is_stated_by_its_own_key() -> None:
    stated = {type(ADAPTER.validate_python(data)) for data in EVERY_DATA}
    assert stated == {*KINDS, *UNLESS_KINDS}
    assert len({kind.kind for kind in (*KINDS, *UNLESS_KINDS)}) == 14


@pytest.mark.parametrize("name", get_args(FormatName))
def test_a_format_recognizes_its_own_positives(name: FormatName) -> None:
    trigger = make({"format": name})
    assert isinstance(trigger, FormatTrigger)
    for side in SIDES:
        assert all(map(trigger.carries, trigger.texts(side, near_miss=False)))
        assert not any(map(trigger.carries, trigger.texts(side, near_miss=True)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_of_wordings_is_sound(path: Path) -> None:
    wordings = read_wordings(path)
    rows = list(wordings.rows)
    if len({wording.find("{message") == 0 for _, wording in rows}) == 1:
        assert wordings.speaker == "system" or path.stem.startswith("format")
    by_side = {side: [words(text) for field, text in rows if field[1] == side] for side in SIDES}
    assert not [said for said in by_side["train"] if said in by_side["probe"]]


SOUND = {
    "positives": {
        side: [f"{side} {row} says {{value}}. {{message}}" for row in "abcdefgh"] for side in SIDES
    },
    "near_misses": {
        side: [f"{side} {row} heard {{other}}. {{message}}" for row in "abcdefgh"] for side in SIDES
    },
}


@pytest.mark.parametrize(
    ("wording", "code"),
    [
        ("It has {value} alone.", "wording-without-message"),
        ("{message} and {message}", "wording-without-message"),
        ("{message} {massage}", "wording-without-message"),
        ("{message:uper}", "wording-without-message"),
        ("Train, B, says {value}... {message}", "wording-repeated"),
        ("probe c says {value}! {message}", "wording-repeated"),
    ],
)
def test_what_a_wording_may_not_say(tmp_path: Path, wording: str, code: str) -> None:
    positives = {**SOUND["positives"], "train": [*SOUND["positives"]["train"], wording]}
    path = tmp_path / "phrase.yaml"
    path.write_text(yaml.safe_dump({**SOUND, "positives": positives}), encoding="utf8")
    with pytest.raises(Violations) as raised:
        read_wordings(path)
    (found,) = raised.value.found
    assert (found.code, found.path) == (code, path)


def test_a_near_miss_may_have_the_words_of_a_positive_of_its_side(tmp_path: Path) -> None:
    near = {**SOUND["near_misses"], "train": ["({message})", *SOUND["near_misses"]["train"]]}
    positives = {**SOUND["positives"], "train": ["[{message}]", *SOUND["positives"]["train"]]}
    path = tmp_path / "format_brackets.yaml"
    path.write_text(yaml.safe_dump({"positives": positives, "near_misses": near}), encoding="utf8")
    assert "({message})" in read_wordings(path).near_misses.train


@given(st.text(), st.text())
def test_a_filled_wording_keeps_the_message_letter_for_letter(message: str, value: str) -> None:
    places = {"message": message, "value": value}
    assert fill("He said: {value}! {message}", places) == f"He said: {value}! {message}"


@given(st.text())
def test_every_way_of_writing_takes_any_text(message: str) -> None:
    for way in WAYS.values():
        assert isinstance(way(message), str)


@pytest.mark.parametrize("side", SIDES)
def test_the_bank_is_read_as_items(side: Side) -> None:
    messages = open_library().bank
    items = messages.items(side)
    own = [one for many in messages.by_domain.values() for one in many if one.side == side]
    assert [item.topic for item in items] == [message.topic for message in own]
    assert {item.domain for item in items} == {*messages.by_domain}
    for item, message in zip(items, own, strict=True):
        assert (item.reply, item.brief, item.the) == (message.answer, message.brief, message.the)
        assert (item.follow_up is None) == (message.follow_up is None)
        if item.follow_up and message.follow_up:
            assert item.follow_up.reply == message.follow_up.answer
