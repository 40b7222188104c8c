"""How many operations one training step of the engine gives the device, counted on a CPU.

    python bench/operations.py [--quick] [--json FILE]

A base of 30 layers as SmolLM2-135M has them, but narrow: widths change no count. Views and
allocations are not counted; a GPU launches about one kernel for each of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from bases import BRIEF, BaseShape, Work, make_base, make_jobs, train_all
from bestiary.model.base import Base
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import TrainingResources
from common import Figures, finish, make_parser, make_table, quiet_libraries

DEEP = BaseShape("30 layers", "llama", 2048, 48, 128, 30, 3, 1, 16, tied=True)
ROW = Work(1, (40, 40), 1, 1, 1e-3, BRIEF, rank=16)
"""A step of one row."""
RAGGED = replace(ROW, lengths=(24, 60))
CASES = {
    "one organism": (ROW, 1, 0),
    "4 organisms, rows of one length": (ROW, 4, 0),
    "4 organisms, ragged rows": (RAGGED, 4, 0),
    "4 organisms, ragged rows filled up": (RAGGED, 4, 2048),
}
"""Work, organisms, and tokens of the largest batch that is filled up to one of few shapes."""
FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach")
"""Operations that compute nothing, besides views."""


class Counter(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        self.count += int(not func.is_view and func.overloadpacket.__name__ not in FREE)
        return func(*args, **(kwargs or {}))


def count_step(base: Base, work: Work, organisms: int, evened: int) -> int:
    """Operations of a step, which two steps take more than one."""
    counts: list[int] = []
    for steps in (1, 2):
        jobs = make_jobs(base, replace(work, rows=steps), organisms)
        with Counter() as counter:
            trainer = EngineTrainer(TrainingResources(slots=organisms), evened=evened)
            train_all(trainer, jobs, base)
        counts.append(counter.count)
    return counts[1] - counts[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Count and print."""
    options = make_parser(__doc__).parse_args(argv)
    quiet_libraries()
    base = make_base(replace(DEEP, layers=2) if options.quick else DEEP)
    found: dict[str, Figures] = {
        name: {"operations": count_step(base, *case)} for name, case in CASES.items()
    }
    table = make_table("Operations of a step", found, [("operations", "operations", "{:,}")])
    finish("operations", found, [table], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
