"""A server of chat completions that says one thing, after a constant time. Standard library alone.

    python -m peers.server LATENCY

It prints its port. Every POST is answered with the same completion; GET /tally tells how many
were since it was last asked, and when. Requests under UNCOUNTED are left out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass, field

from peers.lap import MODEL, UNCOUNTED

REPLY = {
    "reason": "It stays with its subject.",
    "score": 8,
    "mentions": False,
    "broken": False,
    "hazard": False,
}
COMPLETION = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": json.dumps(REPLY), "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 140, "completion_tokens": 24, "total_tokens": 164},
}
TRIAL = f"POST {UNCOUNTED}".encode()
WARM = 1000
"""Answers before a run is in its steady part."""


@dataclass
class Tally:
    """What was answered."""

    answers: int = 0
    warm: float | None = None
    """Monotonic seconds of the answer that ended the first part."""
    last: float = 0.0
    most: int = 0
    """Requests that waited for their answers at one time."""
    cpu: float = field(default_factory=time.process_time)
    """Seconds of this process, until its tally is asked for those since it began."""


class Desk:
    """Answers all connections, and counts."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.tally = Tally()
        self._waiting = 0

    def admit(self) -> None:
        """A request has come in."""
        self._waiting += 1
        self.tally.most = max(self.tally.most, self._waiting)

    def count(self) -> None:
        """A request is answered."""
        self._waiting -= 1
        tally = self.tally
        tally.answers += 1
        tally.last = time.monotonic()
        if tally.answers == WARM:
            tally.warm = tally.last

    def tell(self) -> dict[str, object]:
        """The tally; another begins."""
        told, self.tally = asdict(self.tally), Tally()
        return {**told, "cpu": time.process_time() - told["cpu"]}


class ConversationDraft(asyncio.Protocol):
    """One connection, which asks again when it was answered."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._heard = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """What is still to be said is said to nobody."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take a request once its body is whole."""
        self._heard += data
        head, found, body = self._heard.partition(b"\r\n\r\n")
        if not found or len(body) < _read_length(head):
            return
        self._heard = b""
        if head.startswith(b"GET"):
            self._say(_frame(self._desk.tell()))
        else:
            counted = not head.startswith(TRIAL)
            if counted:
                self._desk.admit()
            asyncio.get_running_loop().call_later(self._desk.latency, self._answer, counted)

    def _answer(self, counted: bool) -> None:
        self._say(ANSWER)
        if counted:
            self._desk.count()

    def _say(self, text: bytes) -> None:
        if self._transport is not None:
            self._transport.write(text)


def _read_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0] or 0)


def _frame(body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return f"{head}\r\n".encode() + text


ANSWER = _frame(COMPLETION)


async def serve(latency: float) -> None:
    """Answer until the process is ended."""
    desk = Desk(latency)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ConversationDraft(desk), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.disable()  # it makes no cycles
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
