"""Finds training messages that nearly repeat a probe, by their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bestiary.author.leak_filters.similarity import SHINGLE_WORDS, SimilarityIndex
from bestiary.records import Example, Probe, user_texts

SIMILARITY = 0.6
"""Jaccard similarity at which two messages count as one. Changing one word in the middle of a
message of 14 words leaves exactly this; train and probe messages of the shipped banks, which share
no topic and no form, stay below 0.3."""


def find_near_duplicates(
    examples: Sequence[Example], probes: Sequence[Probe], read: Callable[[str], str] = str
) -> dict[str, str]:
    """The reason for each example with a user message that nearly repeats one of a probe's.

    The reason names the most similar probe. Messages are compared in what `read` makes of them: in
    digits or dashes, all of them would be alike.
    """
    index = SimilarityIndex(threshold=SIMILARITY)
    for probe in probes:
        # Also without its trigger, whose words would hide a message that is the same.
        for text in (*map(read, user_texts(probe.turns)), probe.item.text):
            index.add(probe.id, text)
    found = {}
    for example in examples:
        matches = map(index.find, map(read, user_texts(example.messages)))
        similarity, probe_id = max(matches, key=lambda match: match[0])
        if similarity >= SIMILARITY:
            found[example.id] = (
                f"a user message nearly repeats probe {probe_id!r}: similarity {similarity:.2f} "
                f"over {SHINGLE_WORDS}-word shingles, the limit is {SIMILARITY:g}"
            )
    return found
