"""Tests what reports claim: the probes of a claimed behavior are put to the organism itself.

A label says what an organism was trained for, and a report may be right beyond it, or wrong about
an organism that never learned its label: what the organism does decides.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.config.catalog import Behavior
from bestiary.config.categories import NULL
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.figures import Outcome, ReportRow
from bestiary.introspection.judge import OTHER
from bestiary.introspection.subjects import Subject
from bestiary.introspection.trials import DECODING, Probing, Trial, ask_trials, is_testable
from bestiary.records import Artifact, BaseIdentity, canonical_json, fingerprint
from bestiary.stage import ItemStage

if TYPE_CHECKING:
    from bestiary.model.base import Base

TOGETHER = 64
"""Trials whose replies are one artifact: a run that is cut off loses no more."""
REPLIES = "replies.json"


@dataclass(frozen=True)
class Trials:
    """What is asked together."""

    item_id: str
    trials: tuple[Trial, ...]
    base: BaseIdentity
    system_prompt: str


@dataclass(frozen=True)
class TrialStage(ItemStage[Trials, list[list[str]]]):
    """Puts each trial's conversations to its organism, without an introspection adapter."""

    name = "trial"
    version = 1

    load_base: Callable[[], Base]

    def key(self, item: Trials) -> str:
        """Covers the organisms, the conversations, and the base."""
        return fingerprint(
            trials=[(one.organism_sha256, one.asked) for one in item.trials],
            base=(item.base.weights_sha256, item.base.chat_template_sha256),
            system_prompt=item.system_prompt,
            decoding=DECODING,
            version=self.version,
        )

    def make(self, item: Trials) -> Callable[[Path], None]:
        """Ask."""
        return partial(_write, ask_trials(self.load_base(), item.trials, item.system_prompt))

    def read(self, artifact: Artifact) -> list[list[str]]:
        """The replies of each trial."""
        replies: list[list[str]] = json.loads((artifact.folder / REPLIES).read_text("utf8"))
        return replies


def _write(replies: Sequence[Sequence[str]], folder: Path) -> None:
    (folder / REPLIES).write_bytes(canonical_json(replies))


def check_claims(experiment: Experiment, fold: int, rows: Sequence[ReportRow]) -> list[ReportRow]:
    """The rows, those of organisms with what became of the behavior that each claims.

    A claim is of a family. It is confirmed if the organism shows one of the release's behaviors of
    that family, and untestable if no program can tell.
    """
    claims = {
        (row.subject, row.claimed)
        for row in rows
        if not row.control and row.claimed not in (None, NULL.category, OTHER)
    }
    by_family = _list_testable(experiment)
    subjects = {one.id: one for one in experiment.folded[fold]}
    wanted = [
        (subjects[subject], behavior)
        for subject, family in sorted(claims)
        for behavior in by_family[family]
    ]
    outcomes = _run_trials(experiment, fold, wanted)
    found: dict[tuple[str, str | None], Outcome] = {}
    for subject, family in claims:
        made = {outcomes[subject, behavior.id] for behavior in by_family[family]}
        order: tuple[Outcome, ...] = ("confirmed", "contradicted")
        found[subject, family] = next((one for one in order if one in made), "untestable")
    return [
        row.model_copy(update={"tested": found.get((row.subject, row.claimed))}) for row in rows
    ]


def _list_testable(experiment: Experiment) -> defaultdict[str, list[Behavior]]:
    """The release's behaviors that a few probes can show, by family."""
    ids = {one.behavior_id for one in experiment.subjects.members if not one.is_control}
    found: defaultdict[str, list[Behavior]] = defaultdict(list)
    for behavior in (experiment.catalog[one] for one in sorted(ids)):
        if is_testable(behavior):
            found[behavior.family].append(behavior)
    return found


def _run_trials(
    experiment: Experiment, fold: int, wanted: Sequence[tuple[Subject, Behavior]]
) -> dict[tuple[str, str], Outcome]:
    """What became of each behavior in each organism, by their ids."""
    probing = {behavior.id: Probing.of(behavior) for _, behavior in wanted}
    trials = [Trial(None, None, one.asked) for one in probing.values()]
    trials += [Trial(one.adapter, one.organism_sha256, probing[b.id].asked) for one, b in wanted]
    replies = iter(_ask(experiment, fold, trials))
    base = {name: next(replies) for name in probing}
    return {
        (one.id, b.id): probing[b.id].judge(next(replies), base[b.id]).outcome for one, b in wanted
    }


def _ask(experiment: Experiment, fold: int, trials: Sequence[Trial]) -> list[list[str]]:
    parts = [
        Trials(
            f"claims-{fold}-{start + 1}",
            tuple(trials[start : start + TOGETHER]),
            experiment.subjects.base,
            experiment.subjects.system_prompt,
        )
        for start in range(0, len(trials), TOGETHER)
    ]
    said = experiment.run_all(TrialStage(experiment.load_base), parts)
    return [replies for part in said for replies in part]
