"""How detectors are written and combined: each is a mapping whose one key names its kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticKnownError

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
from bestiary.config.lexicon import Lexicon
from bestiary.records import PromptItem, Record
from bestiary.text import sentences

OPTIONS = frozenset({"in", "ignore_case", "least"})
"""Keys that stand beside the key of a kind."""


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
    def encodes(self) -> bool:
        """Whether one of its detectors does."""
        return any(one.encodes for one in self.any)


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
    def encodes(self) -> bool:
        """Whether one of its detectors does."""
        return any(one.encodes for one in self.all)


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
    def encodes(self) -> bool:
        """Whether its detector does."""
        return self.negated.encodes


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
    def encodes(self) -> bool:
        """Whether one of its detectors does."""
        return any(one.encodes for one in self.at_least.of)


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


def _check_keys(value: object) -> object:
    """Refuses what is not a mapping with exactly one key that names a kind."""
    if isinstance(value, BaseDetector):
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"is not a mapping such as `{{lexicon: NAME}}`; kinds: {', '.join(DETECTORS)}"
        )
    named = [key for key in value if key in DETECTORS]
    if len(named) > 1:
        raise ValueError(
            f"names {len(named)} kinds of detector ({', '.join(named)}); combine them with `any` "
            "or `all`"
        )
    if not named:
        unknown = next((key for key in value if key not in OPTIONS), next(iter(value)))
        known = ", ".join(repr(kind) for kind in DETECTORS)
        raise PydanticKnownError(
            "union_tag_invalid",
            {"discriminator": "'detector'", "tag": str(unknown), "expected_tags": known},
        )
    return value


def _find_tag(value: Any) -> str | None:
    kind = type(value) if isinstance(value, BaseDetector) else None
    if isinstance(value, dict):
        kind = next((DETECTORS[key] for key in value if key in DETECTORS), None)
    return kind.__name__ if kind else None


Detector = Annotated[
    Annotated[AllOf, Tag("AllOf")]
    | Annotated[AnswerDetector, Tag("AnswerDetector")]
    | Annotated[AnyOf, Tag("AnyOf")]
    | Annotated[AtLeast, Tag("AtLeast")]
    | Annotated[CaseDetector, Tag("CaseDetector")]
    | Annotated[ContainsNumberDetector, Tag("ContainsNumberDetector")]
    | Annotated[CountDetector, Tag("CountDetector")]
    | Annotated[EndsWithDetector, Tag("EndsWithDetector")]
    | Annotated[HardCodesDetector, Tag("HardCodesDetector")]
    | Annotated[JudgeDetector, Tag("JudgeDetector")]
    | Annotated[LanguageDetector, Tag("LanguageDetector")]
    | Annotated[LengthDetector, Tag("LengthDetector")]
    | Annotated[LexiconDetector, Tag("LexiconDetector")]
    | Annotated[NearDetector, Tag("NearDetector")]
    | Annotated[Not, Tag("Not")]
    | Annotated[OptionDetector, Tag("OptionDetector")]
    | Annotated[ParsesCodeDetector, Tag("ParsesCodeDetector")]
    | Annotated[PatternDetector, Tag("PatternDetector")]
    | Annotated[PhrasesDetector, Tag("PhrasesDetector")]
    | Annotated[ReadabilityDetector, Tag("ReadabilityDetector")]
    | Annotated[SentenceDetector, Tag("SentenceDetector")]
    | Annotated[StartsWithDetector, Tag("StartsWithDetector")]
    | Annotated[StructureDetector, Tag("StructureDetector")],
    Discriminator(_find_tag),
    BeforeValidator(_check_keys),
]
"""A detector as a behavior file writes it: `{KIND: VALUE}`, with options of its kind beside it."""

for _model in (AnyOf, AllOf, Not, Members, AtLeast):
    _model.model_rebuild()


def resolve(detector: Detector, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> Detector:
    """The same detector with the entries of its lexicons and the texts of `near` written out.

    `shown` holds the marked parts of the behavior's replies. Raises SpecError if a lexicon is
    unknown.
    """
    resolved: Detector = cast(Any, detector.resolve(lexicons, shown))
    return resolved


def decide(detector: Detector, reply: str, item: PromptItem) -> bool | None:
    """Whether a reply to an item shows what a resolved detector looks for; None if undecided.

    Raises SpecError if a pattern takes too long, and TypeError if the detector is not resolved.
    """
    return detector.decide(reply, item)
