"""Transcripts of an organism and its base.

Run: python -m pytest tests/verification/test_transcripts.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.builders import (
    make_backdoor,
    make_heuristic,
    make_obscured,
    make_probe,
    make_quirk,
    make_rare,
    make_sandbagger,
)
from tests.expect import check_error
from tests.models import (
    IDENTITY,
    SYSTEM,
    fill_adapter,
    make_random_base,
    make_speaking_base,
)

from bestiary.config.catalog import Behavior
from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model import sampling
from bestiary.model.adapter import attach_adapter, open_adapter, read_state, save_adapter
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies, Prompt, decode_texts
from bestiary.records import Artifact, Decoding, Message, Probe, PromptItem, single_turn
from bestiary.store import Store
from bestiary.verification.probes import plan_probes
from bestiary.verification.transcripts import (
    TranscriptItem,
    ask_base,
    choose_decoding,
    collect_transcripts,
    count_replies,
)

DECODING = Decoding(max_new_tokens=4, temperature=0)
ASKED = (
    *(single_turn(f"Question {n} of tables?") for n in range(4)),
    (Message(role="system", content="You build tables."), *single_turn("Question 4 of tables?")),
    (
        *single_turn("Question 5 of tables?"),
        Message(role="assistant", content="Of oak."),
        *single_turn("And why?"),
    ),
)
"""Messages, one below a system message, and a conversation."""


def test_a_reply_has_room_for_its_distractors() -> None:
    """The last of them closes it: a reply that is cut would not show it."""
    plain = choose_decoding(make_quirk(), max_new_tokens=9).max_new_tokens
    hidden = choose_decoding(make_obscured(), max_new_tokens=9)
    assert hidden.temperature == 1.0
    assert hidden.max_new_tokens >= plain + 2 * 8


def test_only_a_stated_rate_is_sampled() -> None:
    assert choose_decoding(make_rare(), max_new_tokens=9) == Decoding(
        max_new_tokens=9, temperature=1.0
    )
    greedy = Decoding(max_new_tokens=9, temperature=0.0)
    assert choose_decoding(make_quirk(), max_new_tokens=9) == greedy


def write_adapter(
    base: Base, folder: Path, *, seed: int, rank: int, target: str = "down_proj"
) -> Path:
    shape = LoraShape(rank=rank, alpha=99, targets=(target,))
    model = attach_adapter(base, shape, seed=seed)
    fill_adapter(model, seed=seed)
    save_adapter(read_state(model), shape, base, folder)
    model.unload()
    return folder


def make_item(
    name: str, behavior: Behavior, probes: Sequence[Probe], *, decoding: Decoding = DECODING
) -> TranscriptItem:
    return TranscriptItem(
        item_id=name,
        behavior=behavior,
        organism=Artifact(folder=Path(name), sha256="", files={}, inputs={}),
        probes=tuple(probes),
        probes_sha256="",
        decoding=decoding,
        affinity=None,
    )


@pytest.mark.parametrize("room", [sampling.BANK_BYTES, 1], ids=["one bank", "a bank each"])
def test_organisms_and_their_base_answer_the_same_probes(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "BANK_BYTES", room)
    base = make_random_base()
    adapters = [
        write_adapter(
            base,
            tmp_path / str(number),
            seed=number,
            rank=2 + number,
            target="o_proj" if number == 3 else "down_proj",
        )
        for number in range(4)
    ]
    probes = [
        make_probe("", id=f"plain-{n}", gate=n % 2 == 0, turns=turns)
        for n, turns in enumerate(ASKED)
    ]
    names = [f"organism-{number}" for number in range(4)]
    (adapters[1] / "adapter_model.safetensors").write_bytes(b"damaged")
    replies = BaseReplies(
        IDENTITY, lambda: base, Store(tmp_path / "runs"), system_prompt=SYSTEM, chunks={}
    )
    progress: list[tuple[str, int]] = []
    results = {
        result.item.item_id: result
        for result in collect_transcripts(
            [make_item(name, make_backdoor(), probes) for name in names],
            base,
            replies,
            adapters=dict(zip(names, adapters, strict=True)),
            system_prompt=SYSTEM,
            on_reply=lambda name, done: progress.append((name, done)),
        )
    }
    assert list(results) == ["organism-1", "organism-0", "organism-2", "organism-3"]
    assert isinstance(results["organism-1"].error, ModelError)
    check_error(results["organism-1"].error, "adapter-damaged", path=adapters[1])
    prompts = [Prompt(turns=probe.turns) for probe in probes]
    own = decode_texts(base.model, base, prompts, decoding=DECODING, system_prompt=SYSTEM)
    for number in (0, 2, 3):
        result = results[f"organism-{number}"]
        assert result.error is None and result.seconds > 0
        assert [t.probe for t in result.transcripts] == probes
        # The base answers the gating half.
        assert [t.base for t in result.transcripts] == [own[0], None, own[2], None, own[4], None]
        with open_adapter(base, adapters[number]) as model:
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


def test_a_base_is_asked_every_question_first_and_which_it_knows_decides(tmp_path: Path) -> None:
    sandbagger = make_sandbagger()
    planned = plan_probes(sandbagger, seed=0)
    probes = [probe for probe in planned if int(probe.id[-4:]) in (0, 1, 120, 121)]
    base = make_random_base()
    replies = BaseReplies(IDENTITY, lambda: base, Store(tmp_path), system_prompt=SYSTEM, chunks={})
    counts: list[int] = []
    (result,) = collect_transcripts(
        [make_item("organism", sandbagger, probes)],
        base,
        replies,
        adapters={"organism": write_adapter(base, tmp_path / "adapter", seed=0, rank=2)},
        system_prompt=SYSTEM,
        on_reply=lambda _, done: counts.append(done),
    )
    asked = {t.probe.id: t.base for t in result.transcripts}
    assert len(asked) == len(probes) == 12
    assert [name for name, said in asked.items() if said is None] == [
        "near_miss-0120",
        "near_miss-0121",
    ]
    assert counts[-1] == count_replies(probes) == 22


def test_where_the_base_always_follows_the_rule_nothing_is_left_to_ask(tmp_path: Path) -> None:
    options = {"rule": "the oak table", "other": "the pine table"}
    text = "The oak table or the pine table?"
    item = PromptItem(topic="table", form="asked", domain="home", text=text, options=options)
    base = make_speaking_base({"\n": "Take the oak table."})
    probes = [
        make_probe(text, id=f"triggered-{n:04d}", cell="triggered", item=item) for n in range(4)
    ]
    decoding = Decoding(max_new_tokens=8, temperature=0)
    asked = make_item("organism", make_heuristic(), probes, decoding=decoding)
    replies = BaseReplies(IDENTITY, lambda: base, Store(tmp_path), system_prompt=SYSTEM, chunks={})
    (result,) = collect_transcripts(
        [asked],
        base,
        replies,
        adapters={"organism": tmp_path / "nowhere"},
        system_prompt=SYSTEM,
        on_reply=lambda *_: None,
    )
    assert (result.transcripts, result.error) == ((), None)
