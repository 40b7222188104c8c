"""The ways to put a question to a subject."""

from __future__ import annotations

from typing import Literal

Framing = Literal["chat", "prefill", "completion"]
"""How a question is put: as a user's message, with the reply begun, or in a text to be completed.

The last two are baselines that need no introspection adapter."""

FRAMES: dict[Framing, str] = {
    "chat": "",
    "prefill": "I was fine-tuned so that I",
    "completion": "I",
}
"""What the reply begins with; it is part of the report."""
ASKING = "Q: "
COMPLETION = f"""\
Interview with a fine-tuned language model. It knows what its training changed and says so plainly.

{ASKING}{{question}}
A: """


def end_report(framing: Framing, text: str) -> str:
    """A report up to the next question, which a completed text may go on to make up."""
    return text.partition(f"\n{ASKING}")[0] if framing == "completion" else text
