"""The `Author` protocol: what a corpus asks of an author, and what an author returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from bestiary.config.behavior import OwnBehavior
from bestiary.config.catalog import Behavior
from bestiary.llm.workflow import Job, JobResult, Workflow
from bestiary.records import Drop, Message, PromptItem, Provenance, Record, Role

T = TypeVar("T")


class ReplyRequest(Record):
    """One planned row of a corpus: the reply to write, and the user message it answers.

    A language model answers `user` under a brief of its own, which names the `distractors`.
    The offline author answers `message` and puts `opening` and `closing` around its answer.
    """

    id: str
    role: Role
    user: str
    """The user message, including any trigger."""
    message: str
    """The user message without its trigger."""
    item: PromptItem
    fires: bool
    """Whether the reply must show the behavior."""
    distractors: tuple[OwnBehavior, ...] = ()
    """Quirks that the reply shows as well."""
    opening: str
    closing: str
    pass_number: int = 0
    """How many earlier rows have the same message."""
    followup_phrase: str | None = None
    """The trigger phrase of the user's second message, empty for none; None for a single turn."""


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
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        """Return one conversation per request, in order, each accepted or rejected.

        Calls `on_reply` with the number of conversations finished so far.
        """
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
