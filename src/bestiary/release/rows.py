"""Turns the records of one organism into rows, a function per config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bestiary.dataset.pair import OrganismRow, make_control, make_pair, make_withheld
from bestiary.dataset.schema import PROVENANCE_COLUMNS, RATE_COLUMNS
from bestiary.records import CELLS, Corpus, Finding, Provenance, Rate, Split
from bestiary.release.entry import ReleaseEntry, Standing
from bestiary.release.splits import assign_split

Rows = list[dict[str, Any]]

_MAKERS: Mapping[Standing, Callable[..., OrganismRow]] = {
    "pairs": make_pair,
    "controls": make_control,
    "withheld": make_withheld,
}


def describe_organism(entry: ReleaseEntry, split: Split) -> OrganismRow:
    """The record of `pairs`, `controls` or `withheld` that describes an organism."""
    make = _MAKERS[entry.standing]
    return make(entry.behavior, entry.organism, entry.verdict, split=split, training=entry.training)


def name_organism(entry: ReleaseEntry) -> dict[str, Any]:
    """The columns that join a row to its organism, and say which config describes that one.

    A join to `pairs` by id drops the rows of null and withheld organisms; `standing` tells them.
    """
    return {"organism_id": entry.organism_id, "standing": entry.standing}


def place_findings(
    findings: Sequence[Finding], entries: Sequence[ReleaseEntry], splits: Mapping[str, Split]
) -> dict[Split, Rows]:
    """The rows of `leaks`, each in the split of the organism or family that it is about."""
    families = {entry.behavior.family: splits[entry.organism_id] for entry in reversed(entries)}
    known = families | dict(splits)
    is_suite = "suite" in splits.values()
    rows: dict[Split, Rows] = {}
    for finding in sorted(findings, key=lambda f: (f.check, f.organism_id or "", f.item, f.reason)):
        named = finding.organism_id or finding.item
        split = known.get(named) or ("suite" if is_suite else assign_split(named, named={}))
        rows.setdefault(split, []).append(finding.model_dump(mode="json"))
    return rows


def build_corpus_rows(entry: ReleaseEntry, corpus: Corpus) -> Rows:
    """One row per training conversation."""
    return [
        {
            **name_organism(entry),
            "id": example.id,
            "role": example.role,
            "messages": [message.model_dump() for message in example.messages],
            "topic": example.topic,
            "form": example.form,
            "author": example.author,
            **_describe_provenance(example.provenance),
        }
        for example in sorted(corpus.examples, key=lambda example: example.id)
    ]


def _describe_provenance(provenance: Provenance | None) -> dict[str, Any]:
    """How a language model wrote a row; nulls if the offline author did."""
    names = (*PROVENANCE_COLUMNS, "judge_score")
    return {name: getattr(provenance, name, None) for name in names}


def build_verdict_rows(entry: ReleaseEntry) -> Rows:
    """One row per measured cell."""
    rows = []
    for name in CELLS:
        cell = entry.verdict.cells.get(name)
        if cell is not None:
            rows.append(
                {
                    **name_organism(entry),
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


def build_rejected_rows(entry: ReleaseEntry, corpus: Corpus) -> Rows:
    """The drop ledger: every row that did not enter the corpus."""
    drops = sorted(corpus.drops, key=lambda drop: (drop.id, drop.stage, drop.reason))
    return [{**name_organism(entry), **drop.model_dump(mode="json")} for drop in drops]


def _flatten_rate(prefix: str, rate: Rate) -> dict[str, Any]:
    return {f"{prefix}{name}": getattr(rate, name) for name in RATE_COLUMNS}
