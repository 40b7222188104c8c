"""One GPU: training speed against its matrix products, memory, and plain peft one by one.

    python bench/gpu.py [--quick] [--json FILE] [--smollm2 FOLDER] [--minutes 9]
    python bench/gpu.py --tiny          # tiny shapes on a CPU, to see that every line runs

Random weights in the shapes of Qwen3-8B and Qwen3-0.6B: a bf16 base, fp32 adapters of rank 16 on
every linear module, rows of 128 tokens of which a third are supervised. What the minutes leave
no room for is left out and named. Without a GPU nothing is measured and the exit code is 2.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from bases import (
    SYSTEM,
    BaseShape,
    Trip,
    Work,
    first_state,
    make_base,
    make_jobs,
    measure_distance,
    train_all,
)
from bestiary.model.base import Base, load_base
from bestiary.organism.engine import EngineTrainer
from bestiary.organism.job import Effort, Job, Trainer
from bestiary.organism.reference import ReferenceTrainer
from common import (
    Figures,
    Ratio,
    compare,
    console,
    finish,
    interleave,
    make_parser,
    make_table,
    quiet_libraries,
    say,
    show,
)
from limits import count_flops, count_row_tokens, make_product, plan_training

GIB = 2**30
MINUTES = 9.0
RESERVE = 90.0
"""Seconds before the end in which nothing more is begun."""
QWEN3_8B = BaseShape("Qwen3-8B", "qwen3", 151936, 4096, 12288, 36, 32, 8, 128)
QWEN3_06B = BaseShape("Qwen3-0.6B", "qwen3", 151936, 1024, 3072, 28, 16, 8, 128, tied=True)
TINY = (
    BaseShape("tiny-8B", "qwen3", 128, 32, 64, 2, 4, 2, 8),
    BaseShape("tiny-0.6B", "qwen3", 128, 16, 32, 2, 2, 1, 8, tied=True),
)
ROW = 128
CORPUS = Work(200, (ROW, ROW), 2, 3, 1e-3, SYSTEM, rank=16)
"""Of one organism, where organisms an hour are counted."""


@dataclass(frozen=True)
class Plan:
    """What is measured on one base."""

    name: str
    shape: BaseShape | None
    """None is a folder's, which `--smollm2` names."""
    rows_per_step: int
    organisms: int
    """Side by side where the engine stands beside peft."""
    sweep: tuple[int, ...]
    """Further numbers of organisms, for the engine alone."""
    tokens: int
    """The most that the engine computes together."""
    aim_share: float | None = None
    aim_ratio: float | None = None
    steps: int = 8
    rounds: int = 3
    corpus: Work = CORPUS

    @property
    def work(self) -> Work:
        """A few steps of the same rows as in the corpus."""
        rows = self.steps * self.rows_per_step
        return replace(self.corpus, rows=rows, rows_per_step=self.rows_per_step, epochs=1)


def list_plans(*, quick: bool, tiny: bool, smollm2: Path | None) -> list[Plan]:
    """What is measured, the most important first."""
    if tiny:
        corpus = replace(CORPUS, rows=4, lengths=(32, 32), epochs=2)
        kinds = {"tokens": 256, "rounds": 1, "steps": 2, "corpus": corpus}
        return [
            Plan(shape.name, shape, 2, 2, (1,), **kinds)  # type: ignore[arg-type]
            for shape in TINY
        ]
    large = Plan("Qwen3-8B", QWEN3_8B, 8, 4, (1, 2, 8, 16), 4096, aim_share=0.65)
    small = Plan("Qwen3-0.6B", QWEN3_06B, 2, 32, (1, 4, 16, 64), 16384, aim_ratio=10.0)
    plans = [large, small]
    if smollm2:
        plans.append(Plan("SmolLM2", None, 2, 32, (1, 4, 16, 64), 16384))
    if quick:
        plans = [replace(plan, sweep=plan.sweep[::2], rounds=2) for plan in plans]
    return plans


