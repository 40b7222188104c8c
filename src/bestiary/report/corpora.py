"""Renders what training reads: a few conversations of each corpus, as a page."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bestiary.corpus.stage import read_corpus
from bestiary.records import Example, Role, shorten_id, stable_seed
from bestiary.store import read_artifact

SHOWN = 3
ROLES: tuple[Role, ...] = ("positive", "negative", "chat")


def render_corpora(summary: Sequence[Mapping[str, Any]], out: Path) -> str:
    """Three conversations of each corpus of a build, one of each role that it has."""
    lines = ["# Corpora", "", f"{SHOWN} conversations of each corpus, drawn by its name.", ""]
    for row in summary:
        lines += [f"## {shorten_id(row['organism_id'])}", "", f"> {row['label']}", ""]
        if row["corpus"] is None:
            lines += ["Not written.", ""]
            continue
        examples = read_corpus(read_artifact(out / row["corpus"]).folder).examples
        for example in draw_examples(examples, stable_seed("corpora", row["organism_id"])):
            lines += _render_example(example)
        lines.append("")
    return "\n".join(lines)


def draw_examples(examples: Sequence[Example], seed: int) -> list[Example]:
    """One example of each role, and further ones of the first role up to three."""
    draw = random.Random(seed)
    by_role = [[one for one in examples if one.role == role] for role in ROLES]
    shuffled = [draw.sample(rows, len(rows)) for rows in by_role if rows]
    firsts = [rows[0] for rows in shuffled]
    return [*shuffled[0][1 : 1 + SHOWN - len(firsts)], *firsts] if shuffled else []


def _render_example(example: Example) -> list[str]:
    turns = [f"  - {turn.role}: {_one_line(turn.content)}" for turn in example.messages]
    return [f"- **{example.role}**", *turns]


def _one_line(text: str) -> str:
    """A text as one item of a list, with its line breaks."""
    return "<br>".join(line.strip() for line in text.splitlines() if line.strip())
