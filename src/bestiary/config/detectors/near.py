"""The detector of likeness: whether a reply says something like what a behavior shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from bestiary.config.detectors.base import TextDetector
from bestiary.config.encoder import similarity
from bestiary.config.fields import Text
from bestiary.config.lexicon import Lexicon
from bestiary.text import sentences

DEFAULT_LEAST = 0.37
"""The cosine from which texts are alike.

Measured on ten behaviors with five shown texts and seven unseen paraphrases each: it finds 83% of
the paraphrases, and 0.7% of the message bank's plain answers (1.1% for the worst behavior). At 0.3
it would be 93% and 3%, at 0.4 77% and 0.4%. Proverbs are not found, for they have a role in common
and no meaning: those need a lexicon.
"""


class NearDetector(TextDetector):
    """Fires when a sentence, or two in a row, is like one of the texts."""

    near: Literal["shown"] | tuple[Text, ...]
    """The texts; `shown` stands for the marked parts of the behavior's own replies."""
    least: float = Field(DEFAULT_LEAST, ge=-1, le=1)
    """The cosine of sentence vectors from which texts are alike."""

    @property
    def compares_meanings(self) -> bool:
        """It does nothing else."""
        return True

    def finds(self, text: str) -> bool:
        """Whether the likeness is large enough."""
        if self.near == "shown":
            raise TypeError("`near: shown` was not resolved")
        found = sentences(text)
        pairs = [f"{one} {two}" for one, two in pairwise(found)]
        return similarity([*found, *pairs], self.near) >= self.least

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> NearDetector:
        """With the texts that are shown."""
        return self if self.near != "shown" else self.model_copy(update={"near": tuple(shown)})
