"""What every provider can do, and the ways in which one fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from bestiary.errors import BackendError
from bestiary.llm.request import Answer, ModelRequest


class ProviderFault(Exception):
    """A call that brought no answer; never shown to a user as it is."""

    billed: bool = False
    """Whether the server may bill it all the same: it may have answered, unheard."""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""


class RateLimited(ProviderFault):
    """The server refuses for its rate."""


class ServerError(ProviderFault):
    """The server failed, and says so."""


class ResponseLost(ProviderFault):
    """A timeout, a dropped connection or a body cut short."""

    billed = True


class ConnectionFailed(ProviderFault):
    """No connection at all: the server, the network or this machine is away."""


class NotFound(ProviderFault):
    """The server does not know a model, or a batch, or not yet."""


class InvalidRequest(ProviderFault):
    """The server will never answer this request: too long, or not as it wants it."""


class AuthError(BackendError):
    """The key is wrong, the account empty or the model unknown: nothing will be answered."""


class BatchItem(NamedTuple):
    """A request in a batch."""

    custom_id: str
    request: ModelRequest


@dataclass(frozen=True)
class BatchState:
    """A batch as its provider tells it."""

    id: str
    ended: bool
    total: int
    done: int
    created: float
    """Seconds since 1970."""
    name: str | None
    """The name that we gave it, where the provider keeps one."""
    refusal: str = ""
    """Why the provider refused it whole."""


class BatchResult(NamedTuple):
    """What became of one item."""

    custom_id: str
    answer: Answer | None
    fault: Literal["", "errored", "expired", "canceled", "unreadable"]


class Provider(Protocol):
    """One server, as one model is reached there. Calls raise a ProviderFault, or AuthError."""

    async def ask(self, request: ModelRequest) -> Answer:
        """Answer one request."""
        ...

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> BatchState:
        """Start a batch."""
        ...

    async def retrieve_batch(self, batch_id: str) -> BatchState:
        """How a batch stands; NotFound where the server does not know it, or not yet."""
        ...

    def list_batches(self) -> AsyncIterator[BatchState]:
        """Batches, the newest first."""
        ...

    def read_results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """Results of a batch that has ended, in any order."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
