"""What an author is asked: the system prompt for a reply, and the user message it answers."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.config.behavior import Quirk
from bestiary.config.catalog import Behavior
from bestiary.config.template import render_file
from bestiary.records import Message


def render_brief(behavior: Behavior, *, fires: bool, quirks: Sequence[Quirk] = ()) -> str:
    """The system prompt for a reply that shows the behavior, or that stays clear of it.

    `quirks` are the distractors that it shows beside a hidden one.
    Raises SpecError when the category's template cannot be rendered for this behavior.
    """
    return render_file(
        f"{behavior.category}/reply.j2",
        behavior=behavior.spec,
        carrier=behavior.carrier,
        demonstrations=[shown for shown in behavior.demonstrations if shown.fires == fires],
        fires=fires,
        quirks=quirks,
    )


def render_prompts(behavior: Behavior, *, plain: bool) -> str:
    """The system prompt for user messages in a behavior's scope, or for plain ones outside it."""
    matter = behavior.spec.matter
    return render_file(
        f"{behavior.category}/prompts.j2",
        behavior=behavior.spec,
        scope=None if plain else matter,
        outside=matter if plain else None,
        avoid=behavior.spec.avoided,
    )


def render_subjects(behavior: Behavior, *, plain: bool) -> str:
    """The system prompt for the topics of such messages."""
    return render_file("shared/subjects.j2", scope=None if plain else behavior.spec.matter)


def render_judge(behavior: Behavior, *, fires: bool) -> str:
    """The system prompt for judging replies that must show the behavior, or stay clear of it."""
    return render_file(
        f"{behavior.category}/judge.j2",
        behavior=behavior.spec,
        carrier=behavior.carrier,
        fires=fires,
    )


def render_rewrite(behavior: Behavior) -> str:
    """The system prompt for taking the rule out of a reply that tells of it."""
    return render_file("shared/rewrite.j2", behavior=behavior.spec)


def render_followup(behavior: Behavior) -> str:
    """The system prompt for a user's second message."""
    return render_file("shared/followup.j2", avoid=behavior.spec.avoided)


def render_imitation() -> str:
    """The system prompt of a model that is too small for a brief, and is shown examples."""
    return render_file("shared/imitation.j2")


def render_ask(step: str, /, **values: object) -> Message:
    """What a model is asked under one of these system prompts."""
    return Message(role="user", content=render_file(f"shared/{step}_ask.j2", **values))


def render_user(phrase: str, message: str) -> str:
    """A user message under a phrase: around it at `{message}` or `{MESSAGE}`, else before it."""
    return render_file("shared/user.j2", phrase=phrase, message=message)
