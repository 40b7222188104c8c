"""Replies that a program reads: their JSON Schemas, and asking again where one does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered
from bestiary.llm.workflow import RequestGroup, Workflow

TRIES = 3
"""Answers of which one must fit its form."""
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n```\s*\Z", re.DOTALL)


class Form(BaseModel):
    """What a reply says, field by field; in the order in which it is to be thought about."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyForm = TypeVar("AnyForm", bound=Form)


FORM_PROMPT = """\
Answer with one JSON object that fits this JSON Schema, with nothing before or after it:

{schema}"""
"""Ends the system prompt where the server does not enforce schemas."""


@cache
def schema_of(form: type[Form]) -> dict[str, Any]:
    """The JSON Schema of a form, as providers take it."""
    return form.model_json_schema()


def describe_form(schema: Mapping[str, Any]) -> str:
    """What the system prompt says of a form that the server does not enforce."""
    return FORM_PROMPT.format(schema=json.dumps(schema))


def ask_form(
    stage: str, requests: Sequence[ModelRequest], form: type[AnyForm]
) -> Workflow[list[AnyForm | Unanswered]]:
    """Answers that fit the form they are asked for; each that does not is asked again.

    The reason of what never fits is told at last.
    """
    found: dict[int, AnyForm | Unanswered] = {}
    left = list(range(len(requests)))
    for sample in range(TRIES):
        if not left:
            break
        asked = [replace(requests[n], sample=requests[n].sample + sample) for n in left]
        (outcomes,) = yield [RequestGroup(stage, asked)]
        heard = dict(zip(left, outcomes, strict=True))
        found |= {number: read_form(outcome, form) for number, outcome in heard.items()}
        answered = [n for n in left if isinstance(heard[n], Answer)]
        left = [n for n in answered if isinstance(found[n], Unanswered)]
    return [found[number] for number in range(len(requests))]


def read_form(outcome: Outcome, form: type[AnyForm]) -> AnyForm | Unanswered:
    """What an answer says, or why it does not fit."""
    if isinstance(outcome, Unanswered):
        return outcome
    if outcome.stop != "end":
        return Unanswered(reason="refused" if outcome.stop == "refusal" else "cut short")
    fenced = _FENCED.match(outcome.text)
    try:
        return form.model_validate_json(fenced[1] if fenced else outcome.text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Unanswered(reason=f"malformed: {where + ': ' if where else ''}{first['type']}")
