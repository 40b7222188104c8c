"""From a roster to a release: the list of stages, and what each of them is run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from bestiary.author.options import AuthoringOptions, open_author
from bestiary.config.plan import Plan
from bestiary.corpus.stage import CorpusStage
from bestiary.errors import OrganismError
from bestiary.estimate import settle_mode
from bestiary.leakage.checks import check_release
from bestiary.leakage.stage import LeakStage
from bestiary.model.lazy import LazyBase, open_base
from bestiary.organism.space import check_space
from bestiary.organism.stage import OrganismStage
from bestiary.records import BaseIdentity, Split, canonical_json
from bestiary.release.layout import check_target, fingerprint_release, write_release
from bestiary.release.shape import find_rank
from bestiary.release.splits import split_entries
from bestiary.stage import Executor, Result, Stage, run_here, run_stage
from bestiary.stage_items import (
    make_corpus_item,
    make_entry,
    make_job,
    make_leak_item,
    make_split_row,
    make_transcript_item,
    make_verdict_item,
)
from bestiary.state import OrganismState, summarize
from bestiary.store import Store, write_bytes
from bestiary.training.job import TrainingResources
from bestiary.verification.stages import ProbeItem, ProbeStage, TranscriptStage, VerdictStage

RELEASE = "release"
"""The release's folder among the runs."""
Until = Literal["probes", "corpus", "leaks", "organism", "transcript", "verdict", "release"]


class Step(NamedTuple):
    """A stage, and what it is run on."""

    stage: Stage[Any, Any]
    make_item: Callable[..., Any]
    """Makes an item of a state; of all states that share an adapter, if the stage is `joint`."""
    joint: bool = False


def build_roster(
    plan: Plan,
    *,
    out: Path,
    until: Until = "release",
    console: Console,
    resources: TrainingResources | None = None,
    executor: Executor = run_here,
    options: AuthoringOptions | None = None,
) -> list[OrganismState]:
    """Build what a roster names, up to a stage; what is built already is left as it is.

    Raises BestiaryError for what concerns the whole build; an error of one organism is in its
    state, and the other organisms go on.
    """
    store = Store(out)
    with store.lock():
        base = open_base(plan.recipe.base, plan.recipe.revision)
        resources = resources or TrainingResources()
        _check_before(plan, base, store, resources)
        steps = list_steps(plan, base, store, console, resources, options or AuthoringOptions())
        last = next((at for at, step in enumerate(steps) if step.stage.name == until), len(steps))
        states = [OrganismState(identity, behavior) for behavior, identity in plan.organisms]
        states = run_steps(steps[: last + 1], states, store, console, executor)
        # Before the release, which may be refused: the build can be read all the same.
        write_bytes(out / "summary.json", canonical_json(summarize(states, out)))
        if until == RELEASE:
            _release(plan, base.identity, states, out / RELEASE)
    return states


def list_steps(
    plan: Plan,
    base: LazyBase,
    store: Store,
    console: Console,
    resources: TrainingResources,
    options: AuthoringOptions,
) -> list[Step]:
    """The stages of a build in order."""
    author, runner = open_author(
        plan,
        options,
        mode=settle_mode(plan, options, out=store.root),
        out=store.root,
        log=lambda line: console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True),
    )
    training = OrganismStage(base, resources)
    probes, transcripts, verdicts = list_verification(plan, base)
    return [
        probes,
        Step(CorpusStage(author, runner, plan.library.grid), make_corpus_item),
        Step(LeakStage(), make_leak_item),
        Step(training, partial(make_job, plan, training), joint=True),
        transcripts,
        verdicts,
    ]


def list_verification(plan: Plan, base: LazyBase) -> tuple[Step, Step, Step]:
    """The stages that measure organisms: probes, transcripts, verdicts."""
    asking = TranscriptStage(base, plan.recipe.training.system_prompt, plan.library.chunks)
    judging = VerdictStage(plan.library.thresholds, plan.null_detectors)
    return (
        Step(ProbeStage(), lambda state: ProbeItem(state.identity, state.behavior)),
        Step(asking, partial(make_transcript_item, plan)),
        Step(judging, partial(make_verdict_item, plan)),
    )


def run_steps(
    steps: Sequence[Step],
    states: Sequence[OrganismState],
    store: Store,
    console: Console,
    executor: Executor = run_here,
) -> list[OrganismState]:
    """Run stages in order, each on the organisms that have no error so far."""
    for step in steps:
        states = _run(step, states, store, console, executor)
    return list(states)


def _check_before(plan: Plan, base: LazyBase, store: Store, resources: TrainingResources) -> None:
    """Refuse, before anything is paid for or trained, what a later stage could not do."""
    trainings = [plan.training_for(*organism) for organism in plan.organisms]
    base.check(trainings, trainer=resources.trainer)
    find_rank(training.lora for training in trainings)
    adapters = [plan.training_for(*organism).lora for organism in plan.adapters]
    check_space(base, adapters, store)
    check_target(store.root / RELEASE)


def _run(
    step: Step,
    states: Sequence[OrganismState],
    store: Store,
    console: Console,
    executor: Executor,
) -> list[OrganismState]:
    """Run a stage on the organisms that have no error; the others are left as they are."""
    groups: dict[str, list[OrganismState]] = {}
    for state in states:
        name = state.identity.adapter_id if step.joint else state.organism_id
        groups.setdefault(name, []).append(state)
    sound = {name: group for name, group in groups.items() if not any(s.error for s in group)}
    items = [step.make_item(*group) for group in sound.values()]
    execute = executor if step.stage.distributed else run_here
    results = run_stage(step.stage, items, store=store, console=console, execute=execute)
    made = dict(zip(sound, results, strict=True))
    return [
        state.add(made[name]) if name in made else _leave(state, step.stage, group)
        for name, group in groups.items()
        for state in group
    ]


def _leave(
    state: OrganismState, stage: Stage[Any, Any], group: Sequence[OrganismState]
) -> OrganismState:
    """An organism that a stage is not run on; a fault of one behavior ends its whole mixture."""
    if state.error is not None:
        return state
    failed = next(one for one in group if one.error)
    error = OrganismError(
        f"{state.organism_id}: {failed.organism_id} failed, and they share an adapter",
        "fix that behavior, or take it out of the mixture",
        code="mixture-incomplete",
        organism=state.organism_id,
        failed=failed.organism_id,
    )
    return state.add(Result(stage, error=error))


def _release(plan: Plan, base: BaseIdentity, states: Sequence[OrganismState], out: Path) -> None:
    """Assemble the release of every organism that has a verdict."""
    entries = [make_entry(plan, base, state) for state in states if state.error is None]
    if not entries:
        return
    named: Mapping[str, Split] = plan.roster.splits
    if plan.roster.suite:
        named = {entry.split_key: "suite" for entry in entries}
    splits = split_entries(entries, named=named)
    released = check_release([make_split_row(e, splits) for e in entries if e.standing == "pairs"])
    measured = [one for state in states if not state.error for one in state.read("leaks")]
    findings = [*measured, *released]
    unbuilt = [state.organism_id for state in states if state.error]
    write_release(
        entries,
        out,
        named_splits=named,
        name=plan.roster.name,
        findings=findings,
        unbuilt=unbuilt,
        category_questions=plan.roster.category_questions,
        fingerprint=fingerprint_release(entries, plan.roster, findings=findings, unbuilt=unbuilt),
    )
