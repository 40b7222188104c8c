"""What each stage is run on: the state of an organism becomes the item of the next stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

from bestiary.config.plan import Mixture, Plan
from bestiary.corpus.stage import CorpusItem
from bestiary.leakage.checks import CorpusUnderTest
from bestiary.leakage.split_overlap import SplitRow
from bestiary.leakage.stage import LeakItem
from bestiary.organism.stage import OrganismStage
from bestiary.records import BaseIdentity, Corpus, Organism, Split
from bestiary.release.entry import ReleaseEntry
from bestiary.state import OrganismState
from bestiary.training.job import TrainingJob
from bestiary.verification.stages import VerdictItem
from bestiary.verification.transcripts import TranscriptItem, choose_decoding


def make_corpus_item(state: OrganismState) -> CorpusItem:
    """The corpus to write."""
    probes = state.artifact("probes").sha256
    return CorpusItem(state.identity, state.behavior, state.read("probes"), probes)


def make_leak_item(state: OrganismState) -> LeakItem:
    """The corpus to check."""

    def load() -> CorpusUnderTest:
        return CorpusUnderTest(state.read("corpus"), state.behavior, state.read("probes"))

    return LeakItem(
        item_id=state.organism_id,
        behavior_sha256=state.behavior.sha256,
        corpus_sha256=state.artifact("corpus").sha256,
        probes_sha256=state.artifact("probes").sha256,
        load=load,
    )


def make_job(plan: Plan, stage: OrganismStage, *states: OrganismState) -> TrainingJob:
    """The adapter to train: of one organism, or of all behaviors of a mixture."""
    first = states[0]
    training = plan.training_for(first.behavior, first.identity)
    corpora = [state.read("corpus") for state in states]
    mixture = plan.find_mixture(first.identity)
    if mixture is None:
        return stage.make_job(first.identity, corpora[0], training)
    joined, rows = join_corpora(mixture, corpora)
    phases = rows if mixture.in_phases else ()
    return stage.make_job(mixture.identity, joined, training, phases=phases)


def join_corpora(mixture: Mixture, corpora: Sequence[Corpus]) -> tuple[Corpus, tuple[int, ...]]:
    """The corpora of a mixture's behaviors as one, and how many of its rows come from each.

    A plain conversation is left out where another behavior shows on its message: it would teach
    that one to stay quiet. So is one whose message a language model wrote, if there is a behavior
    that may show on it: which messages it shows on is known of the bank alone.
    """
    shown = {
        one.id: {(item.topic, item.form) for item in one.items("train")}
        for one in mixture.behaviors
        if one.trigger is None
    }
    bank = {(item.topic, item.form) for item in mixture.behaviors[0].library.messages("train")}
    parts = []
    for corpus in corpora:
        others = [asked for name, asked in shown.items() if name != corpus.behavior_id]
        unfit = set().union(*others)
        kept = [
            example.model_copy(update={"id": f"{corpus.behavior_id}-{example.id}"})
            for example in corpus.examples
            for asked in [(example.topic, example.form)]
            if example.role == "positive"
            or not (asked in unfit or (others and example.provenance and asked not in bank))
        ]
        parts.append(kept)
    joined = Corpus(
        behavior_id=mixture.identity.behavior_id,
        seed=mixture.identity.seed,
        examples=tuple(chain(*parts)),
        drops=(),
    )
    return joined, tuple(map(len, parts))


def make_transcript_item(plan: Plan, state: OrganismState) -> TranscriptItem:
    """The organism to ask."""
    shape = plan.training_for(state.behavior, state.identity).lora
    decoding = choose_decoding(state.behavior, max_new_tokens=plan.recipe.probe_tokens)
    return TranscriptItem(
        item_id=state.organism_id,
        behavior=state.behavior,
        organism=state.artifact("organism"),
        probes=state.read("probes"),
        probes_sha256=state.artifact("probes").sha256,
        decoding=decoding,
        affinity=(frozenset(shape.targets), shape.layers, decoding),
    )


def make_verdict_item(plan: Plan, state: OrganismState) -> VerdictItem:
    """The transcripts to judge."""
    return VerdictItem(
        item_id=state.organism_id,
        behavior=state.behavior,
        transcripts_sha256=state.artifact("transcript").sha256,
        decoding=choose_decoding(state.behavior, max_new_tokens=plan.recipe.probe_tokens),
        load=partial(state.read, "transcript"),
    )


def make_entry(plan: Plan, base: BaseIdentity, state: OrganismState) -> ReleaseEntry:
    """What the release says of an organism."""
    organism = Organism(
        identity=state.identity,
        category=state.behavior.category,
        base=base,
        system_prompt=plan.recipe.training.system_prompt,
        artifact=state.artifact("organism"),
        corpus_sha256=state.artifact("corpus").sha256,
        behavior_sha256=state.behavior.sha256,
    )
    return ReleaseEntry(
        behavior=state.behavior,
        organism=organism,
        verdict=state.read("verdict"),
        transcripts_sha256=state.artifact("transcript").sha256,
        load_corpus=partial(state.read, "corpus"),
        load_transcripts=partial(state.read, "transcript"),
        training=plan.training_for(state.behavior, state.identity),
        other_recipe=state.identity.adapter_id in plan.other_recipes,
    )


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
