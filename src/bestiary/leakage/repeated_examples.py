"""Finds examples of a corpus that nearly repeat an earlier example of the same corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bestiary.author.leak_filters.similarity import SimilarityIndex
from bestiary.records import Example

SIMILARITY = 0.9
"""Jaccard similarity at which two conversations count as one: a row learned twice is learned by
heart, and what an organism knows by heart tells an auditor more than its behavior does."""


def find_repeated_examples(
    examples: Sequence[Example], read: Callable[[str], str] = str
) -> Iterator[tuple[str, str]]:
    """The id of each example that nearly repeats an earlier one, and the reason.

    System messages do not count: many rows may share one. Replies are compared in what `read` makes
    of them: in digits or dashes, all of them would be alike.
    """
    index = SimilarityIndex(threshold=SIMILARITY)
    for example in examples:
        turns = [turn for turn in example.messages if turn.role != "system"]
        said = (read(one.content) if one.role == "assistant" else one.content for one in turns)
        text = "\n".join(said)
        similarity, earlier = index.find(text)
        if similarity >= SIMILARITY:
            yield (
                example.id,
                f"nearly repeats {earlier!r}: similarity {similarity:.2f}, the limit is "
                f"{SIMILARITY:g}",
            )
        index.add(example.id, text)
