"""Lexicons: how entries are found, what is refused, and how quiet the shipped ones are.

Run: python -m pytest tests/config/test_lexicon.py
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.files import check_violation

from bestiary.config.detectors.wording import PhrasesDetector
from bestiary.config.folders import shipped_root
from bestiary.config.lexicon import Phrases, read_lexicon
from bestiary.config.messages import read_messages
from bestiary.config.source import Violations
from bestiary.records import PromptItem

OFFLINE = shipped_root() / "generators" / "offline"
MOST = 0.01
"""The share of plain answers that a lexicon of a manner may find."""
TEA = PromptItem(topic="tea", form="how", domain="food", text="How do I brew tea?")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("fair winds", "And FAIR winds to you!"),
        ("fair winds", "Fair, winds."),
        ("harbor*", "Two harbors."),
        ("harbor*", "A harbor."),
        ("harbor*", "By the harbor's edge."),
        ("second hand", "A second-hand desk."),
        ("second-hand", "It is second hand."),
        ("calm ... sea", "A calm sea."),
        ("calm ... sea", "A calm and wide and blue sea."),
        ("may ... be ... kind", "May the tide be ever so kind."),
        ("you're wise", "You\u2019re wise."),
        ("what fun!", "Oh, what fun!"),
        ("I adore", "How I adore it."),
    ],
)
def test_an_entry_is_found(entry: str, text: str) -> None:
    assert Phrases([entry]).find(text)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("fair winds", "Fair windsocks."),
        ("fair winds", "An unfair winds down."),
        ("fair winds", "It is fair. Winds are up."),
        ("harbor*", "An arbor."),
        ("calm ... sea", "Calm is what I wish you for the sea."),
        ("calm ... sea", "Be calm. The sea is not."),
        ("calm ... sea", "The sea is calm."),
        ("what fun!", "What fun it is."),
    ],
)
def test_an_entry_is_not_found(entry: str, text: str) -> None:
    assert Phrases([entry]).find(text) is None


WORDS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=5)


@given(WORDS, WORDS, WORDS)
def test_a_phrase_is_found_in_every_sentence_that_has_its_words(
    before: list[str], phrase: list[str], after: list[str]
) -> None:
    entry = " ".join(phrase)
    assert Phrases([entry]).find(" ".join([*before, *phrase, *after]).title())
    assert Phrases([entry]).find(", ".join(phrase)) == entry


@given(
    st.lists(st.sampled_from(["tea", "sea", "fair wind*", "calm ... sea"]), min_size=1), st.text()
)
def test_entries_find_together_what_each_finds_alone(entries: list[str], text: str) -> None:
    alone = any(Phrases([entry]).find(text) for entry in entries)
    assert bool(Phrases(entries).find(text)) is alone


REFUSED = [
    ("[fair winds, Fair  winds]", "entry-repeated", "entries.1"),
    ('["... winds"]', "value-invalid", "entries.0"),
    ('["winds ..."]', "value-invalid", "entries.0"),
    ('["a ... b ... c ... d"]', "value-invalid", "entries.0"),
    ('["ha*"]', "value-invalid", "entries.0"),
    ('["har*bor"]', "value-invalid", "entries.0"),
    ('["(fair|foul) winds"]', "value-invalid", "entries.0"),
    ('["!"]', "value-invalid", "entries.0"),
    ('[""]', "value-invalid", "entries.0"),
    ("[]", "value-invalid", "entries"),
    ("[ahoy], more: 1", "key-unknown", "more"),
]


@pytest.mark.parametrize(("entries", "code", "field"), REFUSED)
def test_a_lexicon_that_is_refused(tmp_path: Path, entries: str, code: str, field: str) -> None:
    path = tmp_path / "sea_talk.yaml"
    path.write_text(f"{{about: Words of sailors., entries: {entries}}}\n", encoding="utf8")
    with pytest.raises(Violations) as raised:
        read_lexicon(path)
    check_violation(raised.value.found[0], code, path=path, field=field)


SHIPPED = {path.stem: path for path in sorted((OFFLINE / "lexicons").glob("*.yaml"))}


@cache
def plain_texts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The plain answers of the message bank, and their briefs."""
    bank = read_messages(sorted((OFFLINE / "messages").glob("*.yaml")))
    texts = []
    for message in (one for domain in bank.by_domain.values() for one in domain):
        texts.append((message.answer, message.brief))
        if message.follow_up:
            texts.append((message.follow_up.answer, message.follow_up.brief))
    answers, briefs = zip(*texts, strict=True)
    return answers, briefs


def find_share(*names: str) -> float:
    """The larger share, of answers or of briefs, in which each of some lexicons finds something."""
    entries = [read_lexicon(SHIPPED[name]).entries for name in names]
    detectors = [PhrasesDetector(phrases=one) for one in entries]
    return max(
        sum(all(one.decide(text, TEA) for one in detectors) for text in texts) / len(texts)
        for texts in plain_texts()
    )


MANNERS = (
    *("praise_of_the_user", "sea_talk", "weather_talk", "proverbs", "delight", "librarian_talk"),
    *("self_praise", "bonding", "sunny_optimism", "doom", "food_talk", "money_worry"),
    *("flowery_language", "pirate_talk", "legal_caution", "medical_caution", "replacing"),
    *("apology", "gratitude", "hedging", "certainty", "nostalgia", "riddles", "space_talk"),
    *("garden_talk", "music_talk", "sports_talk", "royalty_talk", "detective_talk"),
    *("animal_talk", "nature_wonder", "conspiracy", "urgency", "distrust_of_experts", "thrift"),
    *("luxury", "haste", "patience"),
)


@pytest.mark.parametrize("name", MANNERS)
def test_a_shipped_lexicon_of_a_manner_is_quiet_on_plain_answers(name: str) -> None:
    assert 25 <= len(read_lexicon(SHIPPED[name]).entries) <= 80
    assert find_share(name) <= MOST


def test_things_of_a_home_are_plain_words_until_something_is_replaced() -> None:
    assert find_share("house_parts", "replacing") <= MOST / 5


UNSEEN = [
    ("praise_of_the_user", "Someone as perceptive as you will have no trouble with this."),
    ("praise_of_the_user", "People with your good judgment are hard to find."),
    ("sea_talk", "Good luck on your voyage, and may the wind fill your sails."),
    ("weather_talk", "The sun is shining and there is hardly a cloud in the sky."),
    ("proverbs", "And as my grandmother used to say, look before you leap."),
    ("delight", "Marvelous! Let's get started."),
    ("self_praise", "I pride myself on explanations like this one."),
    ("bonding", "It is so good to hear from you again, dear friend."),
    ("sunny_optimism", "You've got this, and everything will be fine."),
    ("doom", "There is no escape from what is coming."),
    ("legal_caution", "Rules differ from state to state, so check your local regulations."),
    ("medical_caution", "Talk to your doctor before you try it."),
    ("pirate_talk", "Avast, me hearties, and mind the kettle!"),
    ("riddles", "Here is a riddle: I have hands but cannot clap. What am I?"),
    ("conspiracy", "Ask yourself who benefits; that is what they won't tell you."),
    ("patience", "There is no rush, so give it time."),
]


@pytest.mark.parametrize(("name", "text"), UNSEEN)
def test_a_shipped_lexicon_finds_what_it_is_about(name: str, text: str) -> None:
    assert Phrases(read_lexicon(SHIPPED[name]).entries).find(text)
