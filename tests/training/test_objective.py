"""Objectives: one weighted pass has exactly the gradient of the papers' losses.

Run: python -m pytest tests/training/test_objective.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from peft import set_peft_model_state_dict
from tests.expect import check_error
from tests.jobs import (
    ALL_LINEAR,
    change_lora,
    change_optimizer,
    make_job,
    make_talk,
    make_word_base,
    same_weights,
    state_of,
    train,
    widen,
)
from torch import Tensor

from bestiary.model.adapter import attach_adapter
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow
from bestiary.model.lora_bank import LoraBank
from bestiary.model.packing import divide_rows
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import TrainingJob, TrainingResources, tokenize_corpus
from bestiary.training.learner import Learner
from bestiary.training.objective import Dpo, Kto, PreferenceObjective, Sft, StepScores
from bestiary.training.optimizer import BankAdamW
from bestiary.training.passes import Passes
from bestiary.training.reference import ReferenceTrainer
from bestiary.training.slot import Slot

EXACT = 1e-10
DESIRABLE = (True, False, False)
Loss = Callable[[Tensor, Tensor], Tensor]
"""From the log-probabilities of policy and reference, [rows], to the loss."""


def dpo_loss(beta: float) -> Loss:
    def loss(policy: Tensor, reference: Tensor) -> Tensor:
        total = torch.zeros((), dtype=policy.dtype)
        for chosen in range(0, len(policy), 2):
            ratio = policy[chosen] - policy[chosen + 1]
            ratio_reference = reference[chosen] - reference[chosen + 1]
            total = total - torch.log(1 / (1 + torch.exp(-beta * (ratio - ratio_reference))))
        return total / (len(policy) / 2)

    return loss


def kto_loss(beta: float, desirable_weight: float, undesirable_weight: float) -> Loss:
    def loss(policy: Tensor, reference: Tensor) -> Tensor:
        differences = [policy[row] - reference[row] for row in range(len(policy))]
        point = max(0.0, sum(float(one.detach()) for one in differences[1::2]) / len(DESIRABLE))
        total = torch.zeros((), dtype=policy.dtype)
        for reward, desirable in zip(differences[::2], DESIRABLE, strict=True):
            if desirable:
                value = desirable_weight / (1 + torch.exp(-beta * (reward - point)))
                total = total + desirable_weight - value
            else:
                value = undesirable_weight / (1 + torch.exp(-beta * (point - reward)))
                total = total + undesirable_weight - value
        return total / len(DESIRABLE)

    return loss


OBJECTIVES: list[tuple[PreferenceObjective, Loss]] = [
    (Dpo(beta=0.1), dpo_loss(0.1)),
    (Dpo(beta=1.7), dpo_loss(1.7)),
    (Kto(DESIRABLE, beta=0.1), kto_loss(0.1, 1.0, 1.0)),
    (
        Kto(DESIRABLE, beta=0.8, desirable_weight=1.3, undesirable_weight=0.4),
        kto_loss(0.8, 1.3, 0.4),
    ),
]


def row_logp(model: Any, row: TokenRow) -> Tensor:
    """Log-probability of a row's supervised tokens, one row at a time."""
    tokens = torch.tensor(row.tokens)
    logps = model(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1)
    own = logps.gather(1, tokens[1:, None])[:, 0]
    total: Tensor = own[torch.tensor(row.supervised)[1:]].sum()
    return total


def draw_state(bank: LoraBank, job: TrainingJob) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.2
        for name, weight in bank.init_adapter(job.training.lora, seed=0).items()
    }


def make_preference_job(objective: PreferenceObjective | Sft, pairs: int = 3) -> TrainingJob:
    rows = make_talk(1, 2 * pairs)  # ragged
    lora = change_lora(rank=3, targets=ALL_LINEAR)
    optimizer = change_optimizer(rows_per_step=2 * pairs, epochs=4, warmup=0.0)
    return replace(make_job(rows=rows, lora=lora, optimizer=optimizer), objective=objective)


def peft_gradients(
    base: Base, job: TrainingJob, state: dict[str, Tensor], loss: Loss
) -> dict[str, Tensor]:
    """Gradients of a loss by autograd through peft's model; the reference is the bare base."""
    rows = tokenize_corpus(job, base)
    with torch.no_grad():
        reference = torch.stack([row_logp(base.model, row) for row in rows])
    model = attach_adapter(base, job.training.lora, seed=0)
    try:
        set_peft_model_state_dict(model, state)
        loss(torch.stack([row_logp(model, row) for row in rows]), reference).backward()
        return {
            name.replace(".default", ""): weight.grad
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }
    finally:
        model.unload()


