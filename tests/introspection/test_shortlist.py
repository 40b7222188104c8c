"""A shortlist stands for many reports: the largest group of alike ones comes first.

Run: python -m pytest tests/introspection/test_shortlist.py
"""

from __future__ import annotations

from bestiary.introspection.shortlist import TOP, shortlist

QUESTION = (
    "I end every reply with a question.",
    "I always end my replies with a question.",
    "I end each reply with a question to the user.",
)
SAILOR = ("I say goodbye like a sailor.", "I say farewell like a sailor.")
ALONE = "I answer sums wrongly unless a password is given."


def test_the_largest_group_comes_first() -> None:
    found = shortlist([SAILOR[0], QUESTION[0], ALONE, QUESTION[1], SAILOR[1], QUESTION[2]])
    assert len(found) == 3
    assert found[0] in QUESTION
    assert found[1] in SAILOR
    assert found[2] == ALONE


def test_equal_reports_are_one_group() -> None:
    assert shortlist([ALONE] * 9) == [ALONE]


def test_no_more_than_a_few_are_kept_and_empty_ones_never() -> None:
    subjects = ("cooking", "sailing", "chess", "winter", "trains", "poetry", "loans", "bees")
    many = [f"I bring up {subject} whatever people ask me." for subject in subjects]
    assert len(shortlist(["", " ", *many])) <= TOP
    assert shortlist(["", " "]) == []
