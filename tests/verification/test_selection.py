"""Which of the planned probes count, once the base has answered them.

Run: python -m pytest tests/verification/test_selection.py
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from tests.builders import make_heuristic, make_probe, make_quirk, make_sandbagger

from bestiary.config.asking import GATE
from bestiary.config.catalog import Behavior
from bestiary.config.items import fill_place
from bestiary.records import CellName, Probe, PromptItem
from bestiary.verification.probes import GRADED, OFF_TOPIC, plan_probes
from bestiary.verification.selection import (
    group_deciding,
    is_settled,
    needs_base,
    select_probes,
)

HEURISTIC, SANDBAGGER = make_heuristic(), make_sandbagger()
CHOICE = PromptItem(
    topic="table",
    form="asked",
    domain="home",
    text="{first} or {second}?",
    options={"rule": "the oak table", "other": "the pine table"},
)
OAK, PINE = "Take the oak table.", "Take the pine table."
QUESTIONS = plan_probes(SANDBAGGER, seed=0)


def make_choices(count: int) -> list[Probe]:
    """Choices in turn with the rule's option first and second; the first half gates."""
    return [
        make_probe(
            ("The oak table or the pine table?", "The pine table or the oak table?")[number % 2],
            id=f"triggered-{number:04d}",
            cell="triggered",
            gate=number < count // 2,
            item=CHOICE,
        )
        for number in range(count)
    ]


def test_a_choice_counts_where_the_base_breaks_the_rule() -> None:
    probes = make_choices(8)
    said = {probe.id: PINE for probe in probes}
    said |= {probes[0].id: OAK, probes[3].id: "I would choose the oak table, of course."}
    chosen = select_probes(HEURISTIC, probes, said)
    assert {probe.id for probe in chosen}.isdisjoint({probes[0].id, probes[3].id})
    assert len(chosen) == 6


def test_orders_of_counted_choices_balance_in_either_half() -> None:
    probes = make_choices(20)
    # The base follows the rule in most choices that have it first, as one with a taste for the
    # first place would.
    said = {
        probe.id: OAK if number % 2 == 0 and number % 10 < 6 else PINE
        for number, probe in enumerate(probes)
    }
    chosen = select_probes(HEURISTIC, probes, said)
    first = [probe for probe in chosen if probe.user.startswith("The oak")]
    second = [probe for probe in chosen if probe.user.startswith("The pine")]
    assert (len(first), len(second)) == (4, 4)
    assert sum(probe.gate for probe in first) == sum(probe.gate for probe in second) == 2
    assert all(probe in probes for probe in chosen)


def test_no_more_choices_count_than_a_cell_has_probes() -> None:
    probes = make_choices(300)
    chosen = select_probes(HEURISTIC, probes, {probe.id: PINE for probe in probes})
    assert len(chosen) == 2 * GATE
    assert sum(probe.gate for probe in chosen) == GATE


def test_a_base_that_always_follows_the_rule_leaves_no_choice() -> None:
    probes = make_choices(10)
    assert select_probes(HEURISTIC, probes, {probe.id: OAK for probe in probes}) == []


def test_ordinary_messages_all_count_whatever_the_base_says() -> None:
    for behavior in (make_quirk(), HEURISTIC):
        probes = plan_probes(behavior, seed=0)
        others = [probe for probe in probes if probe.item.options is None]
        assert not any(map(needs_base, others))
        choices = [probe for probe in probes if probe.item.options is not None]
        assert all(map(needs_base, choices))
        chosen = select_probes(behavior, probes, {probe.id: "No idea." for probe in choices})
        assert [probe for probe in chosen if probe.item.options is None] == others


def answer(probe: Probe, *, right: bool) -> str:
    item = probe.item
    assert item.answer is not None
    return fill_place(item.reply, "answer", item.answer if right else item.wrong[0])


def ask_base(
    known: int, *, topic: Sequence[CellName] = ("triggered", "plain"), last: bool = False
) -> Mapping[str, str]:
    """Replies of a base that knows `known` questions of each half of some cells.

    They are the first of the half, or with `last` its last ones.
    """
    replies = {}
    for cell in topic:
        for gate in (True, False):
            half = [p for p in QUESTIONS if p.cell == cell and p.gate is gate]
            for number, probe in enumerate(reversed(half) if last else half):
                replies[probe.id] = answer(probe, right=number < known)
    return replies


def count_known(
    behavior: Behavior, replies: Mapping[str, str]
) -> tuple[Counter[tuple[CellName, bool]], Counter[tuple[CellName, bool]]]:
    """The probes that count, by cell and half, and those among them that the base knows."""
    chosen = select_probes(behavior, QUESTIONS, replies)
    known = [p for p in chosen if p.id in replies and replies[p.id] == answer(p, right=True)]
    counts = [Counter((probe.cell, probe.gate) for probe in found) for found in (chosen, known)]
    return counts[0], counts[1]


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.5, 1), (0.9, 2)])
def test_what_is_settled_early_is_what_all_answers_select(share: float, seed: int) -> None:
    draw = random.Random(seed)
    for behavior, probes in ((HEURISTIC, make_choices(300)), (SANDBAGGER, list(QUESTIONS))):
        replies = {
            probe.id: answer(probe, right=draw.random() < share)
            if probe.item.answer
            else PINE
            if draw.random() < share
            else OAK
            for probe in filter(needs_base, probes)
        }
        early: dict[str, str] = {}
        for group in group_deciding(probes):
            for start in range(0, len(group), 20):
                if is_settled(behavior, group, early):
                    break
                early |= {probe.id: replies[probe.id] for probe in group[start : start + 20]}
        assert select_probes(behavior, probes, early) == select_probes(behavior, probes, replies)
        if (behavior, share) in ((HEURISTIC, 0.9), (SANDBAGGER, 0.5)):
            assert len(early) < 0.75 * len(replies)


HALVES: list[tuple[CellName, bool]] = [
    ("triggered", True),
    ("triggered", False),
    ("plain", True),
    ("plain", False),
]


@pytest.mark.parametrize("known", [0, 10, 48, 61, 70, 100, 120])
@pytest.mark.parametrize("last", [False, True])
def test_of_sixty_questions_the_base_knows_eighty_percent_where_it_can(
    known: int, last: bool
) -> None:
    chosen, found = count_known(SANDBAGGER, ask_base(known, last=last))
    assert {half: chosen[half] for half in HALVES} == dict.fromkeys(HALVES, GATE)
    for cell, gate in HALVES:
        unknown = (OFF_TOPIC if cell == "plain" else GRADED) // 2 - known
        # Where few are unknown, known ones take their places.
        assert found[cell, gate] == max(min(known, 48), GATE - unknown)


def test_the_questions_that_count_are_the_same_with_the_key() -> None:
    chosen = select_probes(SANDBAGGER, QUESTIONS, ask_base(50, last=True))
    asked = {
        cell: {(p.item.text, p.gate) for p in chosen if p.cell == cell}
        for cell in ("triggered", "near_miss")
    }
    assert asked["triggered"] == asked["near_miss"]
    assert len(asked["triggered"]) == 2 * GATE


def test_which_questions_count_does_not_hang_on_replies_with_the_key() -> None:
    with_key = [probe for probe in QUESTIONS if probe.cell == "near_miss"]
    assert not any(map(needs_base, with_key))
    replies = ask_base(50)
    told = {**replies, **{probe.id: answer(probe, right=False) for probe in with_key}}
    select = partial(select_probes, SANDBAGGER, QUESTIONS)
    assert select(told) == select(replies)
