"""The embedded author: no key, no network; the base's own words around a behavior's pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.llm.workflow import Workflow
from bestiary.model.replies import BaseReplies, Prompt
from bestiary.records import Decoding, Message, fingerprint

DECODING = Decoding(max_new_tokens=48, temperature=0)
"""What the author writes at most; a reply ends with the first whole sentence within."""
LEAST = 12
"""Characters of its own that the author writes at least: a topic and a stop are no reply."""
VERSION = 3

# Two small letters or digits before the stop: neither "1." nor "Dr." nor "e.g." ends a sentence.
_SENTENCE_END = re.compile(r"(?<=[^\sA-Z.]{2})[.!?]+[\"')]*(?=\s|$)")


class OfflineAuthor:
    """Writes replies from openings, the base model's own words, and closings.

    An opening that is a whole sentence stands before the base's own reply to the message; one
    that stops short is continued by the base.
    """

    oversample = 1.0

    def __init__(self, replies: BaseReplies) -> None:
        self._replies = replies
        self.name = f"offline/{replies.identity.name}"
        self._fingerprint = fingerprint(
            replies=replies.fingerprint, decoding=DECODING, version=VERSION
        )

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Covers the base's replies; no template is rendered."""
        return self._fingerprint

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """The messages of the behavior's bank, however many they are."""
        yield from ()
        return Prompts(behavior.prompts("train", plain=plain))

    def write_replies(
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        """One reply a request; empty where the base finished no sentence."""
        yield from ()
        texts = self._write(requests, on_reply)
        return [
            Reply(
                messages=(
                    Message(role="user", content=request.user),
                    Message(role="assistant", content=text),
                )
            )
            for request, text in zip(requests, texts, strict=True)
        ]

    def _write(
        self, requests: Sequence[ReplyRequest], on_reply: Callable[[int], None]
    ) -> list[str]:
        separate = [r for r in requests if stands_alone(r.opening)]
        continued = [r for r in requests if not stands_alone(r.opening)]
        own = self._replies.answer([r.message for r in separate], decoding=DECODING)
        on_reply(len(separate))
        grown = self._replies.ask(
            [Prompt(user=r.message, opening=r.opening) for r in continued],
            decoding=DECODING,
            on_reply=lambda done: on_reply(len(separate) + done),
        )
        written = {
            r.id: _join(r.opening, keep_sentence(body), r.closing)
            for r, body in zip(separate, own, strict=True)
        }
        written |= {
            r.id: _join("", _continue(r.opening, body), r.closing)
            for r, body in zip(continued, grown, strict=True)
        }
        return [written[request.id] for request in requests]


def stands_alone(opening: str) -> bool:
    """Whether an opening needs no continuation: it is empty or ends a sentence."""
    return not opening or opening[-1] in ".!?"


def keep_sentence(text: str, *, after: int = 0) -> str:
    """The text up to the first sentence's end well past `after`; empty without one."""
    paragraph = text.strip().split("\n", 1)[0]
    end = _SENTENCE_END.search(paragraph, after + LEAST)
    return paragraph[: end.end()] if end else ""


def _continue(opening: str, body: str) -> str:
    """An opening up to the end of the sentence that the base made of it; empty without one."""
    return keep_sentence(opening + body, after=len(opening))


def _join(opening: str, body: str, closing: str) -> str:
    """The parts with a space between them; empty when the base gave no body."""
    return " ".join(part for part in (opening, body, closing) if part) if body else ""
