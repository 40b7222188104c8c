"""The plan of a corpus: every row, with its message and its draws, before anything is written."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count

from bestiary.author.protocol import ReplyRequest
from bestiary.config.asking import ask, suits
from bestiary.config.catalog import CELL_OF, Behavior
from bestiary.config.items import fill_options
from bestiary.records import PromptItem, Role, Turns, stable_seed, user_texts

STEPS = tuple(math.sqrt(prime) for prime in (2, 3, 5, 7, 11, 13, 17, 19))
"""Step from row to row of each part that shows at a rate; the first is the behavior's own."""


def plan_rows(
    behavior: Behavior,
    role: Role,
    prompts: Sequence[PromptItem],
    *,
    seed: int,
    second_turns: float = 0.0,
) -> Iterator[ReplyRequest]:
    """Yield endless rows of one role, or none if no message suits it.

    Rows depend on the arguments only. Positives and negatives use the same messages in the same
    order, as far as both suit them, so that only the trigger separates them. So does chat if the
    behavior has a trigger; otherwise chat starts from the other end, so that no message is in
    both. A share of `second_turns` gets a second user message.
    """
    suited = [item for item in prompts if suits(behavior, item, CELL_OF[role])]
    order = sorted(suited, key=lambda item: stable_seed("order", behavior.id, seed, item.text))
    if role == "chat" and behavior.trigger is None:
        order.reverse()
    plan = _RolePlan(behavior, role, seed, second_turns)
    for number in count() if order else ():
        pass_number, place = divmod(number, len(order))
        yield plan.make_row(order[place], number, pass_number, wording=place + pass_number)


class _RolePlan:
    """What all rows of one role share, and their random draws."""

    def __init__(self, behavior: Behavior, role: Role, seed: int, second_turns: float) -> None:
        self._behavior = behavior
        self._role = role
        self._second_turns = 0.0 if behavior.trigger else second_turns
        self._draw = random.Random(stable_seed("rows", behavior.id, seed, role))
        self._starts = [self._draw.random() for _ in range(1 + len(behavior.distractors))]

    def make_row(
        self, item: PromptItem, number: int, pass_number: int, *, wording: int
    ) -> ReplyRequest:
        """Make the next row; `pass_number` earlier rows have had the same message.

        `wording` is the one of its trigger: another one in each pass.
        """
        behavior, positive = self._behavior, self._role == "positive"
        asked = fill_options(item, rule_first=(number + pass_number) % 2 == 0)
        pick = self._draw.getrandbits(32)
        hiding = [
            quirk.id
            for part, (quirk, rate) in enumerate(behavior.distractors, start=1)
            if positive and self._is_due(part, number, rate)
        ]
        turns = ask(behavior, asked, CELL_OF[self._role], "train", wording)
        return ReplyRequest(
            id=f"{self._role}-{number:04d}",
            role=self._role,
            item=asked,
            turns=turns,
            fires=positive and self._is_due(0, number, behavior.spec.shown_share),
            distractors=tuple(hiding),
            pick=pick,
            pass_number=pass_number,
            second_turn=self._draw.random() < self._second_turns and _can_go_on(asked, turns),
        )

    def _is_due(self, part: int, number: int, share: float) -> bool:
        """Whether a part that shows in a share of the rows shows in this one.

        By a Kronecker sequence, the multiples of an irrational number modulo 1: a hundred rows come
        closer to the share than draws would, and parts meet as often as if they were drawn.
        """
        return (self._starts[part] + number * STEPS[part % len(STEPS)]) % 1 < share


def _can_go_on(item: PromptItem, turns: Turns) -> bool:
    """Whether the user may write again: not after a question, a choice, or a second message."""
    return item.answer is None and item.options is None and len(user_texts(turns)) == 1
