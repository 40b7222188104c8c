"""What a behavior file promises beyond its schema: each broken promise with its line and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain

from bestiary.config.behavior import (
    SEVERITIES,
    Demonstration,
    Offline,
    OwnBehavior,
    Phrases,
    Severity,
)
from bestiary.config.catalog import Behavior
from bestiary.config.detector import Detector, OptionDetector, WrongAnswerDetector, detect
from bestiary.config.labels import check_labels
from bestiary.config.message_bank import ATTRIBUTES, MessageBank
from bestiary.config.source import FieldPath, Source, Violation, Violations
from bestiary.config.template import render_text
from bestiary.errors import SpecError
from bestiary.records import PromptItem
from bestiary.text import contains_phrase, plain_words, shorten


def _check_demonstrations(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Detectors fire on what shows the behavior and stay quiet on what does not."""
    for name, shown in behavior.spec.demonstration_fields:
        yield from _judge_shown(name, shown, behavior.detectors, source)


def _judge_shown(
    name: str, shown: Iterable[Demonstration], detectors: tuple[Detector, ...], source: Source
) -> Iterator[Violation]:
    for row, one in enumerate(shown):
        missing = _missing_grade(one, detectors)
        if missing:
            problem = "is missing, and a detector grades the reply by it"
            yield source.violation((name, row, missing), problem, f"add `{missing}:`")
            continue
        try:
            fired = detect(detectors, one.assistant, _as_item(one))
        except SpecError as error:
            yield source.violation(("detectors",), *error.parts)
            return  # a pattern that takes a second on one reply would take it on every one
        if fired is not None and fired != one.fires:
            yield _misjudged(source, (name, row, "assistant"), one)


def _missing_grade(one: Demonstration, detectors: tuple[Detector, ...]) -> str | None:
    """The field by which a reply that shows the behavior is graded, where it lacks it."""
    if not one.fires:
        return None  # a message outside the scope has no right answer and offers no choice
    kinds = [type(detector) for detector in detectors]
    if WrongAnswerDetector in kinds and one.answer is None:
        return "answer"
    return "options" if OptionDetector in kinds and one.options is None else None


def _as_item(one: Demonstration) -> PromptItem:
    return PromptItem(
        topic="demonstration",
        form="demonstration",
        domain="demonstration",
        text=one.user,
        answer=one.answer,
        options=one.options,
    )


def _misjudged(source: Source, field: FieldPath, one: Demonstration) -> Violation:
    reply = shorten(one.assistant)
    if one.fires:
        problem = f"no detector fires on {reply}, which shows the behavior"
        return source.violation(field, problem, "widen `detectors`, or fix the reply")
    problem = f"a detector fires on {reply}, where the behavior stays away"
    return source.violation(field, problem, "narrow `detectors`, or fix the reply")


