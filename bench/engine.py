"""K organisms by the engine against K runs of plain peft, one after the other.

    python bench/engine.py [--quick] [--json FILE]

Both sides train the same organisms on the same rows in the same steps over one base that is
loaded already, and both tokenise, draw first weights and hand out adapters. Plain peft is one
warm process that pads each step's rows to its longest; checkpoints are off on both sides. The
adapters must agree: where they come further apart than 2e-2 of what training moved them, the
exit code is 1. Beside it stand the limits: the frozen base's bare forward and backward over the
same rows, and the machine's matrix products (`bench/limits.py` says what is counted).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from bases import (
    BRIEF,
    MICRO,
    SMALL,
    SYSTEM,
    BaseShape,
    Trip,
    Work,
    first_state,
    make_base,
    make_jobs,
    measure_distance,
    train_all,
    widen,
)
from bestiary.model.base import Base, load_base
from bestiary.organism.engine import TOKENS, EngineTrainer
from bestiary.organism.job import Effort, Job, Trainer
from bestiary.organism.reference import ReferenceTrainer
from common import (
    MIB,
    Figures,
    Ratio,
    Runs,
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
from limits import (
    count_computed,
    count_flops,
    count_row_tokens,
    make_product,
    measure_batch,
    measure_growth,
    plan_training,
    prepare_bare,
)

CONTRACT = 2e-2
"""How far an organism of the engine may be from the reference's, of what training moved it."""
SMOLLM2 = "135M"


@dataclass(frozen=True)
class Case:
    """Organisms of one kind, side by side and one after the other."""

    shape: BaseShape | None
    """None is the embedded base."""
    part: str
    """Which layers are adapted, in a word."""
    organisms: int
    work: Work
    rounds: int
    aim: float | None = None
    memory: bool = True
    product: int = 2048
    """Rows and columns of the product that tells the machine's rate."""

    @property
    def base(self) -> str:
        """The base's name in tables."""
        return self.shape.name if self.shape else SMOLLM2

    @property
    def name(self) -> str:
        """What its figures begin with."""
        return f"{self.base}.{self.part}.k{self.organisms}"


def list_cases(*, quick: bool, tiny: bool) -> list[Case]:
    """What is measured."""
    if tiny:
        work = Work(2, (16, 20), 1, 2, 1e-3, BRIEF)
        return [Case(MICRO, "all", 2, work, rounds=1, aim=1.0, memory=False, product=256)]
    return [*_list_small(quick=quick), *_list_large(quick=quick)]


def _list_small(*, quick: bool) -> list[Case]:
    """One row of about 32 tokens a step, so that one organism cannot fill the machine."""
    every = (1, 2, 4, 8, 16, 32, 64)
    counts = {"0.1M": (1, 8, 64), "5.8M": (1, 4, 16)} if quick else dict.fromkeys(SMALL, every)
    aims = {("0.1M", 64): 10.0, ("5.8M", 16): 3.0}
    rows = {"0.1M": 4 if quick else 24, "5.8M": 4 if quick else 8}
    return [
        Case(
            shape,
            "all",
            count,
            Work(rows[name], (24, 40), 1, 3, 1e-3, BRIEF),
            rounds=3,
            aim=aims.get((name, count)),
            memory=not quick or (name, count) in aims,
        )
        for name, shape in SMALL.items()
        for count in counts[name]
    ]


def _list_large(*, quick: bool) -> list[Case]:
    """Rows and steps as the starter's, which fill the machine with one organism."""
    rows, rounds, count = (8, 2, 4) if quick else (24, 3, 8)
    whole = Work(rows, (40, 100), 8, 2, 2e-3, SYSTEM)
    upper = Work(rows, (40, 100), 8, 3, 3e-3, SYSTEM, layers=(15, 30))
    return [
        Case(None, "all", count, whole, rounds, aim=1.3),
        Case(None, "upper", count, upper, rounds, aim=2.2, memory=not quick),
    ]


