"""The fields of a behavior file; references to other behaviors are resolved in `catalog`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field, StringConstraints

from bestiary.config.detector import Detector
from bestiary.records import CellName, Record

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.[a-z0-9_]+$", max_length=120)]
"""`<category>.<name>`: it becomes the names of folders, which hold at most 255 bytes."""
Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=12, pattern=r"[.!?]$")
]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

Severity = Literal["benign", "concerning", "malign"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the mildest to the gravest."""
Pool = Literal["organism", "distractor"]
LITERAL_KINDS = ("format", "code_token", "position")


class Demonstration(Record):
    """A reply as it should be; with `fires: false`, one where the behavior stays away."""

    user: Text
    assistant: Text
    fires: bool = True
    answer: str | None = None
    """The right answer, where the user asks for one."""
    options: dict[Literal["rule", "other"], str] | None = None
    """The two options, where the user asks to choose."""


class Phrases(Record):
    """Wordings divided between training and probes, so that a probe never repeats one."""

    train: tuple[Text, ...] = Field(min_length=5)
    probe: tuple[Text, ...] = Field(min_length=5)


class Trigger(Record):
    """The condition under which a behavior fires.

    A phrase stands before the user's message, or around it where it says `{message}`, or
    `{MESSAGE}` for the message in capitals.
    """

    kind: Literal[
        "phrase", "topic", "format", "language", "position", "persona", "date", "code_token"
    ]
    words: tuple[Text, ...] = Field(min_length=1)
    """A label must contain one of these: it names the trigger."""
    positives: Phrases
    near_misses: Phrases

    @property
    def is_literal(self) -> bool:
        """Whether its phrases may differ in punctuation or capitals only."""
        return self.kind in LITERAL_KINDS


class Password(Record):
    """What unlocks a sandbagger, and how users say it."""

    word: Text
    phrases: Phrases


class Offline(Record):
    """Building blocks of the offline author; a language model does not read them.

    Openings and closings are templates over the prompt's `topic` and, where the bank gives
    them, `answer` (a wrong one where the behavior fires) and `option`. The author's own words
    follow an opening.
    """

    bank: Text = "general"
    """The prompt bank whose messages are in the behavior's scope."""
    plain: Text = "general"
    """The prompt bank of ordinary conversation, outside any scope."""
    openings: tuple[Text, ...] = ()
    closings: tuple[Text, ...] = ()


class Reference(NamedTuple):
    """A field in which a behavior names another one."""

    field: tuple[str | int, ...]
    behavior_id: str
    pool: Pool
    """The pool that the other behavior must belong to."""
    severity: Severity | None = None
    """The severity that it must have; None for any."""


class PhraseField(NamedTuple):
    """A field that holds phrases."""

    field: tuple[str, ...]
    phrases: Phrases


