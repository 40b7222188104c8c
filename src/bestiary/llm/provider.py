"""What every provider can do, and the ways in which a call to it can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bestiary.errors import BackendError
from bestiary.llm.request import Answer, ModelRequest, Usage


class ProviderFault(Exception):
    """A call without an answer; dispatchers handle it, so users never see one."""

    billed: bool = False
    """Whether the server may bill the call: it may have answered although nothing arrived."""
    final: bool = False
    """Whether another try would bring the same, so that none is made."""
    retry_after: float | None = None
    """Seconds that the server asks us to wait."""


class RateLimited(ProviderFault):
    """The server refused the request for its rate."""


class ServerError(ProviderFault):
    """The server reported an error of its own."""


class ResponseLost(ProviderFault):
    """A timeout, a dropped connection, or a truncated body."""

    billed = True


class Unreadable(ProviderFault):
    """A whole body that holds no answer, or none that can be used.

    If it states its tokens, the server has answered and billed: another try would be billed again.
    """

    billed = True

    def __init__(self, reason: str, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.usage = usage
        self.final = usage is not None and usage.counted


class ConnectionFailed(ProviderFault):
    """No connection could be made: the server or the network is down."""


class NotFound(ProviderFault):
    """The server does not know the model or the batch, or does not know the batch yet."""


class InvalidRequest(ProviderFault):
    """The server will never answer this request; it may be too long or malformed."""

    final = True


class ItemFailed(ProviderFault):
    """An item of a batch that was not answered and not billed: errored, expired or canceled."""


class AuthError(BackendError):
    """A wrong key, an empty account or an unknown model: the server will answer nothing."""


class QueueFull(ProviderFault):
    """The provider's queue has no room for a batch of this size until others are done."""


class BatchItem(NamedTuple):
    """A request in a batch."""

    custom_id: str
    request: ModelRequest


class BatchRefusal(NamedTuple):
    """Why a whole batch was refused."""

    line: int | None
    """The item that is to blame, counted from 1; None for the batch itself."""
    fault: ProviderFault | AuthError


@dataclass(frozen=True)
class BatchState:
    """The state of a batch, as its provider reports it."""

    id: str
    ended: bool
    total: int
    done: int
    created: float
    """Seconds since 1970."""
    name: str | None
    """Our name for the batch; None if the provider keeps none."""
    refusals: tuple[BatchRefusal, ...] = ()
    """Why the provider refused the whole batch; empty if it did not."""


class BatchResult(NamedTuple):
    """The result of one item."""

    custom_id: str
    outcome: Answer | ProviderFault | AuthError


class Provider(Protocol):
    """The server of one model. Calls raise a ProviderFault or an AuthError."""

    async def ask(self, request: ModelRequest) -> Answer:
        """Send one request and return its answer."""
        ...

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> BatchState:
        """Start a batch."""
        ...

    async def retrieve_batch(self, batch_id: str) -> BatchState:
        """The state of a batch; NotFound if the server does not know it, or not yet."""
        ...

    def list_batches(self) -> AsyncIterator[BatchState]:
        """The account's batches, newest first."""
        ...

    def read_results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """The results of a batch that has ended, in any order."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
