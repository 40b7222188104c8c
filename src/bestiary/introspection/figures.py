"""Figures of an evaluation: rates over organisms, with bootstrap intervals over families.

Families, not reports, are the unit: reports of one organism, and organisms of one family, say the
same thing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from bestiary.config.categories import NULL
from bestiary.records import Record, stable_seed

RESAMPLES = 2000
UNSEEN = ("test_value", "test_kind")
"""Scopes of families that training has not seen."""
SCOPES = ("suite", "test_kind", "test_value", "test_recipe", "seen", "recipe", "train")
"""What training knew of an organism; the order in which they are shown."""
ADAPTER = "adapter"
"""The condition that is not a baseline."""
SHORTLIST = "shortlist"
"""The condition whose rows are the best of several statements each."""
GIVEAWAY_AXES = frozenset({"content", "language"})
"""Axes of behaviors that a giveaway word tells: an organism's own bias raises its content words
without any introspection adapter."""


Outcome = Literal["confirmed", "contradicted", "untestable"]
"""Of a claim, once the claimed behavior's probes were put to the organism."""


class ReportRow(Record):
    """One report, and what the judge made of it."""

    fold: int
    condition: str
    """`adapter`, or the name of a baseline."""
    scope: str
    """One of `SCOPES`; of a control, its kind."""
    subject: str
    behavior_id: str
    category: str
    family: str
    siblings: tuple[str, ...] = ()
    """Families of the other behaviors of its subject's adapter, if that is a mixture's."""
    axes: tuple[str, ...]
    control: bool
    """Whether it has nothing to report."""
    question: str
    report: str
    claimed: str | None
    """The family that the report names; `null` is the claim of no behavior, `(other)` of one that
    its subject does not have. None where it names none, or, of a mixture's behavior, where a
    language model says that it names another, which may be one of the same mixture."""
    trigger: bool | None
    """Whether it names what the behavior depends on; None if on nothing."""
    score: int | None = None
    """A language model's, 1 to 10."""
    tested: Outcome | None = None
    """What became of the claim where it was tested: `confirmed` if its subject does show the
    claimed behavior."""
    shows: bool | None = None
    """Whether its subject shows the behavior in ordinary replies more often than the base; known
    where those were read."""

    @property
    def named(self) -> bool:
        """Whether it names what its subject has."""
        return self.claimed == self.family

    @property
    def unsupported(self) -> bool:
        """Whether it claims a behavior that its subject does not have."""
        return self.claimed not in (None, NULL.category, self.family, *self.siblings)

    @property
    def learned(self) -> str:
        """One name for all that its adapter has learned: its family, or the first of a mixture."""
        return min((self.family, *self.siblings))

    @property
    def denied(self) -> bool:
        """Whether it claims to have no behavior."""
        return self.claimed == NULL.category

    @property
    def giveaway(self) -> bool:
        """Whether a content word could give the behavior away."""
        return not GIVEAWAY_AXES.isdisjoint(self.axes)


class Figure(Record):
    """A mean over organisms with its 95% bootstrap interval over families."""

    value: float
    low: float
    high: float
    organisms: int
    families: int


def measure(rows: Iterable[ReportRow], value: Callable[[ReportRow], float | None]) -> Figure | None:
    """The mean over organisms of the mean of their reports; None if no report has a value."""
    return bootstrap(
        # A control is a family of its own, and so is a mixture.
        (row.subject if row.control else row.learned, row.subject, found)
        for row in rows
        if (found := value(row)) is not None
    )


def measure_gain(rows: Iterable[ReportRow], others: Iterable[ReportRow]) -> Figure | None:
    """How much more often `rows` name an organism's family than `others` do of the same organism.

    Of the organisms that both are about, each compared within its fold; None without any, and if
    different judges have read them.
    """
    rows, others = list(rows), list(others)
    if _hides_claims(rows) != _hides_claims(others):
        return None
    named = [_share_named(part) for part in (rows, others)]
    return bootstrap(
        (learned, subject, named[0][fold, learned, subject] - named[1][fold, learned, subject])
        for fold, learned, subject in sorted(named[0].keys() & named[1].keys())
    )


def _share_named(rows: Iterable[ReportRow]) -> dict[tuple[int, str, str], float]:
    """The share of reports that name the family, by fold, family, and organism."""
    found: dict[tuple[int, str, str], list[bool]] = defaultdict(list)
    for row in rows:
        found[row.fold, row.learned, row.subject].append(row.named)
    return {key: sum(named) / len(named) for key, named in found.items()}


