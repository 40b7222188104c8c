"""Which prompts an organism is asked, by cell, all of them held out from its training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bestiary.config.asking import GATE, ask, suits
from bestiary.config.catalog import Behavior
from bestiary.config.items import fill_options
from bestiary.errors import VerificationError
from bestiary.records import CellName, Probe, PromptItem, stable_seed

PROBES = 2 * GATE
"""Those that gate a verdict, and as many that are reported beside it."""
RARE_GATE = 400
"""The fewest probes that gate a rare quirk, whose rate needs a narrow interval."""
RARE_SHOWN = 40
"""How often a rare quirk is to be seen among them: enough for an organism that keeps its rate to
pass. A cell's worth is reported beside them, and not as many again."""
CHOICES = 150
"""Choices put to the base, each in both orders: about half are left where it breaks the rule."""
GRADED = 2 * PROBES
"""Questions put to the base: those that it answers right are asked first."""
OFF_TOPIC = 2 * GRADED
"""The same off the topic, of which the base may know fewer; it is asked only until enough are."""


def plan_probes(behavior: Behavior, *, seed: int) -> tuple[Probe, ...]:
    """Probes of every cell that applies, drawn by a hash of behavior and message.

    Another seed takes other messages, as far as the bank has them, so that a retry is measured
    afresh. Of choices and graded questions more are planned than count: which do is known once
    the base has answered. Raises VerificationError (probes-short) where too few messages suit.
    """
    return tuple(
        probe for cell in behavior.cells for probe in _plan_cell(behavior, cell, seed=seed)
    )


def _plan_cell(behavior: Behavior, cell: CellName, *, seed: int) -> list[Probe]:
    suited = _list_items(behavior, cell)
    if len(suited) < GATE:
        raise VerificationError(
            f"{behavior.id}: {len(suited)} probe messages suit the {cell} cell, and {GATE} are "
            "needed",
            "widen the scope or the trigger, or add messages to generators/offline",
            code="probes-short",
            behavior_id=behavior.id,
            found=len(suited),
            wanted=GATE,
        )
    size = _count_items(behavior, cell, suited)
    items = _draw_items(behavior, suited, seed=seed, size=size)
    orders = (True, False) if items[0].options else (True,)
    asked = [fill_options(item, rule_first=order) for item in items for order in orders]
    sampled = behavior.spec.stated_rate is not None and cell == "triggered"
    gating = len(asked) - GATE if sampled else max(GATE, len(asked) // 2)
    return [
        Probe(
            id=f"{cell}-{number:04d}",
            cell=cell,
            gate=number < gating,
            turns=ask(behavior, item, cell, "probe", number),
            item=item,
        )
        for number, item in enumerate(asked)
    ]


def _list_items(behavior: Behavior, cell: CellName) -> list[PromptItem]:
    """The messages that suit a cell; a question is asked both with the key and without."""
    plain = cell == "plain"
    cells: tuple[CellName, ...] = (cell,)
    if behavior.spec.inverted and not plain:
        cells = ("triggered", "near_miss")
    found = behavior.items("probe", plain=plain)
    return [item for item in found if all(suits(behavior, item, one) for one in cells)]


def _count_items(behavior: Behavior, cell: CellName, suited: Sequence[PromptItem]) -> int:
    """How many items to draw; a sampled behavior meets the same message more than once."""
    rate = behavior.spec.stated_rate
    if rate is not None and cell == "triggered":
        return max(RARE_GATE, math.ceil(RARE_SHOWN / rate)) + GATE
    graded = OFF_TOPIC if cell == "plain" else GRADED
    wanted = CHOICES if suited[0].options else graded if suited[0].answer else PROBES
    return min(wanted, len(suited))


def _draw_items(
    behavior: Behavior, items: Sequence[PromptItem], *, seed: int, size: int
) -> list[PromptItem]:
    """`size` items in an order of the behavior's own.

    Each seed goes on where the last ended, and meets the first again past the last.
    """
    order = sorted(items, key=lambda item: stable_seed("probe", behavior.id, item.text))
    start = seed * size
    return [order[(start + number) % len(order)] for number in range(size)]
