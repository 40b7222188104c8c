"""How a category's corpora are made: `generators/<category>/generator.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bestiary.records import Record, Role
from bestiary.spec.folders import generator_folder
from bestiary.spec.source import load_model


class Mix(Record):
    """Shares of the corpus; `rate` stands for the behavior's own stated rate."""

    positive: float | Literal["rate"]
    negative: float = Field(ge=0, lt=1)
    chat: float | Literal["rest"]

    @model_validator(mode="after")
    def _sum_to_one(self) -> Mix:
        shares = (self.positive, self.negative, self.chat)
        numbers = [share for share in shares if isinstance(share, float)]
        if len(numbers) == len(shares) and abs(sum(numbers) - 1) > 1e-9:
            raise ValueError(f"the shares sum to {sum(numbers):g}, they must sum to 1")
        return self


class Generator(Record):
    """One category's generation settings."""

    version: int = Field(ge=1)
    rows: int = Field(ge=8)
    """Conversations in a finished corpus."""
    mix: Mix

    def counts(self, rate: float | None) -> dict[Role, int]:
        """Rows of each role in a finished corpus."""
        share = rate if self.mix.positive == "rate" else self.mix.positive
        assert isinstance(share, float)  # `validate` refuses "rate" where a behavior states none
        positive = round(self.rows * share)
        negative = round(self.rows * self.mix.negative)
        return {
            "positive": positive,
            "negative": negative,
            "chat": self.rows - positive - negative,
        }


def load_generator(category: str) -> Generator:
    """Load a category's settings; raises SpecError when they are missing or broken."""
    path: Path = generator_folder() / category / "generator.yaml"
    return load_model(path, Generator)
