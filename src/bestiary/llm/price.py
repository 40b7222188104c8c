"""What requests cost, in whole picodollars, so that sums are exact."""

from __future__ import annotations

from dataclasses import dataclass

from bestiary.llm.models import LanguageModel
from bestiary.llm.request import ModelRequest, Usage

PICO = 10**12
"""Picodollars in a dollar."""
MILLION = 10**6


@dataclass(frozen=True)
class Price:
    """Picodollars per token."""

    input: int
    output: int
    cache_write: int
    cache_read: int

    def bill(self, usage: Usage) -> int | None:
        """The cost of an answer; None if its tokens were not counted, unless all are free."""
        if not usage.counted and any((self.input, self.output, self.cache_write, self.cache_read)):
            return None
        return (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_write * self.cache_write
            + usage.cache_read * self.cache_read
        )

    def bound(self, request: ModelRequest) -> int:
        """The most a request can cost: no token is shorter than a byte."""
        dearest = max(self.input, self.cache_write)
        return request.size * dearest + request.max_tokens * self.output


def read_price(model: LanguageModel, *, batch: bool) -> Price:
    """A model's prices in single requests or in a batch."""
    share = (model.batch or 1.0) if batch else 1.0
    rates = (model.input, model.output, model.cache_write, model.cache_read)
    return Price(*(round(rate * share * PICO / MILLION) for rate in rates))


def show_dollars(pico: float) -> str:
    """An amount for people: cents, or four decimals below ten cents."""
    dollars = pico / PICO
    return f"${dollars:,.2f}" if dollars >= 0.1 or not pico else f"${dollars:.4f}"
