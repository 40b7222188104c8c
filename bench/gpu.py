"""Training and replies on one GPU: against its matrix products, and plain peft one by one.

    python bench/gpu.py [--quick] [--case NAME] [--json FILE] [--minutes 9]
    python bench/gpu.py --tiny          # tiny shapes on a CPU, to see that every line runs

Random weights in the shapes of Qwen3-8B, Qwen3-0.6B, and SmolLM2-135M: a bf16 base, fp32
adapters of rank 16 on every linear module, rows of which a third is supervised; and the replies
of 64 organisms in the last shape. `bench/training.py` and `bench/generation.py` say what stands
side by side. Past the minutes nothing more is begun; what was left out is named, and figures are
written after every case. A second run with the same file measures what is missing there, unless
the code or the device has changed. Without a GPU nothing is measured and the exit code is 2.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from bases import SYSTEM, BaseShape, Work, make_base
from bestiary.model.base import Base
from common import Figures, describe_machine, finish, make_parser, quiet_libraries, say
from generation import SPREAD, replies_table
from generation import Case as AskedCase
from limits import make_product
from training import (
    Case,
    Measurable,
    Setting,
    list_lost,
    measure_cases,
    memory_table,
    training_tables,
)

MINUTES = 9.0
RESERVE = 90.0
"""Seconds before the end in which nothing more is begun."""
QWEN3_8B = BaseShape("Qwen3-8B", "qwen3", 151936, 4096, 12288, 36, 32, 8, 128)
QWEN3_06B = BaseShape("Qwen3-0.6B", "qwen3", 151936, 1024, 3072, 28, 16, 8, 128, tied=True)
SMOLLM2 = BaseShape("SmolLM2-135M's shape", "llama", 49152, 576, 1536, 30, 9, 3, 64, tied=True)
TINY = (
    BaseShape("tiny-8B", "qwen3", 128, 32, 64, 2, 4, 2, 8),
    BaseShape("tiny-0.6B", "qwen3", 128, 16, 32, 2, 2, 1, 8, tied=True),
)
WIDE = Work(64, (128, 128), 8, 1, 1e-3, SYSTEM, rank=16)
"""Eight steps of 1,024 tokens."""
BRIEF_STEPS = replace(WIDE, rows=48, rows_per_step=2)
"""24 steps of 256 tokens: the second is recorded, which later ones have to pay back."""
RAGGED = replace(WIDE, lengths=(64, 192))
CORPUS = replace(BRIEF_STEPS, rows=200, epochs=3)
"""Of one whole organism."""


def list_cases(*, quick: bool, tiny: bool) -> list[Measurable]:
    """What is measured, base after base, the most important first of each."""
    if tiny:
        work = replace(BRIEF_STEPS, rows=4, lengths=(32, 32))
        learned = [Case(shape, "256-token steps", 2, work, 1, tokens=256) for shape in TINY]
        return [*learned, AskedCase(TINY[-1], 2, 2, rounds=1, new_tokens=6, raced=1)]
    rounds = 2 if quick else 3
    large = [
        Case(QWEN3_8B, part, count, work, rounds, tokens=4096, raced=1, aim_share=share)
        for part, count, work, share in (
            ("4k-token steps", 4, WIDE, 0.65),
            ("4k-token steps, ragged", 4, RAGGED, 0.65),
            ("1k-token steps", 1, WIDE, None),
            ("4k-token steps", 16, WIDE, 0.65),
        )
    ]
    small = [
        Case(QWEN3_06B, "256-token steps", count, BRIEF_STEPS, rounds, tokens=16384, raced=4)
        for count in (1, 4, 16, 64)
    ]
    raced = Case(
        QWEN3_06B, "256-token steps", 32, BRIEF_STEPS, rounds, tokens=16384, raced=8, aim=10.0
    )
    whole = Case(QWEN3_06B, "whole corpora", 32, CORPUS, 1, tokens=16384, raced=1)
    embedded = [
        Case(SMOLLM2, part, count, work, rounds, tokens=16384, raced=4)
        for part, count, work in (
            ("256-token steps", 64, BRIEF_STEPS),
            ("256-token steps, ragged", 64, replace(BRIEF_STEPS, lengths=RAGGED.lengths)),
            ("256-token steps", 1, BRIEF_STEPS),
        )
    ]
    asked = [
        AskedCase(SMOLLM2, organisms, prompts, rounds, new_tokens=40, raced=2)
        for organisms, prompts in ((64, 64), (1, 64))
    ]
    return [*large, raced, whole, *small, *embedded, *asked]


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[Measurable]]:
    """The arguments, and the cases that they choose."""
    parser = make_parser(__doc__)
    named = "\n  ".join(case.name for case in list_cases(quick=False, tiny=False))
    parser.epilog = f"cases:\n  {named}"
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a CPU too")
    parser.add_argument("--case", action="append", metavar="NAME", help="this one only; repeatable")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long it may take")
    options = parser.parse_args(argv)
    cases = list_cases(quick=options.quick, tiny=options.tiny)
    unknown = set(options.case or ()) - {case.name for case in cases}
    if unknown:
        parser.error(f"no case {sorted(unknown)}; there are {[case.name for case in cases]}")
    return options, [case for case in cases if not options.case or case.name in options.case]


def read_known(options: argparse.Namespace) -> dict[str, Figures]:
    """Cases that an earlier run has written to the same file, by the same code and device."""
    if not (options.json and options.json.is_file()):
        return {}
    whole = json.loads(options.json.read_text(encoding="utf8"))
    machine = describe_machine()
    for name, now, then in (
        ("commit", machine.commit, whole["machine"]["commit"]),
        ("device", machine.gpu or machine.cpu, whole["machine"]["gpu"] or whole["machine"]["cpu"]),
        ("--quick", options.quick, whole["settings"]["quick"]),
        ("--tiny", options.tiny, whole["settings"]["tiny"]),
    ):
        if now != then:
            say(f"{name} was {then} and is {now} now, so this begins anew: {options.json}")
            return {}
    figures: dict[str, Figures] = whole["figures"]
    return {name: one for name, one in figures.items() if "not_measured" not in one}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on the GPU, or say that there is none."""
    options, cases = parse(argv)
    cuda = torch.cuda.is_available()
    if not (cuda or options.tiny):
        print("no GPU here, so nothing was measured; --tiny runs every line on a CPU")
        return 2
    quiet_libraries()
    device = "cuda" if cuda else "cpu"

    def open_base(shape: BaseShape | None) -> Base:
        assert shape is not None
        spread = SPREAD if shape is SMOLLM2 else 1
        return make_base(shape, device=device, dtype=torch.bfloat16, spread=spread)

    product = make_product(
        64 if options.tiny else 8192, device=device, dtype=torch.bfloat16, times=20
    )
    end = math.inf if options.tiny else time.monotonic() + 60 * options.minutes - RESERVE
    setting = Setting(product, open_base, end)
    found = measure_cases("gpu", cases, setting, options, known=read_known(options))
    answered = {name: one for name, one in found.items() if "bank_seconds" in one}
    trained = {name: one for name, one in found.items() if name not in answered}
    tables = [
        *training_tables(trained),
        memory_table(trained),
        replies_table(answered, "greedy, in bf16"),
    ]
    finish("gpu", found, tables, options)
    for fault in list_lost(found):
        print(f"not measured: {fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
