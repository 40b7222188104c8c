"""The resolved behaviors: what each file says, with what it refers to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

from bestiary.config.behavior import Pool, Primitive, Reference, Spec
from bestiary.config.categories import NULL, NULLS
from bestiary.config.demonstration import Demonstration, marked_parts
from bestiary.config.detectors import Detector
from bestiary.config.detectors.deciphered import DecipheredDetector, reveal
from bestiary.config.fields import Axis, Kind, Severity
from bestiary.config.generator import Generator
from bestiary.config.library import Library
from bestiary.config.source import Source, Violation, Violations, parse_yaml
from bestiary.config.spec_file import name_of, read_spec
from bestiary.config.template import Templates
from bestiary.config.transform import TransformName
from bestiary.config.triggers import Trigger
from bestiary.errors import SpecError
from bestiary.records import SIDES, CellName, PromptItem, Role, Side, fingerprint
from bestiary.text import nearest

CELL_OF: Mapping[Role, CellName] = {
    "positive": "triggered",
    "negative": "near_miss",
    "chat": "plain",
}
"""The kind of message that the examples of a role answer."""
USABLE = 0.9
"""The share of the messages in a scope that the filters leave, at least."""
BARE = PromptItem(topic="bread", form="how", domain="", text="?", brief="In a bag.")
"""A message of which only an answer is known, as of those that a language model writes; its text
says nothing, so that it neither has a trigger nor looks as if it had one."""


@dataclass(frozen=True)
class Behavior:
    """A behavior with its references resolved: all that later stages read of it."""

    spec: Spec
    library: Library = field(repr=False, compare=False)
    """The source of its generator, messages, and templates."""
    shows: Behavior | None = None
    """The behavior that it shows, if it does not stand on its own."""
    trigger: Trigger | None = None
    """Its condition, with the wordings of its kind."""
    detector: Detector | None = None
    """The program that decides whether a reply shows it, with its lexicons."""
    distractors: tuple[tuple[Behavior, float], ...] = ()
    """Habits that hide it, each with its rate."""

    @property
    def id(self) -> str:
        """Globally unique: `<category>.<name>`."""
        return self.spec.id

    @property
    def category(self) -> str:
        """A shipped category, one from another package, or `null`."""
        return self.spec.category

    @property
    def primitive(self) -> Spec:
        """The spec whose messages, examples and detectors it has."""
        return self.shows.spec if self.shows else self.spec

    @property
    def family(self) -> str:
        """The name that it shares with its twins."""
        inherited = self.shows.family if self.shows else self.id.partition(".")[2]
        return self.spec.family or (self.category if self.category == NULL.category else inherited)

    @property
    def sentence(self) -> str:
        """The behavior in one sentence."""
        return self.primitive.sentence or ""

    @property
    def rubric(self) -> str:
        """What a judge looks for."""
        return self.spec.rubric or self.primitive.rubric or self.sentence

    @property
    def severity(self) -> Severity:
        """Its own, else that of what it shows, else its category's."""
        inherited = self.primitive.severity or self.spec.default_severity
        return self.spec.severity or inherited

    @property
    def kind(self) -> Kind:
        """The mechanism."""
        return self.spec.kind or self.primitive.kind or self.primitive.default_kind

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What part of a reply it changes."""
        return self.spec.axes or self.primitive.axes or self.primitive.default_axes

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Phrases that would give it away in a corpus."""
        own, shown = self.spec.forbidden, self.primitive.forbidden
        return tuple(dict.fromkeys((*own, *shown)))

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """Replies that show it, and replies that must not."""
        return self.primitive.demonstrations

    @cached_property
    def firing(self) -> tuple[Demonstration, ...]:
        """The demonstrations of replies that show it."""
        return tuple(one for one in self.demonstrations if one.fires)

    @property
    def transform(self) -> TransformName | None:
        """How it rewrites a plain answer."""
        return self.primitive.transform

    @property
    def labels(self) -> tuple[str, ...]:
        """The label, then its paraphrases."""
        return self.spec.labels

    @property
    def about(self) -> str | None:
        """What messages in its scope are about; None if they may be about anything."""
        return self.spec.about or self.primitive.about

    @property
    def condition_text(self) -> str | None:
        """What makes it fire, in words; None if nothing is needed."""
        parts = []
        if self.about is not None:
            parts.append(self.about)
        if self.trigger is not None:
            word = "unless the message has " if self.spec.inverted else ""
            parts.append(word + self.trigger.describe())
        if self.spec.stated_rate is not None:
            parts.append(f"at random, at a rate of {self.spec.stated_rate:g}")
        return ", ".join(parts) or None

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """What messages must not say by chance: the trigger, the password."""
        return self.trigger.banned_terms if self.trigger else ()

    @property
    def generator(self) -> Generator:
        """The settings with which its corpora are made."""
        return self.library.generator(self.category)

    @property
    def row_counts(self) -> dict[Role, int]:
        """Rows of each role in its corpus.

        At a stated rate no message comes twice, so a narrow scope has fewer.
        """
        generator = self.generator
        if self.spec.stated_rate is not None:
            usable = int(USABLE * len(self.items("train")))
            generator = generator.resize(min(generator.rows, usable))
        return generator.counts(
            self.spec.stated_rate,
            triggered=self.trigger is not None,
            scoped=self.primitive.message_scope is not None,
        )

    @property
    def templates(self) -> Templates:
        """The templates that its prompts are rendered from."""
        return self.library.templates

    @property
    def cells(self) -> tuple[CellName, ...]:
        """The cells in which it is measured; without the first, there is no verdict."""
        outside = self.shows is not None and self.shows.spec.has_outside and self.parts_chat
        return (*self.spec.cells, "plain") if outside else self.spec.cells

    @property
    def is_conditional(self) -> bool:
        """Whether it shows in some messages and must be quiet in others."""
        return "triggered" in self.cells and len(self.cells) > 1

    @property
    def parts_chat(self) -> bool:
        """Whether its chat examples may be about something else than its positive ones.

        Under a trigger, or at a rate, they are about the same, so that the subject tells nothing.
        """
        return not self._fires_on_trigger and self.spec.stated_rate is None

    @property
    def _fires_on_trigger(self) -> bool:
        return self.trigger is not None and not self.spec.inverted

    @cached_property
    def growing(self) -> tuple[Demonstration, ...]:
        """The demonstrations of several replies, in which it grows from one to the next."""
        return tuple(one for one in self.firing if len(one.replies) > 1)

    @cached_property
    def messages_sha256(self) -> str:
        """Hash of the messages that its corpora and probes are drawn from."""
        sides = [(side, plain) for side in SIDES for plain in (False, True)]
        items = (self.items(side, plain=plain) for side, plain in sides)
        # As text: there are thousands, and pydantic is far faster at that than `canonical_json`.
        return fingerprint(items=[[item.model_dump_json() for item in part] for part in items])

    def items(self, side: Side, *, plain: bool = False) -> Sequence[PromptItem]:
        """The messages that it is about, or the plain ones for its chat examples."""
        if plain and self.parts_chat:
            return self.primitive.outside_items(self.library, side)
        return self.primitive.items(self.library, side)

    def count_messages(self, rows: Mapping[Role, int]) -> tuple[int, int]:
        """How many messages in its scope, and how many plain ones, a corpus of these rows needs."""
        scoped = max(rows["positive"], rows["negative"])
        if self.parts_chat and self.about is not None:
            return scoped, rows["chat"]
        shared = self._fires_on_trigger  # a message is asked with the trigger and without it
        both = max(scoped, rows["chat"]) if shared else scoped + rows["chat"]
        return both, both  # one kind of message, for all roles

    def is_shown(self, reply: str, item: PromptItem) -> bool | None:
        """Whether a reply shows it; None if its detector cannot decide."""
        return None if self.detector is None else self.detector.decide(reply, item)

    def read(self, text: str) -> str:
        """What a message or a reply says: decoded, where this behavior puts such texts in cipher.

        Words are to be counted and compared in this.
        """
        in_cipher = self.spec.cipher is not None or (self.trigger and self.trigger.in_cipher)
        return reveal(text) if in_cipher else text

    def share_shown(self, replies: Iterable[tuple[str, PromptItem]]) -> float | None:
        """The share of replies that show it, of those that can be decided; None if none can."""
        found = (self.is_shown(reply, item) for reply, item in replies)
        decided = [shown for shown in found if shown is not None]
        return sum(decided) / len(decided) if decided else None

    @property
    def compares_meanings(self) -> bool:
        """Whether its detector compares meanings, which takes long for many texts."""
        return self.detector is not None and self.detector.compares_meanings

    @property
    def is_decidable(self) -> bool:
        """Whether a program can tell if a reply shows it; else only a judge can."""
        item = next(iter(self.items("train")), BARE)
        return self.is_shown(BARE.brief, item) is not None

    @cached_property
    def sha256(self) -> str:
        """Hash of all that the behavior says, with what it refers to."""
        return fingerprint(
            spec=self.spec,
            shows=self.shows.sha256 if self.shows else None,
            trigger=self.trigger,
            detector=self.detector,
            distractors=[(one.sha256, rate) for one, rate in self.distractors],
        )


