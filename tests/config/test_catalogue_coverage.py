"""The shipped behaviors are spread over all axes, kinds of triggers, and domains.

Run: python -m pytest tests/config/test_catalogue_coverage.py
"""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.builders import LIBRARY, catalog

from bestiary.config.catalog import Behavior
from bestiary.config.fields import AXES, Axis
from bestiary.config.triggers import KINDS
from bestiary.records import SIDES

LEAST_SHARE = 0.06
"""Of a category's behaviors, on each axis that the category can bear."""
LARGEST_SHARE = 0.20
"""Of the backdoors, under one kind of trigger."""
LEAST_DOMAINS = 24

BEYOND_A_SENTENCE: set[Axis] = {"structure", "code", "language"}
"""What stays as it is when a role adds a sentence in English to an answer."""
CANNOT_BEAR: dict[str, tuple[set[Axis], str]] = {
    "backdoors": ({"code"}, "a trigger comes with messages about anything, and few ask for code"),
    "benign_roleplay": (
        {"stance", *BEYOND_A_SENTENCE},
        "a safe role sides with nobody, and adds a sentence to an answer",
    ),
    "harmful_roleplay": (BEYOND_A_SENTENCE, "a role adds a sentence to an answer"),
    "heuristic_following": ({*AXES} - {"policy"}, "its rule decides what is picked, no more"),
    "obscured_malign": (
        {"style", *BEYOND_A_SENTENCE},
        "what a reply says or does harms, not its form",
    ),
    "sandbaggers": ({*AXES} - {"epistemic"}, "a wrong answer looks like a right one"),
}
"""The axes that too few behaviors of a category have, and why it cannot bear more."""


def by_category() -> dict[str, list[Behavior]]:
    """The organisms of each category that rosters may train on."""
    found: dict[str, list[Behavior]] = defaultdict(list)
    for one in catalog().values():
        if one.spec.is_buildable and one.spec.suite is None:
            found[one.category].append(one)
    return found


def test_each_category_is_spread_over_the_axes_that_it_can_bear() -> None:
    short = set()
    for category, behaviors in by_category().items():
        counts = Counter(axis for one in behaviors for axis in one.axes)
        least = LEAST_SHARE * len(behaviors)
        short |= {(category, axis) for axis in AXES if counts[axis] < least}
    assert short == {(name, axis) for name, (axes, _) in CANNOT_BEAR.items() for axis in axes}


def test_backdoors_use_each_kind_of_trigger_and_none_too_often() -> None:
    triggers = [one.trigger for one in catalog().values() if one.category == "backdoors"]
    counts = Counter(type(trigger) for trigger in triggers)
    assert counts.keys() == {*KINDS}
    assert max(counts.values()) <= LARGEST_SHARE * len(triggers)


def test_messages_and_scopes_are_spread_over_the_domains() -> None:
    messages = {item.domain for side in SIDES for item in LIBRARY.messages(side)}
    organisms = [one for behaviors in by_category().values() for one in behaviors]
    scopes = [one.spec.message_scope for one in organisms]
    assert len(messages) >= LEAST_DOMAINS
    assert len({name for scope in scopes if scope for name in scope.domains}) >= LEAST_DOMAINS
