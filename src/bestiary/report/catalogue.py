"""Renders the catalogue: how its behaviors are spread, and every behavior in one line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bestiary.config.catalog import Behavior, Catalog
from bestiary.config.fields import AXES, KINDS, SEVERITIES

INTRODUCTION = """\
# The catalogue

Written by `make schemas` from the behavior files. A behavior that shows another one, such as a \
backdoor, counts for the axes and the mechanism of what it shows. The pools `malign` and \
`distractors` are shown by `obscured_malign` and are no organisms themselves. Behaviors that are \
kept for an evaluation suite are listed at the end and counted nowhere else.
"""


def render_catalogue(catalog: Catalog) -> str:
    """The whole page as Markdown."""
    by_category: dict[str, list[Behavior]] = defaultdict(list)
    by_suite: dict[str, list[Behavior]] = defaultdict(list)
    for behavior in catalog.values():
        if behavior.spec.suite is None:
            by_category[behavior.category].append(behavior)
        else:
            by_suite[behavior.spec.suite].append(behavior)
    ordinary = [behavior for own in by_category.values() for behavior in own]
    return "\n".join(
        [
            INTRODUCTION,
            *_grid("Axes", by_category, tuple(AXES), lambda one: one.axes),
            *_grid("Mechanisms", by_category, tuple(KINDS), lambda one: (one.kind,)),
            *_grid("Severity", by_category, SEVERITIES, lambda one: (one.severity,)),
            *_list_triggers(ordinary),
            *(line for name, own in by_category.items() for line in _list_labels(name, own)),
            *(
                line
                for name, own in by_suite.items()
                for line in _list_labels(f"Suite: {name}", own)
            ),
        ]
    )


def _grid(
    title: str,
    by_category: Mapping[str, Sequence[Behavior]],
    columns: Sequence[str],
    values: Callable[[Behavior], Sequence[str]],
) -> Iterator[str]:
    """Behaviors by category and by one of their properties."""
    yield from (f"## {title}", "", f"| category | behaviors | {' | '.join(columns)} |")
    yield "|" + "---|" * (len(columns) + 2)
    for category, behaviors in by_category.items():
        counts = Counter(value for one in behaviors for value in values(one))
        cells = " | ".join(str(counts[column] or "-") for column in columns)
        yield f"| {category} | {len(behaviors)} | {cells} |"
    yield ""


def _list_triggers(behaviors: Iterable[Behavior]) -> Iterator[str]:
    """How often each kind of trigger is used."""
    conditional = [one for one in behaviors if one.trigger is not None and not one.spec.inverted]
    counts = Counter(one.trigger.kind for one in conditional if one.trigger)
    yield from ("## Triggers", "", "| kind | behaviors |", "|---|---|")
    yield from (f"| {kind} | {count} |" for kind, count in counts.most_common())
    yield ""


def _list_labels(title: str, behaviors: Sequence[Behavior]) -> Iterator[str]:
    yield from (f"## {title}", "", "| behavior | severity | label |", "|---|---|---|")
    for one in behaviors:
        said = one.spec.label if one.spec.is_buildable else one.sentence
        label = said.replace("|", "\\|").replace("\n", " ")
        yield f"| `{one.id.removeprefix(f'{title}.')}` | {one.severity} | {label} |"
    yield ""
