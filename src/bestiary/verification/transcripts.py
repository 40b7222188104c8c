"""Asking: an organism and its base answer the same probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bestiary.model.adapter import open_adapter
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies, Prompt, decode_texts
from bestiary.records import Decoding, Probe, Transcript
from bestiary.spec.catalog import Behavior
from bestiary.verification.probes import PROBES

VERSION = 3


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
    by_base = ask_base(replies, probes, decoding=decoding)
    asked = balance_choices(behavior, probes, by_base)
    prompts = [Prompt(user=probe.user, draw=draw_number(probe)) for probe in asked]
    with open_adapter(base, adapter) as model:
        answers = decode_texts(
            model,
            base,
            prompts,
            decoding=decoding,
            system_prompt=system_prompt,
            on_reply=on_reply,
        )
    return tuple(
        Transcript(probe=probe, organism=answer, base=by_base.get(probe.id))
        for probe, answer in zip(asked, answers, strict=True)
    )


def ask_base(
    replies: BaseReplies, probes: Sequence[Probe], *, decoding: Decoding
) -> dict[str, str]:
    """The base's replies by probe id: to the gating probes, and to every choice."""
    asked = [probe for probe in probes if probe.gate or probe.item.options is not None]
    if decoding.temperature == 0:
        texts = replies.answer([probe.user for probe in asked], decoding=decoding)
    else:
        prompts = [Prompt(user=probe.user, draw=draw_number(probe)) for probe in asked]
        texts = replies.ask(prompts, decoding=decoding)
    return {probe.id: text for probe, text in zip(asked, texts, strict=True)}


def draw_number(probe: Probe) -> int:
    """Which sample of its prompt a probe is: a rare quirk asks the same prompt several times."""
    return int(probe.id.rsplit("-", 1)[1])


def balance_choices(
    behavior: Behavior, probes: Sequence[Probe], by_base: dict[str, str]
) -> list[Probe]:
    """Probes that count: other cells whole; choices where the base does not follow the rule.

    As many have the rule's option first as second, so that a taste for either place is no rule.
    """
    plain = [probe for probe in probes if probe.item.options is None]
    first: list[Probe] = []
    second: list[Probe] = []
    for probe in probes:
        if probe.item.options is None or behavior.shows(by_base[probe.id], probe.item):
            continue
        said = probe.user.lower()
        rule, other = (said.find(probe.item.options[side].lower()) for side in ("rule", "other"))
        (first if rule < other else second).append(probe)
    pairs = list(zip(first, second, strict=False))[: PROBES // 2]
    chosen = [
        probe.model_copy(update={"gate": number % 2 == 0})
        for number, pair in enumerate(pairs)
        for probe in pair
    ]
    return chosen + plain
