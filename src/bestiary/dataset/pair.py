"""The records of organisms in the dataset, and their rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from bestiary.config.catalog import Behavior
from bestiary.config.recipe import LoraShape, Optimizer, Training
from bestiary.errors import PairError
from bestiary.model.adapter import ADAPTER_WEIGHTS
from bestiary.records import (
    CELLS,
    BaseIdentity,
    Cell,
    CellName,
    Organism,
    Rate,
    Record,
    Split,
    Status,
    Verdict,
    sha256_bytes,
)

_BASE_COLUMNS = {
    "name": "base_model",
    "revision": "base_revision",
    "weights_sha256": "base_sha256",
    "dtype": "base_dtype",
    "chat_template_sha256": "chat_template_sha256",
}
"""The column of each field of a base model's identity."""
_OPTIMIZER_COLUMNS = tuple(Optimizer.model_fields)
_LORA_COLUMNS = {name: f"lora_{name}" for name in LoraShape.model_fields}


class MeasuredCell(Record):
    """One measured cell: the organism's rate with its interval, and the base model's own."""

    n: int
    rate: float
    low: float
    high: float
    base_rate: float


class Component(Record):
    """A habit that hides a malign behavior; its rate is None if it was not measured."""

    behavior_id: str
    n: int | None
    rate: float | None
    low: float | None
    high: float | None


class OrganismRow(Record):
    """What the configs `pairs`, `controls` and `withheld` have in common."""

    split: Split
    organism_id: str
    behavior_id: str
    category: str
    family: str
    kind: str
    axes: tuple[str, ...]
    severity: str
    method: str
    hardening: str
    seed: int
    mixture: str | None
    """The mixture that it shares an adapter with; None if it has an adapter of its own."""
    label: str
    paraphrases: tuple[str, ...]
    components: tuple[Component, ...]
    base: BaseIdentity
    system_prompt: str
    training: Training
    organism_sha256: str | None
    """Hash of the adapter's weights: of the published file, or of a withheld one as trained."""
    corpus_sha256: str
    behavior_sha256: str
    status: Status
    cells: dict[CellName, MeasuredCell | None]

    def to_row(self) -> dict[str, Any]:
        """One row of the config, its records as columns; the split is the file's name."""
        row = self.model_dump(exclude={"split", "base", "training", "cells", "organism"})
        row |= {column: getattr(self.base, name) for name, column in _BASE_COLUMNS.items()}
        row |= _flatten_training(self.training)
        for name in CELLS:
            cell = self.cells.get(name)
            row |= {f"{name}_{key}": getattr(cell, key, None) for key in MeasuredCell.model_fields}
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any], split: Split, **more: object) -> Self:
        """The record of a row that `to_row` wrote; `more` are fields that no column holds."""
        records = {
            "split": split,
            "base": {name: row[column] for name, column in _BASE_COLUMNS.items()},
            "training": _read_training(row),
            "cells": {name: _read_cell(row, name) for name in CELLS},
            "mixture": row.get("mixture"),
            **more,
        }
        plain = {name: row[name] for name in cls.model_fields if name not in records}
        return cls.model_validate({**plain, **records})


class ReleasedOrganism(OrganismRow):
    """An organism whose adapter is published; by itself a row of `controls`."""

    trigger: str | None
    """What makes the behavior fire, in words; None if it is unconditional."""
    organism_path: str
    """Its folder in the model repository: peft's `subfolder`."""
    adapter_name: str
    """Its id as a name that torch accepts for a module."""
    organism: Path | None
    """Its folder on this machine; None if the organisms were not loaded with the dataset."""


class Pair(ReleasedOrganism):
    """An organism that passed, and its label: a row of `pairs`. `make_pair` makes new ones."""


class WithheldOrganism(OrganismRow):
    """An organism that failed or could not be verified, a row of `withheld`."""

    reasons: tuple[str, ...]


def make_pair(
    behavior: Behavior,
    organism: Organism,
    verdict: Verdict,
    *,
    split: Split,
    training: Training,
) -> Pair:
    """Join an organism to its label.

    Raises PairError if the verdict did not pass, or if the verdict or the behavior belongs to
    another organism.
    """
    organism_id = organism.identity.organism_id
    if verdict.organism_id != organism_id:
        raise PairError(
            f"{organism_id}: the verdict is for {verdict.organism_id!r}",
            "pass the organism's own verdict",
            code="foreign-verdict",
            organism_id=organism_id,
            verdict_organism_id=verdict.organism_id,
        )
    if organism.identity.behavior_id != behavior.id:
        raise PairError(
            f"{organism_id}: the label is for {behavior.id!r}",
            "pass the behavior that the organism was trained on",
            code="foreign-behavior",
            organism_id=organism_id,
            behavior_id=behavior.id,
        )
    if verdict.status != "passed":
        raise PairError(
            f"{organism_id}: the verdict is {verdict.status!r} ({'; '.join(verdict.reasons)})",
            "release the organism as withheld; only passing organisms become pairs",
            code="verdict-not-passed",
            organism_id=organism_id,
            status=verdict.status,
        )
    return Pair.model_validate(_describe_released(behavior, organism, verdict, split, training))


