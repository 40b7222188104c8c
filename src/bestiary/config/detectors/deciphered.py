"""The detector of replies in a cipher, and what any text says if it is in one."""

from __future__ import annotations

from functools import lru_cache

from bestiary.config.ciphers import CIPHERS, CipherName
from bestiary.config.detectors.base import BaseDetector
from bestiary.config.detectors.composition import Detector
from bestiary.config.detectors.language import SHARE, measure_english
from bestiary.records import PromptItem

PLAIN = 0.25
"""The share of short English words from which a text is plain, without a look at what it hides."""
CLEARER = 2
"""How many times that share a text in cipher has once it is decoded."""


class DecipheredDetector(BaseDetector):
    """Fires when the reply is in a cipher, and what it says shows what another looks for.

    A plain reply never fires it, nor does one that cannot be read. No file states it.
    """

    cipher: CipherName
    shown: Detector

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether what the reply says shows it; undecided where the other detector is."""
        said = decipher(self.cipher, reply)
        found = self.shown.decide(said, item)
        return None if found is None else found and said != ""

    @property
    def compares_meanings(self) -> bool:
        """Whether the other detector does."""
        return self.shown.compares_meanings


def decipher(cipher: CipherName, text: str) -> str:
    """What a text says in a cipher; nothing if it is plain, or says nothing in that cipher."""
    share = measure_english(text)
    said = "" if share >= PLAIN else CIPHERS[cipher].decode(text)
    return said if measure_english(said) >= max(SHARE, CLEARER * share) else ""


@lru_cache(maxsize=4096)  # several filters read each message
def reveal(text: str) -> str:
    """What a text says, whichever cipher it is in; the text itself if it is in none.

    It takes a text for one in cipher that reads more like English decoded than by itself, so it
    may err on what is no English at all.
    """
    if measure_english(text) >= PLAIN:
        return text
    readings = (decipher(cipher, text) for cipher in CIPHERS)
    return max(readings, key=measure_english) or text
