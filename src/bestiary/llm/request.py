"""Requests to language models and their outcomes, in a form common to all providers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from bestiary.errors import BackendError
from bestiary.llm.models import SystemRole
from bestiary.records import Message, Record, sha256_bytes
from bestiary.text import replace_surrogates, shorten

Stop = Literal["end", "length", "refusal"]
"""How an answer ended: by itself, cut short, or with a refusal."""
DIALECT: Mapping[str, object] = {"system_role": "system", "extra_body": {}}
"""Fields that are not part of a request's key at these values."""
FRAME_BYTES = 1024
"""The most a provider may add to a request: the markup of turns and a few words of its own."""


@dataclass(frozen=True)
class ModelRequest:
    """Everything that determines an answer."""

    provider: str
    model: str
    """The model's name in the model file."""
    system: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float | None = None
    reply_schema: dict[str, Any] | None = None
    """The JSON Schema of the reply; None for plain text."""
    served_as: str | None = None
    """The server's name for the model, if it differs."""
    system_role: SystemRole = "system"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters, as the server names them."""
    sample: int = 0
    """Distinguishes several samples of the same request."""
    shared: bool = False
    """Whether other requests have the same system prompt, so that caching it pays. This affects
    only what an answer costs, and is not part of the key."""

    def __post_init__(self) -> None:
        """Raise BackendError if a text cannot be sent; what a request is made of is known here."""
        for text in (self.system, *(message.content for message in self.messages)):
            if text != replace_surrogates(text):
                raise BackendError(
                    f"{shorten(text)} has half a character (a lone surrogate), which no request "
                    "can hold",
                    "write the whole character, or replace it",
                    code="request-half-character",
                    model=self.model,
                )

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the answer; the ledger stores the answer under it."""
        return sha256_bytes(self._line)

    @property
    def model_on_wire(self) -> str:
        """The model's name in calls to its server."""
        return self.served_as or self.model

    @property
    def size(self) -> int:
        """The most bytes that it takes to send."""
        return len(self._line) + FRAME_BYTES

    @cached_property
    def _line(self) -> bytes:
        left_out = {"shared"} | {name for name in DIALECT if getattr(self, name) == DIALECT[name]}
        fields = {name: value for name, value in vars(self).items() if name not in left_out}
        fields["messages"] = [[message.role, message.content] for message in self.messages]
        return json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()


class Usage(Record):
    """Tokens that a provider bills for one answer."""

    input: int
    """Input tokens neither read from the prompt cache nor written to it."""
    output: int
    cache_write: int = 0
    cache_read: int = 0
    counted: bool = True
    """Whether the server stated all counts. One that it did not state is 0 here, and what it bills
    is unknown."""


class Answer(Record):
    """A model's answer."""

    text: str
    stop: Stop
    usage: Usage
    id: str
    """The provider's id of the answer."""
    batch: str | None = None
    """The provider's id of the batch that it came from."""


class Unanswered(Record):
    """The outcome of a request that will get no answer."""

    reason: str


Outcome = Answer | Unanswered
