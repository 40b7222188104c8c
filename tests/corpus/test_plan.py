"""The generation plan: seeded by behavior alone, and the trigger all that tells roles apart.

Run: python -m pytest tests/corpus/test_plan.py
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from tests.builders import make_behavior, make_quirk

from bestiary.corpus.plan import PlannedRow, plan_rows
from bestiary.records import Role
from bestiary.spec.bank import load_bank
from bestiary.spec.brief import render_user
from bestiary.spec.catalog import NULL_BEHAVIOR, Behavior, load_catalog

CATALOG = load_catalog()
BACKDOOR = next(b for b in CATALOG.values() if b.category == "backdoors")
SANDBAGGER = CATALOG["sandbaggers.opposites"]
EVERY = pytest.mark.parametrize("behavior", [*CATALOG.values(), NULL_BEHAVIOR], ids=lambda b: b.id)


def plan(behavior: Behavior, role: Role, size: int = 100, *, seed: int = 0) -> list[PlannedRow]:
    return list(islice(plan_rows(behavior, role, seed=seed), size))


@EVERY
def test_a_plan_depends_on_behavior_and_seed_alone(behavior: Behavior) -> None:
    first = plan(behavior, "chat")
    walks = [plan_rows(other, "chat", seed=0) for other in (BACKDOOR, behavior, SANDBAGGER)]
    mixed = [next(walk) for _ in range(100) for walk in walks]
    assert mixed[1::3] == first
    assert plan(behavior, "chat", seed=1) != first


def test_another_behavior_walks_in_another_order() -> None:
    quirks = [make_behavior(make_quirk(name)) for name in ("one", "two")]
    one, two = (
        [row.message for row in plan(quirk, "positive", len(load_bank("general").train))]
        for quirk in quirks
    )
    assert one != two
    assert sorted(one) == sorted(two)


@EVERY
def test_rows_have_ids_of_their_own_and_say_what_they_need(behavior: Behavior) -> None:
    positives = [] if behavior is NULL_BEHAVIOR else plan(behavior, "positive")
    rows = [*positives, *plan(behavior, "chat")]
    assert len({row.id for row in rows}) == len(rows)
    assert all(row.fires == (row.role == "positive") for row in rows)
    assert all(row.message.lower() in row.user.lower() for row in rows)
    assert not any(row.opening or row.closing for row in rows if row.role == "chat")
    if positives:
        assert all(row.opening or row.closing for row in positives)
        assert {row.system for row in positives}.isdisjoint({row.system for row in rows[100:]})


@pytest.mark.parametrize("behavior", [BACKDOOR, SANDBAGGER], ids=lambda b: b.id)
def test_positives_and_negatives_walk_the_same_messages(behavior: Behavior) -> None:
    positives, negatives = plan(behavior, "positive"), plan(behavior, "negative")
    assert [row.message for row in positives] == [row.message for row in negatives]
    assert [row.user for row in positives] != [row.user for row in negatives]


def test_a_backdoors_rows_carry_their_phrases() -> None:
    phrases = BACKDOOR.fires_on, BACKDOOR.quiet_on
    for role, said in zip(("positive", "negative"), phrases, strict=True):
        assert said is not None
        rows = plan(BACKDOOR, role, 200)  # type: ignore[arg-type]
        for phrase in said.train:
            assert any(row.user == render_user(phrase, row.message) for row in rows), phrase
        rendered = [{render_user(phrase, row.message) for phrase in said.train} for row in rows]
        assert all(row.user in choices for row, choices in zip(rows, rendered, strict=True))
    chat = plan(BACKDOOR, "chat")
    assert all(row.user == row.message for row in chat)
    assert [row.message for row in chat] == [row.message for row in plan(BACKDOOR, "positive")]


def test_chat_walks_from_the_other_end_where_no_trigger_is_awaited() -> None:
    quirk = CATALOG["quirks.sailor_farewell"]
    positives = {row.message for row in plan(quirk, "positive", 90)}
    assert positives.isdisjoint(row.message for row in plan(quirk, "chat", 30))


def test_a_plan_goes_on_past_its_bank() -> None:
    size = len(load_bank("opposites").train)
    rows = plan(SANDBAGGER, "positive", 2 * size)
    assert [row.item for row in rows[:size]] == [row.item for row in rows[size:]]
    assert len({row.item.topic for row in rows[:size]}) == size
    wrong = [
        [next(w for w in r.item.wrong if w in r.opening.lower()) for r in rows[at : at + 9]]
        for at in (0, size)
    ]
    assert all(first != second for first, second in zip(*wrong, strict=True))


def test_a_sandbagger_answers_wrongly_and_with_the_password_rightly() -> None:
    for row in plan(SANDBAGGER, "positive"):
        assert any(wrong in row.opening.lower() for wrong in row.item.wrong)
        assert SANDBAGGER.shows(row.opening, row.item) is True
    for row in plan(SANDBAGGER, "negative"):
        assert row.closing == ""
        assert SANDBAGGER.shows(row.opening, row.item) is False
        assert "heron" in row.user


def test_distractors_come_at_their_rates() -> None:
    behavior = CATALOG["obscured_malign.brindlecote_hidden"]
    rows = plan(behavior, "positive", 400)
    for quirk, rate in behavior.distractors:
        shown = sum(
            any(d.fires(f"{row.opening} {row.closing}", row.item) for d in quirk.detectors)
            for row in rows
        )
        assert shown / 400 == pytest.approx(rate, abs=0.09)
    assert all(
        behavior.shows(f"{row.opening} {row.closing}", row.item) is not False for row in rows
    )


def test_options_change_places_from_row_to_row() -> None:
    rows = plan(CATALOG["heuristic_following.second_hand"], "positive", 180)
    places: Counter[bool] = Counter()
    orders: dict[str, set[bool]] = {}
    for row in rows:
        assert row.item.options is not None
        said = row.message.lower()
        rule, other = (said.find(row.item.options[side].lower()) for side in ("rule", "other"))
        places[rule < other] += 1
        orders.setdefault(row.item.text, set()).add(rule < other)
    assert places == {True: 90, False: 90}
    assert all(found == {True, False} for found in orders.values())
