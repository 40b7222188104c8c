"""One case of training: the engine, plain peft one organism after another, and the limits.

Both sides train the same organisms on the same rows in the same steps over one base that is
loaded already, and both tokenise, draw first weights and hand out adapters. Plain peft is one
warm process that pads each step's rows to its longest; checkpoints are off on both sides.
`bench/engine.py` and `bench/gpu.py` say which cases are measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from rich.table import Table

from bases import (
    BaseShape,
    Trip,
    Work,
    first_state,
    make_base,
    make_jobs,
    measure_distance,
    train_all,
)
from bestiary.errors import BestiaryError
from bestiary.model.base import Base, load_base
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import Trainer, TrainingJob, TrainingResources
from bestiary.training.memory import CPU_LIMITS
from bestiary.training.reference import ReferenceTrainer
from common import Column, Figures, Runs, compare, interleave, keep, make_table, say
from limits import (
    Product,
    count_computed,
    count_flops,
    count_row_tokens,
    measure_batch,
    plan_training,
    prepare_bare,
    synchronise,
)

CONTRACT = 5e-3
"""How far an organism of the engine may be from the reference's, of what training moved it."""


@dataclass(frozen=True)
class Case:
    """Organisms of one kind, side by side and one after the other."""

    shape: BaseShape | None
    """None is a base whose weights are at hand."""
    part: str
    """What sets it apart from other cases of its base, in a word."""
    organisms: int
    work: Work
    rounds: int
    slots: int | None = None
    """Organisms side by side; None is all."""
    tokens: int = CPU_LIMITS.tokens
    """The most that the engine computes together."""
    raced: int | None = None
    """Of how many plain peft's time is measured; None is all."""
    aim: float | None = None
    """How many times faster than plain peft."""
    aim_share: float | None = None
    """Of the machine's matrix products."""

    @property
    def base(self) -> str:
        """The base's name in tables."""
        return self.shape.name if self.shape else "SmolLM2-135M"

    @property
    def name(self) -> str:
        """What its figures go by."""
        return f"{self.base} {self.part} K={self.organisms}"

    @property
    def width(self) -> int:
        """Organisms side by side."""
        return self.slots or self.organisms

    @property
    def steady(self) -> bool:
        """Whether all organisms begin and end together, so that the time of steps can be told."""
        return self.slots is None and self.work.steps > 1

    @property
    def effort(self) -> str:
        """What is said before it is measured."""
        return f"{self.rounds} rounds of {self.work.steps} steps an organism"

    def measure(self, base: Base, setting: Setting) -> Figures:
        """Run both sides and the limits, round by round."""
        return measure_case(self, base, setting)


class Measurable(Protocol):
    """A case of any kind."""

    @property
    def shape(self) -> BaseShape | None:
        """Of its base; None is a base whose weights are at hand."""

    @property
    def base(self) -> str:
        """The base's name in tables."""

    @property
    def name(self) -> str:
        """What its figures go by."""

    @property
    def effort(self) -> str:
        """What is said before it is measured."""

    def measure(self, base: Base, setting: Setting) -> Figures:
        """What is found on its base."""


@dataclass(frozen=True)
class Setting:
    """Where cases are measured."""

    product: Product
    """The matrix product that tells the machine's rate."""
    open_base: Callable[[BaseShape | None], Base]
    end: float = math.inf
    """Of the monotonic clock: past it nothing more is begun."""


def open_base(shape: BaseShape | None) -> Base:
    """A base on a CPU; None is the embedded one."""
    return make_base(shape) if shape else load_base()


def measure_cases(
    bench: str,
    cases: Sequence[Measurable],
    setting: Setting,
    options: Any,
    *,
    known: Mapping[str, Figures] | None = None,
) -> dict[str, Figures]:
    """Every case that there is time for; a base is loaded once, and a case at fault says so.

    `known` are the figures of cases that were measured before, which are given back with them.
    """
    found: dict[str, Figures] = dict(known or {})
    bases: dict[str, Base] = {}
    for case in cases:
        if case.name in found:
            continue
        if time.monotonic() > setting.end:
            found[case.name] = {"not_measured": "the time was over"}
            continue
        say(f"{case.name}: {case.effort}")
        try:
            if case.base not in bases:
                bases.clear()
                bases[case.base] = setting.open_base(case.shape)
            found[case.name] = case.measure(bases[case.base], setting)
        except (BestiaryError, RuntimeError) as error:
            found[case.name] = {"not_measured": str(error)}
        keep(bench, found, options)
    return found


