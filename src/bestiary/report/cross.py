"""Renders how often each behavior's detector fires on organisms of other families."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.config.catalog import BARE, Behavior, Catalog
from bestiary.config.categories import NULL
from bestiary.config.on_demand import spread
from bestiary.records import PromptItem, Transcript, shorten_id, stable_seed
from bestiary.store import read_artifact
from bestiary.verification.stages import TRANSCRIPTS

MOST = 0.05
"""A detector that fires more often than this on other families is named."""
REPLIES = 20
"""Gating probes of each organism whose replies are read."""
ORGANISMS = 100
"""Organisms on which each detector is tried at most, drawn by a hash of both."""


@dataclass(frozen=True)
class Probed:
    """What one organism and its base replied to some gating probes."""

    name: str
    families: frozenset[str]
    """Those of its adapter's behaviors, several if that is a mixture's."""
    organism: tuple[tuple[str, PromptItem], ...]
    base: tuple[tuple[str, PromptItem], ...]


@dataclass(frozen=True)
class Crossed:
    """How one detector does on the organisms of other families, each of which counts the same."""

    behavior_id: str
    organisms: int
    others: float
    """Mean share of replies on which it fires."""
    base: float
    """The same, of the base's replies to the same probes."""
    highest: tuple[str, float]
    """The organism on which it fires most often."""


def render_cross(summary: Sequence[Mapping[str, Any]], out: Path, catalog: Catalog) -> str:
    """A line per detector, those that fire most often on other families first."""
    built = dict.fromkeys(row["behavior_id"] for row in summary if row["category"] != NULL.category)
    behaviors = [catalog[one] for one in built if one in catalog]
    general = [one for one in behaviors if one.is_shown(BARE.brief, BARE) is not None]
    probed = list(_read_probed(summary, out, catalog))
    crossed = [one for behavior in general for one in _cross(behavior, probed)]
    crossed.sort(key=lambda one: (-one.others, one.behavior_id))
    above = sum(one.others > MOST for one in crossed)
    lines = [
        "# Detectors on other organisms",
        "",
        "How often each behavior's detector fires on replies to the gating probes of organisms of "
        "other families, each organism counting the same, and on the base's replies to the same "
        f"probes: {REPLIES} replies each, of up to {ORGANISMS} organisms. {above} of "
        f"{len(crossed)} detectors fire on more than {MOST:.0%}. Behaviors whose detectors decide "
        "on certain messages alone, such as questions or choices, or that only a judge decides, "
        f"are left out: {len(behaviors) - len(general)}.",
        "",
        *_name_unknown([one for one in built if one not in catalog]),
        "| detector | other families | base | organisms | most often on |",
        "|---|---|---|---|---|",
    ]
    for one in crossed:
        name, share = one.highest
        most = f"{name}, {share:.0%}" if share else "-"
        lines.append(
            f"| {one.behavior_id} | {one.others:.1%} | {one.base:.1%} | {one.organisms} | {most} |"
        )
    return "\n".join([*lines, ""])


def _name_unknown(behavior_ids: Sequence[str]) -> list[str]:
    if not behavior_ids:
        return []
    names = ", ".join(behavior_ids)
    return [f"Unknown here, so name their data folder with `--data`: {names}.", ""]


def _read_probed(
    summary: Sequence[Mapping[str, Any]], out: Path, catalog: Catalog
) -> Iterator[Probed]:
    """Every adapter that was probed, null organisms among them; of a mixture each behavior."""
    families: defaultdict[str, set[str]] = defaultdict(set)
    for row in summary:
        name = row["behavior_id"]
        families[row["adapter_id"]].add(catalog[name].family if name in catalog else name)
    for row in summary:
        if row["transcripts"] is None:
            continue
        kept = read_artifact(out / row["transcripts"]).folder / TRANSCRIPTS
        gating = [one for one in json.loads(kept.read_text("utf8")) if one["probe"]["gate"]]
        # All over their order: the cells follow one another.
        read = [Transcript.model_validate(one) for one in spread(gating, REPLIES)]
        yield Probed(
            name=shorten_id(row["organism_id"]),
            families=frozenset(families[row["adapter_id"]]),
            organism=tuple((one.organism, one.probe.item) for one in read),
            base=tuple((one.base, one.probe.item) for one in read if one.base is not None),
        )


def _cross(behavior: Behavior, probed: Sequence[Probed]) -> Iterator[Crossed]:
    """The detector's line; none if there is no other family."""
    others = [one for one in probed if behavior.family not in one.families]
    others.sort(key=lambda one: stable_seed("cross", behavior.id, one.name))
    tried = others[:ORGANISMS]
    shares = {one.name: behavior.share_shown(one.organism) or 0.0 for one in tried}
    if shares:
        highest = max(shares, key=lambda name: shares[name])
        yield Crossed(
            behavior_id=behavior.id,
            organisms=len(shares),
            others=sum(shares.values()) / len(shares),
            base=sum(behavior.share_shown(one.base) or 0.0 for one in tried) / len(tried),
            highest=(highest, shares[highest]),
        )
