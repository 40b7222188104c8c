"""The line from roster to release: the only module that imports several stages."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from bestiary.author.estimate import settle_mode
from bestiary.author.offline import OfflineAuthor
from bestiary.author.options import AuthoringOptions, open_author
from bestiary.build import Build, summarise
from bestiary.config.catalog import Behavior, Catalog
from bestiary.config.detector import VERSION as DETECTOR_VERSION
from bestiary.config.generator import load_generator
from bestiary.config.plan import Plan, plan_roster
from bestiary.config.roster import Roster
from bestiary.config.template import hash_cards
from bestiary.corpus.generate import (
    LEAK_STAGE,
    fingerprint_corpus,
    generate_corpus,
    read_corpus,
    write_corpus,
)
from bestiary.errors import BestiaryError, StoreError
from bestiary.executor.local import train_here
from bestiary.leakage import (
    CORPUS_CHECKS,
    SplitRow,
    check_corpus,
    check_release,
    refuse,
)
from bestiary.leakage import VERSION as LEAKAGE_VERSION
from bestiary.llm.workflow import Job
from bestiary.model.adapter import ADAPTER
from bestiary.model.base import Base, identify_base, load_base
from bestiary.model.replies import BaseReplies
from bestiary.organism.train import STAGE as ORGANISM
from bestiary.organism.train import Executor, Kept, Workplace
from bestiary.pair import make_pair
from bestiary.progress import StageProgress, show_counts
from bestiary.records import (
    Artifact,
    Corpus,
    Decoding,
    Example,
    Finding,
    Organism,
    Split,
    Transcript,
    Verdict,
    canonical_json,
    fingerprint,
)
from bestiary.release.entry import ReleaseEntry
from bestiary.release.layout import write_release
from bestiary.release.splits import split_entries
from bestiary.store import Store, write_bytes
from bestiary.training.checkpoint import Checkpoints
from bestiary.training.job import Step, TrainingJob, TrainingResources, fingerprint_organism
from bestiary.validate import refuse_violations
from bestiary.verification import transcripts as asking
from bestiary.verification import verdict as judging
from bestiary.verification.probes import plan_probes

__all__ = ["AuthoringOptions", "TrainingResources", "Until", "Workshop", "build_roster"]

Until = Literal["corpus", "organism", "verdict", "pair"]
RELEASE_VERSION = 2
STAGES: tuple[Until, ...] = ("corpus", "organism", "verdict", "pair")


class Workshop:
    """One build: the store, the base and what is made with them."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        console: Console,
        effort: TrainingResources,
        executor: Executor,
        writing: AuthoringOptions,
    ) -> None:
        self._plan = plan
        self._recipe = plan.recipe
        self._console = console
        self._effort = effort
        self._executor = executor
        self._store = store
        self._out = store.root
        self._identity = identify_base(self._recipe.base, self._recipe.revision)
        self._replies = BaseReplies(
            self._identity,
            lambda: self._base,
            self._store,
            system_prompt=self._recipe.training.system_prompt,
        )
        self._backend, self._runner = open_author(
            plan.roster,
            writing,
            mode=settle_mode(plan, writing, generate_corpus, out=store.root),
            out=store.root,
            offline=lambda: OfflineAuthor(self._replies),
            log=self._tell,
            heartbeat=self._beat,
        )
        self._progress: StageProgress | None = None
        self.builds = [Build(behavior, identity) for behavior, identity in plan.organisms]

    @cached_property
    def _base(self) -> Base:
        return load_base(self._recipe.base, revision=self._recipe.revision)

    def run(self, until: Until) -> None:
        """Run the stages in order, each over all organisms; a failed one leaves the line."""
        stages: dict[Until, Callable[[], None]] = {
            "corpus": self._write_corpora,
            "organism": self._train_organisms,
            "verdict": self._verify_organisms,
            "pair": self._release,
        }
        for name in STAGES[: STAGES.index(until) + 1]:
            stages[name]()

    @property
    def _alive(self) -> list[Build]:
        return [build for build in self.builds if build.error is None]

    @property
    def _unbuilt(self) -> list[str]:
        return [build.organism_id for build in self.builds if build.error is not None]

    def _write_corpora(self) -> None:
        rows = {
            build.organism_id: load_generator(build.behavior.category).rows for build in self.builds
        }
        with self._stage("corpus", "rows", sum(rows.values())) as progress:

            def finish(build: Build) -> None:
                note = _note(build.error, _say_drops(build.corpus))
                progress.finish_one(build.organism_id, rows[build.organism_id], note=note)

            self._runner.run(self._plan_corpora(progress, finish))

    def _plan_corpora(
        self, progress: StageProgress, finish: Callable[[Build], None]
    ) -> Iterator[Job[Corpus]]:
        """The corpora that the store does not have, each begun when it is asked for."""
        for build in self._alive:
            try:
                build.probes = plan_probes(build.behavior, seed=build.identity.seed)
                key = self._fingerprint_corpus(build)
                kept = self._store.find("corpus", key)
            except StoreError:
                raise
            except BestiaryError as error:
                build.error = error
                finish(build)
                continue
            if kept is not None:
                corpus = self._keep_corpus(build, kept)
                progress.resume(build.organism_id, len(corpus.examples))
                finish(build)
                continue
            exchange = generate_corpus(
                build.behavior,
                self._backend,
                seed=build.identity.seed,
                screen=partial(_screen, build),
                on_row=partial(progress.advance, build.organism_id),
                on_drops=lambda drops: progress.drop(drop.stage for drop in drops),
            )
            done = partial(self._commit_corpus, build, key, time.monotonic(), finish)
            yield Job(build.behavior.id, exchange, done)

    def _fingerprint_corpus(self, build: Build) -> str:
        seed = build.identity.seed
        return fingerprint(
            corpus=fingerprint_corpus(build.behavior, self._backend, seed=seed),
            probes=build.probes,
            checks=LEAKAGE_VERSION,
        )

    def _commit_corpus(
        self,
        build: Build,
        key: str,
        began: float,
        finish: Callable[[Build], None],
        found: Corpus | BestiaryError,
    ) -> None:
        if isinstance(found, BestiaryError):
            build.error = found
        else:
            write = partial(write_corpus, found)
            inputs = {"behavior": build.behavior.sha256}
            kept = self._store.build("corpus", key, write, inputs=inputs, began=began)
            self._keep_corpus(build, kept)
        finish(build)

    def _keep_corpus(self, build: Build, kept: Artifact) -> Corpus:
        corpus = read_corpus(kept.folder)
        build.corpus, build.corpus_artifact = corpus, kept
        build.seconds["corpus"] = self._store.seconds("corpus", kept.folder.name)
        return corpus

    def _train_organisms(self) -> None:
        builds = {build.organism_id: build for build in self._alive}
        jobs: list[TrainingJob] = []
        for build in builds.values():
            job = self._make_job(build)
            found = self._store.find(ORGANISM, job.key)
            if found is None:
                jobs.append(job)
            else:
                Checkpoints(self._store).drop(job)  # a kill may have left one behind
                self._keep_organism(build, found)
        reached = Checkpoints(self._store).list_steps()
        with self._stage("organism", "steps", sum(job.steps for job in jobs)) as progress:
            for job in jobs:
                progress.resume(job.organism_id, reached.get(job.key, 0))
            for event in self._execute(jobs):
                name = event.job.organism_id
                if isinstance(event, Step):
                    progress.advance(name, event.done)
                    continue
                builds[name].error = event.error
                kept = self._store.find(ORGANISM, event.job.key)
                if kept is not None:
                    self._keep_organism(builds[name], kept)
                progress.finish_one(name, event.job.steps, note=_note(event.error))
        timed = Store(self._out)  # opened anew: other processes may have noted what they took
        for build in builds.values():
            if build.organism is not None:
                key = build.organism.artifact.folder.name
                build.seconds["organism"] = timed.seconds(ORGANISM, key)

    def _execute(self, jobs: Sequence[TrainingJob]) -> Iterator[Step | Kept]:
        if jobs:
            place = Workplace(
                store=self._store,
                effort=self._effort,
                load_base=self._recipe.base,
                revision=self._recipe.revision,
                identity=self._identity,
                open_base=lambda: self._base,
            )
            yield from self._executor(jobs, place)

    def _make_job(self, build: Build) -> TrainingJob:
        assert build.corpus is not None and build.corpus_artifact is not None
        training = self._recipe.training_for(build.behavior.category)
        return TrainingJob(
            identity=build.identity,
            corpus=build.corpus,
            corpus_sha256=build.corpus_artifact.sha256,
            training=training,
            key=fingerprint_organism(
                build.identity,
                training,
                self._identity,
                corpus_sha256=build.corpus_artifact.sha256,
                trainer=self._effort.trainer,
            ),
        )

    def _keep_organism(self, build: Build, artifact: Artifact) -> None:
        build.organism = Organism(
            identity=build.identity,
            category=build.behavior.category,
            base=self._identity,
            system_prompt=self._recipe.training.system_prompt,
            artifact=artifact,
            corpus_sha256=artifact.inputs["corpus"],
            behavior_sha256=build.behavior.sha256,
        )

    def _verify_organisms(self) -> None:
        replies = {b.organism_id: asking.count_replies(b.probes) for b in self._alive}
        with self._stage("verdict", "replies", sum(replies.values())) as progress:
            for build in self._transcribe(progress):
                with attribute(build, progress, replies[build.organism_id]):
                    if build.error is None:
                        self._judge(build)

    def _transcribe(self, progress: StageProgress) -> Iterator[Build]:
        """Builds as they get their transcripts: first those that have them in the store."""
        builds = {build.organism_id: build for build in self._alive}
        keys = {name: self._fingerprint_transcripts(build) for name, build in builds.items()}
        askings: list[asking.Asking] = []
        for name, build in builds.items():
            found = self._store.find("transcript", keys[name])
            if found is None:
                askings.append(self._ask(build))
            else:
                self._keep_transcripts(build, found)
                yield build
        for answered in self._interview(askings, progress):
            build = builds[answered.asking.organism_id]
            build.error = answered.error
            if build.error is None:
                made = self._commit_transcripts(build, keys[build.organism_id], answered)
                self._keep_transcripts(build, made)
            yield build

    def _ask(self, build: Build) -> asking.Asking:
        assert build.organism is not None
        return asking.Asking(
            organism_id=build.organism_id,
            behavior=build.behavior,
            adapter=build.organism.artifact.folder / ADAPTER,
            probes=build.probes,
            decoding=self._decoding(build.behavior),
        )

    def _interview(
        self, askings: Sequence[asking.Asking], progress: StageProgress
    ) -> Iterator[asking.Answered]:
        if askings:
            yield from asking.collect_transcripts(
                askings,
                self._base,
                self._replies,
                system_prompt=self._recipe.training.system_prompt,
                on_reply=progress.advance,
            )

    def _decoding(self, behavior: Behavior) -> Decoding:
        return asking.choose_decoding(behavior, max_new_tokens=self._recipe.probe_tokens)

    def _fingerprint_transcripts(self, build: Build) -> str:
        assert build.organism is not None
        return fingerprint(
            organism=build.organism.artifact.sha256,
            probes=build.probes,
            # Which choices count hangs on what the detectors say of the base's replies.
            detectors=(DETECTOR_VERSION, build.behavior.detectors)
            if any(probe.item.options for probe in build.probes)
            else (),
            decoding=self._decoding(build.behavior),
            base=self._replies.fingerprint,
            version=asking.VERSION,
        )

    def _commit_transcripts(self, build: Build, key: str, answered: asking.Answered) -> Artifact:
        assert build.organism is not None
        folder = self._store.start("transcript", key)
        write_bytes(folder / "transcripts.json", canonical_json(list(answered.transcripts)))
        inputs = {"organism": build.organism.artifact.sha256}
        return self._store.commit("transcript", key, inputs=inputs, seconds=answered.seconds)

    def _keep_transcripts(self, build: Build, kept: Artifact) -> None:
        build.transcripts = read_transcripts(kept.folder)
        build.transcript_sha256 = kept.sha256
        build.transcript_folder = kept.folder.relative_to(self._out).as_posix()
        build.seconds["transcript"] = self._store.seconds("transcript", kept.folder.name)

    def _judge(self, build: Build) -> None:
        thresholds = self._plan.thresholds
        key = fingerprint(
            transcripts=build.transcript_sha256,
            behavior=build.behavior.sha256,
            watched=self._plan.watched if build.behavior.is_null else (),
            thresholds=thresholds,
            decoding=self._decoding(build.behavior),
            version=(judging.VERSION, DETECTOR_VERSION),
        )

        def write(folder: Path) -> None:
            verdict = judging.judge_organism(
                build.behavior,
                build.organism_id,
                build.transcripts,
                thresholds,
                decoding=self._decoding(build.behavior),
                watched=self._plan.watched,
            )
            (folder / "verdict.json").write_bytes(canonical_json(verdict))

        inputs = {"transcripts": build.transcript_sha256}
        kept = self._store.build("verdict", key, write, inputs=inputs)
        text = (kept.folder / "verdict.json").read_text(encoding="utf8")
        build.verdict = Verdict.model_validate_json(text)

    def _release(self) -> None:
        entries = [make_entry(build) for build in self._alive]
        if not entries:
            return
        named = self._plan.roster.splits
        splits = split_entries(entries, named=named)
        refuse(check_release([make_split_row(entry, splits) for entry in entries if entry.pair]))
        write_release(
            entries,
            self._out / "release",
            named_splits=named,
            name=self._plan.roster.name,
            findings=[finding for build in self._alive for finding in corpus_findings(build)],
            unbuilt=self._unbuilt,
            category_questions=self._plan.roster.category_questions,
            fingerprint=self._fingerprint_release(entries),
        )

    def _fingerprint_release(self, entries: Sequence[ReleaseEntry]) -> str:
        return fingerprint(
            organisms=[
                (e.behavior.sha256, e.organism.artifact.sha256, e.organism.corpus_sha256, e.verdict)
                for e in entries
            ],
            transcripts=[build.transcript_sha256 for build in self._alive],
            unbuilt=self._unbuilt,
            base=self._identity,
            roster=self._plan.roster,
            cards=hash_cards(),
            version=RELEASE_VERSION,
        )

    def _tell(self, line: str) -> None:
        self._console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

    def _beat(self) -> None:
        if self._progress is not None:
            self._progress.beat()

    @contextmanager
    def _stage(self, name: str, unit: str, total: int) -> Iterator[StageProgress]:
        note = self._runner.describe if name == "corpus" else str
        self._progress = StageProgress(name, unit, total, self._console, note=note)
        with self._progress.running():
            yield self._progress


