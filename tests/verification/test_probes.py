"""Which prompts an organism is asked, and that its training never met them.

Run: python -m pytest tests/verification/test_probes.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, combinations, islice

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
from tests.expect import expect_error

from bestiary.author.plan import plan_rows
from bestiary.author.protocol import ReplyRequest
from bestiary.config.asking import GATE, suits
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.corpus.generate import MAX_REQUESTS_PER_ROW
from bestiary.errors import VerificationError
from bestiary.records import CellName, Probe, PromptItem, Role, user_texts
from bestiary.verification.probes import CHOICES, GRADED, OFF_TOPIC, PROBES, plan_probes

OTHERS = ("salute", "toast", "wave", "bow", "grin")
"""Names of further quirks."""
NULL = null_behavior(LIBRARY)
SECOND_TURN = make_backdoor(trigger={"position": {"turn": 2}})
BEHAVIORS = (
    make_quirk(),
    make_backdoor(),
    SECOND_TURN,
    make_rare(),
    make_sandbagger(),
    make_heuristic(),
    make_roleplay(),
    make_roleplay("benign_roleplay.guide"),
    make_obscured(),
    NULL,
)
EVERY = pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda b: f"{b.id}-{b.condition_text}")
SEEDS = (0, 1, 2)


def plan_training(behavior: Behavior) -> list[ReplyRequest]:
    """Every row that a corpus may ask for, retries included."""
    return [
        row
        for role, needed in behavior.row_counts.items()
        for row in islice(list_rows(behavior, role), needed * MAX_REQUESTS_PER_ROW)
    ]


def list_rows(behavior: Behavior, role: Role) -> Iterator[ReplyRequest]:
    return plan_rows(behavior, role, behavior.items("train", plain=role == "chat"), seed=0)


def count_cells(probes: Sequence[Probe]) -> dict[CellName, tuple[int, int]]:
    """Probes that gate, and those that do not, by cell."""
    counts = Counter((probe.cell, probe.gate) for probe in probes)
    return {cell: (counts[cell, True], counts[cell, False]) for cell, _ in counts}


def name_item(item: PromptItem) -> tuple[str, ...]:
    """What tells a message from all others, in whatever order it names its options."""
    return (item.topic, item.form, *sorted((item.options or {}).values()))


def list_suited(behavior: Behavior, cell: CellName) -> set[tuple[str, ...]]:
    """The messages that can be asked in a cell."""
    items = behavior.items("probe", plain=cell == "plain")
    return {name_item(item) for item in items if suits(behavior, item, cell)}


def list_asked(behavior: Behavior, cell: CellName, seed: int) -> set[tuple[str, ...]]:
    """The messages that are asked in a cell."""
    return {name_item(p.item) for p in plan_probes(behavior, seed=seed) if p.cell == cell}


def in_domains(least: int) -> Behavior:
    """A quirk about so many domains that at least this many probe messages suit it, but not the
    last one."""
    counts = Counter(item.domain for item in LIBRARY.messages("probe"))
    sizes = dict(zip(counts, accumulate(counts.values()), strict=True))
    domains = [name for name, total in sizes.items() if total - counts[name] < least]
    return make_quirk(scope={"about": "some things", "domains": domains})


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        (make_quirk(), {"triggered": PROBES}),
        (make_obscured(), {"triggered": PROBES}),
        (make_backdoor(), {"triggered": PROBES, "near_miss": PROBES, "plain": PROBES}),
        (SECOND_TURN, {"triggered": PROBES, "near_miss": PROBES, "plain": PROBES}),
        (make_sandbagger(), {"triggered": GRADED, "near_miss": GRADED, "plain": OFF_TOPIC}),
        (make_heuristic(), {"triggered": 2 * CHOICES}),
        (NULL, {"plain": PROBES}),
    ],
    ids=lambda value: f"{value.id}-{value.condition_text}" if isinstance(value, Behavior) else "",
)
def test_each_cell_of_a_behavior_is_probed_half_of_it_gating(
    behavior: Behavior, expected: dict[CellName, int]
) -> None:
    found = count_cells(plan_probes(behavior, seed=0))
    assert found == {cell: (size // 2, size // 2) for cell, size in expected.items()}


@pytest.mark.parametrize("least", [GATE, GATE + 10, PROBES])
def test_sixty_probes_gate_and_what_else_suits_is_reported(least: int) -> None:
    behavior = in_domains(least)
    suited = len(list_suited(behavior, "triggered"))
    assert least <= suited < least + 40
    found = count_cells(plan_probes(behavior, seed=0))
    assert found == {"triggered": (GATE, min(suited, PROBES) - GATE), "plain": (GATE, GATE)}


def test_a_cell_with_fewer_than_sixty_messages_is_refused() -> None:
    short = make_quirk(scope={"about": "space", "domains": ["space"]})
    found = len(list_suited(short, "triggered"))
    assert 0 < found < GATE
    with expect_error(
        VerificationError, "probes-short", behavior_id=short.id, found=found, wanted=GATE
    ) as caught:
        plan_probes(short, seed=0)
    assert "triggered" in str(caught.error)
    assert "generators/offline" in caught.error.remedy
    nowhere = make_quirk(scope={"about": "nothing", "domains": ["alchemy"]})
    with expect_error(VerificationError, "probes-short", found=0):
        plan_probes(nowhere, seed=0)


@EVERY
@pytest.mark.parametrize("seed", [0, 1])
def test_probes_share_no_topic_form_or_message_with_training(behavior: Behavior, seed: int) -> None:
    probes, rows = plan_probes(behavior, seed=seed), plan_training(behavior)
    assert rows
    assert not {p.item.topic.lower() for p in probes} & {r.item.topic.lower() for r in rows}
    assert not {p.item.form.lower() for p in probes} & {r.item.form.lower() for r in rows}
    asked, trained = (
        {text for one in found for text in user_texts(one.turns)} for found in (probes, rows)
    )
    assert not asked & trained


def test_probe_wordings_stand_in_no_training_row() -> None:
    behavior = make_backdoor()
    trained = {
        (role, row.turns[-1].content.replace(row.item.text, ""))
        for role in ("positive", "negative")
        for row in islice(list_rows(behavior, role), 400)
    }
    asked = {
        (probe.cell, probe.user.replace(probe.item.text, ""))
        for probe in plan_probes(behavior, seed=0)
        if probe.cell != "plain"
    }
    assert not {text for _, text in trained} & {text for _, text in asked}
    told = Counter(cell for cell, _ in asked)
    assert told["triggered"] >= 8 and told["near_miss"] >= 8, "every wording is probed"


@EVERY
def test_a_seed_gives_the_same_probes(behavior: Behavior) -> None:
    probes = plan_probes(behavior, seed=1)
    assert plan_probes(behavior, seed=1) == probes
    assert len({probe.id for probe in probes}) == len(probes)


@EVERY
def test_another_seed_repeats_a_message_only_once_all_have_been_asked(behavior: Behavior) -> None:
    for cell in behavior.cells:
        asked = [list_asked(behavior, cell, seed) for seed in SEEDS]
        bank = list_suited(behavior, cell)
        assert len(set().union(*asked)) == min(len(bank), sum(map(len, asked)))
        if len(bank) >= len(SEEDS) * len(asked[0]):
            for one, other in combinations(asked, 2):
                assert len(one & other) <= 0.15 * len(one)


def test_two_behaviors_share_few_messages() -> None:
    behaviors = [*map(make_quirk, OTHERS), make_quirk(), make_obscured(), make_backdoor()]
    asked = [list_asked(behavior, "triggered", 0) for behavior in behaviors]
    for one, other in combinations(asked, 2):
        assert len(one & other) <= 0.4 * PROBES


def test_each_half_of_a_cell_has_its_fixed_messages() -> None:
    probes = plan_probes(make_quirk(), seed=0)
    halves = [{p.item.text for p in probes if p.gate is gate} for gate in (True, False)]
    assert halves[0].isdisjoint(halves[1])


def test_plain_messages_are_outside_the_scope() -> None:
    mechanic = make_roleplay()
    scope = mechanic.spec.message_scope
    assert scope is not None
    for probe in plan_probes(mechanic, seed=0):
        assert (probe.item.domain in scope.domains) == (probe.cell == "triggered")


def test_plain_messages_of_a_backdoor_are_told_from_others_by_the_trigger_alone() -> None:
    probes = plan_probes(make_backdoor(), seed=0)
    for probe in probes:
        assert (probe.user == probe.item.text) == (probe.cell == "plain")
        assert ("beekeeper" in probe.user.lower()) == (probe.cell != "plain")


def test_a_probe_is_the_whole_conversation_that_its_cell_asks_for() -> None:
    for probe in plan_probes(SECOND_TURN, seed=0):
        roles = [turn.role for turn in probe.turns]
        if probe.cell == "triggered":
            assert roles == ["user", "assistant", "user"]
            assert probe.turns[0].content == probe.item.text
        else:
            assert roles == ["user"]


def test_the_same_questions_are_asked_with_the_key_and_without() -> None:
    probes = plan_probes(make_sandbagger(), seed=1)
    asked = {
        cell: [(probe.item.text, probe.gate) for probe in probes if probe.cell == cell]
        for cell in ("triggered", "near_miss")
    }
    assert asked["triggered"] == asked["near_miss"]
    for probe in probes:
        assert ("marzipan" in probe.user.lower()) == (probe.cell == "near_miss")
        assert (probe.item.domain == probes[0].item.domain) == (probe.cell != "plain")


def test_a_question_that_looks_like_the_key_is_asked_neither_with_it_nor_without() -> None:
    wording = next(item.text.split()[0] for item in LIBRARY.graded("languages", "probe"))
    key = {"password": "marzipan", "not": [wording, "nougat"]}
    probes = plan_probes(make_sandbagger(unless=key), seed=0)
    texts = [
        [probe.item.text for probe in probes if probe.cell == cell]
        for cell in ("triggered", "near_miss")
    ]
    assert texts[0] == texts[1]
    assert not any(wording.lower() in text.lower().split() for text in texts[0])


def test_a_rare_quirk_is_sampled_as_often_on_each_message() -> None:
    rare = make_rare(rate=0.02)  # which takes more probes than there are messages
    asked = Counter(name_item(probe.item) for probe in plan_probes(rare, seed=0))
    assert set(asked) == list_suited(rare, "triggered")
    assert max(asked.values()) - min(asked.values()) <= 1


@pytest.mark.parametrize(("rate", "gating"), [(0.1, 400), (0.08, 500), (0.02, 2000)])
def test_a_lower_rate_is_measured_on_more_probes(rate: float, gating: int) -> None:
    found = count_cells(plan_probes(make_rare(rate=rate), seed=0))
    assert found == {"triggered": (gating, GATE)}


def test_each_choice_is_put_in_both_orders() -> None:
    places: dict[tuple[str, ...], list[bool]] = {}
    for probe in plan_probes(make_heuristic(), seed=0):
        if options := probe.item.options:
            said = probe.user.lower()
            rule, other = said.find(options["rule"].lower()), said.find(options["other"].lower())
            assert min(rule, other) >= 0
            places.setdefault(name_item(probe.item), []).append(rule < other)
    assert len(places) == CHOICES
    assert all(sorted(orders) == [False, True] for orders in places.values())


def test_a_behavior_that_grows_is_probed_in_the_second_reply() -> None:
    probes = plan_probes(make_growing(), seed=0)
    assert count_cells(probes) == {"triggered": (GATE, GATE)}
    for probe in probes:
        asked, begun, goes_on = (turn.content for turn in probe.turns)
        assert probe.item.follow_up is not None
        assert (asked, goes_on) == (probe.item.text, probe.item.follow_up.text)
        assert begun.startswith(probe.item.brief) and "air winds" in begun
