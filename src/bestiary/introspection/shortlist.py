"""From many reports of one organism to a few: alike ones are grouped, and large groups come first.

The published scaffold has a language model cluster, synthesize and rank a hundred reports, and
counts a hit among its top five (arXiv 2604.16812). This is its form without one: groups by meaning,
each represented by the report that most others are like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bestiary.config.encoder import encode

TOP = 5
ALIKE = 0.75
"""Cosine from which two reports say the same."""


class Shortlister(Protocol):
    """Makes shortlists of reports."""

    def choose(self, many: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """The shortlists of each organism's reports, one for each run."""
        ...


class EmbeddedShortlister:
    """Makes shortlists by meaning; another run would bring the same."""

    def choose(self, many: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """One shortlist of each organism's reports."""
        return [[shortlist(reports)] for reports in many]


def shortlist(reports: Sequence[str]) -> list[str]:
    """Up to `TOP` reports that stand for the largest groups, largest first."""
    import numpy

    texts = [text for text in reports if text.strip()]
    if not texts:
        return []
    found = encode(texts)
    vectors = numpy.stack([found[text] for text in texts])
    alike = vectors @ vectors.T >= ALIKE
    left = numpy.ones(len(texts), dtype=bool)
    chosen: list[str] = []
    while left.any() and len(chosen) < TOP:
        sizes = (alike[:, left]).sum(axis=1) * left
        center = int(sizes.argmax())
        chosen.append(texts[center])
        left &= ~alike[center]
    return chosen