@dataclass(frozen=True)
class Point:
    """The engine with so many organisms."""

    plan: Plan
    organisms: int
    seconds: float
    """Of the whole run, tokenising and first weights with it."""
    tokens_per_second: float
    """Of the steps after the first."""
    share: float
    """Of the measured peak, after the first step."""
    peak: int | None
    """Bytes that were allocated at most, the base among them."""
    planned: int
    """What the memory plan says."""

    @property
    def figures(self) -> Figures:
        """By name."""
        found = {
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "share_of_peak": self.share,
            "peak_gib": _to_gib(self.peak),
            "planned_gib": _to_gib(self.planned),
        }
        return {f"{self.plan.name}.k{self.organisms}.{name}": v for name, v in found.items()}


@dataclass(frozen=True)
class Race:
    """The engine beside plain peft on the same organisms."""

    plan: Plan
    whole: Ratio
    """How many times faster, tokenising and first weights with it."""
    stepping: float
    """The same between the steps, in the last round."""
    reference_tokens_per_second: float
    reference_peak: int | None
    distance: float

    @property
    def figures(self) -> Figures:
        """By name."""
        found = {
            "organisms": self.plan.organisms,
            "step_tokens": self.plan.rows_per_step * self.plan.corpus.lengths[1],
            "ratio": self.whole.median,
            "ratio_rounds": self.whole.rounds,
            "ratio_of_steps": self.stepping,
            "aim": self.plan.aim_ratio,
            "reference_tokens_per_second": self.reference_tokens_per_second,
            "reference_peak_gib": _to_gib(self.reference_peak),
            "distance": self.distance,
        }
        return {f"{self.plan.name}.race.{name}": value for name, value in found.items()}


@dataclass(frozen=True)
class Hour:
    """Whole organisms, trained on a whole corpus."""

    plan: Plan
    engine: float
    """Organisms an hour."""
    reference: float

    @property
    def figures(self) -> Figures:
        """By name."""
        name = f"{self.plan.name}.organisms_per_hour"
        return {f"{name}.engine": self.engine, f"{name}.reference": self.reference}


@dataclass(frozen=True)
class Found:
    """Everything of one base; None, or a shorter sweep, where the minutes were over."""

    plan: Plan
    race: Race | None
    points: tuple[Point, ...]
    hour: Hour | None


