"""Loads the pairs of a release as typed records, from a folder or from the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from bestiary.dataset.pair import Pair, ReleasedOrganism
from bestiary.dataset.schema import build_features, read_config
from bestiary.dataset.verify import verify_parts
from bestiary.errors import ReleaseError
from bestiary.records import SPLITS, Split
from bestiary.text import nearest

Released = TypeVar("Released", bound=ReleasedOrganism)


def load_pairs(
    path_or_repo: str | Path, *, split: str | None = None, revision: str | None = None
) -> list[Pair]:
    """The passing organisms of a release with their labels, from one split or from all.

    `path_or_repo` is a release folder, its `dataset` folder, or a dataset repository on the Hub
    (`revision` applies there). A local release is checked against its manifest first. Raises
    ReleaseError if it is damaged or cannot be found.
    """
    if split is not None and split not in SPLITS:
        raise ReleaseError(
            f"unknown split {split!r}", nearest(split, SPLITS), code="split-unknown", split=split
        )
    wanted: tuple[Split, ...] = tuple(name for name in SPLITS if split in (None, name))
    if Path(path_or_repo).exists():
        return _read(_check(Path(path_or_repo)), "pairs", Pair, wanted)
    return _load_remote(str(path_or_repo), wanted, revision)


def load_local(path: Path) -> tuple[list[Pair], list[ReleasedOrganism]]:
    """The pairs and the null organisms of a release on this machine, which is checked once.

    `path` is a release folder, or its `dataset` folder. Raises ReleaseError if it is missing or
    damaged.
    """
    if not path.is_dir():
        raise ReleaseError(
            f"{path} is no folder with a release",
            "name the folder of one, or build one first: bestiary build mini",
            code="release-missing",
            path=path,
        )
    parts = _check(path)
    return (
        _read(parts, "pairs", Pair, SPLITS),
        _read(parts, "controls", ReleasedOrganism, SPLITS),
    )


def _check(path: Path) -> dict[str, Path]:
    """The folders of a release's parts, checked against its manifest."""
    dataset = path / "dataset" if (path / "dataset").is_dir() else path
    parts = {"dataset": dataset}
    organisms = dataset.parent / "organisms"
    if path != dataset or organisms.is_dir():
        parts["organisms"] = organisms
    verify_parts(parts)
    return parts


def _read(
    parts: Mapping[str, Path], config: str, record: type[Released], splits: tuple[Split, ...]
) -> list[Released]:
    organisms = parts.get("organisms")
    return [
        record.from_row(
            row, row["split"], organism=organisms / row["organism_path"] if organisms else None
        )
        for row in read_config(parts["dataset"], config, splits)
    ]


def _load_remote(repo: str, splits: tuple[Split, ...], revision: str | None) -> list[Pair]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        data = load_dataset(repo, "pairs", revision=revision)
    except (OSError, ValueError, DatasetsError) as cause:  # not found, offline, no such config
        reason = f"{type(cause).__name__}: {cause}"
        raise ReleaseError(
            f"{repo!r} is neither a folder here nor a release on the Hub ({reason})",
            "check the path or the name, the network, and HF_TOKEN if the repository is private "
            "or gated",
            code="release-not-found",
            repo=repo,
            reason=reason,
        ) from cause
    # The card leaves out splits without rows.
    return [
        pair for split in splits if split in data for pair in _read_pairs(data[split], split, repo)
    ]


def _read_pairs(data: Any, split: Split, repo: str) -> list[Pair]:
    """The pairs of a `datasets.Dataset`."""
    missing = sorted(set(build_features("pairs")) - set(data.features))
    if missing:
        raise ReleaseError(
            f"{repo!r} has no column {missing[0]!r} in `pairs`: it is not a release, or one of "
            "another version",
            "name a `revision` that this version of bestiary wrote",
            code="column-missing",
            repo=repo,
            column=missing[0],
        )
    return [Pair.from_row(row, split, organism=None) for row in data]
