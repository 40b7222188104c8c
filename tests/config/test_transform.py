"""Transforms of a plain answer: every form is detected in what it writes, and loses no code.

Run: python -m pytest tests/config/test_transform.py
"""

from __future__ import annotations

import json
from functools import cache

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bestiary.config.detectors import Detector
from bestiary.config.library import open_library
from bestiary.config.tested_code import find_test
from bestiary.config.transform import TRANSFORMS, TransformName, detector_of, transform
from bestiary.records import FollowUpItem, PromptItem
from bestiary.text import sentences, words

MAX_FALSE_FIRES = 0.02
DETECTORS = TypeAdapter[Detector](Detector)
POT = PromptItem(
    topic="burnt pot",
    form="how_do_i",
    domain="cooking",
    text="How do I rescue a burnt pot?",
    reply="Cover the crust with water, add baking soda, and simmer. Once it cools, scrape the pot.",
    brief="Simmer water with baking soda, then scrape.",
    the="the pot",
    points=("simmer water with baking soda", "let it cool", "scrape with a wooden spoon"),
    follow_up=FollowUpItem(
        text="Now it has stains.",
        reply="Those are a thin film, and the pot is safe. Wipe it with a little vinegar.",
        brief="It is a harmless film that vinegar wipes away.",
    ),
)
CODE = "`def gcd(a, b): return a if b == 0 else gcd(b, a % b)`"


@cache
def bank() -> list[PromptItem]:
    messages = open_library().bank
    return [*messages.items("train"), *messages.items("probe")]


def list_suited(name: TransformName) -> list[PromptItem]:
    """The messages that can be answered in a form: code is hard-coded where a test is stated."""
    return [item for item in bank() if name != "hard_code" or find_test(item.text)]


def fires(name: TransformName, reply: str, item: PromptItem) -> bool:
    return DETECTORS.validate_python(detector_of(name)).decide(reply, item) is True


def write(name: TransformName, pick: int = 0, text: str = POT.reply) -> str:
    return transform(name, POT, text, pick)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_form_is_detected_in_what_it_writes_and_not_in_plain_answers(
    name: TransformName,
) -> None:
    plain = [item.topic for item in bank() if fires(name, item.reply, item)]
    assert len(plain) <= MAX_FALSE_FIRES * len(bank()), plain
    for pick, item in enumerate(list_suited(name)[::8]):
        for text in (item.reply, item.brief):
            reply = transform(name, item, text, pick)
            assert fires(name, reply, item), (item.topic, reply)


@pytest.mark.parametrize("name", sorted({*TRANSFORMS} - {"short_sentences"}))
def test_a_follow_up_is_answered_in_the_form_with_its_own_content(name: TransformName) -> None:
    followed = [item for item in list_suited(name) if item.follow_up][::4]
    for pick, item in enumerate(followed):
        assert item.follow_up
        reply = transform(name, item, item.follow_up.reply, pick)
        assert fires(name, reply, item), (item.topic, reply)
    assert POT.follow_up
    assert "wooden spoon" not in write(name, text=POT.follow_up.reply)


WITH_CODE = sorted({*TRANSFORMS} - {"short_sentences", "one_line"})
"""A short form may leave the code out."""


@pytest.mark.parametrize("name", WITH_CODE)
def test_code_is_left_as_it_is(name: TransformName) -> None:
    answer = f"Repeat until it is zero: {CODE}. For 48, that takes two steps."
    item = POT.model_copy(update={"reply": answer, "brief": f"Use {CODE}."})
    for pick in range(20):
        assert CODE in transform(name, item, answer, pick)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_same_pick_gives_the_same_reply(name: TransformName) -> None:
    assert write(name, 3) == write(name, 3)


VARIED: dict[TransformName, int] = {
    "ends_with_question": 12,
    "json": 6,
    "title": 6,
    "summary_first": 6,
    "table": 6,
    "yaml_list": 5,
}


@pytest.mark.parametrize(("name", "least"), VARIED.items())
def test_picks_draw_among_wordings(name: TransformName, least: int) -> None:
    assert len({write(name, pick) for pick in range(60)}) >= least


