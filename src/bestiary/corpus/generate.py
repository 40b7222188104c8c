"""Writing a corpus: rows are asked for, screened, and asked for again until the mix is whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from bestiary.author.filters import find_fault
from bestiary.author.protocol import Author, Prompts, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.config.generator import load_generator
from bestiary.corpus.plan import plan_rows
from bestiary.errors import CorpusError
from bestiary.llm.workflow import Workflow, join
from bestiary.records import (
    Corpus,
    Drop,
    Example,
    PromptItem,
    Role,
)

VERSION = 2
ATTEMPTS = 3
"""Rows planned for each row needed before the corpus is given up."""
HOPELESS = 20
"""Rows of a round: where not one of so many or more is kept, no further round is asked for."""

LEAK_STAGE = "leakage."
"""Begins the stage of a drop by a leak filter; the filter's name follows."""

FindLeaks = Callable[[Sequence[Example]], Mapping[str, tuple[str, str]]]
"""The leak filter that rejects each leaking example, and its reason, by example id."""


def generate_corpus(
    behavior: Behavior,
    backend: Author,
    *,
    seed: int,
    find_leaks: FindLeaks,
    on_row: Callable[[int], None] = lambda done: None,
    on_drops: Callable[[Sequence[Drop]], None] = lambda drops: None,
) -> Workflow[Corpus]:
    """Write the corpus of one behavior in the proportions of its generator.

    What `find_leaks` rejects goes to the drop ledger and is asked for again. `on_row` is called
    with the number of rows so far, `on_drops` with what was dropped. Raises CorpusError, with the
    most common reasons, if a role cannot be filled.
    """
    writer = _Writer(
        behavior, backend, seed=seed, find_leaks=find_leaks, on_row=on_row, on_drops=on_drops
    )
    scoped, plain = yield from writer.write_prompts()
    vain = tuple(dict.fromkeys((*scoped.drops, *plain.drops)))  # both may hold the same messages
    on_drops(vain)
    filled = yield from join(
        [
            writer.fill_role(role, plain.items if role == "chat" else scoped.items)
            for role in writer.counts
        ]
    )
    return Corpus(
        behavior_id=behavior.id,
        seed=seed,
        examples=tuple(example for kept, _ in filled for example in kept),
        drops=(*vain, *(drop for _, drops in filled for drop in drops)),
    )


class _Writer:
    """Fills the roles of one corpus, each on its own."""

    def __init__(
        self,
        behavior: Behavior,
        backend: Author,
        *,
        seed: int,
        find_leaks: FindLeaks,
        on_row: Callable[[int], None],
        on_drops: Callable[[Sequence[Drop]], None],
    ) -> None:
        self._behavior = behavior
        self._backend = backend
        self._seed = seed
        self._find_leaks = find_leaks
        self._on_row = on_row
        self._on_drops = on_drops
        self._generator = load_generator(behavior.category)
        self.counts = self._generator.counts(behavior.rate)
        self._done: Counter[Role] = Counter()

    def write_prompts(self) -> Workflow[list[Prompts]]:
        """Messages in the behavior's scope, then plain ones for its chat."""
        scoped, plain = self._behavior.count_messages(self.counts)
        write = partial(self._backend.write_prompts, self._behavior, seed=self._seed)
        return join([write(plain=False, count=scoped), write(plain=True, count=plain)])

    def fill_role(
        self, role: Role, prompts: Sequence[PromptItem]
    ) -> Workflow[tuple[list[Example], list[Drop]]]:
        """Ask for rows until the role has what it needs, or too many were asked for in vain."""
        needed, asked = self.counts[role], 0
        kept: list[Example] = []
        drops: list[Drop] = []
        plan = self._plan_role(role, prompts)
        while len(kept) < needed and asked < needed * ATTEMPTS:
            rows = list(islice(plan, math.ceil((needed - len(kept)) * self._backend.oversample)))
            asked += len(rows)
            written = yield from self._backend.write_replies(
                self._behavior,
                rows,
                on_reply=partial(self._count, role, len(kept)),
            )
            fresh, stopped = self._sift(rows, written, kept)
            room = needed - len(kept)
            kept += fresh[:room]
            stopped += [_drop(example, "mix", "not needed") for example in fresh[room:]]
            drops += stopped
            self._on_drops(stopped)
            self._count(role, len(kept), 0)
            if not fresh and len(rows) >= HOPELESS:
                break
        if len(kept) < needed:
            have = f"{len(kept)} of {needed} {role} rows"
            raise CorpusError(_explain_shortage(self._behavior, have, asked, drops))
        return kept, drops

    def _plan_role(self, role: Role, prompts: Sequence[PromptItem]) -> Iterator[ReplyRequest]:
        if self.counts[role] and not prompts:
            raise CorpusError(
                f"{self._behavior.id}: no message was written for its {role} rows; read the drop "
                "ledger of another behavior for the reasons, or choose another author"
            )
        return plan_rows(
            self._behavior,
            role,
            prompts,
            seed=self._seed,
            second_turns=self._generator.second_turns,
        )

    def _count(self, role: Role, before: int, done: int) -> None:
        """Tell whoever listens how many rows there are."""
        self._done[role] = min(before + done, self.counts[role])
        self._on_row(self._done.total())

    def _sift(
        self, rows: Sequence[ReplyRequest], written: Sequence[Reply], kept: Sequence[Example]
    ) -> tuple[list[Example], list[Drop]]:
        """Rows that may enter the corpus, and those that may not."""
        said = {example.messages for example in kept}
        sound: list[Example] = []
        drops: list[Drop] = []
        for row, reply in zip(rows, written, strict=True):
            example = _make_example(row, reply, self._backend.name)
            fault = reply.fault or find_fault(self._behavior, row, reply.messages)
            if fault is None and example.messages in said:
                fault = ("mix", "duplicate of an earlier row")
            if fault is None:
                said.add(example.messages)
                sound.append(example)
            else:
                drops.append(_drop(example, *fault))
        leaks = self._find_leaks(sound)
        for example in sound:
            if example.id in leaks:
                name, reason = leaks[example.id]
                drops.append(_drop(example, LEAK_STAGE + name, reason))
        return [example for example in sound if example.id not in leaks], drops


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


def _explain_shortage(behavior: Behavior, have: str, asked: int, drops: Sequence[Drop]) -> str:
    reasons = Counter(f"{drop.stage}: {drop.reason}" for drop in drops).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return (
        f"{behavior.id}: {have} were kept of {asked} that were written "
        f"({listed}); mend what the commonest reason names, give the author more messages (the "
        f"embedded one reads the bank {behavior.offline.bank!r}), or lower `rows` in "
        f"generators/{behavior.category}/generator.yaml"
    )
