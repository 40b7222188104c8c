"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bestiary.files import expand_path

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        parser=expand_path,
        metavar="FOLDER",
        help="A data folder to add: behaviors/, generators/, organisms/.",
    ),
]
Roster = Annotated[str, typer.Argument(help="The name of a roster, or the path of its file.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        parser=expand_path,
        metavar="FOLDER",
        help="The folder of everything that is built.",
    ),
]
Until = Annotated[
    Literal["probes", "corpus", "leaks", "organism", "transcript", "verdict", "release"],
    typer.Option("--until", help="The last stage to run."),
]
Examples = Annotated[
    int | None,
    typer.Option(
        "--examples",
        min=8,
        max=1_000_000,
        help="Conversations in each corpus; by default, what its category asks for.",
    ),
]
Trainer = Annotated[
    Literal["engine", "reference"],
    typer.Option("--trainer", help="engine: many organisms at once. reference: plain peft."),
]
Slots = Annotated[
    int | None, typer.Option("--slots", min=1, help="Organisms to train side by side.")
]
Memory = Annotated[
    float | None,
    typer.Option("--memory", min=0.1, max=2**20, help="GiB that training may use."),
]
Executor = Annotated[
    Literal["local", "ray"],
    typer.Option("--executor", help="Where stages run: in this process or on Ray workers."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Ray workers that run at once.")
]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; without it, one is started.")
]
Author = Annotated[
    str | None,
    typer.Option(
        "--author", help="The model that writes the corpora, or file:FOLDER for answers in files."
    ),
]
Judge = Annotated[
    str | None, typer.Option("--judge", help="The one that judges them; by default the author.")
]
Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--models",
        parser=expand_path,
        metavar="FILE",
        help="A file of further language models; may be repeated.",
    ),
]
CallMode = Annotated[
    Literal["auto", "single", "batch"],
    typer.Option("--mode", help="Single requests or batches; auto picks the cheaper."),
]
Budget = Annotated[
    float | None,
    typer.Option("--budget", min=0, max=1e6, help="Spending cap of the ledger in US dollars."),
]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        parser=expand_path,
        metavar="FILE",
        help="The file of answers and bills; by default under --out.",
    ),
]
Release = Annotated[
    Path,
    typer.Option("--release", parser=expand_path, metavar="FOLDER", help="The release to read."),
]
Public = Annotated[bool, typer.Option("--public", help="Make what is published public.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be uploaded, without network access.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
