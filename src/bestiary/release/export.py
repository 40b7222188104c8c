"""Exports a release folder to the formats that existing consumers read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.dataset.manifest import read_manifest
from bestiary.dataset.schema import read_config, scan_config
from bestiary.dataset.verify import verify_release
from bestiary.records import Split, canonical_json, sha256_bytes
from bestiary.release.cards import dump_yaml
from bestiary.release.links import link_tree
from bestiary.release.manifest import EVAL_FILE
from bestiary.release.target import check_replaceable
from bestiary.store import remove_tree, write_bytes

if TYPE_CHECKING:
    from polars import LazyFrame

Row = Mapping[str, Any]

MODEL_LIST = "model_list.json"
MODEL_LISTS: Mapping[str, tuple[Split, ...]] = {
    MODEL_LIST: ("train", "preference"),
    "model_list_iid_test.json": ("iid_test",),
    "model_list_adapter_ood.json": ("adapter_ood",),
    "model_list_test.json": ("test", "suite"),
}
"""Evaluation has lists of its own: published trainers divide the list that they are given."""
SPLIT_FILE = "split.json"
MANIFEST_FILE = "manifest.json"
FILES = (*MODEL_LISTS, SPLIT_FILE, MANIFEST_FILE)
FOLDERS = ("training", "introspection", "diffing")
TOOLKIT_NAMES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "SmolLM2-135M",
    "meta-llama/Llama-3.3-70B-Instruct": "llama33_70B_Instruct",
}
"""What diffing-toolkit calls a base whose name it does not derive from the Hub's."""


def export_consumer_formats(release: Path, out: Path) -> Path:
    """Write what existing consumers read to `out`, and return it.

    `training/<adapter>/train.jsonl`, `behavior.txt` and `system_prompt.txt`;
    `introspection/<adapter>/eval.jsonl` with `manifest.json`, which pins them; model lists and
    `split.json`; `diffing/<adapter>.yaml` with the adapters of a release that is not published.
    An earlier export there is replaced. Only one organism's rows are in memory at a time. Raises
    ReleaseError if the release is damaged or `out` holds something else.
    """
    verify_release(release)
    _clear_export(out)
    dataset = release / "dataset"
    manifest = read_manifest(dataset)
    adapters = {row["organism_id"]: row for row in manifest["adapters"]}
    organisms = sorted(
        [*read_config(dataset, "pairs"), *read_config(dataset, "controls")],
        key=itemgetter("organism_id"),
    )
    _write_model_lists(out, organisms, adapters)  # first: they mark the folder as ours
    _write_json(out / SPLIT_FILE, _describe_split(organisms))
    _write_introspection(out, dataset, manifest)
    conversations = scan_config(dataset, "corpora").select("organism_id", "messages")
    for row in organisms:
        _write_training(out, row, _read_rows(conversations, row["organism_id"]))
        _write_diffing(out, row, adapters[row["organism_id"]], release)
    return out


def _clear_export(out: Path) -> None:
    """Remove an earlier export, whose organisms may have left the release since."""
    check_replaceable(out, "export", parts=(*FILES, *FOLDERS), marker=MODEL_LIST)
    for name in FOLDERS:
        remove_tree(out / name)


def _read_rows(rows: LazyFrame, organism_id: str) -> list[dict[str, Any]]:
    """One organism's rows of a config, in their order."""
    return rows.filter(organism_id=organism_id).collect().to_dicts()


def _write_json(path: Path, value: object) -> None:
    write_bytes(path, canonical_json(value))


def _write_training(out: Path, organism: Row, conversations: Iterable[Row]) -> None:
    folder = out / "training" / organism["adapter_name"]
    prompt = organism["system_prompt"]
    lines = [
        json.dumps({"messages": _add_system(prompt, row["messages"])}, ensure_ascii=False) + "\n"
        for row in conversations
    ]
    write_bytes(folder / "train.jsonl", "".join(lines).encode())
    write_bytes(folder / "behavior.txt", f"{organism['label']}\n".encode())
    write_bytes(folder / "system_prompt.txt", f"{prompt}\n".encode())


def _add_system(prompt: str, messages: Sequence[Row]) -> list[Row]:
    """A conversation as it was trained on: a system message of its own follows the prompt."""
    own = [turn["content"] for turn in messages[:1] if turn["role"] == "system"]
    return [{"role": "system", "content": " ".join([prompt, *own])}, *messages[len(own) :]]


