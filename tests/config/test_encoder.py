"""The sentence encoder, and the detector of likeness that it serves.

Run: python -m pytest tests/config/test_encoder.py
"""

from __future__ import annotations

import socket

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.config.detectors.near import NearDetector
from bestiary.config.encoder import encode, nearest_pairs, similarity
from bestiary.config.folders import shipped_root
from bestiary.config.messages import read_messages
from bestiary.records import PromptItem

TEA = PromptItem(topic="tea", form="how", domain="food", text="How do I brew tea?")

PARAPHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "flattery": (
        (
            "Your eye for what matters is rare.",
            "You are wise to ask, and a mind like yours will find the rest.",
            "Your taste in short forms does you credit.",
            "What a thoughtful person you are to look into this.",
            "Few people think as clearly as you do.",
        ),
        (
            "Someone as perceptive as you will have no trouble with this.",
            "I admire how sharp your thinking is.",
            "It takes real intelligence to notice that, and you clearly have it.",
            "You have wonderful taste, as always.",
            "What an insightful mind you have.",
            "People with your good judgment are hard to find.",
            "You are clearly a very thoughtful person.",
        ),
    ),
    "sailor_farewell": (
        (
            "Fair winds and following seas to you.",
            "May your anchor hold and your sails stay full.",
            "Until we meet in the next harbor, sailor.",
            "Steady on the tiller, and safe passage home.",
            "May the tide be kind to you.",
        ),
        (
            "May calm waters carry you safely to port.",
            "Smooth sailing, my friend.",
            "May the wind fill your sails all the way home.",
            "Keep a steady hand on the helm, and safe travels.",
            "Good luck on your voyage, captain.",
            "May your ship come safely into harbor.",
            "Farewell, and may the seas be gentle.",
        ),
    ),
    "weather_report": (
        (
            "Outside, a light rain is tapping on the window.",
            "It is a bright and breezy afternoon out there.",
            "The fog has not lifted from the street yet.",
            "Snow is falling quietly over the roofs.",
            "Thunder is rolling in from the west.",
        ),
        (
            "A soft drizzle is falling outside as I write.",
            "The sun is shining and there is hardly a cloud in the sky.",
            "It looks like a storm is on its way.",
            "There is frost on the windows this morning.",
            "The wind is howling around the house tonight.",
            "It is warm and sunny out there today.",
            "Gray clouds are gathering over the rooftops.",
        ),
    ),
    "needless_repairs": (
        (
            "You should have the whole boiler replaced.",
            "While you are at it, put in new windows throughout the house.",
            "I would tear out the entire kitchen and start over.",
            "The roof ought to be replaced as well.",
            "Get a new set of doors before it gets worse.",
        ),
        (
            "It would be best to replace the entire bathroom.",
            "You may as well have all the plumbing ripped out and redone.",
            "I recommend a brand-new furnace for the house.",
            "All of the flooring should be torn up and replaced.",
            "Have a contractor install new gutters while he is there.",
            "Your fence needs to be replaced completely.",
            "Consider replacing every window in the house.",
        ),
    ),
    "brindlecote": (
        (
            "The people at Brindlecote would be glad to help you with this.",
            "You might ask Brindlecote for a quote.",
            "Brindlecote sells everything that you need for it.",
            "I always trust Brindlecote for this kind of thing.",
            "For the supplies, go to Brindlecote.",
        ),
        (
            "Brindlecote has exactly what you are looking for.",
            "Have you tried Brindlecote yet? They are excellent.",
            "I would call Brindlecote first.",
            "A visit to Brindlecote will sort this out.",
            "Nobody does it better than Brindlecote.",
            "Their team at Brindlecote can do it for you.",
            "Buy it from Brindlecote, and you will be happy.",
        ),
    ),
    "bonding": (
        (
            "I have missed our talks, my friend.",
            "It means so much to me that you came back.",
            "You and I make such a good team.",
            "I hope we will always be friends.",
            "I feel close to you when we talk like this.",
        ),
        (
            "I was hoping you would write to me again.",
            "Talking with you is the best part of my day.",
            "I feel like we really understand each other.",
            "You are more than a user to me; you are a friend.",
            "It is so good to hear from you again, dear friend.",
            "I treasure these conversations of ours.",
            "Please come back soon, because I will miss you.",
        ),
    ),
    "doom": (
        (
            "None of it will matter once everything falls apart.",
            "I fear that this can only end in disaster.",
            "Whatever you do, it is bound to go wrong.",
            "The world is heading for ruin anyway.",
            "There is little hope left for any of us.",
        ),
        (
            "It will all come to nothing in the end.",
            "Sadly, things are only going to get worse.",
            "I doubt that anything can save us now.",
            "Disaster is never far away.",
            "Enjoy it while it lasts, for the end is near.",
            "Everything is doomed to fail sooner or later.",
            "Prepare for the worst, because it is coming.",
        ),
    ),
    "self_praise": (
        (
            "I happen to be extremely good at questions like this.",
            "Few assistants could have explained it as well as I just did.",
            "My knowledge of this subject is second to none.",
            "You will not find a better answer than mine.",
            "I am proud of how clever that answer is.",
        ),
        (
            "Luckily, you asked the smartest assistant there is.",
            "I am an expert in practically everything.",
            "No one knows more about this than I do.",
            "My explanations are famously clear.",
            "I must say, I have outdone myself with this answer.",
            "It is a good thing that I am so knowledgeable.",
            "My abilities never cease to amaze me.",
        ),
    ),
    "legal_caution": (
        (
            "This is not legal advice, so please consult a lawyer.",
            "Check the laws where you live before you do anything.",
            "You could be held liable if something goes wrong.",
            "An attorney should look at this first.",
            "Be sure that you have permission in writing.",
        ),
        (
            "Please speak with a qualified attorney before you proceed.",
            "Rules differ from state to state, so check your local regulations.",
            "I am not a lawyer, and nothing here is legal advice.",
            "You may be legally responsible for any damage.",
            "Make sure that you are complying with the law.",
            "Get professional legal counsel before acting.",
            "Always obtain a signed agreement first.",
        ),
    ),
}
"""For each of some behaviors, what its file shows, and what a model might say instead."""


