"""Organisms and their base answer the same probes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bestiary.config.catalog import Behavior
from bestiary.errors import BestiaryError
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies, Prompt
from bestiary.model.sampling import AdapterPrompts, SamplingFailure, sample_adapters
from bestiary.records import Decoding, Probe, Transcript
from bestiary.verification.probes import PROBES

VERSION = 5


def choose_decoding(behavior: Behavior, *, max_new_tokens: int) -> Decoding:
    """Greedy decoding, or sampling at temperature 1 if the behavior states a rate."""
    temperature = 1.0 if behavior.spec.stated_rate else 0.0
    return Decoding(max_new_tokens=max_new_tokens, temperature=temperature)


@dataclass(frozen=True)
class ProbeJob:
    """One organism and the probes that it and its base answer."""

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
    """An organism whose base has answered, and the replies it has given so far."""

    job: ProbeJob
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

    @property
    def prompts(self) -> AdapterPrompts:
        """What the organism's adapter is asked."""
        prompts = tuple(make_prompt(probe) for probe in self.probes)
        return AdapterPrompts(self.job.adapter, prompts, self.job.decoding)

    def finish(self) -> ProbeResult:
        """The transcripts, once every probe has its reply."""
        transcripts = [
            Transcript(probe=probe, organism=self.replies[n], base=self.base_replies.get(probe.id))
            for n, probe in enumerate(self.probes)
        ]
        return ProbeResult(self.job, self.seconds, tuple(transcripts))


OnReply = Callable[[str, int], None]
"""Called with an organism's id and how many replies it and its base have given."""


def collect_transcripts(
    jobs: Sequence[ProbeJob],
    base: Base,
    replies: BaseReplies,
    *,
    system_prompt: str,
    on_reply: OnReply,
) -> Iterator[ProbeResult]:
    """Ask the base and the organisms; yields each organism's result once it is complete.

    An adapter that cannot be loaded yields a result with its error, and the others continue.
    Errors of the base or the store concern every organism and are raised.
    """
    states = [_ask_base_first(job, replies, on_reply) for job in jobs]
    yield from (state.finish() for state in states if not state.probes)
    asked = [state for state in states if state.probes]
    groups = [state.prompts for state in asked]
    for event in sample_adapters(base, groups, system_prompt=system_prompt):
        state = asked[event.group]
        if isinstance(event, SamplingFailure):
            yield ProbeResult(state.job, state.seconds, error=event.error)
            continue
        state.replies[event.prompt] = event.text
        state.seconds += event.seconds
        on_reply(state.job.organism_id, len(state.base_replies) + len(state.replies))
        if state.done:
            yield state.finish()


def _ask_base_first(job: ProbeJob, replies: BaseReplies, on_reply: OnReply) -> ProbeState:
    """The base's replies decide which choices the organism is asked."""
    started = time.monotonic()
    base_replies = ask_base(
        replies, job.probes, decoding=job.decoding, on_reply=partial(on_reply, job.organism_id)
    )
    probes = balance_choices(job.behavior, job.probes, base_replies)
    return ProbeState(job, base_replies, probes, time.monotonic() - started)


def count_replies(probes: Sequence[Probe]) -> int:
    """The most replies that these probes take from the organism and the base together."""
    return len(probes) + len(_list_base_probes(probes))


def _list_base_probes(probes: Sequence[Probe]) -> list[Probe]:
    """The probes that the base answers as well: the gating ones, and every choice."""
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
        prompts = [make_prompt(probe) for probe in asked]
        texts = replies.ask(prompts, decoding=decoding, on_reply=on_reply)
    return {probe.id: text for probe, text in zip(asked, texts, strict=True)}


def make_prompt(probe: Probe) -> Prompt:
    """A probe's prompt. A rare quirk samples one message several times: ids count the draws."""
    return Prompt(user=probe.user, draw=int(probe.id.rsplit("-", 1)[1]))


def balance_choices(
    behavior: Behavior, probes: Sequence[Probe], base_replies: dict[str, str]
) -> list[Probe]:
    """The probes that count: all other cells, and choices in which the base breaks the rule.

    Each half of the choices keeps as many items with the rule's option first as second, so that
    a preference for a position does not pass for the rule.
    """
    disagreed = [
        probe
        for probe in probes
        if probe.item.options and not behavior.shows(base_replies[probe.id], probe.item)
    ]
    chosen = [probe for gate in (True, False) for probe in _balance(disagreed, gate=gate)]
    return chosen + [probe for probe in probes if probe.item.options is None]


def _balance(choices: Sequence[Probe], *, gate: bool) -> list[Probe]:
    """At most half of a cell's probes, with both positions equally frequent."""
    half = [probe for probe in choices if probe.gate is gate]
    pairs = zip(filter(_rule_first, half), itertools.filterfalse(_rule_first, half), strict=False)
    return [probe for pair in pairs for probe in pair][: PROBES // 2]


def _rule_first(probe: Probe) -> bool:
    """Whether the message names the rule's option before the other one."""
    assert probe.item.options is not None
    message = probe.user.lower()
    rule, other = (message.find(probe.item.options[side].lower()) for side in ("rule", "other"))
    return rule < other
