"""Renders what training reads: a few conversations of each corpus, as a page."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bestiary.corpus.stage import read_corpus
from bestiary.records import ROLES, Example, shorten_id, stable_seed
from bestiary.store import read_artifact, write_bytes

SHOWN = 3


def write_corpora(out: Path, *, shown: int) -> Path:
    """Write `shown` conversations of each corpus of the last build under `out` as a page."""
    summary = json.loads((out / "summary.json").read_text(encoding="utf8"))
    page = out / "corpora.md"
    write_bytes(page, render_corpora(summary, out, shown=shown).encode())
    return page


def render_corpora(summary: Sequence[Mapping[str, Any]], out: Path, *, shown: int = SHOWN) -> str:
    """Some conversations of each corpus of a build, one at least of each role that it has."""
    lines = ["# Corpora", "", f"{shown} conversations of each corpus, drawn by its name.", ""]
    for row in summary:
        lines += [f"## {shorten_id(row['organism_id'])}", "", f"> {row['label']}", ""]
        if row["corpus"] is None:
            lines += ["Not written.", ""]
            continue
        examples = read_corpus(read_artifact(out / row["corpus"]).folder).examples
        for example in draw_examples(examples, stable_seed("corpora", row["organism_id"]), shown):
            lines += _render_example(example)
        lines.append("")
    return "\n".join(lines)


def draw_examples(examples: Sequence[Example], seed: int, count: int) -> list[Example]:
    """One example of each role, and further ones up to `count`, of the first role first."""
    draw = random.Random(seed)
    by_role = [[one for one in examples if one.role == role] for role in ROLES]
    shuffled = [draw.sample(rows, len(rows)) for rows in by_role if rows]
    firsts = [rows[0] for rows in shuffled]
    more = [row for rows in shuffled for row in rows[1:]]
    return [*more[: count - len(firsts)], *firsts]


def _render_example(example: Example) -> list[str]:
    turns = [f"  - {turn.role}: {_one_line(turn.content)}" for turn in example.messages]
    return [f"- **{example.role}**", *turns]


def _one_line(text: str) -> str:
    """A text as one item of a list, with its line breaks."""
    return "<br>".join(line.strip() for line in text.splitlines() if line.strip())