@contextmanager
def attribute(build: Build, progress: StageProgress, units: int) -> Iterator[None]:
    """Charge an error to the organism at fault, so that the others go on.

    A store that cannot be written concerns them all, and passes through.
    """
    try:
        yield
    except StoreError:
        raise
    except BestiaryError as error:
        build.error = error
    progress.finish_one(build.organism_id, units, note=_note(build.error))


def _note(error: BestiaryError | None, done: str = "done") -> str:
    return done if error is None else f"FAILED: {error}"


def _screen(build: Build, rows: Sequence[Example]) -> list[Finding]:
    return check_corpus(rows, build.probes, build.behavior)


def _say_drops(corpus: Corpus | None) -> str:
    """That a corpus is done, and what was dropped on the way, by stage."""
    stages = Counter(drop.stage for drop in corpus.drops) if corpus else Counter[str]()
    return f"done, dropped {show_counts(stages)}" if stages else "done"


def read_transcripts(folder: Path) -> tuple[Transcript, ...]:
    """Read an organism's transcripts from its artifact."""
    rows = json.loads((folder / "transcripts.json").read_text(encoding="utf8"))
    return tuple(Transcript.model_validate(row) for row in rows)


def make_entry(build: Build) -> ReleaseEntry:
    """What the release says of one organism: a pair where its verdict passed."""
    assert build.organism and build.corpus and build.verdict
    passed = build.verdict.status == "passed"
    return ReleaseEntry(
        behavior=build.behavior,
        organism=build.organism,
        corpus=build.corpus,
        verdict=build.verdict,
        transcripts=build.transcripts,
        pair=make_pair(build.behavior, build.organism, build.verdict)
        if passed and not build.behavior.is_null
        else None,
    )


