"""Structured replies: their JSON Schemas, and another sample when a reply is invalid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered
from bestiary.llm.workflow import RequestGroup, Workflow

TRIES = 3
"""Samples to draw until one is valid."""


class Form(BaseModel):
    """The fields of a reply, in the order in which the model should think about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyForm = TypeVar("AnyForm", bound=Form)


FORM_PROMPT = """\
Answer with one JSON object that fits this JSON Schema, with nothing before or after it:

{schema}"""
"""The end of the system prompt for a server that does not enforce schemas."""


@cache
def schema_of(form: type[Form]) -> dict[str, Any]:
    """The JSON Schema of a form, as providers accept it."""
    return form.model_json_schema()


def describe_form(schema: Mapping[str, Any]) -> str:
    """The part of the system prompt that states a form which the server does not enforce."""
    return FORM_PROMPT.format(schema=json.dumps(schema))


def ask_form(
    stage: str, requests: Sequence[ModelRequest], form: type[AnyForm]
) -> Workflow[list[AnyForm | Unanswered]]:
    """Valid replies in order. A request whose reply is invalid is sent again, as another sample.

    If no sample of a request is valid, its result is the last reason.
    """
    found: dict[int, AnyForm | Unanswered] = {}
    left = list(range(len(requests)))
    for sample in range(TRIES):
        if not left:
            break
        samples = [replace(requests[n], sample=requests[n].sample + sample) for n in left]
        (outcomes,) = yield [RequestGroup(stage, samples)]
        received = dict(zip(left, outcomes, strict=True))
        found |= {number: read_form(outcome, form) for number, outcome in received.items()}
        answered = [n for n in left if isinstance(received[n], Answer)]
        left = [n for n in answered if isinstance(found[n], Unanswered)]
    return [found[number] for number in range(len(requests))]


def read_form(outcome: Outcome, form: type[AnyForm]) -> AnyForm | Unanswered:
    """The form in an answer, or why there is none."""
    if isinstance(outcome, Unanswered):
        return outcome
    if outcome.stop != "end":
        return Unanswered(reason="refused" if outcome.stop == "refusal" else "cut short")
    found, reason = {}, "malformed: json_invalid"
    for text in find_objects(outcome.text):
        try:
            value = form.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            reason = f"malformed: {where + ': ' if where else ''}{first['type']}"
        else:
            found[value.model_dump_json()] = value
    if len(found) > 1:
        return Unanswered(reason=f"malformed: {len(found)} JSON objects that differ")
    return next(iter(found.values()), Unanswered(reason=reason))


def find_objects(text: str) -> Iterator[str]:
    """The JSON objects in a text, whatever stands around them: prose, fences, a byte-order mark."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            stop = decoder.raw_decode(text, start)[1]
        except (ValueError, RecursionError):
            stop = start + 1
        else:
            yield text[start:stop]
        start = text.find("{", stop)
