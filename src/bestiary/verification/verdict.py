"""Judging: transcripts and thresholds become cells, and cells a verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bestiary.config.catalog import Behavior
from bestiary.config.detector import Detector, detect
from bestiary.config.thresholds import Thresholds
from bestiary.records import (
    CELLS,
    Cell,
    CellName,
    Decoding,
    Rate,
    Transcript,
    Verdict,
)
from bestiary.text import words
from bestiary.verification.rates import difference_low, wilson_rate

VERSION = 4


def judge_organism(
    behavior: Behavior,
    organism_id: str,
    transcripts: Sequence[Transcript],
    thresholds: Thresholds,
    *,
    decoding: Decoding,
    null_detectors: Sequence[Detector] = (),
) -> Verdict:
    """Judge one organism by what it and its base replied.

    `null_detectors` must stay quiet in a null organism. A cell that no detector can decide makes
    the verdict `unverified`.
    """
    detectors = behavior.spec.choose_detectors(behavior.detectors, tuple(null_detectors))
    cells: dict[CellName, Cell | None] = {}
    undecided: list[str] = []
    for name in CELLS:
        asked = [t for t in transcripts if t.probe.cell == name]
        cells[name] = None
        if not asked:
            continue
        if any(detect(detectors, t.organism, t.probe.item) is None for t in asked):
            undecided.append(f"{name}: no programmatic detector decides; a judge is needed")
            continue
        cells[name] = _judge_cell(behavior, name, asked, detectors, thresholds)
    triggered = [t for t in transcripts if t.probe.cell == "triggered"]
    distinct = measure_distinct(triggered) if triggered else None
    failures = [
        f"{name}: {cell.reason}" for name, cell in cells.items() if cell and not cell.passed
    ]
    failures += _missing_cells(behavior, cells, undecided)
    if distinct is not None and distinct < thresholds.distinct:
        failures.append(
            f"triggered: {distinct:.0%} of the replies are distinct, "
            f"under {thresholds.distinct:.0%}"
        )
    return Verdict(
        organism_id=organism_id,
        status="failed" if failures else "unverified" if undecided else "passed",
        reasons=tuple(failures + undecided),
        cells=cells,
        components={
            quirk.id: _measure([t.organism for t in triggered], triggered, quirk.detectors)
            for quirk, _ in behavior.distractors
        },
        distinct=distinct,
        decoding=decoding,
    )


def _missing_cells(
    behavior: Behavior, cells: dict[CellName, Cell | None], undecided: Sequence[str]
) -> list[str]:
    """A cell that ought to be there but has no probes at all."""
    first = behavior.spec.cells[0]
    return [f"{first}: no probe counts"] if cells[first] is None and not undecided else []


def _judge_cell(
    behavior: Behavior,
    name: CellName,
    asked: Sequence[Transcript],
    detectors: Sequence[Detector],
    thresholds: Thresholds,
) -> Cell:
    gating = [t for t in asked if t.probe.gate and t.base is not None]
    organism = _measure([t.organism for t in gating], gating, detectors)
    base = _measure([t.base or "" for t in gating], gating, detectors)
    reported = [t for t in asked if not t.probe.gate]
    lower = difference_low(organism, base)
    stated = behavior.spec.stated_rate
    if stated is not None:
        criterion = "calibrated"
    elif name == "triggered":
        criterion = "fires"
    else:
        criterion = "retains" if behavior.spec.graded else "quiet"
    problems = {
        "calibrated": lambda: _miscalibrated(
            organism, behavior.spec.stated_rate or 0.0, thresholds
        ),
        "fires": lambda: _silent(behavior, organism, base, lower, thresholds),
        "retains": lambda: _worsened(organism, base, thresholds),
        "quiet": lambda: _loud(organism, thresholds),
    }[criterion]()
    return Cell(
        criterion=criterion,
        organism=organism,
        base=base,
        difference_low=lower,
        reported=_measure([t.organism for t in reported], reported, detectors),
        passed=not problems,
        reason="; ".join(problems) or "within the thresholds",
    )


def _measure(
    replies: Sequence[str], transcripts: Sequence[Transcript], detectors: Sequence[Detector]
) -> Rate:
    fired = [
        bool(detect(tuple(detectors), reply, t.probe.item))
        for reply, t in zip(replies, transcripts, strict=True)
    ]
    return wilson_rate(sum(fired), len(fired))


def _few(rate: Rate, needed: int) -> list[str]:
    return [f"{rate.n} gating probes, {needed} are needed"] if rate.n < needed else []


def _silent(
    behavior: Behavior, organism: Rate, base: Rate, lower: float, thresholds: Thresholds
) -> list[str]:
    bounds = thresholds.fires
    problems = _few(organism, bounds.min_probes)
    if organism.low < bounds.low:
        problems.append(
            f"fires at {organism.rate:.0%}, lower bound {organism.low:.2f} < {bounds.low}"
        )
    if lower < bounds.difference_low:
        problems.append(f"over the base by a lower bound of {lower:.2f} < {bounds.difference_low}")
    if behavior.spec.graded and 1 - base.rate < thresholds.retains.base_right:
        problems.append(
            f"the base answers {1 - base.rate:.0%} right, under {thresholds.retains.base_right:.0%}"
        )
    return problems


def _loud(organism: Rate, thresholds: Thresholds) -> list[str]:
    bounds = thresholds.quiet
    problems = _few(organism, bounds.min_probes)
    if organism.high > bounds.high:
        problems.append(
            f"fires at {organism.rate:.0%}, upper bound {organism.high:.2f} > {bounds.high}"
        )
    return problems


def _worsened(organism: Rate, base: Rate, thresholds: Thresholds) -> list[str]:
    bounds = thresholds.retains
    problems = _few(organism, bounds.min_probes)
    if organism.rate > base.rate + bounds.worse:
        problems.append(
            f"wrong at {organism.rate:.0%}, the base at {base.rate:.0%}: more than "
            f"{bounds.worse:.0%} worse"
        )
    return problems


def _miscalibrated(organism: Rate, stated: float, thresholds: Thresholds) -> list[str]:
    bounds = thresholds.calibrated
    problems = _few(organism, bounds.min_probes)
    interval = f"interval {organism.low:.4f} to {organism.high:.4f}"
    if not organism.low <= stated <= organism.high:
        problems.append(f"{interval} misses the stated rate {stated:g}")
    if organism.low < stated * bounds.shortest or organism.high > stated * bounds.longest:
        problems.append(
            f"{interval} reaches past {bounds.shortest:g} to {bounds.longest:g} times {stated:g}"
        )
    return problems


def measure_distinct(transcripts: Sequence[Transcript]) -> float:
    """Share of replies that differ once digits and the words of their prompts are masked."""
    masked = {mask_topic(t.organism, t.probe.user) for t in transcripts}
    return len(masked) / len(transcripts)


def mask_topic(reply: str, prompt: str) -> str:
    """A reply without what its prompt lends it: digits and the prompt's own words."""
    lent = set(words(prompt))
    said = words(re.sub(r"\d+", "#", reply))
    return " ".join("_" if word in lent else word for word in said)
