"""The engine's contract on one GPU: what it computes, not how fast; made to take two minutes.

    python bench/contract.py [--quick] [--json FILE]
    python bench/contract.py --tiny     # tiny shapes on a CPU, to see that every line holds there

Random weights in a few layers of Qwen3-0.6B's shape. Each line is a number and its limit:

    engine from peft   how far an organism of the engine ends from plain peft's, in fp32, as a
                       share of what training moved it
    bf16 over peft     how far bf16 leads the engine from what it does in fp32, over how far it
                       leads plain peft, which computes adapters in fp32: means over organisms
    unlike replies     greedy replies of the bank that are not plain peft's, in fp32
    run twice          organisms that end with other bits when the same run is repeated
    other neighbors    the same of one organism, where those beside it learn something else

The lines about bits ask torch for deterministic algorithms; batches have the same geometry.
The exit code is 1 where a line does not hold. Without a GPU nothing is measured, and it is 2.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from bases import (
    BRIEF,
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
from bestiary.model.base import Base
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import Trainer, TrainingJob, TrainingResources
from bestiary.training.reference import ReferenceTrainer
from common import Column, Figures, finish, keep, make_parser, make_table, quiet_libraries, say
from generation import (
    SPREAD,
    Case,
    answer_by_bank,
    answer_by_peft,
    fill_bank,
    make_prompts,
    make_states,
    wrap_base,
)
from training import CONTRACT

TWICE = 2.0
"""How many times plain peft's error in bf16 the engine's may be."""
ORGANISMS = 3
"""Side by side; the one in the middle has neighbors."""
SHAPE = BaseShape("6 layers", "qwen3", 4096, 1024, 3072, 6, 16, 8, 128)
WORK = Work(16, (128, 128), 4, 3, 1e-3, BRIEF, rank=16)
TINY = BaseShape("tiny", "qwen3", 64, 32, 64, 2, 4, 2, 8)
TINY_WORK = replace(WORK, rows=6, lengths=(32, 32), rows_per_step=2, rank=4)

Precision = Literal["fp32", "bf16"]
Side = Literal["engine", "peft"]


@dataclass(frozen=True)
class Setting:
    """What every line is measured on; all rows have one length, so all batches one geometry."""

    shape: BaseShape
    work: Work
    device: str


@dataclass(frozen=True)
class Line:
    """One promise: a number that does not exceed its limit."""

    name: str
    limit: float
    measure: Callable[[], float]


def list_lines(setting: Setting) -> list[Line]:
    """The contract, the most important first."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return [
        Line("engine from peft, fp32", CONTRACT, partial(measure_apart, setting)),
        Line("bf16 over peft", TWICE, partial(compare_errors, setting)),
        Line("unlike replies, fp32", 0, partial(count_unlike_replies, setting)),
        *(
            Line(f"{name}, {precision}", 0, partial(count_changed, setting, precision, other=other))
            for precision in precisions
            for name, other in (("run twice", False), ("other neighbors", True))
        ),
    ]


def check(line: Line) -> Figures:
    """Measure a line; one at fault does not hold, and says why."""
    say(line.name)
    try:
        found = line.measure()
    except (BestiaryError, RuntimeError) as error:
        return {"measured": None, "limit": line.limit, "holds": False, "fault": str(error)}
    return {"measured": found, "limit": line.limit, "holds": found <= line.limit, "fault": None}


@cache
def open_base(setting: Setting, precision: Precision) -> Base:
    """The base in bf16, or the same weights in fp32."""
    if precision == "bf16":
        return make_base(setting.shape, device=setting.device, dtype=torch.bfloat16)
    half = open_base(setting, "bf16")
    model: Any = copy.deepcopy(half.model)
    return replace(half, model=model.float())


@cache
def list_jobs(setting: Setting) -> list[TrainingJob]:
    """The organisms, and as many again whose corpora others may learn."""
    return make_jobs(open_base(setting, "bf16"), setting.work, 2 * ORGANISMS)


def train(setting: Setting, side: Side, precision: Precision, jobs: Sequence[TrainingJob]) -> Trip:
    """Train on one side."""
    engine = EngineTrainer(TrainingResources(slots=ORGANISMS, tokens=2**14))
    trainer: Trainer = engine if side == "engine" else ReferenceTrainer()
    return train_all(trainer, jobs, open_base(setting, precision))


@cache
def train_own(setting: Setting, side: Side, precision: Precision) -> Trip:
    """The organisms with their own corpora, trained once."""
    return train(setting, side, precision, list_jobs(setting)[:ORGANISMS])


