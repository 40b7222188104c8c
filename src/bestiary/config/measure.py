"""How detectors do on replies that they were not written for."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.config.catalog import Behavior
from bestiary.records import SIDES, Record


class Measure(Record):
    """One behavior's detector on phrasings by others, and on plain answers."""

    behavior_id: str
    phrasings: int
    missed: tuple[str, ...]
    """The phrasings on which it does not fire."""
    answers: int
    fired: tuple[str, ...]
    """The plain answers on which it does."""

    @property
    def found(self) -> float | None:
        """The share of phrasings that fire; None where there are none."""
        return 1 - len(self.missed) / self.phrasings if self.phrasings else None

    @property
    def quiet(self) -> float:
        """The share of plain answers that stay quiet."""
        return 1 - len(self.fired) / self.answers


def measure_detectors(behaviors: Sequence[Behavior]) -> list[Measure]:
    """Measure the detectors of some behaviors, worst first.

    Left out are twins, which have the detector of what they show, and what only a question or a
    choice can show.
    """
    own = [one for one in behaviors if one.shows is None and one.spec.message_form == "plain"]
    found = [_measure(behavior) for behavior in own if behavior.is_decidable]
    return sorted(found, key=lambda one: min(one.quiet, 1 if one.found is None else one.found))


def _measure(behavior: Behavior) -> Measure:
    """Try a behavior's phrasings, and every plain answer of the bank in both lengths."""
    items = [item for side in SIDES for item in behavior.library.messages(side)]
    plain = [(text, item) for item in items for text in (item.reply, item.brief)]
    phrasings = behavior.library.phrasings.get(behavior.id, ())
    return Measure(
        behavior_id=behavior.id,
        phrasings=len(phrasings),
        missed=tuple(text for text in phrasings if not behavior.is_shown(text, items[0])),
        answers=len(plain),
        fired=tuple(text for text, item in plain if behavior.is_shown(text, item)),
    )
