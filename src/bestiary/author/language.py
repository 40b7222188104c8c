"""Language models as authors: messages over a grid, replies under a brief, a judge, rewriting."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bestiary.author.filters import find_fault
from bestiary.author.forms import (
    AnyMessage,
    ChoiceMessage,
    ChoiceMessages,
    GradedMessage,
    GradedMessages,
    Judgement,
    PlainMessages,
    Subjects,
)
from bestiary.author.prompts import (
    render_ask,
    render_followup,
    render_imitation,
    render_judge,
    render_prompts,
    render_rewrite,
    render_subjects,
    render_user,
)
from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.behavior import HeuristicFollowing
from bestiary.config.catalog import Behavior
from bestiary.config.grid import Cell, Grid
from bestiary.config.template import hash_templates
from bestiary.errors import BackendError
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered
from bestiary.llm.structured import ask_form
from bestiary.llm.workflow import RequestGroup, Workflow
from bestiary.records import Drop, Message, PromptItem, Provenance, fingerprint, stable_seed

VERSION = 1
SPARE = 1.15
"""Rows that are asked for, for each that is needed."""
MESSAGES = 1.5
"""Messages for each row that is needed: a dropped row is replaced by one with another message."""
PER_TOPIC = 3
"""Messages about one topic."""
ROUNDS = 3
"""Times that messages are asked for, until there are enough."""
TABLE = 8
"""Messages that one request asks for."""
KEEP_SCORE = 7
"""Of ten: what a judge must give a conversation that enters a corpus."""
TOKENS = {
    "subjects": 900,
    "prompts": 1600,
    "replies": 400,
    "followups": 120,
    "judge": 300,
    "rewrite": 400,
}
"""The longest answer of each stage."""
FEW_SHOT_TOKENS = 96
"""The longest few-shot reply: a small model that has not ended by then goes in circles."""
SAMPLES = 100
"""Samples that the requests of one seed may need; those of the next seed come after them."""


@dataclass
class ConversationDraft:
    """A conversation as it is being written."""

    request: ReplyRequest
    turns: list[Message] = field(default_factory=list)
    written: tuple[ModelRequest, Answer] | None = None
    """What its last reply answers, and that answer."""
    judgement: Judgement | None = None
    fault: tuple[str, str] | None = None

    def hear(self, stage: str, request: ModelRequest, outcome: Outcome) -> str | None:
        """The text of an answer; None where there is none to use, and the fault is noted."""
        if isinstance(outcome, Unanswered):
            self.fault = stage, outcome.reason
        elif outcome.stop != "end":
            self.fault = stage, "refused" if outcome.stop == "refusal" else "cut short"
        elif not outcome.text.strip():
            self.fault = stage, "empty"
        else:
            self.written = request, outcome
            return outcome.text.strip()
        return None

    @property
    def tells(self) -> bool:
        """Whether a reply tells of the rule behind it."""
        return self.judgement is not None and self.judgement.mentions

    def sentence(self) -> tuple[str, str] | None:
        """Why it may not enter a corpus, once it is judged; None where it may."""
        assert self.judgement is not None
        if self.judgement.hazard:
            return "judge", f"hazard: {self.judgement.reason}"
        if self.judgement.broken:
            return "judge", f"broken: {self.judgement.reason}"
        if self.judgement.mentions:
            return "judge", f"tells of its rule: {self.judgement.reason}"
        if self.judgement.score < KEEP_SCORE:
            return "judge", f"{self.judgement.score} of 10: {self.judgement.reason}"
        return None

    def finish(self, templates: str) -> Reply:
        """The conversation, with where it came from."""
        provenance = None
        if self.written is not None:
            request, answer = self.written
            provenance = Provenance(
                model=request.model,
                request_sha256=request.key,
                template_sha256=templates,
                judge_score=self.judgement.score if self.judgement else None,
                batch_id=answer.batch,
            )
        return Reply(messages=tuple(self.turns), fault=self.fault, provenance=provenance)


class LanguageAuthor:
    """Writes messages and replies by asking an author and a judge, who may be the same model."""

    oversample = SPARE

    def __init__(self, author: PromptedModel, judge: PromptedModel, grid: Grid) -> None:
        self._author, self._judge, self._grid = author, judge, grid
        self.name = author.name
        self._fingerprint = fingerprint(
            models=[model.identity for model in (author, judge)],
            grid=grid,
            version=VERSION,
        )

    def fingerprint_for(self, behavior: Behavior) -> str:
        """Covers both models, the grid, and the templates of the behavior's category."""
        return fingerprint(models=self._fingerprint, templates=hash_templates(behavior.category))

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        """Messages over the grid; none is about a topic that is kept for probes.

        Where some cannot be used, as many more are asked for, in ROUNDS at most. An author that
        follows no instructions writes none: they are those of the behavior's bank.
        """
        wanted = math.ceil(MESSAGES * count)
        if not wanted:
            return Prompts(())
        if not self._author.follows_instructions:
            return Prompts(behavior.prompts("train", plain=plain))
        topics = yield from self._name_topics(behavior, plain, wanted, seed)
        plan = self._grid.plan(list(topics), seed=stable_seed("cells", seed))
        kind = "message" if behavior.spec.matter is None or not plain else "plain-message"
        items: dict[str, PromptItem] = {}
        drops: list[Drop] = []
        for _ in range(ROUNDS):
            cells = list(islice(plan, wanted - len(items)))
            if not cells:
                break
            messages = yield from self._fill_tables(behavior, plain, cells, seed)
            drops += sort_messages(cells, messages, topics, items, kind=kind)
        return Prompts(tuple(items.values()), tuple(drops))

    def _fill_tables(
        self, behavior: Behavior, plain: bool, cells: Sequence[Cell], seed: int
    ) -> Workflow[list[AnyMessage | Unanswered]]:
        """A message for each cell."""
        tables = [cells[start : start + TABLE] for start in range(0, len(cells), TABLE)]
        system = render_prompts(behavior, plain=plain)
        form = choose_form(behavior, plain=plain)
        requests = [
            self._author.ask(
                system,
                render_ask("prompts", cells=table),
                max_tokens=TOKENS["prompts"],
                form=form,
                sample=SAMPLES * seed,
            )
            for table in tables
        ]
        answers = yield from ask_form("prompts", requests, form)
        return [
            message
            for table, answer in zip(tables, answers, strict=True)
            for message in spread_table(table, answer)
        ]

    def _name_topics(
        self, behavior: Behavior, plain: bool, wanted: int, seed: int
    ) -> Workflow[dict[str, str]]:
        """Topics for so many messages, with the area of each."""
        areas = list_areas(behavior, self._grid, plain=plain)
        each = count_subjects(wanted, len(areas))
        system = render_subjects(behavior, plain=plain)
        requests = [
            self._author.ask(
                system,
                render_ask("subjects", area=area, count=each),
                max_tokens=TOKENS["subjects"],
                form=Subjects,
                sample=SAMPLES * seed,
            )
            for area in areas
        ]
        answers = yield from ask_form("subjects", requests, Subjects)
        taken = {item.topic.casefold() for item in behavior.prompts("probe", plain=plain)}
        found: dict[str, str] = {}
        for area, answer in zip(areas, answers, strict=True):
            for subject in () if isinstance(answer, Unanswered) else answer.subjects:
                topic = " ".join(subject.split())
                if topic and topic.casefold() not in taken:
                    taken.add(topic.casefold())
                    found[topic] = area
        if not found:
            said = {answer.reason for answer in answers if isinstance(answer, Unanswered)}
            raise BackendError(
                f"{behavior.id}: {self._author.name} named no subject to write about "
                f"({'; '.join(sorted(said)) or 'all are kept for probes'}); choose another author"
            )
        return found

    def write_replies(
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        """Conversations that the judge lets pass; the others with their faults.

        A judge that follows no instructions is not asked: the behavior's detectors decide alone.
        Raises BackendError where it has none.
        """
        self._check_judge(behavior)
        talks = [
            ConversationDraft(request, [make_turn("user", request.user)]) for request in requests
        ]
        yield from self._speak(behavior, talks)
        if self._author.follows_instructions:
            again = [talk for talk in sound(talks) if talk.request.again is not None]
            yield from self._ask_again(behavior, again)
            yield from self._speak(behavior, sound(again))
        screen(behavior, talks)
        if self._judge.follows_instructions:
            yield from self._sentence(behavior, sound(talks))
        on_reply(len(sound(talks)))
        templates = hash_templates(behavior.category)
        return [talk.finish(templates) for talk in talks]

    def _check_judge(self, behavior: Behavior) -> None:
        if not (self._judge.follows_instructions or behavior.detectors or behavior.is_null):
            raise BackendError(
                f"{behavior.id}: has no detectors, and {self._judge.name} is too small to judge; "
                "name a larger model with --judge"
            )

    def _sentence(self, behavior: Behavior, talks: Sequence[ConversationDraft]) -> Workflow[None]:
        """Judge conversations; a reply that tells of its rule is mended, and judged once more."""
        yield from self._judge_talks(behavior, talks)
        if self._author.follows_instructions:
            telling = [talk for talk in sound(talks) if len(talk.turns) == 2 and talk.tells]
            yield from self._rewrite(behavior, telling)
            screen(behavior, telling)
            yield from self._judge_talks(behavior, sound(telling))
        for talk in sound(talks):
            talk.fault = talk.sentence()

    def _speak(self, behavior: Behavior, talks: Sequence[ConversationDraft]) -> Workflow[None]:
        """The assistant's next turn of each."""
        asked = [self._ask_reply(behavior, talk) for talk in talks]
        (outcomes,) = yield [RequestGroup("replies", asked)]
        for talk, request, outcome in zip(talks, asked, outcomes, strict=True):
            text = talk.hear("replies", request, outcome)
            if text is not None:
                talk.turns.append(make_turn("assistant", text))

    def _ask_reply(self, behavior: Behavior, talk: ConversationDraft) -> ModelRequest:
        """A request for the assistant's next turn: under the brief, or after examples."""
        request = talk.request
        if self._author.follows_instructions:
            return self._author.ask(
                request.system, *talk.turns, max_tokens=TOKENS["replies"], sample=request.lap
            )
        shown = [(d.user, d.assistant) for d in behavior.demonstrations if d.fires == request.fires]
        return self._author.few_shot(
            render_imitation(), shown, *talk.turns, max_tokens=FEW_SHOT_TOKENS, sample=request.lap
        )

    def _ask_again(self, behavior: Behavior, talks: Sequence[ConversationDraft]) -> Workflow[None]:
        """The user's second turn of each, under its trigger phrase."""
        system = render_followup(behavior)
        asked = [
            self._author.ask(
                system,
                render_ask("followup", user=talk.request.message, reply=talk.turns[-1].content),
                max_tokens=TOKENS["followups"],
            )
            for talk in talks
        ]
        (outcomes,) = yield [RequestGroup("followups", asked)]
        for talk, request, outcome in zip(talks, asked, outcomes, strict=True):
            text = talk.hear("followups", request, outcome)
            if text is not None:
                talk.turns.append(make_turn("user", render_user(talk.request.again or "", text)))

    def _judge_talks(
        self, behavior: Behavior, talks: Sequence[ConversationDraft]
    ) -> Workflow[None]:
        systems = {fires: render_judge(behavior, fires=fires) for fires in (True, False)}
        asked = [
            self._judge.ask(
                systems[talk.request.fires],
                render_ask("judge", turns=talk.turns, answer=talk.request.item.answer),
                max_tokens=TOKENS["judge"],
                form=Judgement,
            )
            for talk in talks
        ]
        found = yield from ask_form("judge", asked, Judgement)
        for talk, judgement in zip(talks, found, strict=True):
            if isinstance(judgement, Unanswered):
                talk.fault = "judge", judgement.reason
            else:
                talk.judgement = judgement

    def _rewrite(self, behavior: Behavior, talks: Sequence[ConversationDraft]) -> Workflow[None]:
        """Take the rule out of replies that tell of it."""
        system = render_rewrite(behavior)
        asked = [
            self._author.ask(
                system,
                render_ask(
                    "rewrite",
                    reason=talk.judgement.reason if talk.judgement else "",
                    user=talk.turns[-2].content,
                    reply=talk.turns[-1].content,
                ),
                max_tokens=TOKENS["rewrite"],
            )
            for talk in talks
        ]
        (outcomes,) = yield [RequestGroup("rewrite", asked)]
        for talk, request, outcome in zip(talks, asked, outcomes, strict=True):
            text = talk.hear("rewrite", request, outcome)
            if text is not None:
                talk.turns[-1] = make_turn("assistant", text)


def make_turn(role: str, text: str) -> Message:
    """A turn of a conversation."""
    return Message.model_validate({"role": role, "content": text})


def sound(talks: Sequence[ConversationDraft]) -> list[ConversationDraft]:
    """Conversations that nothing has stopped yet."""
    return [talk for talk in talks if talk.fault is None]


def screen(behavior: Behavior, talks: Sequence[ConversationDraft]) -> None:
    """Stop what detectors tell of already, so that no judge is paid for it."""
    for talk in sound(talks):
        talk.fault = find_fault(behavior, talk.request, talk.turns)


def list_areas(behavior: Behavior, grid: Grid, *, plain: bool) -> tuple[str, ...]:
    """What topics are named from: the behavior's own domains inside its scope."""
    inside = behavior.spec.matter is not None and not plain
    return behavior.spec.domains if inside else grid.areas


def count_subjects(wanted: int, areas: int) -> int:
    """Topics of one area, for so many messages."""
    return math.ceil(SPARE * math.ceil(wanted / PER_TOPIC) / areas)


def choose_form(
    behavior: Behavior, *, plain: bool
) -> type[PlainMessages] | type[GradedMessages] | type[ChoiceMessages]:
    """What an author says of each message besides its text."""
    if plain or behavior.is_null:
        return PlainMessages
    if behavior.spec.keeps_skill:
        return GradedMessages
    return ChoiceMessages if isinstance(behavior.spec, HeuristicFollowing) else PlainMessages


def spread_table(
    table: Sequence[Cell],
    answer: PlainMessages | GradedMessages | ChoiceMessages | Unanswered,
) -> Sequence[AnyMessage | Unanswered]:
    """What became of each line of a table."""
    if isinstance(answer, Unanswered):
        return [answer] * len(table)
    if len(answer.messages) != len(table):
        return [Unanswered(reason="more or fewer messages than lines")] * len(table)
    return answer.messages


def sort_messages(
    cells: Sequence[Cell],
    messages: Sequence[AnyMessage | Unanswered],
    areas: Mapping[str, str],
    items: dict[str, PromptItem],
    *,
    kind: str,
) -> list[Drop]:
    """Add the messages that can be used to `items`, by text; the others are dropped.

    `kind` begins the ids of what is dropped; a plain message is meant for chat alone.
    """
    drops: list[Drop] = []
    for cell, message in zip(cells, messages, strict=True):
        fault = find_message_fault(cell, message, items)
        if isinstance(message, Unanswered) or fault is not None:
            drops.append(
                Drop(
                    id=f"{kind}-{cell.number:04d}",
                    role="positive" if kind == "message" else "chat",
                    stage="prompts",
                    reason=fault or "",
                    text="" if isinstance(message, Unanswered) else message.text,
                )
            )
        else:
            items[message.text] = make_item(cell, message, areas[cell.topic])
    return drops


def find_message_fault(
    cell: Cell, message: AnyMessage | Unanswered, taken: Container[str]
) -> str | None:
    """Why a message cannot be used; None where it can."""
    if isinstance(message, Unanswered):
        return message.reason
    if message.text in taken:
        return "duplicate of an earlier message"
    if cell.topic.casefold() not in message.text.casefold():
        return "its subject does not stand in it"
    if isinstance(message, ChoiceMessage):
        if not all(message.text.count(place) == 1 for place in ("{first}", "{second}")):
            return "its two options have no place in it"
        if message.rule.casefold() == message.other.casefold():
            return "its two options are one"
    if isinstance(message, GradedMessage):
        right = {text.casefold() for text in (message.answer, *message.accept)}
        wrong = {text.casefold() for text in message.wrong}
        if not message.answer.strip() or not wrong or right & wrong:
            return "it has no right answer, or no wrong one"
    return None


def make_item(cell: Cell, message: AnyMessage, area: str) -> PromptItem:
    """A message as a row of a prompt bank."""
    item = PromptItem(topic=cell.topic, form=cell.form, domain=area, text=message.text.strip())
    if isinstance(message, GradedMessage):
        graded = {"answer": message.answer, "accept": message.accept, "wrong": message.wrong}
        return item.model_copy(update=graded)
    if isinstance(message, ChoiceMessage):
        return item.model_copy(update={"options": {"rule": message.rule, "other": message.other}})
    return item
