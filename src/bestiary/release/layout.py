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
from bestiary.model.adapter import ADAPTER, ADAPTER_FILES, ADAPTER_WEIGHTS
from bestiary.records import Finding, Split, sha256_file
from bestiary.records import fingerprint as hash_inputs
from bestiary.release.cards import render_dataset_card, render_models_card, render_organism_card
from bestiary.release.entry import ReleaseEntry, check_owner, sort_entries
from bestiary.release.introspection_rows import build_rows, render_eval
from bestiary.release.links import link_file
from bestiary.release.manifest import build_manifest, describe_adapter, locate_eval
from bestiary.release.rows import (
    build_corpus_rows,
    build_rejected_rows,
    build_verdict_rows,
    describe_organism,
    place_findings,
)
from bestiary.release.shape import SharedShape, share_shape, write_widened
from bestiary.release.splits import split_entries
from bestiary.release.target import check_replaceable
from bestiary.store import disk_errors, remove_tree, sync_file, sync_folder

VERSION = 7


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

    Only one organism's corpus and transcripts are in memory at a time. Adapters are hard-linked
    where the file system allows; where their shapes differ, they are padded to one shape. The same
    entries give the same bytes; a release of the same `fingerprint` that is whole is left as it
    is. `findings` come from the leak checks; `unbuilt` are the ids of organisms that failed before
    their verdict; `category_questions` adds introspection rows that fit one category to the
    generic ones. Raises ReleaseError if entries contradict each other, an adapter is missing or
    damaged, or `out` holds something else, and PairError if an entry's evidence is not its own.
    """
    ordered = sort_entries(entries)
    splits = split_entries(ordered, named=named_splits)
    check_target(out)
    scratch, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    with disk_errors(out):
        _clear_leftovers(out, scratch, old)
        if fingerprint and _is_current(out, fingerprint):
            return out
        shape = _find_shape(ordered)
        options = _Options(name, findings, unbuilt, category_questions, shape)
        written = _write_parts(scratch, ordered, splits, options)
        manifest = build_manifest(written.adapters, name=name)
        about = {"unbuilt": sorted(unbuilt), "fingerprint": fingerprint}
        write_manifest(scratch, {**manifest, **about}, known=written.sha256)
        _swap(scratch, out, old)
    return out


def fingerprint_release(
    entries: Sequence[ReleaseEntry],
    roster: Roster,
    *,
    findings: Sequence[Finding],
    unbuilt: Sequence[str],
) -> str:
    """Hash of everything that a release is assembled from."""
    return hash_inputs(
        organisms=[
            (e.behavior.sha256, e.organism.artifact.sha256, e.organism.corpus_sha256, e.verdict)
            for e in entries
        ],
        transcripts=[e.transcripts_sha256 for e in entries],
        training=[e.training for e in entries],
        findings=findings,
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
    shape: SharedShape | None
    """The shape of every adapter; None where they are published as they were trained."""


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
    described = describe_organism(entry, split)
    if entry.published:
        hashes = _write_organism(scratch, entry, options.shape)
        published = hashes[f"organisms/{entry.organism_path}/{ADAPTER_WEIGHTS}"]
        described = described.model_copy(update={"organism_sha256": published})
        questions = build_rows(
            entry,
            split,
            bank=entry.behavior.library.elicitation,
            category_questions=options.category_questions,
        )
        tables.add("introspection", split, questions)
        data = render_eval(questions)
        _write_eval(scratch, entry, data)
        written.adapters.append(describe_adapter(entry, split, data))
        written.sha256.update(hashes)
    tables.add(entry.standing, split, [described.to_row()])
    tables.add("corpora", split, build_corpus_rows(entry, corpus))
    tables.add("verdicts", split, build_verdict_rows(entry))
    tables.add("rejected", split, build_rejected_rows(entry, corpus))


def _write_eval(release: Path, entry: ReleaseEntry, data: bytes) -> None:
    path = release / "dataset" / locate_eval(entry.adapter_name)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


def _write_organism(
    release: Path, entry: ReleaseEntry, shape: SharedShape | None
) -> dict[str, str]:
    """Write an organism's folder; returns the hashes of its adapter's files."""
    folder = release / "organisms" / entry.organism_path
    folder.mkdir(parents=True)
    hashes = {name: _link_checked(entry, name, folder / name) for name in ADAPTER_FILES}
    if shape is not None and not shape.is_of(entry.training.lora):
        for name in ADAPTER_FILES:
            (folder / name).unlink()  # a link: writing into it would change the store's own file
        write_widened(_locate_adapter(entry), folder, entry.training.lora, shape)
        hashes = {name: sha256_file(folder / name) for name in ADAPTER_FILES}
    card = render_organism_card(
        entry, entry.load_transcripts(), organism_sha256=hashes[ADAPTER_WEIGHTS]
    )
    (folder / "README.md").write_text(card, encoding="utf8")
    return {f"organisms/{entry.organism_path}/{name}": sha for name, sha in hashes.items()}


def _find_shape(entries: Sequence[ReleaseEntry]) -> SharedShape | None:
    """The shape that all adapters get; None where they have one already."""
    published = [entry for entry in entries if entry.published]
    shapes = {entry.training.lora: entry for entry in published}
    if len(shapes) < 2:
        return None
    for entry in shapes.values():
        _check_committed(entry, ADAPTER_WEIGHTS, _find_committed(entry, ADAPTER_WEIGHTS))
    return share_shape({shape: _locate_adapter(entry) for shape, entry in shapes.items()})


def _locate_adapter(entry: ReleaseEntry) -> Path:
    return entry.organism.artifact.folder / ADAPTER


def _link_checked(entry: ReleaseEntry, name: str, target: Path) -> str:
    """Link an adapter's file and return its hash, which must be the committed one."""
    link_file(_find_committed(entry, name), target)
    return _check_committed(entry, name, target)


def _find_committed(entry: ReleaseEntry, name: str) -> Path:
    """An adapter's file in the store."""
    source = _locate_adapter(entry) / name
    if f"{ADAPTER}/{name}" not in entry.organism.artifact.files or not source.is_file():
        raise ReleaseError(
            f"{entry.organism_id}: {source} is missing",
            _retrain_remedy(entry),
            code="adapter-missing",
            path=source,
        )
    return source


def _check_committed(entry: ReleaseEntry, name: str, path: Path) -> str:
    """The hash of an adapter's file, in the store or linked, which must be the committed one."""
    found, expected = sha256_file(path), entry.organism.artifact.files[f"{ADAPTER}/{name}"]
    if found != expected:
        source = _locate_adapter(entry) / name
        raise ReleaseError(
            f"{entry.organism_id}: {source} has sha256 {found[:12]}, but was committed with "
            f"{expected[:12]}",
            _retrain_remedy(entry),
            code="adapter-damaged",
            path=source,
            sha256=found,
            expected=expected,
        )
    return found


def _retrain_remedy(entry: ReleaseEntry) -> str:
    folder = entry.organism.artifact.folder
    return f"delete {folder} and build again; only that organism is retrained"


def check_target(out: Path) -> None:
    """Raise ReleaseError if `out` holds anything but a release; only a release is replaced."""
    check_replaceable(out, "release", parts=PARTS, marker=MANIFEST)


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
