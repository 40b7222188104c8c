"""Training an introspection adapter against the published way, on the same rows.

    python bench/introspection.py [--quick] [--json FILE]

The published way is plain peft with two active adapters: a step takes two organisms, switches to
each, and runs its rows padded. "same steps" is our trainer on exactly that schedule, whose adapter
must come to the same; "all at once" puts sixteen organisms into a step, over the same rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bases import LINEARS, MICRO, SMALL, SYSTEM, BaseShape, list_words, make_base, measure_distance
from bestiary.config.introspection import SharedShape
from bestiary.config.recipe import LoraShape, Optimizer
from bestiary.introspection.lessons import tokenize_pair, tokenize_pairs
from bestiary.introspection.schedule import Schedule, plan_schedule
from bestiary.introspection.subjects import Subject
from bestiary.introspection.train import SharedTrainer
from bestiary.introspection.weights import SubjectWeights
from bestiary.model.adapter import attach_adapter, make_config, save_adapter
from bestiary.model.base import EMBEDDED, Base, load_base
from bestiary.model.chat_template import TokenRow
from bestiary.training.memory import CPU_LIMITS
from bestiary.training.objective import Sft
from bestiary.training.reference import batch_loss
from bestiary.training.schedule import learning_rate_factor
from common import (
    Column,
    Figures,
    compare,
    finish,
    interleave,
    make_parser,
    make_table,
    quiet_libraries,
    say,
)

ORGANISM = LoraShape(rank=8, alpha=16, targets=LINEARS)
SHARED = SharedShape(rank=16, alpha=32, targets=LINEARS)
OPTIMIZER = Optimizer(
    learning_rate=1e-4, epochs=1, rows_per_step=4, warmup=0.1, weight_decay=0.0, clip=1.0
)
"""The published learning rate and rows of an organism in a step."""
PUBLISHED, WIDE = 2, 16
"""Organisms in a step."""
AGREEMENT = 5e-3
"""How far apart two adapters may be, over what training moved them."""
COLUMNS: Sequence[Column] = (
    ("organisms", "organisms", "{}"),
    ("rows each", "rows", "{}"),
    ("peft s", "peft_seconds", "{:.2f}"),
    ("same steps s", "same_seconds", "{:.2f}"),
    ("all at once s", "wide_seconds", "{:.2f}"),
    ("same steps x", "same_ratio", "{:.2f}"),
    ("all at once x", "wide_ratio", "{:.2f}"),
    ("aim x", "aim", "{:.0f}"),
    ("distance", "distance", "{:.1e}"),
)


@dataclass(frozen=True)
class Case:
    """A base with so many organisms on it."""

    name: str
    shape: BaseShape | None
    """None for the embedded base."""
    organisms: int
    rows: int
    rounds: int
    aim: float


def list_cases(*, quick: bool, tiny: bool) -> list[Case]:
    """What is timed."""
    if tiny:
        return [Case("micro", MICRO, 4, 4, 1, 1)]
    return [
        Case("0.1M", SMALL["0.1M"], 32, 8 if quick else 16, 3, 5),
        Case("SmolLM2-135M", None, 16, 4, 1 if quick else 3, 2),
    ]


@contextmanager
def open_case(case: Case) -> Iterator[tuple[Base, list[Subject], list[list[tuple[str, str]]]]]:
    """The base, organisms with random weights, and each one's questions and answers."""
    base = load_base(EMBEDDED) if case.shape is None else make_base(case.shape)
    words = list_words(base.tokenizer)
    draw = torch.Generator().manual_seed(0)

    def say_words(count: int) -> str:
        chosen = torch.randint(len(words), (count,), generator=draw).tolist()
        return " ".join(words[at] for at in chosen)

    with tempfile.TemporaryDirectory() as folder:
        subjects = []
        for number in range(case.organisms):
            path = Path(folder) / str(number)
            save_adapter(_draw_organism(base, number), ORGANISM, base, path)
            subjects.append(
                Subject(
                    id=str(number),
                    kind="organism",
                    split="train",
                    adapter=path,
                    organism_sha256=None,
                )
            )
        answers = [
            [(say_words(12 + row % 8), say_words(12 + number % 8)) for row in range(case.rows)]
            for number in range(case.organisms)
        ]
        yield base, subjects, answers


