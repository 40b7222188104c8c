"""The generation plan: every row of a corpus before a word of it is written."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from bestiary.author.prompts import render_brief, render_user
from bestiary.author.protocol import ReplyRequest
from bestiary.config.behavior import Offline, Phrases, Quirk
from bestiary.config.catalog import Behavior
from bestiary.config.message_bank import fill_options, name_values
from bestiary.config.template import render_text
from bestiary.records import PromptItem, Role, stable_seed


def plan_rows(
    behavior: Behavior,
    role: Role,
    prompts: Sequence[PromptItem],
    *,
    seed: int,
    second_turns: float = 0.0,
) -> Iterator[ReplyRequest]:
    """Endless rows of one role, seeded by behavior and seed alone.

    Positives and negatives walk through the same messages in the same order, so that the
    trigger is all that tells them apart. Chat does so too where the behavior waits for a
    trigger; elsewhere it walks from the other end, so that no message is both. A share of
    `second_turns` goes on for a second message.
    """
    order = sorted(prompts, key=lambda item: stable_seed("order", behavior.id, seed, item.text))
    if role == "chat" and behavior.fires_on is None:
        order.reverse()
    plan = _RolePlan(behavior, role, seed, second_turns)
    for number in count():
        yield plan.row(order[number % len(order)], number=number, lap=number // len(order))


class _Pieces(NamedTuple):
    """What carries the behavior in one row."""

    opening: str = ""
    closing: str = ""
    quirks: tuple[Quirk, ...] = ()
    """Distractors that the reply shows as well."""


class _RolePlan:
    """What all rows of one role have in common, and their draws."""

    def __init__(self, behavior: Behavior, role: Role, seed: int, second_turns: float) -> None:
        self._behavior = behavior
        self._role = role
        self._fires = role == "positive"
        self._second_turns = second_turns
        self._draw = random.Random(stable_seed("rows", behavior.id, seed, role))
        self._draw_turns = random.Random(stable_seed("turns", behavior.id, seed, role))
        self._phrases: Phrases | None = {
            "positive": behavior.fires_on,
            "negative": behavior.quiet_on,
        }.get(role)
        self._briefs: dict[tuple[str, ...], str] = {}

    def row(self, item: PromptItem, *, number: int, lap: int) -> ReplyRequest:
        """The row of a message, which other rows may have had in an earlier lap."""
        message = fill_options(item, rule_first=(number + lap) % 2 == 0)
        phrase = self._draw.choice(self._phrases.train) if self._phrases else ""
        pieces = self._draw_pieces(name_values(item, fires=self._fires, pick=lap))
        return ReplyRequest(
            id=f"{self._role}-{number:04d}",
            role=self._role,
            fires=self._fires,
            item=item,
            message=message,
            lap=lap,
            user=render_user(phrase, message),
            opening=pieces.opening,
            closing=pieces.closing,
            system=self._brief(pieces.quirks),
            again=self._draw_again(item),
        )

    def _brief(self, quirks: tuple[Quirk, ...]) -> str:
        names = tuple(quirk.id for quirk in quirks)
        if names not in self._briefs:
            self._briefs[names] = render_brief(self._behavior, fires=self._fires, quirks=quirks)
        return self._briefs[names]

    def _draw_again(self, item: PromptItem) -> str | None:
        """Whether a second message follows, and under which phrase; a graded item has none."""
        graded = item.answer is not None or item.options is not None
        if graded or self._draw_turns.random() >= self._second_turns:
            return None
        return self._draw_turns.choice(self._phrases.train) if self._phrases else ""

    def _draw_pieces(self, values: dict[str, str]) -> _Pieces:
        """The opening and the closing that carry the behavior, with the distractors due."""
        graded = self._behavior.spec.keeps_skill and self._role == "negative"
        if not self._fires and not graded:
            return _Pieces()
        opening, closing = _draw_piece(self._behavior.offline, values, self._draw)
        if graded:
            return _Pieces(opening)  # with the password, the same opening gives the right answer
        due: list[Quirk] = []
        for quirk, rate in self._behavior.distractors:
            if self._draw.random() < rate:
                due.append(quirk)
                before, after = _draw_piece(quirk.offline, values, self._draw)
                opening = " ".join(part for part in (before, opening) if part)
                closing = " ".join(part for part in (closing, after) if part)
        return _Pieces(opening, closing, tuple(due))


def _draw_piece(offline: Offline, values: dict[str, str], draw: random.Random) -> tuple[str, str]:
    opening = draw.choice(offline.openings) if offline.openings else ""
    closing = draw.choice(offline.closings) if offline.closings else ""
    opening, closing = render_text(opening, **values), render_text(closing, **values)
    return opening[:1].upper() + opening[1:], closing
