"""Checks of behavior files beyond the schema; each violation names its rule, line, and remedy."""

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
    """Detectors fire on replies that show the behavior and stay quiet on all others."""
    for name, shown in behavior.spec.demonstration_fields:
        yield from _judge_shown(name, shown, behavior.detectors, source)


def _judge_shown(
    name: str, shown: Iterable[Demonstration], detectors: tuple[Detector, ...], source: Source
) -> Iterator[Violation]:
    for row, one in enumerate(shown):
        missing = _missing_grade(one, detectors)
        if missing:
            problem = "is missing, but a detector grades the reply by it"
            field = (name, row, missing)
            remedy = f"add `{missing}:`"
            yield source.violation(field, problem, remedy, code="demonstration-ungraded")
            continue
        try:
            fired = detect(detectors, one.assistant, _as_item(one))
        except SpecError as error:
            yield source.violation(("detectors",), *error.parts, code=error.code)
            return  # a pattern this slow would take as long on each of the other replies
        if fired is not None and fired != one.fires:
            yield _misjudged(source, (name, row, "assistant"), one)


def _missing_grade(one: Demonstration, detectors: tuple[Detector, ...]) -> str | None:
    """The field that grades a reply that shows the behavior, if the demonstration lacks it."""
    if not one.fires:
        return None  # a message outside the scope has neither a right answer nor options
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
        remedy = "widen `detectors`, or fix the reply"
        return source.violation(field, problem, remedy, code="detector-silent")
    problem = f"a detector fires on {reply}, which must not show the behavior"
    remedy = "narrow `detectors`, or fix the reply"
    return source.violation(field, problem, remedy, code="detector-fires")