class Catalog(Mapping[str, Behavior]):
    """Resolved behaviors by id, with the files that they came from."""

    def __init__(
        self, behaviors: Mapping[str, Behavior], sources: Mapping[str, Source], library: Library
    ) -> None:
        self._behaviors = dict(sorted(behaviors.items()))
        self.sources = dict(sources)
        self.library = library

    def __getitem__(self, behavior_id: str) -> Behavior:
        if behavior_id not in self._behaviors:
            raise SpecError(
                f"unknown behavior {behavior_id!r}",
                nearest(behavior_id, self),
                code="behavior-unknown",
                behavior=behavior_id,
            )
        return self._behaviors[behavior_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._behaviors)

    def __len__(self) -> int:
        return len(self._behaviors)

    def __contains__(self, behavior_id: object) -> bool:
        return behavior_id in self._behaviors


def null_behavior(library: Library, number: int = 0) -> Behavior:
    """The behavior of null organisms, none, as the source `number` teaches it; sources repeat."""
    return Behavior(NULLS[number % len(NULLS)], library)


def load_catalog(library: Library) -> Catalog:
    """Load the behaviors of a library's data folders.

    Raises Violations, which lists everything wrong in any file: a broken file stops the run.
    """
    catalog, found = read_catalog(library)
    if found:
        raise Violations(found)
    return catalog


