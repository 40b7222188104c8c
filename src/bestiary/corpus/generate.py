"""Generating a corpus: request rows, drop what cannot be used, repeat until the mix is complete."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from bestiary.author.protocol import Author, Prompts, Rejection, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.config.detector import VERSION as DETECTOR_VERSION
from bestiary.config.folders import generator_folder
from bestiary.config.generator import load_generator
from bestiary.config.grid import load_grid
from bestiary.config.message_bank import load_bank
from bestiary.corpus.coverage import measure_coverage
from bestiary.corpus.plan import plan_rows
from bestiary.errors import CorpusError
from bestiary.llm.workflow import Workflow, join
from bestiary.records import (
    Corpus,
    Drop,
    Example,
    Finding,
    PromptItem,
    Role,
    canonical_json,
    fingerprint,
    sha256_file,
)

VERSION = 3
MAX_REQUESTS_PER_ROW = 3
"""Rows requested per row needed before the corpus is given up."""
MIN_HOPELESS = 20
"""If a round of at least this many rows yields none, no further round is requested."""

LEAK_STAGE = "leakage."
"""Prefix of the stage of a drop that a leak check asked for; the check's name follows."""

Screen = Callable[[Sequence[Example]], Sequence[Finding]]
"""The leak checks, as the pipeline binds them: one finding per row to drop."""


def fingerprint_corpus(behavior: Behavior, author: Author, *, seed: int) -> str:
    """Key of a corpus: everything that its text depends on."""
    return fingerprint(
        behavior=behavior.sha256,
        generator=load_generator(behavior.category),
        user_template=sha256_file(generator_folder() / "shared" / "user.j2"),
        banks=[load_bank(name) for name in sorted({behavior.offline.plain, behavior.offline.bank})],
        author=(author.name, author.fingerprint_for(behavior)),
        seed=seed,
        version=(VERSION, DETECTOR_VERSION),
    )


def generate_corpus(
    behavior: Behavior,
    author: Author,
    *,
    seed: int,
    screen: Screen = lambda examples: (),
    on_row: Callable[[int], None] = lambda done: None,
    on_drops: Callable[[Sequence[Drop]], None] = lambda drops: None,
) -> Workflow[Corpus]:
    """Write the corpus of one behavior in the proportions of its generator.

    Rows that the author or `screen` rejects are dropped and replaced. Calls `on_row` with the
    number of rows so far, and `on_drops` with drops as they happen. Raises CorpusError
    (no-messages, role-unfilled) if a role cannot be filled.
    """
    generator = _Generator(behavior, author, seed, screen, on_row, on_drops)
    scoped, plain = yield from generator.write_prompts()
    rejected = tuple(dict.fromkeys((*scoped.drops, *plain.drops)))  # may be the same messages
    on_drops(rejected)
    filled = yield from join(
        [
            generator.fill_role(role, plain.items if role == "chat" else scoped.items)
            for role in generator.counts
        ]
    )
    return Corpus(
        behavior_id=behavior.id,
        seed=seed,
        examples=tuple(example for kept, _ in filled for example in kept),
        drops=(*rejected, *(drop for _, drops in filled for drop in drops)),
    )