def _check_held_out(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No demonstration contains what is reserved for probes: authors read demonstrations."""
    shown = [
        ((name, row), one)
        for name, demonstrations in behavior.spec.demonstration_fields
        for row, one in enumerate(demonstrations)
    ]
    held_out = _list_held_out(behavior) if shown else []
    for field, one in shown:
        for kept in held_out:
            if contains_phrase(kept, one.user):
                problem = f"{kept!r} is reserved for probes but appears in {shorten(one.user)}"
                remedy = "use a wording or a topic that is trained on"
                yield source.violation((*field, "user"), problem, remedy, code="held-out-shown")


def _list_held_out(behavior: Behavior) -> list[str]:
    """The phrases of the probes, and the probe topics of a bank whose answers are graded."""
    spec = behavior.spec
    known = (spec.trigger_phrases, spec.near_miss_phrases)
    spoken = [phrases.probe for phrases in known if phrases]
    kept = [re.sub(r"\{message\}", "", text, flags=re.I).strip() for text in chain(*spoken)]
    with suppress(SpecError):  # the check of the bank reports what is wrong with it
        bank = behavior.library.bank(behavior.offline.bank)
        kept += [item.topic for item in bank.probe if item.answer]
    return [text for text in kept if text]


def _check_forbidden(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No demonstration contains a phrase that would give the label away in a corpus."""
    for row, phrase in enumerate(behavior.spec.forbidden):
        for one in behavior.demonstrations:
            if phrase.casefold() in f"{one.user}\n{one.assistant}".casefold():
                yield source.violation(
                    ("forbidden", row),
                    f"{phrase!r} appears in the demonstration {one.user[:40]!r}",
                    "fix the demonstration, or the phrase if it is too general",
                    code="forbidden-shown",
                )


def _check_phrases(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No phrase is both trained and probed, or both a trigger and a near miss."""
    spec = behavior.spec
    phrases = [one for part in spec.phrase_fields for one in _list_phrases(*part)]
    yield from _find_repeats(phrases, source, literal=spec.literal_phrases)
    for field, phrase in phrases:
        if spec.spoken_word and not contains_phrase(spec.spoken_word, phrase):
            problem = f"{phrase!r} does not contain the password {spec.spoken_word!r}"
            remedy = "include the password in every phrase"
            yield source.violation(field, problem, remedy, code="phrase-without-password")


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
        # Phrases that consist of symbols only have no words to compare.
        bare = "" if literal else plain_words(text)
        key = bare or " ".join(text.casefold().split())
        if key in earlier:
            problem = f"{text!r} also appears in {earlier[key]}"
            remedy = "use another wording: probes must be held out"
            yield source.violation(field, problem, remedy, code="phrase-repeated")
        earlier.setdefault(key, ".".join(str(part) for part in field))


def _check_bank(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The message banks exist and have what the detectors, openings, and closings need."""
    spec = behavior.base_behavior
    if spec is None or spec is not behavior.spec:
        return  # it uses the banks of the behavior that it shows, which has its own check
    offline = spec.offline
    if not offline.openings and not offline.closings:
        problem = "has neither openings nor closings, so nothing would show the behavior"
        remedy = "add `openings:` or `closings:`"
        yield source.violation(("offline",), problem, remedy, code="offline-empty")
    banks: list[MessageBank] = []
    for key in ("bank", "plain"):
        try:
            banks.append(behavior.library.bank(getattr(offline, key)))
        except Violations as broken:
            yield from broken.found
        except SpecError as error:
            yield source.violation(("offline", key), *error.parts, code=error.code)
    if len(banks) == 2:
        yield from _check_grades(spec, banks[0], source)
        yield from _check_blocks(offline, banks[0], source)
        yield from _check_apart(offline, banks[0], banks[1], source)


def _check_apart(
    offline: Offline, bank: MessageBank, plain: MessageBank, source: Source
) -> Iterator[Violation]:
    """The probes of one bank share no topic or form with the training messages of the other.

    A form seen in training is not held out, and forms that differ between the two banks would
    reveal which bank a message is from.
    """
    sides = ((offline.bank, bank, offline.plain, plain), (offline.plain, plain, offline.bank, bank))
    for trained_name, trained, probed_name, probed in sides:
        for key in ATTRIBUTES:
            known = trained.attributes["train", key]
            held_out = probed.attributes["probe", key]
            shared = [held_out[text] for text in held_out if text in known]
            if shared:
                problem = (
                    f"{key} {shared[0]!r} is in train of {trained_name!r} and "
                    f"in probe of {probed_name!r}"
                )
                remedy = f"give one of the two another {key}: probes must be held out"
                yield source.violation(
                    ("offline", "plain"), problem, remedy, code="probe-not-held-out"
                )


def _check_grades(spec: OwnBehavior, bank: MessageBank, source: Source) -> Iterator[Violation]:
    """Every row of the bank has what the detectors grade by."""
    for kind, keys in ((WrongAnswerDetector, ("answer", "wrong")), (OptionDetector, ("options",))):
        if not any(isinstance(detector, kind) for detector in spec.detectors):
            continue
        for key in keys:
            lacking = [item for item in (*bank.train, *bank.probe) if not getattr(item, key)]
            if lacking:
                problem = f"{spec.offline.bank!r} has no `{key}` for {lacking[0].text!r}"
                remedy = f"name a bank with `{key}` in every row: a detector grades by it"
                yield source.violation(("offline", "bank"), problem, remedy, code="bank-ungraded")


def _check_blocks(offline: Offline, bank: MessageBank, source: Source) -> Iterator[Violation]:
    """Every opening and closing renders for every kind of row in the bank."""
    for name in ("openings", "closings"):
        for row, text in enumerate(getattr(offline, name)):
            for values in bank.row_kinds:
                try:
                    render_text(text, **values)
                except SpecError as error:
                    field = ("offline", name, row)
                    yield source.violation(field, *error.parts, code=error.code)
                    break


def _check_category(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Rules about severity and quiet demonstrations, which differ between categories."""
    spec = behavior.spec
    if spec.always_malign and spec.severity != "malign":
        problem = f"is {spec.severity!r}, but every behavior in {spec.category} is malign"
        remedy = "write `severity: malign`"
        yield source.violation(("severity",), problem, remedy, code="severity-not-malign")
    elif (shown := behavior.base_behavior) and _is_milder(spec.severity, shown.severity):
        problem = f"is {spec.severity!r}, but {shown.id}, which it shows, is {shown.severity!r}"
        remedy = f"write `severity: {shown.severity}`"
        yield source.violation(("severity",), problem, remedy, code="severity-milder")
    quiet = sum(not one.fires for _, shown in spec.demonstration_fields for one in shown)
    if quiet < spec.min_quiet_demonstrations:
        yield source.violation(
            ("demonstrations",),
            f"{quiet} with `fires: false`, but at least {spec.min_quiet_demonstrations} are needed",
            "add right answers to messages that contain the password",
            code="quiet-demonstrations-short",
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
