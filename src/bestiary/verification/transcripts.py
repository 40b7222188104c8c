"""Asking: an organism and its base answer the same probes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from bestiary.model.adapter import open_adapter
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies, Prompt, decode_texts
from bestiary.records import Decoding, Probe, Transcript
from bestiary.spec.catalog import Behavior
from bestiary.verification.probes import PROBES

VERSION = 4


def choose_decoding(behavior: Behavior, *, max_new_tokens: int) -> Decoding:
    """Greedy, except where a stated rate is to be measured: that takes sampling at 1."""
    return Decoding(max_new_tokens=max_new_tokens, temperature=1.0 if behavior.rate else 0.0)


def collect_transcripts(
    behavior: Behavior,
    adapter: Path,
    base: Base,
    replies: BaseReplies,
    probes: Sequence[Probe],
    *,
    decoding: Decoding,
    system_prompt: str,
    on_reply: Callable[[int], None] | None = None,
) -> tuple[Transcript, ...]:
    """The organism's and the base's reply to each probe that counts."""
    by_base = ask_base(replies, probes, decoding=decoding, on_reply=on_reply)
    asked = balance_choices(behavior, probes, by_base)
    prompts = [Prompt(user=probe.user, draw=draw_number(probe)) for probe in asked]

    def count(done: int) -> None:
        if on_reply is not None:
            on_reply(len(by_base) + done)

    with open_adapter(base, adapter) as model:
        answers = decode_texts(
            model,
            base,
            prompts,
            decoding=decoding,
            system_prompt=system_prompt,
            on_reply=count,
        )
    return tuple(
        Transcript(probe=probe, organism=answer, base=by_base.get(probe.id))
        for probe, answer in zip(asked, answers, strict=True)
    )


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