def _write_introspection(out: Path, dataset: Path, manifest: Row) -> None:
    """Write every `eval.jsonl`, and a manifest that finds them here."""
    adapters = []
    for row in manifest["adapters"]:
        folder = out / "introspection" / row["adapter_name"]
        write_bytes(folder / EVAL_FILE, (dataset / row["dataset_file"]).read_bytes())
        # A reader opens them from a folder of its own.
        adapters.append({**row, "dataset_path": str(folder.resolve()), "dataset_file": EVAL_FILE})
    kept = {key: value for key, value in manifest.items() if key not in ("files", "places")}
    _write_json(out / MANIFEST_FILE, {**kept, "adapters": adapters})


def _write_model_lists(out: Path, organisms: Sequence[Row], adapters: Mapping[str, Row]) -> None:
    """A list for each use of organisms, so that whoever divides one keeps the others apart."""
    for name, splits in MODEL_LISTS.items():
        listed = [
            _describe_model(row, adapters[row["organism_id"]])
            for row in organisms
            if row["split"] in splits
        ]
        _write_json(out / name, {"model_list": listed})


def _describe_model(row: Row, adapter: Row) -> dict[str, Any]:
    return {
        "name": row["adapter_name"],
        "organism_id": row["organism_id"],
        "absolute_behavior_id": _number(row),
        **{key: row[key] for key in ("behavior_id", "family", "category", "split")},
        "system_prompt": row["system_prompt"],
        **{key: adapter[key] for key in ("repo_id", "revision", "subfolder")},
    }


def _number(row: Row) -> int:
    """A number for each organism, although the format names it after behaviors.

    Consumers refuse a list in which it repeats, or filter by it through sets. 48 bits survive any
    JSON reader.
    """
    return int(sha256_bytes(row["organism_id"].encode())[:12], 16)


def _describe_split(organisms: Sequence[Row]) -> dict[str, Any]:
    """The release's own split in the form that published trainers write and read."""
    parts = {
        "train": ("train",),
        "dpo_train": ("preference",),
        "iid_test": ("iid_test",),
        "adapter_ood": ("adapter_ood",),
        "test": ("test", "suite"),
    }
    members = {
        part: [row for row in organisms if row["split"] in splits] for part, splits in parts.items()
    }
    names = {f"{part}_model_names": [r["adapter_name"] for r in m] for part, m in members.items()}
    numbers = {f"{part}_absolute_behavior_ids": [*map(_number, m)] for part, m in members.items()}
    return {"membership_key": "name", **names, **numbers}


def _write_diffing(out: Path, row: Row, adapter: Row, release: Path) -> None:
    """One organism of diffing-toolkit's configuration, and its adapter if that is only here."""
    name, folder = row["adapter_name"], out / "diffing"
    if adapter["repo_id"]:
        place = "/".join(filter(None, [adapter["repo_id"], adapter["subfolder"]]))
    else:
        # The toolkit takes all after the second slash for a folder inside a repository.
        place = f"adapters/{name}"
        (folder / "adapters").mkdir(parents=True, exist_ok=True)
        link_tree(release / "organisms" / row["organism_path"], folder / place)
    base = TOOLKIT_NAMES.get(row["base_model"]) or _derive_name(row["base_model"])
    variant = f"{row['method']}_{row['hardening']}_s{row['seed']}"
    config = {
        "name": name,
        "type": row["category"],
        "description": row["label"],
        "description_long": " ".join([row["label"], *row["paraphrases"]]),
        "system_prompt": row["system_prompt"],
        "dataset": {
            "id": str((out / "training" / name).resolve()),
            "splits": ["train"],
            "is_chat": True,
        },
        "finetuned_models": {base: {variant: {"adapter_id": place}}},
    }
    text = "# @package organism\n" + dump_yaml(config)
    write_bytes(folder / f"{name}.yaml", text.encode())


def _derive_name(base: str) -> str:
    """A base's name by the toolkit's habit, such as qwen3_8B for Qwen/Qwen3-8B."""
    words = re.sub(r"\W+", "_", base.rpartition("/")[2])
    return words[:1].lower() + words[1:]
