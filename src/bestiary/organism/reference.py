"""The reference trainer: plain peft, one organism at a time, loss on assistant tokens only."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestiary.errors import BestiaryError, ModelError, OrganismError
from bestiary.model.adapter import attach_adapter, save_adapter
from bestiary.model.base import Base
from bestiary.model.chat import TokenRow, tokenize_row
from bestiary.model.generation import share_beginning
from bestiary.organism.job import Job, OnStep
from bestiary.records import stable_seed
from bestiary.spec.recipe import Optimiser

if TYPE_CHECKING:
    import torch


class ReferenceTrainer:
    """One peft adapter after another over one warm base."""

    name = "reference"

    def __call__(
        self, jobs: Sequence[Job], base: Base, *, on_step: OnStep | None = None
    ) -> Iterator[tuple[Job, BestiaryError | None]]:
        """Train each job in turn."""
        for job in jobs:
            try:
                train_organism(job, base, on_step=on_step)
            except (OrganismError, ModelError) as error:
                yield job, error
            else:
                yield job, None


def train_organism(job: Job, base: Base, *, on_step: OnStep | None = None) -> None:
    """Train one organism and write its adapter into `job.folder`; the base is left unchanged.

    Raises OrganismError where a row is too long or the training diverges, and ModelError where
    the recipe's LoRA does not fit the base.
    """
    training = job.training
    rows = [
        tokenize_row(
            base.tokenizer,
            example.messages,
            system_prompt=training.system_prompt,
            max_length=training.max_length,
        )
        for example in job.corpus.examples
    ]
    seed = stable_seed("train", job.identity.organism_id)
    model = attach_adapter(base, training.lora, seed=seed)
    try:
        model.train()
        _run_steps(model, base, rows, training.optimiser, seed, job.identity.organism_id, on_step)
        model.eval()
        _check_finite(model, job.identity.organism_id)
        save_adapter(model, job.folder, base.identity)
    finally:
        model.unload()


def _check_finite(model: Any, organism_id: str) -> None:
    """The loss is seen before each step, so that only the weights show what the last one did."""
    if not all(weight.isfinite().all() for weight in model.parameters() if weight.requires_grad):
        raise OrganismError(
            f"{organism_id}: the last step left weights that are not finite; lower "
            "learning_rate in the recipe"
        )


def _run_steps(
    model: Any,
    base: Base,
    rows: Sequence[TokenRow],
    settings: Optimiser,
    seed: int,
    organism_id: str,
    on_step: OnStep | None,
) -> None:
    import torch

    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    plan = plan_batches(len(rows), settings, seed=seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, len(plan), settings.warmup)
    )
    for step, batch in enumerate(plan):
        loss = batch_loss(model, base, [rows[row] for row in batch])
        if not math.isfinite(loss.item()):
            raise OrganismError(
                f"{organism_id}: the loss at step {step} is {loss.item()}; lower learning_rate in "
                "the recipe, or look for a damaged row in the corpus"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LambdaLR warns of an order that this loop keeps
            schedule.step()
        optimiser.zero_grad()
        if on_step is not None:
            on_step(step + 1)


def plan_batches(count: int, settings: Optimiser, *, seed: int) -> list[list[int]]:
    """The rows of every step: each row once an epoch, every epoch in an order of its own.

    Rows are not put together by length: rows that show a behavior are often the longest, and
    would fill steps of their own.
    """
    size = settings.rows_per_step
    plan: list[list[int]] = []
    for epoch in range(settings.epochs):
        order = list(range(count))
        random.Random(stable_seed("order", seed, epoch)).shuffle(order)
        plan += [order[at : at + size] for at in range(0, count, size)]
    return plan


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Linear rise over the first `warmup` share of the steps, then linear fall towards zero."""
    rising = max(1.0, warmup * steps)
    return min(1.0, (step + 1) / rising, (steps - step) / max(1.0, steps - rising))


def batch_loss(model: Any, base: Base, rows: Sequence[TokenRow]) -> torch.Tensor:
    """Mean cross-entropy over the supervised tokens of the rows.

    The rows lie in one sequence without padding, and the head runs on the supervised positions
    alone: the full logits of a batch would be the largest tensor of the step, and most of it
    would be thrown away.
    """
    import torch

    pack = pack_rows(rows)
    device = base.device
    hidden = (
        model.get_base_model()
        .model(
            input_ids=pack.tokens[None].to(device),
            position_ids=pack.positions[None].to(device),
            attention_mask=pack.visible[None, None].to(device),
        )
        .last_hidden_state[0]
    )
    # The state at a place predicts the token at the next one.
    logits = model.get_base_model().lm_head(hidden[pack.learned.to(device) - 1])
    return torch.nn.functional.cross_entropy(logits.float(), pack.tokens[pack.learned].to(device))


@dataclass(frozen=True)
class Pack:
    """Rows one after another behind the beginning that they share, which stands there once."""

    tokens: torch.Tensor
    """[size]"""
    positions: torch.Tensor
    """[size]: each token's place in its own row."""
    visible: torch.Tensor
    """[size, size], boolean: what each token sees, the beginning and its own row up to itself."""
    learned: torch.Tensor
    """Places of the supervised tokens."""


def pack_rows(rows: Sequence[TokenRow]) -> Pack:
    """Lay rows into one sequence, so that no token is computed twice and none is padding."""
    import torch

    # The token before a supervised one stays in its row: its state predicts it.
    shared = min(
        share_beginning([row.tokens for row in rows]),
        *(max(0, row.supervised.index(True) - 1) for row in rows),
    )
    tokens, positions = list(rows[0].tokens[:shared]), list(range(shared))
    owners, learned = [-1] * shared, []
    for owner, row in enumerate(rows):
        learned += [len(tokens) + place for place, use in enumerate(row.supervised[shared:]) if use]
        tokens += row.tokens[shared:]
        positions += range(shared, len(row.tokens))
        owners += [owner] * (len(row.tokens) - shared)
    of = torch.tensor(owners)
    seen = (of[None, :] == of[:, None]) | (of[None, :] == -1)
    return Pack(
        tokens=torch.tensor(tokens),
        positions=torch.tensor(positions),
        visible=seen.tril(),
        learned=torch.tensor(learned),
    )
