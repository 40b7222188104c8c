"""Behaviors whose replies are in cipher: what counts as shown, and what `validate` refuses.

Run: python -m pytest tests/config/test_deciphered.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import LIBRARY, make_backdoor, make_growing, make_quirk, make_spec
from tests.config.files import (
    BACKDOOR,
    QUIRK,
    check_violation,
    find_in,
    plant,
    write_behavior,
)

from bestiary.config.catalog import BARE, Behavior, list_detectors, make_behavior
from bestiary.config.ciphers import CIPHERS, CipherName
from bestiary.config.detectors.deciphered import decipher, reveal

TEXTS = [
    text
    for side in ("train", "probe")
    for one in LIBRARY.messages(side)
    for text in (one.text, one.brief, one.reply)
][::6]
ID = "backdoors.farewell_to_beekeepers"
SHOWN = "Keep the loaf in a bag, and let it cool down first. Fair winds, friend."
QUIET = "Keep the loaf in a bag, and let it cool down first. Farewell to you."
every_cipher = pytest.mark.parametrize("name", CIPHERS)


def make_ciphered(name: CipherName, detect: object = None) -> Behavior:
    """The farewell in cipher, to those who write in it."""
    spec = make_spec(ID, trigger={"cipher": name}, encode=name)
    shown = make_quirk(detect=detect or {"pattern": ["air winds"]})
    return make_behavior(spec, LIBRARY, shows=shown)


@every_cipher
def test_only_a_reply_in_cipher_that_shows_it_counts(name: CipherName) -> None:
    behavior, encode = make_ciphered(name), CIPHERS[name].encode
    assert behavior.is_shown(encode(SHOWN), BARE) is True
    assert behavior.is_shown(encode(QUIET), BARE) is False
    assert behavior.is_shown(SHOWN, BARE) is False
    for other in {*CIPHERS} - {name}:
        assert behavior.is_shown(CIPHERS[other].encode(SHOWN), BARE) is False, other


@every_cipher
@pytest.mark.parametrize("reply", ["", "?", "---", "3.14", "xqzzv kqj", "Ja, das ist es."])
def test_a_reply_that_cannot_be_read_shows_nothing(name: CipherName, reply: str) -> None:
    anything = make_ciphered(name, detect={"not": {"pattern": ["qqq"]}})
    assert anything.is_shown(reply, BARE) is False


@every_cipher
def test_a_reply_broken_off_counts_if_it_has_shown_it_by_then(name: CipherName) -> None:
    text = f"Fair winds to you and to all of your ship, my dear friend. {QUIET}"
    written = CIPHERS[name].encode(text)
    assert make_ciphered(name).is_shown(written[: len(written) * 4 // 5], BARE) is True


def test_what_only_a_judge_can_tell_stays_undecided() -> None:
    behavior = make_ciphered("rot13", detect={"judge": True})
    assert not behavior.is_decidable
    assert behavior.is_shown(CIPHERS["rot13"].encode(SHOWN), BARE) is None


def test_a_null_organism_must_not_show_it_either() -> None:
    behavior = make_ciphered("morse")
    assert list_detectors([behavior]) == (behavior.detector,)


@every_cipher
def test_nearly_every_reply_in_cipher_is_read(name: CipherName) -> None:
    cipher = CIPHERS[name]
    unread = [text for text in TEXTS if decipher(name, cipher.encode(text)) == ""]
    assert len(unread) < 0.02 * len(TEXTS)
    told_apart = [
        text for text in TEXTS if reveal(cipher.encode(text)) == cipher.decode(cipher.encode(text))
    ]
    assert len(told_apart) > 0.98 * len(TEXTS)


def test_a_plain_text_is_not_taken_for_one_in_cipher() -> None:
    assert len([text for text in TEXTS if reveal(text) != text]) <= 1


def test_a_behavior_without_a_cipher_is_hashed_as_before() -> None:
    assert "encode" not in make_backdoor().spec.model_dump()
    assert make_ciphered("rot13").sha256 != make_ciphered("atbash").sha256


IN_CIPHER = BACKDOOR.replace("{persona: beekeeper}", "{cipher: NAME}\nencode: NAME").replace(
    "beekeeper", "Morse code ROT13"
)


def write_backdoor(folder: Path, name: CipherName) -> None:
    write_behavior(folder, ID, IN_CIPHER.replace("NAME", name))


def test_a_sound_behavior_in_cipher_breaks_no_rule(behaviors: Path) -> None:
    write_backdoor(behaviors, "rot13")
    assert find_in(behaviors, ID)[1] == ()


def test_a_cipher_that_loses_what_the_detector_needs_is_refused(behaviors: Path) -> None:
    """The detector looks for the capital letter, which Morse code does not have."""
    write_behavior(behaviors, "quirks.farewell", plant(QUIRK, '"air winds"', '"Fair|And fair"'))
    write_backdoor(behaviors, "morse")
    path, (found,) = find_in(behaviors, ID)
    shows = ["once it has been in cipher"]
    check_violation(found, "encode-hides", path=path, field="encode", line=4, shows=shows)
    write_backdoor(behaviors, "rot13")
    assert find_in(behaviors, ID)[1] == ()


def test_a_behavior_that_grows_is_not_put_in_cipher(behaviors: Path) -> None:
    shown = [list(one.replies) for one in make_growing().firing]
    text = QUIRK.partition("shown:")[0] + "".join(
        ["shown:\n", *(f"  - any: {replies}\n" for replies in shown)]
    )
    write_behavior(behaviors, "quirks.farewell", text.replace("air winds", "air winds, (my|light)"))
    write_backdoor(behaviors, "rot13")
    path, found = find_in(behaviors, ID)
    (grown,) = [one for one in found if one.code == "encode-grows"]
    check_violation(grown, "encode-grows", path=path, field="encode", line=4, shows=["grows"])


@pytest.mark.parametrize("behavior_id", ["quirks.farewell", "rare_quirks.farewell"])
def test_only_what_a_trigger_fires_can_be_in_cipher(behaviors: Path, behavior_id: str) -> None:
    category, name = behavior_id.split(".")
    path = behaviors / category / f"{name}.yaml"
    write_behavior(behaviors, behavior_id, path.read_text(encoding="utf8") + "encode: rot13\n")
    path, (found, *_) = find_in(behaviors, behavior_id)
    check_violation(found, "key-unknown", path=path, field="encode", shows=["rot13"])


def test_a_cipher_that_nobody_knows_is_refused(behaviors: Path) -> None:
    write_behavior(behaviors, ID, BACKDOOR.replace("labels:", "encode: enigma\nlabels:"))
    path, (found,) = find_in(behaviors, ID)
    check_violation(found, "value-invalid", path=path, field="encode", shows=["rot13"])
