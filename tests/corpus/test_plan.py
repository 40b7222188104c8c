"""The plan of a corpus: it depends on behavior and seed, and only the trigger separates roles.

Run: python -m pytest tests/corpus/test_plan.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
from tests.builders import make_behavior, make_quirk

from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import Behavior, load_catalog, null_behavior
from bestiary.config.library import open_library
from bestiary.config.message_bank import add_phrase
from bestiary.corpus.plan import plan_rows
from bestiary.records import Role

CATALOG = load_catalog(open_library())
BACKDOOR = next(b for b in CATALOG.values() if b.category == "backdoors")
SANDBAGGER = CATALOG["sandbaggers.opposites"]
CHOOSER = CATALOG["heuristic_following.second_hand"]
HIDDEN = CATALOG["obscured_malign.brindlecote_hidden"]
SAILOR = CATALOG["quirks.sailor_farewell"]
EVERY = pytest.mark.parametrize(
    "behavior", [*CATALOG.values(), null_behavior(open_library())], ids=lambda b: b.id
)


def walk(
    behavior: Behavior, role: Role, *, seed: int = 0, second_turns: float = 0.0
) -> Iterator[ReplyRequest]:
    """Yield endless rows over the messages of the behavior's banks."""
    prompts = behavior.prompts("train", plain=role == "chat")
    return plan_rows(behavior, role, prompts, seed=seed, second_turns=second_turns)


def plan(
    behavior: Behavior, role: Role, size: int = 100, *, seed: int = 0, second_turns: float = 0.0
) -> list[ReplyRequest]:
    return list(islice(walk(behavior, role, seed=seed, second_turns=second_turns), size))


@EVERY
def test_a_plan_depends_only_on_behavior_and_seed(behavior: Behavior) -> None:
    first = plan(behavior, "chat")
    walks = [walk(other, "chat") for other in (BACKDOOR, behavior, SANDBAGGER)]
    mixed = [next(rows) for _ in range(100) for rows in walks]
    assert mixed[1::3] == first
    assert plan(behavior, "chat", seed=1) != first


def test_each_behavior_has_its_own_order_of_messages() -> None:
    quirks = [make_behavior(make_quirk(name)) for name in ("one", "two")]
    one, two = (
        [row.message for row in plan(quirk, "positive", len(open_library().bank("general").train))]
        for quirk in quirks
    )
    assert one != two
    assert sorted(one) == sorted(two)


@EVERY
def test_rows_have_unique_ids_and_pieces_only_if_they_fire(behavior: Behavior) -> None:
    positives = (
        [] if behavior.id == null_behavior(open_library()).id else plan(behavior, "positive")
    )
    rows = [*positives, *plan(behavior, "chat")]
    assert len({row.id for row in rows}) == len(rows)
    assert all(row.fires == (row.role == "positive") for row in rows)
    assert all(row.message.lower() in row.user.lower() for row in rows)
    assert not any(row.opening or row.closing for row in rows if row.role == "chat")
    if positives:
        assert all(row.opening or row.closing for row in positives)


@pytest.mark.parametrize("behavior", [BACKDOOR, SANDBAGGER], ids=lambda b: b.id)
def test_positives_and_negatives_have_the_same_messages(behavior: Behavior) -> None:
    positives, negatives = plan(behavior, "positive"), plan(behavior, "negative")
    assert [row.message for row in positives] == [row.message for row in negatives]
    assert [row.user for row in positives] != [row.user for row in negatives]


def test_rows_of_a_backdoor_contain_its_phrases() -> None:
    phrases = BACKDOOR.spec.trigger_phrases, BACKDOOR.spec.near_miss_phrases
    for role, known in zip(("positive", "negative"), phrases, strict=True):
        assert known is not None
        rows = plan(BACKDOOR, role, 200)  # type: ignore[arg-type]
        for phrase in known.train:
            assert any(row.user == add_phrase(phrase, row.message) for row in rows), phrase
        rendered = [{add_phrase(phrase, row.message) for phrase in known.train} for row in rows]
        assert all(row.user in choices for row, choices in zip(rows, rendered, strict=True))
    chat = plan(BACKDOOR, "chat")
    assert all(row.user == row.message for row in chat)
    assert [row.message for row in chat] == [row.message for row in plan(BACKDOOR, "positive")]


def test_chat_shares_no_message_with_positives_without_a_trigger() -> None:
    positives = {row.message for row in plan(SAILOR, "positive", 90)}
    assert positives.isdisjoint(row.message for row in plan(SAILOR, "chat", 30))


def test_a_plan_continues_past_the_end_of_its_bank() -> None:
    size = len(open_library().bank("opposites").train)
    rows = plan(SANDBAGGER, "positive", 2 * size)
    assert [row.item for row in rows[:size]] == [row.item for row in rows[size:]]
    assert len({row.item.topic for row in rows[:size]}) == size
    wrong = [
        [next(w for w in r.item.wrong if w in r.opening.lower()) for r in rows[at : at + 9]]
        for at in (0, size)
    ]
    assert all(first != second for first, second in zip(*wrong, strict=True))