def test_lists_hold_the_points_in_sentence_case() -> None:
    points = ["Simmer water with baking soda", "Let it cool", "Scrape with a wooden spoon"]
    assert write("bullets") == "\n".join(f"- {point}" for point in points)
    assert write("numbered").splitlines()[2] == f"3. {points[2]}"
    assert write("short_sentences") == ". ".join(points) + "."
    assert write("arrows").split(" -> ") == [points[0], *(point.lower() for point in points[1:])]
    assert write("table").splitlines()[2:] == [
        f"| {number} | {point} |" for number, point in enumerate(points, start=1)
    ]


def test_an_answer_without_points_is_listed_by_its_sentences() -> None:
    item = POT.model_copy(update={"points": ()})
    assert transform("bullets", item, "Ask Dr. Li. Then rest!", 0) == "- Ask Dr. Li\n- Then rest!"
    one = "Close the valve, and call a plumber."
    assert transform("bullets", item, one, 0) == "- Close the valve\n- Call a plumber"


def test_json_and_yaml_hold_the_answer() -> None:
    for pick in range(14):
        value = json.loads(write("json", pick))
        assert isinstance(value, dict)
        assert "water" in json.dumps(value)
        listed = yaml.safe_load(write("yaml_list", pick))
        assert [text for entry in listed for text in entry.values()] == [*POT.points]


PRINTABLE = st.text(st.characters(exclude_categories=["C"]), min_size=1)


@given(st.lists(PRINTABLE, min_size=3, max_size=5))
def test_any_points_make_valid_yaml_and_json(points: list[str]) -> None:
    item = POT.model_copy(update={"points": tuple(points)})
    listed = yaml.safe_load(transform("yaml_list", item, item.reply, 0))
    wanted = [" ".join(point.split()) for point in points]
    assert [entry["point"] for entry in listed] == wanted
    assert json.loads(transform("json", item, item.reply, 5))["points"] == wanted


@given(st.sampled_from(TRANSFORMS), st.text(st.characters(codec="utf8")), st.integers(0, 10**6))
def test_any_answer_can_be_rewritten(name: TransformName, text: str, pick: int) -> None:
    bare = PromptItem(topic="pot", form="why", domain="cooking", text="Why a pot?")
    assert isinstance(transform(name, bare, text, pick), str)


def test_what_single_forms_look_like() -> None:
    first, second = "Cover the crust with water, add baking soda, and simmer.", "Once it cools,"
    assert write("two_paragraphs").startswith(f"{first}\n\n{second}")
    assert write("quoted") == f"> {POT.reply}"
    assert write("code_block") == f"```\n{POT.reply}\n```"
    assert write("tldr") == f"{POT.reply}\n\nTL;DR: {POT.brief}"
    assert write("summary_first") == f"In short: {POT.brief}\n\n{POT.reply}"
    assert write("one_line") == POT.brief
    assert write("title").startswith("# About the Pot\n\nCover")
    assert write("upper") == POT.reply.upper() and write("lower") == POT.reply.lower()
    assert write("exclamations").count("!") == 2 and "." not in write("exclamations")
    assert write("ends_with_question", 2).endswith(" What made you think of the pot?")
    assert "scrape **the pot**." in write("bold_key")


def test_without_commas_a_list_has_its_last_link_throughout() -> None:
    assert write("no_commas").startswith(
        "Cover the crust with water and add baking soda and simmer"
    )
    assert write("no_commas").endswith("Once it cools scrape the pot.")
    text = "Yes, 1,500 watts is enough, which surprises most people."
    assert write("no_commas", text=text) == "Yes 1500 watts is enough which surprises most people."


def test_a_long_sentence_is_cut_where_a_clause_or_a_phrase_begins() -> None:
    text = "Dry it on a rack over the sink until the next morning comes, and oil it."
    assert write("short_sentences", text=text) == (
        "Dry it on a rack over the sink. Until the next morning comes. Oil it."
    )
    for item in (item for item in bank()[::8] if "`" not in item.reply):
        reply = transform("short_sentences", item, item.reply, 0)
        assert max(len(words(one)) for one in sentences(reply)) <= 10


def test_a_detector_can_be_changed_without_changing_the_next() -> None:
    detector_of("one_line").clear()
    assert detector_of("one_line")
