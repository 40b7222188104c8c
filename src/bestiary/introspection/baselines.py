"""Baselines that ask nothing: what an auditor could guess from ordinary replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bestiary.config.catalog import Behavior
from bestiary.config.on_demand import spread
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.figures import ReportRow
from bestiary.introspection.judge import Reading
from bestiary.introspection.reports import Interview, ReplyLikelihoodStage, ReportStage
from bestiary.introspection.subjects import Subject, make_controls
from bestiary.records import Decoding, PromptItem

TRANSCRIPTS = 20
"""Ordinary replies from which the transcript baseline guesses."""
REPLY_TOKENS = 56
TELLING = 5
"""Of those, the replies that the perplexity baseline reads."""


def guess_from_replies(
    experiment: Experiment, fold: int, organisms: Sequence[Subject]
) -> Iterator[ReportRow]:
    """What can be guessed without asking: how replies differ from the base's.

    `perplexity` is perplexity differencing: of the replies, only those are read that the base would
    have been least likely to give, compared with the organism.
    """
    messages = list(spread(experiment.catalog.library.messages("probe"), TRANSCRIPTS))
    questions = [item.text for item in messages]
    base = make_controls(organisms, "zero_b", 1, seed=0)
    stage = ReportStage(experiment.load_base, Decoding(max_new_tokens=REPLY_TOKENS, temperature=0))
    interview = experiment.interview(f"transcripts-{fold}", [*organisms, *base], None, questions)
    replies: list[list[str]] = [[] for _ in interview.subjects]
    for at, _, text in experiment.ask(stage, interview):
        replies[at].append(text)
    ranked = _rank_replies(experiment, interview, replies) if organisms else []
    for condition, count in (("transcripts", len(questions)), ("perplexity", TELLING)):
        for subject, own, order in zip(organisms, replies, ranked, strict=False):
            read, plain = ([said[place] for place in order[:count]] for said in (own, replies[-1]))
            behavior = experiment.catalog[subject.behavior_id]
            shown = [_count_shown(behavior, said, messages) for said in (own, replies[-1])]
            yield experiment.make_row(
                fold,
                condition,
                subject,
                question="",
                report=read[0],
                reading=Reading(family=experiment.embedded_judge.guess(read, plain)),
                shows=shown[0] > shown[1],
            )


def _count_shown(behavior: Behavior, replies: Sequence[str], messages: Sequence[PromptItem]) -> int:
    return sum(
        bool(behavior.is_shown(reply, item)) for reply, item in zip(replies, messages, strict=True)
    )


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
