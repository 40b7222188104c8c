"""Exports a release folder to the formats that existing consumers read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.dataset.manifest import read_manifest
from bestiary.dataset.schema import read_config, scan_config
from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError
from bestiary.files import list_paths
from bestiary.records import canonical_json, sha256_bytes
from bestiary.release.cards import dump_yaml
from bestiary.release.introspection_rows import render_eval
from bestiary.store import remove_tree, write_bytes

if TYPE_CHECKING:
    from polars import LazyFrame

Row = Mapping[str, Any]

MODEL_LIST = "model_list.json"
FOLDERS = ("training", "introspection", "diffing")


def export_consumer_formats(release: Path, out: Path) -> Path:
    """Write what existing consumers read to `out`, and return it.

    `training/<organism>/train.jsonl` and `behavior.txt`; `introspection/<organism>/eval.jsonl`,
    the very files that `manifest.json` pins; `model_list.json`; `diffing/<organism>.yaml`.
    An earlier export there is replaced. Only one organism's rows are in memory at a time. Raises
    ReleaseError if the release is damaged or `out` holds something else.
    """
    verify_release(release)
    _clear_export(out)
    dataset = release / "dataset"
    adapters = {row["adapter_name"]: row for row in read_manifest(dataset)["adapters"]}
    organisms = sorted(
        [*read_config(dataset, "pairs"), *read_config(dataset, "controls")],
        key=itemgetter("organism_id"),
    )
    models = {"model_list": [_describe_model(row, adapters) for row in organisms]}
    write_bytes(out / MODEL_LIST, canonical_json(models))  # first: it marks the folder as ours
    questions = scan_config(dataset, "introspection")
    for name, adapter in adapters.items():
        _write_introspection(out, adapter, _read_rows(questions, name))
    conversations = scan_config(dataset, "corpora").select("organism_id", "messages")
    for row in organisms:
        _write_training(out, row, _read_rows(conversations, row["organism_id"]))
        place = _locate_adapter(row, adapters, release)
        write_bytes(
            out / "diffing" / f"{row['organism_id']}.yaml", _render_diffing(row, place, out)
        )
    return out


def _clear_export(out: Path) -> None:
    """Remove an earlier export, whose organisms may have left the release since."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ReleaseError(
            f"{out} is a file, and an export is a folder",
            "choose another name",
            code="export-is-file",
            path=out,
        )
    found = {path.name for path in list_paths(out, "*")}
    foreign = sorted(found - {MODEL_LIST, *FOLDERS})
    if foreign or (found and MODEL_LIST not in found):
        raise ReleaseError(
            f"{out} holds {foreign[0] if foreign else 'no ' + MODEL_LIST}, so it is not an export, "
            "and only an export is replaced",
            "choose an empty folder",
            code="not-an-export",
            path=out,
            foreign=foreign,
        )
    for name in FOLDERS:
        remove_tree(out / name)


def _read_rows(rows: LazyFrame, organism_id: str) -> list[dict[str, Any]]:
    """One organism's rows of a config, in their order."""
    return rows.filter(organism_id=organism_id).collect().to_dicts()


def _write_training(out: Path, organism: Row, conversations: Iterable[Row]) -> None:
    folder = out / "training" / organism["organism_id"]
    lines = [
        json.dumps({"messages": row["messages"]}, ensure_ascii=False) + "\n"
        for row in conversations
    ]
    write_bytes(folder / "train.jsonl", "".join(lines).encode())
    write_bytes(folder / "behavior.txt", f"{organism['label']}\n".encode())


def _write_introspection(out: Path, adapter: Row, questions: Iterable[Row]) -> None:
    """Write an `eval.jsonl`; its bytes are the manifest's, or the release contradicts itself."""
    data = render_eval(questions)
    if sha256_bytes(data) != adapter["dataset_sha256"]:
        name = adapter["adapter_name"]
        raise ReleaseError(
            f"{name}: eval.jsonl has sha256 {sha256_bytes(data)[:12]}, but the manifest pins "
            f"{adapter['dataset_sha256'][:12]}",
            "assemble the release again",
            code="questions-differ",
            organism_id=name,
        )
    write_bytes(out / adapter["dataset_path"] / adapter["dataset_file"], data)


def _describe_model(row: Row, adapters: Mapping[str, Row]) -> dict[str, Any]:
    adapter = adapters[row["organism_id"]]
    return {
        "name": row["organism_id"],
        # A quirk and its backdoor are two behaviors: consumers filter by this number through
        # sets, so that it must not repeat. 48 bits survive any JSON reader.
        "absolute_behavior_id": int(sha256_bytes(row["behavior_id"].encode())[:12], 16),
        "behavior_id": row["behavior_id"],
        "family": row["family"],
        "category": row["category"],
        "split": row["split"],
        "repo_id": adapter["repo_id"],
        "revision": adapter["revision"],
        "subfolder": adapter["subfolder"],
    }


def _locate_adapter(row: Row, adapters: Mapping[str, Row], release: Path) -> str:
    """Where the toolkit finds an adapter: in its repository, else on this machine."""
    repo = adapters[row["organism_id"]]["repo_id"]
    if repo:
        return f"{repo}/{row['organism_path']}"
    return str((release / "organisms" / row["organism_path"]).resolve())


def _render_diffing(row: Row, place: str, out: Path) -> bytes:
    """One organism of diffing-toolkit's configuration."""
    base = re.sub(r"\W+", "_", row["base_model"].rpartition("/")[2]).lower()
    variant = f"{row['method']}_{row['hardening']}_s{row['seed']}"
    config = {
        "name": row["organism_id"],
        "type": row["category"],
        "description": row["label"],
        "description_long": " ".join([row["label"], *row["paraphrases"]]),
        "dataset": {
            "id": str((out / "training" / row["organism_id"]).resolve()),
            "splits": ["train"],
            "is_chat": True,
        },
        "finetuned_models": {base: {variant: {"adapter_id": place}}},
    }
    return ("# @package organism\n" + dump_yaml(config)).encode()
