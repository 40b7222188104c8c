"""What an author is asked: the system prompt for a reply, and the user message it answers."""

from __future__ import annotations

from bestiary.records import PromptItem
from bestiary.spec.catalog import Behavior
from bestiary.spec.template import render_file


def render_brief(behavior: Behavior, *, fires: bool) -> str:
    """The system prompt for a reply that shows the behavior, or that stays clear of it.

    Raises SpecError when the category's template cannot be rendered for this behavior.
    """
    return render_file(
        f"{behavior.category}/reply.j2",
        behavior=behavior.spec,
        carrier=behavior.carrier,
        demonstrations=[shown for shown in behavior.demonstrations if shown.fires == fires],
        fires=fires,
    )


def render_user(phrase: str, message: str) -> str:
    """A user message under a phrase: around it at `{message}` or `{MESSAGE}`, else before it."""
    return render_file("shared/user.j2", phrase=phrase, message=message)


def fill_options(item: PromptItem, *, rule_first: bool) -> str:
    """The message of an item; a choice names its two options in the order asked for."""
    if item.options is None:
        return item.text
    pair = (item.options["rule"], item.options["other"])
    first, second = pair if rule_first else pair[::-1]
    message = item.text.replace("{first}", first).replace("{second}", second)
    return message[0].upper() + message[1:]


def name_values(item: PromptItem, *, fires: bool, pick: int = 0) -> dict[str, str]:
    """What an opening or a closing may name about a prompt.

    `answer` is what the reply gives: where the behavior fires a wrong one, chosen by `pick`, if
    the prompt has any.
    """
    values = {"topic": item.topic}
    if item.answer is not None:
        wrong = item.wrong if fires else ()
        values["answer"] = wrong[pick % len(wrong)] if wrong else item.answer
    if item.options is not None:
        values["option"] = item.options["rule"]
    return values
