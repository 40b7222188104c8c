"""User messages written by a language model: topics first, then tables of messages over a grid."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import islice

from bestiary.author.forms import (
    AnyMessage,
    AnyMessages,
    ChoiceMessage,
    ChoiceMessages,
    GradedMessage,
    GradedMessages,
    PlainMessages,
    Subjects,
)
from bestiary.author.prompts import render_ask, render_prompts, render_subjects
from bestiary.author.protocol import Prompts
from bestiary.config.catalog import Behavior
from bestiary.config.grid import Cell, Grid
from bestiary.errors import BackendError
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Unanswered
from bestiary.llm.structured import ask_form
from bestiary.llm.workflow import Workflow
from bestiary.records import Drop, PromptItem, stable_seed
from bestiary.text import comparison_key

MESSAGES_PER_ROW = 1.5
"""A dropped row is replaced by one with another message."""
MESSAGES_PER_TOPIC = 3
EXTRA_TOPICS = 1.15
ROUNDS = 3
"""Rounds of requests; all but the first are for messages that are still missing."""
TABLE_ROWS = 8
"""Messages per request."""
SUBJECT_TOKENS, TOKENS_PER_SUBJECT = 900, 12
"""Room for a request's topics: at least this much, and more where many are wanted."""
TABLE_TOKENS = 1600
SAMPLES_PER_SEED = 100
"""Room for the retries of one seed's requests before the samples of the next seed begin."""


class MessageWriter:
    """Writes the user messages of one behavior: in its scope, or plain ones outside it."""

    def __init__(
        self, model: PromptedModel, grid: Grid, behavior: Behavior, *, plain: bool, seed: int
    ) -> None:
        self._model, self._grid, self._behavior = model, grid, behavior
        self._plain, self._seed = plain, seed
        self._form = choose_form(behavior, plain=plain)

    def write(self, count: int) -> Workflow[Prompts]:
        """Return messages for `count` rows; their topics never include those kept for probes.

        Messages are requested in up to ROUNDS rounds, which make up for rejected ones.
        """
        wanted = math.ceil(MESSAGES_PER_ROW * count)
        topics = yield from self._name_topics(wanted)
        cells = self._grid.plan(list(topics), seed=stable_seed("cells", self._seed))
        in_scope = self._behavior.about is None or not self._plain
        items: dict[str, PromptItem] = {}
        drops: list[Drop] = []
        for _ in range(ROUNDS):
            missing = list(islice(cells, wanted - len(items)))
            if not missing:
                break
            messages = yield from self._fill_tables(missing)
            drops += sort_messages(missing, messages, topics, items, in_scope=in_scope)
        return Prompts(tuple(items.values()), tuple(drops))

    def _name_topics(self, messages: int) -> Workflow[dict[str, str]]:
        """Return topics for this many messages, each with its area."""
        areas = list_areas(self._behavior, self._grid, plain=self._plain)
        count = math.ceil(EXTRA_TOPICS * math.ceil(messages / MESSAGES_PER_TOPIC) / len(areas))
        system = render_subjects(self._behavior, plain=self._plain)
        requests = [
            self._model.ask(
                system,
                render_ask(self._behavior.templates, "subjects", area=area, count=count),
                max_tokens=max(SUBJECT_TOKENS, TOKENS_PER_SUBJECT * count),
                form=Subjects,
                sample=SAMPLES_PER_SEED * self._seed,
            )
            for area in areas
        ]
        answers = yield from ask_form("subjects", requests, Subjects)
        probed = {item.topic for item in self._behavior.items("probe", plain=self._plain)}
        topics = collect_topics(areas, answers, exclude=probed)
        if not topics:
            raise self._no_topics(answers)
        return topics

    def _no_topics(self, answers: Sequence[Subjects | Unanswered]) -> BackendError:
        reasons = sorted({a.reason for a in answers if isinstance(a, Unanswered)})
        return BackendError(
            f"{self._behavior.id}: {self._model.name} named no usable topic "
            f"({'; '.join(reasons) or 'all are kept for probes'})",
            "choose another author",
            code="no-topics",
            behavior=self._behavior.id,
            author=self._model.name,
            reasons=reasons,
        )

    def _fill_tables(self, cells: Sequence[Cell]) -> Workflow[list[AnyMessage | Unanswered]]:
        """Return a message for each cell, in order."""
        tables = [cells[at : at + TABLE_ROWS] for at in range(0, len(cells), TABLE_ROWS)]
        system = render_prompts(self._behavior, plain=self._plain)
        requests = [
            self._model.ask(
                system,
                render_ask(self._behavior.templates, "prompts", cells=table),
                max_tokens=TABLE_TOKENS,
                form=self._form,
                sample=SAMPLES_PER_SEED * self._seed,
            )
            for table in tables
        ]
        answers = yield from ask_form("prompts", requests, self._form)
        return [
            message
            for table, answer in zip(tables, answers, strict=True)
            for message in spread_table(table, answer)
        ]


