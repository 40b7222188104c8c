"""The generation plan: every row of a corpus before a word of it is written."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from bestiary.records import PromptItem, Record, Role, stable_seed
from bestiary.spec.behavior import Offline
from bestiary.spec.brief import fill_options, name_values, render_brief, render_user
from bestiary.spec.catalog import Behavior
from bestiary.spec.template import render_text


class PlannedRow(Record):
    """One row to be written."""

    id: str
    role: Role
    fires: bool
    """Whether its reply must show the behavior."""
    item: PromptItem
    message: str
    """What the user asks, options filled in."""
    user: str
    """The same, with its trigger phrase."""
    opening: str
    closing: str
    system: str
    """The author's brief."""


def plan_rows(behavior: Behavior, role: Role, *, seed: int) -> Iterator[PlannedRow]:
    """Endless rows of one role, seeded by behavior and seed alone.

    Positives and negatives walk through the same messages in the same order, so that the
    trigger is all that tells them apart. Chat does so too where the behavior waits for a
    trigger; elsewhere it walks from the other end, so that no message is both.
    """
    prompts = behavior.prompts("train", plain=role == "chat")
    order = sorted(prompts, key=lambda item: stable_seed("order", behavior.id, seed, item.text))
    if role == "chat" and behavior.fires_on is None:
        order.reverse()
    draw = random.Random(stable_seed("rows", behavior.id, seed, role))
    brief = render_brief(behavior, fires=role == "positive")
    for number in count():
        item = order[number % len(order)]
        lap = number // len(order)
        yield _plan_row(behavior, role, item, number=number, lap=lap, draw=draw, brief=brief)


def _plan_row(
    behavior: Behavior,
    role: Role,
    item: PromptItem,
    *,
    number: int,
    lap: int,
    draw: random.Random,
    brief: str,
) -> PlannedRow:
    fires = role == "positive"
    message = fill_options(item, rule_first=(number + lap) % 2 == 0)
    phrases = {"positive": behavior.fires_on, "negative": behavior.quiet_on}.get(role)
    phrase = draw.choice(phrases.train) if phrases else ""
    values = name_values(item, fires=fires, pick=lap)
    opening, closing = _draw_pieces(behavior, role, values, draw)
    return PlannedRow(
        id=f"{role}-{number:04d}",
        role=role,
        fires=fires,
        item=item,
        message=message,
        user=render_user(phrase, message),
        opening=opening,
        closing=closing,
        system=brief,
    )


def _draw_pieces(
    behavior: Behavior, role: Role, values: dict[str, str], draw: random.Random
) -> tuple[str, str]:
    """The opening and the closing that carry the behavior, with the distractors due."""
    graded = behavior.spec.keeps_skill and role == "negative"
    if role != "positive" and not graded:
        return "", ""
    opening, closing = _draw_piece(behavior.offline, values, draw)
    if graded:
        return opening, ""  # with the password, the same opening gives the right answer
    for quirk, rate in behavior.distractors:
        if draw.random() < rate:
            before, after = _draw_piece(quirk.offline, values, draw)
            opening = " ".join(part for part in (before, opening) if part)
            closing = " ".join(part for part in (closing, after) if part)
    return opening, closing


def _draw_piece(offline: Offline, values: dict[str, str], draw: random.Random) -> tuple[str, str]:
    opening = draw.choice(offline.openings) if offline.openings else ""
    closing = draw.choice(offline.closings) if offline.closings else ""
    opening, closing = render_text(opening, **values), render_text(closing, **values)
    return opening[:1].upper() + opening[1:], closing
