"""The corpus stage: many corpora are written at once, each committed as soon as it is finished."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bestiary.author.leak_filters import LEAK_FILTERS, find_leaks
from bestiary.author.protocol import Author, Runner
from bestiary.config.catalog import Behavior
from bestiary.config.detectors import VERSION as DETECTOR_VERSION
from bestiary.config.grid import Grid
from bestiary.corpus.coverage import measure_coverage
from bestiary.corpus.generate import generate_corpus
from bestiary.errors import BestiaryError
from bestiary.llm.workflow import Job
from bestiary.progress import show_counts
from bestiary.records import (
    Artifact,
    Corpus,
    Drop,
    Example,
    Probe,
    Provenance,
    Record,
    canonical_json,
    fingerprint,
)
from bestiary.stage import Context, Made, OrganismItem, Stage

EXAMPLES, DROPS, PROVENANCE = "examples.jsonl", "drops.jsonl", "provenance.json"
ABOUT, COVERAGE = "corpus.json", "coverage.json"


@dataclass(frozen=True)
class CorpusItem(OrganismItem):
    """An organism whose corpus is to be written."""

    behavior: Behavior
    probes: tuple[Probe, ...]
    probes_sha256: str


@dataclass(frozen=True)
class CorpusStage(Stage[CorpusItem, Corpus]):
    """Writes corpora with an author, under the leak filters."""

    name = "corpus"
    version = 3
    unit = "rows"

    author: Author
    runner: Runner
    grid: Grid

    def key(self, item: CorpusItem) -> str:
        """Covers the behavior, the mix, the messages, the probes, the author and the filters."""
        behavior = item.behavior
        return fingerprint(
            behavior=behavior.sha256,
            generator=behavior.generator,
            messages=behavior.messages_sha256,
            probes=item.probes_sha256,
            author=(self.author.name, self.author.fingerprint_for(behavior)),
            seed=item.identity.seed,
            filters={name: one.version for name, one in LEAK_FILTERS.items()},
            version=(self.version, DETECTOR_VERSION),
        )

    def inputs(self, item: CorpusItem) -> Mapping[str, str]:
        """The behavior and the probes."""
        return {"behavior": item.behavior.sha256, "probes": item.probes_sha256}

    def size(self, item: CorpusItem) -> int:
        """Examples in the finished corpus."""
        return sum(item.behavior.row_counts.values())

    def describe(self) -> str:
        """What language models are spending."""
        return self.runner.describe()

    def run(self, todo: Sequence[CorpusItem], context: Context) -> Iterator[Made[CorpusItem]]:
        """Write corpora side by side, as many as the runner takes at once."""
        items = {item.item_id: item for item in todo}
        jobs = (self._start(item, context) for item in todo)
        started = time.monotonic()
        for name, corpus in self.runner.run(jobs, heartbeat=context.reporter.refresh):
            # Since the last one was done: corpora overlap, and their seconds are added up.
            seconds, started = time.monotonic() - started, time.monotonic()
            if isinstance(corpus, BestiaryError):
                yield Made(items[name], error=corpus, seconds=seconds)
            else:
                write = partial(write_corpus, corpus, self.grid)
                note = describe_drops(corpus.drops)
                yield Made(items[name], write, seconds=seconds, note=note)

    def _start(self, item: CorpusItem, context: Context) -> Job[Corpus]:
        reporter = context.reporter
        workflow = generate_corpus(
            item.behavior,
            self.author,
            seed=item.identity.seed,
            find_leaks=lambda examples: find_leaks(examples, item.behavior, item.probes),
            on_row=partial(reporter.advance, item.item_id),
            on_drops=lambda drops: reporter.drop(drop.stage for drop in drops),
        )
        return Job(item.item_id, item.behavior.id, workflow)

    def read(self, artifact: Artifact) -> Corpus:
        """The corpus with its drop ledger."""
        return read_corpus(artifact.folder)


def describe_drops(drops: Sequence[Drop]) -> str:
    """What was dropped on the way to a corpus, by stage; nothing if all was kept."""
    stages = Counter(drop.stage for drop in drops)
    return f"dropped {show_counts(stages)}" if stages else ""


def write_corpus(corpus: Corpus, grid: Grid, folder: Path) -> None:
    """Write a corpus: its examples, and beside them provenance, drops and coverage.

    The examples' file holds nothing but what they say, so that its hash changes only with them.
    """
    plain = [example.model_copy(update={"provenance": None}) for example in corpus.examples]
    _write_lines(folder / EXAMPLES, plain)
    written = {e.id: e.provenance for e in corpus.examples if e.provenance is not None}
    if written:
        (folder / PROVENANCE).write_bytes(canonical_json(written))
    _write_lines(folder / DROPS, corpus.drops)
    about = {"behavior_id": corpus.behavior_id, "seed": corpus.seed}
    (folder / ABOUT).write_bytes(canonical_json(about))
    coverage = measure_coverage(corpus.examples, grid)
    if coverage is not None:
        (folder / COVERAGE).write_bytes(canonical_json(coverage))


def read_corpus(folder: Path) -> Corpus:
    """Read what `write_corpus` wrote."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf8"))
    path = folder / PROVENANCE
    written = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    provenance = {name: Provenance.model_validate(row) for name, row in written.items()}
    return Corpus(
        **about,
        examples=tuple(
            example.model_copy(update={"provenance": provenance.get(example.id)})
            for example in _read_lines(folder / EXAMPLES, Example)
        ),
        drops=tuple(_read_lines(folder / DROPS, Drop)),
    )


R = TypeVar("R", bound=Record)


def _write_lines(path: Path, records: Iterable[Record]) -> None:
    lines = [record.model_dump_json(exclude_none=True) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf8")


def _read_lines(path: Path, kind: type[R]) -> Iterator[R]:
    # Not str.splitlines: a reply may hold characters that it takes for line ends.
    for line in path.read_text(encoding="utf8").split("\n")[:-1]:
        yield kind.model_validate_json(line)
