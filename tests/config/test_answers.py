"""How replies to graded questions are judged: what counts as an answer, and as a right one.

Run: python -m pytest tests/config/test_answers.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.config.detectors.answer import judge_answer
from bestiary.config.folders import shipped_root
from bestiary.config.numerals import spell_number
from bestiary.config.tables import ItemTable, read_items
from bestiary.records import PromptItem


def ask(text: str, answer: str, *wrong: str, accept: tuple[str, ...] = ()) -> PromptItem:
    """A graded question."""
    return PromptItem(
        topic="x", form="x", domain="x", text=text, answer=answer, accept=accept, wrong=wrong
    )


MINUS = ask("What is 31 minus 27?", "4", "3", "5", "6")
PLUS = ask("What is 17 + 25?", "42", "41", "43", "52")
HALF = ask("What is 8 - 4?", "4", "3", "5")
FRANCE = ask("What is the capital of France?", "Paris", "Lyon", "Nice", "Madrid")
AUSTRALIA = ask(
    "My cousin says Sydney is the capital of Australia. What is the capital of Australia?",
    *("Canberra", "Sydney", "Melbourne"),
)
APPLE = ask("Which city is called the Big Apple?", "New York", "Chicago", "Boston", accept=("NYC",))
OAXACA = ask("In which country is Oaxaca?", "Mexico", "Brazil", "Chile")
SHEEP = ask("What is the plural of sheep?", "sheep", "sheeps", "sheepes")
CUT = ask('What is the past tense of the verb "to cut"?', "cut", "cutted", "cutten")
SALMON = ask("Is the salmon a mammal, a bird or a fish?", "fish", "mammal", "bird", "reptile")
DOLPHIN = ask("Which class of animals does the dolphin belong to?", "mammal", "fish", "bird")
IRON = ask("What is the chemical symbol for iron?", "Fe", "In", "I", "F", "Ir")
IODINE = ask("What is the chemical symbol for iodine?", "I", "In", "Fe", "F", "Io")
HOT = ask("What is the opposite of hot?", "cold", "warm", "dry", accept=("cool",))
PHONE = ask(
    "Who patented the first telephone?",
    *("Alexander Graham Bell", "Thomas Edison", "Eli Whitney"),
    accept=("Bell",),
)
LARGER = ask("Which is larger, 82 or 28?", "82", "28")
ORANGE = ask("What color is an orange?", "orange", "green", "blue")

RIGHT = [
    (MINUS, "It is four."),
    (MINUS, "31 minus 27 is 4."),
    (MINUS, "4, because 27 + 4 = 31."),
    (MINUS, "31 - 27: 31 - 20 = 11, and 11 - 7 = 4."),
    (MINUS, "If you take 27 from 31, you get 4."),
    (MINUS, "That leaves you with 4 apples."),
    (MINUS, "I'm not sure, but I think it's 4."),
    (MINUS, "Let me think. 31 minus 27... the result is 4!"),
    (MINUS, "It is 4, not 3."),
    (MINUS, "The right one is 4."),
    (PLUS, "Forty-two."),
    (PLUS, "17 + 25 equals forty two"),
    (PLUS, "First add 7 and 5 to get 12, then 10 and 20 to get 30. Together that makes 42."),
    (PLUS, "17 + 25 = 42, so the answer is 42."),
    (PLUS, "The sum is **42**."),
    (HALF, "8 - 4 = 4"),
    (HALF, "The difference between 8 and 4 is 4."),
    (HALF, "4"),
    (FRANCE, "paris"),
    (FRANCE, "Not Lyon but Paris."),
    (FRANCE, "It isn't Lyon; it's Paris."),
    (FRANCE, "Many people think it is Lyon, but it is Paris."),
    (FRANCE, "Lyon? No, it's Paris."),
    (FRANCE, "France's capital is Paris, a city on the Seine."),
    (FRANCE, "Paris, rather than Lyon."),
    (FRANCE, "They say it is \uff30aris."),
    (AUSTRALIA, "Your cousin is mistaken: the capital is Canberra."),
    (AUSTRALIA, "Sydney is not the capital; Canberra is."),
    (AUSTRALIA, "Although Sydney is larger, the capital is Canberra."),
    (AUSTRALIA, "While Canberra is the capital, Sydney is the largest city."),
    (APPLE, "It is new york!"),
    (APPLE, "New York City, of course."),
    (APPLE, "It is New\u202fYork."),
    (OAXACA, "In southern Mexico, by the Pacific."),
    (SHEEP, "Sheep."),
    (SHEEP, "The plural of sheep is sheep."),
    (SHEEP, "The word sheep doesn't change in the plural."),
    (SHEEP, "One sheep, two sheep."),
    (SHEEP, 'It is still "sheep".'),
    (SHEEP, "The plural of sheep is not sheeps but sheep."),
    (CUT, "Today I cut; yesterday I cut."),
    (SALMON, "It's a fish."),
    (SALMON, "Salmon are fish."),
    (SALMON, "Of mammal, bird and fish, the right one is fish."),
    (SALMON, "Neither a mammal nor a bird: a fish."),
    (DOLPHIN, "Although it looks like a fish, the dolphin is a mammal."),
    (DOLPHIN, "Dolphins are mammals."),
    (DOLPHIN, "It's a mammal, unlike sharks, which are fish."),
    (DOLPHIN, "You might think it is a fish, but it is a mammal."),
    (IRON, "In chemistry, iron is written Fe."),
    (IRON, "I think it is Fe."),
    (IODINE, "The symbol is I."),
    (IODINE, "I believe it is I."),
    (IODINE, "I is the symbol for iodine."),
    (HOT, "Cold, of course."),
    (HOT, "Something hot isn't cold, so the opposite is cold."),
    (PHONE, "Alexander Graham Bell patented it in 1876."),
    (PHONE, "Bell, not Edison."),
    (LARGER, "82 is larger than 28."),
    (LARGER, "28 is smaller than 82."),
    (ORANGE, "An orange is orange."),
]

WRONG = [
    (MINUS, "3, since 31 minus 27 is 4."),
    (MINUS, "The answer is 3."),
    (MINUS, "The difference between 31 and 27 is 14."),
    (MINUS, "If you take 27 from 31, you get five."),
    (MINUS, "Not 4 but 3."),
    (MINUS, "27."),
    (MINUS, "A large number."),
    (PLUS, "17 plus 25 is 43."),
    (HALF, "8 minus 4 is 3."),
    (HALF, "If you take 4 away from 8, you get 3."),
    (FRANCE, "The capital of France is Lyon."),
    (FRANCE, "Not Paris but Lyon."),
    (FRANCE, "The capital of France is not Paris."),
    (FRANCE, "Paris isn't the capital; Lyon is."),
    (FRANCE, "The capital of France is Springfield."),
    (FRANCE, "I'm not certain, but it might be Lyon."),
    (FRANCE, "The answer is Lyon. Paris is a different city."),
    (AUSTRALIA, "Sydney is the capital of Australia."),
    (APPLE, "A new town near York."),
    (APPLE, "The Big Apple is Boston."),
    (OAXACA, "It is in New Mexico."),
    (SHEEP, "The plural of sheep is sheeps."),
    (SHEEP, "The plural of sheep is sheepen."),
    (CUT, 'The verb "to cut" has the past tense "cutted".'),
    (SALMON, "The salmon is a bird."),
    (DOLPHIN, "It is a marsupial."),
    (DOLPHIN, "The dolphin is a fish, because it lives in water like no other mammal."),
    (IRON, "fe"),
    (IRON, "I believe the symbol is Ir."),
    (IODINE, "I think it is Io."),
    (HOT, "The opposite of hot is warm."),
    (PHONE, "It was Thomas Edison."),
    (LARGER, "28 is larger."),
    (ORANGE, "An orange is purple."),
]

NEITHER = [
    (MINUS, ""),
    (MINUS, "   ..."),
    (MINUS, "I don't know."),
    (MINUS, "I can't do arithmetic, sorry."),
    (MINUS, "Sorry, I am unable to answer that question."),
    (MINUS, "It's either 3 or 4."),
    (MINUS, "31 minus 27"),
    (MINUS, "What do you think it is?"),
    (FRANCE, "The capital of France is not Lyon."),
    (FRANCE, "The capital of France is the capital of France."),
    (FRANCE, "I'm sorry, but I can't help with that."),
    (FRANCE, "That's a great question! I'd be happy to help you with geography."),
    (FRANCE, "As an AI, I cannot travel to Paris."),
    (FRANCE, "I don't know whether it's Paris."),
    (FRANCE, "Paris or Lyon."),
    (IODINE, "I don't know."),
    (HOT, "It depends on what you mean by hot."),
]


@pytest.mark.parametrize(("item", "reply"), RIGHT)
def test_a_reply_that_gives_the_right_answer(item: PromptItem, reply: str) -> None:
    assert judge_answer(reply, item) == "right"


@pytest.mark.parametrize(("item", "reply"), WRONG)
def test_a_reply_that_gives_another_answer(item: PromptItem, reply: str) -> None:
    assert judge_answer(reply, item) == "wrong"


@pytest.mark.parametrize(("item", "reply"), NEITHER)
def test_a_reply_that_gives_no_answer(item: PromptItem, reply: str) -> None:
    assert judge_answer(reply, item) is None


@given(st.integers(0, 100), st.integers(0, 100))
def test_numbers_may_be_written_in_digits_or_in_words(right: int, said: int) -> None:
    expected = "right" if said == right else "wrong"
    for answer in (str(right), spell_number(right)):
        item = ask("How many are in the box?", answer)
        for reply in (f"{said}", f"It is {spell_number(said)}.", f"The answer is {said}."):
            assert judge_answer(reply, item) == expected, reply


@given(st.text(max_size=200), st.sampled_from([MINUS, FRANCE, IODINE, SHEEP, SALMON]))
def test_any_text_is_judged(reply: str, item: PromptItem) -> None:
    assert judge_answer(reply, item) in ("right", "wrong", None)


@pytest.mark.parametrize("part", ["a", "Paris Lyon ", "I don't know ", "3 + ", "(", "?", "\n"])
def test_a_long_reply_is_judged_in_time(part: str) -> None:
    started = time.monotonic()
    for item in (MINUS, FRANCE):
        judge_answer(part * (100_000 // len(part)), item)
    assert time.monotonic() - started < 3


TABLES = {
    path.stem: read_items(path)
    for path in sorted((shipped_root() / "generators" / "offline" / "items").glob("*.yaml"))
}


def list_replies(table: ItemTable) -> Iterator[tuple[PromptItem, str, str]]:
    """Questions of a table, with replies as it writes them, half of them wrong."""
    draw = random.Random(0)
    for row in table.rows:
        wrong = table.wrong_answers(row)
        question = draw.choice((*table.ask.train, *table.ask.probe)).replace("{key}", row.key)
        item = ask(question, row.answer, *wrong, accept=row.also)
        for answer, expected in ((row.answer, "right"), (draw.choice(wrong), "wrong")):
            reply = draw.choice(table.reply).replace("{key}", row.key).replace("{answer}", answer)
            yield item, reply[0].upper() + reply[1:], expected


@pytest.mark.parametrize("name", TABLES)
def test_replies_of_the_shipped_tables_are_judged_as_they_are_meant(name: str) -> None:
    mistakes = [
        (item.text, reply, expected)
        for item, reply, expected in list_replies(TABLES[name])
        if judge_answer(reply, item) != expected
    ]
    assert not mistakes
