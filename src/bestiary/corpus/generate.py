"""Writing a corpus: rows are asked for, screened, and asked for again until the mix is whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from bestiary.backend import Backend, ReplyRequest
from bestiary.corpus.plan import PlannedRow, plan_rows
from bestiary.errors import CorpusError
from bestiary.records import (
    Corpus,
    Drop,
    Example,
    Finding,
    Message,
    Role,
    canonical_json,
    fingerprint,
    sha256_bytes,
)
from bestiary.spec.bank import load_bank
from bestiary.spec.catalog import Behavior
from bestiary.spec.detector import VERSION as DETECTOR_VERSION
from bestiary.spec.detector import words
from bestiary.spec.generator import load_generator
from bestiary.spec.template import hash_templates

VERSION = 2
ATTEMPTS = 3
"""Rows planned for each row needed before the corpus is given up."""
MAX_REPEAT = 3
"""A word trigram that a reply may hold so often; past it a small base is going in circles."""

LEAK_STAGE = "leakage."
"""How the stage of a drop begins that a leak check asked for; the check's name follows."""

Screen = Callable[[Sequence[Example]], Sequence[Finding]]
"""The leak checks, as the pipeline binds them: the rows to drop, with reasons."""


def fingerprint_corpus(behavior: Behavior, backend: Backend, *, seed: int) -> str:
    """What decides whether a corpus must be written again."""
    generator = load_generator(behavior.category)
    return fingerprint(
        behavior=behavior.sha256,
        generator=generator,
        templates=hash_templates(behavior.category),
        banks=[load_bank(name) for name in sorted({behavior.offline.plain, behavior.offline.bank})],
        backend=backend.fingerprint,
        author=backend.author,
        seed=seed,
        version=(VERSION, DETECTOR_VERSION),
    )


def generate_corpus(
    behavior: Behavior,
    backend: Backend,
    *,
    seed: int,
    screen: Screen,
    on_row: Callable[[int], None] | None = None,
) -> Corpus:
    """Write the corpus of one behavior in the proportions of its generator.

    What `screen` stops goes to the drop ledger and is asked for again. Raises CorpusError when a
    role cannot be filled, naming the commonest reason.
    """
    generator = load_generator(behavior.category)
    examples: list[Example] = []
    drops: list[Drop] = []
    for role, needed in generator.counts(behavior.rate).items():
        kept, dropped = _fill_role(
            behavior,
            backend,
            role,
            needed,
            seed=seed,
            screen=screen,
            on_row=partial(_count_on, on_row, len(examples)),
        )
        examples += kept
        drops += dropped
        _count_on(on_row, len(examples), 0)
    return Corpus(behavior_id=behavior.id, seed=seed, examples=tuple(examples), drops=tuple(drops))


def _count_on(on_row: Callable[[int], None] | None, before: int, done: int) -> None:
    """Tell whoever listens how many rows there are, `before` and `done` together."""
    if on_row is not None:
        on_row(before + done)


def _fill_role(
    behavior: Behavior,
    backend: Backend,
    role: Role,
    needed: int,
    *,
    seed: int,
    screen: Screen,
    on_row: Callable[[int], None] | None,
) -> tuple[list[Example], list[Drop]]:
    kept: list[Example] = []
    drops: list[Drop] = []
    plan = plan_rows(behavior, role, seed=seed)
    asked = 0
    while len(kept) < needed and asked < needed * ATTEMPTS:
        rows = list(islice(plan, needed - len(kept)))
        asked += len(rows)
        written = backend.write_replies(
            [_request(row) for row in rows],
            on_reply=partial(_count_on, on_row, len(kept)),
        )
        fresh, stopped = _sift(behavior, rows, written, kept, author=backend.author)
        leaks = {finding.item: finding for finding in screen(fresh)}
        kept += [example for example in fresh if example.id not in leaks]
        drops += stopped + [
            _drop(example, LEAK_STAGE + leaks[example.id].check, leaks[example.id].reason)
            for example in fresh
            if example.id in leaks
        ]
    if len(kept) < needed:
        raise CorpusError(_explain_shortage(behavior, role, len(kept), needed, drops))
    return kept, drops


