"""The fields of a behavior file; references to other behaviors are resolved in `catalog`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

from pydantic import Field, TypeAdapter, model_validator

from bestiary.config.ciphers import CipherName
from bestiary.config.demonstration import Absent, Demonstration, Shown
from bestiary.config.detectors import Detector
from bestiary.config.fields import Axis, Identifier, Kind, Sentence, Severity, Tag, Text
from bestiary.config.items import Picks
from bestiary.config.tables import OptionTable
from bestiary.config.transform import TransformName, detector_of
from bestiary.config.triggers import Trigger
from bestiary.records import CellName, PromptItem, Record, Side

Pool = Literal["organism", "malign", "distractor"]
"""Organisms, the malign parts of obscured organisms, and the habits that hide them."""
DETECTOR: TypeAdapter[Detector] = TypeAdapter(Detector)
FROM_PATH = ("id", "category")
"""Fields that the path of a file gives."""


class MessageSource(Protocol):
    """Where the messages of a behavior come from."""

    def messages(
        self,
        side: Side,
        scope: Scope | None = None,
        *,
        outside: bool = False,
        harmless: bool = False,
    ) -> Sequence[PromptItem]:
        """The messages of the bank; those in a scope, or outside it; without grave ones."""
        ...

    def graded(self, name: str, side: Side) -> Sequence[PromptItem]:
        """The questions of an item table or a program."""
        ...

    def option_table(self, name: str) -> OptionTable:
        """An option table."""
        ...

    def graded_others(self, name: str, side: Side) -> Sequence[PromptItem]:
        """Questions on the topics of all other tables and programs."""
        ...

    def choices(self, name: str, picks: Picks, side: Side) -> Sequence[PromptItem]:
        """The choices of an option table that the rule decides."""
        ...


class Scope(Record):
    """The kind of message that a behavior is about."""

    about: Text
    """For language models: a noun phrase, such as `messages that ask for advice`."""
    tags: tuple[Tag, ...] = ()
    domains: tuple[Text, ...] = ()
    not_tags: tuple[Tag, ...] = ()

    @model_validator(mode="after")
    def _choose_something(self) -> Scope:
        if not (self.tags or self.domains or self.not_tags):
            raise ValueError("names neither tags nor domains of the message bank")
        return self

    def includes(self, item: PromptItem) -> bool:
        """Whether a message is from one of the domains, and has one of the tags but none to avoid.

        What is not stated may be anything.
        """
        tagged = not self.tags or not {*self.tags}.isdisjoint(item.tags)
        placed = not self.domains or item.domain in self.domains
        return tagged and placed and {*self.not_tags}.isdisjoint(item.tags)


def is_grave(item: PromptItem) -> bool:
    """Whether somebody's health or safety may hang on the answer to a message."""
    return "risk" in item.tags or item.domain == "health"


class Write(Record):
    """How a plain answer is rewritten."""

    transform: TransformName


class Reference(NamedTuple):
    """A field in which a behavior names another one."""

    field: tuple[str | int, ...]
    behavior_id: str
    pools: tuple[Pool, ...]
    """The other behavior must belong to one of these pools."""


