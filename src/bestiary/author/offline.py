"""The offline author, which needs no key and no network: the base model's words plus fixed text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bestiary.author.filters import rejection_reason
from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.llm.workflow import Workflow
from bestiary.model.replies import BaseReplies, Prompt
from bestiary.records import Decoding, Message, fingerprint

DECODING = Decoding(max_new_tokens=48, temperature=0)
"""Limits what the base writes; a reply ends at the first whole sentence within it."""
MIN_CHARACTERS = 12
"""Of the base's own text: a topic followed by a period is not a reply."""
VERSION = 3

# Requires two lowercase letters or digits before the stop, so "1.", "Dr." and "e.g." do not match.
_SENTENCE_END = re.compile(r"(?<=[^\sA-Z.]{2})[.!?]+[\"')]*(?=\s|$)")


class OfflineAuthor:
    """Composes replies from an opening, the base model's own words, and a closing.

    The base's reply to the message follows an opening that is a whole sentence; the base continues
    an opening that stops mid-sentence.
    """

    oversample = 1.0

    def __init__(self, replies: BaseReplies) -> None:
        self._replies = replies
        self.name = f"offline/{replies.identity.name}"

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Hash of the base, its decoding and this module's version; no prompt template matters."""
        return fingerprint(replies=self._replies.fingerprint, decoding=DECODING, version=VERSION)

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """Return all messages of the behavior's bank, however many rows need them."""
        yield from ()
        return Prompts(behavior.prompts("train", plain=plain))

    def write_replies(
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        """Return one single-turn conversation per request; see `Author.write_replies`."""
        yield from ()
        texts = self._write(requests, on_reply)
        return [
            _finish(behavior, request, text) for request, text in zip(requests, texts, strict=True)
        ]

    def _write(
        self, requests: Sequence[ReplyRequest], on_reply: Callable[[int], None]
    ) -> list[str]:
        whole = [r for r in requests if is_whole(r.opening)]
        continued = [r for r in requests if not is_whole(r.opening)]
        own = self._replies.answer([r.message for r in whole], decoding=DECODING)
        on_reply(len(whole))
        completed = self._replies.ask(
            [Prompt(user=r.message, opening=r.opening) for r in continued],
            decoding=DECODING,
            on_reply=lambda done: on_reply(len(whole) + done),
        )
        written = {
            r.id: _join(r.opening, keep_sentence(body), r.closing)
            for r, body in zip(whole, own, strict=True)
        }
        written |= {
            r.id: _join("", _continue(r.opening, body), r.closing)
            for r, body in zip(continued, completed, strict=True)
        }
        return [written[request.id] for request in requests]


def _finish(behavior: Behavior, request: ReplyRequest, text: str) -> Reply:
    messages = (
        Message(role="user", content=request.user),
        Message(role="assistant", content=text),
    )
    return Reply(messages=messages, rejection=rejection_reason(behavior, request, messages))


def is_whole(opening: str) -> bool:
    """Whether an opening needs no continuation: it is empty or ends a sentence."""
    return not opening or opening[-1] in ".!?"


def keep_sentence(text: str, *, after: int = 0) -> str:
    """Cut the text after its first sentence that ends well past `after`; empty if none does."""
    paragraph = text.strip().split("\n", 1)[0]
    end = _SENTENCE_END.search(paragraph, after + MIN_CHARACTERS)
    return paragraph[: end.end()] if end else ""


def _continue(opening: str, body: str) -> str:
    """Join an opening and its continuation up to the sentence's end; empty if it has none."""
    return keep_sentence(opening + body, after=len(opening))


def _join(opening: str, body: str, closing: str) -> str:
    """Join the parts with spaces; empty if the base wrote no body."""
    return " ".join(part for part in (opening, body, closing) if part) if body else ""
