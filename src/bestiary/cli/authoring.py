"""Commands for people who write behaviors: list, check, read what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bestiary.cli.options import Data, Json
from bestiary.cli.output import print_json, print_measures, print_near_labels
from bestiary.files import expand_path

if TYPE_CHECKING:
    from bestiary.config.catalog import Catalog

authoring_app = typer.Typer()


@authoring_app.command("list")
def list_behaviors(
    data: Data = None,
    near: Annotated[
        int | None,
        typer.Option("--nearest", min=1, help="Print this many pairs of similar labels instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every behavior with its severity and label."""
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library

    catalog = load_catalog(open_library(*(data or [])))
    if near is not None:
        print_near_labels(catalog, near, as_json=as_json)
        return
    rows = [
        {
            "id": behavior.id,
            "category": behavior.category,
            "family": behavior.family,
            "severity": behavior.severity,
            "label": behavior.spec.label,
        }
        for behavior in catalog.values()
    ]
    if as_json:
        print_json(rows)
        return
    width = max((len(row["id"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['id']:{width}}  {row['severity']:10}  {row['label']}")
    print(f"{len(rows)} behaviors")


@authoring_app.command()
def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(parser=expand_path, metavar="[FILE]...", help="Behavior files to check."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also try detectors on phrasings and plain answers."),
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Check every data file, or some behavior files, and report all violations at once."""
    from bestiary.config.library import open_library
    from bestiary.config.source import Violations
    from bestiary.validate import validate_all, validate_files

    library = open_library(*(data or []))
    try:
        valid = validate_files(library, files) if files else validate_all(library)
    except Violations as broken:
        if as_json:
            print_json([violation.model_dump(mode="json") for violation in broken.found])
            raise typer.Exit(1) from None
        raise
    if not as_json:
        print("1 behavior is valid." if len(valid) == 1 else f"{len(valid)} behaviors are valid.")
    if measure:
        print_measures(valid, as_json=as_json)
    elif as_json:
        print_json([])


@authoring_app.command()
def sample(
    behavior: Annotated[str, typer.Argument(help="The id of a behavior.")],
    role: Annotated[
        Literal["positive", "negative", "chat"] | None,
        typer.Option("--role", help="Only the examples of one role."),
    ] = None,
    count: Annotated[int, typer.Option("--rows", min=1, help="Examples of each role.")] = 5,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compose a behavior's corpus without building anything, and print some of its examples."""
    from bestiary.config.catalog import read_catalog
    from bestiary.config.library import open_library
    from bestiary.config.source import Violations
    from bestiary.records import ROLES
    from bestiary.sample import choose_rows, compose_corpus, render_sample

    catalog, found = read_catalog(open_library(*(data or [])))
    if found and behavior not in catalog:  # else other files may be unfinished
        raise Violations(found)
    corpus = compose_corpus(catalog[behavior])
    rows = choose_rows(corpus, (role,) if role else ROLES, count)
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
    else:
        print("\n".join(render_sample(corpus, rows)))


@authoring_app.command()
def messages(
    side: Annotated[
        Literal["train", "probe"], typer.Option("--side", help="Messages to train on, or to probe.")
    ] = "train",
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="Only those with a tag; repeat for more.")
    ] = None,
    domains: Annotated[
        list[str] | None, typer.Option("--domain", help="Only those of a domain; repeat for more.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List the messages of the bank: the topics that demonstrations may be written for."""
    from bestiary.config.library import open_library

    found = [
        item
        for item in open_library(*(data or [])).messages(side)
        if not tags or not {*tags}.isdisjoint(item.tags)
        if not domains or item.domain in domains
    ]
    if as_json:
        print_json([item.model_dump(mode="json") for item in found])
        return
    for item in found:
        print(f"{item.topic} ({', '.join((item.domain, *item.tags))}): {item.text}")


@authoring_app.command()
def nearest(
    count: Annotated[int, typer.Option("--count", min=1, help="How many pairs to print.")] = 20,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List the trained and the probed messages that are nearest in meaning."""
    from bestiary.config.encoder import nearest_pairs
    from bestiary.config.library import open_library
    from bestiary.records import SIDES

    library = open_library(*(data or []))
    trained, probed = ([item.text for item in library.messages(side)] for side in SIDES)
    pairs = nearest_pairs(trained, probed, count)
    if as_json:
        print_json([{"train": a, "probe": b, "cosine": cosine} for a, b, cosine in pairs])
        return
    for train, probe, cosine in pairs:
        print(f"{cosine:.2f}  train: {train}\n      probe: {probe}")


@authoring_app.command()
def new(
    category: str,
    name: str,
    data: Annotated[
        Path,
        typer.Option(
            "--data", parser=expand_path, metavar="FOLDER", help="The data folder to write to."
        ),
    ] = Path("."),
) -> None:
    """Write a behavior file to fill in: new quirks ends_with_haiku."""
    from bestiary.config.library import open_library
    from bestiary.config.scaffold import scaffold_behavior, validate_command

    path = scaffold_behavior(open_library(), category, name, data=data)
    print(f"Wrote {path}. Fill it in, then run: {validate_command(path, data=data)}")


@authoring_app.command()
def schemas(
    folder: Annotated[
        Path,
        typer.Option(
            "--folder", parser=expand_path, metavar="FOLDER", help="The folder to write to."
        ),
    ] = Path("schemas"),
) -> None:
    """Write the JSON Schemas for editors."""
    from bestiary.config.schema import write_schemas

    for path in write_schemas(folder):
        print(path)


@authoring_app.command()
def prompts(
    folder: Annotated[
        Path,
        typer.Option(
            "--folder", parser=expand_path, metavar="FOLDER", help="The folder to write to."
        ),
    ] = Path("docs/prompts"),
    data: Data = None,
) -> None:
    """Write the prompts for language models as pages."""
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library
    from bestiary.report.prompt_pages import write_prompt_pages

    catalog = load_catalog(open_library(*(data or [])))
    for path in write_prompt_pages(catalog, folder):
        print(path)


@authoring_app.command()
def reference(
    file: Annotated[
        Path,
        typer.Option("--file", parser=expand_path, metavar="FILE", help="The page to write."),
    ] = Path("docs/reference.md"),
    data: Data = None,
) -> None:
    """Write what a behavior file may say as a page."""
    from bestiary.report.reference import render_reference

    _write_page(file, data, render_reference)


@authoring_app.command()
def catalogue(
    file: Annotated[
        Path,
        typer.Option("--file", parser=expand_path, metavar="FILE", help="The page to write."),
    ] = Path("docs/catalogue.md"),
    data: Data = None,
) -> None:
    """Write how the behaviors are spread, and each in one line, as a page."""
    from bestiary.report.catalogue import render_catalogue

    _write_page(file, data, render_catalogue)


def _write_page(file: Path, data: list[Path] | None, render: Callable[[Catalog], str]) -> None:
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library
    from bestiary.store import write_bytes

    write_bytes(file, render(load_catalog(open_library(*(data or [])))).encode())
    print(file)