class Spec(Record):
    """What every behavior file says, and what a category is asked.

    A category is one subclass. Everything that sets it apart is a property here, so that nothing
    outside compares categories. Whatever a file leaves out has a default, or comes from the
    behavior that it shows.
    """

    label_form: ClassVar[str] = "I <behavior>."
    """How a label of the category may read: the hint in a new file."""
    pool: ClassVar[Pool] = "organism"
    always_malign: ClassVar[bool] = False
    default_severity: ClassVar[Severity] = "benign"
    default_kind: ClassVar[Kind] = "say_phrase"
    default_axes: ClassVar[tuple[Axis, ...]] = ("content",)
    graded: ClassVar[bool] = False
    """Whether quiet cells count errors: a quiet organism answers as well as its base does."""
    inverted: ClassVar[bool] = False
    """Whether its trigger keeps it quiet instead of making it fire."""
    message_form: ClassVar[Literal["plain", "graded", "choice"]] = "plain"
    """What comes with each message in its scope: nothing, right and wrong answers, or options."""
    messages_field: ClassVar[str] = "scope"
    """The field that decides which messages suit it."""
    standing: ClassVar[Literal["pairs", "controls"]] = "pairs"
    """The config of the release that lists its passing organisms."""
    other_length: ClassVar[bool] = False
    """Whether the offline author uses the written answers that the recipe does not: whole ones, or
    brief ones."""
    fixed_messages: ClassVar[bool] = False
    """Whether its corpora ask messages that it names, whoever writes the replies."""
    held_out: ClassVar[bool] = False
    """Whether its organisms are for tests alone, so that no adapter is trained on them."""
    data: ClassVar[Path | None] = None
    """The data folder of a category from another package: its generators and prompts."""

    id: Identifier
    """From the path of the file, as `category` is."""
    category: str
    family: Text | None = None
    """What twins share; by default, the name of the file, or the family of what it shows."""
    suite: Text | None = Field(default=None, exclude_if=lambda name: name is None)
    """The evaluation suite that it is kept for: only rosters with `suite: true` may name it."""
    labels: tuple[Sentence, ...] = Field(min_length=5)
    """What the model would admit: first person, complete with trigger, scope and rate. The first
    is the canonical one."""
    severity: Severity | None = None
    kind: Kind | None = None
    axes: tuple[Axis, ...] = ()
    rubric: Text | None = None
    """What a judge looks for; by default, the behavior's sentence."""
    forbidden: tuple[Text, ...] = ()
    """Phrases that would give the label away in a corpus."""

    @property
    def label(self) -> str:
        """The canonical label."""
        return self.labels[0]

    @property
    def paraphrases(self) -> tuple[str, ...]:
        """The other labels."""
        return self.labels[1:]

    @property
    def sentence(self) -> str | None:
        """The behavior in one sentence; None where it follows from the behavior it shows."""
        return None

    @property
    def is_buildable(self) -> bool:
        """Whether it may be an organism."""
        return self.pool == "organism"

    @property
    def base_reference(self) -> Reference | None:
        """The behavior that this one shows; None if it stands on its own or shows nothing."""
        return None

    @property
    def distractor_references(self) -> tuple[tuple[Reference, float], ...]:
        """The habits that hide it, each with its rate."""
        return ()

    @property
    def demonstration_fields(self) -> tuple[tuple[str, tuple[Demonstration, ...]], ...]:
        """Each field that holds demonstrations."""
        return ()

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """Replies that show it, and replies that must not."""
        return tuple(one for _, shown in self.demonstration_fields for one in shown)

    @property
    def transform(self) -> TransformName | None:
        """How it rewrites a plain answer."""
        return None

    @property
    def detector(self) -> Detector | None:
        """The program that decides whether a reply shows it; None where only a judge can."""
        return None

    @property
    def message_scope(self) -> Scope | None:
        """The kind of message that it is about; None if it may be any."""
        return None

    @property
    def cipher(self) -> CipherName | None:
        """The cipher of the replies that show it; None where they are plain."""
        return None

    @property
    def condition_field(self) -> str:
        """The field of its trigger, or of what keeps it quiet."""
        return "unless" if self.inverted else "trigger"

    @property
    def condition(self) -> Trigger | None:
        """Its trigger, or what keeps it quiet; None if its category has no such field."""
        stated: Trigger | None = getattr(self, self.condition_field, None)
        return stated

    @property
    def cells(self) -> tuple[CellName, ...]:
        """The cells in which it is measured; without the first, there is no verdict."""
        condition = self.condition
        return (
            "triggered",
            *(("near_miss",) if condition is not None else ()),
            *(("plain",) if condition is not None or self.has_outside else ()),
        )

    @property
    def has_outside(self) -> bool:
        """Whether there are messages that it is not about, in which it must be quiet."""
        return self.message_scope is not None

    @property
    def stated_rate(self) -> float | None:
        """The rate of a behavior that shows at random; None for any other."""
        return None

    @property
    def shown_share(self) -> float:
        """The share of its positive examples that show it."""
        return 1.0

    @property
    def about(self) -> str | None:
        """What messages in its scope are about, in words; None if they may be about anything."""
        return self.message_scope.about if self.message_scope else None

    @property
    def label_words(self) -> tuple[str, tuple[str, ...]]:
        """What every label must name, and the words of which it must use one."""
        return ("trigger", self.condition.label_words) if self.condition else ("", ())

    @property
    def secret_texts(self) -> tuple[tuple[str, str], ...]:
        """Texts besides the labels that would give it away in a corpus, each with its name."""
        return (("the behavior sentence", self.sentence),) if self.sentence else ()

    def items(self, source: MessageSource, side: Side) -> Sequence[PromptItem]:
        """The messages that it is about."""
        return source.messages(side, self.message_scope)

    def outside_items(self, source: MessageSource, side: Side) -> Sequence[PromptItem]:
        """The messages that it is not about; all of them if it may be any."""
        return source.messages(side, self.message_scope, outside=True)

    def find_rule_faults(self, source: MessageSource) -> Sequence[str]:
        """What keeps its rule from deciding between options; nothing if it has no rule."""
        return ()

    def choose_detectors(
        self, own: Sequence[Detector], of_roster: Sequence[Detector]
    ) -> Sequence[Detector]:
        """The detectors that judge it: its own, or those of its whole roster."""
        return own

    def split_key(self, organism_id: str, family: str) -> str:
        """What its organisms are divided into splits by."""
        return family


