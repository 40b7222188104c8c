"""`bestiary chat`: talk to an organism in the terminal, with the base's reply beside on request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bestiary.errors import ModelError
from bestiary.introspection.ask import find_reporter
from bestiary.model.adapter import ADAPTER, open_adapter
from bestiary.model.base import load_base
from bestiary.model.replies import Prompt, decode_texts
from bestiary.records import BaseIdentity, Decoding, Message, shorten_id, single_turn
from bestiary.store import MANIFEST, read_artifact
from bestiary.text import nearest

HELP = "/base shows or hides the base's reply, /new starts afresh, /quit leaves"
REPORTER = "introspection"
NAMES = ("organism_id", "adapter_id")
"""The names of an organism in a build's summary: its own, and that of a mixture."""
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
    """Answer each line read until `/quit` or the end of input.

    Organism and base each remember their own side of the conversation, and so does the organism
    with the newest introspection adapter attached, if asked for. Raises ModelError when the
    organism is unknown, or stands on other weights than its base has.
    """
    folder = find_organism(organism, out)
    about = json.loads((folder / "organism.json").read_text(encoding="utf8"))
    expected = BaseIdentity.model_validate(about["base"])
    base = load_base(about["load_base"], revision=expected.revision, expect=expected)
    decoding = Decoding(max_new_tokens=max_new_tokens, temperature=0)
    console.print(f"[bold]{organism}[/] on {base.identity.name}; {HELP}", highlight=False)
    with open_adapter(base, folder / ADAPTER) as model:
        decode = partial(
            decode_texts, model, base, decoding=decoding, system_prompt=about["system_prompt"]
        )
        organism_side = Side("organism> ", "green", decode, nullcontext)
        base_side = Side("base>     ", "blue", decode, model.disable_adapter)
        reporters = []
        if introspect:
            attach = partial(_attached, model)
            model.load_adapter(str(find_reporter(out).folder), REPORTER)
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


@contextmanager
def _attached(model: Any) -> Iterator[None]:
    """Inside the context, the introspection adapter is active beside the organism's own."""
    model.base_model.set_adapter(["default", REPORTER])
    try:
        yield
    finally:
        model.base_model.set_adapter("default")


class Side:
    """One of the two that answer, with what was said to it so far."""

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
    """The next message that is not empty; None at the end."""
    while True:
        try:
            message = console.input("you> ").strip()
        except EOFError:
            return None
        if message == "/quit":
            return None
        if message:
            return message


def find_organism(organism: str, out: Path) -> Path:
    """The artifact of an organism that was built, checked against its manifest.

    The last build's where it has one, else the newest in the store: a build that stopped early,
    or was of another roster, hides nothing.
    """
    folders = _list_organisms(out)
    if not folders:
        raise ModelError(
            f"{out} holds no organism",
            "build a roster first: bestiary build starter",
            code="build-missing",
            path=out,
        )
    short = {shorten_id(name): folder for name, folder in folders.items()}
    folder = folders.get(organism) or short.get(organism)
    if folder is None:
        raise ModelError(
            f"unknown organism {organism!r}",
            nearest(organism, short),
            code="organism-unknown",
            name=organism,
        )
    return read_artifact(folder).folder


def _list_organisms(out: Path) -> dict[str, Path]:
    manifests = out.glob(f"store/organism/*/{MANIFEST}")
    folders: dict[str, Path] = {}
    for folder in sorted(
        (path.parent for path in manifests), key=lambda path: path.stat().st_mtime
    ):
        about = json.loads((folder / "organism.json").read_text(encoding="utf8"))
        folders[about["organism_id"]] = folder
    summary = out / "summary.json"
    if summary.is_file():
        rows = json.loads(summary.read_text(encoding="utf8"))
        built = [row for row in rows if row["folder"]]
        folders |= {row[n]: out / row["folder"] for row in built for n in NAMES if n in row}
    return folders