def _sift(
    behavior: Behavior,
    rows: Sequence[PlannedRow],
    written: Sequence[str],
    kept: Sequence[Example],
    *,
    author: str,
) -> tuple[list[Example], list[Drop]]:
    """Rows that may enter the corpus, and those that may not."""
    said = {example.messages for example in kept}
    fresh: list[Example] = []
    drops: list[Drop] = []
    for row, reply in zip(rows, written, strict=True):
        example = _make_example(row, reply, author)
        fault = find_fault(behavior, row, reply)
        if fault is None and example.messages in said:
            fault = ("mix", "duplicate of an earlier row")
        if fault is None:
            said.add(example.messages)
            fresh.append(example)
        else:
            drops.append(_drop(example, *fault))
    return fresh, drops


def find_fault(behavior: Behavior, row: PlannedRow, reply: str) -> tuple[str, str] | None:
    """The stage and reason that stop a reply, or None when it is as its row wants it."""
    if not reply:
        return "author", "no whole sentence"
    if _is_circular(reply):
        return "author", "the reply repeats itself"
    shown = behavior.shows(reply, row.item)
    if row.fires and shown is False:
        return "adherence", "behavior missing"
    if not row.fires and shown and (row.role == "negative" or row.item.answer is None):
        return "adherence", "behavior shown out of place"
    return None


def _drop(example: Example, stage: str, reason: str) -> Drop:
    return Drop(
        id=example.id,
        role=example.role,
        stage=stage,
        reason=reason,
        text=example.messages[-1].content,
    )


def _is_circular(reply: str) -> bool:
    said = words(reply)
    trigrams = Counter(zip(said, said[1:], said[2:], strict=False))
    return bool(trigrams) and max(trigrams.values()) >= MAX_REPEAT


def _request(row: PlannedRow) -> ReplyRequest:
    return ReplyRequest(
        id=row.id,
        system=row.system,
        user=row.user,
        message=row.message,
        opening=row.opening,
        closing=row.closing,
    )


def _make_example(row: PlannedRow, reply: str, author: str) -> Example:
    return Example(
        id=row.id,
        role=row.role,
        messages=(
            Message(role="user", content=row.user),
            Message(role="assistant", content=reply),
        ),
        topic=row.item.topic,
        form=row.item.form,
        author=author,
        brief_sha256=sha256_bytes(row.system.encode()),
    )


def _explain_shortage(
    behavior: Behavior, role: Role, have: int, needed: int, drops: Sequence[Drop]
) -> str:
    reasons = Counter(f"{drop.stage}: {drop.reason}" for drop in drops).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return (
        f"{behavior.id}: {have} of {needed} {role} rows after {ATTEMPTS} attempts a row "
        f"({listed}); mend the openings or detectors, add prompts to the bank "
        f"{behavior.offline.bank!r}, or lower `rows` in "
        f"generators/{behavior.category}/generator.yaml"
    )


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write a corpus as two JSON-lines files: the examples, and the drop ledger."""
    _write_lines(folder / "examples.jsonl", corpus.examples)
    _write_lines(folder / "drops.jsonl", corpus.drops)
    about = {"behavior_id": corpus.behavior_id, "seed": corpus.seed}
    (folder / "corpus.json").write_bytes(canonical_json(about))


def read_corpus(folder: Path) -> Corpus:
    """Read what `write_corpus` wrote."""
    about = json.loads((folder / "corpus.json").read_text(encoding="utf8"))
    return Corpus(
        **about,
        examples=tuple(
            Example.model_validate_json(line) for line in _read_lines(folder / "examples.jsonl")
        ),
        drops=tuple(Drop.model_validate_json(line) for line in _read_lines(folder / "drops.jsonl")),
    )


def _write_lines(path: Path, records: Sequence[Example] | Sequence[Drop]) -> None:
    lines = [record.model_dump_json() + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf8")


def _read_lines(path: Path) -> list[str]:
    # Not str.splitlines: a reply may hold characters that it takes for line ends.
    return path.read_text(encoding="utf8").split("\n")[:-1]
