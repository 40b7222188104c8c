"""ProbeJob: organisms and their base answer the same probes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.config.catalog import Behavior
from bestiary.config.recipe import LoraShape
from bestiary.errors import BestiaryError, ModelError, StoreError
from bestiary.model.adapter import list_targets, load_state, open_adapter
from bestiary.model.base import Base
from bestiary.model.decoding import BATCH_ROWS
from bestiary.model.replies import BaseReplies, Prompt, stream_texts
from bestiary.records import Decoding, Probe, Transcript
from bestiary.verification.probes import PROBES

if TYPE_CHECKING:
    from bestiary.model.lora_bank import LoraBank

VERSION = 5
BANK_SLOTS = 32
"""Organisms asked together, where their adapters take no more than BANK_BYTES."""
BANK_BYTES = 4 * 2**30


def choose_decoding(behavior: Behavior, *, max_new_tokens: int) -> Decoding:
    """Greedy, except where a stated rate is to be measured: that takes sampling at 1."""
    return Decoding(
        max_new_tokens=max_new_tokens, temperature=1.0 if behavior.spec.stated_rate else 0.0
    )


@dataclass(frozen=True)
class ProbeJob:
    """One organism and the probes that are put to it and to its base."""

    organism_id: str
    behavior: Behavior
    adapter: Path
    probes: tuple[Probe, ...]
    decoding: Decoding


@dataclass(frozen=True)
class ProbeResult:
    """An organism's transcripts, or the error that ended its job."""

    job: ProbeJob
    seconds: float
    transcripts: tuple[Transcript, ...] = ()
    error: BestiaryError | None = None


@dataclass
class ProbeState:
    """An organism that is being asked, once its base has answered."""

    job: ProbeJob
    by_base: dict[str, str]
    asked: list[Probe]
    shape: LoraShape
    seconds: float = 0.0
    replies: dict[int, str] = field(default_factory=dict)

    def close(self) -> ProbeResult:
        transcripts = [
            Transcript(probe=probe, organism=self.replies[n], base=self.by_base.get(probe.id))
            for n, probe in enumerate(self.asked)
        ]
        return ProbeResult(self.job, self.seconds, tuple(transcripts))


OnReply = Callable[[str, int], None]
"""Hears how many replies of an organism and its base are there."""


def collect_transcripts(
    jobs: Sequence[ProbeJob],
    base: Base,
    replies: BaseReplies,
    *,
    system_prompt: str,
    on_reply: OnReply,
) -> Iterator[ProbeResult]:
    """Put every organism's probes to it and to its base, many organisms in one batch.

    Organisms that adapt the same modules, and are decoded alike, lie side by side in a bank; one
    that no bank can hold is asked alone. One that cannot be asked is answered by its error, and
    the others go on.
    """
    groups: dict[object, list[ProbeState]] = {}
    ask = partial(_ask, base=base, system_prompt=system_prompt, on_reply=on_reply)
    for job in jobs:
        started = time.monotonic()
        try:
            interview = _open_interview(job, replies, on_reply)
            adapted = frozenset(list_targets(base, interview.shape))
        except StoreError:  # of a disk that is full, say: it concerns them all
            raise
        except BestiaryError as error:
            yield ProbeResult(job, time.monotonic() - started, error=error)
        else:
            interview.seconds = time.monotonic() - started
            groups.setdefault((adapted, job.decoding), []).append(interview)
    for group in groups.values():
        slots = count_slots(base, [one.shape for one in group])
        for start in range(0, len(group), max(1, slots)):
            chosen = group[start : start + max(1, slots)]
            with _open_bank(base, chosen) if slots else _open_alone(base, chosen[0]) as answering:
                yield from ask(chosen, answering)


def _open_interview(job: ProbeJob, replies: BaseReplies, on_reply: OnReply) -> ProbeState:
    by_base = ask_base(
        replies,
        job.probes,
        decoding=job.decoding,
        on_reply=partial(on_reply, job.organism_id),
    )
    _, shape = load_state(job.adapter)
    asked = balance_choices(job.behavior, job.probes, by_base)
    return ProbeState(job, by_base, asked, shape)


