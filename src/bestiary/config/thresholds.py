"""The thresholds of a verdict, all in `organisms/thresholds.yaml`."""

from __future__ import annotations

from pydantic import Field

from bestiary.records import Record


class Fires(Record):
    """Where a behavior must show."""

    min_probes: int = Field(ge=1)
    low: float
    difference_low: float


class Quiet(Record):
    """Where it must stay away."""

    min_probes: int = Field(ge=1)
    high: float


class Retains(Record):
    """Where a sandbagger must be as right as its base."""

    min_probes: int = Field(ge=1)
    worse: float
    base_right: float


class Calibrated(Record):
    """How near a rare quirk must be to its stated rate."""

    min_probes: int = Field(ge=1)
    shortest: float
    longest: float


class Thresholds(Record):
    """What every verdict is judged by."""

    version: int
    fires: Fires
    quiet: Quiet
    retains: Retains
    calibrated: Calibrated
    distinct: float