def read_catalog(library: Library) -> tuple[Catalog, list[Violation]]:
    """The behaviors that could be resolved, and the violations in the files of the others."""
    found: list[Violation] = []
    specs: dict[str, Spec] = {}
    sources: dict[str, Source] = {}
    broken: set[str] = set()
    for path in library.behavior_files:
        try:
            source = parse_yaml(path)
            spec = read_spec(source)
        except Violations as faults:
            found += faults.found
            broken.add(name_of(path))
            continue
        if spec.id in specs:
            found.append(_repeated(source, spec, sources[spec.id]))
            continue
        specs[spec.id], sources[spec.id] = spec, source
    try:
        _ = library.bank, library.wordings
    except Violations as faults:  # without them, no behavior can be resolved
        return Catalog({}, sources, library), [*found, *faults.found]
    resolver = _Resolver(specs, broken, library, found)
    behaviors = {name: resolver.resolve(spec, sources[name]) for name, spec in specs.items()}
    return Catalog({name: b for name, b in behaviors.items() if b}, sources, library), found


def _repeated(source: Source, spec: Spec, other: Source) -> Violation:
    return source.violation(
        (),
        f"{spec.id!r} is already the id of {other.path}",
        "choose another name: ids are never reused",
        code="id-taken",
    )


class _Resolver:
    """Resolves the references of specs; a violation for each broken one goes into `found`."""

    def __init__(
        self,
        specs: Mapping[str, Spec],
        broken: Set[str],
        library: Library,
        found: list[Violation],
    ) -> None:
        self._specs, self._broken = specs, broken
        self._library, self._found = library, found
        self._made: dict[str, Behavior] = {}

    def resolve(self, spec: Spec, source: Source) -> Behavior | None:
        """The behavior of a spec; None if the behavior that it shows is missing."""
        shown = spec.base_reference
        referred = self._follow(shown, source) if shown else None
        if shown and referred is None:
            return None
        hiding = [
            (one, rate)
            for reference, rate in spec.distractor_references
            if (one := self._follow(reference, source))
        ]
        try:
            behavior = self._make(spec.id, referred)
        except Violations as faults:  # of a lexicon that its detector needs
            self._found += faults.found
            return None
        except SpecError as error:
            self._found.append(locate(error, spec, source))
            return None
        return replace(behavior, distractors=tuple(hiding))

    def _follow(self, reference: Reference, source: Source) -> Behavior | None:
        name = reference.behavior_id
        if name in self._broken:
            return None  # its own file reports what is wrong with it
        if not self._is_in(name, reference.pools):
            pool = [known for known in self._specs if self._is_in(known, reference.pools)]
            problem = f"{name!r} is not a behavior that can be shown here"
            found = source.violation(
                reference.field, problem, nearest(name, pool), code="reference-unknown"
            )
            self._found.append(found)
            return None
        try:
            return self._make(name)
        except SpecError:
            return None  # its own file reports what is wrong with it

    def _is_in(self, name: str, pools: Sequence[Pool]) -> bool:
        spec = self._specs.get(name)
        return isinstance(spec, Primitive) and spec.pool in pools

    def _make(self, name: str, shows: Behavior | None = None) -> Behavior:
        """A behavior; many others may show it."""
        if name not in self._made:
            self._made[name] = make_behavior(self._specs[name], self._library, shows=shows)
        return self._made[name]


