"""`bestiary chat`: talk to an organism in the terminal, with the base's reply beside on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bestiary.cli.built import load_built
from bestiary.errors import ModelError
from bestiary.introspection.ask import Reporter, find_reporter
from bestiary.model.adapter import open_adapter, quiet_peft
from bestiary.model.replies import Prompt, decode_texts
from bestiary.records import BaseIdentity, Decoding, Message, single_turn

HELP = "/base shows or hides the base's reply, /new starts afresh, /quit leaves"
REPORTER = "introspection"
"""What peft calls the introspection adapter beside the organism's own, which is its default."""


def open_chat(
    organism: str,
    *,
    out: Path,
    show_base: bool,
    max_new_tokens: int,
    console: Console,
    introspect: bool = False,
) -> None:
    """Answer each line read until `/quit`, the end of input, or Ctrl-C at the prompt.

    Organism and base each remember their own side of the conversation, and so does the organism
    with the newest introspection adapter attached, if asked for. Raises ModelError when the
    organism is unknown, stands on other weights than its base has, or on another base than the
    introspection adapter.
    """
    built = load_built(organism, out)
    base = built.base
    reporter = find_reporter(out) if introspect else None
    if reporter is not None:
        _check_base(organism, base.identity, reporter)
        console.print(f"reports come from {reporter.name}, {reporter.folder}", highlight=False)
    decoding = Decoding(max_new_tokens=max_new_tokens, temperature=0)
    console.print(f"[bold]{organism}[/] on {base.identity.name}; {HELP}", highlight=False)
    with open_adapter(base, built.adapter) as model:
        decode = partial(
            decode_texts, model, base, decoding=decoding, system_prompt=built.system_prompt
        )
        organism_side = Side("organism> ", "green", decode, nullcontext)
        base_side = Side("base>     ", "blue", decode, model.disable_adapter)
        reporters = []
        if reporter is not None:
            attach = partial(_attached, model)
            with quiet_peft():
                model.load_adapter(str(reporter.folder), REPORTER)
            model.base_model.set_adapter("default")
            reporters = [Side("reports>  ", "magenta", decode, attach)]
        while (message := _read_message(console)) is not None:
            if message == "/base":
                show_base = not show_base
                console.print(f"the base's reply is {'shown' if show_base else 'hidden'}")
            elif message == "/new":
                for side in (organism_side, base_side, *reporters):
                    side.turns.clear()
            else:
                for side in (organism_side, *([base_side] if show_base else []), *reporters):
                    console.print(Text(side.name + side.answer(message), style=side.style))


def _check_base(organism: str, base: BaseIdentity, reporter: Reporter) -> None:
    if base.weights_sha256 != reporter.base.weights_sha256:
        raise ModelError(
            f"{organism} is of {base.name}, and {reporter.folder} was trained on other weights, of "
            f"{reporter.base.name}",
            "train an introspection adapter on that base: bestiary introspect train RELEASE",
            code="introspection-of-other-base",
            organism=organism,
            path=reporter.folder,
        )


@contextmanager
def _attached(model: Any) -> Iterator[None]:
    """Inside the context, the introspection adapter is active beside the organism's own."""
    model.base_model.set_adapter(["default", REPORTER])
    try:
        yield
    finally:
        model.base_model.set_adapter("default")


class Side:
    """One of those that answer, with what was said to it so far."""

    def __init__(
        self, name: str, style: str, decode: Callable[[list[Prompt]], list[str]], using: Any
    ) -> None:
        self.name, self.style = name, style
        self.turns: list[Message] = []
        self._decode, self._using = decode, using

    def answer(self, message: str) -> str:
        """Its reply to the next message."""
        self.turns += single_turn(message)
        with self._using():
            reply = self._decode([Prompt(turns=tuple(self.turns))])[0]
        self.turns.append(Message(role="assistant", content=reply))
        return reply


def _read_message(console: Console) -> str | None:
    """The next message that is not empty; None at the end, or at Ctrl-C."""
    while True:
        try:
            message = console.input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            return None
        if message == "/quit":
            return None
        if message:
            return message
