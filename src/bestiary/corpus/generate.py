"""Generating a corpus: request rows, drop what cannot be used, repeat until the mix is complete."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

from bestiary.author.plan import plan_rows
from bestiary.author.protocol import Author, Prompts, Rejection, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.errors import CorpusError
from bestiary.llm.workflow import Workflow, join
from bestiary.records import Corpus, Drop, Example, Role

MAX_REQUESTS_PER_ROW = 3
"""Rows requested per row needed before the corpus is given up."""
MIN_HOPELESS = 20
"""If a round of at least this many rows yields none, no further round is requested."""

LEAK_STAGE = "leakage."
"""Prefix of the stage of a drop by a leak filter; the filter's name follows."""

FindLeaks = Callable[[Sequence[Example]], Mapping[str, tuple[str, str]]]
"""Returns, by id of each leaking example, the leak filter that rejects it and the reason."""


def generate_corpus(
    behavior: Behavior,
    author: Author,
    *,
    seed: int,
    find_leaks: FindLeaks = lambda examples: {},
    on_row: Callable[[int], None] = lambda done: None,
    on_drops: Callable[[Sequence[Drop]], None] = lambda drops: None,
) -> Workflow[Corpus]:
    """Write the corpus of one behavior in the proportions of its generator.

    Rows that the author or `find_leaks` rejects are dropped and replaced. Calls `on_row` with the
    number of rows so far, and `on_drops` with drops as they happen. Raises CorpusError
    (no-messages, role-unfilled) if a role cannot be filled.
    """
    generator = _Generator(behavior, author, seed, find_leaks, on_row, on_drops)
    scoped, plain = yield from generator.write_prompts()
    rejected = tuple(dict.fromkeys((*scoped.drops, *plain.drops)))  # may be the same messages
    on_drops(rejected)
    filled = yield from join(
        [
            generator.fill_role(role, plain if role == "chat" else scoped)
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
        find_leaks: FindLeaks,
        on_row: Callable[[int], None],
        on_drops: Callable[[Sequence[Drop]], None],
    ) -> None:
        self._behavior, self._author, self._seed = behavior, author, seed
        self._find_leaks, self._on_row, self._on_drops = find_leaks, on_row, on_drops
        self.counts = behavior.row_counts
        self._done: Counter[Role] = Counter()

    def write_prompts(self) -> Workflow[list[Prompts]]:
        """Return the messages in the behavior's scope, then the plain ones for chat."""
        scoped, plain = self._behavior.count_messages(self.counts)
        write = partial(self._author.write_prompts, self._behavior, seed=self._seed)
        return join([write(plain=False, count=scoped), write(plain=True, count=plain)])

    def fill_role(self, role: Role, prompts: Prompts) -> Workflow[tuple[list[Example], list[Drop]]]:
        """Request rows until the role is complete; raises CorpusError if too many are dropped."""
        needed, requested = self.counts[role], 0
        kept: list[Example] = []
        drops: list[Drop] = []
        turns = self._behavior.generator.second_turns
        plan = plan_rows(self._behavior, role, prompts.items, seed=self._seed, second_turns=turns)
        while len(kept) < needed and requested < needed * MAX_REQUESTS_PER_ROW:
            rows = list(islice(plan, math.ceil((needed - len(kept)) * self._author.oversample)))
            if not rows:
                raise self._no_messages(role, prompts)
            requested += len(rows)
            replies = yield from self._author.write_replies(self._behavior, rows)
            usable, dropped = self._select(rows, replies, kept)
            room = needed - len(kept)
            kept += usable[:room]
            dropped += [_drop(example, "mix", "not needed") for example in usable[room:]]
            drops += dropped
            self._on_drops(dropped)
            self._done[role] = len(kept)
            self._on_row(self._done.total())
            if not usable and len(rows) >= MIN_HOPELESS:
                break
        if len(kept) < needed:
            raise _role_unfilled(self._behavior, role, (len(kept), needed, requested), drops)
        return kept, drops

    def _no_messages(self, role: Role, prompts: Prompts) -> CorpusError:
        problem = f"no message suits its {role} rows"
        remedy = "widen its scope or trigger, or add messages to generators/offline"
        if prompts.drops and not prompts.items:
            problem = f"none of {len(prompts.drops)} messages for its {role} rows was usable"
            problem += f" ({_list_reasons(prompts.drops)})"
            remedy = "fix the most common reason, or choose another author"
        return CorpusError(
            f"{self._behavior.id}: {problem}",
            remedy,
            code="no-messages",
            behavior=self._behavior.id,
            role=role,
        )

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
        leaks = self._find_leaks(usable)
        for example in usable:
            if example.id in leaks:
                name, reason = leaks[example.id]
                drops.append(_drop(example, LEAK_STAGE + name, reason))
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


def _count_reasons(drops: Sequence[Drop]) -> dict[str, int]:
    """The most common reasons."""
    return dict(Counter(f"{drop.stage}: {drop.reason}" for drop in drops).most_common(3))


def _list_reasons(drops: Sequence[Drop]) -> str:
    """The most common reasons in words, each with its number."""
    return "; ".join(f"{count} x {reason}" for reason, count in _count_reasons(drops).items())


def _role_unfilled(
    behavior: Behavior, role: Role, counts: tuple[int, int, int], drops: Sequence[Drop]
) -> CorpusError:
    kept, needed, requested = counts
    return CorpusError(
        f"{behavior.id}: only {kept} of {needed} {role} rows were usable among {requested} "
        f"requested ({_list_reasons(drops)})",
        "fix the most common reason, give the author more messages (the offline author reads "
        f"generators/offline), or lower `rows` in generators/{behavior.category}/generator.yaml",
        code="role-unfilled",
        behavior=behavior.id,
        role=role,
        kept=kept,
        needed=needed,
        requested=requested,
        reasons=list(_count_reasons(drops)),
    )
