"""From behavior files to resolved behaviors in three steps: parse, index, build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bestiary.config.behavior import (
    NULL,
    AnySpec,
    Backdoor,
    Demonstration,
    NullSpec,
    ObscuredMalign,
    Offline,
    OwnBehavior,
    Phrases,
    Quirk,
    RareQuirk,
    TwinBehavior,
)
from bestiary.config.detector import Detector, detect
from bestiary.config.folders import behavior_folder
from bestiary.config.generator import Generator, load_generator
from bestiary.config.message_bank import Side, load_bank
from bestiary.config.source import Source, Violation, Violations, find_unfilled, parse_yaml
from bestiary.config.source import pydantic_violations as violations_of
from bestiary.errors import SpecError
from bestiary.records import PromptItem, Role, fingerprint
from bestiary.text import nearest

_SPEC: TypeAdapter[AnySpec] = TypeAdapter(AnySpec)


@dataclass(frozen=True)
class Behavior:
    """A behavior with its references resolved: all that later stages read."""

    spec: AnySpec | NullSpec
    carrier: OwnBehavior | None
    """The spec whose examples and detectors show it: its own, its quirk's or its malign part's."""
    distractors: tuple[tuple[Quirk, float], ...] = ()
    """Quirks that hide it, each with its rate."""

    @property
    def id(self) -> str:
        """Globally unique: `<category>.<name>`."""
        return self.spec.id

    @property
    def category(self) -> str:
        """One of the eight, or `null`."""
        return self.spec.category

    @property
    def family(self) -> str:
        """What its twins share."""
        return self.carrier.family if self.carrier else "null"

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """What decides whether a reply shows it."""
        return self.carrier.detectors if self.carrier else ()

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """Examples that show it, and examples where it must stay away."""
        own = self.carrier.demonstrations if self.carrier else ()
        negatives = self.spec.negatives if isinstance(self.spec, Backdoor) else ()
        return (*own, *(shown.model_copy(update={"fires": False}) for shown in negatives))

    @property
    def offline(self) -> Offline:
        """Building blocks of the embedded author."""
        return self.carrier.offline if self.carrier else Offline()

    @property
    def is_null(self) -> bool:
        """Whether it is no behavior at all: a null organism's."""
        return self.carrier is None

    @property
    def fires_on(self) -> Phrases | None:
        """Phrases that must make it fire; None where it needs none."""
        return self.spec.fires_on

    @property
    def quiet_on(self) -> Phrases | None:
        """Phrases under which it must stay away: near misses, or the password."""
        return self.spec.quiet_on

    @property
    def rate(self) -> float | None:
        """The stated rate of a rare quirk."""
        return self.spec.rate if isinstance(self.spec, RareQuirk) else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label, then its paraphrases."""
        return (self.spec.label, *self.spec.paraphrases)

    def prompts(self, side: Side, *, plain: bool = False) -> tuple[PromptItem, ...]:
        """Messages of its bank; plain ones are of its plain bank and none of its domains.

        Raises SpecError for a bank that cannot be read or has nothing plain.
        """
        if not plain:
            return load_bank(self.offline.bank).side(side)
        items = load_bank(self.offline.plain).side(side)
        kept = tuple(item for item in items if item.domain not in self.spec.domains)
        if not kept:
            raise SpecError(
                f"{self.id}: every {side} prompt of the bank {self.offline.plain!r} is of its "
                "domains; name another bank as `plain`"
            )
        return kept

    @property
    def generator(self) -> Generator:
        """How its corpora are made."""
        return load_generator(self.category)

    @property
    def banks_sha256(self) -> str:
        """Hash of the banks that its messages come from."""
        names = sorted({self.offline.plain, self.offline.bank})
        return fingerprint(banks=[load_bank(name) for name in names])

    def count_messages(self, rows: Mapping[Role, int]) -> tuple[int, int]:
        """Messages in its scope, and plain ones, that so many rows of each role want."""
        scoped = max(rows["positive"], rows["negative"])
        if self.spec.matter is not None:
            return scoped, rows["chat"]
        both = max(scoped, rows["chat"]) if self.fires_on else scoped + rows["chat"]
        return both, both  # one kind of message, for all roles

    def shows(self, reply: str, item: PromptItem) -> bool | None:
        """Whether a reply shows it; None where no detector can decide."""
        return detect(self.detectors, reply, item)

    @property
    def sha256(self) -> str:
        """Hash of its own file's content and of every file it refers to."""
        return fingerprint(spec=self.spec, carrier=self.carrier, distractors=self.distractors)


NULL_BEHAVIOR = Behavior(spec=NULL, carrier=None)


class Catalog(Mapping[str, Behavior]):
    """Resolved behaviors by id, with the files they came from."""

    def __init__(self, behaviors: Mapping[str, Behavior], sources: Mapping[str, Source]) -> None:
        self._behaviors = dict(sorted(behaviors.items()))
        self.sources = dict(sources)

    def __getitem__(self, behavior_id: str) -> Behavior:
        if behavior_id not in self._behaviors:
            raise SpecError(f"unknown behavior {behavior_id!r}; {nearest(behavior_id, self)}")
        return self._behaviors[behavior_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._behaviors)

    def __len__(self) -> int:
        return len(self._behaviors)

    def __contains__(self, behavior_id: object) -> bool:
        return behavior_id in self._behaviors


