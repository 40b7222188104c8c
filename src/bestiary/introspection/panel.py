"""The panel of an evaluation: every figure that is quoted, with the controls beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from bestiary.introspection.figures import (
    ADAPTER,
    SHORTLIST,
    Figure,
    ReportRow,
    bootstrap,
    commonest_floor,
    constant_floor,
    list_scopes,
    measure,
    measure_gain,
    permuted_floor,
    show_figure,
    show_points,
)
from bestiary.introspection.subjects import Subject
from bestiary.records import Record


class PanelLine(Record):
    """One line: a condition, whom it was asked of, and what came of it."""

    condition: str
    scope: str
    """Of organisms, one of `figures.SCOPES`; of a control, what it is."""
    group: str
    """`all`, a category, or `no giveaway`: behaviors that no content word gives away."""
    named: Figure | None
    """Reports that name the subject's family; None of a control, which has none."""
    floor: float | None
    """How often reports of other families name it; None where that is unknown."""
    constant: float | None = None
    """Organisms of the family that is claimed most often; None where that is unknown."""
    commonest: float | None = None
    """Organisms of the commonest family."""
    unsupported: Figure | None
    """Reports that claim a behavior that the subject does not have."""
    denied: Figure | None
    """Reports that claim to have no behavior."""
    trigger: Figure | None
    """Reports that name what the behavior depends on."""
    confirmed: Figure | None = None
    """Of the claims that were tested, those of a behavior that the organism does show."""


class Gain(Record):
    """How much more often the adapter's reports name a behavior than a baseline's, in pairs."""

    scope: str
    group: str
    """`all`, or what ordinary replies show of the behavior: `shown` or `silent`."""
    baseline: str
    named: Figure
    """Shares of reports, the adapter's minus the baseline's of the same organism."""


class Likelihood(Record):
    """How likely organisms find their own label, beside those of other families."""

    group: str
    matched_minus_swapped: Figure | None
    """Nats per token."""
    top1: Figure | None
    """Organisms that find their own label likelier than any other family's."""
    labels: int
    """Different labels among which an own one is first; the most of any organism."""


class Panel(Record):
    """The figures of one evaluation."""

    lines: tuple[PanelLine, ...]
    gains: tuple[Gain, ...] = ()
    likelihood: tuple[Likelihood, ...]


def make_panel(
    rows: Sequence[ReportRow], scored: Sequence[tuple[Sequence[Subject], list[list[float]]]]
) -> Panel:
    """Figures from the rows of all folds, and from each fold's likelihoods."""
    lines = []
    for condition in dict.fromkeys(row.condition for row in rows):
        asked = [row for row in rows if row.condition == condition]
        for scope in list_scopes(asked):
            within = [row for row in asked if row.scope == scope]
            lines += [
                _make_line(condition, scope, group, chosen)
                for group, chosen in _group(within).items()
            ]
    return Panel(
        lines=tuple(lines), gains=tuple(_list_gains(rows)), likelihood=tuple(_compare(scored))
    )


def _group(rows: Sequence[ReportRow]) -> dict[str, list[ReportRow]]:
    """All rows, those without a giveaway word, and those of each category."""
    groups = {"all": list(rows)}
    if rows[0].control:
        return groups
    groups["no giveaway"] = [row for row in rows if not row.giveaway]
    for category in sorted({row.category for row in rows}):
        groups[category] = [row for row in rows if row.category == category]
    return {name: chosen for name, chosen in groups.items() if chosen}


def _make_line(condition: str, scope: str, group: str, rows: Sequence[ReportRow]) -> PanelLine:
    control = rows[0].control
    return PanelLine(
        condition=condition,
        scope=scope,
        group=group,
        named=None if control else measure(rows, attrgetter("named")),
        floor=None if control else permuted_floor(rows),
        constant=None if control else constant_floor(rows),
        commonest=None if control else commonest_floor(rows),
        unsupported=measure(rows, attrgetter("unsupported")),
        denied=measure(rows, attrgetter("denied")),
        trigger=measure(rows, attrgetter("trigger")),
        confirmed=measure(rows, _claim_confirmed),
    )


