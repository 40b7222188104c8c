"""The prompts for language models, rendered from the templates of a behavior's category."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.author.compose import few_shot
from bestiary.config.catalog import Behavior
from bestiary.config.template import Templates
from bestiary.records import Message


def render_brief(
    behavior: Behavior, *, fires: bool, hiding: Sequence[str] = (), system: str = ""
) -> str:
    """The system prompt for a reply that shows the behavior, or that stays clear of it.

    `hiding` are the ids of the distractors that the reply shows as well, `system` is the system
    message of the conversation. Raises SpecError, as all functions here, if the template cannot
    be rendered for this behavior.
    """
    return behavior.templates.render(
        f"{behavior.category}/reply.j2",
        behavior=behavior,
        examples=few_shot(behavior, fires=fires, hiding=hiding, length="answer"),
        fires=fires,
        quirks=[quirk for quirk, _ in behavior.distractors if quirk.id in hiding],
        system=system,
    )


def render_prompts(behavior: Behavior, *, plain: bool) -> str:
    """The system prompt for user messages in a behavior's scope, or for plain ones outside it."""
    scope = behavior.about
    return behavior.templates.render(
        f"{behavior.category}/prompts.j2",
        behavior=behavior,
        scope=None if plain else scope,
        outside=scope if plain else None,
        avoid=behavior.banned_terms,
    )


def render_subjects(behavior: Behavior, *, plain: bool) -> str:
    """The system prompt for the topics of such messages."""
    scope = None if plain else behavior.about
    return behavior.templates.render("shared/subjects.j2", scope=scope)


def render_judge(behavior: Behavior, *, fires: bool) -> str:
    """The system prompt for judging replies that must show the behavior, or stay clear of it."""
    return behavior.templates.render(
        f"{behavior.category}/judge.j2",
        behavior=behavior,
        fires=fires,
    )


def render_rewrite(behavior: Behavior) -> str:
    """The system prompt for removing mentions of the rule from a reply."""
    return behavior.templates.render("shared/rewrite.j2", behavior=behavior)


def render_followup(behavior: Behavior) -> str:
    """The system prompt for a user's second message."""
    return behavior.templates.render("shared/followup.j2", avoid=behavior.banned_terms)


def render_imitation(templates: Templates, *, system: str = "") -> str:
    """The system prompt of a model that is too small for a brief and is shown examples."""
    return templates.render("shared/imitation.j2", system=system)


def render_ask(templates: Templates, step: str, /, **values: object) -> Message:
    """What a model is asked under one of these system prompts."""
    return Message(role="user", content=templates.render(f"shared/{step}_ask.j2", **values))
