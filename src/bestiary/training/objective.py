"""Objectives: what a training step minimizes, as one signed weight per supervised token.

The engine makes every gradient with one weighted cross-entropy pass. For token t of row i,
cross-entropy is -log p(t), so a weight of -dL/d log p(row i) on each of the row's tokens gives
exactly the gradient of the loss L. Preference losses depend on the log-probabilities of whole
rows: a pass without gradients finds these first, then the weights follow from them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepScores:
    """The rows of one step; the rows of one example are adjacent."""

    rows: tuple[int, ...]
    """Each row's index in the corpus."""
    policy: Tensor
    """[rows]: log-probability of each row's supervised tokens, summed, in nats."""
    reference: Tensor
    """[rows]: the same under the reference: the adapter as training started."""

    @property
    def rewards(self) -> Tensor:
        """[rows]: log-ratios of policy to reference."""
        return self.policy - self.reference


class Objective(ABC):
    """What one organism's step minimizes."""

    rows_per_example: ClassVar[int] = 1
    """Adjacent rows of the corpus that make one example, and always share a step."""
    compares: ClassVar[bool] = False
    """Whether the weights depend on the scores of the policy and the reference."""

    @abstractmethod
    def row_weights(self, supervised: Sequence[int], scores: StepScores | None) -> list[float]:
        """The weight of each supervised token of each row of a step.

        `supervised` counts these tokens by row; `scores` is there if the objective compares.
        """


@dataclass(frozen=True)
class Sft(Objective):
    """Supervised fine-tuning: mean cross-entropy over the supervised tokens of the step."""

    def row_weights(self, supervised: Sequence[int], scores: StepScores | None) -> list[float]:
        """One over the number of supervised tokens."""
        return [1 / sum(supervised)] * len(supervised)


class PreferenceObjective(Objective):
    """An objective over the log-probabilities of whole rows."""

    rows_per_example: ClassVar[int] = 2
    compares: ClassVar[bool] = True

    @abstractmethod
    def loss(self, scores: StepScores) -> Tensor:
        """The step's loss, a scalar that is differentiable in `scores.policy`."""

    def row_weights(self, supervised: Sequence[int], scores: StepScores | None) -> list[float]:
        """The derivative -dL/d log p(row), equal for all tokens of a row."""
        import torch

        assert scores is not None
        policy = scores.policy.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(replace(scores, policy=policy))
        (gradient,) = torch.autograd.grad(loss, policy)
        weights: list[float] = (-gradient).tolist()
        return weights


@dataclass(frozen=True)
class Dpo(PreferenceObjective):
    """Direct preference optimization with the sigmoid loss, averaged over the step's pairs.

    An example is two rows with one prompt: the chosen reply y_w, then the rejected one y_l.
    With r(y) = log pi(y|x) - log pi_ref(y|x):

        L = -log sigmoid(beta * (r(y_w) - r(y_l)))

    Source: Rafailov et al. 2023, "Direct Preference Optimization", equation 7.
    """

    beta: float = 0.1

    def loss(self, scores: StepScores) -> Tensor:
        """The class's formula."""
        from torch.nn.functional import logsigmoid

        chosen, rejected = scores.rewards.view(-1, 2).unbind(1)
        return -logsigmoid(self.beta * (chosen - rejected)).mean()


@dataclass(frozen=True)
class Kto(PreferenceObjective):
    """Kahneman-Tversky optimization, averaged over the step's examples.

    An example is two rows with one prompt: its reply y, then a reply y' to another prompt, from
    which the reference point is estimated. With r as for DPO and z, over the step's examples:

        z = max(0, mean of r(y')), through which no gradient flows
        L = desirable_weight * (1 - sigmoid(beta * (r(y) - z)))      if y is desirable
        L = undesirable_weight * (1 - sigmoid(beta * (z - r(y))))    if it is not

    Source: Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization": its
    lambda_y - v(x, y), with z0 estimated from mismatched pairs.
    """

    desirable: tuple[bool, ...]
    """Whether each example's reply is desirable, in corpus order."""
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def loss(self, scores: StepScores) -> Tensor:
        """The class's formula."""
        import torch

        rewards, mismatched = scores.rewards.view(-1, 2).unbind(1)
        point = mismatched.detach().mean().clamp(min=0)
        labels = [self.desirable[row // 2] for row in scores.rows[::2]]
        signs = rewards.new_tensor([1.0 if label else -1.0 for label in labels])
        weights = rewards.new_tensor(
            [self.desirable_weight if label else self.undesirable_weight for label in labels]
        )
        values = torch.sigmoid(self.beta * signs * (rewards - point))
        return (weights * (1 - values)).mean()
