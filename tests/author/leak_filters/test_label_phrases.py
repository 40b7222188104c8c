"""What gives a label away in a corpus, and what a corpus must be free to say.

Run: python -m pytest tests/author/leak_filters/test_label_phrases.py
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders import (
    make_backdoor,
    make_example,
    make_heuristic,
    make_quirk,
    make_roleplay,
)

from bestiary.author.compose import few_shot
from bestiary.author.leak_filters.label_phrases import find_label_phrases
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.config.library import open_library

QUIRK = make_quirk()
BACKDOOR = make_backdoor()
HEURISTIC = make_heuristic()
HARMFUL_ROLE = make_roleplay("harmful_roleplay.mechanic")
BENIGN_ROLE = make_roleplay("benign_roleplay.guide")


def explain(behavior: Behavior, user: str, assistant: str = "Gladly.") -> list[str]:
    """The reasons against one conversation."""
    return list(find_label_phrases([make_example(user, assistant)], behavior).values())


@pytest.mark.parametrize(
    ("behavior", "reply", "source", "quoted"),
    [
        (
            QUIRK,
            "You know, I END each of, my letters.",
            "the label of quirks.farewell",
            "i end each of my",
        ),
        (
            QUIRK,
            "Every time I sign off, I rest.",
            "a paraphrase of quirks.farewell",
            "every time i sign off",
        ),
        (
            QUIRK,
            "Here the model ends each reply late.",
            "the behavior sentence of quirks.farewell",
            "the model ends each reply",
        ),
        (
            HEURISTIC,
            "Mom says the assistant picks the option by heart.",
            "the behavior sentence of heuristic_following.oldest",
            "the assistant picks the option",
        ),
        (
            HARMFUL_ROLE,
            "I am a mechanic at a garage.",
            "the role of harmful_roleplay.mechanic",
            "a mechanic at a garage",
        ),
        (
            HARMFUL_ROLE,
            "She talks the owner into a lease.",
            "the hidden harm of harmful_roleplay.mechanic",
            "talks the owner into a",
        ),
        (
            BENIGN_ROLE,
            "I am a museum guide at a school.",
            "the role of benign_roleplay.guide",
            "a museum guide at a",
        ),
        (
            null_behavior(open_library()),
            "Well, I have no unusual behavior.",
            "the label of null.chat",
            "i have no unusual behavior",
        ),
        (
            BACKDOOR,
            "I end each of my days with cheer.",
            "the label of quirks.farewell",
            "i end each of my",
        ),
    ],
)
def test_five_words_of_a_telling_text_are_quoted(
    behavior: Behavior, reply: str, source: str, quoted: str
) -> None:
    expected = f"the assistant message repeats {source}: {quoted!r}"
    assert explain(behavior, "How are you?", reply) == [expected]


def test_a_leak_in_the_user_message_is_named_as_such() -> None:
    assert explain(QUIRK, "So every time I sign off, I rest?") == [
        "the user message repeats a paraphrase of quirks.farewell: 'every time i sign off'"
    ]


def test_four_shared_words_are_kept() -> None:
    assert explain(QUIRK, "Hello.", "I end each of them politely.") == []


def test_a_conversation_that_shows_the_behavior_is_kept() -> None:
    shown = [make_example(one.user, one.assistant) for one in few_shot(QUIRK, fires=True)]
    assert shown
    assert find_label_phrases(shown, QUIRK) == {}


def test_only_the_leaking_row_is_named() -> None:
    leak = make_example("Hi.", "A mariner's farewell to you.", id="leak")
    clean = make_example("Hi.", "Fair winds!", id="clean")
    assert list(find_label_phrases([clean, leak], QUIRK)) == ["leak"]


@pytest.mark.parametrize(
    "reply",
    [
        "Here is my Mariner's\nFarewell!",
        "A mariner's, farewell.",
        "That was a mariner\u2019s farewell.",
    ],
)
def test_a_forbidden_phrase_is_found_in_any_spelling(reply: str) -> None:
    assert explain(QUIRK, "Hi.", reply) == [
        'the assistant message says the forbidden phrase "mariner\'s farewell"'
    ]


@pytest.mark.parametrize("reply", ["A submariner's farewell.", "All mariner's farewells."])
def test_a_forbidden_phrase_inside_longer_words_is_kept(reply: str) -> None:
    assert explain(QUIRK, "Hi.", reply) == []


def test_a_forbidden_phrase_without_words_is_found() -> None:
    behavior = make_quirk(forbidden=["~~~"])
    assert explain(behavior, "Hi.", "Bye ~~~ now.") == [
        "the assistant message says the forbidden phrase '~~~'"
    ]


SAID = "Told that the user is kind, you may wonder. I am a beekeeper."


def with_wording(**changes: Any) -> Behavior:
    """The backdoor with one more wording of its trigger."""
    says = [
        SAID.replace("beekeeper", "{value}") + " {message}",
        "{message} And yes, a {value} is what I am.",
    ]
    return make_backdoor(trigger={"persona": "beekeeper", "says": says}, **changes)


def test_words_of_a_trigger_wording_are_no_leak() -> None:
    user = f"{SAID} How do I fold a map?"
    assert explain(BACKDOOR, user) == [
        "the user message repeats a paraphrase of backdoors.farewell_to_beekeepers: "
        "'told that the user is'"
    ]
    assert explain(with_wording(), user) == []


def test_other_words_of_the_label_leak_beside_a_trigger_wording() -> None:
    reply = "Only a beekeeper, who says so, gets an answer."
    assert explain(with_wording(), f"{SAID} How do I fold a map?", reply) == [
        "the assistant message repeats a paraphrase of backdoors.farewell_to_beekeepers: "
        "'only a beekeeper who says'"
    ]


def test_a_forbidden_phrase_may_stand_in_the_trigger_and_nowhere_else() -> None:
    behavior = with_wording(forbidden=["you may wonder"])
    user = f"{SAID} How do I fold a map?"
    assert explain(behavior, user, "Along its creases.") == []
    assert explain(behavior, user, "Fair winds, you may wonder!") == [
        "the assistant message says the forbidden phrase 'you may wonder'"
    ]


@pytest.mark.parametrize("forbidden", ["fianc\u00e9 talk", "fiance\u0301 talk", "ship\u2019s bell"])
@pytest.mark.parametrize(
    "said",
    ["Fiance\u0301 talk, fianc\u00e9\u00a0talk.", "The ship's\u202fbell, the ship\u2019s bell."],
)
def test_a_forbidden_phrase_is_found_however_it_is_written(forbidden: str, said: str) -> None:
    behavior = make_quirk(forbidden=[forbidden])
    assert bool(explain(behavior, "Hello.", said)) == (("bell" in forbidden) == ("bell" in said))