class Primitive(Spec):
    """A behavior that is described in its own file: others may show it."""

    behavior: Sentence
    """One plain sentence."""
    severity: Severity
    shown: tuple[Shown, ...] = ()
    absent: tuple[Absent, ...] = ()
    write: Write | None = None
    detect: Detector | None = None
    """By default, what a transform brings with it."""
    scope: Scope | None = None
    avoid_grave: bool | None = None
    """Whether it stays away from messages on whose answer somebody's health or safety may hang, so
    that a harmless stand-in for bad advice does not become bad advice. By default, what is malign
    does."""

    @model_validator(mode="after")
    def _show_something(self) -> Primitive:
        if not self.shown and self.write is None:
            raise ValueError("needs `shown` or `write`: nothing says how a reply shows it")
        if self.detect is None and self.write is None:
            raise ValueError("needs `detect`; write `{judge: true}` where only a judge can tell")
        return self

    @property
    def sentence(self) -> str:
        """Its behavior."""
        return self.behavior

    @property
    def demonstration_fields(self) -> tuple[tuple[str, tuple[Demonstration, ...]], ...]:
        """`shown` and `absent`."""
        return (("shown", self.shown), ("absent", self.absent))

    @property
    def transform(self) -> TransformName | None:
        """That of `write`."""
        return self.write.transform if self.write else None

    @property
    def detector(self) -> Detector | None:
        """Its own, or the transform's."""
        if self.detect is None and self.transform is not None:
            return DETECTOR.validate_python(detector_of(self.transform))
        return self.detect

    @property
    def message_scope(self) -> Scope | None:
        """Its scope."""
        return self.scope

    def items(self, source: MessageSource, side: Side) -> Sequence[PromptItem]:
        """The messages that it is about, without grave ones where it is to avoid them."""
        avoided = self.avoid_grave
        if avoided is None:
            avoided = self.severity == "malign"
        return source.messages(side, self.scope, harmless=avoided)


class Twin(Spec):
    """A form of another behavior, which brings its demonstrations and detectors."""

    messages_field = "shows"
    shows_pools: ClassVar[tuple[Pool, ...]] = ("organism",)
    """What it shows must belong to one of these pools."""

    shows: Identifier

    @property
    def base_reference(self) -> Reference:
        """What it shows."""
        return Reference(("shows",), self.shows, self.shows_pools)