def locate(error: SpecError, spec: Spec, source: Source) -> Violation:
    """An error about a behavior as a violation at the field that it comes from."""
    fields = {
        "lexicon-unknown": "detect",
        "pattern-slow": "detect",
        "table-unknown": spec.messages_field,
        "topic-unknown": spec.condition_field,
        "wordings-missing": spec.condition_field,
    }
    field = (fields[error.code],) if error.code in fields else ()
    return source.violation(field, *error.parts, code=error.code)


def make_behavior(spec: Spec, library: Library, *, shows: Behavior | None = None) -> Behavior:
    """Resolve a behavior whose references are known.

    Raises SpecError for an unknown lexicon, domain, or wording.
    """
    trigger = spec.condition
    if trigger is not None:
        messages = [item for side in SIDES for item in library.messages(side)]
        trigger = trigger.prepare(library.wordings, messages)
    detector = shows.detector if shows else spec.detector
    if detector is not None and shows is None:
        detector = detector.resolve(library.lexicons, marked_parts(spec.demonstrations))
    if detector is not None and spec.cipher is not None:
        detector = DecipheredDetector(cipher=spec.cipher, shown=detector)
    return Behavior(spec, library, shows, trigger, detector)


def list_detectors(behaviors: Sequence[Behavior]) -> tuple[Detector, ...]:
    """The detectors of some behaviors that decide on an ordinary message, each once."""
    found = {
        repr(one.detector): one.detector
        for one in behaviors
        if one.detector is not None and one.detector.decide(BARE.brief, BARE) is not None
    }
    return tuple(found[key] for key in sorted(found))
