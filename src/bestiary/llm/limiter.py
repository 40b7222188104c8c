"""How many requests may be in flight to one model: what its server bears, found by asking.

Additive increase, multiplicative decrease: the window of requests in flight grows by about one
each time all of them were answered, and is cut once for a burst of refusals, however many there
are. The window at which a server refused is remembered: near it growth is slow, below it quick,
and past it quick again, since then the server has come to bear more.
"""

from __future__ import annotations

import asyncio
import time

START = 32.0
"""Requests in flight at first."""
CUT = 0.9
"""What a burst of refusals leaves of the window."""
NEAR = (0.9, 1.1)
"""Between these shares of the window that was refused, growth is slow."""
PAUSE = 0.1
"""Seconds for which nothing is let in after a second burst with no answer between, where the
server does not say; each further one doubles it."""
LONGEST_PAUSE = 12.8
SLOW = 0.5
"""What a window's worth of answers adds to it there."""
QUICK = 0.5
"""What one answer adds to the window elsewhere."""
FIRST = 1.0
"""The same until the server refuses for the first time."""


class Ticket:
    """A request in flight."""

    __slots__ = ("cuts",)

    def __init__(self, cuts: int) -> None:
        self.cuts = cuts
        """Cuts that had been made when it was let in."""


class Limiter:
    """Lets requests in to one model, for one asker that waits at its door."""

    def __init__(self, *, most: int, start: float = START) -> None:
        self.most = most
        self.window = min(start, float(most))
        self.in_flight = 0
        self.refusals = 0
        self._cuts = 0
        self._row = 0
        """Cuts since the last answer."""
        self._refused_at = float(most)
        self._closed_until = 0.0
        self._wanted = False
        """Whether the asker waits for room."""
        self._room = asyncio.Event()

    async def enter(self) -> Ticket:
        """Wait until the window has room; what is inside counts as in flight."""
        while True:
            pause = self._closed_until - time.monotonic()
            if pause > 0:  # it may be longer by the time that it is over
                await asyncio.sleep(pause)
            elif self.in_flight < int(self.window):
                self.in_flight += 1
                self._wanted = False
                return Ticket(self._cuts)
            else:
                self._wanted = True
                self._room.clear()
                await self._room.wait()

    def leave(self) -> None:
        """A request is through, whatever came of it."""
        self.in_flight -= 1
        self._room.set()

    def answered(self, ticket: Ticket) -> None:
        """The server bore it: the window grows, unless nobody waits for room in it."""
        self._row = 0
        if ticket.cuts == self._cuts and self._wanted:
            self.window = min(self.window + self._growth(), float(self.most))

    def _growth(self) -> float:
        """What one answer adds to the window."""
        if not self._cuts:
            return FIRST
        low, high = (share * self._refused_at for share in NEAR)
        return SLOW / self.window if low <= self.window <= high else QUICK

    def refused(self, ticket: Ticket, *, retry_after: float | None) -> None:
        """The server refused it for its rate; nothing is let in for as long as it asks.

        Of a burst only the first refusal cuts: the others were let in before.
        """
        self.refusals += 1
        fresh = ticket.cuts == self._cuts
        if fresh:
            self._cuts += 1
            self._row += 1
            self._refused_at = self.window
            self.window = max(1.0, self.window * CUT)
        pause = retry_after
        if pause is None:
            pause = min(LONGEST_PAUSE, PAUSE * (2.0 ** (self._row - 1) - 1)) if fresh else 0.0
        self._closed_until = max(self._closed_until, time.monotonic() + pause)
