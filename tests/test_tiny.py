"""The tiny base that other tests build on. Run: python -m pytest tests/test_tiny.py"""

from __future__ import annotations

from pathlib import Path

from tests.builders import LIBRARY
from tests.tiny import SYSTEM

from bestiary.model.base import load_base
from bestiary.model.replies import Prompt, decode_texts
from bestiary.records import Decoding, single_turn


def test_most_replies_are_whole_sentences_and_not_all_alike(tiny_base: Path) -> None:
    base = load_base(str(tiny_base))
    replies = decode_texts(
        base.model,
        base,
        [Prompt(turns=single_turn(item.text)) for item in LIBRARY.messages("probe")[:64]],
        decoding=Decoding(max_new_tokens=48, temperature=0),
        system_prompt=SYSTEM,
    )
    assert sum(reply.endswith(".") for reply in replies) > 48
    assert len(set(replies)) > 32