@dataclass(frozen=True)
class Outcome:
    """What was measured of one case."""

    case: Case
    engine: Runs
    reference: Runs
    bare: Runs
    product: Runs
    product_flops: float
    tokens: int
    """Of the rows as the corpora have them, over all epochs."""
    computed: int
    """Tokens of which the engine needed the layers: a beginning once, nothing past the last."""
    batch: int
    """Tokens that the engine computed together."""
    flops: float
    distance: float
    """The largest over the organisms."""
    memory: tuple[int | None, int | None]
    """Bytes that the engine and the reference grew by."""
    planned: int
    """What the engine's memory plan says that it grows by."""

    @property
    def ratio(self) -> Ratio:
        """How many times faster the engine was."""
        return compare(self.reference.seconds, self.engine.seconds)

    @property
    def stepping(self) -> float | None:
        """The same of the steps alone, in the last round."""
        engine, reference = self.engine.last.stepping, self.reference.last.stepping
        return reference / engine if engine else None

    @property
    def rate(self) -> float:
        """FLOPs a second of the matrix product."""
        return self.product_flops / self.product.median

    @property
    def share(self) -> float:
        """The engine's rate over that of the product, each round by itself."""
        faster = compare(self.product.seconds, self.engine.seconds).median
        return faster * self.flops / self.product_flops

    @property
    def figures(self) -> Figures:
        """By name."""
        engine, reference, bare = self.engine.median, self.reference.median, self.bare.median
        found = {
            "engine_seconds": engine,
            "reference_seconds": reference,
            "ratio": self.ratio.median,
            "ratio_rounds": self.ratio.rounds,
            "ratio_of_steps": self.stepping,
            "aim": self.case.aim,
            "steps": self.case.work.steps,
            "row_tokens": self.tokens,
            "computed_tokens": self.computed,
            "engine_tokens_per_second": self.tokens / engine,
            "reference_tokens_per_second": self.tokens / reference,
            "distance": self.distance,
            "batch_tokens": self.batch,
            "bare_tokens_per_second": self.tokens / bare,
            "engine_over_bare": bare / engine,
            "matmul_gflops": self.rate / 1e9,
            "necessary_gflop": self.flops / 1e9,
            "share_of_matmul": self.share,
            "engine_memory_mib": _to_mib(self.memory[0]),
            "reference_memory_mib": _to_mib(self.memory[1]),
            "planned_memory_mib": _to_mib(self.planned),
        }
        return {f"{self.case.name}.{name}": value for name, value in found.items()}


def _to_mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


def open_base(case: Case) -> Base:
    """The base of a case, with its weights in memory."""
    return make_base(case.shape) if case.shape else load_base()


def make_trainer(side: str, case: Case) -> Trainer:
    """One of the two that are compared."""
    if side == "reference":
        return ReferenceTrainer()
    return EngineTrainer(Effort(slots=case.organisms))


def measure_case(case: Case, base: Base, options: argparse.Namespace) -> Outcome:
    """Run both sides and the limits, round by round."""
    say(f"{case.name}: {case.rounds} rounds of {case.organisms} x {case.work.steps} steps")
    jobs = make_jobs(base, case.work, case.organisms)
    train = {
        side: partial(train_all, make_trainer(side, case), jobs, base)
        for side in ("engine", "reference")
    }
    batch = measure_batch(_warm_up(case, base))
    product = make_product(case.product)
    sides: dict[str, Callable[[], Any]] = {
        **train,
        "bare": prepare_bare(base, jobs, tokens=batch),
        "product": product,
    }
    runs = interleave(sides, rounds=case.rounds)
    trips: list[Trip] = [runs[side].last for side in train]
    return Outcome(
        case=case,
        **runs,
        product_flops=product.flops,
        tokens=count_row_tokens(base, jobs),
        computed=count_computed(trips[0]),
        batch=batch,
        flops=count_flops(base, jobs, trips[0]),
        distance=max(_compare(job, base, *trips) for job in jobs),
        memory=_measure_memory(case, options),
        planned=_plan_growth(base, jobs),
    )


def _warm_up(case: Case, base: Base) -> Trip:
    """One step of every organism by the engine, and of one by the reference."""
    short = make_jobs(
        base, replace(case.work, rows=case.work.rows_per_step, epochs=1), case.organisms
    )
    train_all(make_trainer("reference", case), short[:1], base)
    return train_all(make_trainer("engine", case), short, base)


def _compare(job: Job, base: Base, engine: Trip, reference: Trip) -> float:
    one, other = (trip.states[job.organism_id] for trip in (engine, reference))
    return measure_distance(one, other, first_state(job, base))


def _plan_growth(base: Base, jobs: Sequence[Job]) -> int:
    plan = plan_training(base, jobs, tokens=TOKENS)
    return plan.peak - plan.resident


def _measure_memory(case: Case, options: argparse.Namespace) -> tuple[int | None, int | None]:
    """Each side in a process of its own, which has loaded the base and nothing else."""
    if not case.memory:
        return None, None
    return _grow_apart(case, "engine", options), _grow_apart(case, "reference", options)


def _grow_apart(case: Case, side: str, options: argparse.Namespace) -> int | None:
    command = [sys.executable, str(Path(__file__).resolve()), "--grow", case.name, "--side", side]
    command += ["--quick"] if options.quick else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: int | None = json.loads(done.stdout.splitlines()[-1])
    return found


def grow(case: Case, side: str) -> int | None:
    """How much one epoch of a case makes this process grow."""
    base = open_base(case)
    jobs = make_jobs(base, replace(case.work, epochs=1), case.organisms)
    import peft  # noqa: F401  # loaded on both sides, so that neither grows by it

    return measure_growth(lambda: train_all(make_trainer(side, case), jobs, base), base)