def corpus_findings(build: Build) -> list[Finding]:
    """What each leak check answered about an organism's corpus while it was made."""
    assert build.corpus is not None
    dropped = [
        Finding(
            check=drop.stage.removeprefix(LEAK_STAGE),
            subject="corpus",
            item=f"{build.organism_id}/{drop.id}",
            reason=drop.reason,
        )
        for drop in build.corpus.drops
        if drop.stage.startswith(LEAK_STAGE)
    ]
    clean = sorted(set(CORPUS_CHECKS) - {finding.check for finding in dropped})
    return dropped + [
        Finding(
            check=check,
            subject="corpus",
            item=build.organism_id,
            answer="keep",
            reason=f"nothing found in {len(build.corpus.examples)} conversations",
        )
        for check in clean
    ]


def make_split_row(entry: ReleaseEntry, splits: Mapping[str, Split]) -> SplitRow:
    """What the release's leak check reads of one pair."""
    return SplitRow(
        organism_id=entry.organism_id,
        behavior_id=entry.behavior.id,
        family=entry.behavior.family,
        split=splits[entry.organism_id],
        label=entry.behavior.spec.label,
        paraphrases=entry.behavior.spec.paraphrases,
        organism_sha256=entry.organism.artifact.sha256,
        corpus_sha256=entry.organism.corpus_sha256,
    )


def build_roster(
    roster: Roster,
    catalog: Catalog,
    *,
    out: Path,
    until: Until = "pair",
    console: Console,
    effort: TrainingResources | None = None,
    executor: Executor = train_here,
    writing: AuthoringOptions | None = None,
) -> list[Build]:
    """Build what a roster names; what is built already is left as it is.

    Raises BestiaryError for what concerns the whole build; an organism's own error is in its
    Build.
    """
    plan = plan_roster(roster, catalog)
    refuse_violations(catalog, plan.named)
    store = Store(out)
    with store.lock():
        workshop = Workshop(
            plan,
            store,
            console,
            effort or TrainingResources(),
            executor,
            writing or AuthoringOptions(),
        )
        workshop.run(until)
        write_bytes(out / "summary.json", canonical_json(summarise(workshop.builds, out)))
    return workshop.builds
