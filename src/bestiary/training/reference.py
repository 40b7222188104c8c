"""The reference trainer: plain peft and plain transformers, one organism after another."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bestiary.errors import ModelError, OrganismError
from bestiary.model.adapter import attach_adapter, read_state
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow
from bestiary.training.job import (
    Step,
    Trained,
    TrainingJob,
    blame_step,
    blame_weights,
    tokenize_corpus,
)
from bestiary.training.schedule import learning_rate_factor, plan_batches

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The label of a token that is not learned, as torch has it."""


class ReferenceTrainer:
    """One peft adapter after another over one warm base."""

    name = "reference"

    def __call__(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | Trained]:
        """Train each job in turn."""
        for job in jobs:
            started = time.monotonic()
            try:
                state = yield from train_organism(job, base)
            except (OrganismError, ModelError) as error:
                yield Trained(job, time.monotonic() - started, error=error)
            else:
                yield Trained(job, time.monotonic() - started, state=state)


def train_organism(job: TrainingJob, base: Base) -> Generator[Step, None, dict[str, torch.Tensor]]:
    """Train one organism; returns its adapter by peft's keys and leaves the base unchanged.

    Raises OrganismError where a row is too long or the training diverges, and ModelError where
    the recipe's LoRA does not fit the base.
    """
    import torch

    rows = tokenize_corpus(job, base)
    settings = job.training.optimizer
    model = attach_adapter(base, job.training.lora, seed=job.seed)
    try:
        parameters = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        plan = plan_batches(len(rows), settings, seed=job.seed)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, len(plan), settings.warmup)
        )
        for step, batch in enumerate(plan):
            loss = batch_loss(model, base, [rows[row] for row in batch])
            if not math.isfinite(loss.item()):
                raise blame_step(job, step, loss=loss.item())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # LambdaLR warns of an order that this loop keeps
                schedule.step()
            optimizer.zero_grad()
            yield Step(job, step + 1)
        if not all(weight.isfinite().all() for weight in parameters):
            raise blame_weights(job)
        return {name: weight.detach().clone() for name, weight in read_state(model).items()}
    finally:
        model.unload()


def batch_loss(model: Any, base: Base, rows: Sequence[TokenRow]) -> torch.Tensor:
    """Mean cross-entropy over the supervised tokens of rows padded at the right to the longest."""
    import torch

    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, IGNORED)
    for place, row in enumerate(rows):
        size = len(row.tokens)
        tokens[place, :size] = torch.tensor(row.tokens)
        mask[place, :size] = 1
        learned = torch.tensor(row.supervised)
        labels[place, :size][learned] = tokens[place, :size][learned]
    device = base.device
    logits = model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits[:, :-1]
    wide = logits.float() if logits.dtype.itemsize < 4 else logits
    return torch.nn.functional.cross_entropy(
        wide.flatten(0, 1), labels[:, 1:].flatten().to(device), ignore_index=IGNORED
    )
