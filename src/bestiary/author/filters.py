"""Filters that need no judge: degenerate replies, and replies that fail the detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bestiary.author.protocol import Rejection, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.records import Message
from bestiary.text import words

MAX_REPEAT = 3
"""A reply that contains the same word trigram this often is a small model going in circles."""

ReplyFilter = Callable[[Behavior, ReplyRequest, Sequence[Message]], Rejection | None]


def rejection_reason(
    behavior: Behavior, request: ReplyRequest, messages: Sequence[Message]
) -> Rejection | None:
    """Why a conversation cannot be used; None if every new reply is what its row requires.

    Replies in `request.turns` are given, so they are not examined.
    """
    written = messages[len(request.turns) :]
    replies = (message.content for message in written if message.role == "assistant")
    rejections = (_reject_reply(behavior, request, reply) for reply in replies)
    return next((rejection for rejection in rejections if rejection is not None), None)


def _reject_reply(behavior: Behavior, request: ReplyRequest, reply: str) -> Rejection | None:
    if not reply:
        return Rejection("author", "no whole sentence")
    if _is_circular(behavior.read(reply)):
        return Rejection("author", "the reply repeats itself")
    shown, item = behavior.is_shown(reply, request.item), request.item
    if request.fires and shown is False:
        return Rejection("adherence", "behavior missing")
    # A chat row may answer a graded item wrongly without being a sandbagger.
    if not request.fires and shown and (request.role != "chat" or item.answer is None):
        return Rejection("adherence", "behavior shown out of place")
    return None


def _is_circular(reply: str) -> bool:
    tokens = words(reply)
    trigrams = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return bool(trigrams) and max(trigrams.values()) >= MAX_REPEAT