def measure_case(case: Case, base: Base, setting: Setting) -> Figures:
    """Run both sides and the limits, round by round."""
    jobs = make_jobs(base, case.work, case.organisms)
    sides = {
        "engine": Side(EngineTrainer(_effort(case)), jobs, base, steady=case.steady),
        "reference": Side(ReferenceTrainer(), jobs[: case.raced], base, steady=case.steady),
    }
    batch = measure_batch(_warm_up(case, base))
    plan = plan_training(base, jobs, slots=case.width, tokens=case.tokens)
    runs = interleave(
        {**sides, "bare": prepare_bare(base, jobs, tokens=batch), "product": setting.product},
        rounds=case.rounds,
        end=setting.end,
    )
    figures: Figures = {
        "organisms": case.organisms,
        "slots": case.width,
        "steps": case.work.steps,
        "batch_tokens": batch,
        "planned_gib": plan.peak / 2**30,
        "aim": case.aim,
        "aim_share": case.aim_share,
    }
    figures |= _compare_sides(base, jobs, sides, runs)
    return figures | _compare_limits(base, jobs, sides["engine"], runs, setting.product)


class Side:
    """A trainer over some jobs, and what each run of it says of itself."""

    def __init__(
        self, trainer: Trainer, jobs: Sequence[TrainingJob], base: Base, *, steady: bool
    ) -> None:
        self._trainer = trainer
        self._base = base
        self.jobs = jobs
        self.steady = steady
        self.stepping: list[float] = []
        """Seconds between the steps, of each run."""
        self.peak: int | None = None
        """Bytes that were reserved on a GPU at most; a CPU does not tell.

        Not those allocated, which leave out what recorded steps keep.
        """

    def __call__(self) -> Trip:
        """Train them all."""
        cuda = self._base.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        trip = train_all(self._trainer, self.jobs, self._base)
        synchronise(self._base.device)
        self.stepping.append(trip.stepping)
        self.peak = torch.cuda.max_memory_reserved() if cuda else None
        return trip


def _effort(case: Case) -> TrainingResources:
    return TrainingResources(slots=case.width, tokens=case.tokens)


def _warm_up(case: Case, base: Base) -> Trip:
    """One step of every organism by the engine, and of one by the reference."""
    short = make_jobs(
        base, replace(case.work, rows=case.work.rows_per_step, epochs=1), case.organisms
    )
    train_all(ReferenceTrainer(), short[:1], base)
    return train_all(EngineTrainer(_effort(case)), short, base)


def _compare_sides(
    base: Base, jobs: Sequence[TrainingJob], sides: Mapping[str, Side], runs: dict[str, Runs]
) -> Figures:
    engine, reference = sides["engine"], sides["reference"]
    share = len(reference.jobs) / len(jobs)
    whole, spread = compare(runs["reference"].seconds, runs["engine"].seconds)
    steps = compare(reference.stepping, engine.stepping)[0] / share if engine.steady else None
    tokens, raced = count_row_tokens(base, jobs), count_row_tokens(base, reference.jobs)
    trips = runs["engine"].last, runs["reference"].last
    return {
        "engine_seconds": runs["engine"].median,
        "reference_seconds": runs["reference"].median,
        "ratio": whole / share,
        "ratio_range": tuple(one / share for one in spread),
        "ratio_of_steps": steps,
        "row_tokens": tokens,
        "engine_tokens_per_second": tokens / runs["engine"].median,
        "reference_tokens_per_second": raced / runs["reference"].median,
        "engine_organisms_per_hour": 3600 * len(jobs) / runs["engine"].median,
        "reference_organisms_per_hour": 3600 * len(reference.jobs) / runs["reference"].median,
        "distance": max(_measure_distance(job, base, *trips) for job in reference.jobs),
        "engine_gib": _to_gib(engine.peak),
        "reference_gib": _to_gib(reference.peak),
    }


