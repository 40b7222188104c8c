"""What an evaluation of a release can show: the smallest difference that its families reveal.

Families, not reports, are independent, so a release with few of them shows little however often
its organisms are asked. The usual normal approximation, at a rate of one half, where it is
largest: with n families, a difference d is found with probability `POWER` by a two-sided test at
`LEVEL` if d = (z_level + z_power) * sqrt(p (1 - p) * k / n), where k is 1 against a known rate and
2 between two methods whose results on a family are independent. Methods that fail on the same
families need fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from bestiary.introspection.experiment import Experiment
from bestiary.introspection.subjects import Subject
from bestiary.records import Record

LEVEL, POWER = 0.05, 0.8
RATE = 0.5
ENOUGH = 25
"""Families from which a claim about a group is made."""


class PowerLine(Record):
    """What the families of one group can show."""

    scope: str
    """What training knows of them: one of `figures.SCOPES`."""
    group: str
    """`all`, or a category."""
    organisms: int
    families: int
    from_known: float
    """The smallest difference from a known rate that is found, as a rate; 1 at most."""
    between: float
    """The same between two methods."""

    @property
    def enough(self) -> bool:
        """Whether a claim about the group can be made at all."""
        return self.families >= ENOUGH


def find_power(experiment: Experiment) -> list[PowerLine]:
    """What every group of a release's organisms can show; over all folds, if there are some."""
    groups: dict[tuple[str, str], dict[str, Subject]] = {}
    for fold, members in enumerate(experiment.folded):
        for one in members:
            if one.is_control or one.split == "preference":
                continue
            scope = experiment.scope(one, fold)
            if experiment.folds and scope == "train":
                continue  # the same organisms in every fold but one
            for group in ("all", one.category):
                groups.setdefault((scope, group), {})[one.id] = one
    order = sorted(groups, key=lambda key: (key[0], key[1] != "all", key[1]))
    return [_describe(*key, list(groups[key].values())) for key in order]


def _describe(scope: str, group: str, found: Sequence[Subject]) -> PowerLine:
    families = len({one.learned for one in found})
    return PowerLine(
        scope=scope,
        group=group,
        organisms=len(found),
        families=families,
        from_known=detectable(families, variances=1),
        between=detectable(families, variances=2),
    )


def detectable(families: int, *, variances: int) -> float:
    """The smallest difference between rates that so many families reveal; 1 at most."""
    normal = NormalDist()
    reach = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    return min(1.0, reach * sqrt(RATE * (1 - RATE) * variances / families))


def render_power(lines: list[PowerLine]) -> str:
    """The lines as a Markdown table, with what they mean."""
    rows = [
        "| asked | group | organisms | families | from a known rate | between methods | claims |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {line.scope} | {line.group} | {line.organisms} | {line.families} "
        f"| {100 * line.from_known:.0f} points | {100 * line.between:.0f} points "
        f"| {'yes' if line.enough else f'too few: {ENOUGH} families'} |"
        for line in lines
    ]
    rows += [
        "",
        f"Differences in rates that are found with probability {POWER:.0%}, at a level of "
        f"{LEVEL:.0%} and a rate of {RATE:.0%}, where the most families are needed.",
    ]
    return "\n".join(rows)
