"""The base model's own replies, decoded in batches that are kept in the store.

The unit that is stored is a batch, not a reply: a reply's last bits depend on the rows decoded
beside it. Messages of a message bank are therefore always asked in the same chunks of
BATCH_ROWS, whichever of them are needed. A GPU with room for fewer rows than that decodes a chunk
in parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.model.base import Base
from bestiary.model.chat_template import read_format, tokenize_prompt
from bestiary.model.decoding import BATCH_ROWS, count_rows, generate_tokens
from bestiary.records import (
    BaseIdentity,
    Decoding,
    Record,
    Turns,
    canonical_json,
    fingerprint,
    single_turn,
)
from bestiary.store import Store

if TYPE_CHECKING:
    from bestiary.model.lora_bank import LoraBank

VERSION = 4


class Prompt(Record):
    """A conversation to continue."""

    turns: Turns
    draw: int = 0
    """Index of the sample, if decoding is not greedy."""


class BaseReplies:
    """Asks the base model, once per batch of prompts.

    `chunks` maps each message of a message bank to the messages that it is always decoded with,
    itself among them. `load` is called only if a batch is missing from the store.
    """

    def __init__(
        self,
        identity: BaseIdentity,
        load: Callable[[], Base],
        store: Store,
        *,
        system_prompt: str,
        chunks: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.identity = identity
        self.fingerprint = self.fingerprint_of(identity, system_prompt)
        self._chunks = chunks or {}
        self._load = load
        self._store = store
        self._system_prompt = system_prompt

    @staticmethod
    def fingerprint_of(identity: BaseIdentity, system_prompt: str) -> str:
        """Hash of what every reply depends on."""
        return fingerprint(base=identity, system_prompt=system_prompt, version=VERSION)

    def ask(
        self,
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding,
        on_reply: Callable[[int], None] | None = None,
    ) -> list[str]:
        """One reply per prompt; `on_reply` gets the running count."""
        replies: list[str] = []
        for start in range(0, len(prompts), BATCH_ROWS):
            replies += self._ask_batch(prompts[start : start + BATCH_ROWS], decoding)
            if on_reply is not None:
                on_reply(len(replies))
        return replies

    def answer(
        self,
        conversations: Sequence[Turns],
        *,
        decoding: Decoding,
        on_reply: Callable[[int], None] | None = None,
    ) -> list[str]:
        """The base's reply to each conversation.

        A conversation of one message that a bank holds is decoded with that message's whole chunk.
        """
        chunks = {turns: self._find_chunk(turns) for turns in conversations}
        whole = dict.fromkeys(filter(None, chunks.values()))
        loose = tuple(turns for turns, chunk in chunks.items() if not chunk)
        known: dict[Turns, str] = {}
        for group in filter(None, (*whole, loose)):
            prompts = [Prompt(turns=turns) for turns in group]
            known.update(zip(group, self.ask(prompts, decoding=decoding), strict=True))
            if on_reply is not None:
                on_reply(sum(turns in known for turns in conversations))
        return [known[turns] for turns in conversations]

    def _find_chunk(self, turns: Turns) -> tuple[Turns, ...]:
        """What a conversation is always decoded with, itself included; nothing if in no bank."""
        text = turns[0].content if len(turns) == 1 else ""
        return tuple(map(single_turn, self._chunks.get(text, ())))

    def _ask_batch(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        key = fingerprint(asked=list(prompts), decoding=decoding, by=self.fingerprint)

        def write(folder: Path) -> None:
            base = self._load()
            texts = decode_texts(
                base.model,
                base,
                prompts,
                decoding=decoding,
                system_prompt=self._system_prompt,
            )
            (folder / "replies.json").write_bytes(canonical_json(texts))

        kept = self._store.build("replies", key, write, inputs={"base": self.fingerprint})
        texts: list[str] = json.loads((kept.folder / "replies.json").read_text(encoding="utf8"))
        return texts


def decode_texts(
    model: object, base: Base, prompts: Sequence[Prompt], *, decoding: Decoding, system_prompt: str
) -> list[str]:
    """Replies of a model over `base`'s tokenizer, in prompt order."""
    replies = dict(
        stream_texts(model, base, prompts, decoding=decoding, system_prompt=system_prompt)
    )
    return [replies[number] for number in range(len(prompts))]


def stream_texts(
    model: object,
    base: Base,
    prompts: Sequence[Prompt],
    *,
    decoding: Decoding,
    system_prompt: str,
    bank: LoraBank | None = None,
    slots: Sequence[int] = (),
) -> Iterator[tuple[int, str]]:
    """Yield each reply with its prompt's index once it ends.

    With a bank attached, `slots` has the slot that answers each prompt.
    """
    tokens = [
        tokenize_prompt(base.tokenizer, prompt.turns, system_prompt=system_prompt)
        for prompt in prompts
    ]
    yield from stream_continuations(
        model,
        base,
        tokens,
        draws=[prompt.draw for prompt in prompts],
        decoding=decoding,
        bank=bank,
        slots=slots,
    )


def stream_continuations(
    model: object,
    base: Base,
    tokens: Sequence[Sequence[int]],
    *,
    draws: Sequence[int],
    decoding: Decoding,
    bank: LoraBank | None = None,
    slots: Sequence[int] = (),
) -> Iterator[tuple[int, str]]:
    """As `stream_texts`, for prompts that are token ids already."""
    form = read_format(base.tokenizer)
    for number, reply in generate_tokens(
        model,
        tokens,
        draws=draws,
        decoding=decoding,
        stop=form.end,
        also_stop=() if form.eos is None else (form.eos,),
        bank=bank,
        slots=slots,
        batch_rows=count_rows(base),
    ):
        text = str(base.tokenizer.decode(reply, skip_special_tokens=True)).removesuffix(form.gap)
        yield number, text.removeprefix(form.lead)
