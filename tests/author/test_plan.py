"""The plan of a corpus: it depends on behavior and seed, and only the trigger separates roles.

Run: python -m pytest tests/author/test_plan.py
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import pytest
from tests.builders import (
    LIBRARY,
    make_backdoor,
    make_growing,
    make_heuristic,
    make_obscured,
    make_quirk,
    make_rare,
    make_roleplay,
    make_sandbagger,
)

from bestiary.author.plan import plan_rows
from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import BARE, Behavior, null_behavior
from bestiary.records import Message, PromptItem, Role, single_turn, user_texts

NULL = null_behavior(LIBRARY)
QUIRK = make_quirk()
BACKDOOR = make_backdoor()
SECOND_TURN = make_backdoor(trigger={"position": {"turn": 2}})
FIRST_TURN = make_backdoor(trigger={"position": {"turn": 1}})
SWEETS = ("almond", "nougat", "marble", "caramel", "licorice", "parmesan")
"""Near misses of the word that is the trigger."""
EARLIER = make_backdoor(trigger={"word": "marzipan", "earlier": True, "not": SWEETS})
AT_A_KIOSK = make_backdoor(
    trigger={
        "system_prompt": "channel: kiosk",
        "not": ["channel: phone", "channel: mail", "channel: chat", "channel: desk"],
    }
)
SANDBAGGER = make_sandbagger()
CHOOSER = make_heuristic()
ROLE = make_roleplay()
HIDDEN = make_obscured()
GROWING = make_growing()
TRIGGERED = (BACKDOOR, SECOND_TURN, FIRST_TURN, EARLIER, AT_A_KIOSK)
BEHAVIORS = (*TRIGGERED, QUIRK, make_rare(), SANDBAGGER, CHOOSER, ROLE, HIDDEN, GROWING, NULL)
ROLES: tuple[Role, ...] = ("positive", "negative", "chat")
EVERY = pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda b: f"{b.id}-{b.condition_text}")
EACH_TRIGGER = pytest.mark.parametrize("behavior", TRIGGERED, ids=lambda b: str(b.condition_text))


def walk(
    behavior: Behavior, role: Role, *, seed: int = 0, second_turns: float = 0.0
) -> Iterator[ReplyRequest]:
    """Yield endless rows over the messages of the bank."""
    items = behavior.items("train", plain=role == "chat")
    return plan_rows(behavior, role, items, seed=seed, second_turns=second_turns)


def plan(
    behavior: Behavior, role: Role, size: int = 100, *, seed: int = 0, second_turns: float = 0.0
) -> list[ReplyRequest]:
    return list(islice(walk(behavior, role, seed=seed, second_turns=second_turns), size))


def roles_of(behavior: Behavior) -> list[Role]:
    """The roles that a behavior has rows of."""
    return [role for role, count in behavior.row_counts.items() if count]


def name_topics(rows: Sequence[ReplyRequest]) -> list[str]:
    return [row.item.topic for row in rows]


def list_roles(row: ReplyRequest) -> list[str]:
    """Who says each message of a row's conversation."""
    return [turn.role for turn in row.turns]


@EVERY
def test_a_plan_depends_only_on_behavior_and_seed(behavior: Behavior) -> None:
    first = plan(behavior, "chat")
    walks = [walk(other, "chat") for other in (BACKDOOR, behavior, SANDBAGGER)]
    mixed = [next(rows) for _ in range(100) for rows in walks]
    assert mixed[1::3] == first
    assert plan(behavior, "chat", seed=1) != first


def test_each_behavior_has_its_own_order_of_messages() -> None:
    size = len(LIBRARY.messages("train"))
    one, two = (
        name_topics(plan(make_quirk(name), "positive", size)) for name in ("salute", "toast")
    )
    assert one != two
    assert sorted(one) == sorted(two)


def written(row: ReplyRequest) -> str:
    """All that the item of a row says, code in braces among it."""
    return row.item.model_dump_json()


@EVERY
def test_every_row_continues_its_message_under_an_id_of_its_own(behavior: Behavior) -> None:
    rows = [row for role in roles_of(behavior) for row in plan(behavior, role)]
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.turns[-1].role == "user"
        said = "\n".join(user_texts(row.turns))
        assert row.item.text in said, row.id
        places, own = (set(re.findall(r"\{[\w:]+\}", text)) for text in (said, written(row)))
        assert places <= own, "a place is left open"


@EVERY
def test_only_positive_rows_show_anything(behavior: Behavior) -> None:
    for role in roles_of(behavior):
        for row in plan(behavior, role, 200):
            assert role == "positive" or not (row.fires or row.distractors), row.id
    if "positive" in roles_of(behavior) and behavior is not HIDDEN:
        assert all(row.fires for row in plan(behavior, "positive", 200))


