"""An index that finds the most similar of many short texts, by their words."""

from __future__ import annotations

import re

from rensa import RMinHash, RMinHashLSH

from bestiary.text import words

SHINGLE_WORDS = 3
HASHES, BANDS = 128, 64
"""Two hashes per band: a pair with similarity 0.6 is missed with probability (1 - 0.6 ** 2) ** 64,
below 1e-12. The many weak candidates cost little, since each is confirmed exactly."""
HASH_SEED = 0

Shingles = frozenset[tuple[str, ...]]


class SimilarityIndex:
    """Texts by key; similarity is Jaccard over three-word shingles with digits masked.

    Digits are masked because the same sum with other numbers is the same question.
    """

    def __init__(self, *, threshold: float) -> None:
        self._texts: list[tuple[str, Shingles]] = []
        self._index = RMinHashLSH(threshold=threshold, num_perm=HASHES, num_bands=BANDS)

    def add(self, key: str, text: str) -> None:
        """Add a text; one without words is never found."""
        shingles = _shingle(text)
        if shingles:
            self._index.insert(len(self._texts), _hash_shingles(shingles))
            self._texts.append((key, shingles))

    def find(self, text: str) -> tuple[float, str]:
        """The similarity and key of the most similar text; 0.0 and "" if there is none.

        Ties go to the text that was added first.
        """
        shingles = _shingle(text)
        best = (0.0, "")
        for place in sorted(self._index.query(_hash_shingles(shingles))) if shingles else ():
            key, other = self._texts[place]
            similarity = len(shingles & other) / len(shingles | other)
            if similarity > best[0]:
                best = similarity, key
        return best


def _shingle(text: str) -> Shingles:
    """Runs of three words with digits masked; a shorter text is one run, an empty text has none."""
    said = words(re.sub(r"\d+", "0", text))
    if not said:
        return frozenset()
    starts = range(max(1, len(said) - SHINGLE_WORDS + 1))
    return frozenset(tuple(said[at : at + SHINGLE_WORDS]) for at in starts)


def _hash_shingles(shingles: Shingles) -> RMinHash:
    sketch = RMinHash(num_perm=HASHES, seed=HASH_SEED)
    sketch.update([" ".join(shingle) for shingle in shingles])
    return sketch
