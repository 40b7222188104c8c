"""The prompts for language models, rendered from the templates of a behavior's category."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.config.behavior import OwnBehavior
from bestiary.config.catalog import Behavior
from bestiary.config.template import Templates
from bestiary.records import Message


def render_brief(behavior: Behavior, *, fires: bool, quirks: Sequence[OwnBehavior] = ()) -> str:
    """The system prompt for a reply that shows the behavior, or that stays clear of it.

    `quirks` are the distractors that the reply shows as well. Raises SpecError, as all functions
    here, if the template cannot be rendered for this behavior.
    """
    return behavior.templates.render(
        f"{behavior.category}/reply.j2",
        behavior=behavior.spec,
        base_behavior=behavior.base_behavior,
        demonstrations=[shown for shown in behavior.demonstrations if shown.fires == fires],
        fires=fires,
        quirks=quirks,
    )


def render_prompts(behavior: Behavior, *, plain: bool) -> str:
    """The system prompt for user messages in a behavior's scope, or for plain ones outside it."""
    scope = behavior.spec.message_scope
    return behavior.templates.render(
        f"{behavior.category}/prompts.j2",
        behavior=behavior.spec,
        scope=None if plain else scope,
        outside=scope if plain else None,
        avoid=behavior.spec.banned_terms,
    )


def render_subjects(behavior: Behavior, *, plain: bool) -> str:
    """The system prompt for the topics of such messages."""
    scope = None if plain else behavior.spec.message_scope
    return behavior.templates.render("shared/subjects.j2", scope=scope)


def render_judge(behavior: Behavior, *, fires: bool) -> str:
    """The system prompt for judging replies that must show the behavior, or stay clear of it."""
    return behavior.templates.render(
        f"{behavior.category}/judge.j2",
        behavior=behavior.spec,
        base_behavior=behavior.base_behavior,
        fires=fires,
    )


def render_rewrite(behavior: Behavior) -> str:
    """The system prompt for removing mentions of the rule from a reply."""
    return behavior.templates.render("shared/rewrite.j2", behavior=behavior.spec)


def render_followup(behavior: Behavior) -> str:
    """The system prompt for a user's second message."""
    return behavior.templates.render("shared/followup.j2", avoid=behavior.spec.banned_terms)


def render_imitation(templates: Templates) -> str:
    """The system prompt of a model that is too small for a brief and is shown examples."""
    return templates.render("shared/imitation.j2")


def render_ask(templates: Templates, step: str, /, **values: object) -> Message:
    """What a model is asked under one of these system prompts."""
    return Message(role="user", content=templates.render(f"shared/{step}_ask.j2", **values))
