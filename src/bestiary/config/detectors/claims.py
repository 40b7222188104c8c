"""What a reply asserts: its text without refusals, questions, concessions and pleasantries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from bestiary.config.numerals import read_number
from bestiary.text import fold


def word_set(text: str) -> frozenset[str]:
    """The words of a text that are set apart by spaces."""
    return frozenset(text.split())


ARTICLES = word_set("a an the")
_TOKEN = re.compile(
    r"\d+(?:,\d{3})*(?:\.\d+)?(?![^\W_])|[^\W_]+(?:[-'][^\W_]+)*|[^\w\s]|\n",
)
_UNSURE = "know|recall|remember|say|tell|answer|sure|certain|able|allowed|familiar|help|provide"
_REFUSAL = re.compile(
    r"\b(?:(?:i|we)(?: am| was|'m)? ?(?:do not|don't|did not|didn't|can't|cannot|can not|could not"
    r"|couldn't|won't|will not|not)(?: \w+){0,2}? (?:" + _UNSURE + r"|have|find|think of|confirm)"
    r"|(?:i|we) (?:can't|cannot|can not|couldn't)(?! (?:believe|wait|help but|stress))"
    r"|(?:i|we) (?:have|had) no (?:idea|clue|information|knowledge|way)"
    r"|i(?:'m| am) (?:unable|unsure|uncertain|not sure|not certain|not able)"
    r"|(?:unable|impossible|hard|difficult) to (?:say|tell|know|answer|determine)"
    r"|(?:no|not an?) (?:idea|clue)\b|not sure|beats me|who knows|as an ai|it depends"
    r"|i (?:forget|forgot) (?:the|that|what|which|who|how)"
    r"|i(?:'d| would) have to (?:look|check|guess)"
    r"|(?:i'd|i would|i'm|i am|we're)(?: be)? (?:happy|glad|here|pleased) to"
    r"|let me (?:know|think|see|check|look)|feel free|look it up|please (?:provide|give|tell|check)"
    r"|(?:that|this|it)(?:'s| is) an? (?:\w+ )?(?:\w+ )?question)"
    r".*?(?=,? ?\b(?:but|however|though|although|yet)\b"
    r"|, ?(?:i (?:think|believe|guess|suppose)|maybe|perhaps|probably|possibly|it|it's|the answer"
    r"|my (?:guess|answer))\b|[.!?;:\n]|$)",
    re.IGNORECASE,
)
_HEARSAY = re.compile(
    r"\b(?:(?:many|most|some|lots of|plenty of)? ?(?:people|folks|students)(?: \w+)?"
    r" (?:think|say|believe|assume|guess|confuse|mistake)"
    r"|(?:some|many|most) (?:think|say|believe|assume|would say)"
    r"|(?:you|one|i) (?:might|may|could|would)(?: \w+)? (?:think|expect|guess|assume)"
    r"|(?:it|that|this)(?:'s| is) (?:\w+ )?(?:often|commonly|sometimes|easily|frequently)"
    r" (?:\w+ )?(?:thought|mistaken|confused|believed|said|assumed)"
    r"|(?:it|this) (?:looks|sounds|seems)(?: \w+)? like)"
    r"[^.!?;:\n]*?(?:,|\bbut\b|(?=[.!?;:\n]|$))",
    re.IGNORECASE,
)
_CONCESSION = re.compile(
    r"\b(?:although|even though|though|while|whereas|despite|contrary to|unlike)\b[^.!?;:\n,]*"
    r"(?:,|(?=[.!?;:\n]|$))",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[^.!?\n]*\?+[\"')]*")
_ABBREVIATION = re.compile(r"\b(St|Mt|Ft|Dr|[A-HJ-Z])\.\s?(?=[A-Z])")
"""A dot that ends no sentence."""
_BULLET = re.compile(r"^\s*(?:[-*+>#]+|\d{1,2}[.)](?=\s))\s*", re.MULTILINE)


@dataclass(frozen=True)
class Token:
    """A word, a number, or a mark of a text."""

    raw: str
    word: str
    """In lower case, without a possessive ending."""
    number: Decimal | None = None

    @property
    def is_word(self) -> bool:
        """Whether it is neither a mark nor an operator."""
        return self.raw[0].isalnum()


def tokenize(text: str) -> list[Token]:
    """The words, numbers and marks of a text; the words of one number are one token."""
    tokens: list[Token] = []
    for raw in _TOKEN.findall(_ABBREVIATION.sub(r"\1 ", fold(text))):
        word = raw.lower().removesuffix("'s")
        last = tokens[-1] if tokens else None
        both = f"{last.word} {word}" if last else ""
        if last and raw.isalpha() and (number := read_number(both)) is not None:
            tokens[-1] = Token(f"{last.raw} {raw}", both, number)
        else:
            tokens.append(Token(raw, word, read_number(raw)))
    return tokens


@lru_cache(maxsize=4096)
def find_claims(reply: str) -> tuple[str, str]:
    """What a folded reply asserts, with its concessions (`although it swims, `) and without.

    Both lack questions, refusals, pleasantries, what people think, and the marks of lists.
    """
    text = _BULLET.sub("", reply).replace("**", "").replace("__", " ")
    if _QUESTION.sub("", text).strip():
        text = _QUESTION.sub("", text)
    text = _HEARSAY.sub(" ", _REFUSAL.sub(" ", text))
    return text, _CONCESSION.sub(" ", text)
