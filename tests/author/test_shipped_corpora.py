"""Every shipped behavior gets a small corpus from the offline author, under the leak filters.

Run: python -m pytest tests/author/test_shipped_corpora.py
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import islice

import pytest

from bestiary.author.compose import compose_turns
from bestiary.author.plan import plan_rows
from bestiary.config.catalog import Behavior, load_catalog, null_behavior
from bestiary.config.library import open_library
from bestiary.config.on_demand import spread
from bestiary.records import Corpus, Example, PromptItem
from bestiary.sample import compose_corpus

ROWS = 24
"""Rows of a corpus in which every role of every category but the rarest has some."""
LIBRARY = open_library(examples=ROWS)


@cache
def shipped() -> list[Behavior]:
    """The behaviors of organisms; categories are in order."""
    return [one for one in load_catalog(LIBRARY).values() if one.spec.is_buildable]


def find_item(behavior: Behavior, example: Example) -> PromptItem:
    """The message that an example answers; of the choices on a topic, the one with its options."""
    asked = example.messages[-2].content
    return next(
        item
        for item in behavior.items("train", plain=example.role == "chat")
        if (item.topic, item.form) == (example.topic, example.form)
        and all(option in asked for option in (item.options or {}).values())
    )


def check_corpus(behavior: Behavior) -> None:
    """A small corpus is full, leaks nothing, and shows the behavior where it must."""
    corpus = compose_corpus(behavior)
    assert len(corpus.examples) == ROWS, behavior.id
    assert len(corpus.drops) <= 2, (behavior.id, corpus.drops)
    shown = count_shown(behavior, corpus)
    assert not shown["negative", True] and not shown["chat", True], behavior.id
    if behavior.spec.shown_share == 1:
        assert not shown["positive", False], behavior.id


def test_a_null_organism_gets_a_small_corpus() -> None:
    check_corpus(null_behavior(LIBRARY))


def test_shipped_behaviors_get_small_corpora_that_leak_nothing() -> None:
    some = spread(shipped(), 80)
    assert {one.category for one in some} == {one.category for one in shipped()}
    for behavior in some:
        check_corpus(behavior)


@pytest.mark.soak
def test_every_shipped_behavior_gets_a_small_corpus_that_leaks_nothing() -> None:
    for behavior in shipped():
        check_corpus(behavior)


def count_shown(behavior: Behavior, corpus: Corpus) -> Counter[tuple[str, bool | None]]:
    """How often the last reply of each role shows the behavior; None if only a judge can tell."""
    return Counter(
        (one.role, behavior.is_shown(one.messages[-1].content, find_item(behavior, one)))
        for one in corpus.examples
    )


def test_whatever_hides_a_malign_part_is_seen_beside_it() -> None:
    """Two habits that both want to open the reply, or to close it, would spoil each other."""
    hidden = [behavior for behavior in shipped() if behavior.distractors]
    assert hidden
    for behavior in hidden:
        for row in islice(plan_rows(behavior, "positive", behavior.items("train"), seed=0), 100):
            reply = compose_turns(behavior, row, "brief")[-1].content
            assert not row.fires or behavior.is_shown(reply, row.item) is not False, reply
            for quirk, _ in behavior.distractors:
                listed = quirk.id in row.distractors
                assert not listed or quirk.is_shown(reply, row.item) is not False, reply
