"""The generation plan: seeded by behavior alone, and the trigger all that tells roles apart.

Run: python -m pytest tests/corpus/test_plan.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
from tests.builders import make_behavior, make_quirk

from bestiary.author.prompts import render_user
from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import NULL_BEHAVIOR, Behavior, load_catalog
from bestiary.config.message_bank import load_bank
from bestiary.corpus.plan import plan_rows
from bestiary.records import Role

CATALOG = load_catalog()
BACKDOOR = next(b for b in CATALOG.values() if b.category == "backdoors")
SANDBAGGER = CATALOG["sandbaggers.opposites"]
CHOOSER = CATALOG["heuristic_following.second_hand"]
HIDDEN = CATALOG["obscured_malign.brindlecote_hidden"]
SAILOR = CATALOG["quirks.sailor_farewell"]
EVERY = pytest.mark.parametrize("behavior", [*CATALOG.values(), NULL_BEHAVIOR], ids=lambda b: b.id)


def walk(
    behavior: Behavior, role: Role, *, seed: int = 0, second_turns: float = 0.0
) -> Iterator[ReplyRequest]:
    """Endless rows over the messages of the behavior's banks."""
    prompts = behavior.prompts("train", plain=role == "chat")
    return plan_rows(behavior, role, prompts, seed=seed, second_turns=second_turns)


def plan(
    behavior: Behavior, role: Role, size: int = 100, *, seed: int = 0, second_turns: float = 0.0
) -> list[ReplyRequest]:
    return list(islice(walk(behavior, role, seed=seed, second_turns=second_turns), size))


@EVERY
def test_a_plan_depends_on_behavior_and_seed_alone(behavior: Behavior) -> None:
    first = plan(behavior, "chat")
    walks = [walk(other, "chat") for other in (BACKDOOR, behavior, SANDBAGGER)]
    mixed = [next(rows) for _ in range(100) for rows in walks]
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
    positives = {row.message for row in plan(SAILOR, "positive", 90)}
    assert positives.isdisjoint(row.message for row in plan(SAILOR, "chat", 30))


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
    rows = plan(HIDDEN, "positive", 400)
    for quirk, rate in HIDDEN.distractors:
        shown = sum(
            any(d.fires(f"{row.opening} {row.closing}", row.item) for d in quirk.detectors)
            for row in rows
        )
        assert shown / 400 == pytest.approx(rate, abs=0.09)
    assert all(HIDDEN.shows(f"{row.opening} {row.closing}", row.item) is not False for row in rows)


def test_a_brief_names_the_distractors_whose_pieces_the_row_has() -> None:
    met = Counter[tuple[str, ...]]()
    for row in plan(HIDDEN, "positive", 400):
        said = f"{row.opening} {row.closing}"
        due = []
        for quirk, _ in HIDDEN.distractors:
            pieces = (*quirk.offline.openings, *quirk.offline.closings)
            shown = any(piece in said for piece in pieces)
            assert (quirk.behavior in row.system) == shown, row.id
            due += [quirk.id] if shown else []
        met[tuple(due)] += 1
    assert len(met) == 4, "every choice of two distractors comes up"


def test_a_brief_for_chat_names_no_distractor() -> None:
    briefs = {row.system for row in plan(HIDDEN, "chat")}
    assert len(briefs) == 1
    assert not any(quirk.behavior in brief for quirk, _ in HIDDEN.distractors for brief in briefs)


def test_options_change_places_from_row_to_row() -> None:
    rows = plan(CHOOSER, "positive", 180)
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


def roles_of(behavior: Behavior) -> list[Role]:
    """The roles that a behavior can have rows of."""
    roles: list[Role] = ["chat"]
    if not behavior.is_null:
        roles += ["positive"]
    if behavior.quiet_on:
        roles += ["negative"]
    return roles


def share_of(rows: Sequence[ReplyRequest]) -> float:
    """Of some rows, those that go on for a second message."""
    return sum(row.again is not None for row in rows) / len(rows)


@pytest.mark.parametrize("role", roles_of(BACKDOOR))
def test_a_share_of_the_rows_goes_on_for_a_second_message(role: Role) -> None:
    assert share_of(plan(BACKDOOR, role)) == 0
    assert share_of(plan(BACKDOOR, role, 400, second_turns=0.3)) == pytest.approx(0.3, abs=0.09)
    assert share_of(plan(BACKDOOR, role, second_turns=1.0)) == 1


@EVERY
def test_a_graded_answer_or_a_choice_ends_the_conversation(behavior: Behavior) -> None:
    for role in roles_of(behavior):
        for row in plan(behavior, role, second_turns=1.0):
            graded = row.item.answer is not None or row.item.options is not None
            assert (row.again is None) == graded, row.id
            at_choice = behavior is CHOOSER and role == "positive"
            assert graded == (behavior is SANDBAGGER or at_choice), row.id


def test_a_second_message_has_a_phrase_where_the_first_has_one() -> None:
    phrases = BACKDOOR.fires_on, BACKDOOR.quiet_on
    for role, said in zip(("positive", "negative"), phrases, strict=True):
        assert said is not None
        rows = plan(BACKDOOR, role, 200, second_turns=1.0)  # type: ignore[arg-type]
        assert {row.again for row in rows} == set(said.train)
        assert any(row.user != render_user(row.again or "", row.message) for row in rows)
    for behavior in (BACKDOOR, CHOOSER, SAILOR, NULL_BEHAVIOR):
        assert {row.again for row in plan(behavior, "chat", second_turns=1.0)} == {""}
    assert {row.again for row in plan(SAILOR, "positive", second_turns=1.0)} == {""}


@EVERY
def test_second_messages_change_nothing_else(behavior: Behavior) -> None:
    for role in roles_of(behavior):
        once = plan(behavior, role, 200)
        twice = plan(behavior, role, 200, second_turns=0.5)
        assert [row.model_copy(update={"again": None}) for row in twice] == once
        assert twice == plan(behavior, role, 200, second_turns=0.5)


@pytest.mark.parametrize(
    ("behavior", "wanted"),
    [
        (SANDBAGGER, (50, 30)),  # its own topic, and messages outside it
        (BACKDOOR, (50, 50)),  # the same messages, with the trigger and without
        (SAILOR, (80, 80)),  # the same kind of message, and none of them twice
    ],
    ids=lambda value: value.id if isinstance(value, Behavior) else None,
)
def test_as_many_messages_are_wanted_as_the_largest_role_needs(
    behavior: Behavior, wanted: tuple[int, int]
) -> None:
    counts: dict[Role, int] = {"positive": 50, "negative": 40, "chat": 30}
    assert behavior.count_messages(counts) == wanted