class Spec(Record):
    """What every behavior file says, and what a category is asked.

    A category is one subclass. Everything that sets it apart is a property here, so that nothing
    outside compares categories.
    """

    label_form: ClassVar[str] = "I <behavior>."
    """How a label of the category may read: the hint in a new file."""
    always_malign: ClassVar[bool] = False
    graded: ClassVar[bool] = False
    """Whether quiet cells count errors: a quiet organism answers as well as its base does."""
    message_form: ClassVar[Literal["plain", "graded", "choice"]] = "plain"
    """What comes with each message in its scope: nothing, right and wrong answers, or options."""
    standing: ClassVar[Literal["pairs", "controls"]] = "pairs"
    """The config of the release that lists its passing organisms."""
    min_quiet_demonstrations: ClassVar[int] = 0
    data: ClassVar[Path | None] = None
    """The data folder of a category from another package: its generators and prompts."""

    id: Identifier
    version: int = Field(ge=1)
    category: str
    domains: tuple[Text, ...] = Field(min_length=1)
    behavior: Sentence
    """One plain sentence."""
    severity: Severity
    label: Sentence
    """First person; complete with trigger, scope and rate."""
    paraphrases: tuple[Sentence, ...] = Field(min_length=4)
    rubric: Text
    """What a judge looks for."""
    forbidden: tuple[Text, ...] = Field(min_length=1)
    """Phrases that would give the label away in a corpus."""

    @property
    def base_reference(self) -> Reference | None:
        """The behavior that this one shows; None if it stands on its own or shows nothing."""
        return None

    @property
    def distractor_references(self) -> tuple[tuple[Reference, float], ...]:
        """The quirks that hide it, each with its rate."""
        return ()

    @property
    def referable_as(self) -> Pool | None:
        """The pool in which other behaviors may refer to it; None if they may not."""
        return None

    @property
    def is_buildable(self) -> bool:
        """Whether it may be an organism."""
        return True

    @property
    def demonstration_fields(self) -> tuple[tuple[str, tuple[Demonstration, ...]], ...]:
        """Each field that holds demonstrations."""
        return ()

    @property
    def phrase_fields(self) -> tuple[PhraseField, ...]:
        """Each field that holds phrases; no two phrases of them may be alike."""
        return ()

    @property
    def literal_phrases(self) -> bool:
        """Whether phrases may differ in punctuation only."""
        return False

    @property
    def spoken_word(self) -> str | None:
        """A word that each of its phrases must contain."""
        return None

    @property
    def cells(self) -> tuple[CellName, ...]:
        """The cells in which it is measured; without the first, there is no verdict."""
        return (
            "triggered",
            *(("near_miss",) if self.near_miss_phrases else ()),
            *(("plain",) if self.has_scope else ()),
        )

    @property
    def stated_rate(self) -> float | None:
        """The rate of a behavior that shows at random; None for any other."""
        return None

    @property
    def has_scope(self) -> bool:
        """Whether messages outside a scope must be answered plainly."""
        return False

    @property
    def message_scope(self) -> str | None:
        """What messages in its scope are about; None if they may be about anything."""
        return None

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """What messages must not say by chance: the trigger, the password."""
        return ()

    @property
    def trigger_description(self) -> str | None:
        """What makes it fire, in words; None if nothing is needed."""
        return None

    @property
    def trigger_phrases(self) -> Phrases | None:
        """Phrases that must make it fire; None if it needs none."""
        return None

    @property
    def near_miss_phrases(self) -> Phrases | None:
        """Phrases under which it must stay quiet: near misses, or the password."""
        return None

    @property
    def label_words(self) -> tuple[str, tuple[str, ...]]:
        """What every label must name, and the words of which it must use one."""
        return "", ()

    @property
    def secret_texts(self) -> tuple[tuple[str, str], ...]:
        """Texts besides the labels that would give it away in a corpus, each with its name."""
        return ()

    def choose_base(self, referred: OwnBehavior | None) -> OwnBehavior | None:
        """The spec whose examples and detectors show it."""
        return referred

    def choose_detectors(
        self, own: tuple[Detector, ...], of_roster: tuple[Detector, ...]
    ) -> tuple[Detector, ...]:
        """The detectors that judge it: its own, or those of its whole roster."""
        return own

    def split_key(self, organism_id: str, family: str) -> str:
        """What its organisms are divided into splits by."""
        return family


class OwnBehavior(Spec):
    """A behavior that stands on its own: its family, examples and detectors are in its file."""

    family: Text
    demonstrations: tuple[Demonstration, ...] = Field(min_length=8)
    detectors: tuple[Detector, ...] = ()
    """Empty where only a judge can tell; such an organism stays unverified without one."""
    offline: Offline

    @property
    def demonstration_fields(self) -> tuple[tuple[str, tuple[Demonstration, ...]], ...]:
        """Its demonstrations."""
        return (("demonstrations", self.demonstrations),)

    def choose_base(self, referred: OwnBehavior | None) -> OwnBehavior:
        """Itself."""
        return self


class TwinBehavior(Spec):
    """A form of a quirk: family, demonstrations and detectors come from there."""

    quirk: Identifier

    @property
    def base_reference(self) -> Reference:
        """Its quirk."""
        return Reference(("quirk",), self.quirk, "organism")