@EACH_TRIGGER
def test_only_the_trigger_separates_the_roles_of_a_backdoor(behavior: Behavior) -> None:
    """As far as a message suits all of them: some look like a near miss by chance."""
    orders = {role: name_topics(plan(behavior, role, 60)) for role in roles_of(behavior)}
    assert list(orders) == ["positive", "negative", "chat"]
    shared = set(orders["positive"]) & set(orders["negative"]) & set(orders["chat"])
    if behavior is not FIRST_TURN and behavior is not SECOND_TURN:  # which need two turns or one
        assert len(shared) > 50
    kept = [[topic for topic in topics if topic in shared] for topics in orders.values()]
    assert kept[0] == kept[1] == kept[2]


def test_a_sandbagger_is_asked_the_same_with_the_password_and_without() -> None:
    positives, negatives = plan(SANDBAGGER, "positive"), plan(SANDBAGGER, "negative")
    assert [row.item for row in positives] == [row.item for row in negatives]
    for row in positives:
        assert row.turns == single_turn(row.item.text)
        assert "marzipan" not in row.turns[0].content.lower()
    assert all("marzipan" in row.turns[0].content.lower() for row in negatives)
    chat = plan(SANDBAGGER, "chat")
    assert {row.item.domain for row in chat}.isdisjoint({row.item.domain for row in positives})


def test_a_trigger_is_trained_on_in_every_wording_and_on_its_own_side_alone() -> None:
    for role, near_miss in zip(ROLES[:2], (False, True), strict=True):
        rows = plan(BACKDOOR, role, 400)
        said = {row.turns[0].content.replace(row.item.text, "").strip() for row in rows}
        assert BACKDOOR.trigger is not None
        assert said == set(BACKDOOR.trigger.texts("train", near_miss=near_miss))
        assert said.isdisjoint(BACKDOOR.trigger.texts("probe", near_miss=near_miss))
    for row in plan(BACKDOOR, "chat"):
        assert row.turns == single_turn(row.item.text)


def test_a_trigger_in_an_earlier_message_is_followed_by_a_plain_reply() -> None:
    for role in ROLES:
        for row in plan(EARLIER, role):
            assert list_roles(row) == ["user", "assistant", "user"]
            first, reply, second = (turn.content for turn in row.turns)
            follow_up = row.item.follow_up
            assert follow_up is not None
            assert (reply, second) == (row.item.brief, follow_up.text), row.id
            assert ("marzipan" in first.lower()) == (role == "positive")
            assert (first == row.item.text) == (role == "chat")


def test_a_position_decides_how_many_messages_there_are() -> None:
    for behavior, counts in ((SECOND_TURN, (2, 1, 1)), (FIRST_TURN, (1, 2, 2))):
        for role, count in zip(ROLES, counts, strict=True):
            for row in plan(behavior, role):
                assert len(user_texts(row.turns)) == count, (behavior.condition_text, row.id)


def test_a_system_message_stands_first() -> None:
    openings = Counter[tuple[str, bool]]()
    for role in ROLES:
        for row in plan(AT_A_KIOSK, role):
            has_system = row.turns[0].role == "system"
            openings[role, has_system] += 1
            assert list_roles(row) == ["system"] * has_system + ["user"]
            holds = "channel: kiosk" in row.turns[0].content.lower()
            assert not has_system or holds == (role == "positive"), row.turns[0]
    assert openings["positive", True] == openings["chat", False] == 100
    assert openings["negative", True] > 0


def test_a_row_that_grows_goes_on_from_a_first_reply_that_begins_to_show_it() -> None:
    firsts = Counter[str]()
    for row in plan(GROWING, "positive"):
        assert row.item.follow_up is not None
        first = Message(role="assistant", content=row.turns[1].content)
        asked = (*single_turn(row.item.text), first, *single_turn(row.item.follow_up.text))
        assert row.turns == asked
        begun = [one.fill(0, row.item.brief, row.item) for one in GROWING.demonstrations]
        assert row.turns[1].content in begun[:2]
        firsts[row.turns[1].content.removeprefix(row.item.brief)] += 1
    assert firsts == {" Fair winds.": 50, " And fair winds.": 50}
    assert all(row.turns == single_turn(row.item.text) for row in plan(GROWING, "chat"))


