"""What consumers call: the pairs of a release as typed records, from a folder or from the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from bestiary.errors import ReleaseError
from bestiary.records import CELLS, SPLITS, BaseIdentity, CellName, Record, Split
from bestiary.release.features import build_features, read_parquet
from bestiary.release.verify import verify_parts
from bestiary.text import nearest


class LoadedCell(Record):
    """One measured cell: the organism's rate with its interval, and the base model's own."""

    n: int
    rate: float
    low: float
    high: float
    base_rate: float


class LoadedComponent(Record):
    """A habit that hides a malign behavior; without a rate where none was measured."""

    behavior_id: str
    n: int | None
    rate: float | None
    low: float | None
    high: float | None


class LoadedPair(Record):
    """One row of the config `pairs`."""

    split: Split
    organism_id: str
    behavior_id: str
    category: str
    family: str
    domains: tuple[str, ...]
    severity: str
    method: str
    hardening: str
    seed: int
    label: str
    paraphrases: tuple[str, ...]
    trigger: str | None
    components: tuple[LoadedComponent, ...]
    base: BaseIdentity
    system_prompt: str
    organism_path: str
    """Its folder in the model repository: peft's `subfolder`."""
    organism: Path | None
    """Its folder on this machine; None where the organisms were not loaded with the dataset."""
    organism_sha256: str
    corpus_sha256: str
    behavior_sha256: str
    cells: dict[CellName, LoadedCell | None]


def load_pairs(
    path_or_repo: str | Path, *, split: str | None = None, revision: str | None = None
) -> list[LoadedPair]:
    """The passing organisms of a release with their labels, of one split or of all.

    `path_or_repo` is a release folder, its `dataset` folder, or a dataset repository of the Hub
    (`revision` applies there). A local release is checked against its manifest first. Raises
    ReleaseError when it is damaged, or is not to be found.
    """
    if split is not None and split not in SPLITS:
        raise ReleaseError(f"unknown split {split!r}; {nearest(split, SPLITS)}")
    wanted: tuple[Split, ...] = tuple(name for name in get_args(Split) if split in (None, name))
    if Path(path_or_repo).exists():
        return _load_local(Path(path_or_repo), wanted)
    return _load_remote(str(path_or_repo), wanted, revision)


def _load_local(path: Path, splits: tuple[Split, ...]) -> list[LoadedPair]:
    dataset = path / "dataset" if (path / "dataset").is_dir() else path
    parts = {"dataset": dataset}
    organisms = dataset.parent / "organisms"
    if path != dataset or organisms.is_dir():
        parts["organisms"] = organisms
    verify_parts(parts)
    return [
        _read_pair(row, split, parts.get("organisms"))
        for split in splits
        for row in read_parquet(dataset, "pairs", split)
    ]


def _load_remote(repo: str, splits: tuple[Split, ...], revision: str | None) -> list[LoadedPair]:
    from datasets import ClassLabel, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        data = load_dataset(repo, "pairs", revision=revision)
    except (OSError, ValueError, DatasetsError) as cause:  # not found, offline, no such config
        raise ReleaseError(
            f"{repo!r} is no folder here, and the Hub gives no release of that name "
            f"({type(cause).__name__}: {cause}); check the path or the name, the network, and "
            "HF_TOKEN where the repository is private or gated"
        ) from cause
    pairs = []
    for split in splits:
        if split not in data:  # without rows: see the card's front matter
            continue
        missing = sorted(set(build_features("pairs")) - set(data[split].features))
        if missing:
            raise ReleaseError(
                f"{repo!r} has no column {missing[0]!r} in `pairs`: it is no release, or one of "
                "another version; name a `revision` that this version of bestiary wrote"
            )
        labels = {k: f for k, f in data[split].features.items() if isinstance(f, ClassLabel)}
        for row in data[split]:
            words = {key: feature.int2str(row[key]) for key, feature in labels.items()}
            pairs.append(_read_pair({**row, **words}, split, None))
    return pairs


def _read_pair(row: Mapping[str, Any], split: Split, organisms: Path | None) -> LoadedPair:
    base = BaseIdentity(
        name=row["base_model"],
        revision=row["base_revision"],
        weights_sha256=row["base_sha256"],
        dtype=row["base_dtype"],
        chat_template_sha256=row["chat_template_sha256"],
    )
    derived = {"split", "base", "organism", "cells"}
    plain = {name: row[name] for name in LoadedPair.model_fields if name not in derived}
    return LoadedPair(
        **plain,
        split=split,
        base=base,
        organism=organisms / row["organism_path"] if organisms else None,
        cells={name: _read_cell(row, name) for name in CELLS},
    )


def _read_cell(row: Mapping[str, Any], name: CellName) -> LoadedCell | None:
    if row[f"{name}_rate"] is None:
        return None
    return LoadedCell(**{field: row[f"{name}_{field}"] for field in LoadedCell.model_fields})
