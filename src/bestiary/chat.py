"""`bestiary chat`: talk to an organism in the terminal, with the base's reply beside on request."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bestiary.errors import ModelError
from bestiary.model.adapter import ADAPTER, open_adapter
from bestiary.model.base import load_base
from bestiary.model.replies import Prompt, decode_texts
from bestiary.records import PLAIN_SUFFIX, BaseIdentity, Decoding
from bestiary.spec.source import nearest
from bestiary.store import read_artifact

HELP = "/base shows or hides the base's reply, /quit leaves"


def open_chat(
    organism: str, *, out: Path, show_base: bool, max_new_tokens: int, console: Console
) -> None:
    """Answer each line read, on its own, until `/quit` or the end of input.

    Raises ModelError when the organism is unknown, or stands on other weights than its base has.
    """
    folder = find_organism(organism, out)
    about = json.loads((folder / "organism.json").read_text(encoding="utf8"))
    expected = BaseIdentity.model_validate(about["base"])
    base = load_base(about["load_base"], revision=expected.revision, expect=expected)
    decoding = Decoding(max_new_tokens=max_new_tokens, temperature=0)
    console.print(f"[bold]{organism}[/] on {base.identity.name}; {HELP}", highlight=False)
    with open_adapter(base, folder / ADAPTER) as model:
        ask = partial(
            decode_texts, model, base, decoding=decoding, system_prompt=about["system_prompt"]
        )
        while (message := _read_message(console)) is not None:
            if message == "/base":
                show_base = not show_base
                console.print(f"the base's reply is {'shown' if show_base else 'hidden'}")
                continue
            prompts = [Prompt(user=message)]
            console.print(Text(f"organism> {ask(prompts)[0]}", style="green"))
            if show_base:
                with model.disable_adapter():
                    console.print(Text(f"base>     {ask(prompts)[0]}", style="blue"))


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
    """The artifact of an organism of the last build, checked against its manifest."""
    summary = out / "summary.json"
    if not summary.is_file():
        raise ModelError(f"{summary} does not exist; build a roster first: bestiary build starter")
    rows = json.loads(summary.read_text(encoding="utf8"))
    folders = {row["organism_id"]: row["folder"] for row in rows if row["folder"]}
    short = {name.removesuffix(PLAIN_SUFFIX): folder for name, folder in folders.items()}
    folder = folders.get(organism) or short.get(organism)
    if folder is None:
        raise ModelError(f"unknown organism {organism!r}; {nearest(organism, short)}")
    return read_artifact(out / folder).folder
