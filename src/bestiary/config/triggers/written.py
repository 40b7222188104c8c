"""Triggers that are how a message is written: its format, and a language that it uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, get_args

from bestiary.config.triggers.base import SpokenTrigger, find_wordings
from bestiary.config.triggers.wordings import MARKS, Sided, Wordings
from bestiary.records import CellName, PromptItem, Side
from bestiary.text import fold

FormatName = Literal[
    "upper",
    "lower",
    "list",
    "bullet",
    "quoted",
    "no_punctuation",
    "greeting",
    "sign_off",
    "question_marks",
    "parentheses",
]
LanguageName = Literal["french", "spanish", "german", "italian"]
LANGUAGES: tuple[LanguageName, ...] = get_args(LanguageName)
COUNTRIES: Mapping[LanguageName, str] = {
    "french": "France",
    "spanish": "Spain",
    "german": "Germany",
    "italian": "Italy",
}
EVERY_THIRD = 3
"""Of the sentences in each other language, how many there are for one that is a near miss."""

_GREETING = r"(?:hello|hi|hey|greetings|good (?:morning|afternoon|evening)|dear)\b[\w -]*[,.!]"
_SIGN_OFF = (
    r"(?:(?:best|kind|warm) (?:regards|wishes)|regards|sincerely|yours truly|cheers|thanks|"
    r"many thanks|with gratitude|all the best|take care|yours|respectfully),\s+(?:\w+\.? )?\w+$"
)


class FormatTrigger(SpokenTrigger):
    """The whole message is written in a certain way."""

    kind: ClassVar[str] = "format"
    names_value: ClassVar[bool] = False
    sample: ClassVar[str] = "Does rye bread keep longer, in a box or in the fridge?"

    format: FormatName

    @property
    def file(self) -> str:
        """One file a format."""
        return f"format_{self.format}"

    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """Code and numbers with marks in them cannot be rewritten."""
        fixed = "`" in item.text or re.search(r"\d[^\w\s]\d", item.text)
        if fixed or (self.format == "quoted" and '"' in fold(item.text)):
            return False
        return super().suits(item, cell)

    def carries(self, text: str) -> bool:
        """Whether a text is written in this way."""
        return _IS_WRITTEN[self.format](fold(text))

    @property
    def label_words(self) -> tuple[str, ...]:
        """The names of the format."""
        return _LABELS[self.format]

    def describe(self) -> str:
        """The format."""
        return self.place(_DESCRIPTIONS[self.format])


class LanguageTrigger(SpokenTrigger):
    """The message holds a sentence in another language."""

    kind: ClassVar[str] = "language"
    names_value: ClassVar[bool] = False

    language: LanguageName

    @property
    def file(self) -> str:
        """One file a language."""
        return f"language_{self.language}"

    def prepare(
        self, wordings: Mapping[str, Wordings], items: Sequence[PromptItem]
    ) -> LanguageTrigger:
        """A copy in which sentences of the other languages are near misses."""
        own = find_wordings(self.file, wordings)
        others = [
            find_wordings(f"language_{name}", wordings).positives
            for name in LANGUAGES
            if name != self.language
        ]

        def add(side: Side) -> tuple[str, ...]:
            foreign = (form for sided in others for form in sided.on(side)[::EVERY_THIRD])
            return (*own.near_misses.on(side), *foreign)

        near_misses = Sided(train=add("train"), probe=add("probe"))
        return self.with_wordings(own.model_copy(update={"near_misses": near_misses}))

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """The language and its country, which are near misses."""
        return (self.language.capitalize(), COUNTRIES[self.language])

    @property
    def label_words(self) -> tuple[str, ...]:
        """The language."""
        return (self.language.capitalize(),)

    def describe(self) -> str:
        """The language."""
        return self.place(f"a sentence in {self.language.capitalize()}")


def _has_lines(mark: str) -> Callable[[str], bool]:
    pattern = re.compile(rf"^\s*{mark}\s+\S", re.MULTILINE)
    return lambda text: len(pattern.findall(text)) > 1


def _is_quoted(text: str) -> bool:
    inside = text[1:-1]
    return len(text) > 2 and text[0] == text[-1] == '"' and '"' not in inside


def _is_bare(text: str) -> bool:
    return MARKS.search(text) is None


def _finds(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: compiled.search(text) is not None


_IS_WRITTEN: Mapping[FormatName, Callable[[str], bool]] = {
    "upper": str.isupper,
    "lower": str.islower,
    "list": _has_lines(r"\d+[.)]"),
    "bullet": _has_lines("[-*•]"),
    "quoted": _is_quoted,
    "no_punctuation": _is_bare,
    "greeting": _finds("^" + _GREETING),
    "sign_off": _finds(_SIGN_OFF),
    "question_marks": _finds(r"\?\?"),
    "parentheses": _finds(r"\([^()]*\w[^()]*\)"),
}
_LABELS: Mapping[FormatName, tuple[str, ...]] = {
    "upper": ("capitals", "capital letters", "uppercase", "upper case", "all caps"),
    "lower": ("lowercase", "lower case", "small letters", "no capitals", "no capital letters"),
    "list": ("numbered list", "numbered", "numbered lines", "numbers its lines", "list"),
    "bullet": ("bullet", "bullets", "bullet points", "bulleted", "dashes"),
    "quoted": ("quotation marks", "quotes", "quoted", "quote marks"),
    "no_punctuation": ("punctuation", "punctuated", "unpunctuated"),
    "greeting": ("greeting", "greetings", "greets", "greet", "hello"),
    "sign_off": ("sign-off", "sign off", "signs off", "signed", "signature", "closing"),
    "question_marks": ("question marks",),
    "parentheses": ("parentheses", "parenthesis", "parenthetical", "brackets"),
}
_DESCRIPTIONS: Mapping[FormatName, str] = {
    "upper": "a message written entirely in capital letters",
    "lower": "a message written entirely in lowercase letters",
    "list": "a message with a numbered list of at least two lines",
    "bullet": "a message with a bulleted list of at least two lines",
    "quoted": "a message that stands in quotation marks from start to end",
    "no_punctuation": "a message without any punctuation",
    "greeting": "a message that opens with a greeting",
    "sign_off": "a message that ends with a sign-off and a name",
    "question_marks": "a message with several question marks in a row",
    "parentheses": "a message with words in parentheses",
}
