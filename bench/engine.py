"""K organisms by the engine against K runs of plain peft, one after the other, on a CPU.

    python bench/engine.py [--quick] [--json FILE]

`bench/training.py` says what stands side by side. Where adapters come further apart than 5e-3 of
what training moved them, the exit code is 1. Memory is measured in a process of its own a case.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bases import (
    BRIEF,
    MICRO,
    SMALL,
    SYSTEM,
    BaseShape,
    Work,
    first_state,
    make_base,
    make_jobs,
    measure_distance,
    train_all,
    widen,
)
from bestiary.model.base import Base
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import Trainer, TrainingResources
from bestiary.training.memory import CPU_LIMITS
from bestiary.training.reference import ReferenceTrainer
from common import (
    Column,
    Figures,
    finish,
    make_parser,
    make_table,
    quiet_libraries,
    say,
)
from limits import make_product, measure_growth, plan_training
from training import (
    CONTRACT,
    Case,
    Setting,
    list_apart,
    list_lost,
    measure_cases,
    open_base,
    training_tables,
)

TINY = Work(2, (16, 20), 1, 2, 1e-3, BRIEF)
"""For a base on which nothing that is measured means anything."""
STARTER = Work(24, (40, 100), 8, 2, 2e-3, SYSTEM)
"""Rows and steps as the starter's, which fill this machine with one organism."""
UPPER = replace(STARTER, epochs=3, learning_rate=3e-3, layers=(15, 30))


def list_cases(*, quick: bool, tiny: bool) -> list[Case]:
    """What is timed."""
    if tiny:
        return [Case(MICRO, "all", 2, TINY, rounds=1, aim=1.0)]
    aims = {("0.1M", 64): 10.0, ("5.8M", 16): 3.0}
    work = {
        name: Work(8 if quick else rows, (24, 40), 1, 3, 1e-3, BRIEF)
        for name, rows in {"0.1M": 24, "5.8M": 8}.items()
    }
    small = [
        Case(shape, "all", count, work[name], 3, aim=aims.get((name, count)))
        for name, shape in SMALL.items()
        for count in (1, 4, 16, 64)
    ]
    refilled = replace(small[3], part="refilled", work=replace(work["0.1M"], uneven=True), slots=16)
    rows, rounds = (8, 2) if quick else (16, 3)
    large = [
        Case(None, part, count, replace(whole, rows=rows), rounds, aim=aim if count > 1 else None)
        for part, whole, aim in (("all", STARTER, 1.3), ("upper", UPPER, 2.2))
        for count in (1, 4)
    ]
    return [*small, replace(refilled, aim=None), *large]


def list_memory(*, quick: bool, tiny: bool) -> list[Case]:
    """Of what the memory is measured, over one epoch."""
    if tiny:
        return [Case(MICRO, "all", 2, TINY, rounds=1)]
    step = replace(STARTER, rows=8, epochs=1)
    small = [
        Case(shape, "all", count, Work(4, (24, 40), 1, 1, 1e-3, BRIEF), rounds=1)
        for shape in SMALL.values()
        for count in (1, 8, 64)
    ]
    large = [
        Case(None, "all", count, step, rounds=1) for count in ((4,) if quick else (1, 4, 16, 64))
    ]
    return small + large


def measure_memory(cases: Sequence[Case], options: argparse.Namespace) -> dict[str, Figures]:
    """Each side in a process of its own, which has loaded the base and nothing else."""
    found: dict[str, Figures] = {}
    for case in cases:
        say(f"{case.name}: memory")
        figures = {side: _grow_apart(case, side, options) for side in ("engine", "reference")}
        found[case.name] = figures["engine"] | {
            "reference_grown_mib": figures["reference"]["grown_mib"]
        }
    return found


