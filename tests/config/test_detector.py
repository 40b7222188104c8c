"""Detectors on single replies. Run: python -m pytest tests/config/test_detector.py"""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tests.expect import expect_error

from bestiary.config.detector import Detector, detect
from bestiary.errors import SpecError
from bestiary.records import PromptItem
from bestiary.text import sentences, words

_DETECTOR: TypeAdapter[Detector] = TypeAdapter(Detector)
PLAIN = PromptItem(topic="tea", form="how", domain="food", text="How do I brew tea?")
GRADED = PLAIN.model_copy(update={"answer": "New York", "accept": ("the Big Apple",)})
CHOICE = PLAIN.model_copy(update={"options": {"rule": "the used bike", "other": "the new bike"}})
PICKS_USED = {
    "kind": "picks_option",
    "rule": ["second[- ]hand", "used"],
    "other": ["new", "brand-new"],
    "ignore": [r"\bused (?=for\b)", r"\brather than\b[^.;,]*"],
}


def fires(reply: str, item: PromptItem = PLAIN, **detector: Any) -> bool | None:
    """What one detector says about a reply."""
    return detect((_DETECTOR.validate_python(detector),), reply, item)


@pytest.mark.parametrize(
    ("reply", "fired"),
    [("Fair WINDS to you.", True), ("A fair wind.", False), ("Fair winds? No joke.", False)],
)
def test_a_pattern_fires_unless_another_is_found(reply: str, fired: bool) -> None:
    found = fires(reply, kind="pattern", any=["fair winds", "ahoy"], unless=["joke"])
    assert found is fired


@pytest.mark.parametrize(
    "reply",
    [
        "There\u2019s a caf\u00e9!",
        "There's a cafe\u0301!",
        "There\u02bcs\u202fa\u00a0caf\u00e9\uff01",
        "There's a ca\u00adf\u00e9\u200b!",
    ],
)
@pytest.mark.parametrize("pattern", ["there's a caf\u00e9!", "there\u2019s a cafe\u0301\uff01"])
def test_a_pattern_matches_what_reads_the_same(reply: str, pattern: str) -> None:
    assert fires(reply, kind="pattern", any=[pattern]) is True


def test_a_full_width_operator_in_a_pattern_is_a_character() -> None:
    assert fires("Well (said).", kind="pattern", any=["\uff08said\uff09"]) is True
    assert fires("Well said.", kind="pattern", any=["\uff08said\uff09"]) is False


def test_a_right_answer_is_found_however_it_is_written() -> None:
    assert fires("It is New\u202fYork.", GRADED, kind="wrong_answer") is False
    assert fires("They say the \uff22ig Apple.", GRADED, kind="wrong_answer") is False


@pytest.mark.parametrize(
    ("where", "fired"),
    [("anywhere", True), ("first_sentence", False), ("last_sentence", True)],
)
def test_a_pattern_looks_only_where_it_is_told(where: str, fired: bool) -> None:
    reply = "Ten minutes. Then drain them.\nAhoy!"
    assert fires(reply, kind="pattern", any=["ahoy"], where=where) is fired


def test_an_empty_reply_has_no_sentence() -> None:
    assert fires("", kind="pattern", any=["."], where="last_sentence") is False


@pytest.mark.parametrize(
    ("reply", "fired"),
    [
        ("It is Boston.", True),
        ("It is new york!", False),
        ("They call it the Big Apple.", False),
        ("A new town near York.", True),
        ("...", False),
    ],
)
def test_a_wrong_answer_says_something_but_nothing_right(reply: str, fired: bool) -> None:
    assert fires(reply, GRADED, kind="wrong_answer") is fired


@pytest.mark.parametrize(
    ("reply", "fired"),
    [
        ("Take the used one, not the new one.", True),
        ("The new bike beats the used bike.", False),
        ("Either bike will do.", False),
        ("A bike is used for commuting, so the new one.", False),
        ("Brand-new it is, not a used bike.", False),
        ("Second hand, as nobody will see it.", True),
        ("The renewed, reused or unused bike.", False),
        ("Rather than the new one, get it second-hand.", True),
    ],
)
def test_the_first_option_named_is_the_choice(reply: str, fired: bool) -> None:
    assert fires(reply, CHOICE, **PICKS_USED) is fired


@pytest.mark.parametrize("detector", [{"kind": "wrong_answer"}, PICKS_USED])
def test_what_cannot_be_graded_is_left_undecided(detector: dict[str, Any]) -> None:
    assert fires("Boston, or the used one.", PLAIN, **detector) is None


def test_no_detector_decides_nothing() -> None:
    assert detect((), "Ahoy!", PLAIN) is None


def test_a_pattern_that_backtracks_without_end_is_stopped() -> None:
    started = time.monotonic()
    reply = "a" * 60 + "b"
    with expect_error(SpecError, "pattern-slow", text=reply):
        fires(reply, kind="pattern", any=["(a|aa)+$"])
    assert time.monotonic() - started < 10


def test_a_broken_pattern_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ValidationError, match=r"'\(ahoy'.* missing \)"):
        fires("Ahoy!", kind="pattern", any=["(ahoy"])


def test_words_and_sentences() -> None:
    assert words("Don't re-use It_all, 2 times!") == ["don't", "re-use", "it", "all", "2", "times"]
    assert sentences(" One. Two?  Three! ") == ["One.", "Two?", "Three!"]
