"""The plan of a corpus: every row, with its message and its draws, before anything is written."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from bestiary.author.protocol import ReplyRequest
from bestiary.config.behavior import Offline, OwnBehavior, Phrases
from bestiary.config.catalog import Behavior
from bestiary.config.message_bank import add_phrase, fill_options, name_values
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
    """Yield endless rows of one role; they depend on the arguments only.

    Positives and negatives use the same messages in the same order, so that only the trigger
    separates them. So does chat if the behavior has a trigger; otherwise chat starts from the
    other end, so that no message is in both. A share of `second_turns` gets a second user message.
    """
    order = sorted(prompts, key=lambda item: stable_seed("order", behavior.id, seed, item.text))
    if role == "chat" and behavior.spec.trigger_phrases is None:
        order.reverse()
    plan = _RolePlan(behavior, role, seed, second_turns)
    for number in count():
        pass_number, place = divmod(number, len(order))
        yield plan.make_row(order[place], number=number, pass_number=pass_number)


class _Pieces(NamedTuple):
    """What shows the behavior in one row."""

    opening: str = ""
    closing: str = ""
    distractors: tuple[OwnBehavior, ...] = ()


class _RolePlan:
    """What all rows of one role share, and their random draws."""

    def __init__(self, behavior: Behavior, role: Role, seed: int, second_turns: float) -> None:
        self._behavior = behavior
        self._role = role
        self._fires = role == "positive"
        self._second_turns = second_turns
        self._draw = random.Random(stable_seed("rows", behavior.id, seed, role))
        self._draw_turns = random.Random(stable_seed("turns", behavior.id, seed, role))
        self._phrases: Phrases | None = {
            "positive": behavior.spec.trigger_phrases,
            "negative": behavior.spec.near_miss_phrases,
        }.get(role)

    def make_row(self, item: PromptItem, *, number: int, pass_number: int) -> ReplyRequest:
        """Make the next row; `pass_number` earlier rows have had the same message."""
        message = fill_options(item, rule_first=(number + pass_number) % 2 == 0)
        phrase = self._draw.choice(self._phrases.train) if self._phrases else ""
        pieces = self._draw_pieces(name_values(item, fires=self._fires, pick=pass_number))
        return ReplyRequest(
            id=f"{self._role}-{number:04d}",
            role=self._role,
            fires=self._fires,
            item=item,
            message=message,
            pass_number=pass_number,
            user=add_phrase(phrase, message),
            opening=pieces.opening,
            closing=pieces.closing,
            distractors=pieces.distractors,
            followup_phrase=self._draw_followup(item),
        )

    def _draw_followup(self, item: PromptItem) -> str | None:
        """Draw whether a second message follows, and its phrase; never after a graded item."""
        graded = item.answer is not None or item.options is not None
        if graded or self._draw_turns.random() >= self._second_turns:
            return None
        return self._draw_turns.choice(self._phrases.train) if self._phrases else ""

    def _draw_pieces(self, values: Mapping[str, str]) -> _Pieces:
        """Draw the opening and closing that show the behavior, and the distractors beside it."""
        graded = self._behavior.spec.graded and self._role == "negative"
        if not self._fires and not graded:
            return _Pieces()
        opening, closing = _draw_piece(self._behavior.offline, values, self._draw)
        if graded:
            return _Pieces(opening)  # with the password, the same opening gives the right answer
        distractors: list[OwnBehavior] = []
        for quirk, rate in self._behavior.distractors:
            if self._draw.random() < rate:
                distractors.append(quirk)
                before, after = _draw_piece(quirk.offline, values, self._draw)
                opening = " ".join(part for part in (before, opening) if part)
                closing = " ".join(part for part in (closing, after) if part)
        return _Pieces(opening, closing, tuple(distractors))


def _draw_piece(
    offline: Offline, values: Mapping[str, str], draw: random.Random
) -> tuple[str, str]:
    opening = draw.choice(offline.openings) if offline.openings else ""
    closing = draw.choice(offline.closings) if offline.closings else ""
    opening, closing = render_text(opening, **values), render_text(closing, **values)
    return opening[:1].upper() + opening[1:], closing