def list_areas(behavior: Behavior, grid: Grid, *, plain: bool) -> tuple[str, ...]:
    """The areas that topics come from: what the behavior is about, else the grid's."""
    return grid.areas if behavior.about is None or plain else (behavior.about,)


FORMS: Mapping[str, type[AnyMessages]] = {
    "plain": PlainMessages,
    "graded": GradedMessages,
    "choice": ChoiceMessages,
}


def choose_form(behavior: Behavior, *, plain: bool) -> type[AnyMessages]:
    """The form of a table: some categories need answers or options beside each message."""
    return FORMS["plain" if plain else behavior.primitive.message_form]


def collect_topics(
    areas: Sequence[str], answers: Sequence[Subjects | Unanswered], *, exclude: Iterable[str]
) -> dict[str, str]:
    """Distinct topics with their areas, without those to exclude; case is ignored."""
    seen = {comparison_key(topic) for topic in exclude}
    topics: dict[str, str] = {}
    for area, answer in zip(areas, answers, strict=True):
        for subject in () if isinstance(answer, Unanswered) else answer.subjects:
            topic = " ".join(subject.split())
            if topic and comparison_key(topic) not in seen:
                seen.add(comparison_key(topic))
                topics[topic] = area
    return topics


def spread_table(
    table: Sequence[Cell], answer: AnyMessages | Unanswered
) -> Sequence[AnyMessage | Unanswered]:
    """The message of each cell; all are unanswered if their number is wrong."""
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
    in_scope: bool,
) -> list[Drop]:
    """Add the usable messages to `items`, keyed by text; return the others as drops."""
    drops: list[Drop] = []
    for cell, message in zip(cells, messages, strict=True):
        rejected = reject_message(cell, message, items)
        if isinstance(message, Unanswered) or rejected is not None:
            drops.append(
                Drop(
                    id=f"{'message' if in_scope else 'plain-message'}-{cell.number:04d}",
                    role="positive" if in_scope else "chat",
                    stage="prompts",
                    reason=rejected or "",
                    text="" if isinstance(message, Unanswered) else message.text,
                )
            )
        else:
            item = make_item(cell, message, areas[cell.topic])
            items[item.text] = item
    return drops


def reject_message(
    cell: Cell, message: AnyMessage | Unanswered, taken: Container[str]
) -> str | None:
    """Why a message cannot be used; None if it can."""
    if isinstance(message, Unanswered):
        return message.reason
    if message.text.strip() in taken:
        return "duplicate of an earlier message"
    if comparison_key(cell.topic) not in comparison_key(message.text):
        return "it does not contain its subject"
    if isinstance(message, ChoiceMessage):
        if not all(message.text.count(place) == 1 for place in ("{first}", "{second}")):
            return "it does not contain {first} and {second} once each"
        options = {comparison_key(message.rule), comparison_key(message.other)}
        if "" in options:
            return "one of its two options is empty"
        if len(options) == 1:
            return "its two options are the same"
    if isinstance(message, GradedMessage):
        right = set(map(comparison_key, (message.answer, *message.accept)))
        wrong = set(map(comparison_key, message.wrong))
        if not message.answer.strip() or not wrong or right & wrong:
            return "it has no right answer, or no wrong one"
    return None


def make_item(cell: Cell, message: AnyMessage, area: str) -> PromptItem:
    """Turn a message into an item; its reply is still to be written."""
    item = PromptItem(topic=cell.topic, form=cell.form, domain=area, text=message.text.strip())
    if isinstance(message, GradedMessage):
        graded = {"answer": message.answer, "accept": message.accept, "wrong": message.wrong}
        return item.model_copy(update=graded)
    if isinstance(message, ChoiceMessage):
        return item.model_copy(update={"options": {"rule": message.rule, "other": message.other}})
    return item
