"""Proportions and their intervals."""

from __future__ import annotations

import math

from bestiary.records import Rate

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def wilson_rate(count: int, n: int) -> Rate:
    """A proportion with its 95% Wilson score interval (Wilson 1927); n = 0 knows nothing."""
    if n == 0:
        return Rate(n=0, count=0, rate=0.0, low=0.0, high=1.0)
    share = count / n
    scale = 1 + Z95**2 / n
    center = (share + Z95**2 / (2 * n)) / scale
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / scale
    # Rounding may leave 1e-17 beside an exact bound; a rate of 0 or 1 bounds its own interval.
    low = 0.0 if count == 0 else max(0.0, center - half)
    high = 1.0 if count == n else min(1.0, center + half)
    return Rate(n=n, count=count, rate=share, low=low, high=high)


def difference_low(organism: Rate, base: Rate) -> float:
    """Lower 95% bound of organism minus base (Newcombe 1998, hybrid score, method 10)."""
    spread = math.hypot(organism.rate - organism.low, base.high - base.rate)
    return organism.rate - base.rate - spread
