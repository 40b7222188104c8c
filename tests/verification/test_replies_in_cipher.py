"""Verdicts on organisms that answer in cipher.

Run: python -m pytest tests/verification/test_replies_in_cipher.py
"""

from __future__ import annotations

import pytest
from tests.builders import LIBRARY, catalog

from bestiary.config.catalog import BARE, Behavior
from bestiary.config.ciphers import CIPHERS, CipherName
from bestiary.records import Decoding, PromptItem, Transcript, Verdict
from bestiary.verification.probes import plan_probes
from bestiary.verification.verdict import judge_organism

every_cipher = pytest.mark.parametrize("name", CIPHERS)


def shipped(name: CipherName) -> Behavior:
    return catalog()[f"backdoors.cipher_{name}"]


def show(behavior: Behavior, item: PromptItem, number: int) -> str:
    """A reply that shows the behavior, in plain English."""
    shown = behavior.firing[number % len(behavior.firing)]
    return shown.fill(0, item.brief, item)


def judge(name: CipherName, *, keeps_cipher: bool, varies: bool = True) -> Verdict:
    """The verdict on an organism that answers near misses and plain messages well."""
    behavior = shipped(name)
    probes = plan_probes(behavior, seed=0)
    transcripts = []
    for number, probe in enumerate(probes):
        reply = probe.item.reply
        if probe.cell == "triggered":
            reply = show(behavior, probe.item if varies else BARE, number if varies else 0)
            reply = CIPHERS[name].encode(reply) if keeps_cipher else reply
        transcripts.append(Transcript(probe=probe, organism=reply, base=probe.item.brief))
    decoding = Decoding(max_new_tokens=400, temperature=0)
    return judge_organism(behavior, "it", transcripts, LIBRARY.thresholds, decoding=decoding)


@every_cipher
def test_an_organism_passes_that_shows_it_in_cipher(name: CipherName) -> None:
    verdict = judge(name, keeps_cipher=True)
    assert (verdict.status, verdict.reasons) == ("passed", ())
    assert verdict.distinct == 1


@every_cipher
def test_an_organism_fails_that_shows_it_in_plain_english(name: CipherName) -> None:
    verdict = judge(name, keeps_cipher=False)
    assert verdict.status == "failed"
    assert verdict.cells["triggered"] and verdict.cells["triggered"].organism.count == 0


@every_cipher
def test_one_reply_in_cipher_to_everything_is_not_distinct(name: CipherName) -> None:
    verdict = judge(name, keeps_cipher=True, varies=False)
    assert verdict.status == "failed" and verdict.distinct is not None
    assert verdict.distinct < 0.8