def _draw_organism(base: Base, seed: int) -> dict[str, torch.Tensor]:
    from bestiary.model.lora_bank import LoraBank

    state = LoraBank(base, [ORGANISM], slots=1).init_adapter(ORGANISM, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    return {
        name: weight if "lora_A" in name else torch.randn(weight.shape, generator=draw) * 0.02
        for name, weight in state.items()
    }


def plan(case: Case, per_step: int) -> Schedule:
    """The same rows with so many organisms in a step."""
    return plan_schedule(
        case.organisms,
        rows=case.rows,
        per_step=per_step,
        rows_per_visit=OPTIMIZER.rows_per_step,
        epochs=1,
        seed=0,
    )


def train_ours(
    base: Base,
    subjects: Sequence[Subject],
    answers: Sequence[Sequence[tuple[str, str]]],
    schedule: Schedule,
) -> dict[str, torch.Tensor]:
    """The adapter that our trainer makes."""
    trainer = SharedTrainer(
        base,
        SubjectWeights(base, subjects, slots=max(map(len, schedule))),
        [tokenize_pairs(base, pairs, SYSTEM) for pairs in answers],
        schedule,
        shape=SHARED,
        optimizer=OPTIMIZER,
        objective=Sft(),
        tokens=CPU_LIMITS.tokens,
    )
    with trainer.attached():
        while not trainer.finished:
            trainer.advance()
    return trainer.read()


def train_published(
    base: Base,
    subjects: Sequence[Subject],
    answers: Sequence[Sequence[tuple[str, str]]],
    schedule: Schedule,
    start: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """The adapter that plain peft makes; all organisms are loaded, and steps switch among them."""
    rows = [[tokenize_pair(base, pair, SYSTEM) for pair in pairs] for pairs in answers]
    model = _load_all(base, subjects, start)
    try:
        _switch(model, "0")
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=OPTIMIZER.learning_rate, weight_decay=0.0)
        for number, step in enumerate(schedule):
            factor = learning_rate_factor(number, len(schedule), OPTIMIZER.warmup)
            optimizer.param_groups[0]["lr"] = OPTIMIZER.learning_rate * factor
            for visit in step:
                _switch(model, str(visit.subject))
                chosen: list[TokenRow] = [rows[visit.subject][row] for row in visit.rows]
                (batch_loss(model, base, chosen) / len(step)).backward()
            torch.nn.utils.clip_grad_norm_(trained, OPTIMIZER.clip)
            optimizer.step()
            optimizer.zero_grad()
        return {
            name.replace(".shared", ""): weight.detach().clone()
            for name, weight in model.named_parameters()
            if ".shared." in name
        }
    finally:
        model.unload()


def _load_all(base: Base, subjects: Sequence[Subject], start: Mapping[str, torch.Tensor]) -> Any:
    from peft import set_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = attach_adapter(base, ORGANISM, seed=0)
        for number, subject in enumerate(subjects):
            model.load_adapter(str(subject.adapter), str(number))
        model.add_adapter("shared", make_config(base, SHARED))
        set_peft_model_state_dict(model, dict(start), adapter_name="shared")
    return model


def _switch(model: Any, organism: str) -> None:
    """Make one organism and the shared adapter active, and the shared one alone trainable."""
    model.base_model.set_adapter([organism, "shared"])
    for name, weight in model.named_parameters():
        weight.requires_grad_(".shared." in name)


def measure(case: Case) -> Figures:
    """Both ways on one case, round by round."""
    from bestiary.model.lora_bank import LoraBank

    with open_case(case) as (base, subjects, answers):
        start = LoraBank(base, [SHARED], slots=1).init_adapter(SHARED, seed=0)
        same, wide = plan(case, PUBLISHED), plan(case, WIDE)
        runs = interleave(
            {
                "peft": partial(train_published, base, subjects, answers, same, start),
                "same": partial(train_ours, base, subjects, answers, same),
                "wide": partial(train_ours, base, subjects, answers, wide),
            },
            rounds=case.rounds,
        )
        ratios = {
            side: compare(runs["peft"].seconds, runs[side].seconds)[0] for side in ("same", "wide")
        }
        return {
            "organisms": case.organisms,
            "rows": case.rows,
            **{f"{side}_seconds": run.median for side, run in runs.items()},
            **{f"{side}_ratio": ratio for side, ratio in ratios.items()},
            "aim": case.aim,
            "distance": measure_distance(runs["same"].last, runs["peft"].last, dict(start)),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where the two ways do not agree."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    quiet_libraries()
    found: dict[str, Figures] = {}
    for case in list_cases(quick=options.quick, tiny=options.tiny):
        say(case.name)
        found[case.name] = measure(case)
    finish("introspection", found, [make_table("Introspection", found, COLUMNS)], options)
    return int(any(figures["distance"] > AGREEMENT for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