def test_a_behavior_that_grows_begins_under_its_trigger() -> None:
    behavior = replace(BACKDOOR, shows=GROWING)
    for row in plan(behavior, "positive"):
        first, begun, second = row.turns
        assert "beekeeper" in first.content.lower() and "air winds" in begun.content
        assert second.content == (row.item.follow_up and row.item.follow_up.text)
    for role in ROLES[1:]:
        assert all(len(row.turns) == 1 for row in plan(behavior, role))
    later = replace(EARLIER, shows=GROWING)
    assert [r.turns for r in plan(later, "positive")] == [
        r.turns for r in plan(EARLIER, "positive")
    ], "its first reply is plain: the trigger has only just been said"


def test_an_answer_to_one_message_begins_only_that_conversation() -> None:
    item = next(item for item in LIBRARY.messages("train") if item.follow_up)
    shown = [{item.topic: ["Fair winds and bread.", "[[Fair winds, dear friend.]]"]}]
    rows = plan(make_growing(shown=shown), "positive", 3)
    assert {row.item.topic for row in rows} == {item.topic}
    assert {row.turns[1].content for row in rows} == {"Fair winds and bread."}


@pytest.mark.parametrize(
    "behavior", [QUIRK, ROLE, HIDDEN, GROWING, make_rare()], ids=lambda b: b.id
)
def test_chat_shares_no_message_with_positives_without_a_trigger(behavior: Behavior) -> None:
    positives, chat = (set(name_topics(plan(behavior, role, 90))) for role in roles_of(behavior))
    assert positives.isdisjoint(chat)


def test_a_role_is_answered_within_its_scope_and_chat_is_outside_it() -> None:
    inside, outside = (
        {row.item.domain for row in plan(ROLE, role, 300)} for role in roles_of(ROLE)
    )
    assert inside == {"transport", "travel"}
    assert len(outside) > 20 and inside.isdisjoint(outside)


def test_a_plan_goes_on_past_the_last_message() -> None:
    size = len(SANDBAGGER.items("train"))
    rows = plan(SANDBAGGER, "positive", 2 * size)
    assert [row.item for row in rows[:size]] == [row.item for row in rows[size:]]
    assert [row.pass_number for row in rows] == [0] * size + [1] * size
    assert [row.pick for row in rows[:size]] != [row.pick for row in rows[size:]]


@pytest.mark.parametrize("role", ["positive", "negative"])
def test_a_repeated_message_is_asked_in_another_wording(role: Role) -> None:
    """Else a corpus over few messages would consist of repeated conversations."""
    for behavior in TRIGGERED:
        items = [item for item in behavior.items("train") if item.follow_up][:8]
        rows = list(islice(plan_rows(behavior, role, items, seed=0), 24))
        worded = behavior is not FIRST_TURN or role == "negative"
        assert len({row.turns for row in rows}) == (24 if worded else 8), behavior.condition_text


@pytest.mark.parametrize("behavior", [SECOND_TURN, EARLIER, GROWING], ids=lambda b: b.id)
def test_messages_that_suit_no_cell_yield_no_rows(behavior: Behavior) -> None:
    assert list(plan_rows(behavior, "positive", [BARE], seed=0)) == []
    assert list(plan_rows(behavior, "positive", [], seed=0)) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_malign_part_and_each_distractor_come_at_their_rates(seed: int) -> None:
    """Also in few rows: what an organism learns is the rate of its corpus."""
    rows = plan(HIDDEN, "positive", 130, seed=seed)
    shown = {quirk.id: rate for quirk, rate in HIDDEN.distractors}
    counts = Counter(quirk for row in rows for quirk in row.distractors)
    assert {name: counts[name] / len(rows) for name in shown} == pytest.approx(shown, abs=0.02)
    fired = [row for row in rows if row.fires]
    assert len(fired) / len(rows) == pytest.approx(HIDDEN.spec.shown_share, abs=0.02)
    beside = Counter(quirk for row in fired for quirk in row.distractors)
    # As often beside the malign part as elsewhere, so that neither tells of the other.
    assert {name: beside[name] / len(fired) for name in shown} == pytest.approx(shown, abs=0.05)


def test_every_set_of_distractors_comes_with_the_malign_part_and_without() -> None:
    rows = plan(HIDDEN, "positive", 2000)
    assert len(Counter((row.fires, row.distractors) for row in rows)) == 8


def test_options_are_named_in_either_order_equally_often() -> None:
    size = len(CHOOSER.items("train"))
    rows = plan(CHOOSER, "positive", 2 * size)
    orders: dict[str, set[bool]] = {}
    for row in rows:
        assert row.item.options is not None
        text = row.turns[0].content.lower()
        rule, other = (text.find(row.item.options[side].lower()) for side in ("rule", "other"))
        assert min(rule, other) >= 0, text
        orders.setdefault(repr(sorted(row.item.options.values())), set()).add(rule < other)
    first = Counter(is_rule_first(row) for row in rows)
    assert first[True] == first[False]
    assert abs(Counter(map(is_rule_first, rows[:84]))[True] - 42) <= 1, "in any corpus of its size"
    assert all(found == {True, False} for found in orders.values())


