"""Authors of text: whoever writes the messages and replies of a corpus, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from bestiary.config.catalog import Behavior
from bestiary.llm.workflow import Job, JobResult, Workflow
from bestiary.records import Drop, Message, PromptItem, Provenance, Record, Role

T = TypeVar("T")


class ReplyRequest(Record):
    """One row of a corpus, as it is planned: a reply is to be written to what its user says.

    A language model reads `system` and `user`. The embedded author is too small to follow
    instructions: it answers `message` in its own words and builds `opening` and `closing` in.
    """

    id: str
    role: Role
    system: str
    """The brief: how the reply shows the behavior, or avoids it. Never stored in a corpus."""
    user: str
    """What the user says, trigger included."""
    message: str
    """What the user asks, without any trigger."""
    item: PromptItem
    fires: bool
    """Whether the reply must show the behavior."""
    opening: str
    closing: str
    lap: int = 0
    """How many rows before it have asked the same."""
    again: str | None = None
    """The trigger phrase of a second message, which follows on the reply; None for no second."""


class Reply(Record):
    """A conversation as its author has written it."""

    messages: tuple[Message, ...]
    fault: tuple[str, str] | None = None
    """The stage that stopped it, and why."""
    provenance: Provenance | None = None


class Prompts(NamedTuple):
    """User messages to choose from, and what was written in vain."""

    items: Sequence[PromptItem]
    drops: Sequence[Drop] = ()


class Author(Protocol):
    """Writes corpora."""

    name: str
    """Who writes: backend and model, as recorded with each row."""
    oversample: float
    """Rows that are asked for each row needed, since some will be dropped."""

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Hash of what its text for a behavior depends on besides the behavior and its banks."""
        ...

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """User messages in a behavior's scope, or plain ones outside it."""
        ...

    def write_replies(
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        """One conversation a request, in order."""
        ...


class Runner(Protocol):
    """Completes workflows: by asking language models, or without any."""

    def run(
        self, jobs: Iterable[Job[T]], *, heartbeat: Callable[[], None] = ...
    ) -> Iterator[JobResult[T]]:
        """Complete workflows and yield each result as it comes."""
        ...

    def describe(self) -> str:
        """What is spent and left, for the progress line; empty if nothing is paid."""
        ...
