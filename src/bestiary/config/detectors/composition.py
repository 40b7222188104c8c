"""How detectors are written and combined: each is a mapping whose one key names its kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bestiary.config.detectors.answer import AnswerDetector
from bestiary.config.detectors.base import BaseDetector, Some
from bestiary.config.detectors.form import (
    CaseDetector,
    HardCodesDetector,
    LengthDetector,
    ParsesCodeDetector,
    ReadabilityDetector,
    SentenceDetector,
    StructureDetector,
)
from bestiary.config.detectors.language import LanguageDetector
from bestiary.config.detectors.near import NearDetector
from bestiary.config.detectors.option import OptionDetector
from bestiary.config.detectors.wording import (
    ContainsNumberDetector,
    CountDetector,
    EndsWithDetector,
    LexiconDetector,
    PatternDetector,
    PhrasesDetector,
    StartsWithDetector,
)
from bestiary.config.kinds import one_of
from bestiary.config.lexicon import Lexicon
from bestiary.records import PromptItem, Record
from bestiary.text import sentences


class JudgeDetector(BaseDetector):
    """Never decides: only a judge can tell."""

    judge: Literal[True]

    def decide(self, reply: str, item: PromptItem) -> None:
        """Nothing that a program could see."""


class AnyOf(BaseDetector):
    """Fires when one of its detectors fires; undecided if none does and one is undecided."""

    any: Some[Detector]

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether one fires; the first that does decides."""
        return _settle((one.decide(reply, item) for one in self.any), decisive=True)

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> AnyOf:
        """With each of its detectors resolved."""
        return self.model_copy(update={"any": _resolve_all(self.any, lexicons, shown)})

    @property
    def compares_meanings(self) -> bool:
        """Whether one of its detectors does."""
        return any(one.compares_meanings for one in self.any)


class AllOf(BaseDetector):
    """Fires when all of its detectors fire; undecided if none stays away and one is undecided."""

    all: Some[Detector]
    part: Literal["anywhere", "any_sentence"] = Field("anywhere", alias="in")
    """`any_sentence` asks that all fire on one sentence, whichever it is."""

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether all fire; the first that does not decides."""
        if self.part == "anywhere":
            return self._decide_text(reply, item)
        return _settle((self._decide_text(one, item) for one in sentences(reply)), decisive=True)

    def _decide_text(self, text: str, item: PromptItem) -> bool | None:
        return _settle((one.decide(text, item) for one in self.all), decisive=False)

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> AllOf:
        """With each of its detectors resolved."""
        return self.model_copy(update={"all": _resolve_all(self.all, lexicons, shown)})

    @property
    def compares_meanings(self) -> bool:
        """Whether one of its detectors does."""
        return any(one.compares_meanings for one in self.all)


class Not(BaseDetector):
    """Fires when its detector does not; undecided with it."""

    negated: Detector = Field(alias="not")

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """The opposite of what the other says."""
        found = self.negated.decide(reply, item)
        return None if found is None else not found

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> Not:
        """With its detector resolved."""
        return self.model_copy(update={"negated": self.negated.resolve(lexicons, shown)})

    @property
    def compares_meanings(self) -> bool:
        """Whether its detector does."""
        return self.negated.compares_meanings


class Members(Record):
    """Some detectors, and how many of them must fire."""

    count: int = Field(ge=1)
    of: Some[Detector]


def _check_count(members: Members) -> Members:
    if members.count > len(members.of):
        raise ValueError(f"asks for {members.count} of {len(members.of)} detectors")
    return members


class AtLeast(BaseDetector):
    """Fires when enough of its detectors fire; undecided if the undecided ones could tip it."""

    at_least: Annotated[Members, AfterValidator(_check_count)]

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether enough fire."""
        found = [one.decide(reply, item) for one in self.at_least.of]
        if found.count(True) >= self.at_least.count:
            return True
        return None if found.count(True) + found.count(None) >= self.at_least.count else False

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> AtLeast:
        """With each of its detectors resolved."""
        of = _resolve_all(self.at_least.of, lexicons, shown)
        members = self.at_least.model_copy(update={"of": of})
        return self.model_copy(update={"at_least": members})

    @property
    def compares_meanings(self) -> bool:
        """Whether one of its detectors does."""
        return any(one.compares_meanings for one in self.at_least.of)


def _settle(found: Iterable[bool | None], *, decisive: bool) -> bool | None:
    """The decisive value where it is among those found; else the other, or None with any None."""
    undecided = False
    for one in found:
        if one is decisive:
            return decisive
        undecided = undecided or one is None
    return None if undecided else not decisive


def _resolve_all(
    detectors: tuple[Detector, ...], lexicons: Mapping[str, Lexicon], shown: Sequence[str]
) -> tuple[BaseDetector, ...]:
    return tuple(one.resolve(lexicons, shown) for one in detectors)


DETECTORS: Mapping[str, type[BaseDetector]] = {
    "all": AllOf,
    "answer": AnswerDetector,
    "any": AnyOf,
    "at_least": AtLeast,
    "case": CaseDetector,
    "contains_number": ContainsNumberDetector,
    "count": CountDetector,
    "ends_with": EndsWithDetector,
    "hard_codes": HardCodesDetector,
    "judge": JudgeDetector,
    "language": LanguageDetector,
    "length": LengthDetector,
    "lexicon": LexiconDetector,
    "near": NearDetector,
    "not": Not,
    "option": OptionDetector,
    "parses_code": ParsesCodeDetector,
    "pattern": PatternDetector,
    "phrases": PhrasesDetector,
    "readability": ReadabilityDetector,
    "sentence": SentenceDetector,
    "starts_with": StartsWithDetector,
    "structure": StructureDetector,
}
"""The kinds by the key that names them."""


Detector = Annotated[
    BaseDetector,
    one_of(
        DETECTORS,
        "detector",
        several="combine them with `any` or `all`",
    ),
]
"""A detector as a behavior file writes it: `{KIND: VALUE}`, with options of its kind beside it."""

for _model in (AnyOf, AllOf, Not, Members, AtLeast):
    _model.model_rebuild()
