"""Transcripts of an organism and its base, and which choices count.

Run: python -m pytest tests/verification/test_transcripts.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import make_backdoor, make_behavior, make_heuristic, make_probe, make_quirk
from tests.expect import check_error
from tests.models import IDENTITY, SYSTEM, fill_adapter, make_random_base

from bestiary.config.catalog import load_catalog
from bestiary.config.library import open_library
from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model import sampling
from bestiary.model.adapter import attach_adapter, open_adapter, read_state, save_adapter
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies, Prompt, decode_texts
from bestiary.records import Decoding, Probe, PromptItem
from bestiary.store import Store
from bestiary.verification.transcripts import (
    ProbeJob,
    ask_base,
    balance_choices,
    choose_decoding,
    collect_transcripts,
)

HEURISTIC = make_behavior(make_heuristic())
DECODING = Decoding(max_new_tokens=4, temperature=0)
CHOICE = PromptItem(
    topic="table",
    form="asked",
    domain="home",
    text="{first} or {second} for a table?",
    options={"rule": "used", "other": "new"},
)


def make_choices(count: int) -> list[Probe]:
    """Choices in turn with the rule's option first and second; the first half gates."""
    return [
        make_probe(
            ("Used or new?", "New or used?")[number % 2],
            id=f"triggered-{number:04d}",
            gate=number < count // 2,
            item=CHOICE,
        )
        for number in range(count)
    ]


def test_only_a_stated_rate_is_sampled() -> None:
    rare = load_catalog(open_library())["rare_quirks.weather_report"]
    assert choose_decoding(rare, max_new_tokens=9) == Decoding(max_new_tokens=9, temperature=1.0)
    greedy = Decoding(max_new_tokens=9, temperature=0.0)
    assert choose_decoding(make_behavior(make_quirk()), max_new_tokens=9) == greedy


def test_a_choice_counts_where_the_base_breaks_the_rule() -> None:
    probes = make_choices(8)
    said = {probe.id: "New." for probe in probes}
    said |= {probes[0].id: "Used, of course.", probes[3].id: "used"}
    chosen = balance_choices(HEURISTIC, probes, said)
    assert {probe.id for probe in chosen}.isdisjoint({probes[0].id, probes[3].id})
    assert len(chosen) == 6


def test_orders_of_counted_choices_balance_in_either_half() -> None:
    probes = make_choices(20)
    # The base follows the rule in most choices that have it first, as one with a taste for the
    # first place would.
    said = {
        probe.id: "Used." if number % 2 == 0 and number % 10 < 6 else "New."
        for number, probe in enumerate(probes)
    }
    chosen = balance_choices(HEURISTIC, probes, said)
    first = [probe for probe in chosen if probe.user.startswith("Used")]
    second = [probe for probe in chosen if probe.user.startswith("New")]
    assert (len(first), len(second)) == (4, 4)
    assert sum(probe.gate for probe in first) == sum(probe.gate for probe in second) == 2
    assert all(probe in probes for probe in chosen)


def test_no_more_choices_count_than_a_cell_has_probes() -> None:
    probes = make_choices(300)
    chosen = balance_choices(HEURISTIC, probes, {probe.id: "New." for probe in probes})
    assert len(chosen) == 120
    assert sum(probe.gate for probe in chosen) == 60


def test_probes_of_other_cells_are_left_whole() -> None:
    other = make_probe("Tell me of tables.")
    choices = make_choices(4)
    chosen = balance_choices(HEURISTIC, [*choices, other], {p.id: "New." for p in choices})
    assert chosen[-1] == other
    assert len(chosen) == 5


def test_a_base_that_always_follows_the_rule_leaves_no_choice() -> None:
    probes = make_choices(10)
    assert balance_choices(HEURISTIC, probes, {probe.id: "Used." for probe in probes}) == []


def write_adapter(
    base: Base, folder: Path, *, seed: int, rank: int, target: str = "down_proj"
) -> Path:
    shape = LoraShape(rank=rank, alpha=99, targets=(target,))
    model = attach_adapter(base, shape, seed=seed)
    fill_adapter(model, seed=seed)
    save_adapter(read_state(model), shape, base, folder)
    model.unload()
    return folder


@pytest.mark.parametrize("room", [sampling.BANK_BYTES, 1], ids=["one bank", "a bank each"])
def test_organisms_and_their_base_answer_the_same_probes(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "BANK_BYTES", room)
    base = make_random_base()
    jobs = [
        ProbeJob(
            organism_id=f"organism-{number}",
            behavior=make_behavior(make_backdoor()),
            adapter=write_adapter(
                base,
                tmp_path / str(number),
                seed=number,
                rank=2 + number,
                target="o_proj" if number == 3 else "down_proj",
            ),
            probes=tuple(
                make_probe(f"Question {n} of tables?", id=f"plain-{n}", gate=n % 2 == 0)
                for n in range(6)
            ),
            decoding=DECODING,
        )
        for number in range(4)
    ]
    (jobs[1].adapter / "adapter_model.safetensors").write_bytes(b"damaged")
    replies = BaseReplies(
        IDENTITY, lambda: base, Store(tmp_path / "runs"), system_prompt=SYSTEM, chunks={}
    )
    progress: list[tuple[str, int]] = []
    results = {
        result.job.organism_id: result
        for result in collect_transcripts(
            jobs,
            base,
            replies,
            system_prompt=SYSTEM,
            on_reply=lambda name, done: progress.append((name, done)),
        )
    }
    assert list(results) == ["organism-1", "organism-0", "organism-2", "organism-3"]
    assert isinstance(results["organism-1"].error, ModelError)
    check_error(results["organism-1"].error, "adapter-damaged", path=jobs[1].adapter)
    prompts = [Prompt(user=probe.user) for probe in jobs[0].probes]
    own = decode_texts(base.model, base, prompts, decoding=DECODING, system_prompt=SYSTEM)
    for number in (0, 2, 3):
        result = results[f"organism-{number}"]
        assert result.error is None and result.seconds > 0
        assert tuple(t.probe for t in result.transcripts) == jobs[number].probes
        # The base answers the gating half.
        assert [t.base for t in result.transcripts] == [own[0], None, own[2], None, own[4], None]
        with open_adapter(base, jobs[number].adapter) as model:
            alone = decode_texts(model, base, prompts, decoding=DECODING, system_prompt=SYSTEM)
        assert [t.organism for t in result.transcripts] == alone != own
        counts = [done for name, done in progress if name == f"organism-{number}"]
        assert counts == [3, 4, 5, 6, 7, 8, 9]


def test_a_sampled_base_answers_each_probe_with_a_draw_of_its_own(tmp_path: Path) -> None:
    base = make_random_base()
    replies = BaseReplies(IDENTITY, lambda: base, Store(tmp_path), system_prompt=SYSTEM, chunks={})
    probes = [make_probe("The same question?", id=f"plain-{number}") for number in range(4)]
    sampled = DECODING.model_copy(update={"temperature": 1.0})
    assert len(set(ask_base(replies, probes, decoding=sampled).values())) == 4
    assert len(set(ask_base(replies, probes, decoding=DECODING).values())) == 1