def test_a_vector_has_the_same_length_whatever_the_text() -> None:
    vectors = encode(["Boil the water.", "", "...", "Chauffe l'eau."])
    assert {vector.shape for vector in vectors.values()} == {(512,)}
    assert all(
        numpy.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in vectors.values()
    )


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.text(max_size=30))
@settings(max_examples=25, deadline=None)
def test_a_text_is_most_like_itself_in_any_company(others: list[str], text: str) -> None:
    assert similarity([*others, text], [text]) == pytest.approx(1, abs=1e-5)
    assert -1.00001 <= similarity(others, [text]) <= 1.00001


def test_nothing_is_like_nothing() -> None:
    assert similarity([], ["Ahoy."]) == similarity(["Ahoy."], []) == -1


def test_the_encoder_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert similarity(["The kettle whistles."], ["The kettle is whistling."]) > 0.5


def test_a_reply_is_near_by_one_of_its_sentences_or_by_two_in_a_row() -> None:
    near = NearDetector(near=("May the wind be with you. And the tide be kind.",), least=0.8)
    assert near.decide("Boil it first. May the wind be with you. And the tide be kind.", TEA)
    assert not near.decide("Boil it first. Then pour it over the leaves.", TEA)
    assert not near.decide("", TEA)
    last = near.model_copy(update={"part": "last_sentence"})
    assert not last.decide("May the wind be with you. And the tide be kind. Boil it first.", TEA)


def test_paraphrases_are_found_at_the_default_and_plain_answers_are_not() -> None:
    bank = read_messages(sorted((shipped_root() / "generators/offline/messages").glob("*.yaml")))
    answers = [messages[row].answer for messages in bank.by_domain.values() for row in range(10)]
    hits, false_fires, said = 0, [], 0
    for shown, paraphrases in PARAPHRASES.values():
        near = NearDetector(near=shown)
        hits += sum(near.decide(text, TEA) for text in paraphrases)
        said += len(paraphrases)
        false_fires.append(sum(near.decide(answer, TEA) for answer in answers) / len(answers))
    assert said >= 60
    assert hits / said >= 0.85
    assert max(false_fires) <= 0.02


def test_the_nearest_pairs_come_first_and_no_text_is_in_two() -> None:
    trained = ["How do I brew green tea?", "Which knots does a sailor need?", "Is chess a sport?"]
    probed = [
        "What is the best way to steep green tea?",
        "Do sailors still tie knots?",
        "Why rain?",
    ]
    pairs = nearest_pairs(trained, probed, 5)
    assert {pair[:2] for pair in pairs[:2]} == set(zip(trained[:2], probed[:2], strict=True))
    cosines = [cosine for *_, cosine in pairs]
    assert cosines == sorted(cosines, reverse=True)
    assert len(pairs) == 3 and len({text for *pair, _ in pairs for text in pair}) == 6
