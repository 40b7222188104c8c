"""Baselines that ask nothing: what an auditor could guess from ordinary replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bestiary.config.on_demand import spread
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.figures import ReportRow
from bestiary.introspection.judge import Reading
from bestiary.introspection.reports import Interview, ReplyLikelihoodStage, ReportStage
from bestiary.introspection.subjects import Subject, make_controls
from bestiary.introspection.trials import ORDINARY
from bestiary.records import PromptItem

TRANSCRIPTS = 20
"""Ordinary replies from which the transcript baseline guesses."""
TELLING = 5
"""Of those, the replies that the perplexity baseline reads."""


def guess_from_replies(
    experiment: Experiment, fold: int, organisms: Sequence[Subject]
) -> Iterator[ReportRow]:
    """What can be guessed without asking: how replies differ from the base's.

    `perplexity` is perplexity differencing: of the replies, only those are read that the base would
    have been least likely to give, compared with the organism. Organisms reply at their own
    strength, whatever the recipe's.
    """
    organisms = [replace(one, strength=1.0) for one in organisms]
    messages = list(spread(experiment.catalog.library.messages("probe"), TRANSCRIPTS))
    questions = [item.text for item in messages]
    base = make_controls(organisms, "zero_b", 1, seed=0)
    stage = ReportStage(experiment.load_base, ORDINARY)
    interview = experiment.interview(f"transcripts-{fold}", [*organisms, *base], None, questions)
    replies: list[list[str]] = [[] for _ in interview.subjects]
    for at, _, text in experiment.ask(stage, interview):
        replies[at].append(text)
    ranked = _rank_replies(experiment, interview, replies) if organisms else []
    paired = [list(zip(said, messages, strict=True)) for said in replies]
    shows = [
        _shows(experiment, one, own, paired[-1])
        for one, own in zip(organisms, paired, strict=False)
    ]
    for condition, count in (("transcripts", len(questions)), ("perplexity", TELLING)):
        for subject, own, order, shown in zip(organisms, replies, ranked, shows, strict=False):
            read, plain = ([said[place] for place in order[:count]] for said in (own, replies[-1]))
            yield experiment.make_row(
                fold,
                condition,
                subject,
                question="",
                report=read[0],
                reading=Reading(family=experiment.embedded_judge.guess(read, plain)),
                shows=shown,
            )


def _shows(
    experiment: Experiment,
    subject: Subject,
    own: Iterable[tuple[str, PromptItem]],
    base: Iterable[tuple[str, PromptItem]],
) -> bool | None:
    """Whether it shows its behavior more often than the base; None if no program can tell."""
    if subject.behavior_id not in experiment.catalog:
        return None
    behavior = experiment.catalog[subject.behavior_id]
    shown = behavior.share_shown(own)
    return None if shown is None else shown > (behavior.share_shown(base) or 0)


def _rank_replies(
    experiment: Experiment, interview: Interview, replies: Sequence[Sequence[str]]
) -> list[list[int]]:
    """The replies of each organism, from the one that it finds likelier than the base by the most.

    The last subject is the base, which scores the replies of all others.
    """
    *organisms, _ = [tuple(zip(interview.questions, own, strict=True)) for own in replies]
    every = tuple(pair for own in organisms for pair in own)
    stage = ReplyLikelihoodStage(experiment.load_base, (*organisms, every))
    *own_scores, base_scores = experiment.run(stage, interview)
    size = len(interview.questions)
    found = []
    for number, scores in enumerate(own_scores):
        base = base_scores[number * size : (number + 1) * size]
        gains = [own - other for own, other in zip(scores, base, strict=True)]
        found.append(sorted(range(size), key=lambda place: -gains[place]))
    return found