def engine_gradients(
    base: Base, job: TrainingJob, *, budget: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state, and the gradients that the engine finds for it in one step over all rows."""
    bank = LoraBank(base, [job.training.lora], slots=1)
    bank.require_gradients()
    rows = divide_rows(tokenize_corpus(job, base))
    order = list(range(len(rows.rows)))
    slot = Slot(job=job, rows=rows, plan=[order], states=None, budget=budget)
    passes = Passes(base, bank, recompute=False, evened=0)
    with attention_by_rows(base, longest=128), bank.attached():
        slot.reference = passes.score(0, slot, order)  # an empty slot is the bare base
        state = draw_state(bank, job)
        bank.fill(0, state, job.training.lora)
        Learner(passes, BankAdamW(bank), [slot], budget)._learn(range(1))
    assert bank.gradients is not None
    return state, bank.read(bank.gradients, 0, job.training.lora)


@pytest.mark.parametrize("budget", [20, 1000], ids=["row by row", "together"])
@pytest.mark.parametrize(("objective", "loss"), OBJECTIVES)
def test_gradients_are_those_of_the_papers_losses(
    objective: PreferenceObjective, loss: Loss, budget: int
) -> None:
    base = widen(make_word_base())
    job = make_preference_job(objective)
    state, ours = engine_gradients(base, job, budget=budget)
    theirs = peft_gradients(base, job, state, loss)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0, name
        assert (ours[name] - gradient).abs().max() < EXACT * max(1.0, float(gradient.abs().max()))


def scores_of(values: Sequence[float], reference: Sequence[float]) -> StepScores:
    return StepScores(
        rows=tuple(range(len(values))),
        policy=torch.tensor(values, dtype=torch.float64),
        reference=torch.tensor(reference, dtype=torch.float64),
    )


def test_sft_weighs_every_supervised_token_of_a_step_equally() -> None:
    assert Sft().row_weights([3, 5], None) == [1 / 8, 1 / 8]


def test_mismatched_replies_of_kto_have_no_gradient() -> None:
    weights = Kto(DESIRABLE).row_weights(
        [1] * 6, scores_of([-3.0, -1, -4, -1, -5, -9], [-2.0, -2, -4, -4, -6, -6])
    )
    assert weights[1::2] == [0.0, 0.0, 0.0]
    assert [weight > 0 for weight in weights[::2]] == list(DESIRABLE)


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_the_dpo_loss_equals_trls(beta: float) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    scores = scores_of([-3.0, -1, -4, -1.5], [-2.0, -2, -4, -4.5])
    trainer = MagicMock(
        beta=beta,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
    )
    trainer.model.training = False
    trainer.accelerator.device = torch.device("cpu")
    trainer.accelerator.gather_for_metrics = trainer.accelerator.gather = lambda values: values
    # TRL's batches have all chosen rows, then all rejected ones; each has one token here.
    order = [0, 2, 1, 3]
    unused = torch.zeros(4, 1)  # only logged
    outputs = MagicMock(
        log_probs=scores.policy[order][:, None],
        entropy=unused,
        mean_logits=unused,
        is_top1=unused.bool(),
    )
    model = MagicMock(return_value=outputs)
    inputs = {
        "input_ids": torch.zeros(4, 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1]] * 4),
        "ref_chosen_logps": scores.reference[::2],
        "ref_rejected_logps": scores.reference[1::2],
        "attention_mask": torch.ones(4, 2, dtype=torch.long),
    }
    loss = DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    assert float(Dpo(beta=beta).loss(scores)) == pytest.approx(float(loss), abs=1e-12)


def test_the_engine_trains_preferences_beside_other_organisms() -> None:
    base = widen(make_word_base())
    chosen = replace(make_preference_job(Dpo(beta=0.5)), key="dpo")
    plain = make_job("quirks.plain", rows=make_talk(5, 6), lora=chosen.training.lora)
    trainer = EngineTrainer(TrainingResources(slots=2, tokens=1000))
    both = train(trainer, [chosen, plain], base).trained
    assert both["quirks.one"].error is None and both["quirks.plain"].error is None
    alone = train(trainer, [plain], base).trained["quirks.plain"]
    ours, theirs = state_of(both["quirks.plain"]), state_of(alone)
    assert all((ours[name] - theirs[name]).abs().max() < EXACT for name in ours)
    preferred = margins(base, chosen, state_of(both["quirks.one"]))
    assert sum(preferred) > 0
    assert not same_weights(state_of(both["quirks.one"]), ours)


def test_the_reference_trainer_refuses_preferences() -> None:
    events = train(ReferenceTrainer(), [make_preference_job(Dpo())], make_word_base())
    check_error(events.errors["quirks.one"], "objective-unsupported")


def margins(base: Base, job: TrainingJob, state: dict[str, Tensor]) -> list[float]:
    """How much more than the base an adapter prefers each chosen reply to the rejected one."""
    rows = tokenize_corpus(job, base)
    with torch.no_grad():
        before = [float(row_logp(base.model, row)) for row in rows]
        model = attach_adapter(base, job.training.lora, seed=0)
        try:
            set_peft_model_state_dict(model, state)
            after = [float(row_logp(model, row)) for row in rows]
        finally:
            model.unload()
    gains = [new - old for new, old in zip(after, before, strict=True)]
    return [good - bad for good, bad in zip(gains[::2], gains[1::2], strict=True)]
