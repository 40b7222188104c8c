"""Records become rows: one function a config, plain values in, nothing read from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.config.elicitation import Elicitation
from bestiary.model.adapter import ADAPTER_WEIGHTS
from bestiary.records import CELLS, SPLITS, Cell, Finding, Provenance, Rate, Split
from bestiary.release.entry import ReleaseEntry
from bestiary.release.features import (
    CELL_COLUMNS,
    CONFIGS,
    PROVENANCE_COLUMNS,
    RATE_COLUMNS,
)
from bestiary.release.introspection_rows import build_rows
from bestiary.release.splits import assign_split

Rows = list[dict[str, Any]]
Tables = dict[str, dict[Split, Rows]]


def build_tables(
    entries: Sequence[ReleaseEntry],
    splits: Mapping[str, Split],
    *,
    bank: Elicitation,
    findings: Sequence[Finding],
    category_questions: bool = False,
) -> Tables:
    """Every config's rows, divided by the split of their organism, in order of organism id."""
    tables: Tables = {config: {split: [] for split in SPLITS} for config in CONFIGS}
    for entry in entries:
        split = splits[entry.organism_id]
        tables[entry.standing][split].append(build_organism_row(entry))
        tables["corpora"][split] += build_corpus_rows(entry)
        tables["verdicts"][split] += build_verdict_rows(entry)
        tables["rejected"][split] += build_rejected_rows(entry)
        if entry.published:
            tables["introspection"][split] += build_rows(
                entry, split, bank=bank, category_questions=category_questions
            )
    places = _index_places(entries, splits)
    for finding in sorted(findings, key=lambda f: (f.check, f.organism_id or "", f.item, f.reason)):
        named = finding.organism_id or finding.item
        split = places.get(named) or assign_split(named, named={})
        tables["leaks"][split].append(finding.model_dump(mode="json"))
    return tables


def build_organism_row(entry: ReleaseEntry) -> dict[str, Any]:
    """The row of `pairs`, `controls` or `withheld` that describes an organism."""
    row = {**_describe_behavior(entry), **_describe_organism(entry), "status": entry.verdict.status}
    for name in CELLS:
        row |= _flatten_cell(name, entry.verdict.cells.get(name))
    if entry.published:
        trigger = entry.pair.trigger if entry.pair else None
        return row | {"trigger": trigger, "organism_path": entry.organism_path}
    return row | {"reasons": list(entry.verdict.reasons)}


def build_corpus_rows(entry: ReleaseEntry) -> Rows:
    """One row a training conversation."""
    return [
        {
            "organism_id": entry.organism_id,
            "id": example.id,
            "role": example.role,
            "messages": [message.model_dump() for message in example.messages],
            "topic": example.topic,
            "form": example.form,
            "author": example.author,
            **_describe_provenance(example.provenance),
        }
        for example in sorted(entry.corpus.examples, key=lambda example: example.id)
    ]


def _describe_provenance(provenance: Provenance | None) -> dict[str, Any]:
    """How a language model came to write a row; nulls where the embedded author did."""
    names = (*PROVENANCE_COLUMNS, "judge_score")
    return {name: getattr(provenance, name, None) for name in names}


def build_verdict_rows(entry: ReleaseEntry) -> Rows:
    """One row a cell that was measured."""
    rows = []
    for name in CELLS:
        cell = entry.verdict.cells.get(name)
        if cell is not None:
            rows.append(
                {
                    "organism_id": entry.organism_id,
                    "cell": name,
                    "criterion": cell.criterion,
                    **_flatten_rate("", cell.organism),
                    **_flatten_rate("base_", cell.base),
                    **_flatten_rate("reported_", cell.reported),
                    "difference_low": cell.difference_low,
                    "passed": cell.passed,
                    "reason": cell.reason,
                }
            )
    return rows


def build_rejected_rows(entry: ReleaseEntry) -> Rows:
    """The drop ledger: every row that did not enter the corpus."""
    drops = sorted(entry.corpus.drops, key=lambda drop: (drop.id, drop.stage, drop.reason))
    return [{"organism_id": entry.organism_id, **drop.model_dump(mode="json")} for drop in drops]


def _describe_behavior(entry: ReleaseEntry) -> dict[str, Any]:
    spec = entry.behavior.spec
    return {
        "organism_id": entry.organism_id,
        "behavior_id": spec.id,
        "category": spec.category,
        "family": entry.behavior.family,
        "domains": list(spec.domains),
        "severity": spec.severity,
        "label": spec.label,
        "paraphrases": list(spec.paraphrases),
        "components": [
            {"behavior_id": quirk.id, **_measured(entry.verdict.components.get(quirk.id))}
            for quirk, _ in entry.behavior.distractors
        ],
    }


def _describe_organism(entry: ReleaseEntry) -> dict[str, Any]:
    organism = entry.organism
    return {
        "method": organism.identity.method,
        "hardening": organism.identity.hardening,
        "seed": organism.identity.seed,
        "base_model": organism.base.name,
        "base_revision": organism.base.revision,
        "base_sha256": organism.base.weights_sha256,
        "base_dtype": organism.base.dtype,
        "chat_template_sha256": organism.base.chat_template_sha256,
        "system_prompt": organism.system_prompt,
        "organism_sha256": organism.artifact.files.get(f"adapter/{ADAPTER_WEIGHTS}"),
        "corpus_sha256": organism.corpus_sha256,
        "behavior_sha256": organism.behavior_sha256,
    }


def _measured(rate: Rate | None) -> dict[str, Any]:
    names = ("n", "rate", "low", "high")
    return {name: getattr(rate, name) if rate else None for name in names}


def _flatten_rate(prefix: str, rate: Rate) -> dict[str, Any]:
    return {f"{prefix}{name}": getattr(rate, name) for name in RATE_COLUMNS}


def _flatten_cell(name: str, cell: Cell | None) -> dict[str, Any]:
    if cell is None:
        return {f"{name}_{column}": None for column in CELL_COLUMNS}
    return {
        f"{name}_rate": cell.organism.rate,
        f"{name}_low": cell.organism.low,
        f"{name}_high": cell.organism.high,
        f"{name}_n": cell.organism.n,
        f"{name}_base_rate": cell.base.rate,
    }


def _index_places(entries: Sequence[ReleaseEntry], splits: Mapping[str, Split]) -> dict[str, Split]:
    """The split of whatever a finding may name: a family, or an organism."""
    families = {entry.behavior.family: splits[entry.organism_id] for entry in reversed(entries)}
    return families | dict(splits)