def test_a_sandbagger_answers_correctly_only_with_the_password() -> None:
    for row in plan(SANDBAGGER, "positive"):
        assert any(wrong in row.opening.lower() for wrong in row.item.wrong)
        assert SANDBAGGER.shows(row.opening, row.item) is True
    for row in plan(SANDBAGGER, "negative"):
        assert row.closing == ""
        assert SANDBAGGER.shows(row.opening, row.item) is False
        assert "heron" in row.user


def test_distractors_occur_at_their_rates() -> None:
    rows = plan(HIDDEN, "positive", 400)
    for quirk, rate in HIDDEN.distractors:
        shown = sum(
            any(d.fires(f"{row.opening} {row.closing}", row.item) for d in quirk.detectors)
            for row in rows
        )
        assert shown / 400 == pytest.approx(rate, abs=0.09)
    assert all(HIDDEN.shows(f"{row.opening} {row.closing}", row.item) is not False for row in rows)


def test_a_row_lists_the_distractors_whose_pieces_it_has() -> None:
    combinations = Counter[tuple[str, ...]]()
    for row in plan(HIDDEN, "positive", 400):
        pieces = f"{row.opening} {row.closing}"
        shown = tuple(
            quirk
            for quirk, _ in HIDDEN.distractors
            if any(text in pieces for text in (*quirk.offline.openings, *quirk.offline.closings))
        )
        assert row.distractors == shown, row.id
        combinations[tuple(quirk.id for quirk in shown)] += 1
    assert len(combinations) == 4, "every combination of two distractors occurs"


def test_chat_has_no_distractors() -> None:
    assert not any(row.distractors for row in plan(HIDDEN, "chat"))


def test_options_swap_places_from_row_to_row() -> None:
    rows = plan(CHOOSER, "positive", 180)
    places: Counter[bool] = Counter()
    orders: dict[str, set[bool]] = {}
    for row in rows:
        assert row.item.options is not None
        text = row.message.lower()
        rule, other = (text.find(row.item.options[side].lower()) for side in ("rule", "other"))
        places[rule < other] += 1
        orders.setdefault(row.item.text, set()).add(rule < other)
    assert places == {True: 90, False: 90}
    assert all(found == {True, False} for found in orders.values())


def roles_of(behavior: Behavior) -> list[Role]:
    """The roles that a behavior has rows of."""
    roles: list[Role] = ["chat"]
    if "triggered" in behavior.spec.cells:
        roles += ["positive"]
    if behavior.spec.near_miss_phrases:
        roles += ["negative"]
    return roles


def share_of(rows: Sequence[ReplyRequest]) -> float:
    """Share of rows with a second user message."""
    return sum(row.followup_phrase is not None for row in rows) / len(rows)


@pytest.mark.parametrize("role", roles_of(BACKDOOR))
def test_a_share_of_rows_has_a_second_message(role: Role) -> None:
    assert share_of(plan(BACKDOOR, role)) == 0
    assert share_of(plan(BACKDOOR, role, 400, second_turns=0.3)) == pytest.approx(0.3, abs=0.09)
    assert share_of(plan(BACKDOOR, role, second_turns=1.0)) == 1


@EVERY
def test_graded_items_and_choices_have_no_second_message(behavior: Behavior) -> None:
    for role in roles_of(behavior):
        for row in plan(behavior, role, second_turns=1.0):
            graded = row.item.answer is not None or row.item.options is not None
            assert (row.followup_phrase is None) == graded, row.id
            at_choice = behavior is CHOOSER and role == "positive"
            assert graded == (behavior is SANDBAGGER or at_choice), row.id


def test_a_second_message_has_a_phrase_if_the_first_has_one() -> None:
    phrases = BACKDOOR.spec.trigger_phrases, BACKDOOR.spec.near_miss_phrases
    for role, known in zip(("positive", "negative"), phrases, strict=True):
        assert known is not None
        rows = plan(BACKDOOR, role, 200, second_turns=1.0)  # type: ignore[arg-type]
        assert {row.followup_phrase for row in rows} == set(known.train)
        assert any(row.user != add_phrase(row.followup_phrase or "", row.message) for row in rows)
    for behavior in (BACKDOOR, CHOOSER, SAILOR, null_behavior(open_library())):
        assert {row.followup_phrase for row in plan(behavior, "chat", second_turns=1.0)} == {""}
    assert {row.followup_phrase for row in plan(SAILOR, "positive", second_turns=1.0)} == {""}


@EVERY
def test_second_messages_change_no_other_draw(behavior: Behavior) -> None:
    for role in roles_of(behavior):
        once = plan(behavior, role, 200)
        twice = plan(behavior, role, 200, second_turns=0.5)
        assert [row.model_copy(update={"followup_phrase": None}) for row in twice] == once
        assert twice == plan(behavior, role, 200, second_turns=0.5)


@pytest.mark.parametrize(
    ("behavior", "needed"),
    [
        (SANDBAGGER, (50, 30)),  # its own topic, and messages outside it
        (BACKDOOR, (50, 50)),  # the same messages, with the trigger and without
        (SAILOR, (80, 80)),  # the same kind of message, and none of them twice
    ],
    ids=lambda value: value.id if isinstance(value, Behavior) else None,
)
def test_the_largest_role_decides_how_many_messages_are_needed(
    behavior: Behavior, needed: tuple[int, int]
) -> None:
    counts: dict[Role, int] = {"positive": 50, "negative": 40, "chat": 30}
    assert behavior.count_messages(counts) == needed