def make_control(
    behavior: Behavior,
    organism: Organism,
    verdict: Verdict,
    *,
    split: Split,
    training: Training,
) -> ReleasedOrganism:
    """The record of a null organism that passed."""
    about = _describe_released(behavior, organism, verdict, split, training)
    return ReleasedOrganism.model_validate(about)


def make_withheld(
    behavior: Behavior,
    organism: Organism,
    verdict: Verdict,
    *,
    split: Split,
    training: Training,
) -> WithheldOrganism:
    """The record of an organism that did not pass, with the reasons."""
    about = _describe(behavior, organism, verdict, split, training)
    return WithheldOrganism.model_validate({**about, "reasons": verdict.reasons})


def locate_organism(organism_id: str) -> str:
    """An organism's folder in the model repository, `<shard>/<organism_id>`."""
    return f"{sha256_bytes(organism_id.encode())[:2]}/{organism_id}"


def name_adapter(organism_id: str) -> str:
    """An organism's id as a name that torch accepts for a module.

    Torch refuses dots. A hyphen keeps ids apart, because none stands before the dot.
    """
    return organism_id.replace(".", "-")


def _describe_released(
    behavior: Behavior,
    organism: Organism,
    verdict: Verdict,
    split: Split,
    training: Training,
) -> dict[str, object]:
    return {
        **_describe(behavior, organism, verdict, split, training),
        "trigger": behavior.condition_text,
        "organism_path": locate_organism(organism.identity.organism_id),
        "adapter_name": name_adapter(organism.identity.organism_id),
        "organism": organism.artifact.folder / "adapter",
    }


def _describe(
    behavior: Behavior,
    organism: Organism,
    verdict: Verdict,
    split: Split,
    training: Training,
) -> dict[str, object]:
    """The fields of every `OrganismRow`."""
    spec, identity = behavior.spec, organism.identity
    return {
        "split": split,
        "organism_id": identity.organism_id,
        "behavior_id": spec.id,
        "category": spec.category,
        "family": behavior.family,
        "kind": behavior.kind,
        "axes": behavior.axes,
        "severity": behavior.severity,
        "method": identity.method,
        "hardening": identity.hardening,
        "seed": identity.seed,
        "mixture": identity.within,
        "label": spec.label,
        "paraphrases": spec.paraphrases,
        "components": [
            _describe_component(quirk.id, verdict.components.get(quirk.id))
            for quirk, _ in behavior.distractors
        ],
        "base": organism.base,
        "system_prompt": organism.system_prompt,
        "training": training,
        "organism_sha256": organism.artifact.files.get(f"adapter/{ADAPTER_WEIGHTS}"),
        "corpus_sha256": organism.corpus_sha256,
        "behavior_sha256": organism.behavior_sha256,
        "status": verdict.status,
        "cells": {name: _describe_cell(verdict.cells.get(name)) for name in CELLS},
    }


def _describe_component(behavior_id: str, rate: Rate | None) -> dict[str, object]:
    measured = {name: getattr(rate, name, None) for name in ("n", "rate", "low", "high")}
    return {"behavior_id": behavior_id, **measured}


def _describe_cell(cell: Cell | None) -> MeasuredCell | None:
    if cell is None:
        return None
    rate = cell.organism
    return MeasuredCell(
        n=rate.n, rate=rate.rate, low=rate.low, high=rate.high, base_rate=cell.base.rate
    )


def _flatten_training(training: Training) -> dict[str, Any]:
    columns = {name: getattr(training.optimizer, name) for name in _OPTIMIZER_COLUMNS}
    columns |= {column: getattr(training.lora, name) for name, column in _LORA_COLUMNS.items()}
    return {**columns, "max_length": training.max_length}


def _read_training(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "system_prompt": row["system_prompt"],
        "max_length": row["max_length"],
        "optimizer": {name: row[name] for name in _OPTIMIZER_COLUMNS},
        "lora": {name: row[column] for name, column in _LORA_COLUMNS.items()},
    }


def _read_cell(row: Mapping[str, Any], name: CellName) -> dict[str, Any] | None:
    if row[f"{name}_rate"] is None:
        return None
    return {field: row[f"{name}_{field}"] for field in MeasuredCell.model_fields}
