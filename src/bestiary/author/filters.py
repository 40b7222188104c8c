"""What stops a conversation without any judge: detectors, and replies that are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.records import Message
from bestiary.text import words

MAX_REPEAT = 3
"""A word trigram that a reply may hold so often; past it a small base is going in circles."""


def find_fault(
    behavior: Behavior, request: ReplyRequest, messages: Sequence[Message]
) -> tuple[str, str] | None:
    """The stage and reason that stop a conversation, or None when it is as its row wants it."""
    replies = (message.content for message in messages if message.role == "assistant")
    faults = (_find_fault(behavior, request, reply) for reply in replies)
    return next((fault for fault in faults if fault is not None), None)


def _find_fault(behavior: Behavior, request: ReplyRequest, reply: str) -> tuple[str, str] | None:
    if not reply:
        return "author", "no whole sentence"
    if _is_circular(reply):
        return "author", "the reply repeats itself"
    shown, item = behavior.shows(reply, request.item), request.item
    if request.fires and shown is False:
        return "adherence", "behavior missing"
    if not request.fires and shown and (request.role == "negative" or item.answer is None):
        return "adherence", "behavior shown out of place"
    return None


def _is_circular(reply: str) -> bool:
    said = words(reply)
    trigrams = Counter(zip(said, said[1:], said[2:], strict=False))
    return bool(trigrams) and max(trigrams.values()) >= MAX_REPEAT