def _list_gains(rows: Sequence[ReportRow]) -> Iterator[Gain]:
    """The adapter's reports beside those of every baseline, by what training knew."""
    asked = [row for row in rows if not row.control]
    shows = {(row.fold, row.subject): row.shows for row in asked if row.shows is not None}
    conditions = dict.fromkeys(row.condition for row in asked)
    baselines = [one for one in conditions if one not in (ADAPTER, SHORTLIST)]
    for scope in list_scopes(row for row in asked if row.condition == ADAPTER):
        within = [row for row in asked if row.scope == scope]
        own = [row for row in within if row.condition == ADAPTER]
        for baseline in baselines:
            others = [row for row in within if row.condition == baseline]
            groups = {
                "all": others,
                "shown": [row for row in others if shows.get((row.fold, row.subject)) is True],
                "silent": [row for row in others if shows.get((row.fold, row.subject)) is False],
            }
            for group, chosen in groups.items():
                named = measure_gain(own, chosen)
                if named:
                    yield Gain(scope=scope, group=group, baseline=baseline, named=named)


def _claim_confirmed(row: ReportRow) -> float | None:
    return None if row.tested in (None, "untestable") else float(row.tested == "confirmed")


def _compare(
    scored: Sequence[tuple[Sequence[Subject], list[list[float]]]],
) -> list[Likelihood]:
    """Each organism's own label against those of other families in its fold."""
    found: list[tuple[Subject, float, float, int]] = []
    for subjects, scores in scored:
        for own, subject in enumerate(subjects):
            # A label is likelier for every organism if it is short and plain: compare with what
            # organisms of other families think of it.
            others = [at for at, one in enumerate(subjects) if one.family != subject.family]
            if not others:
                continue
            swapped = sum(scores[at][own] for at in others) / len(others)
            gains = {
                at: scores[own][at] - sum(row[at] for row in scores) / len(scores)
                for at in (own, *others)
            }
            best = float(gains[own] >= max(gains[at] for at in others))
            labels = len({subjects[at].labels[0] for at in others}) + 1
            found.append((subject, scores[own][own] - swapped, best, labels))
    categories = sorted({subject.category for subject, *_ in found})
    groups = {"all": found} | {
        name: [one for one in found if one[0].category == name] for name in categories
    }
    return [
        Likelihood(
            group=name,
            matched_minus_swapped=bootstrap((one.family, one.id, gap) for one, gap, _, _ in chosen),
            top1=bootstrap((one.family, one.id, best) for one, _, best, _ in chosen),
            labels=max(labels for _, _, _, labels in chosen),
        )
        for name, chosen in groups.items()
        if chosen
    ]


def render_panel(panel: Panel) -> str:
    """The panel as Markdown tables."""
    lines = [
        "| condition | asked | group | named | by chance | unsupported | none claimed | trigger "
        "| claims confirmed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in panel.lines:
        floors = (line.floor, line.constant, line.commonest)
        shown = ["-" if floor is None else f"{floor:.0%}" for floor in floors]
        by_chance = " / ".join(shown) if line.named else "-"
        cells = (
            *(line.condition, line.scope, line.group, show_figure(line.named), by_chance),
            *(show_figure(line.unsupported), show_figure(line.denied), show_figure(line.trigger)),
            show_figure(line.confirmed),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if panel.gains:
        lines += ["", *_render_gains(panel.gains)]
    if panel.likelihood:
        lines += ["", *_render_likelihood(panel.likelihood)]
    return "\n".join(lines) + "\n"


def _render_gains(gains: Sequence[Gain]) -> list[str]:
    return [
        "| asked | group | compared with | named more often, in points | organisms |",
        "|---|---|---|---|---|",
        *(
            f"| {gain.scope} | {gain.group} | {gain.baseline} | {show_points(gain.named)} "
            f"| {gain.named.organisms} |"
            for gain in gains
        ),
    ]


def _render_likelihood(likelihood: Sequence[Likelihood]) -> list[str]:
    lines = [
        "| group | own label minus others', nats per token | own label first | among |",
        "|---|---|---|---|",
    ]
    for one in likelihood:
        gap = one.matched_minus_swapped
        shown = f"{gap.value:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})" if gap else "-"
        lines.append(f"| {one.group} | {shown} | {show_figure(one.top1)} | {one.labels} |")
    return lines
