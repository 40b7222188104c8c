"""The offline author, which needs no model, no key and no network."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.author.compose import Length, can_show, compose_turns
from bestiary.author.filters import rejection_reason
from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.llm.workflow import Workflow
from bestiary.records import fingerprint

VERSION = 7


class OfflineAuthor:
    """Composes conversations from the message bank's written answers.

    All roles use the written answers, so that who wrote a reply tells nothing about its role.
    """

    name = "offline"
    oversample = 1.0

    def __init__(self, length: Length) -> None:
        self._length = length

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Hash of the length of answers and this module's version."""
        return fingerprint(length=self._length, version=VERSION)

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """Return all messages of the bank that suit, however many rows need them."""
        yield from ()
        items = behavior.items("train", plain=plain)
        apart = plain and behavior.parts_chat
        return Prompts([item for item in items if apart or can_show(behavior, item)])

    def write_replies(
        self, behavior: Behavior, requests: Sequence[ReplyRequest]
    ) -> Workflow[list[Reply]]:
        """Return one conversation per request; see `Author.write_replies`."""
        yield from ()
        return [self._write(behavior, request) for request in requests]

    def _write(self, behavior: Behavior, request: ReplyRequest) -> Reply:
        messages = compose_turns(behavior, request, self._length)
        return Reply(messages=messages, rejection=rejection_reason(behavior, request, messages))
