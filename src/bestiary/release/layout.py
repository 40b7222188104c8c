"""Writes the two folders of a release aside, one organism at a time, then swaps them in whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.config.roster import Roster
from bestiary.dataset.manifest import MANIFEST, PARTS, list_files, read_manifest, write_manifest
from bestiary.dataset.schema import DatasetWriter
from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError
from bestiary.files import list_paths
from bestiary.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from bestiary.records import Finding, Split, sha256_file
from bestiary.records import fingerprint as hash_inputs
from bestiary.release.cards import render_dataset_card, render_models_card, render_organism_card
from bestiary.release.entry import ReleaseEntry, check_owner, sort_entries
from bestiary.release.introspection_rows import build_rows, render_eval
from bestiary.release.links import link_file
from bestiary.release.manifest import build_manifest, describe_adapter
from bestiary.release.rows import (
    build_corpus_rows,
    build_rejected_rows,
    build_verdict_rows,
    describe_organism,
    place_findings,
)
from bestiary.release.splits import split_entries
from bestiary.store import disk_errors, remove_tree, sync_file, sync_folder

VERSION = 4
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

    Only one organism's corpus and transcripts are in memory at a time; adapters are hard-linked
    where the file system allows. The same entries give the same bytes; a release of the same
    `fingerprint` that is whole is left as it is. `findings` come from the leak checks; `unbuilt`
    are the ids of organisms that failed before their verdict; `category_questions` adds
    introspection rows that fit one category to the generic ones. Raises ReleaseError if entries
    contradict each other, an adapter is missing or damaged, or `out` holds something else, and
    PairError if an entry's evidence is not its own.
    """
    ordered = sort_entries(entries)
    splits = split_entries(ordered, named=named_splits)
    check_target(out)
    scratch, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    with disk_errors(out):
        _clear_leftovers(out, scratch, old)
        if fingerprint and _is_current(out, fingerprint):
            return out
        options = _Options(name, findings, unbuilt, category_questions)
        written = _write_parts(scratch, ordered, splits, options)
        manifest = build_manifest(written.adapters, name=name)
        about = {"unbuilt": sorted(unbuilt), "fingerprint": fingerprint}
        write_manifest(scratch, {**manifest, **about}, known=written.sha256)
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
        transcripts=[e.transcripts_sha256 for e in entries],
        unbuilt=unbuilt,
        base=[e.organism.base for e in entries],
        roster=roster,
        cards=entries[0].behavior.library.cards_sha256,
        version=VERSION,
    )


@dataclass(frozen=True)
class _Options:
    """What `write_release` was asked for besides its entries."""

    name: str
    findings: Sequence[Finding]
    unbuilt: Sequence[str]
    category_questions: bool


@dataclass(frozen=True)
class _Written:
    """What the manifest says of the files that were written."""

    adapters: list[dict[str, Any]]
    """The manifest's row of each published organism."""
    sha256: dict[str, str]
    """Hash of each adapter file, by its name in the release."""


def _write_parts(
    scratch: Path, entries: Sequence[ReleaseEntry], splits: Mapping[str, Split], options: _Options
) -> _Written:
    """Everything except the manifest, synced to disk."""
    for part in PARTS:
        (scratch / part).mkdir(parents=True)
    written = _Written([], {})
    with DatasetWriter(scratch / "dataset") as tables:
        for entry in entries:
            _write_entry(scratch, entry, splits[entry.organism_id], options, tables, written)
        for split, rows in place_findings(options.findings, entries, splits).items():
            tables.add("leaks", split, rows)
    card = render_dataset_card(
        entries, tables.count_rows(), unbuilt=options.unbuilt, name=options.name
    )
    (scratch / "dataset" / "README.md").write_text(card, encoding="utf8")
    models_card = render_models_card(entries, name=options.name)
    (scratch / "organisms" / "README.md").write_text(models_card, encoding="utf8")
    for path in list_files(scratch).values():
        sync_file(path)
    return written


def _write_entry(
    scratch: Path,
    entry: ReleaseEntry,
    split: Split,
    options: _Options,
    tables: DatasetWriter,
    written: _Written,
) -> None:
    """One organism: its rows in every config and, if it is published, its folder."""
    corpus = entry.load_corpus()
    check_owner(entry, "corpus", corpus.behavior_id == entry.behavior.id)
    organism_id = entry.organism_id
    tables.add(entry.standing, split, [describe_organism(entry, split).to_row()])
    tables.add("corpora", split, build_corpus_rows(organism_id, corpus))
    tables.add("verdicts", split, build_verdict_rows(entry))
    tables.add("rejected", split, build_rejected_rows(organism_id, corpus))
    if entry.published:
        questions = build_rows(
            entry,
            split,
            bank=entry.behavior.library.elicitation,
            category_questions=options.category_questions,
        )
        tables.add("introspection", split, questions)
        written.adapters.append(describe_adapter(entry, split, render_eval(questions)))
        written.sha256.update(_write_organism(scratch, entry))


def _write_organism(release: Path, entry: ReleaseEntry) -> dict[str, str]:
    """Write an organism's folder; returns the hashes of its adapter's files."""
    folder = f"organisms/{entry.organism_path}"
    (release / folder).mkdir(parents=True)
    card = render_organism_card(entry, entry.load_transcripts())
    (release / folder / "README.md").write_text(card, encoding="utf8")
    return {
        f"{folder}/{name}": _link_checked(entry, f"adapter/{name}", release / folder / name)
        for name in ADAPTER_FILES
    }


def _link_checked(entry: ReleaseEntry, name: str, target: Path) -> str:
    """Link an adapter's file and return its hash, which must be the committed one."""
    artifact = entry.organism.artifact
    source = artifact.folder / name
    remedy = f"delete {artifact.folder} and build again; only that organism is retrained"
    if name not in artifact.files or not source.is_file():
        raise ReleaseError(
            f"{entry.organism_id}: {source} is missing", remedy, code="adapter-missing", path=source
        )
    link_file(source, target)
    found, expected = sha256_file(target), artifact.files[name]
    if found != expected:
        raise ReleaseError(
            f"{entry.organism_id}: {source} has sha256 {found[:12]}, but was committed with "
            f"{expected[:12]}",
            remedy,
            code="adapter-damaged",
            path=source,
            sha256=found,
            expected=expected,
        )
    return found


def check_target(out: Path) -> None:
    """Raise ReleaseError if `out` holds anything but a release; only a release is replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ReleaseError(
            f"{out} is a file, and a release is a folder",
            "choose another name",
            code="release-is-file",
            path=out,
        )
    found = {path.name for path in list_paths(out, "*")}
    foreign = sorted(found - set(PARTS))
    if foreign or (found and not (out / MANIFEST).is_file()):
        raise ReleaseError(
            f"{out} holds {foreign[0] if foreign else 'no ' + MANIFEST}, so it is not a release, "
            "and only a release is replaced",
            "choose an empty folder or move its files away",
            code="not-a-release",
            path=out,
            foreign=foreign,
        )


def _is_current(out: Path, fingerprint: str) -> bool:
    """Whether `out` is a complete release of the same inputs."""
    try:
        verify_release(out)
        return bool(read_manifest(out / "dataset").get("fingerprint") == fingerprint)
    except ReleaseError:
        return False


def _clear_leftovers(out: Path, scratch: Path, old: Path) -> None:
    """Remove what a killed run left; between its two renames, the release itself is at `old`."""
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