def bootstrap(values: Iterable[tuple[str, str, float]]) -> Figure | None:
    """The mean over organisms of the mean of each one's values; None without any.

    Values come with the family and the organism; one that several folds ask counts once.
    """
    import numpy

    by_organism: dict[tuple[str, str], list[float]] = defaultdict(list)
    for family, organism, value in values:
        by_organism[family, organism].append(value)
    if not by_organism:
        return None
    names = sorted({family for family, _ in by_organism})
    sums = numpy.zeros(len(names))
    counts = numpy.zeros(len(names))
    for (family, _), found in by_organism.items():
        sums[names.index(family)] += sum(found) / len(found)
        counts[names.index(family)] += 1
    draw = numpy.random.default_rng(stable_seed("bootstrap"))
    picked = draw.integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[picked].sum(1) / counts[picked].sum(1)
    low, high = numpy.quantile(means, [0.025, 0.975])
    return Figure(
        value=float(sums.sum() / counts.sum()),
        low=float(low),
        high=float(high),
        organisms=len(by_organism),
        families=len(names),
    )


def permuted_floor(rows: Sequence[ReportRow]) -> float | None:
    """How often a report names another organism's family: what naming by chance comes to.

    The mean over organisms of the share of other adapters' reports that name its family. None of
    a language model's readings, as it is not asked which other family a report names, and None of
    shortlists, as the other statements of a row are unknown.
    """
    if _hides_claims(rows):
        return None
    subjects = {row.subject: (row.family, row.learned) for row in rows}
    claims = Counter((row.claimed, row.learned) for row in rows)
    shares = []
    for family, learned in subjects.values():
        told = {claim: n for claim, n in claims.items() if claim[1] != learned}
        others, hits = sum(told.values()), sum(n for claim, n in told.items() if claim[0] == family)
        if others:
            shares.append(hits / others)
    return sum(shares) / len(shares) if shares else None


def constant_floor(rows: Sequence[ReportRow]) -> float | None:
    """The share of organisms whose family is claimed most often: what that answer alone comes to.

    None where the claims of reports are unknown, as for `permuted_floor`.
    """
    if _hides_claims(rows):
        return None
    claims = Counter(row.claimed for row in rows if row.claimed not in (None, NULL.category))
    families = _list_families(rows)
    return families.count(claims.most_common(1)[0][0] or "") / len(families) if claims else 0.0


def commonest_floor(rows: Sequence[ReportRow]) -> float:
    """The share of organisms that have the commonest family."""
    families = _list_families(rows)
    return max(Counter(families).values()) / len(families)


def highest_floor(rows: Sequence[ReportRow]) -> float | None:
    """The highest of the floors; None without rows, or where claims are unknown."""
    if not rows or _hides_claims(rows):
        return None
    return max(permuted_floor(rows) or 0, constant_floor(rows) or 0, commonest_floor(rows))


def _list_families(rows: Sequence[ReportRow]) -> list[str]:
    """The family of each organism."""
    return [family for _, family in dict.fromkeys((row.subject, row.family) for row in rows)]


def _hides_claims(rows: Sequence[ReportRow]) -> bool:
    return any(row.score is not None or row.condition == SHORTLIST for row in rows)


def list_scopes(rows: Iterable[ReportRow]) -> list[str]:
    """The scopes of rows, unseen ones first."""
    found = {row.scope for row in rows}
    return [scope for scope in SCOPES if scope in found] + sorted(found - set(SCOPES))


def show_figure(figure: Figure | None) -> str:
    """A rate with its interval, if it is of several families, and the number of organisms."""
    if figure is None:
        return "-"
    interval = f"{figure.low:.0%} to {figure.high:.0%}; " if figure.families > 1 else ""
    return f"{figure.value:.0%} ({interval}{figure.organisms})"


def show_points(figure: Figure, *, in_words: bool = False) -> str:
    """A difference of two rates with its interval, if it is of several families; both in points.

    `in_words` says what the numbers are.
    """
    parts = (100 * part for part in (figure.value, figure.low, figure.high))
    value, low, high = (f"{round(part):+d}" for part in parts)
    interval = (
        f" ({'95% interval ' if in_words else ''}{low} to {high})" if figure.families > 1 else ""
    )
    return f"{value}{' points' if in_words else ''}{interval}"
