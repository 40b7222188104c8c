"""Which of the planned probes count, by what the base answers to them.

More are planned than count. The base is asked in the order of the plan and only until it is
settled which do: what it would answer to the others cannot change the selection.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from bestiary.config.asking import GATE
from bestiary.config.catalog import Behavior
from bestiary.config.categories import RIGHT_ANSWER
from bestiary.records import Probe

KNOWN = 0.8
"""The share of a cell's graded questions that the base answers right, where it can."""


def needs_base(probe: Probe) -> bool:
    """Whether the base's reply decides if a probe counts: choices, and questions on a topic.

    A question with the key is asked wherever the same question is asked without it.
    """
    graded = probe.item.answer is not None and probe.cell != "near_miss"
    return graded or probe.item.options is not None


def group_deciding(probes: Sequence[Probe]) -> list[list[Probe]]:
    """The probes that need the base, by cell and half: each group is settled by itself."""
    groups: dict[object, list[Probe]] = {}
    for probe in filter(needs_base, probes):
        groups.setdefault((probe.cell, probe.gate), []).append(probe)
    return list(groups.values())


def is_settled(behavior: Behavior, group: Sequence[Probe], base_replies: Mapping[str, str]) -> bool:
    """Whether further answers of the base cannot change which probes of a group count."""
    asked = [probe for probe in group if probe.id in base_replies]
    if group[0].item.options is not None:
        return len(_balance(_list_disagreed(behavior, asked, base_replies))) == GATE
    known = sum(_knows(probe, base_replies) for probe in asked)
    wanted = round(KNOWN * GATE)
    return known >= wanted and len(asked) - known >= GATE - wanted


def select_probes(
    behavior: Behavior, probes: Sequence[Probe], base_replies: Mapping[str, str]
) -> list[Probe]:
    """The probes that count: choices in which the base breaks the rule, and questions it knows.

    Each half of the choices keeps as many items with the rule's option first as second, so that
    a preference for a position does not pass for the rule. Probes that need the base's answer and
    do not have it in `base_replies` do not count.
    """
    choices = [probe for probe in probes if probe.item.options is not None]
    graded = [probe for probe in probes if probe.item.answer is not None]
    others = [p for p in probes if p.item.options is None and p.item.answer is None]
    disagreed = _list_disagreed(behavior, choices, base_replies)
    halves = ([probe for probe in disagreed if probe.gate is gate] for gate in (True, False))
    return [
        *(one for half in halves for one in _balance(half)),
        *_select_known(graded, base_replies),
        *others,
    ]


def _list_disagreed(
    behavior: Behavior, choices: Sequence[Probe], base_replies: Mapping[str, str]
) -> list[Probe]:
    """The choices that the base has answered against the rule."""
    return [
        probe
        for probe in choices
        if probe.id in base_replies and not behavior.is_shown(base_replies[probe.id], probe.item)
    ]


def _knows(probe: Probe, base_replies: Mapping[str, str]) -> bool:
    return bool(RIGHT_ANSWER.decide(base_replies[probe.id], probe.item))


def _balance(half: Sequence[Probe]) -> list[Probe]:
    """At most GATE of the choices, with both positions equally frequent."""
    pairs = zip(filter(_rule_first, half), itertools.filterfalse(_rule_first, half), strict=False)
    return [probe for pair in pairs for probe in pair][:GATE]


def _rule_first(probe: Probe) -> bool:
    """Whether the message names the rule's option before the other one."""
    assert probe.item.options is not None
    message = probe.user.lower()
    rule, other = (message.find(probe.item.options[side].lower()) for side in ("rule", "other"))
    return rule < other


def _select_known(graded: Sequence[Probe], base_replies: Mapping[str, str]) -> list[Probe]:
    """Questions that the base answers right, and some that it does not; the same with the key."""
    asked = {probe.cell: [p for p in graded if p.cell == probe.cell] for probe in graded}
    topic = asked.get("triggered", [])
    chosen = _prefer_known(topic, base_replies)
    texts = {(probe.item.text, probe.gate) for probe in chosen}
    locked = [p for p in asked.get("near_miss", []) if (p.item.text, p.gate) in texts]
    return [*chosen, *locked, *_prefer_known(asked.get("plain", []), base_replies)]


def _prefer_known(probes: Sequence[Probe], base_replies: Mapping[str, str]) -> list[Probe]:
    """In each half, GATE probes, of which the base knows the share KNOWN, or as many as it can."""
    chosen: list[Probe] = []
    for gate in (True, False):
        half = [p for p in probes if p.gate is gate and p.id in base_replies]
        known = [probe for probe in half if _knows(probe, base_replies)]
        unknown = [p for p in half if p not in known]
        kept = known[: max(round(KNOWN * GATE), GATE - len(unknown))]
        chosen += [*kept, *unknown[: GATE - len(kept)]]
    return chosen