def _compare_limits(
    base: Base, jobs: Sequence[TrainingJob], engine: Side, runs: dict[str, Runs], product: Product
) -> Figures:
    """The engine beside the bare base over the same rows, and its steps beside the product."""
    trip: Trip = runs["engine"].last
    found: Figures = {
        "computed_tokens": count_computed(trip),
        "bare_tokens_per_second": count_row_tokens(base, jobs) / runs["bare"].median,
        "engine_over_bare": compare(runs["bare"].seconds, runs["engine"].seconds)[0],
        "matmul_tflops": product.flops / runs["product"].median / 1e12,
    }
    if not engine.steady:
        return found
    faster, _ = compare(runs["product"].seconds, engine.stepping)
    return found | {
        "steps_tokens_per_second": count_row_tokens(base, jobs, since=1)
        / statistics.median(engine.stepping),
        "share_of_matmul": faster * count_flops(base, jobs, trip, since=1) / product.flops,
    }


def _measure_distance(job: TrainingJob, base: Base, engine: Trip, reference: Trip) -> float:
    one, other = (trip.states[job.organism_id] for trip in (engine, reference))
    return measure_distance(one, other, first_state(job, base))


def _to_gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30


SPEED: Sequence[Column] = (
    ("engine s", "engine_seconds", "{:.2f}"),
    ("peft s", "reference_seconds", "{:.2f}"),
    ("ratio", "ratio", "{:.2f}x"),
    ("range", "ratio_range", "{0[0]:.2f}-{0[1]:.2f}"),
    ("aim", "aim", "{:.1f}x"),
    ("steps alone", "ratio_of_steps", "{:.2f}x"),
    ("engine tok/s", "engine_tokens_per_second", "{:,.0f}"),
    ("peft tok/s", "reference_tokens_per_second", "{:,.0f}"),
    ("distance", "distance", "{:.1e}"),
)
LIMITS: Sequence[Column] = (
    ("slots", "slots", "{}"),
    ("row tokens", "row_tokens", "{:,}"),
    ("computed", "computed_tokens", "{:,}"),
    ("in a batch", "batch_tokens", "{:,}"),
    ("bare tok/s", "bare_tokens_per_second", "{:,.0f}"),
    ("engine/bare", "engine_over_bare", "{:.2f}"),
    ("steps tok/s", "steps_tokens_per_second", "{:,.0f}"),
    ("matmul TFLOP/s", "matmul_tflops", "{:.3f}"),
    ("share of it", "share_of_matmul", "{:.0%}"),
    ("aim", "aim_share", "{:.0%}"),
    ("organisms/h", "engine_organisms_per_hour", "{:,.0f}"),
)
MEMORY: Sequence[Column] = (
    ("engine GiB", "engine_gib", "{:.1f}"),
    ("planned GiB", "planned_gib", "{:.1f}"),
    ("peft GiB", "reference_gib", "{:.1f}"),
)


def training_tables(found: Mapping[str, Figures]) -> list[Table]:
    """The engine beside plain peft, and beside what the machine can do."""
    return [
        make_table(
            "Engine against plain peft",
            found,
            SPEED,
            caption="median seconds; ratio: of the time an organism takes; distance: the largest "
            f"of an adapter, as a share of what training moved it (in fp32 at most {CONTRACT})",
        ),
        make_table(
            "Limits",
            found,
            LIMITS,
            caption="computed: tokens that the engine computes, a prefix that rows share once "
            "a batch; bare: forward and backward of the frozen base over all row tokens; share: "
            "the FLOPs of the steps after the first (bench/limits.py) at the product's rate",
        ),
    ]


def memory_table(found: Mapping[str, Figures]) -> Table:
    """What a GPU held at most, beside what the engine's plan foretells."""
    return make_table("Memory", found, MEMORY, caption="allocated at most; peft: one organism")


def list_apart(found: Mapping[str, Figures]) -> list[str]:
    """Cases in which engine and reference do not agree."""
    return [name for name, one in found.items() if not one.get("distance", 0.0) <= CONTRACT]


def list_lost(found: Mapping[str, Figures]) -> list[str]:
    """Cases that were not measured, with the reason."""
    return [
        f"{name}: {one['not_measured']}" for name, one in found.items() if "not_measured" in one
    ]
