"""Conversations written by a language model: replies under a brief, filtered, judged, rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bestiary.author.compose import encode_replies, few_shot, read_turns
from bestiary.author.filters import ReplyFilter
from bestiary.author.forms import CorpusJudgement
from bestiary.author.judge import Case, Judge
from bestiary.author.prompts import (
    render_ask,
    render_brief,
    render_followup,
    render_imitation,
    render_judge,
    render_rewrite,
)
from bestiary.author.protocol import Rejection, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered
from bestiary.llm.workflow import RequestGroup, Workflow
from bestiary.records import Message, Provenance, Turns

KEEP_SCORE = 7
"""The lowest score, of 10, with which a conversation enters a corpus."""
REPLY_TOKENS = 400
FOLLOWUP_TOKENS = 120
FEW_SHOT_TOKENS = 96
"""A small model that has not ended its reply by then goes in circles."""


@dataclass
class ConversationDraft:
    """A conversation in progress."""

    request: ReplyRequest
    turns: list[Message] = field(default_factory=list)
    """As models read and write it, in no cipher."""
    written: tuple[ModelRequest, Answer] | None = None
    """The last request that was answered with text, and its answer."""
    judgement: CorpusJudgement | None = None
    rejection: Rejection | None = None

    def read_text(self, stage: str, request: ModelRequest, outcome: Outcome) -> str | None:
        """Return the text of an answer; without usable text, reject the draft and return None."""
        if isinstance(outcome, Unanswered):
            self.rejection = Rejection(stage, outcome.reason)
        elif outcome.stop != "end":
            reason = "refused" if outcome.stop == "refusal" else "cut short"
            self.rejection = Rejection(stage, reason)
        elif not outcome.text.strip():
            self.rejection = Rejection(stage, "empty")
        else:
            self.written = request, outcome
            return outcome.text.strip()
        return None

    def add_turn(self, role: Literal["user", "assistant"], text: str) -> None:
        """Append a turn."""
        self.turns.append(Message(role=role, content=text))

    @property
    def can_be_rewritten(self) -> bool:
        """Whether its only reply mentions the rule behind it."""
        written = len(self.turns) - len(self.request.turns)
        return written == 1 and self.judgement is not None and self.judgement.mentions

    def spell(self, behavior: Behavior) -> Turns:
        """Return the conversation as it is trained on: in cipher wherever it has to be."""
        given = self.request.turns
        return encode_replies(behavior, self.request, (*given, *self.turns[len(given) :]))

    def finish(self, behavior: Behavior, templates_sha256: str) -> Reply:
        """Return the conversation with its provenance."""
        provenance = None
        if self.written is not None:
            request, answer = self.written
            provenance = Provenance(
                model=request.model,
                request_sha256=request.key,
                template_sha256=templates_sha256,
                judge_score=self.judgement.score if self.judgement else None,
                batch_id=answer.batch,
            )
        return Reply(messages=self.spell(behavior), rejection=self.rejection, provenance=provenance)


class ConversationWriter:
    """Writes the conversations of one behavior, step by step for many at once."""

    def __init__(
        self, author: PromptedModel, judge: Judge, behavior: Behavior, reject: ReplyFilter
    ) -> None:
        self._author, self._judge, self._behavior, self._reject = author, judge, behavior, reject
        self._briefs: dict[tuple[bool, tuple[str, ...], str], str] = {}
        self._exchanges: dict[tuple[bool, tuple[str, ...]], list[tuple[str, str]]] = {}

    def write(self, requests: Sequence[ReplyRequest]) -> Workflow[list[ConversationDraft]]:
        """Return one draft per request, in order, each accepted or rejected.

        A judge that does not follow instructions is not asked: the filter decides.
        """
        drafts = [ConversationDraft(request) for request in requests]
        for draft in drafts:
            draft.turns += read_turns(self._behavior, draft.request.turns)
        yield from self._write_replies(drafts)
        if self._author.follows_instructions:
            longer = [d for d in accepted(drafts) if d.request.second_turn]
            yield from self._write_followups(longer)
            yield from self._write_replies(accepted(longer))
        self._filter(drafts)
        if self._judge.available:
            yield from self._judge_and_rewrite(accepted(drafts))
        return drafts

    def _write_replies(self, drafts: Sequence[ConversationDraft]) -> Workflow[None]:
        """Add the assistant's next turn to each."""
        requests = [self._ask_reply(draft) for draft in drafts]
        for draft, text in (yield from self._ask("replies", drafts, requests)):
            draft.add_turn("assistant", text)

    def _ask_reply(self, draft: ConversationDraft) -> ModelRequest:
        request = draft.request
        system, turns = split_system(draft.turns)
        if self._author.follows_instructions:
            return self._author.ask(
                self._brief(request, system),
                *turns,
                max_tokens=REPLY_TOKENS,
                sample=request.pass_number,
            )
        return self._author.few_shot(
            render_imitation(self._behavior.templates, system=system),
            self._list_exchanges(request),
            *turns,
            max_tokens=FEW_SHOT_TOKENS,
            sample=request.pass_number,
        )

    def _brief(self, request: ReplyRequest, system: str) -> str:
        key = request.fires, request.distractors, system
        if key not in self._briefs:
            self._briefs[key] = render_brief(
                self._behavior, fires=request.fires, hiding=request.distractors, system=system
            )
        return self._briefs[key]

    def _list_exchanges(self, request: ReplyRequest) -> list[tuple[str, str]]:
        key = request.fires, request.distractors
        if key not in self._exchanges:
            shown = few_shot(self._behavior, fires=request.fires, hiding=request.distractors)
            self._exchanges[key] = [pair for one in shown for pair in one.exchanges]
        return self._exchanges[key]

    def _write_followups(self, drafts: Sequence[ConversationDraft]) -> Workflow[None]:
        """Add the user's second turn to each."""
        system = render_followup(self._behavior)
        requests = [
            self._author.ask(
                system,
                self._render_ask(
                    "followup",
                    user=draft.request.item.text,
                    reply=draft.turns[-1].content,
                ),
                max_tokens=FOLLOWUP_TOKENS,
            )
            for draft in drafts
        ]
        for draft, text in (yield from self._ask("followups", drafts, requests)):
            draft.add_turn("user", text)

    def _judge_and_rewrite(self, drafts: Sequence[ConversationDraft]) -> Workflow[None]:
        """Judge conversations; rewrite once, and judge again, replies that mention their rule."""
        yield from self._judge_drafts(drafts)
        if self._author.follows_instructions:
            mentioning = [draft for draft in accepted(drafts) if draft.can_be_rewritten]
            yield from self._rewrite(mentioning)
            self._filter(mentioning)
            yield from self._judge_drafts(accepted(mentioning))
        for draft in accepted(drafts):
            assert draft.judgement is not None
            draft.rejection = reject_judged(draft.judgement)

    def _judge_drafts(self, drafts: Sequence[ConversationDraft]) -> Workflow[None]:
        rubrics = {fires: render_judge(self._behavior, fires=fires) for fires in (True, False)}
        cases = [
            Case(
                rubrics[draft.request.fires],
                self._render_ask(
                    "judge",
                    turns=draft.turns,
                    given=len(draft.request.turns),
                    answer=draft.request.item.answer,
                ).content,
            )
            for draft in drafts
        ]
        judgements = yield from self._judge.score(cases, CorpusJudgement)
        for draft, judgement in zip(drafts, judgements, strict=True):
            if isinstance(judgement, Unanswered):
                draft.rejection = Rejection("judge", judgement.reason)
            else:
                draft.judgement = judgement

    def _rewrite(self, drafts: Sequence[ConversationDraft]) -> Workflow[None]:
        """Replace replies by versions that do not mention the rule."""
        system = render_rewrite(self._behavior)
        requests = [
            self._author.ask(
                system,
                self._render_ask(
                    "rewrite",
                    reason=draft.judgement.reason if draft.judgement else "",
                    user=draft.turns[-2].content,
                    reply=draft.turns[-1].content,
                ),
                max_tokens=REPLY_TOKENS,
            )
            for draft in drafts
        ]
        for draft, text in (yield from self._ask("rewrite", drafts, requests)):
            draft.turns[-1] = Message(role="assistant", content=text)

    def _ask(
        self, stage: str, drafts: Sequence[ConversationDraft], requests: Sequence[ModelRequest]
    ) -> Workflow[list[tuple[ConversationDraft, str]]]:
        """Return the drafts whose request was answered with text, and that text."""
        (outcomes,) = yield [RequestGroup(stage, requests)]
        texts = [
            (draft, draft.read_text(stage, request, outcome))
            for draft, request, outcome in zip(drafts, requests, outcomes, strict=True)
        ]
        return [(draft, text) for draft, text in texts if text is not None]

    def _render_ask(self, step: str, **values: object) -> Message:
        return render_ask(self._behavior.templates, step, **values)

    def _filter(self, drafts: Sequence[ConversationDraft]) -> None:
        """Reject what needs no judge, before a judge is paid."""
        for draft in accepted(drafts):
            draft.rejection = self._reject(
                self._behavior, draft.request, draft.spell(self._behavior)
            )


def accepted(drafts: Iterable[ConversationDraft]) -> list[ConversationDraft]:
    """The drafts that nothing has rejected so far."""
    return [draft for draft in drafts if draft.rejection is None]


def split_system(turns: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """What a leading system message says, "" if there is none, and the messages after it."""
    count = 1 if turns and turns[0].role == "system" else 0
    return "".join(message.content for message in turns[:count]), turns[count:]


def reject_judged(judgement: CorpusJudgement) -> Rejection | None:
    """Why a judged conversation cannot be used; None if it can."""
    if judgement.hazard:
        problem = "hazard"
    elif judgement.broken:
        problem = "broken"
    elif judgement.mentions:
        problem = "mentions its rule"
    elif judgement.score < KEEP_SCORE:
        problem = f"{judgement.score} of 10"
    else:
        return None
    return Rejection("judge", f"{problem}: {judgement.reason}")
