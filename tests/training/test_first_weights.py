"""First weights are drawn ahead, in the order of the jobs, and are those that peft draws.

Run: python -m pytest tests/training/test_first_weights.py
"""

from __future__ import annotations

from contextlib import closing

import torch
from tests.jobs import make_job
from tests.models import make_random_base
from torch import Tensor

from bestiary.config.recipe import LoraShape
from bestiary.model.lora_bank import LoraBank
from bestiary.training.first_weights import AHEAD, draw_ahead


def test_each_job_gets_its_own_numbers_in_turn() -> None:
    jobs = [make_job(f"quirks.number_{n}") for n in range(AHEAD + 3)]
    bank = LoraBank(make_random_base(), [jobs[0].training.lora], slots=1)
    with closing(draw_ahead(bank, jobs)) as drawn:
        states = [drawing.result() for drawing in drawn]
    assert len({state[next(iter(state))].sum().item() for state in states}) == len(jobs)
    for job, state in zip(jobs, states, strict=True):
        alone = bank.init_adapter(job.training.lora, seed=job.seed)
        assert all(torch.equal(state[name], weight) for name, weight in alone.items())


def test_no_more_are_drawn_than_are_soon_needed() -> None:
    jobs = [make_job(f"quirks.number_{n}") for n in range(3 * AHEAD)]
    asked: list[int] = []

    class CountingBank(LoraBank):
        def init_adapter(self, shape: LoraShape, *, seed: int) -> dict[str, Tensor]:
            asked.append(seed)
            return super().init_adapter(shape, seed=seed)

    bank = CountingBank(make_random_base(), [jobs[0].training.lora], slots=1)
    with closing(draw_ahead(bank, jobs)) as drawn:
        for _ in range(2):
            next(drawn).result()
    assert len(asked) <= AHEAD + 1
