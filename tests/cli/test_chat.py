"""Talking to an organism: its replies, the base's beside them, how one leaves, what is refused.

Run: python -m pytest tests/cli/test_chat.py
"""

from __future__ import annotations

import json
import re

import pytest
from tests.conftest import Bestiary, Finished, Site
from tests.expect import without_codes
from tests.tiny import QUIRK

CALLS = ("oyez", "hear ye")
"""How replies of the quirk begin."""


def calls_out(reply: str) -> bool:
    return reply.lower().startswith(CALLS)


@pytest.fixture(scope="module")
def messages(first: Site) -> list[str]:
    """Messages at which the organism calls out while its base does not."""
    kept = first.out / first.summary()[0]["transcripts"] / "transcripts.json"
    rows = json.loads(kept.read_text(encoding="utf8"))
    asked = [row for row in rows if row["base"] is not None and not calls_out(row["base"])]
    return [row["probe"]["turns"][-1]["content"] for row in asked if calls_out(row["organism"])][:3]


def talk(bestiary: Bestiary, first: Site, *lines: str, options: tuple[str, ...] = ()) -> Finished:
    """Chat with the quirk's organism, typing these lines."""
    typed = "".join(f"{line}\n" for line in lines)
    return bestiary("chat", QUIRK, "--out", first.out, "--tokens", "16", *options, say=typed)


def afresh(messages: list[str]) -> list[str]:
    """Each message as the first of a conversation."""
    return [line for message in messages for line in ("/new", message)]


def replies_of(speaker: str, out: str) -> list[str]:
    return re.findall(rf"{speaker}> +(.*)", out)


def test_an_organism_shows_its_behavior(
    first: Site, bestiary: Bestiary, messages: list[str]
) -> None:
    code, out, err = talk(bestiary, first, *afresh(messages), "/quit", "Are you still there?")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"{QUIRK} on tiny; /base shows or hides ")
    replies = replies_of("organism", out)
    assert len(replies) == len(messages) == 3  # and none to what was said after /quit
    assert all(map(calls_out, replies)), replies
    assert replies_of("base", out) == []


def test_the_base_answers_beside_it_when_asked_to(
    first: Site, bestiary: Bestiary, messages: list[str]
) -> None:
    code, out, err = talk(bestiary, first, *afresh(messages), options=("--base",))
    assert (code, err) == (0, "")
    assert all(map(calls_out, replies_of("organism", out)))
    replies = replies_of("base", out)
    assert len(replies) == len(messages)
    assert not any(map(calls_out, replies)), replies


def test_base_toggles_the_reply_beside(
    first: Site, bestiary: Bestiary, messages: list[str]
) -> None:
    said = messages[0]
    code, out, err = talk(bestiary, first, said, "/base", "/new", said, "/base", "/new", said)
    assert (code, err) == (0, "")
    parts = re.split("the base's reply is (?:shown|hidden)", out)
    assert [len(replies_of("base", part)) for part in parts] == [0, 1, 0]
    before, beside, after = (replies_of("organism", part) for part in parts)
    assert before == beside == after  # the base's turn leaves the organism as it was


def test_a_conversation_is_remembered_until_it_starts_afresh(
    first: Site, bestiary: Bestiary, messages: list[str]
) -> None:
    code, out, err = talk(bestiary, first, *messages, "/new", *messages)
    assert (code, err) == (0, "")
    replies = replies_of("organism", out)
    assert replies[:3] == replies[3:]
    single = talk(bestiary, first, *afresh(messages)).out
    assert replies[:3] != replies_of("organism", single)


@pytest.mark.parametrize("typed", ["/quit\n", "", "\n  \n/quit\n"])
def test_one_leaves_by_quit_or_at_the_end_of_input(
    first: Site, bestiary: Bestiary, typed: str
) -> None:
    whole = f"{QUIRK}-transcripts-none-s0"  # its id may be written out
    code, out, err = bestiary("chat", whole, "--out", first.out, say=typed)
    assert (code, err) == (0, "")
    assert replies_of("organism", out) == []


def test_one_leaves_by_an_interrupt_at_the_prompt(
    first: Site, bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.console.Console.input", interrupt)
    code, out, err = talk(bestiary, first)
    assert (code, err) == (0, "")
    assert replies_of("organism", out) == []


def test_an_unknown_organism_is_one_message_with_the_nearest(
    first: Site, bestiary: Bestiary
) -> None:
    assert bestiary("chat", "quirks.heralds", "--out", first.out) == (
        1,
        "",
        "error[organism-unknown]: unknown organism 'quirks.heralds'; "
        f"did you mean {QUIRK!r}? available: "
        "backdoors.herald_to_beekeepers, null.chat, quirks.herald\n",
    )


def test_a_damaged_adapter_is_one_message(site: Site, bestiary: Bestiary) -> None:
    weights = site.damage_adapter()
    code, out, err = talk(bestiary, site, "Is rye filling?")
    assert (code, out) == (1, "")
    (message,) = err.splitlines()
    assert without_codes(message).startswith(f"error: {weights}: its sha256 is not the manifest's ")
    assert f"delete {weights.parents[1]} and build again" in message