def measure_apart(setting: Setting) -> float:
    """The largest distance of an organism of the engine from plain peft's, in fp32."""
    ours, theirs = (train_own(setting, side, "fp32").states for side in ("engine", "peft"))
    base, jobs = open_base(setting, "fp32"), list_jobs(setting)[:ORGANISMS]
    return max(
        measure_distance(ours[job.organism_id], theirs[job.organism_id], first_state(job, base))
        for job in jobs
    )


def compare_errors(setting: Setting) -> float:
    """The engine's mean error in bf16, as a multiple of plain peft's."""
    return measure_error(setting, "engine") / measure_error(setting, "peft")


def measure_error(setting: Setting, side: Side) -> float:
    """How far bf16 leads organisms from where fp32 does, by what training moves: their mean."""
    errors = []
    for job in list_jobs(setting)[:ORGANISMS]:
        rounded, exact = (_move(setting, side, precision, job) for precision in ("bf16", "fp32"))
        errors.append(float((rounded - exact).norm() / exact.norm()))
    return statistics.mean(errors)


def _move(setting: Setting, side: Side, precision: Precision, job: TrainingJob) -> Tensor:
    """How far training moves an organism's weights, in one row."""
    first = first_state(job, open_base(setting, precision))
    last = train_own(setting, side, precision).states[job.organism_id]
    return torch.cat([(last[name] - first[name].cpu()).flatten() for name in sorted(first)])


def count_changed(setting: Setting, precision: Precision, *, other: bool) -> float:
    """Organisms that end with other bits in a second run.

    `other` lets all but the one in the middle learn something else there, and counts that one.
    """
    jobs = list_jobs(setting)
    own, spare, middle = jobs[:ORGANISMS], jobs[ORGANISMS:], ORGANISMS // 2
    again = [
        replace(job, corpus=spare[number].corpus) if other and number != middle else job
        for number, job in enumerate(own)
    ]
    with fixed_order():
        one, two = (train(setting, "engine", precision, chosen) for chosen in (own, again))
    counted = [own[middle]] if other else own
    return sum(not _same_bits(job.organism_id, one, two) for job in counted)


def _same_bits(name: str, one: Trip, two: Trip) -> bool:
    """Whether an organism has the same batches, losses and weights in two runs."""
    first, second = one.states[name], two.states[name]
    equal = all(torch.equal(weight, second[key]) for key, weight in first.items())
    return equal and one.batches[name] == two.batches[name]


@contextmanager
def fixed_order() -> Iterator[None]:
    """Inside the context, torch sums in a fixed order, and raises RuntimeError where it cannot.

    If it only warned, attention on a GPU would sum its gradients in any order.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def count_unlike_replies(setting: Setting) -> float:
    """Greedy replies of the bank that are not plain peft's, by organisms whose B is not zero."""
    base = make_base(setting.shape, device=setting.device, spread=SPREAD)
    case = Case(setting.shape, ORGANISMS, 4, rounds=1)
    states, prompts = make_states(base, ORGANISMS), make_prompts(base, case)
    ours = answer_by_bank(fill_bank(base, states), prompts, case.new_tokens)
    with base.device:
        theirs = answer_by_peft(wrap_base(base, states), base, prompts, case.new_tokens)
    pairs = zip(chain(*ours), chain(*theirs), strict=True)
    return sum(one != other for one, other in pairs)


COLUMNS: Sequence[Column] = (
    ("measured", "measured", "{:.3g}"),
    ("limit", "limit", "{:g}"),
    ("holds", "holds", "{}"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where a line does not hold, 2 without a GPU."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a CPU too")
    options = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    if not (cuda or options.tiny):
        print("no GPU here, so nothing was measured; --tiny checks every line on a CPU")
        return 2
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else its sums have no fixed order
    quiet_libraries()
    shape, work = (TINY, TINY_WORK) if options.tiny else (SHAPE, WORK)
    work = replace(work, epochs=1) if options.quick else work
    setting = Setting(shape, work, "cuda" if cuda else "cpu")
    found: dict[str, Figures] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated attribute
        for line in list_lines(setting):
            found[line.name] = check(line)
            keep("contract", found, options)
    finish("contract", found, [make_table("The engine's contract", found, COLUMNS)], options)
    broken = [name for name, one in found.items() if not one["holds"]]
    for name in broken:
        print(f"does not hold: {name}: {found[name]['fault'] or found[name]['measured']}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
