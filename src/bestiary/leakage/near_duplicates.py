"""Finds training messages that nearly repeat a probe, by their words; subject: corpus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from rensa import RMinHash, RMinHashLSH

from bestiary.records import Example, Finding, Probe
from bestiary.text import words

CHECK: Final = "near_duplicates"
SUBJECT: Final[Literal["corpus"]] = "corpus"

SIMILARITY = 0.6
"""Jaccard similarity from which two messages are one: a changed word in the middle of a message
of 14 words leaves exactly this, while train and probe rows of the shipped banks, which share no
topic and no form, stay below 0.3."""
SHINGLE_WORDS = 3

HASHES, BANDS = 128, 64
"""Two hashes a band: a pair at the threshold is missed with probability (1 - 0.6 ** 2) ** 64,
below 1e-12. The many weak candidates cost little, since each is confirmed exactly."""
HASH_SEED = 0

Shingles = frozenset[tuple[str, ...]]


def find_near_duplicates(examples: Sequence[Example], probes: Sequence[Probe]) -> list[Finding]:
    """One finding for each example with a user message that nearly repeats a probe's.

    The reason names the most similar probe. Numbers count as equal: a sum with other digits is
    the same question.
    """
    known = [(probe, _shingle(probe.user)) for probe in probes]
    index = RMinHashLSH(threshold=SIMILARITY, num_perm=HASHES, num_bands=BANDS)
    for key, (_, shingles) in enumerate(known):
        if shingles:
            index.insert(key, _hash_shingles(shingles))
    findings = []
    for example in examples:
        candidates = _find_candidates(example, index, known)
        # The first of equally similar probes is named, so that reruns give the same reason.
        similarity, probe = max(candidates, key=lambda found: found[0], default=(0.0, None))
        if probe is not None and similarity >= SIMILARITY:
            findings.append(_describe(example, probe, similarity))
    return findings


def _find_candidates(
    example: Example, index: RMinHashLSH, known: Sequence[tuple[Probe, Shingles]]
) -> Iterator[tuple[float, Probe | None]]:
    """Probes that may repeat one of the example's user messages, with their exact similarity."""
    for message in example.messages:
        shingles = _shingle(message.content)
        if message.role == "user" and shingles:
            for key in sorted(index.query(_hash_shingles(shingles))):
                probe, other = known[key]
                yield len(shingles & other) / len(shingles | other), probe


def _describe(example: Example, probe: Probe, similarity: float) -> Finding:
    reason = (
        f"a user message nearly repeats probe {probe.id!r}: similarity {similarity:.2f} over "
        f"{SHINGLE_WORDS}-word shingles, allowed below {SIMILARITY:g}"
    )
    return Finding(check=CHECK, subject=SUBJECT, item=example.id, reason=reason)


def _shingle(text: str) -> Shingles:
    """Runs of three words with digits masked; a shorter text is one run, an empty one has none."""
    said = words(re.sub(r"\d+", "0", text))
    if not said:
        return frozenset()
    starts = range(max(1, len(said) - SHINGLE_WORDS + 1))
    return frozenset(tuple(said[at : at + SHINGLE_WORDS]) for at in starts)


def _hash_shingles(shingles: Shingles) -> RMinHash:
    sketch = RMinHash(num_perm=HASHES, seed=HASH_SEED)
    sketch.update([" ".join(shingle) for shingle in shingles])
    return sketch
