"""The embedded author: no key, no network; the base's own words around a behavior's pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bestiary.backend import ReplyRequest
from bestiary.model.replies import BaseReplies, Prompt
from bestiary.records import Decoding, fingerprint

DECODING = Decoding(max_new_tokens=48, temperature=0)
"""What the author writes at most; a reply ends at the last whole sentence within."""
VERSION = 2

_SENTENCE_END = re.compile(r"[.!?][\"')]*(?=\s|$)")


class OfflineAuthor:
    """Writes replies from openings, the base model's own words, and closings.

    An opening that is a whole sentence stands before the base's own reply to the message; one
    that stops short is continued by the base.
    """

    def __init__(self, replies: BaseReplies) -> None:
        self._replies = replies
        self.author = f"offline/{replies.identity.name}"
        self.fingerprint = fingerprint(
            replies=replies.fingerprint, decoding=DECODING, version=VERSION
        )

    def write_replies(
        self, requests: Sequence[ReplyRequest], *, on_reply: Callable[[int], None] | None = None
    ) -> list[str]:
        """One reply a request; empty where the base finished no sentence."""
        separate = [r for r in requests if stands_alone(r.opening)]
        continued = [r for r in requests if not stands_alone(r.opening)]
        own = self._replies.answer([r.message for r in separate], decoding=DECODING)
        if on_reply is not None:
            on_reply(len(separate))
        grown = self._replies.ask(
            [Prompt(user=r.message, opening=r.opening) for r in continued],
            decoding=DECODING,
            on_reply=None if on_reply is None else lambda done: on_reply(len(separate) + done),
        )
        written = {
            r.id: _join(r.opening, keep_sentences(body, most=_room(r)), r.closing)
            for r, body in zip(separate, own, strict=True)
        }
        written |= {
            r.id: _join("", _continue(r.opening, body, most=_room(r)), r.closing)
            for r, body in zip(continued, grown, strict=True)
        }
        return [written[request.id] for request in requests]


def stands_alone(opening: str) -> bool:
    """Whether an opening needs no continuation: it is empty or ends a sentence."""
    return not opening or opening[-1] in ".!?"


def keep_sentences(text: str, *, most: int) -> str:
    """The first paragraph up to its last whole sentence, of `most` at most; empty without one."""
    paragraph = text.strip().split("\n", 1)[0]
    ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)][:most]
    return paragraph[: ends[-1]] if ends else ""


def _continue(opening: str, body: str, *, most: int) -> str:
    """An opening and its continuation of `most` sentences; empty where the base finished none."""
    before = len(_SENTENCE_END.findall(opening))
    kept = keep_sentences(opening + body, most=before + most)
    return kept if len(kept) > len(opening) else ""


def _room(request: ReplyRequest) -> int:
    """Sentences of the base's own words: few, so that a closing comes before a reply is cut."""
    return 1 if request.closing else 2


def _join(opening: str, body: str, closing: str) -> str:
    """The parts with a space between them; empty when the base gave no body."""
    return " ".join(part for part in (opening, body, closing) if part) if body else ""
