"""The reference trainer: plain peft and transformers, one organism at a time, SFT only."""

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
    TrainingJob,
    TrainResult,
    nonfinite_loss_error,
    nonfinite_weights_error,
    tokenize_corpus,
)
from bestiary.training.schedule import learning_rate_factor

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""torch's label of a token that is not trained on."""


class ReferenceTrainer:
    """Trains one peft adapter at a time over one loaded base."""

    name = "reference"

    def __call__(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | TrainResult]:
        """Train each job in turn."""
        for job in jobs:
            started = time.monotonic()
            try:
                state = yield from train_organism(job, base)
            except (OrganismError, ModelError) as error:
                yield TrainResult(job, time.monotonic() - started, error=error)
            else:
                yield TrainResult(job, time.monotonic() - started, state=state)


def train_organism(job: TrainingJob, base: Base) -> Generator[Step, None, dict[str, torch.Tensor]]:
    """Train one organism; returns its adapter by peft's keys and leaves the base unchanged.

    Raises OrganismError if the objective is not SFT, a row is too long or training diverges, and
    ModelError if the recipe's LoRA shape does not fit the base.
    """
    import torch

    if job.objective.compares:
        raise OrganismError(
            f"{job.organism_id}: the reference trainer supports SFT only",
            "build with --trainer engine",
            code="objective-unsupported",
            organism=job.organism_id,
        )
    rows = tokenize_corpus(job, base)
    settings = job.training.optimizer
    model = attach_adapter(base, job.training.lora, seed=job.seed)
    try:
        parameters = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        plan = job.plan
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, len(plan), settings.warmup)
        )
        for step, batch in enumerate(plan):
            loss = batch_loss(model, base, [rows[row] for row in batch])
            if not math.isfinite(loss.item()):
                raise nonfinite_loss_error(job, step, loss=loss.item())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # LambdaLR warns about an order that this loop follows
                schedule.step()
            optimizer.zero_grad()
            yield Step(job, step + 1)
        if not all(weight.isfinite().all() for weight in parameters):
            raise nonfinite_weights_error(job)
        return {name: weight.detach().clone() for name, weight in read_state(model).items()}
    finally:
        model.unload()


def batch_loss(model: Any, base: Base, rows: Sequence[TokenRow]) -> torch.Tensor:
    """Mean cross-entropy over the supervised tokens of right-padded rows."""
    import torch

    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, IGNORED)
    for index, row in enumerate(rows):
        size = len(row.tokens)
        tokens[index, :size] = torch.tensor(row.tokens)
        mask[index, :size] = 1
        learned = torch.tensor(row.supervised)
        labels[index, :size][learned] = tokens[index, :size][learned]
    device = base.device
    logits = model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits[:, :-1]
    wide = logits.float() if logits.dtype.itemsize < 4 else logits
    return torch.nn.functional.cross_entropy(
        wide.flatten(0, 1), labels[:, 1:].flatten().to(device), ignore_index=IGNORED
    )
