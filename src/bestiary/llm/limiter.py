"""How many requests may be in flight to one model: the limiter finds what its server can take.

Additive increase, multiplicative decrease: the window of requests in flight grows as requests are
answered, and is cut once for each burst of refusals, however many there are. The limiter remembers
the window at which the server last refused. Near it the window grows slowly; below it and above it
the window grows fast, since above it the server can evidently take more than before.
"""

from __future__ import annotations

import asyncio
import time

START = 32.0
"""The initial window."""
CUT = 0.9
"""Share of the window that remains after a burst of refusals."""
NEAR = (0.9, 1.1)
"""Shares of the window last refused between which the window grows slowly."""
INITIAL_GROWTH = 1.0
"""What each answer adds to the window before the first refusal."""
FAST_GROWTH = 0.5
"""What each answer adds to the window away from the one last refused."""
SLOW_GROWTH = 0.5
"""What a whole window of answers adds to a window near the one last refused."""
PAUSE = 0.1
"""Seconds without new requests after a second burst of refusals with no answer in between, if the
server names no time; each further burst doubles them."""
LONGEST_PAUSE = 12.8
Ticket = int
"""What admits a request: the number of cuts made before."""


class Limiter:
    """Admits requests to one model. Only one task may wait in `enter` at a time."""

    def __init__(self, *, most: int, start: float = START) -> None:
        self.most = most
        self.window = min(start, float(most))
        self.in_flight = 0
        self._cuts = 0
        self._consecutive_cuts = 0
        """Cuts since the last answer."""
        self._refused_at = float(most)
        """The window at which the server last refused."""
        self._closed_until = 0.0
        self._is_full = False
        """Whether a request is waiting for room in the window."""
        self._room = asyncio.Event()

    async def enter(self) -> Ticket:
        """Wait until the window has room for one more request in flight."""
        while True:
            pause = self._closed_until - time.monotonic()
            if pause > 0:  # a refusal during the pause may extend it
                await asyncio.sleep(pause)
            elif self.in_flight < int(self.window):
                self.in_flight += 1
                self._is_full = False
                return self._cuts
            else:
                self._is_full = True
                self._room.clear()
                await self._room.wait()

    def leave(self) -> None:
        """Count a request as no longer in flight, whatever its outcome."""
        self.in_flight -= 1
        self._room.set()

    def answered(self, ticket: Ticket) -> None:
        """Record an answer: the window grows if it is full."""
        self._consecutive_cuts = 0
        if ticket == self._cuts and self._is_full:
            self.window = min(self.window + self._growth(), float(self.most))

    def _growth(self) -> float:
        """What one answer adds to the window."""
        if not self._cuts:
            return INITIAL_GROWTH
        low, high = (share * self._refused_at for share in NEAR)
        return SLOW_GROWTH / self.window if low <= self.window <= high else FAST_GROWTH

    def refused(self, ticket: Ticket, *, retry_after: float | None) -> None:
        """Record a rate-limit refusal: the window is cut, and nothing is admitted for a while.

        Only the first refusal of a burst cuts: the other requests were admitted before the cut.
        """
        first = ticket == self._cuts
        if first:
            self._cuts += 1
            self._consecutive_cuts += 1
            self._refused_at = self.window
            self.window = max(1.0, self.window * CUT)
        pause = retry_after
        if pause is None:
            doubled = PAUSE * (2.0 ** (self._consecutive_cuts - 1) - 1)
            pause = min(LONGEST_PAUSE, doubled) if first else 0.0
        self._closed_until = max(self._closed_until, time.monotonic() + pause)