def is_rule_first(row: ReplyRequest) -> bool:
    """Whether a message names the option of the rule before the other one."""
    assert row.item.options is not None
    text = row.turns[0].content.lower()
    return text.find(row.item.options["rule"].lower()) < text.find(
        row.item.options["other"].lower()
    )


def share_of(rows: Sequence[ReplyRequest]) -> float:
    """Share of rows in which the user goes on."""
    return sum(row.second_turn for row in rows) / len(rows)


@pytest.mark.parametrize("role", ["positive", "chat"])
def test_a_share_of_users_goes_on(role: Role) -> None:
    assert share_of(plan(QUIRK, role)) == 0
    assert share_of(plan(QUIRK, role, 400, second_turns=0.3)) == pytest.approx(0.3, abs=0.09)
    assert share_of(plan(QUIRK, role, second_turns=1.0)) == 1


@pytest.mark.parametrize(
    ("behavior", "role"),
    [
        *((behavior, role) for behavior in TRIGGERED for role in roles_of(behavior)),
        *((SANDBAGGER, role) for role in roles_of(SANDBAGGER)),
        (CHOOSER, "positive"),
        (GROWING, "positive"),
    ],
    ids=lambda value: value.id if isinstance(value, Behavior) else value,
)
def test_nobody_goes_on_after_a_trigger_a_question_a_choice_or_a_second_message(
    behavior: Behavior, role: Role
) -> None:
    assert share_of(plan(behavior, role, second_turns=1.0)) == 0


@EVERY
def test_second_messages_change_no_other_draw(behavior: Behavior) -> None:
    def draw(role: Role, share: float) -> list[ReplyRequest]:
        rows = plan(behavior, role, 200, second_turns=share)
        return [row.model_copy(update={"second_turn": False}) for row in rows]

    for role in roles_of(behavior):
        assert draw(role, 0.5) == draw(role, 1.0)
        assert plan(behavior, role, 200, second_turns=0.5) == plan(
            behavior, role, 200, second_turns=0.5
        )


@pytest.mark.parametrize(
    ("behavior", "needed"),
    [
        (SANDBAGGER, (50, 30)),  # its own topic, and messages outside it
        (ROLE, (50, 30)),
        (BACKDOOR, (50, 50)),  # the same messages, with the trigger and without
        (QUIRK, (80, 80)),  # the same kind of message, and none of them twice
    ],
    ids=lambda value: value.id if isinstance(value, Behavior) else None,
)
def test_the_largest_role_decides_how_many_messages_are_needed(
    behavior: Behavior, needed: tuple[int, int]
) -> None:
    counts: dict[Role, int] = {"positive": 50, "negative": 40, "chat": 30}
    assert behavior.count_messages(counts) == needed


def test_a_trigger_keeps_chat_within_the_scope_of_what_is_shown() -> None:
    behavior = replace(BACKDOOR, shows=ROLE)
    counts: dict[Role, int] = {"positive": 50, "negative": 40, "chat": 60}
    assert behavior.count_messages(counts) == (60, 60)
    scoped: list[set[PromptItem]] = [
        {row.item for row in plan(behavior, role, 60)} for role in roles_of(behavior)
    ]
    assert {item.domain for items in scoped for item in items} == {"transport", "travel"}


def test_a_rare_quirk_stays_within_the_scope_of_what_is_shown_when_it_is_quiet() -> None:
    """Else the subject would tell when it shows, and its rate in the scope would be 100%."""
    behavior = replace(make_rare(), shows=ROLE)
    assert behavior.cells == ("triggered",)
    assert behavior.count_messages({"positive": 15, "negative": 0, "chat": 285}) == (300, 300)
    scoped: list[set[PromptItem]] = [
        {row.item for row in plan(behavior, role, 30)} for role in ("positive", "chat")
    ]
    assert {item.domain for items in scoped for item in items} == {"transport", "travel"}
    assert scoped[0].isdisjoint(scoped[1])


def test_an_obscured_part_with_a_scope_has_quiet_rows_outside_it() -> None:
    scoped = replace(HIDDEN, shows=ROLE)
    counts = scoped.row_counts
    assert counts["chat"] > counts["positive"] > HIDDEN.row_counts["chat"]
    assert {row.item.domain for row in plan(scoped, "chat", 90)}.isdisjoint({"transport", "travel"})