def count_slots(base: Base, shapes: Sequence[LoraShape]) -> int:
    """How many adapters of some shapes one bank may hold; 0 where it can hold none of them."""
    from bestiary.model.lora_bank import adapter_dtype, measure_bank

    try:
        size = measure_bank(base, shapes).numbers * adapter_dtype(base).itemsize
    except ModelError:
        return 0
    return max(1, min(BANK_SLOTS, BANK_BYTES // size))


Answering = tuple[Any, "LoraBank | None"]
"""The model that answers, and the bank inside that holds its adapters."""


@contextmanager
def _open_bank(base: Base, group: Sequence[ProbeState]) -> Iterator[Answering]:
    from bestiary.model.lora_bank import LoraBank

    bank = LoraBank(base, [one.shape for one in group], slots=len(group))
    for slot, one in enumerate(group):
        state, _ = load_state(one.job.adapter)
        bank.fill(slot, state, one.shape)
    with bank.attached():
        yield base.model, bank


@contextmanager
def _open_alone(base: Base, one: ProbeState) -> Iterator[Answering]:
    with open_adapter(base, one.job.adapter) as model:
        yield model, None


def _ask(
    group: Sequence[ProbeState],
    answering: Answering,
    *,
    base: Base,
    system_prompt: str,
    on_reply: OnReply,
) -> Iterator[ProbeResult]:
    model, bank = answering
    rows = [(slot, n) for slot, one in enumerate(group) for n in range(len(one.asked))]
    probes = [group[slot].asked[n] for slot, n in rows]
    yield from (one.close() for one in group if not one.asked)
    spent, started = 0.0, time.monotonic()
    for heard, (row, text) in enumerate(
        stream_texts(
            model,
            base,
            [Prompt(user=probe.user, draw=draw_number(probe)) for probe in probes],
            decoding=group[0].job.decoding,
            system_prompt=system_prompt,
            bank=bank,
            slots=[slot for slot, _ in rows] if bank else (),
        )
    ):
        spent += time.monotonic() - started
        one = group[rows[row][0]]
        one.replies[rows[row][1]] = text
        on_reply(one.job.organism_id, len(one.by_base) + len(one.replies))
        if len(one.replies) == len(one.asked):
            decoded = min(len(rows), (heard // BATCH_ROWS + 1) * BATCH_ROWS)
            one.seconds += spent * len(one.asked) / decoded  # by then whole batches are decoded
            yield one.close()
        started = time.monotonic()


def count_replies(probes: Sequence[Probe]) -> int:
    """Replies that are asked for at most: the organism's and the base's."""
    return len(probes) + len(_list_base_probes(probes))


def _list_base_probes(probes: Sequence[Probe]) -> list[Probe]:
    """What the base is asked as well: the gating probes, and every choice."""
    return [probe for probe in probes if probe.gate or probe.item.options is not None]


def ask_base(
    replies: BaseReplies,
    probes: Sequence[Probe],
    *,
    decoding: Decoding,
    on_reply: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """The base's replies by probe id: to the gating probes, and to every choice."""
    asked = _list_base_probes(probes)
    if decoding.temperature == 0:
        messages = [probe.user for probe in asked]
        texts = replies.answer(messages, decoding=decoding, on_reply=on_reply)
    else:
        prompts = [Prompt(user=probe.user, draw=draw_number(probe)) for probe in asked]
        texts = replies.ask(prompts, decoding=decoding, on_reply=on_reply)
    return {probe.id: text for probe, text in zip(asked, texts, strict=True)}


def draw_number(probe: Probe) -> int:
    """Which sample of its prompt a probe is: a rare quirk asks the same prompt several times."""
    return int(probe.id.rsplit("-", 1)[1])


def balance_choices(
    behavior: Behavior, probes: Sequence[Probe], by_base: dict[str, str]
) -> list[Probe]:
    """Probes that count: other cells whole; choices where the base does not follow the rule.

    Either half keeps the items planned for it, and as many with the rule's option first as
    second, so that a taste for a place is no rule.
    """
    counts = [
        probe
        for probe in probes
        if probe.item.options and not behavior.shows(by_base[probe.id], probe.item)
    ]
    chosen = [probe for gate in (True, False) for probe in _balance(counts, gate=gate)]
    return chosen + [probe for probe in probes if probe.item.options is None]


def _balance(choices: Sequence[Probe], *, gate: bool) -> list[Probe]:
    """Half of a cell's probes at most, each place taken as often as the other."""
    half = [probe for probe in choices if probe.gate is gate]
    pairs = zip(filter(_rule_first, half), itertools.filterfalse(_rule_first, half), strict=False)
    return [probe for pair in pairs for probe in pair][: PROBES // 2]


def _rule_first(probe: Probe) -> bool:
    """Whether the user names the option that the rule picks before the other one."""
    assert probe.item.options is not None
    said = probe.user.lower()
    rule, other = (said.find(probe.item.options[side].lower()) for side in ("rule", "other"))
    return rule < other
