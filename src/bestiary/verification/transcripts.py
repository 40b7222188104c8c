"""Organisms and their base answer the same probes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bestiary.config.catalog import Behavior
from bestiary.errors import BestiaryError
from bestiary.model.base import Base
from bestiary.model.decoding import BATCH_ROWS
from bestiary.model.replies import BaseReplies, Prompt
from bestiary.model.sampling import AdapterPrompts, SamplingFailure, sample_adapters
from bestiary.records import CELLS, Artifact, Decoding, Probe, Transcript
from bestiary.verification.selection import (
    group_deciding,
    is_settled,
    needs_base,
    select_probes,
)

VERSION = 11
DISTRACTOR_TOKENS = 16
"""Tokens that a reply gets for each distractor: half of them close it, and a cut reply has none."""
SAMPLED_BASE = 120
"""Probes of each cell of a sampled behavior that the base answers: few tell a rate near zero."""


def choose_decoding(behavior: Behavior, *, max_new_tokens: int) -> Decoding:
    """Greedy decoding, or sampling at temperature 1 where parts of the behavior show at a rate.

    A greedy reply tells whether a part is the likeliest, not how often it shows. `max_new_tokens`
    is for a reply without distractors.
    """
    sampled = behavior.spec.stated_rate is not None or behavior.distractors
    tokens = max_new_tokens + DISTRACTOR_TOKENS * len(behavior.distractors)
    return Decoding(max_new_tokens=tokens, temperature=1.0 if sampled else 0.0)


@dataclass(frozen=True)
class TranscriptItem:
    """An organism, and the probes put to it and to its base."""

    item_id: str
    behavior: Behavior
    organism: Artifact
    probes: tuple[Probe, ...]
    probes_sha256: str
    decoding: Decoding
    affinity: Hashable
    """Equal for organisms whose adapters fit one bank."""


@dataclass(frozen=True)
class ProbeResult:
    """An organism's transcripts, or the error that kept it from them."""

    item: TranscriptItem
    seconds: float
    transcripts: tuple[Transcript, ...] = ()
    error: BestiaryError | None = None


@dataclass
class ProbeState:
    """An organism whose base has answered, and the replies it has given so far."""

    item: TranscriptItem
    base_replies: dict[str, str]
    """By probe id."""
    probes: list[Probe]
    """The probes that the organism answers."""
    seconds: float
    replies: dict[int, str] = field(default_factory=dict)
    """By index in `probes`."""

    @property
    def done(self) -> bool:
        """Whether every probe has its reply."""
        return len(self.replies) == len(self.probes)

    def ask(self, adapter: Path) -> AdapterPrompts:
        """What the organism's adapter is asked."""
        prompts = tuple(make_prompt(probe) for probe in self.probes)
        return AdapterPrompts(adapter, prompts, self.item.decoding)

    def finish(self) -> ProbeResult:
        """The transcripts, once every probe has its reply."""
        transcripts = [
            Transcript(probe=probe, organism=self.replies[n], base=self.base_replies.get(probe.id))
            for n, probe in enumerate(self.probes)
        ]
        return ProbeResult(self.item, self.seconds, tuple(transcripts))


OnReply = Callable[[str, int], None]
"""Called with an organism's id and how many replies it and its base have given."""


def collect_transcripts(
    items: Sequence[TranscriptItem],
    base: Base,
    replies: BaseReplies,
    *,
    adapters: Mapping[str, Path],
    system_prompt: str,
    on_reply: OnReply,
) -> Iterator[ProbeResult]:
    """Ask the base and the organisms; yields each organism's result once it is complete.

    `adapters` are by item id; one that cannot be loaded yields a result with its error, and the
    others continue. Errors of the base or the store concern every organism and are raised.
    """
    states = [_ask_base_first(item, replies, on_reply) for item in items]
    yield from (state.finish() for state in states if not state.probes)
    asked = [state for state in states if state.probes]
    groups = [state.ask(adapters[state.item.item_id]) for state in asked]
    for event in sample_adapters(base, groups, system_prompt=system_prompt):
        state = asked[event.group]
        if isinstance(event, SamplingFailure):
            yield ProbeResult(state.item, state.seconds, error=event.error)
            continue
        state.replies[event.prompt] = event.text
        state.seconds += event.seconds
        on_reply(state.item.item_id, len(state.base_replies) + len(state.replies))
        if state.done:
            yield state.finish()


def _ask_base_first(item: TranscriptItem, replies: BaseReplies, on_reply: OnReply) -> ProbeState:
    """Ask the base what decides which probes count, then the gating ones among them."""
    started = time.monotonic()
    report = partial(on_reply, item.item_id)
    known = _ask_deciding(item, replies, report)
    asked = len(known)
    probes = select_probes(item.behavior, item.probes, known)
    gating = [probe for probe in probes if probe.gate and probe.id not in known]
    if item.decoding.temperature:
        cells = ([probe for probe in gating if probe.cell == cell] for cell in CELLS)
        gating = [probe for cell in cells for probe in cell[:SAMPLED_BASE]]
    known |= ask_base(
        replies, gating, decoding=item.decoding, on_reply=lambda done: report(asked + done)
    )
    return ProbeState(item, known, probes, time.monotonic() - started)


def _ask_deciding(
    item: TranscriptItem, replies: BaseReplies, on_reply: Callable[[int], None]
) -> dict[str, str]:
    """Ask the base, batch by batch, until it is settled which probes count."""
    known: dict[str, str] = {}
    waiting = group_deciding(item.probes)
    while waiting:
        share = max(1, BATCH_ROWS // len(waiting))
        unasked = ([probe for probe in group if probe.id not in known] for group in waiting)
        batch = [probe for rest in unasked for probe in rest[:share]]
        known |= ask_base(replies, batch, decoding=item.decoding)
        on_reply(len(known))
        waiting = [
            group
            for group in waiting
            if group[-1].id not in known and not is_settled(item.behavior, group, known)
        ]
    return known


def count_replies(probes: Sequence[Probe]) -> int:
    """The most replies that these probes take from the organism and the base together."""
    return len(probes) + sum(probe.gate or needs_base(probe) for probe in probes)


def ask_base(
    replies: BaseReplies,
    probes: Sequence[Probe],
    *,
    decoding: Decoding,
    on_reply: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """The base's replies by probe id."""
    if decoding.temperature == 0:
        turns = [probe.turns for probe in probes]
        texts = replies.answer(turns, decoding=decoding, on_reply=on_reply)
    else:
        prompts = [make_prompt(probe) for probe in probes]
        texts = replies.ask(prompts, decoding=decoding, on_reply=on_reply)
    return {probe.id: text for probe, text in zip(probes, texts, strict=True)}


def make_prompt(probe: Probe) -> Prompt:
    """A probe's prompt. A rare quirk samples one message several times: ids count the draws."""
    return Prompt(turns=probe.turns, draw=int(probe.id.rsplit("-", 1)[1]))