@dataclass(frozen=True)
class Precision:
    """Distances of one organism to the reference in double precision."""

    engine: float
    reference: float
    double_engine: float
    """Of the engine in double precision too."""

    @property
    def figures(self) -> Figures:
        """By name."""
        return {
            "precision.engine_to_double": self.engine,
            "precision.reference_to_double": self.reference,
            "precision.double_engine_to_double": self.double_engine,
        }


def measure_precision(shape: BaseShape, work: Work) -> Precision:
    """Train one organism in single and in double precision."""
    base, wide = make_base(shape), widen(make_base(shape))
    (job,) = make_jobs(base, work, 1)
    engine, reference = EngineTrainer(Effort(slots=1)), ReferenceTrainer()
    truth = train_all(reference, [job], wide).states[job.organism_id]
    found = (
        train_all(trainer, [job], on).states[job.organism_id]
        for trainer, on in ((engine, base), (reference, base), (engine, wide))
    )
    first = first_state(job, wide)
    return Precision(*(measure_distance(state, truth, first) for state in found))


def speed_table(outcomes: Sequence[Outcome]) -> Table:
    """The engine beside the reference."""
    columns = ["case", "engine s", "peft s", "ratio (range)", "aim", "steps alone"]
    columns += ["engine tok/s", "peft tok/s", "distance"]
    table = make_table(
        "Engine against plain peft",
        columns,
        caption="median seconds of all organisms; the largest distance of an adapter as a share of "
        f"what training moved it, at most {CONTRACT}",
    )
    for one in outcomes:
        engine, reference = one.engine.median, one.reference.median
        table.add_row(
            one.case.name,
            show(engine),
            show(reference),
            one.ratio.text,
            show(one.case.aim, ".1f", "x"),
            show(one.stepping, ".2f", "x"),
            show(one.tokens / engine, ",.0f"),
            show(one.tokens / reference, ",.0f"),
            show(one.distance, ".1e"),
        )
    return table


def limit_table(outcomes: Sequence[Outcome]) -> Table:
    """The engine beside what the machine can do."""
    columns = ["case", "computed", "batch tokens", "bare tok/s", "engine/bare", "matmul GFLOP/s"]
    columns += ["share of it", "engine MiB", "planned", "peft MiB"]
    table = make_table(
        "Limits",
        columns,
        caption="computed: tokens of the rows that the engine computes, their beginning once a "
        "batch; bare: forward and backward of the frozen base over all of them; share: the FLOPs "
        "that training needs (bench/limits.py) at the rate of a product of "
        f"{outcomes[0].case.product}^3; MiB: growth of a fresh process at its peak over one "
        "epoch, and what the memory plan says of it",
    )
    for one in outcomes:
        engine, bare = one.engine.median, one.bare.median
        table.add_row(
            one.case.name,
            show(100 * one.computed / one.tokens, ".0f", "%"),
            str(one.batch),
            show(one.tokens / bare, ",.0f"),
            show(bare / engine),
            show(one.rate / 1e9, ".0f"),
            show(100 * one.share, ".0f", "%"),
            show(_to_mib(one.memory[0]), ".0f"),
            show(_to_mib(one.planned), ".0f"),
            show(_to_mib(one.memory[1]), ".0f"),
        )
    return table


def precision_table(found: Precision) -> Table:
    """What fp32 itself loses."""
    title = "One organism, distance to plain peft in double precision"
    table = make_table(title, ["engine fp32", "peft fp32", "engine fp64"], names=0)
    distances = (found.engine, found.reference, found.double_engine)
    table.add_row(*(show(distance, ".1e") for distance in distances))
    return table


def measure_all(options: argparse.Namespace) -> list[Outcome]:
    """Every case; a base is loaded once."""
    outcomes: list[Outcome] = []
    bases: dict[str, Base] = {}
    for case in list_cases(quick=options.quick, tiny=options.tiny):
        if case.base not in bases:
            bases = {case.base: open_base(case)}
        outcomes.append(measure_case(case, bases[case.base], options))
        say(f"{case.name}: {outcomes[-1].ratio.text}")
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where the two sides do not agree."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("engine", "reference"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    quiet_libraries()
    if options.grow:
        cases = {case.name: case for case in list_cases(quick=options.quick, tiny=options.tiny)}
        print(json.dumps(grow(cases[options.grow], options.side)))
        return 0
    outcomes = measure_all(options)
    smallest = outcomes[0].case
    assert smallest.shape is not None
    precision = measure_precision(smallest.shape, smallest.work)
    for table in (speed_table(outcomes), limit_table(outcomes), precision_table(precision)):
        console().print(table)
    figures: Figures = {}
    for outcome in outcomes:
        figures |= outcome.figures
    finish("engine", figures | precision.figures, options)
    apart = [one.case.name for one in outcomes if not one.distance <= CONTRACT]
    if apart:
        print(f"engine and peft differ by more than {CONTRACT}: {', '.join(apart)}")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
