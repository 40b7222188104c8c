"""The language-model author: one model writes, another (or the same) judges."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.author.conversations import ConversationWriter
from bestiary.author.filters import ReplyFilter, rejection_reason
from bestiary.author.judge import Judge
from bestiary.author.messages import MessageWriter
from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.asking import needs_bank
from bestiary.config.catalog import Behavior
from bestiary.config.grid import Grid
from bestiary.errors import BackendError
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import Workflow
from bestiary.records import fingerprint

VERSION = 4


class LanguageAuthor:
    """Writes messages and replies by asking an author model and a judge model.

    `reject` decides, without a judge, which replies cannot be used.
    """

    oversample = 1.15

    def __init__(
        self,
        author: PromptedModel,
        judge: PromptedModel,
        grid: Grid,
        *,
        reject: ReplyFilter = rejection_reason,
    ) -> None:
        self._author, self._judge, self._grid, self._reject = author, Judge(judge), grid, reject
        self._identities = [author.identity, judge.identity]
        self.name = author.name

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Hash of both models, the grid and the prompt templates of the behavior's category."""
        return fingerprint(
            models=self._identities,
            grid=self._grid,
            templates=behavior.templates.hash_category(behavior.category),
            version=VERSION,
        )

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """Return new messages, or the bank's: to an author that does not follow instructions, and
        for a behavior that has its own or whose conversations need topics or follow-ups.

        Raises BackendError (no-topics) if the author names no usable topic.
        """
        if not count:
            return Prompts(())
        plain = plain and behavior.parts_chat
        from_bank = behavior.spec.fixed_messages or needs_bank(behavior)
        if not self._author.follows_instructions or from_bank:
            return Prompts(behavior.items("train", plain=plain))
        writer = MessageWriter(self._author, self._grid, behavior, plain=plain, seed=seed)
        return (yield from writer.write(count))

    def write_replies(
        self, behavior: Behavior, requests: Sequence[ReplyRequest]
    ) -> Workflow[list[Reply]]:
        """Return one conversation per request; see `Author.write_replies`.

        Raises BackendError (no-detectors) if neither detectors nor a judge can decide.
        """
        self._check_judge(behavior)
        writer = ConversationWriter(self._author, self._judge, behavior, self._reject)
        drafts = yield from writer.write(requests)
        templates = behavior.templates.hash_category(behavior.category)
        return [draft.finish(behavior, templates) for draft in drafts]

    def _check_judge(self, behavior: Behavior) -> None:
        decided = behavior.is_decidable or self._judge.available
        if "triggered" in behavior.cells and not decided:
            raise BackendError(
                f"{behavior.id} has no detector, and {self._judge.name} does not follow "
                "instructions and cannot judge",
                "name a larger model with --judge",
                code="no-detectors",
                behavior=behavior.id,
                judge=self._judge.name,
            )
