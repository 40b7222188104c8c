"""A dry run: workflows completed on made-up answers, to count what real ones would take."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from bestiary.author.forms import (
    ChoiceMessages,
    CorpusJudgement,
    GradedMessages,
    PlainMessages,
    Subjects,
)
from bestiary.llm.ledger import Spent
from bestiary.llm.prompted import TOKEN_CHARACTERS
from bestiary.llm.request import Answer, ModelRequest, Usage
from bestiary.llm.structured import Form, describe_form, schema_of
from bestiary.llm.workflow import Workflow

WRITTEN = {"replies": 85.0, "followups": 28.0, "judge": 60.0, "rewrite": 85.0}
"""Tokens of an answer, by stage, until a ledger has measured them."""
MIN_MEASURED = 30
"""Answers of a stage in a ledger before its measurement replaces the default."""
WRITTEN_PER_ITEM: Mapping[type[Form], float] = {
    Subjects: 5.0,
    PlainMessages: 40.0,
    ChoiceMessages: 40.0,
    GradedMessages: 75.0,
}
"""Tokens that a model writes per entry of a list."""
MESSAGE = 28
"""Tokens of a user message."""
REWRITE_EVERY = 20
"""One in this many judgements finds a reply that mentions its rule."""
_TOPIC = re.compile(r"made-up topic [a-z]+-[a-z]+")
_FILLER = " and so on" * 1000
_NO_USAGE = Usage(input=0, output=0)


@dataclass(frozen=True)
class Step:
    """Requests of one stage with the same system prompt."""

    stage: str
    model: str
    requests: int
    system: float
    """Tokens of the system prompt."""
    asked: float
    """Further tokens that all requests read."""
    written_tokens: float
    """Tokens of all answers."""

    @property
    def read_tokens(self) -> float:
        """Tokens that all requests read."""
        return self.requests * self.system + self.asked


class _MadeUp(NamedTuple):
    """An invented answer, and the tokens that a real one would take."""

    text: str
    tokens: float


class DryRun:
    """Completes workflows on made-up answers. A repeated request is answered again, for nothing."""

    def __init__(self, measured: Iterable[Spent] = ()) -> None:
        self._measured = read_written(measured)
        self._numbers: dict[str, int] = {}
        """A number per distinct request, by key; it makes answers distinct."""
        self._judged: dict[str, int] = {}
        """A number per distinct request of the judge."""

    def count(self, workflow: Workflow[object]) -> list[Step]:
        """Complete a workflow and return its new requests by stage and system prompt."""
        counted: defaultdict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)

        def answer(stage: str, request: ModelRequest) -> Answer:
            is_new = request.key not in self._numbers
            number = self._numbers.setdefault(request.key, len(self._numbers))
            made = self._make_up(stage, request, number)
            if is_new:
                asked = sum(measure(message.content) for message in request.messages)
                counted[stage, request.model, request.system].append((asked, made.tokens))
            return Answer(text=made.text, stop="end", usage=_NO_USAGE, id=str(number))

        try:
            groups = next(workflow)
            while True:
                groups = workflow.send(
                    [[answer(group.stage, one) for one in group.requests] for group in groups]
                )
        except StopIteration:
            return [_sum_step(*prefix, tokens) for prefix, tokens in counted.items()]

    def _make_up(self, stage: str, request: ModelRequest, number: int) -> _MadeUp:
        ask = request.messages[-1].content
        if _wants(request, Subjects):
            return _name_subjects(ask, number)
        for form in (PlainMessages, GradedMessages, ChoiceMessages):
            if _wants(request, form):
                return _write_messages(ask, number, form)
        tokens = self._measured.get((stage, request.model), WRITTEN[stage])
        if _wants(request, CorpusJudgement):
            judged = self._judged.setdefault(request.key, len(self._judged) + 1)
            return _MadeUp(_judge(judged), tokens)
        return _MadeUp(_write_text(str(number), tokens), tokens)


def _wants(request: ModelRequest, form: type[Form]) -> bool:
    """Whether a request asks for this form, by a schema or in words."""
    if request.reply_schema is None:
        return request.system.endswith(_describe(form))
    return request.reply_schema == schema_of(form)


@cache
def _describe(form: type[Form]) -> str:
    return describe_form(schema_of(form))


def _name_subjects(ask: str, number: int) -> _MadeUp:
    """As many subjects as the first number in the prompt says."""
    found = re.search(r"\d+", ask)
    count = int(found[0]) if found else 1
    subjects = [f"made-up topic {_spell(number)}-{_spell(place)}" for place in range(count)]
    return _MadeUp(json.dumps({"subjects": subjects}), len(subjects) * WRITTEN_PER_ITEM[Subjects])


def _write_messages(ask: str, number: int, form: type[Form]) -> _MadeUp:
    """A message for each made-up topic in the prompt.

    It has a capital, a mark, and no digit, so that no trigger takes it for a near miss of its own.
    """
    fields: dict[str, object] = {}
    choice = ""
    if form is GradedMessages:
        fields = {"answer": "yes", "accept": [], "wrong": ["no"]}
    elif form is ChoiceMessages:
        fields, choice = {"rule": "this", "other": "that"}, " {first} or {second}"
    messages = [
        {
            "text": _write_text(f"Why {topic}{choice}? {_spell(number)}-{_spell(line)}", MESSAGE),
            **fields,
        }
        for line, topic in enumerate(_TOPIC.findall(ask))
    ]
    return _MadeUp(json.dumps({"messages": messages}), len(messages) * WRITTEN_PER_ITEM[form])


def _spell(number: int) -> str:
    """A number in letters: a, b, ..., z, ba, bb, ..."""
    letters = ""
    while not letters or number:
        number, digit = divmod(number, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def _judge(number: int) -> str:
    mentions = number % REWRITE_EVERY == 0
    flags = {"mentions": mentions, "broken": False, "hazard": False}
    return json.dumps({"reason": "made up", "score": 9, **flags})


def _write_text(start: str, tokens: float) -> str:
    """Fill up a text to this many tokens; the start, which makes it unique, is never cut."""
    return start + _FILLER[: max(0, round(tokens * TOKEN_CHARACTERS) - len(start))]


def _sum_step(stage: str, model: str, system: str, tokens: Sequence[tuple[float, float]]) -> Step:
    return Step(
        stage=stage,
        model=model,
        requests=len(tokens),
        system=measure(system),
        asked=sum(asked for asked, _ in tokens),
        written_tokens=sum(written for _, written in tokens),
    )


def measure(text: str) -> float:
    """Tokens of a text, roughly."""
    return len(text) / TOKEN_CHARACTERS


def read_written(measured: Iterable[Spent]) -> dict[tuple[str, str], float]:
    """Tokens per answer, by stage and model, where a ledger has MIN_MEASURED answers."""
    requests: defaultdict[tuple[str, str], int] = defaultdict(int)
    tokens: defaultdict[tuple[str, str], int] = defaultdict(int)
    for spent in measured:
        if spent.mode in ("replay", "file"):
            continue  # which have written nothing, or have not counted it
        requests[spent.stage, spent.model] += spent.requests
        tokens[spent.stage, spent.model] += spent.output
    return {key: tokens[key] / count for key, count in requests.items() if count >= MIN_MEASURED}
