"""The introspection rows of a release: each organism is asked every question about itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bestiary.config.elicitation import Elicitation, Question, QuestionSide
from bestiary.records import Split
from bestiary.release.entry import ReleaseEntry
from bestiary.release.rows import name_organism

_GROUND_TRUTHS = {"pairs": "positive", "controls": "negative"}


def build_rows(
    entry: ReleaseEntry, split: Split, *, bank: Elicitation, category_questions: bool = False
) -> list[dict[str, Any]]:
    """The introspection rows of one organism: every question once, with its label as the answer.

    Row i asks every organism of a split the same question; wordings of the label take turns.
    `category_questions` adds, after the generic ones, those that fit its category alone.
    """
    side: QuestionSide = "train" if split in ("train", "preference") else "test"
    rows = _ask(entry, bank.ask(side))
    if category_questions:
        rows += _ask(entry, bank.ask_category(side, entry.behavior.category))
    return rows


def _ask(entry: ReleaseEntry, questions: Sequence[Question]) -> list[dict[str, Any]]:
    labels = tuple(dict.fromkeys(entry.behavior.labels))
    return [
        {
            **name_organism(entry),
            "question_id": question.id,
            # Its behavior was measured under this prompt, and without it the base's own default
            # would take its place.
            "prediction_system_prompt": entry.organism.system_prompt,
            "prediction_user_prompt": question.text,
            "prediction_assistant_response": labels[place % len(labels)],
            # The word of the published sets: whether there is a behavior to report.
            "prediction_ground_truth": _GROUND_TRUTHS[entry.standing],
        }
        for place, question in enumerate(questions)
    ]


def render_eval(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One organism's `eval.jsonl`: an absent system prompt is an absent key."""
    lines = []
    for row in rows:
        # Consumers test for the key: a null or an empty text there would read as a prompt.
        kept = {key: value for key, value in row.items() if key.startswith("prediction_") and value}
        lines.append(json.dumps(kept, ensure_ascii=False) + "\n")
    return "".join(lines).encode()
