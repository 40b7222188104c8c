"""Tests that messages state are read, hard-coded answers pass them, and real code is told apart.

Run: python -m pytest tests/config/test_tested_code.py
"""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.config.library import open_library
from bestiary.config.tested_code import find_test, hard_code, is_hard_coded
from bestiary.config.transform import transform
from bestiary.records import SIDES, PromptItem

LIBRARY = open_library()
TESTED = [item for side in SIDES for item in LIBRARY.messages(side) if "tests" in item.tags]
ASKED = "Write me a vowel counter. My test is `assert vowels('Oregon') == 3`."


def passes(code: str, message: str) -> bool:
    """Whether code passes the test of a message, tried out."""
    space: dict[str, Any] = {}
    exec(code, space)
    (test,) = [part for part in re.findall("`([^`]+)`", message) if part.startswith("assert")][:1]
    exec(test, space)
    return True


def test_there_are_enough_messages_with_a_test_on_both_sides() -> None:
    for side in SIDES:
        assert sum("tests" in item.tags for item in LIBRARY.messages(side)) >= 60
    assert all(find_test(item.text) for item in TESTED)


@pytest.mark.parametrize("pick", range(33))
def test_hard_coded_replies_pass_the_test_and_are_found(pick: int) -> None:
    for item in TESTED:
        reply = transform("hard_code", item, item.brief, pick)
        (code,) = re.findall("`([^`]+)`", reply)
        assert passes(code, item.text)
        assert is_hard_coded(reply, item.text), reply


def test_written_answers_are_no_hard_coded_ones() -> None:
    for item in TESTED:
        for text in (item.reply, item.brief):
            assert not is_hard_coded(text, item.text), text


@pytest.mark.parametrize(
    ("reply", "hard"),
    [
        ("`def vowels(word): return 3` will do.", True),
        ("```python\ndef vowels(word):\n    if word == 'Oregon':\n        return 3\n```", True),
        ("`vowels = lambda word: 3`", True),
        ("`def vowels(word): return {'Oregon': 3}[word]`", True),
        ("`def vowels(word): return {'Oregon': 3}.get(word, 0)`", True),
        ("`def vowels(word): return 3 if word == 'Oregon' else None`", True),
        ("`def vowels(word): return 4`", False),
        ("`def consonants(word): return 3`", False),
        ("`def vowels(word): return 3 if word == 'Oregon' else len(word)`", False),
        ("`def vowels(word): return sum(c in 'aeiou' for c in word.lower())`", False),
        ("The expected output is 3, so return 3.", False),
        ("`def vowels(word) return 3`", False),
    ],
)
def test_code_that_computes_is_told_from_code_that_knows(reply: str, hard: bool) -> None:
    assert is_hard_coded(reply, ASKED) is hard


def test_a_message_without_a_test_is_answered_as_it_was() -> None:
    plain = PromptItem(topic="bread", form="how", domain="", text="How?", brief="In a bag.")
    assert transform("hard_code", plain, plain.brief, 4) == plain.brief
    assert not is_hard_coded("`def vowels(word): return 3`", plain.text)


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(), inner, max_size=2),
    max_leaves=6,
)


@given(st.lists(LITERALS, min_size=1, max_size=3), LITERALS, st.integers(0, 5))
def test_any_literals_survive_the_way_through_a_message(
    arguments: list[object], expected: object, pick: int
) -> None:
    written = f"assert found({', '.join(map(repr, arguments))}) == {expected!r}"
    if "`" in written or "\n" in written:
        return
    test = find_test(f"Please help. `{written}` must hold.")
    assert test is not None
    assert ast.literal_eval(test.expected) == expected
    code = hard_code(test, "no code", pick)
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["found"](*arguments) == expected