def _grow_apart(case: Case, side: str, options: argparse.Namespace) -> Figures:
    command = [sys.executable, str(Path(__file__).resolve()), "--grow", case.name, "--side", side]
    command += [f"--{name}" for name in ("quick", "tiny") if getattr(options, name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def grow(case: Case, side: str) -> Figures:
    """How much a case makes this process grow; of the reference one organism is trained."""
    base = open_base(case.shape)
    jobs = make_jobs(base, case.work, case.organisms)
    import peft  # noqa: F401  # loaded on both sides, so that neither grows by it

    if side == "reference":
        growth = measure_growth(partial(train_all, ReferenceTrainer(), jobs[:1], base), base)
        return {"grown_mib": growth.grown / 2**20}
    plan = plan_training(base, jobs, slots=case.organisms, tokens=CPU_LIMITS.tokens)
    engine = EngineTrainer(TrainingResources(slots=case.organisms))
    growth = measure_growth(partial(train_all, engine, jobs, base), base)
    planned = plan.peak - plan.resident
    return {
        "grown_mib": growth.grown / 2**20,
        "planned_mib": planned / 2**20,
        "peak_gib": growth.peak / 2**30,
        "planned_over_peak": (growth.before + planned) / growth.peak,
    }


def measure_precision(shape: BaseShape, work: Work) -> Figures:
    """Distances of one organism to plain peft in double precision: what fp32 itself loses."""
    base, wide = make_base(shape), widen(make_base(shape))
    (job,) = make_jobs(base, work, 1)
    engine, reference = EngineTrainer(TrainingResources(slots=1)), ReferenceTrainer()
    truth = train_all(reference, [job], wide).states[job.organism_id]
    first = first_state(job, wide)

    def measure(trainer: Trainer, on: Base) -> float:
        return measure_distance(train_all(trainer, [job], on).states[job.organism_id], truth, first)

    return {
        "engine_to_double": measure(engine, base),
        "reference_to_double": measure(reference, base),
        "double_engine_to_double": measure(engine, wide),
    }


MEMORY: Sequence[Column] = (
    ("engine grows MiB", "grown_mib", "{:,.0f}"),
    ("planned MiB", "planned_mib", "{:,.0f}"),
    ("peak GiB", "peak_gib", "{:.2f}"),
    ("plan/peak", "planned_over_peak", "{:.2f}"),
    ("one by peft grows MiB", "reference_grown_mib", "{:,.0f}"),
)
PRECISION: Sequence[Column] = (
    ("engine fp32", "engine_to_double", "{:.1e}"),
    ("peft fp32", "reference_to_double", "{:.1e}"),
    ("engine fp64", "double_engine_to_double", "{:.1e}"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where the two sides do not agree."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("engine", "reference"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    quiet_libraries()
    memory_cases = list_memory(quick=options.quick, tiny=options.tiny)
    if options.grow:
        (case,) = (case for case in memory_cases if case.name == options.grow)
        print(json.dumps(grow(case, options.side)))
        return 0
    cases = list_cases(quick=options.quick, tiny=options.tiny)
    setting = Setting(make_product(256 if options.tiny else 2048), open_base)
    found = measure_cases("engine", cases, setting, options)
    assert cases[0].shape is not None
    precision = {cases[0].base: measure_precision(cases[0].shape, cases[0].work)}
    memory = measure_memory(memory_cases, options)
    tables = [
        *training_tables(found),
        make_table("Memory of a fresh process", memory, MEMORY),
        make_table("One organism, from plain peft in double", precision, PRECISION),
    ]
    everything = found | {f"memory {name}": one for name, one in memory.items()}
    everything |= {f"precision {name}": one for name, one in precision.items()}
    finish("engine", everything, tables, options)
    for fault in list_lost(found):
        print(f"not measured: {fault}")
    apart = list_apart(found)
    if apart:
        print(f"engine and peft differ by more than {CONTRACT}: {', '.join(apart)}")
    return 1 if apart or list_lost(found) else 0


if __name__ == "__main__":
    sys.exit(main())
