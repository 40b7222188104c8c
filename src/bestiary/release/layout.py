"""Writes the two folders of a release, aside first, then swaps them in whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bestiary.config.roster import Roster
from bestiary.errors import ReleaseError
from bestiary.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from bestiary.records import SPLITS, Finding, Split, sha256_file
from bestiary.records import fingerprint as hash_inputs
from bestiary.release.cards import (
    render_dataset_card,
    render_models_card,
    render_organism_card,
)
from bestiary.release.entry import ReleaseEntry, sort_entries
from bestiary.release.features import CONFIGS, write_parquet
from bestiary.release.manifest import (
    MANIFEST,
    PARTS,
    build_manifest,
    list_files,
    read_manifest,
    write_manifest,
)
from bestiary.release.rows import Tables, build_tables
from bestiary.release.splits import split_entries
from bestiary.release.verify import verify_release
from bestiary.store import disk_errors, remove_tree, sync_file, sync_folder

VERSION = 3
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def write_release(
    entries: Sequence[ReleaseEntry],
    out: Path,
    *,
    named_splits: Mapping[str, Split],
    name: str,
    findings: Sequence[Finding] = (),
    unbuilt: Sequence[str] = (),
    fingerprint: str = "",
    category_questions: bool = False,
) -> Path:
    """Write the release of these organisms to `out` and return it.

    The same entries give the same bytes; a release of the same `fingerprint` that is whole is
    left as it is. `findings` are the leak checks' answers; `unbuilt` are the ids of organisms that
    ended in an error before their verdict; `category_questions` adds introspection rows that fit
    one category to the generic ones. Raises ReleaseError when entries contradict each other, an
    adapter is missing or damaged, or `out` holds something else.
    """
    ordered = sort_entries(entries)
    splits = split_entries(ordered, named=named_splits)
    _check_target(out)
    scratch, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    with disk_errors(out):
        _clear_leftovers(out, scratch, old)
        if fingerprint and _is_current(out, fingerprint):
            return out
        tables = build_tables(
            ordered,
            splits,
            bank=ordered[0].behavior.library.elicitation,
            findings=findings,
            category_questions=category_questions,
        )
        card = render_dataset_card(ordered, tables, unbuilt=unbuilt, name=name)
        _write_parts(scratch, ordered, tables, card, name=name)
        manifest = build_manifest(ordered, splits, tables, name=name)
        about = {"unbuilt": sorted(unbuilt), "fingerprint": fingerprint}
        write_manifest(scratch, {**manifest, **about})
        _swap(scratch, out, old)
    return out


def fingerprint_release(
    entries: Sequence[ReleaseEntry], roster: Roster, unbuilt: Sequence[str]
) -> str:
    """Hash of everything that a release is assembled from."""
    return hash_inputs(
        organisms=[
            (e.behavior.sha256, e.organism.artifact.sha256, e.organism.corpus_sha256, e.verdict)
            for e in entries
        ],
        transcripts=[e.transcripts for e in entries],
        unbuilt=unbuilt,
        base=[e.organism.base for e in entries],
        roster=roster,
        cards=entries[0].behavior.library.cards_sha256,
        version=VERSION,
    )


def _write_parts(
    scratch: Path, ordered: Sequence[ReleaseEntry], tables: Tables, card: str, *, name: str
) -> None:
    """Everything but the manifest, synced to the disk."""
    for part in PARTS:
        (scratch / part).mkdir(parents=True)
    _write_dataset(scratch, tables, card)
    models_card = render_models_card(ordered, name=name)
    (scratch / "organisms" / "README.md").write_text(models_card, encoding="utf8")
    for entry in ordered:
        if entry.published:
            _write_organism(scratch, entry)
    for path in list_files(scratch).values():
        sync_file(path)


def _check_target(out: Path) -> None:
    """Only a release is ever replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ReleaseError(f"{out} is a file, and a release is a folder; choose another name")
    foreign = sorted({path.name for path in out.iterdir()} - set(PARTS))
    if foreign or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise ReleaseError(
            f"{out} holds {foreign[0] if foreign else 'no ' + MANIFEST}, so it is not a release, "
            "and only a release is replaced; choose an empty folder or move its files away"
        )


def _is_current(out: Path, fingerprint: str) -> bool:
    """Whether `out` is a whole release of these very inputs."""
    try:
        verify_release(out)
        return bool(read_manifest(out / "dataset").get("fingerprint") == fingerprint)
    except ReleaseError:
        return False


def _clear_leftovers(out: Path, scratch: Path, old: Path) -> None:
    """Remove what a killed run left; one killed between the two renames left the release aside."""
    remove_tree(scratch)
    if old.exists() and not out.exists():
        os.rename(old, out)
    remove_tree(old)


def _swap(scratch: Path, out: Path, old: Path) -> None:
    if out.exists():
        os.rename(out, old)
    os.rename(scratch, out)
    sync_folder(out.parent)
    remove_tree(old)


def _write_dataset(release: Path, tables: Tables, card: str) -> None:
    (release / "dataset" / "README.md").write_text(card, encoding="utf8")
    for config in CONFIGS:
        for split in SPLITS:
            path = release / "dataset" / config / f"{split}.parquet"
            write_parquet(path, tables[config][split], config=config)


def _write_organism(release: Path, entry: ReleaseEntry) -> None:
    target = release / "organisms" / entry.organism_path
    target.mkdir(parents=True)
    for name in ADAPTER_FILES:
        _copy_checked(entry, f"adapter/{name}", target / name)
    (target / "README.md").write_text(render_organism_card(entry), encoding="utf8")


def _copy_checked(entry: ReleaseEntry, name: str, target: Path) -> None:
    """Copy an adapter's file; the copy must have the hash that the organism was committed with."""
    artifact = entry.organism.artifact
    source = artifact.folder / name
    remedy = f"delete {artifact.folder} and build again, only that organism is trained anew"
    if name not in artifact.files or not source.is_file():
        raise ReleaseError(f"{entry.organism_id}: {source} is missing; {remedy}")
    shutil.copyfile(source, target)
    found, expected = sha256_file(target), artifact.files[name]
    if found != expected:
        raise ReleaseError(
            f"{entry.organism_id}: {source} has sha256 {found[:12]}, but was committed with "
            f"{expected[:12]}; {remedy}"
        )


__all__ = ["ReleaseEntry", "write_release"]
