"""From behavior files to resolved behaviors in three steps: parse, index, resolve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bestiary.config.behavior import Demonstration, Offline, OwnBehavior, Reference, Spec
from bestiary.config.categories import NULL, spec_adapter
from bestiary.config.detector import Detector, detect
from bestiary.config.generator import Generator
from bestiary.config.library import Library
from bestiary.config.message_bank import Side
from bestiary.config.source import (
    Source,
    Violation,
    Violations,
    find_unfilled,
    parse_yaml,
    pydantic_violations,
)
from bestiary.config.template import Templates
from bestiary.errors import SpecError
from bestiary.files import list_paths
from bestiary.records import PromptItem, Role, fingerprint
from bestiary.text import nearest


@dataclass(frozen=True)
class Behavior:
    """A behavior with its references resolved: all that later stages read of it."""

    spec: Spec
    base_behavior: OwnBehavior | None
    """The spec whose examples and detectors it uses: its own, its quirk's, or its malign part's."""
    library: Library = field(repr=False, compare=False)
    """The source of its generator, banks, and templates."""
    distractors: tuple[tuple[OwnBehavior, float], ...] = ()
    """Quirks that hide it, each with its rate."""

    @property
    def id(self) -> str:
        """Globally unique: `<category>.<name>`."""
        return self.spec.id

    @property
    def category(self) -> str:
        """A shipped category, one from another package, or `null`."""
        return self.spec.category

    @property
    def family(self) -> str:
        """The name that it shares with its twins."""
        return self.base_behavior.family if self.base_behavior else self.category

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The programs that decide whether a reply shows it."""
        return self.base_behavior.detectors if self.base_behavior else ()

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """Examples that show it, and examples that must not show it."""
        base = self.base_behavior
        inherited = base.demonstrations if base and base is not self.spec else ()
        return (*inherited, *(one for _, shown in self.spec.demonstration_fields for one in shown))

    @property
    def offline(self) -> Offline:
        """Building blocks of the offline author."""
        return self.base_behavior.offline if self.base_behavior else Offline()

    @property
    def labels(self) -> tuple[str, ...]:
        """The label, then its paraphrases."""
        return (self.spec.label, *self.spec.paraphrases)

    @property
    def generator(self) -> Generator:
        """The settings with which its corpora are made."""
        return self.library.generator(self.category)

    @property
    def templates(self) -> Templates:
        """The templates that its prompts are rendered from."""
        return self.library.templates

    @property
    def banks_sha256(self) -> str:
        """Hash of the banks that its messages come from."""
        names = sorted({self.offline.plain, self.offline.bank})
        return fingerprint(banks=[self.library.bank(name) for name in names])

    def prompts(self, side: Side, *, plain: bool = False) -> tuple[PromptItem, ...]:
        """Messages from its bank; plain ones are from its plain bank, outside its domains.

        Raises SpecError if the bank cannot be read or has no plain message.
        """
        if not plain:
            return self.library.bank(self.offline.bank).side(side)
        items = self.library.bank(self.offline.plain).side(side)
        kept = tuple(item for item in items if item.domain not in self.spec.domains)
        if not kept:
            raise SpecError(
                f"{self.id}: every {side} prompt of the bank {self.offline.plain!r} is of its "
                "domains",
                "name another bank as `plain`",
                code="nothing-plain",
                behavior=self.id,
                bank=self.offline.plain,
            )
        return kept

    def count_messages(self, rows: Mapping[Role, int]) -> tuple[int, int]:
        """How many messages in its scope, and how many plain ones, a corpus of these rows needs."""
        scoped = max(rows["positive"], rows["negative"])
        if self.spec.message_scope is not None:
            return scoped, rows["chat"]
        triggered = self.spec.trigger_phrases is not None
        both = max(scoped, rows["chat"]) if triggered else scoped + rows["chat"]
        return both, both  # one kind of message, for all roles

    def shows(self, reply: str, item: PromptItem) -> bool | None:
        """Whether a reply shows it; None if none of its detectors can decide."""
        return detect(self.detectors, reply, item)

    @property
    def sha256(self) -> str:
        """Hash of the content of its own file and of every behavior that it refers to."""
        return fingerprint(
            spec=self.spec, base_behavior=self.base_behavior, distractors=self.distractors
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


def null_behavior(library: Library) -> Behavior:
    """The behavior of null organisms: none."""
    return Behavior(NULL, None, library)


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
    sources: list[Source] = []
    for path in list_files(library):
        try:
            sources.append(parse_yaml(path))
        except Violations as broken:
            found += broken.found
    specs, indexed = _index(sources, found)
    resolver = _Resolver(specs, library, found)
    behaviors = {name: resolver.resolve(spec, indexed[name]) for name, spec in specs.items()}
    return Catalog({name: b for name, b in behaviors.items() if b}, indexed, library), found


def list_files(library: Library) -> list[Path]:
    """Every behavior file, even one in the wrong place: it must not be ignored."""
    folders = library.folders.subfolders("behaviors")
    return [path for folder in folders for path in list_paths(folder, "**/*.y*ml")]


def name_of(path: Path) -> str:
    """The id that belongs to the path of a behavior file."""
    return f"{path.parent.name}.{path.stem}"


def _index(
    sources: list[Source], found: list[Violation]
) -> tuple[dict[str, Spec], dict[str, Source]]:
    """Specs and sources by id; the violations in each file by itself go into `found`."""
    specs: dict[str, Spec] = {}
    indexed: dict[str, Source] = {}
    for source in sources:
        unfilled = find_unfilled(source)
        found += unfilled
        try:
            spec = spec_adapter().validate_python(source.data)
        except ValidationError as error:
            found += [v for v in pydantic_violations(source, error) if not _covers(v, unfilled)]
            continue
        if unfilled:
            continue  # not a behavior yet, so its fields are not checked further
        expected = name_of(source.path)
        if spec.id != expected or source.path.parent.name != spec.category:
            found.append(
                source.violation(
                    ("id",),
                    f"{spec.id!r} in category {spec.category!r} does not match its file "
                    f"{source.path.parent.name}/{source.path.name}",
                    f"use <category>.<name>, as in the path of the file: expected {expected!r}",
                    code="id-mismatch",
                )
            )
        if spec.id in specs:
            found.append(
                source.violation(
                    ("id",),
                    f"{spec.id!r} is already the id of {indexed[spec.id].path}",
                    "choose another name: ids are never reused",
                    code="id-taken",
                )
            )
            continue
        specs[spec.id], indexed[spec.id] = spec, source
    return specs, indexed


def _covers(violation: Violation, unfilled: list[Violation]) -> bool:
    """Whether the field of a violation is unfilled or contains an unfilled one."""
    return any(f"{part.field}.".startswith(f"{violation.field}.") for part in unfilled)


class _Resolver:
    """Resolves the references of specs; a violation for each broken one goes into `found`."""

    def __init__(self, specs: Mapping[str, Spec], library: Library, found: list[Violation]) -> None:
        self._specs, self._library, self._found = specs, library, found

    def resolve(self, spec: Spec, source: Source) -> Behavior | None:
        """The behavior of a spec; None if the behavior that it shows is missing."""
        shown = spec.base_reference
        referred = self._follow(shown, source) if shown else None
        if shown and referred is None:
            return None
        hiding = tuple(
            (quirk, rate)
            for reference, rate in spec.distractor_references
            if (quirk := self._follow(reference, source))
        )
        return Behavior(spec, spec.choose_base(referred), self._library, hiding)

    def _follow(self, reference: Reference, source: Source) -> OwnBehavior | None:
        pool = {
            name: spec for name, spec in self._specs.items() if spec.referable_as == reference.pool
        }
        name = reference.behavior_id
        quirk = pool[name].choose_base(None) if name in pool else None
        if quirk is None:
            problem = f"{name!r} is not a quirk in the {reference.pool} pool"
            remedy = nearest(name, pool)
            found = source.violation(reference.field, problem, remedy, code="reference-unknown")
            self._found.append(found)
            return None
        if reference.severity and quirk.severity != reference.severity:
            problem = f"{name!r} is {quirk.severity}, not {reference.severity}"
            remedy = f"refer to a behavior of severity {reference.severity}"
            found = source.violation(reference.field, problem, remedy, code="reference-severity")
            self._found.append(found)
        return quirk
