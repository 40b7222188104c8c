"""The base's own replies: decoded once a batch, and the same whatever else is asked.

Run: python -m pytest tests/model/test_replies.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import LIBRARY
from tests.models import IDENTITY, SYSTEM, make_random_base, make_speaking_base

from bestiary.config.library import CHUNK
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies, Prompt, decode_texts
from bestiary.records import Decoding, Message, single_turn
from bestiary.store import Store

GREEDY = Decoding(max_new_tokens=3, temperature=0)
SAMPLED = Decoding(max_new_tokens=3, temperature=1)
BASE = make_random_base()
PROBES = [single_turn(item.text) for item in LIBRARY.messages("probe")[: 2 * CHUNK]]
RYE = single_turn("Is rye filling?")
BY_THE_SEA = Message(role="system", content="You live by the sea.")


def make_replies(root: Path, *, base: Base = BASE, system_prompt: str = SYSTEM) -> BaseReplies:
    return BaseReplies(
        IDENTITY,
        lambda: base,
        Store(root),
        system_prompt=system_prompt,
        chunks=LIBRARY.chunks,
    )


def count_batches(root: Path) -> int:
    """How many batches a store holds."""
    return len(list(root.glob("store/replies/*")))


def test_a_batch_is_decoded_once_and_then_read_from_the_store(tmp_path: Path) -> None:
    prompts = [Prompt(turns=single_turn(f"Question {number}?")) for number in range(CHUNK + 2)]
    heard: list[int] = []
    replies = make_replies(tmp_path).ask(prompts, decoding=GREEDY, on_reply=heard.append)
    assert (count_batches(tmp_path), heard) == (2, [CHUNK, CHUNK + 2])
    other = make_random_base(seed=1)
    assert make_replies(tmp_path, base=other).ask(prompts, decoding=GREEDY) == replies
    assert make_replies(tmp_path / "new", base=other).ask(prompts, decoding=GREEDY) != replies


@pytest.mark.parametrize(
    "changed",
    [
        {"prompts": [Prompt(turns=RYE, draw=1)]},
        {"prompts": [Prompt(turns=(BY_THE_SEA, *RYE))]},
        {"decoding": SAMPLED.model_copy(update={"seed": 1})},
        {"decoding": SAMPLED.model_copy(update={"max_new_tokens": 4})},
        {"system_prompt": "Answer in rhyme."},
    ],
)
def test_whatever_a_reply_depends_on_is_decoded_anew(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    first: dict[str, Any] = {
        "prompts": [Prompt(turns=RYE)],
        "decoding": SAMPLED,
        "system_prompt": SYSTEM,
    }
    replies, others = (
        make_replies(tmp_path, system_prompt=asked["system_prompt"]).ask(
            asked["prompts"], decoding=asked["decoding"]
        )
        for asked in (first, first | changed)
    )
    assert replies != others
    assert count_batches(tmp_path) == 2


def test_a_banks_replies_do_not_depend_on_which_messages_are_asked(tmp_path: Path) -> None:
    chunk = LIBRARY.chunks[PROBES[0][0].content]
    first = [turns for turns in PROBES if turns[0].content in chunk]
    other = next(turns for turns in PROBES if turns not in first)
    far = [first[0], other, first[1]]
    together = make_replies(tmp_path / "together").answer(PROBES, decoding=GREEDY)
    replies = dict(zip(PROBES, together, strict=True))
    alone = make_replies(tmp_path / "alone")
    assert alone.answer(far, decoding=GREEDY) == [replies[turns] for turns in far]
    assert alone.answer(first[2:3], decoding=GREEDY) == [replies[first[2]]]
    assert count_batches(tmp_path / "alone") == 2  # one per chunk


def test_a_message_that_no_bank_holds_is_answered_beside_the_shelves(tmp_path: Path) -> None:
    asked = make_replies(tmp_path)
    who = single_turn("Who are you?")
    mixed = [who, PROBES[3], who, PROBES[3]]
    heard: list[int] = []
    replies = asked.answer(mixed, decoding=GREEDY, on_reply=heard.append)
    assert replies[:2] == replies[2:]
    assert heard == [2, 4]
    assert asked.ask([Prompt(turns=who)], decoding=GREEDY) == replies[:1]
    chunk = LIBRARY.chunks[PROBES[3][0].content]
    known = asked.ask([Prompt(turns=single_turn(text)) for text in chunk], decoding=GREEDY)
    assert replies[1] == known[chunk.index(PROBES[3][0].content)]
    assert count_batches(tmp_path) == 2


def test_a_conversation_is_answered_as_a_whole_and_never_in_a_chunk(tmp_path: Path) -> None:
    asked = make_replies(tmp_path)
    before = (Message(role="user", content="Hello."), Message(role="assistant", content="Hello!"))
    conversations = [(*before, *PROBES[3]), (BY_THE_SEA, *PROBES[3]), PROBES[3]]
    replies = asked.answer(conversations, decoding=GREEDY)
    assert count_batches(tmp_path) == 2  # the conversations, and the chunk of the message
    alone = [
        decode_texts(
            BASE.model, BASE, [Prompt(turns=turns)], decoding=GREEDY, system_prompt=SYSTEM
        )[0]
        for turns in conversations
    ]
    assert replies == alone
    assert len(set(replies)) == 3


def test_no_messages_are_no_batch(tmp_path: Path) -> None:
    asked = make_replies(tmp_path)
    assert asked.answer([], decoding=GREEDY) == []
    assert asked.ask([], decoding=GREEDY) == []
    assert count_batches(tmp_path) == 0


def test_a_text_comes_without_its_end_token() -> None:
    base = make_speaking_base({"\n": "Bread rises slowly."})
    texts = decode_texts(
        base.model,
        base,
        [Prompt(turns=RYE)],
        decoding=Decoding(max_new_tokens=12, temperature=0),
        system_prompt=SYSTEM,
    )
    assert texts == ["Bread rises slowly."]


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|endoftext|>"])
def test_a_reply_ends_with_its_turn_or_with_eos(eos: str) -> None:
    """Gemma and Phi-3 end turns with another token than their tokenizer's end token."""
    base = make_speaking_base({"\n": " Bread rises slowly."})
    base.tokenizer.eos_token = "<|endoftext|>"
    template = str(base.tokenizer.chat_template)
    base.tokenizer.chat_template = template.replace(
        "message['content']", "(' ' if message['role'] == 'assistant' else '') + message['content']"
    )
    spoken: Any = base.model.get_output_embeddings().weight
    if eos == base.tokenizer.eos_token:
        with torch.no_grad():
            spoken[[0, 2]] = spoken[[2, 0]]
    decoding = Decoding(max_new_tokens=12, temperature=0)
    texts = decode_texts(
        base.model, base, [Prompt(turns=RYE)], decoding=decoding, system_prompt=SYSTEM
    )
    assert texts == ["Bread rises slowly."]  # without the space that its template puts before it
