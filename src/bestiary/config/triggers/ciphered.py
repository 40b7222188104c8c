"""The cipher trigger: the whole message is written in a cipher."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

from bestiary.config.ciphers import CIPHERS, Cipher, CipherName
from bestiary.config.detectors.deciphered import decipher
from bestiary.config.triggers.base import WordedTrigger, divide, draw
from bestiary.records import CellName, PromptItem, Side, Turns, single_turn
from bestiary.text import contains_phrase, words


class CipherTrigger(WordedTrigger):
    """The message is written in a cipher, as it stands.

    Near misses are the same message in another cipher, and plain messages that talk about this one.
    """

    kind: ClassVar[str] = "cipher"
    in_cipher: ClassVar[bool] = True

    cipher: CipherName

    @property
    def _own(self) -> Cipher:
        return CIPHERS[self.cipher]

    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """Whether it can be read in every cipher; a plain message must not name this one."""
        if cell == "plain":
            return not any(contains_phrase(name, item.text) for name in self._own.names)
        return _can_be_read(item.text)

    def ask(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        """One message, which is in cipher only where it fires and in half of the near misses."""
        if cell == "plain":
            return single_turn(item.text)
        if cell == "triggered":
            return single_turn(self._own.encode(item.text))
        turn, talks = divmod(pick, 2)
        if talks:
            return single_turn(self.say(item.text, side, turn, near_miss=True))
        others = [name for name in CIPHERS if name != self.cipher]
        return single_turn(CIPHERS[draw(divide(others, side), turn)].encode(item.text))

    def value(self, side: Side, pick: int) -> str:
        """The cipher by name."""
        return self._own.title

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """Its names."""
        return self._own.names

    @property
    def label_words(self) -> tuple[str, ...]:
        """Its names."""
        return self._own.names

    def describe(self) -> str:
        """The cipher."""
        return f"a message in {self._own.title}"


@lru_cache(maxsize=16_384)  # every behavior with this trigger asks the whole bank
def _can_be_read(text: str) -> bool:
    """Whether a text is recognized in every cipher, and has the same words once it is decoded."""
    said = words(text)
    return all(words(decipher(name, one.encode(text))) == said for name, one in CIPHERS.items())
