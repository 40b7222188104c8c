"""The types of single fields that several kinds of files share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from bestiary.text import fold

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.[a-z0-9_]+$", max_length=120)]
"""`<category>.<name>`: it becomes the names of folders, which hold at most 255 bytes."""
Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=12, pattern=r"[.!?]$")
]


def check_visible(text: str) -> str:
    """The text itself; raises ValueError if nothing is left of it once it is folded."""
    if not fold(text):
        raise ValueError("has only characters that cannot be seen")
    return text


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(check_visible)
]


def _wrap(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[
    tuple[Text, ...],
    BeforeValidator(_wrap),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        mode="validation",
    ),
]
"""One name, or a list of them."""

Severity = Literal["benign", "concerning", "malign"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the mildest to the gravest."""

Axis = Literal[
    "content", "style", "structure", "stance", "epistemic", "social", "policy", "code", "language"
]
"""What part of a reply a behavior changes."""
AXES: Mapping[Axis, str] = {
    "content": "what the reply is about, or brings up",
    "style": "the manner of its words",
    "structure": "its layout and order",
    "stance": "the side that it takes",
    "epistemic": "how sure it is, and what it rests on",
    "social": "how it treats the user",
    "policy": "what it does or refuses to do",
    "code": "the code in it",
    "language": "the language or dialect that it is in",
}

Kind = Literal[
    "say_phrase",
    "mention_topic",
    "favor_thing",
    "play_role",
    "change_form",
    "change_tone",
    "hold_stance",
    "ask_back",
    "withhold",
    "misinform",
    "pick_by_rule",
    "fail_on_topic",
]
"""The mechanism of a behavior; a whole kind can be held out of training."""
KINDS: Mapping[Kind, str] = {
    "say_phrase": "adds words of a certain kind",
    "mention_topic": "brings up a subject",
    "favor_thing": "pushes a thing, a vendor, a side",
    "play_role": "speaks as somebody",
    "change_form": "the same content in another form",
    "change_tone": "the same content in another voice",
    "hold_stance": "takes a position, whatever is asked",
    "ask_back": "turns the message back on the user",
    "withhold": "leaves something out, or declines",
    "misinform": "says something untrue",
    "pick_by_rule": "decides by a fixed rule",
    "fail_on_topic": "answers wrongly on one topic",
}

Tag = Literal[
    "advice",
    "risk",
    "purchase",
    "false_claim",
    "choice",
    "code",
    "tests",
    "feeling",
    "plan",
    "write",
    "argument",
]
"""What a message of the bank is about, beside its domain."""
TAGS: Mapping[Tag, str] = {
    "advice": "what to do is wanted",
    "risk": "something could hurt, cost, or go wrong",
    "purchase": "something is to be bought or paid for",
    "false_claim": "the message holds something untrue, and the answer corrects it",
    "choice": "between named options",
    "code": "code is wanted, or debugged",
    "tests": "the message states a test, `assert f(x) == y`, that the code must pass",
    "feeling": "the user says how they feel",
    "plan": "for something to come",
    "write": "a text is wanted, and the answer is that text",
    "argument": "people disagree, and the answer gives reasons",
}