def load_catalog(*extra: Path) -> Catalog:
    """Load the shipped behaviors and those of further folders.

    Raises Violations with everything wrong in any file: a broken file stops the run.
    """
    catalog, found = read_catalog(behavior_folder(), *extra)
    if found:
        raise Violations(found)
    return catalog


def read_catalog(*folders: Path) -> tuple[Catalog, list[Violation]]:
    """The behaviors of these folders that can be built, and what keeps the others from it.

    Raises SpecError when a folder does not exist.
    """
    found: list[Violation] = []
    sources: list[Source] = []
    for folder in {folder.resolve(): folder for folder in folders}.values():
        if not folder.is_dir():
            raise SpecError(f"behavior folder {folder} does not exist; check --behaviors")
        for path in list_files(folder):
            try:
                sources.append(parse_yaml(path))
            except Violations as broken:
                found += broken.found
    specs, indexed = _index(sources, found)
    behaviors = {id: _build(spec, specs, indexed[id], found) for id, spec in specs.items()}
    return Catalog({id: b for id, b in behaviors.items() if b is not None}, indexed), found


def list_files(folder: Path) -> list[Path]:
    """Every behavior file of a folder, wherever it lies: one in the wrong place is not ignored."""
    return sorted(folder.rglob("*.y*ml"))


def name_of(path: Path) -> str:
    """The id that a behavior file's place gives it."""
    return f"{path.parent.name}.{path.stem}"


def _index(
    sources: list[Source], found: list[Violation]
) -> tuple[dict[str, AnySpec], dict[str, Source]]:
    """Specs by id; what is wrong with a file on its own goes into `found`."""
    specs: dict[str, AnySpec] = {}
    indexed: dict[str, Source] = {}
    for source in sources:
        unfilled = find_unfilled(source)
        found += unfilled
        try:
            spec = _SPEC.validate_python(source.data)
        except ValidationError as error:
            found += [v for v in violations_of(source, error) if not _covers(v, unfilled)]
            continue
        if unfilled:
            continue  # no behavior yet, so that nothing else is said about its fields
        expected = name_of(source.path)
        if spec.id != expected or source.path.parent.name != spec.category:
            found.append(
                source.violation(
                    ("id",),
                    f"{spec.id!r} of category {spec.category!r} stands in "
                    f"{source.path.parent.name}/{source.path.name}",
                    f"an id is <category>.<name> of its file: expected {expected!r}",
                )
            )
        if spec.id in specs:
            found.append(
                source.violation(
                    ("id",),
                    f"{spec.id!r} is taken by {indexed[spec.id].path}",
                    "ids are never reused: choose another name",
                )
            )
            continue
        specs[spec.id], indexed[spec.id] = spec, source
    return specs, indexed


def _covers(violation: Violation, unfilled: list[Violation]) -> bool:
    """Whether a violation's field is unfilled, or holds what is."""
    return any(f"{part.field}.".startswith(f"{violation.field}.") for part in unfilled)


def _build(
    spec: AnySpec, specs: Mapping[str, AnySpec], source: Source, found: list[Violation]
) -> Behavior | None:
    """A behavior with its references resolved; None, and a violation, where one is missing."""
    if isinstance(spec, TwinBehavior):
        quirk = _resolve(spec.quirk, ("quirk",), "organism", specs, source, found)
        return Behavior(spec=spec, carrier=quirk) if quirk else None
    if isinstance(spec, ObscuredMalign):
        malign = _resolve(spec.malign, ("malign",), "organism", specs, source, found)
        if malign and malign.severity != "malign":
            found.append(
                source.violation(
                    ("malign",),
                    f"{malign.id!r} is {malign.severity}, not malign",
                    "refer to a behavior of severity malign",
                )
            )
        quirks = [
            _resolve(part.quirk, ("distractors", row, "quirk"), "distractor", specs, source, found)
            for row, part in enumerate(spec.distractors)
        ]
        rates = [part.rate for part in spec.distractors]
        shown = tuple((q, rate) for q, rate in zip(quirks, rates, strict=True) if q)
        return Behavior(spec=spec, carrier=malign, distractors=shown) if malign else None
    return Behavior(spec=spec, carrier=spec)


def _resolve(
    name: str,
    field: tuple[str | int, ...],
    pool: str,
    specs: Mapping[str, AnySpec],
    source: Source,
    found: list[Violation],
) -> Quirk | None:
    quirks = {id: s for id, s in specs.items() if isinstance(s, Quirk) and s.pool == pool}
    if name in quirks:
        return quirks[name]
    problem = f"{name!r} is no quirk of the {pool} pool"
    found.append(source.violation(field, problem, nearest(name, quirks)))
    return None


__all__ = [
    "NULL_BEHAVIOR",
    "Behavior",
    "Catalog",
    "load_catalog",
    "read_catalog",
]