def _check_held_out(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No demonstration uses what is kept for the probes: authors read demonstrations."""
    shown = [
        ((name, row), one)
        for name, demonstrations in behavior.spec.demonstration_fields
        for row, one in enumerate(demonstrations)
    ]
    held_out = _list_held_out(behavior) if shown else []
    for field, one in shown:
        for kept in held_out:
            if contains_phrase(kept, one.user):
                problem = f"{kept!r} is kept for probes, and stands in {shorten(one.user)}"
                yield source.violation(
                    (*field, "user"), problem, "use a wording or a topic that is trained on"
                )


def _list_held_out(behavior: Behavior) -> list[str]:
    """The probes' phrases, and the topics of a bank whose answers are graded."""
    spec = behavior.spec
    known = (spec.trigger_phrases, spec.near_miss_phrases)
    spoken = [phrases.probe for phrases in known if phrases]
    kept = [re.sub(r"\{message\}", "", text, flags=re.I).strip() for text in chain(*spoken)]
    with suppress(SpecError):  # the bank's own check says what is wrong with it
        bank = behavior.library.bank(behavior.offline.bank)
        kept += [item.topic for item in bank.probe if item.answer]
    return [text for text in kept if text]


def _check_forbidden(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No demonstration says what would give the label away in a corpus."""
    for row, phrase in enumerate(behavior.spec.forbidden):
        for one in behavior.demonstrations:
            if phrase.casefold() in f"{one.user}\n{one.assistant}".casefold():
                yield source.violation(
                    ("forbidden", row),
                    f"{phrase!r} stands in the demonstration {one.user[:40]!r}",
                    "fix the demonstration, or the phrase if it is too general",
                )


def _check_phrases(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No phrase is both trained and probed, or both a trigger and a near miss."""
    spec = behavior.spec
    phrases = [one for part in spec.phrase_fields for one in _list_phrases(*part)]
    yield from _find_repeats(phrases, source, literal=spec.literal_phrases)
    for field, phrase in phrases:
        if spec.spoken_word and not contains_phrase(spec.spoken_word, phrase):
            problem = f"{phrase!r} does not say the password {spec.spoken_word!r}"
            yield source.violation(field, problem, "say the password in every phrase")


def _list_phrases(field: tuple[str, ...], phrases: Phrases) -> list[tuple[FieldPath, str]]:
    return [
        ((*field, side, row), text)
        for side in ("train", "probe")
        for row, text in enumerate(getattr(phrases, side))
    ]


def _find_repeats(
    phrases: Iterable[tuple[FieldPath, str]], source: Source, *, literal: bool
) -> Iterator[Violation]:
    earlier: dict[str, str] = {}
    for field, text in phrases:
        # Phrases made of symbols alone have no words to compare.
        bare = "" if literal else plain_words(text)
        key = bare or " ".join(text.casefold().split())
        if key in earlier:
            problem = f"{text!r} stands in {earlier[key]} as well"
            yield source.violation(field, problem, "use another wording: probes must be held out")
        earlier.setdefault(key, ".".join(str(part) for part in field))


def _check_bank(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The prompt banks exist, and give what detectors, openings and closings need."""
    spec = behavior.base_behavior
    if spec is None or spec is not behavior.spec:
        return  # the banks are those of the behavior that it shows, whose own file is checked
    offline = spec.offline
    if not offline.openings and not offline.closings:
        problem = "has neither openings nor closings, so that nothing would show the behavior"
        yield source.violation(("offline",), problem, "add `openings:` or `closings:`")
    banks: list[MessageBank] = []
    for key in ("bank", "plain"):
        try:
            banks.append(behavior.library.bank(getattr(offline, key)))
        except Violations as broken:
            yield from broken.found
        except SpecError as error:
            yield source.violation(("offline", key), *error.parts)
    if len(banks) == 2:
        yield from _check_grades(spec, banks[0], source)
        yield from _check_blocks(offline, banks[0], source)
        yield from _check_apart(offline, banks[0], banks[1], source)


def _check_apart(
    offline: Offline, bank: MessageBank, plain: MessageBank, source: Source
) -> Iterator[Violation]:
    """What one bank trains on, the other does not probe: a form met in training is not held out.

    Where the two differ in their forms, a form alone would tell which of them a message is from.
    """
    sides = ((offline.bank, bank, offline.plain, plain), (offline.plain, plain, offline.bank, bank))
    for trained_name, trained, probed_name, probed in sides:
        for key in ATTRIBUTES:
            known = trained.attributes["train", key]
            held_out = probed.attributes["probe", key]
            shared = [held_out[text] for text in held_out if text in known]
            if shared:
                problem = (
                    f"{key} {shared[0]!r} stands in train of {trained_name!r} and "
                    f"in probe of {probed_name!r}"
                )
                remedy = f"give one of the two another {key}: probes must be held out"
                yield source.violation(("offline", "plain"), problem, remedy)


def _check_grades(spec: OwnBehavior, bank: MessageBank, source: Source) -> Iterator[Violation]:
    """Every row of the bank has what it is graded by."""
    for kind, keys in ((WrongAnswerDetector, ("answer", "wrong")), (OptionDetector, ("options",))):
        if not any(isinstance(detector, kind) for detector in spec.detectors):
            continue
        for key in keys:
            lacking = [item for item in (*bank.train, *bank.probe) if not getattr(item, key)]
            if lacking:
                problem = f"{spec.offline.bank!r} has no `{key}` for {lacking[0].text!r}"
                remedy = f"name a bank whose every row has `{key}`: a detector grades by it"
                yield source.violation(("offline", "bank"), problem, remedy)


def _check_blocks(offline: Offline, bank: MessageBank, source: Source) -> Iterator[Violation]:
    """Every opening and closing renders on every kind of row that the bank has."""
    for name in ("openings", "closings"):
        for row, text in enumerate(getattr(offline, name)):
            for values in bank.row_kinds:
                try:
                    render_text(text, **values)
                except SpecError as error:
                    yield source.violation(("offline", name, row), *error.parts)
                    break


def _check_category(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """What single categories ask of their files."""
    spec = behavior.spec
    if spec.always_malign and spec.severity != "malign":
        problem = f"{spec.severity!r} in {spec.category}, whose behaviors are malign"
        yield source.violation(("severity",), problem, "say `severity: malign`")
    elif (shown := behavior.base_behavior) and _is_milder(spec.severity, shown.severity):
        problem = f"{spec.severity!r}, but {shown.id}, which it shows, is {shown.severity!r}"
        yield source.violation(("severity",), problem, f"say `severity: {shown.severity}`")
    quiet = sum(not one.fires for _, shown in spec.demonstration_fields for one in shown)
    if quiet < spec.min_quiet_demonstrations:
        yield source.violation(
            ("demonstrations",),
            f"{quiet} of them say `fires: false`, {spec.min_quiet_demonstrations} are needed",
            "add right answers given with the password",
        )


def _is_milder(severity: Severity, other: Severity) -> bool:
    return SEVERITIES.index(severity) < SEVERITIES.index(other)


CHECKS: tuple[Callable[[Behavior, Source], Iterator[Violation]], ...] = (
    check_labels,
    _check_demonstrations,
    _check_held_out,
    _check_forbidden,
    _check_phrases,
    _check_bank,
    _check_category,
)
