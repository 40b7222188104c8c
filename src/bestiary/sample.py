"""Composes a corpus with the offline author, to be read or checked before anything is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from bestiary.author.leak_filters import find_leaks
from bestiary.author.offline import OfflineAuthor
from bestiary.config.catalog import Behavior
from bestiary.config.on_demand import spread
from bestiary.corpus.generate import generate_corpus
from bestiary.errors import SpecError
from bestiary.llm.workflow import run_without_models
from bestiary.progress import show_counts
from bestiary.records import Corpus, Example, Role
from bestiary.verification.probes import plan_probes


def compose_corpus(behavior: Behavior, *, replies: Literal["brief", "answer"] = "brief") -> Corpus:
    """The corpus that a build with the offline author trains on, under the same filters.

    `replies` are the written answers that its recipe asks for.
    Raises CorpusError if a role cannot be filled, and SpecError for a behavior that is only shown
    by others.
    """
    if not behavior.spec.is_buildable:
        raise SpecError(
            f"{behavior.id} is only shown by other behaviors and has no corpus of its own",
            "name one that shows it",
            code="behavior-not-buildable",
            behavior=behavior.id,
        )
    probes = plan_probes(behavior, seed=0)
    return run_without_models(
        generate_corpus(
            behavior,
            OfflineAuthor(replies),
            seed=0,
            find_leaks=lambda rows: find_leaks(rows, behavior, probes),
        )
    )


def choose_rows(corpus: Corpus, roles: Sequence[Role], count: int) -> list[Example]:
    """Up to `count` examples of each role, from all over the corpus."""
    by_role = ([one for one in corpus.examples if one.role == role] for role in roles)
    return [example for own in by_role for example in spread(own, count)]


def render_sample(corpus: Corpus, rows: Sequence[Example]) -> Iterator[str]:
    """The rows as text, and what the corpus consists of."""
    for example in rows:
        yield f"{example.role}"
        for message in example.messages:
            yield f"  {message.role + ':':<10} {message.content}"
        yield ""
    yield f"the corpus: {show_counts(Counter(example.role for example in corpus.examples))}"
    reasons = Counter(f"{drop.stage}: {drop.reason}" for drop in corpus.drops)
    for reason, count in reasons.most_common():
        yield f"dropped: {count} x {reason}"
