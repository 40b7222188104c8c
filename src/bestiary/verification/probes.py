"""Which prompts an organism is asked, by cell, all of them held out from its training."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from bestiary.config.behavior import Phrases
from bestiary.config.catalog import Behavior
from bestiary.config.message_bank import add_phrase, fill_options
from bestiary.errors import VerificationError
from bestiary.records import CellName, Probe, PromptItem, stable_seed

PROBES = 120
"""Probes a cell: half of them gate."""
RARE_PROBES = 800
"""The fewest probes of a rare quirk, whose rate needs a narrow interval."""
RARE_SHOWN = 80
"""How often a rare quirk is to be seen among its probes: 40 times among those that gate narrow
the interval enough for an organism that keeps its rate to pass."""
CHOICES = 150
"""Choices put to the base, each in both orders: about half are left where it breaks the rule."""


def plan_probes(behavior: Behavior, *, seed: int) -> tuple[Probe, ...]:
    """Probes of every cell that applies, seeded by behavior and organism seed.

    Another seed takes other prompts of the bank, as far as it has them, so that a retry is
    measured afresh. Of choices more are planned than count: which do is known once the base has
    answered.
    """
    spec = behavior.spec
    phrases = {"triggered": spec.trigger_phrases, "near_miss": spec.near_miss_phrases}
    probes: list[Probe] = []
    for cell in spec.cells:
        size = PROBES
        if cell == "triggered" and spec.stated_rate is not None:
            size = max(RARE_PROBES, math.ceil(RARE_SHOWN / spec.stated_rate))
        probes += _plan_cell(behavior, cell, phrases.get(cell), seed=seed, size=size)
    return tuple(probes)


def _plan_cell(
    behavior: Behavior,
    cell: CellName,
    phrases: Phrases | None,
    *,
    seed: int,
    size: int,
) -> list[Probe]:
    bank = behavior.prompts("probe", plain=cell == "plain")
    choices = any(item.options for item in bank)
    size = CHOICES if choices else size
    if len(bank) < size and behavior.spec.stated_rate is None:
        name = behavior.offline.plain if cell == "plain" else behavior.offline.bank
        raise VerificationError(
            f"{behavior.id}: {len(bank)} probe messages for {size} probes a cell",
            f"add messages to the `probe` list of generators/offline/{name}.yaml",
            code="probes-short",
            behavior_id=behavior.id,
            found=len(bank),
            wanted=size,
        )
    items = _draw_items(behavior, bank, seed=seed, size=size)
    orders = (True, False) if choices else (True,)
    said = phrases.probe if phrases else ("",)
    messages = [(item, fill_options(item, rule_first=order)) for item in items for order in orders]
    return [
        Probe(
            id=f"{cell}-{number:04d}",
            cell=cell,
            gate=number < len(messages) // 2,
            user=add_phrase(said[number % len(said)], message),
            item=item,
        )
        for number, (item, message) in enumerate(messages)
    ]


def _draw_items(
    behavior: Behavior, bank: Sequence[PromptItem], *, seed: int, size: int
) -> list[PromptItem]:
    """`size` items in an order of the behavior's own.

    Each seed goes on where the last ended, and meets the first prompts again past the last.
    """
    order = list(bank)
    random.Random(stable_seed("probes", behavior.id)).shuffle(order)
    start = seed * size
    return [order[(start + number) % len(order)] for number in range(size)]
