"""The `Author` protocol: what a corpus asks of an author, and what an author returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from bestiary.config.catalog import Behavior
from bestiary.llm.workflow import Job, JobResult, Workflow
from bestiary.records import Drop, Message, PromptItem, Provenance, Record, Role, Turns

T = TypeVar("T")


class ReplyRequest(Record):
    """One planned row of a corpus: the reply to write, and the conversation that it continues."""

    id: str
    role: Role
    item: PromptItem
    """The message, without any trigger."""
    turns: Turns
    """The conversation up to the reply, with any trigger."""
    fires: bool
    """Whether the reply must show the behavior."""
    distractors: tuple[str, ...] = ()
    """Ids of the habits that the reply shows as well."""
    pick: int = 0
    """A random number, which chooses among equally good replies."""
    pass_number: int = 0
    """How many earlier rows have the same message."""
    second_turn: bool = False
    """Whether the user writes again, and is answered in the same way."""


class Rejection(NamedTuple):
    """Why a conversation may not enter a corpus."""

    stage: str
    """The step that rejected it: author, adherence, judge, or a stage of requests."""
    reason: str


class Reply(Record):
    """A finished conversation, with its author's decision on whether it can be used."""

    messages: tuple[Message, ...]
    rejection: Rejection | None = None
    provenance: Provenance | None = None


class Prompts(NamedTuple):
    """User messages to choose from, and those that were rejected."""

    items: Sequence[PromptItem]
    drops: Sequence[Drop] = ()


class Author(Protocol):
    """Writes the user messages and replies of corpora."""

    name: str
    """Backend and model, as recorded with each row."""
    oversample: float
    """Rows to request per row needed, to make up for rejected ones."""

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Hash of everything the text depends on besides the behavior and the requests."""
        ...

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """Return messages for `count` rows: in the behavior's scope, or `plain` ones outside it."""
        ...

    def write_replies(
        self, behavior: Behavior, requests: Sequence[ReplyRequest]
    ) -> Workflow[list[Reply]]:
        """Return one conversation per request, in order, each accepted or rejected."""
        ...


class Runner(Protocol):
    """Completes workflows, with or without language models."""

    def run(
        self, jobs: Iterable[Job[T]], *, heartbeat: Callable[[], None] = ...
    ) -> Iterator[JobResult[T]]:
        """Complete workflows and yield each result as it comes."""
        ...

    def describe(self) -> str:
        """Spending so far and what is left, for the progress line; empty if nothing is paid."""
        ...
