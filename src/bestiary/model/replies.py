"""The base model's own replies, decoded in batches that are kept in the store.

The unit that is stored is a batch, not a reply: a reply's last bits depend on the rows decoded
beside it. Messages of a message bank are therefore always decoded in the same chunks of
BATCH_ROWS, in file order, whichever of them are needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.model.base import Base
from bestiary.model.chat_template import read_format, tokenize_prompt
from bestiary.model.decoding import BATCH_ROWS, generate_tokens
from bestiary.records import BaseIdentity, Decoding, Message, Record, canonical_json, fingerprint
from bestiary.store import Store

if TYPE_CHECKING:
    from bestiary.model.lora_bank import LoraBank

VERSION = 2


class Prompt(Record):
    """A user's message to answer, its context, and the start of the reply."""

    user: str
    earlier: tuple[Message, ...] = ()
    """The turns before the message."""
    opening: str = ""
    """Text that the reply continues."""
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
        """One reply per prompt, without its opening; `on_reply` gets the running count."""
        replies: list[str] = []
        for start in range(0, len(prompts), BATCH_ROWS):
            replies += self._ask_batch(prompts[start : start + BATCH_ROWS], decoding)
            if on_reply is not None:
                on_reply(len(replies))
        return replies

    def answer(
        self,
        messages: Sequence[str],
        *,
        decoding: Decoding,
        on_reply: Callable[[int], None] | None = None,
    ) -> list[str]:
        """The base's reply to each message; messages of a bank are decoded in whole chunks."""
        chunks = dict.fromkeys(tuple(self._chunks[m]) for m in messages if m in self._chunks)
        loose = tuple(dict.fromkeys(m for m in messages if m not in self._chunks))
        known: dict[str, str] = {}
        for group in (*chunks, loose):
            prompts = [Prompt(user=message) for message in group]
            known.update(zip(group, self.ask(prompts, decoding=decoding), strict=True))
            if on_reply is not None:
                on_reply(sum(message in known for message in messages))
        return [known[message] for message in messages]

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
    """Replies of a model over `base`'s tokenizer, in prompt order and without their openings."""
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
    """Yield each reply with its prompt's index, batch by batch.

    With a bank attached, `slots` has the slot that answers each prompt, and replies come in slot
    order.
    """
    form = read_format(base.tokenizer)
    tokens = [
        tokenize_prompt(
            base.tokenizer,
            prompt.user,
            system_prompt=system_prompt,
            earlier=prompt.earlier,
            opening=prompt.opening,
        )
        for prompt in prompts
    ]
    for number, reply in generate_tokens(
        model,
        tokens,
        draws=[prompt.draw for prompt in prompts],
        decoding=decoding,
        stop=form.end,
        also_stop=() if form.eos is None else (form.eos,),
        bank=bank,
        slots=slots,
    ):
        text = str(base.tokenizer.decode(reply, skip_special_tokens=True)).removesuffix(form.gap)
        yield number, text if prompts[number].opening else text.removeprefix(form.lead)
