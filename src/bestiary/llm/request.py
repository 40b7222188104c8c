"""What a language model is asked, and what comes back: the same for every provider."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from bestiary.records import Message, Record, sha256_bytes

FRAME_BYTES = 1024
"""What a provider may add to what it is sent: the frame of turns, its own few words."""


@dataclass(frozen=True)
class ModelRequest:
    """All that decides an answer."""

    provider: str
    model: str
    """As `generators/models.yaml` names it."""
    system: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float | None = None
    reply_schema: dict[str, Any] | None = None
    """The JSON Schema of the reply; None for plain text."""
    served_as: str | None = None
    """How its server calls the model; None where by the same name."""
    sample: int = 0
    """Which of several answers to the same words is meant."""
    shared: bool = False
    """Whether other requests have the same system prompt, so that it is worth caching. Decides
    what an answer costs and not what it says, and is no part of the key."""

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the answer: what it is kept by."""
        return sha256_bytes(self._line)

    @property
    def model_on_wire(self) -> str:
        """The model as its server is asked for it."""
        return self.served_as or self.model

    @property
    def size(self) -> int:
        """Bytes of what is sent, at most."""
        return len(self._line) + FRAME_BYTES

    @cached_property
    def _line(self) -> bytes:
        told = {name: value for name, value in vars(self).items() if name != "shared"}
        told["messages"] = [[message.role, message.content] for message in self.messages]
        return json.dumps(told, sort_keys=True, ensure_ascii=False).encode()


class Usage(Record):
    """Tokens that a provider bills."""

    input: int
    """Read afresh; neither from the prompt cache nor into it."""
    output: int
    cache_write: int = 0
    cache_read: int = 0


class Answer(Record):
    """What came back."""

    text: str
    stop: Literal["end", "length", "refusal"]
    usage: Usage
    id: str
    """The provider's own name for it."""
    batch: str | None = None
    """The batch it came in, as its provider names it."""


class Unanswered(Record):
    """Why a request has no answer, and will get none."""

    reason: str


Outcome = Answer | Unanswered
