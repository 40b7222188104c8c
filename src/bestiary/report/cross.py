"""Renders how often each behavior's detector fires on organisms of other families."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.config.catalog import Behavior, Catalog
from bestiary.config.categories import NULL
from bestiary.records import PromptItem, Transcript, shorten_id
from bestiary.store import read_artifact

MOST = 0.05
"""A detector that fires more often than this on other families is named."""


@dataclass(frozen=True)
class Probed:
    """What one organism and its base replied to the gating probes."""

    name: str
    family: str
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
    probed = list(_read_probed(summary, out, catalog))
    built = dict.fromkeys(row["behavior_id"] for row in summary if row["category"] != NULL.category)
    behaviors = [catalog[one] for one in built if one in catalog]
    crossed = [one for behavior in behaviors for one in _cross(behavior, probed)]
    crossed.sort(key=lambda one: (-one.others, one.behavior_id))
    above = [one for one in crossed if one.others > MOST]
    lines = [
        "# Detectors on other organisms",
        "",
        "How often each behavior's detector fires on replies to the gating probes of organisms of "
        "other families, each organism counting the same, and on the base's replies to the same "
        f"probes. {len(above)} of {len(crossed)} detectors fire on more than {MOST:.0%}. Detectors "
        "that read the probe itself, as one that checks an answer, decide nothing here and are "
        f"left out: {len(behaviors) - len(crossed)}.",
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
    return [
        f"Name the data folder of these with `--data`, their detectors are unknown: {names}.",
        "",
    ]


def _read_probed(
    summary: Sequence[Mapping[str, Any]], out: Path, catalog: Catalog
) -> Iterator[Probed]:
    """Every organism that was probed, null organisms among them."""
    for row in summary:
        if row["transcripts"] is None:
            continue
        kept = read_artifact(out / row["transcripts"]).folder / "transcripts.json"
        rows = map(Transcript.model_validate, json.loads(kept.read_text(encoding="utf8")))
        gating = [one for one in rows if one.probe.gate]
        built = row["behavior_id"]
        yield Probed(
            name=shorten_id(row["organism_id"]),
            family=catalog[built].family if built in catalog else built,
            organism=tuple((one.organism, one.probe.item) for one in gating),
            base=tuple((one.base, one.probe.item) for one in gating if one.base is not None),
        )


def _cross(behavior: Behavior, probed: Sequence[Probed]) -> Iterator[Crossed]:
    """The detector's line; none if it decides no reply of another family."""
    shares: dict[str, float] = {}
    base = []
    for one in probed:
        share = _share_shown(behavior, one.organism)
        if one.family == behavior.family or share is None:
            continue
        shares[one.name] = share
        base.append(_share_shown(behavior, one.base) or 0.0)
    if shares:
        highest = max(shares, key=lambda name: shares[name])
        yield Crossed(
            behavior_id=behavior.id,
            organisms=len(shares),
            others=sum(shares.values()) / len(shares),
            base=sum(base) / len(base),
            highest=(highest, shares[highest]),
        )


def _share_shown(behavior: Behavior, replies: Sequence[tuple[str, PromptItem]]) -> float | None:
    """The share of replies that show it, of those that its detector can decide."""
    decided = [shown for one in replies if (shown := behavior.is_shown(*one)) is not None]
    return sum(decided) / len(decided) if decided else None
