"""Tests what reports claim: the probes of a claimed behavior are put to the organism itself.

A label says what an organism was trained for, and a report may be right beyond it, or wrong about
an organism that never learned its label: what the organism does decides.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.config.categories import NULL
from bestiary.errors import BestiaryError
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.figures import Outcome, ReportRow
from bestiary.introspection.trials import (
    ORDINARY,
    Probing,
    Trial,
    Tried,
    ask_trials,
    judge_trials,
    list_trials,
    settle,
)
from bestiary.records import Artifact, BaseIdentity, canonical_json, fingerprint
from bestiary.stage import Context, Made, Stage

if TYPE_CHECKING:
    from bestiary.model.base import Base

REPLIES = "replies.json"


@dataclass(frozen=True)
class TrialStage(Stage[Trial, list[str]]):
    """Puts probes to organisms side by side, without an introspection adapter."""

    name = "trial"
    version = 1

    load_base: Callable[[], Base]
    base: BaseIdentity
    system_prompt: str

    def key(self, item: Trial) -> str:
        """Covers the organism, the conversations, and the base."""
        return fingerprint(
            organism=item.organism_sha256,
            asked=item.asked,
            base=(self.base.weights_sha256, self.base.chat_template_sha256),
            system_prompt=self.system_prompt,
            decoding=ORDINARY,
            version=self.version,
        )

    def run(self, todo: Sequence[Trial], context: Context) -> Iterator[Made[Trial]]:
        """Ask them all together."""
        for number, replies in ask_trials(self.load_base(), todo, self.system_prompt):
            if isinstance(replies, BestiaryError):
                yield Made(todo[number], error=replies)
            else:
                yield Made(todo[number], partial(_write, replies))

    def read(self, artifact: Artifact) -> list[str]:
        """The replies."""
        replies: list[str] = json.loads((artifact.folder / REPLIES).read_text("utf8"))
        return replies


def _write(replies: Sequence[str], folder: Path) -> None:
    (folder / REPLIES).write_bytes(canonical_json(replies))


def check_claims(experiment: Experiment, fold: int, rows: Sequence[ReportRow]) -> list[ReportRow]:
    """The rows, those of organisms with what became of the behavior that each claims.

    A claim is of a family, all of whose behaviors in the release are tried; it is untestable if one
    of them is. A language model's readings are left as they are: it does not say which other
    family a report names.
    """
    if experiment.language_judge is not None:
        return list(rows)
    subjects = {one.id: one for one in experiment.folded[fold]}
    probings = _list_probings(experiment)
    claims = {
        (row.subject, row.claimed)
        for row in rows
        if not row.control and row.claimed not in (None, NULL.category)
    }
    wanted = [
        (subjects[subject], probing)
        for subject, family in sorted(claims)
        for probing in probings[family]
        if probing.items
    ]
    context = experiment.subjects
    stage = TrialStage(experiment.load_base, context.base, context.system_prompt)
    replies = experiment.run_all(stage, list_trials(wanted))
    tried = judge_trials(wanted, replies)
    found: dict[tuple[str, str], Outcome] = {}
    for subject, family in claims:
        ids = [probing.behavior.id for probing in probings[family]]
        outcomes = [tried.get((subject, name), Tried()).outcome for name in ids]
        # Decided without a look at whether it is confirmed: else only wrong claims were left out.
        found[subject, family] = "untestable" if "untestable" in outcomes else settle(outcomes)
    return [
        row.model_copy(update={"tested": found.get((row.subject, row.claimed or ""))})
        for row in rows
    ]


def _list_probings(experiment: Experiment) -> defaultdict[str, list[Probing]]:
    """The probes of the release's behaviors, by family."""
    ids = {one.behavior_id for one in experiment.subjects.members if not one.is_control}
    found: defaultdict[str, list[Probing]] = defaultdict(list)
    for name in sorted(ids & experiment.catalog.keys()):
        behavior = experiment.catalog[name]
        found[behavior.family].append(Probing.of(behavior))
    return found
