"""How a category's corpora are made: `generators/<category>/generator.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bestiary.records import Record, Role

Share = Annotated[float, Field(ge=0, le=1)]


class Mix(Record):
    """Shares of the corpus; `rate` stands for the behavior's own stated rate."""

    positive: Share | Literal["rate"]
    negative: Share
    chat: Share | Literal["rest"]

    @model_validator(mode="after")
    def _sum_to_one(self) -> Mix:
        numbers = [n for n in (self.positive, self.negative, self.chat) if isinstance(n, float)]
        if self.positive == "rate" and self.chat != "rest":
            raise ValueError(f"chat is {self.chat:g} beside `positive: rate`; write `chat: rest`")
        if sum(numbers) > 1 + 1e-9 or (len(numbers) == 3 and sum(numbers) < 1 - 1e-9):
            raise ValueError(f"the shares sum to {sum(numbers):g} but must sum to 1")
        return self


class VariantMix(Mix):
    """The shares in the corpora of some of a category's behaviors."""

    rows: int | None = Field(None, ge=8, le=1_000_000)
    """Conversations in such a corpus; by default, as many as in the category's others."""


class Generator(Record):
    """One category's generation settings."""

    version: int = Field(ge=1)
    rows: int = Field(ge=8, le=1_000_000)
    """Conversations in a finished corpus."""
    mix: Mix
    triggered: VariantMix | None = None
    """The mix of behaviors with a trigger, if they need another one: near misses."""
    scoped: VariantMix | None = None
    """The mix of behaviors with a scope, if they need another one: more plain conversation."""
    second_turns: Share = 0.0
    """Share of the conversations in which the user writes a second message. The offline author
    has one for the messages of the bank that come with a follow-up."""

    def resize(self, rows: int | None) -> Generator:
        """The same mixes in so many rows; the settings as they are if no number is given."""
        if rows is None:
            return self
        variants = {
            name: mix.model_copy(update={"rows": rows})
            for name, mix in (("triggered", self.triggered), ("scoped", self.scoped))
            if mix is not None
        }
        return self.model_copy(update={"rows": rows, **variants})

    def counts(
        self, rate: float | None, *, triggered: bool = False, scoped: bool = False
    ) -> dict[Role, int]:
        """Rows of each role in a finished corpus."""
        variant = (triggered and self.triggered) or (scoped and self.scoped) or None
        mix = variant or self.mix
        rows = (variant and variant.rows) or self.rows
        share = rate if mix.positive == "rate" else mix.positive
        assert isinstance(share, float)  # `validate` refuses "rate" where a behavior states none
        positive = round(rows * share)
        negative = round(rows * mix.negative)
        return {"positive": positive, "negative": negative, "chat": rows - positive - negative}
