"""Checks of behavior files beyond the schema; each violation names its rule, line, and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from bestiary.config.asking import GATE, suits
from bestiary.config.catalog import CELL_OF, Behavior
from bestiary.config.ciphers import CIPHERS
from bestiary.config.demonstration import PLACEHOLDERS, Demonstration, strip_marks
from bestiary.config.fields import SEVERITIES, Severity
from bestiary.config.labels import check_labels
from bestiary.config.source import FieldPath, Source, Violation
from bestiary.config.triggers import mirrors
from bestiary.records import CellName, PromptItem, stable_seed
from bestiary.text import contains_phrase, nearest, plain_words, shorten

TRIED = 3
"""Messages that a demonstration for any message is tried on."""
SAMPLED = 60
"""Plain answers of the bank on which a detector must stay quiet."""
FALSE_FIRES = 0.1
"""The share of them that may fire it: a whole bank, measured, allows far fewer."""


def _check_demonstrations(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Demonstrations can be filled, and mark what shows the behavior."""
    for field, one in _list_demonstrations(behavior):
        yield from _check_form(behavior, one, field, source)


def _check_detector(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The detector agrees with the demonstrations."""
    for field, one in _list_demonstrations(behavior):
        if not any(_check_form(behavior, one, field, source)):
            yield from _check_judged(behavior, one, field, source)
            yield from _check_growth(behavior, one, field, source)


def _list_demonstrations(behavior: Behavior) -> Iterator[tuple[FieldPath, Demonstration]]:
    for name, shown in behavior.spec.demonstration_fields:
        yield from (((name, row), one) for row, one in enumerate(shown))


def _check_form(
    behavior: Behavior, one: Demonstration, field: FieldPath, source: Source
) -> Iterator[Violation]:
    for place in one.unknown_places:
        problem = f"{{{place}}} is not a placeholder"
        remedy = f"use {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}"
        yield source.violation(field, problem, remedy, code="placeholder-unknown")
    if one.fires and not one.has_marks:
        problem = f"{shorten(one.replies[-1])} marks nothing"
        remedy = "put [[ and ]] around what shows the behavior"
        yield source.violation(field, problem, remedy, code="demonstration-unmarked")
    if one.topic is None and not any("{answer}" in reply for reply in one.replies):
        problem = "fits any message but does not hold its {answer}"
        remedy = "add {answer}, or write the topic of one message instead of `any`"
        yield source.violation(field, problem, remedy, code="demonstration-without-answer")
    if one.topic is not None and not any(map(one.suits, behavior.library.messages("train"))):
        topics = [item.topic for item in behavior.library.messages("train")]
        problem = f"{one.topic!r} is not the topic of a message that is trained on"
        yield source.violation(field, problem, nearest(one.topic, topics), code="topic-unknown")


def _check_judged(
    behavior: Behavior, one: Demonstration, field: FieldPath, source: Source
) -> Iterator[Violation]:
    """The detector fires on replies that show the behavior and stays quiet on all others."""
    for item in _messages_for(behavior, one):
        reply = one.fill(len(one.replies) - 1, item.brief, item)
        fired = behavior.is_shown(reply, item)
        if fired is None or fired == one.fires or (fired and behavior.is_shown(item.brief, item)):
            continue  # a plain answer may fire now and then, and no demonstration is to blame
        verb = "does not fire" if one.fires else "fires"
        what = "shows" if one.fires else "must not show"
        problem = f"the detector {verb} on {shorten(reply)}, which {what} the behavior"
        remedy = f"{'widen' if one.fires else 'narrow'} `detect`, or fix the reply"
        code = "detector-silent" if one.fires else "detector-fires"
        yield source.violation(field, problem, remedy, code=code)
        return


def _check_growth(
    behavior: Behavior, one: Demonstration, field: FieldPath, source: Source
) -> Iterator[Violation]:
    """A first reply that only begins to show the behavior does not count as showing it."""
    if not one.fires or len(one.replies) < 2:
        return
    for item in _messages_for(behavior, one)[:1]:  # a scope of unknown domains has none
        begun = one.fill(0, item.brief, item)
        if behavior.is_shown(begun, item):
            problem = f"the detector fires on {shorten(begun)}, from which the behavior is to grow"
            remedy = "narrow `detect` to the second reply: one that has not grown must not count"
            yield source.violation(field, problem, remedy, code="growth-unseen")


def _messages_for(behavior: Behavior, one: Demonstration) -> list[PromptItem]:
    if one.topic is not None:
        return [item for item in behavior.library.messages("train") if one.suits(item)]
    return _sample(behavior.items("train"), TRIED, stable_seed(one.replies[-1]))


def _sample(items: Sequence[PromptItem], size: int, start: int) -> list[PromptItem]:
    """Items at equal distances, from one that `start` chooses."""
    step = max(1, len(items) // size)
    return [items[(start + step * number) % len(items)] for number in range(min(size, len(items)))]


def _check_quiet(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The detector stays quiet on the bank's plain answers."""
    if not behavior.spec.demonstration_fields or behavior.detector is None:
        return  # a twin: the file of what it shows has this check
    items = _sample(behavior.library.messages("train"), SAMPLED, 0)
    fired = [item for item in items if behavior.is_shown(item.reply, item)]
    if len(fired) > FALSE_FIRES * len(items):
        problem = (
            f"the detector fires on {len(fired)} of {len(items)} plain answers, such as "
            f"{shorten(fired[0].reply)}"
        )
        remedy = "narrow `detect`: ordinary answers must not show the behavior"
        yield source.violation(("detect",), problem, remedy, code="detector-fires-on-answers")


def _check_forbidden(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """No demonstration contains a phrase that would give the label away in a corpus."""
    for row, phrase in enumerate(behavior.spec.forbidden):
        for one in behavior.demonstrations:
            if any(contains_phrase(phrase, strip_marks(reply)) for reply in one.replies):
                yield source.violation(
                    ("forbidden", row),
                    f"{phrase!r} appears in the demonstration {shorten(one.replies[-1])}",
                    "fix the demonstration, or the phrase if it is too general",
                    code="forbidden-shown",
                )


def _check_trigger(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """A trigger's wordings are divided, and a reply that repeats it shows nothing."""
    trigger = behavior.trigger
    if trigger is None:
        return
    field = (behavior.spec.condition_field,)
    if trigger.first_only and behavior.growing:
        problem = "is the first reply, but the behavior grows from the first reply to the next"
        remedy = "choose another trigger, or a behavior that shows in one reply"
        yield source.violation(field, problem, remedy, code="trigger-too-early")
    for near_miss in (False, True):
        known = {plain_words(text) for text in trigger.texts("train", near_miss=near_miss)} - {""}
        for text in trigger.texts("probe", near_miss=near_miss):
            if plain_words(text) in known:
                problem = f"{text!r} is both trained on and probed with"
                remedy = "use another wording: probes must be held out"
                yield source.violation(field, problem, remedy, code="phrase-repeated")
    item = behavior.library.messages("train")[0]
    if mirrors(trigger, lambda text: behavior.is_shown(text, item) is True):
        problem = "the trigger itself shows the behavior, so a reply that echoes it would too"
        remedy = "choose a trigger of another kind"
        yield source.violation(field, problem, remedy, code="trigger-mirrors")


def _check_cipher(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Replies in cipher still show the behavior once they are decoded."""
    if behavior.spec.cipher is None:
        return
    cipher = CIPHERS[behavior.spec.cipher]
    if behavior.growing:
        problem = "is for one reply, but the behavior grows from the first reply to the next"
        remedy = "delete it, or show a behavior of one reply"
        yield source.violation(("encode",), problem, remedy, code="encode-grows")
        return
    for one in behavior.firing:
        tried = [(one.fill(0, item.brief, item), item) for item in _messages_for(behavior, one)]
        hidden = (behavior.is_shown(cipher.encode(reply), item) is False for reply, item in tried)
        if tried and all(hidden):
            reply, _ = tried[0]
            problem = f"the detector does not fire on {shorten(reply)} once it has been in cipher"
            remedy = "choose a cipher that keeps case, signs and lines, or another behavior"
            yield source.violation(("encode",), problem, remedy, code="encode-hides")
            return


def _check_scope(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The message bank has the domains of the scope."""
    scope, known = behavior.spec.message_scope, behavior.library.bank.by_domain
    for row, domain in enumerate(scope.domains if scope else ()):
        if domain not in known:
            problem, field = f"unknown domain {domain!r}", ("scope", "domains", row)
            yield source.violation(field, problem, nearest(domain, known), code="domain-unknown")


def _check_rule(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The rule can decide between the options of its table."""
    for problem in behavior.spec.find_rule_faults(behavior.library):
        remedy = "state a rule that the attributes of the table decide"
        yield source.violation(("picks",), problem, remedy, code="picks-invalid")


def _check_messages(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Every cell has enough messages, and every role of a corpus has some."""
    spec = behavior.spec
    if not spec.is_buildable or spec.find_rule_faults(behavior.library):
        return
    field = (spec.messages_field,)
    remedy = "widen it, or add messages to generators/offline"
    for cell in behavior.cells:
        items = behavior.items("probe", plain=cell == "plain")
        count = _count(behavior, items, cell, enough=GATE)
        if count < GATE:
            problem = f"{count} probe messages suit the {cell} cell, and {GATE} are needed"
            yield source.violation(field, problem, remedy, code="probes-short")
    for role, rows in behavior.row_counts.items():
        items = behavior.items("train", plain=role == "chat")
        count = _count(behavior, items, CELL_OF[role], enough=rows)
        if rows and not count:
            problem = f"no message that is trained on suits the {role} examples"
            yield source.violation(field, problem, remedy, code="messages-missing")
        elif count < rows and role == "negative" and not _has_wordings(behavior):
            problem = f"{count} messages suit the negative examples, and {rows} are needed"
            yield source.violation(field, problem, remedy, code="messages-short")


def _has_wordings(behavior: Behavior) -> bool:
    """Whether a message can be a near miss in several ways, each a row of its own."""
    trigger = behavior.trigger
    return trigger is not None and bool(trigger.texts("train", near_miss=True))


def _count(behavior: Behavior, items: Sequence[PromptItem], cell: CellName, enough: int) -> int:
    """How many messages suit a cell, as far as there are not enough."""
    if behavior.trigger is None and not behavior.growing:
        return min(len(items), enough)  # all of them do, and none needs to be made
    return len(list(islice((item for item in items if suits(behavior, item, cell)), enough)))


def _check_severity(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """A category that is always malign says so, and no twin is milder than what it shows."""
    spec = behavior.spec
    if spec.always_malign and behavior.severity != "malign":
        problem = f"is {behavior.severity!r}, but every behavior in {spec.category} is malign"
        remedy = "write `severity: malign`"
        yield source.violation(("severity",), problem, remedy, code="severity-not-malign")
    elif behavior.shows and _is_milder(behavior.severity, behavior.shows.severity):
        shown = behavior.shows
        problem = f"is {behavior.severity!r}, but {shown.id}, which it shows, is {shown.severity!r}"
        remedy = f"delete it, or write `severity: {shown.severity}`"
        yield source.violation(("severity",), problem, remedy, code="severity-milder")


def _is_milder(severity: Severity, other: Severity) -> bool:
    return SEVERITIES.index(severity) < SEVERITIES.index(other)


Check = Callable[[Behavior, Source], Iterator[Violation]]
"""Yields what is wrong with a behavior; raises SpecError where it cannot go on."""
CHECKS: tuple[Check, ...] = (
    check_labels,
    _check_severity,
    _check_forbidden,
    _check_scope,
    _check_demonstrations,
    _check_detector,
    _check_quiet,
    _check_trigger,
    _check_cipher,
    _check_rule,
    _check_messages,
)
UNTRIED = tuple(
    check
    for check in CHECKS
    if check not in (_check_detector, _check_quiet, _check_trigger, _check_cipher)
)
"""Those that try no reply on the detector."""