class _Generator:
    """Fills the roles of one corpus, each independently of the others."""

    def __init__(
        self,
        behavior: Behavior,
        author: Author,
        seed: int,
        screen: Screen,
        on_row: Callable[[int], None],
        on_drops: Callable[[Sequence[Drop]], None],
    ) -> None:
        self._behavior, self._author, self._seed = behavior, author, seed
        self._screen, self._on_row, self._on_drops = screen, on_row, on_drops
        self._settings = load_generator(behavior.category)
        self.counts = self._settings.counts(behavior.rate)
        self._done: Counter[Role] = Counter()

    def write_prompts(self) -> Workflow[list[Prompts]]:
        """Return the messages in the behavior's scope, then the plain ones for chat."""
        scoped, plain = self._behavior.count_messages(self.counts)
        write = partial(self._author.write_prompts, self._behavior, seed=self._seed)
        return join([write(plain=False, count=scoped), write(plain=True, count=plain)])

    def fill_role(
        self, role: Role, prompts: Sequence[PromptItem]
    ) -> Workflow[tuple[list[Example], list[Drop]]]:
        """Request rows until the role is complete; raises CorpusError if too many are dropped."""
        needed, requested = self.counts[role], 0
        kept: list[Example] = []
        drops: list[Drop] = []
        plan = self._plan_role(role, prompts)
        while len(kept) < needed and requested < needed * MAX_REQUESTS_PER_ROW:
            rows = list(islice(plan, math.ceil((needed - len(kept)) * self._author.oversample)))
            requested += len(rows)
            replies = yield from self._author.write_replies(
                self._behavior, rows, on_reply=partial(self._report_rows, role, len(kept))
            )
            usable, dropped = self._select(rows, replies, kept)
            room = needed - len(kept)
            kept += usable[:room]
            dropped += [_drop(example, "mix", "not needed") for example in usable[room:]]
            drops += dropped
            self._on_drops(dropped)
            self._report_rows(role, len(kept), 0)
            if not usable and len(rows) >= MIN_HOPELESS:
                break
        if len(kept) < needed:
            raise _role_unfilled(self._behavior, role, (len(kept), needed, requested), drops)
        return kept, drops

    def _plan_role(self, role: Role, prompts: Sequence[PromptItem]) -> Iterator[ReplyRequest]:
        if self.counts[role] and not prompts:
            raise CorpusError(
                f"{self._behavior.id}: no message was written for its {role} rows",
                "read the drops of another behavior for the reasons, or choose another author",
                code="no-messages",
                behavior=self._behavior.id,
                role=role,
            )
        return plan_rows(
            self._behavior,
            role,
            prompts,
            seed=self._seed,
            second_turns=self._settings.second_turns,
        )

    def _report_rows(self, role: Role, before: int, done: int) -> None:
        self._done[role] = min(before + done, self.counts[role])
        self._on_row(self._done.total())

    def _select(
        self, rows: Sequence[ReplyRequest], replies: Sequence[Reply], kept: Sequence[Example]
    ) -> tuple[list[Example], list[Drop]]:
        """Split replies into rows for the corpus, without duplicates or leaks, and drops."""
        seen = {example.messages for example in kept}
        usable: list[Example] = []
        drops: list[Drop] = []
        for row, reply in zip(rows, replies, strict=True):
            example = _make_example(row, reply, self._author.name)
            rejection = reply.rejection
            if rejection is None and example.messages in seen:
                rejection = Rejection("mix", "duplicate of an earlier row")
            if rejection is None:
                seen.add(example.messages)
                usable.append(example)
            else:
                drops.append(_drop(example, *rejection))
        leaks = {finding.item: finding for finding in self._screen(usable)}
        drops += [
            _drop(example, LEAK_STAGE + leaks[example.id].check, leaks[example.id].reason)
            for example in usable
            if example.id in leaks
        ]
        return [example for example in usable if example.id not in leaks], drops


def _drop(example: Example, stage: str, reason: str) -> Drop:
    return Drop(
        id=example.id,
        role=example.role,
        stage=stage,
        reason=reason,
        text=example.messages[-1].content,
    )


def _make_example(row: ReplyRequest, reply: Reply, author: str) -> Example:
    return Example(
        id=row.id,
        role=row.role,
        messages=reply.messages,
        topic=row.item.topic,
        form=row.item.form,
        author=author,
        provenance=reply.provenance,
    )


def _role_unfilled(
    behavior: Behavior, role: Role, counts: tuple[int, int, int], drops: Sequence[Drop]
) -> CorpusError:
    kept, needed, requested = counts
    reasons = Counter(f"{drop.stage}: {drop.reason}" for drop in drops).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return CorpusError(
        f"{behavior.id}: only {kept} of {needed} {role} rows were usable among {requested} "
        f"requested ({listed})",
        "fix the most common reason, give the author more messages (the offline author reads the "
        f"bank {behavior.offline.bank!r}), or lower `rows` in "
        f"generators/{behavior.category}/generator.yaml",
        code="role-unfilled",
        behavior=behavior.id,
        role=role,
        kept=kept,
        needed=needed,
        requested=requested,
        reasons=[reason for reason, _ in reasons],
    )


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write a corpus as two JSON-lines files: the examples and the drops.

    If language models wrote it, its coverage of the grid is written beside them.
    """
    _write_lines(folder / "examples.jsonl", corpus.examples)
    _write_lines(folder / "drops.jsonl", corpus.drops)
    about = {"behavior_id": corpus.behavior_id, "seed": corpus.seed}
    (folder / "corpus.json").write_bytes(canonical_json(about))
    coverage = measure_coverage(corpus.examples, load_grid())
    if coverage is not None:
        (folder / "coverage.json").write_bytes(canonical_json(coverage))


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
    # Not str.splitlines, which also splits at other characters that a reply may contain.
    return path.read_text(encoding="utf8").split("\n")[:-1]