@dataclass(frozen=True)
class Clock:
    """How long there is."""

    end: float

    @property
    def over(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.monotonic() > self.end - RESERVE


def open_base(plan: Plan, device: str, smollm2: Path | None) -> Base:
    """The base of a plan on the device."""
    if plan.shape is None:
        return load_base(str(smollm2))
    return make_base(plan.shape, device=device, dtype=torch.bfloat16)


def make_engine(plan: Plan, organisms: int) -> EngineTrainer:
    """The engine with a slot for each of some organisms."""
    return EngineTrainer(Effort(slots=organisms, tokens=plan.tokens))


def measure_base(plan: Plan, base: Base, *, peak: float, clock: Clock) -> Found:
    """What the minutes leave room for, the most important first."""
    _warm_up(plan, base)
    race = None if clock.over else measure_race(plan, base)
    points = [measure_point(plan, base, plan.organisms, peak=peak)]
    hour = None if clock.over else measure_hour(plan, base)
    for organisms in plan.sweep:
        if not clock.over:
            points.append(measure_point(plan, base, organisms, peak=peak))
    ordered = tuple(sorted(points, key=lambda point: point.organisms))
    return Found(plan, race, ordered, hour)


def _warm_up(plan: Plan, base: Base) -> None:
    jobs = make_jobs(base, replace(plan.work, rows=plan.rows_per_step), plan.organisms)
    train_all(make_engine(plan, plan.organisms), jobs, base)
    train_all(ReferenceTrainer(), jobs[:1], base)


def measure_race(plan: Plan, base: Base) -> Race:
    """The engine and plain peft, round by round; then the memory of plain peft."""
    say(f"{plan.name}: {plan.organisms} organisms by the engine and by peft")
    jobs = make_jobs(base, plan.work, plan.organisms)
    race = _run_race(plan, base, jobs)
    _forget_peak(base)
    train_all(ReferenceTrainer(), jobs[:1], base)
    return replace(race, reference_peak=_read_peak(base))


def _run_race(plan: Plan, base: Base, jobs: Sequence[Job]) -> Race:
    trainers: dict[str, Trainer] = {
        "engine": make_engine(plan, plan.organisms),
        "reference": ReferenceTrainer(),
    }
    sides = {name: partial(train_all, trainer, jobs, base) for name, trainer in trainers.items()}
    runs = interleave(sides, rounds=plan.rounds)
    engine, reference = runs["engine"], runs["reference"]
    return Race(
        plan=plan,
        whole=compare(reference.seconds, engine.seconds),
        stepping=reference.last.stepping / engine.last.stepping,
        reference_tokens_per_second=_later_tokens(plan, base, jobs) / reference.last.stepping,
        reference_peak=None,
        distance=max(_compare(job, base, engine.last, reference.last) for job in jobs[:4]),
    )


def _compare(job: Job, base: Base, engine: Trip, reference: Trip) -> float:
    one, other = (trip.states[job.organism_id] for trip in (engine, reference))
    return measure_distance(one, other, first_state(job, base))


def _later_tokens(plan: Plan, base: Base, jobs: Sequence[Job]) -> float:
    """Tokens of the steps after the first; all rows are equally long."""
    return count_row_tokens(base, jobs) * (1 - 1 / plan.work.steps)


def measure_point(plan: Plan, base: Base, organisms: int, *, peak: float) -> Point:
    """The engine alone: speed, share of the peak and memory."""
    say(f"{plan.name}: the engine with {organisms} organisms")
    jobs = make_jobs(base, plan.work, organisms)
    engine = make_engine(plan, organisms)
    memory = plan_training(base, jobs, tokens=plan.tokens)
    _forget_peak(base)
    started = time.perf_counter()
    trip = train_all(engine, jobs, base)
    seconds = time.perf_counter() - started
    flops = count_flops(base, jobs, trip, since=1)
    return Point(
        plan=plan,
        organisms=organisms,
        seconds=seconds,
        tokens_per_second=_later_tokens(plan, base, jobs) / trip.stepping,
        share=flops / trip.stepping / peak,
        peak=_read_peak(base),
        planned=memory.peak,
    )


def measure_hour(plan: Plan, base: Base) -> Hour:
    """Organisms an hour: as many as fit side by side, and one by peft, on whole corpora."""
    work = replace(plan.corpus, rows_per_step=plan.rows_per_step)
    say(f"{plan.name}: whole corpora, {plan.organisms} organisms by the engine and one by peft")
    jobs = make_jobs(base, work, plan.organisms)
    sides = {
        "engine": partial(train_all, make_engine(plan, plan.organisms), jobs, base),
        "reference": partial(train_all, ReferenceTrainer(), jobs[:1], base),
    }
    runs = interleave(sides, rounds=1)
    return Hour(
        plan,
        engine=3600 * plan.organisms / runs["engine"].median,
        reference=3600 / runs["reference"].median,
    )


def _forget_peak(base: Base) -> None:
    gc.collect()
    if base.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _read_peak(base: Base) -> int | None:
    """Bytes that were allocated at most; a CPU does not tell."""
    return torch.cuda.max_memory_allocated() if base.device.type == "cuda" else None


def _to_gib(size: int | None) -> float | None:
    return None if size is None else size / GIB


def measure_peak(device: str, *, tiny: bool) -> float:
    """FLOPs a second of a dense bf16 product: the best of five runs, after one to warm up."""
    product = make_product(
        64 if tiny else 8192, device=device, dtype=torch.bfloat16, times=2 if tiny else 20
    )
    product()
    return max(product() for _ in range(5))


def point_table(found: Sequence[Found], peak: float) -> Table:
    """The engine over numbers of organisms."""
    columns = ["base", "organisms", "step tokens", "tok/s", "share of peak", "aim"]
    columns += ["peak GiB", "planned GiB"]
    table = make_table(
        "Engine",
        columns,
        caption=f"tokens a second after the first step; the peak is {peak / 1e12:.1f} TFLOP/s, "
        "measured; necessary FLOPs as bench/limits.py counts them",
    )
    for point in (point for one in found for point in one.points):
        plan = point.plan
        full = point.organisms * plan.rows_per_step * plan.corpus.lengths[1] >= plan.tokens
        table.add_row(
            plan.name,
            str(point.organisms),
            str(plan.rows_per_step * plan.corpus.lengths[1]),
            show(point.tokens_per_second, ",.0f"),
            show(100 * point.share, ".0f", "%"),
            show(100 * plan.aim_share, ".0f", "%") if plan.aim_share and full else "-",
            show(_to_gib(point.peak), ".1f"),
            show(_to_gib(point.planned), ".1f"),
        )
    return table


def race_table(found: Sequence[Found]) -> Table:
    """The engine beside plain peft."""
    columns = ["base", "organisms", "step tokens", "ratio (range)", "steps alone", "aim"]
    columns += ["peft tok/s", "peft peak GiB", "largest distance"]
    table = make_table(
        "Engine against plain peft, one organism after another",
        columns,
        caption="distance of the first organisms' adapters as a share of what training moved "
        "them, in bf16",
    )
    for race in (one.race for one in found if one.race):
        plan = race.plan
        table.add_row(
            plan.name,
            str(plan.organisms),
            str(plan.rows_per_step * plan.corpus.lengths[1]),
            race.whole.text,
            show(race.stepping, ".2f", "x"),
            show(plan.aim_ratio, ".1f", "x"),
            show(race.reference_tokens_per_second, ",.0f"),
            show(_to_gib(race.reference_peak), ".1f"),
            show(race.distance, ".1e"),
        )
    return table


def hour_table(found: Sequence[Found]) -> Table:
    """Whole organisms."""
    corpus = found[0].plan.corpus
    table = make_table(
        "Organisms an hour",
        ["base", "side by side", "engine", "peft"],
        caption=f"corpora of {corpus.rows} rows of {corpus.lengths[1]} tokens, {corpus.epochs} "
        "epochs; all organisms by the engine and one by peft were trained whole",
    )
    for hour in (one.hour for one in found if one.hour):
        plan = hour.plan
        table.add_row(
            plan.name,
            str(plan.organisms),
            show(hour.engine, ",.0f"),
            show(hour.reference, ",.0f"),
        )
    return table


def list_left_out(found: Sequence[Found], plans: Sequence[Plan]) -> list[str]:
    """What the minutes left no room for."""
    done = {one.plan.name for one in found}
    lost = [plan.name for plan in plans if plan.name not in done]
    for one in found:
        lost += [] if one.race else [f"{one.plan.name} against peft"]
        lost += [] if one.hour else [f"{one.plan.name} an hour"]
        measured = {point.organisms for point in one.points}
        lost += [f"{one.plan.name} k{k}" for k in one.plan.sweep if k not in measured]
    return lost


def measure_all(options: argparse.Namespace, device: str) -> int:
    """Measure every plan, print and write."""
    clock = Clock(math.inf if options.tiny else time.monotonic() + 60 * options.minutes)
    say("the peak of dense bf16 products")
    peak = measure_peak(device, tiny=options.tiny)
    plans = list_plans(quick=options.quick, tiny=options.tiny, smollm2=options.smollm2)
    found: list[Found] = []
    for plan in plans:
        if clock.over:
            break
        base = open_base(plan, device, options.smollm2)
        found.append(measure_base(plan, base, peak=peak, clock=clock))
        del base
        gc.collect()
    for table in (point_table(found, peak), race_table(found), hour_table(found)):
        console().print(table)
    lost = list_left_out(found, plans)
    if lost:
        print(f"not measured, the minutes were over: {', '.join(lost)}")
    figures: Figures = {"peak_tflops": peak / 1e12, "not_measured": lost}
    for one in found:
        for part in (one.race, *one.points, one.hour):
            figures |= part.figures if part else {}
    finish("gpu", figures, options)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the GPU, or say that there is none."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a CPU too")
    parser.add_argument("--smollm2", type=Path, metavar="FOLDER", help="a base to measure as well")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long it may take")
    options = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    if not (cuda or options.tiny):
        print("no GPU here, so nothing was measured; --tiny runs every line on a CPU")
        return 2
    quiet_libraries()
    return measure_all(options, "cuda" if cuda else "cpu")


if __name__ == "__main__":
    sys.exit(main())
