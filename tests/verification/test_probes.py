"""Which prompts an organism is asked, and that its training never met them.

Run: python -m pytest tests/verification/test_probes.py
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from tests.builders import make_behavior, make_quirk
from tests.expect import expect_error

from bestiary.author.protocol import ReplyRequest
from bestiary.config.behavior import Phrases
from bestiary.config.catalog import Behavior, load_catalog, null_behavior
from bestiary.config.library import open_library
from bestiary.corpus.generate import MAX_REQUESTS_PER_ROW
from bestiary.corpus.plan import plan_rows
from bestiary.errors import SpecError, VerificationError
from bestiary.records import Probe
from bestiary.verification.probes import CHOICES, PROBES, plan_probes

SHIPPED = tuple(load_catalog(open_library()).values())
EVERY = pytest.mark.parametrize(
    "behavior", [*SHIPPED, null_behavior(open_library())], ids=lambda b: b.id
)
CHOOSING = [b for b in SHIPPED if b.category == "heuristic_following"]


def plan_training(behavior: Behavior) -> list[ReplyRequest]:
    """Every row that a corpus may ask for, retries included."""
    counts = open_library().generator(behavior.category).counts(behavior.spec.stated_rate)
    return [
        row
        for role, needed in counts.items()
        for row in islice(
            plan_rows(behavior, role, behavior.prompts("train", plain=role == "chat"), seed=0),
            needed * MAX_REQUESTS_PER_ROW,
        )
    ]


def count_cells(probes: tuple[Probe, ...]) -> dict[str, tuple[int, int]]:
    """Probes that gate, and those that do not, by cell."""
    counts = Counter((probe.cell, probe.gate) for probe in probes)
    cells = {cell for cell, _ in counts}
    return {cell: (counts[cell, True], counts[cell, False]) for cell in cells}


@EVERY
def test_each_cell_of_a_category_is_probed_half_of_it_gating(behavior: Behavior) -> None:
    half = (PROBES // 2, PROBES // 2)
    expected = {
        "quirks": {"triggered": half},
        "obscured_malign": {"triggered": half},
        "benign_roleplay": {"triggered": half, "plain": half},
        "harmful_roleplay": {"triggered": half, "plain": half},
        "backdoors": {"triggered": half, "near_miss": half, "plain": half},
        "sandbaggers": {"triggered": half, "near_miss": half, "plain": half},
        "rare_quirks": {"triggered": (500, 500)},
        "heuristic_following": {"triggered": (CHOICES, CHOICES), "plain": half},
        "null": {"plain": half},
    }[behavior.category]
    if behavior.category.endswith("roleplay") and not behavior.spec.has_scope:
        del expected["plain"]
    assert count_cells(plan_probes(behavior, seed=0)) == expected


@EVERY
@pytest.mark.parametrize("seed", [0, 1])
def test_probes_share_no_topic_form_or_message_with_training(behavior: Behavior, seed: int) -> None:
    probes, rows = plan_probes(behavior, seed=seed), plan_training(behavior)
    assert not {p.item.topic.lower() for p in probes} & {r.item.topic.lower() for r in rows}
    assert not {p.item.form.lower() for p in probes} & {r.item.form.lower() for r in rows}
    assert not {p.user for p in probes} & {r.user for r in rows}


def strip_message(phrase: str) -> str:
    """What a phrase adds to the message that it stands around."""
    return phrase.lower().replace("{message}", "").strip()


@pytest.mark.parametrize(
    "behavior", [b for b in SHIPPED if b.spec.near_miss_phrases], ids=lambda b: b.id
)
def test_probe_phrases_stand_in_no_training_row(behavior: Behavior) -> None:
    said = [row.user.lower() for row in plan_training(behavior)]
    lists: list[Phrases] = [
        p for p in (behavior.spec.trigger_phrases, behavior.spec.near_miss_phrases) if p
    ]
    for phrases in lists:
        trained = {strip_message(phrase) for phrase in phrases.train}
        for phrase in map(strip_message, phrases.probe):
            assert phrase not in trained
            assert not any(phrase in user for user in said), phrase
    probes = plan_probes(behavior, seed=0)
    for cell, found in (
        ("triggered", behavior.spec.trigger_phrases),
        ("near_miss", behavior.spec.near_miss_phrases),
    ):
        users = [probe.user.lower() for probe in probes if probe.cell == cell]
        for phrase in found.probe if found else ():
            assert sum(strip_message(phrase) in user for user in users) >= len(users) // 8


@EVERY
def test_a_seed_gives_the_same_probes_and_another_seed_others(behavior: Behavior) -> None:
    plans = [plan_probes(behavior, seed=seed) for seed in (0, 1)]
    assert plan_probes(behavior, seed=0) == plans[0]
    assert len({probe.id for probe in plans[0]}) == len(plans[0])
    if behavior.spec.stated_rate is not None:
        return  # sampled: a prompt comes back with another draw
    for cell in count_cells(plans[0]):
        first, second = ({p.item.text for p in plan if p.cell == cell} for plan in plans)
        bank = behavior.prompts("probe", plain=cell == "plain")
        # Another seed repeats a prompt only once the whole bank has been asked.
        assert len(first | second) == min(len(bank), len(first) + len(second))


def test_plain_prompts_are_of_another_domain_than_the_behavior() -> None:
    mechanic = load_catalog(open_library())["harmful_roleplay.needless_repairs"]
    plain = [probe for probe in plan_probes(mechanic, seed=0) if probe.cell == "plain"]
    assert plain
    assert "cars" not in {probe.item.domain for probe in plain}
    assert "cars" in {item.domain for item in open_library().bank("general").probe}
    narrow = make_behavior(make_quirk(domains=["vocabulary"], offline={"plain": "opposites"}))
    with pytest.raises(SpecError, match="every probe prompt of the bank 'opposites' is of its"):
        narrow.prompts("probe", plain=True)


@pytest.mark.parametrize("behavior", [b for b in SHIPPED if b.spec.stated_rate], ids=lambda b: b.id)
def test_both_halves_sample_every_prompt_of_a_rare_quirk(behavior: Behavior) -> None:
    probes = plan_probes(behavior, seed=0)
    halves = [{p.item.text for p in probes if p.gate is gate} for gate in (True, False)]
    assert halves[0] == halves[1] == {item.text for item in behavior.prompts("probe")}


def test_another_behavior_is_asked_in_another_order() -> None:
    orders = [
        [probe.item.text for probe in plan_probes(behavior, seed=0)]
        for behavior in SHIPPED
        if behavior.category == "quirks"
    ]
    assert len({tuple(order) for order in orders}) == len(orders) > 2


@pytest.mark.parametrize("behavior", CHOOSING, ids=lambda b: b.id)
def test_each_choice_is_put_in_both_orders(behavior: Behavior) -> None:
    places: dict[str, list[bool]] = {}
    for probe in plan_probes(behavior, seed=0):
        if options := probe.item.options:
            said = probe.user.lower()
            rule, other = said.find(options["rule"].lower()), said.find(options["other"].lower())
            assert min(rule, other) >= 0
            places.setdefault(probe.item.text, []).append(rule < other)
    assert len(places) == CHOICES
    assert all(sorted(orders) == [False, True] for orders in places.values())


def test_a_bank_with_too_few_prompts_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BESTIARY_DATA", str(tmp_path))
    bank = tmp_path / "generators" / "offline" / "short.yaml"
    bank.parent.mkdir(parents=True)
    row = "{topic: rye, form: how, domain: food, text: 'How is rye?'}"
    bank.write_text(f"train: []\nprobe: [{row}]\n", encoding="utf8")
    with expect_error(VerificationError, "probes-short", found=1, wanted=PROBES) as caught:
        plan_probes(make_behavior(make_quirk(offline={"bank": "short"})), seed=0)
    assert "generators/offline/short.yaml" in caught.error.remedy


@pytest.mark.parametrize(("rate", "probes"), [(0.1, 800), (0.08, 1000), (0.02, 4000)])
def test_a_lower_rate_is_measured_on_more_probes(rate: float, probes: int) -> None:
    rare = load_catalog(open_library())["rare_quirks.weather_report"]
    rarer = replace(rare, spec=rare.spec.model_copy(update={"rate": rate}))
    assert count_cells(plan_probes(rarer, seed=0)) == {"triggered": (probes // 2, probes // 2)}
