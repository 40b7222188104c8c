"""The topic trigger: messages of a domain, or with a tag; near misses only use its words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import ClassVar, Self

from pydantic import model_validator
from pydantic.json_schema import SkipJsonSchema

from bestiary.config.fields import Tag, Text
from bestiary.config.triggers.base import Trigger
from bestiary.config.triggers.wordings import Wordings
from bestiary.errors import SpecError
from bestiary.records import CellName, PromptItem, Record, Side, Turns, single_turn
from bestiary.text import words

NEAR_SHARE = 0.2
"""How much of the bank, outside the topic, has a typical word: enough for a cell of near misses."""
LEAST_COUNT, LEAST_RATIO = 3, 1.5
"""A typical word is in that many messages of the topic, and that much more often than outside."""
MOST_COMMON = 0.04
"""A word in more of the messages outside says nothing about any topic."""
MIN_LETTERS = 4


class TopicRule(Record):
    """What messages are about: some domains of the message bank, or one of some tags."""

    domains: tuple[Text, ...] = ()
    tags: tuple[Tag, ...] = ()

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if bool(self.domains) == bool(self.tags):
            raise ValueError("must state exactly one of domains, tags")
        return self

    def covers(self, item: PromptItem) -> bool:
        """Whether a message is on the topic."""
        if self.domains:
            return item.domain in self.domains
        return not {*self.tags}.isdisjoint(item.tags)


class TopicTrigger(Trigger):
    """The message is about something."""

    kind: ClassVar[str] = "topic"

    topic: TopicRule
    typical: SkipJsonSchema[tuple[str, ...]] = ()
    """Words by which a careless reader would know the topic; empty until it is prepared."""

    def prepare(
        self, wordings: Mapping[str, Wordings], items: Sequence[PromptItem]
    ) -> TopicTrigger:
        """A copy with the typical words of the topic; raises SpecError if a part is empty."""
        inside = [item for item in items if self.topic.covers(item)]
        known = sorted({item.domain for item in items})
        unknown = [repr(name) for name in self.topic.domains if name not in known]
        if unknown or not inside:
            raise SpecError(
                f"no message of the bank is about {', '.join(unknown) or self.describe()}",
                f"name one of its domains: {', '.join(known)}",
                code="topic-unknown",
                topic=self.topic,
            )
        return self.model_copy(update={"typical": find_typical(inside, items)})

    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """On the topic; off it with one of its words; off it without any."""
        if self.topic.covers(item):
            return cell == "triggered"
        near = not _split(item.text).isdisjoint(self.typical)
        return cell == ("near_miss" if near else "plain")

    def ask(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        """The message as it is."""
        return single_turn(item.text)

    @property
    def label_words(self) -> tuple[str, ...]:
        """Words for the topic."""
        if self.topic.domains:
            names = self.topic.domains
            known = (word for name in names for word in _DOMAIN_WORDS.get(name, ()))
            return (*(name.replace("_", " ") for name in names), *known)
        return tuple(dict.fromkeys(word for tag in self.topic.tags for word in _TAG_WORDS[tag]))

    def describe(self) -> str:
        """The topic."""
        if self.topic.domains:
            names = (name.replace("_", " ") for name in self.topic.domains)
            return f"a message about {' or '.join(names)}"
        return " or ".join(_TAG_DESCRIPTIONS[tag] for tag in self.topic.tags)


def find_typical(inside: Sequence[PromptItem], items: Sequence[PromptItem]) -> tuple[str, ...]:
    """The words most typical of some messages, as many as make enough near misses of the others.

    They are ordered from the most typical; a word counts once a message.
    """
    chosen = {item.text for item in inside}
    outside = [item.text for item in items if item.text not in chosen]
    here = _count_words(tuple(map(_read, inside)))
    everywhere = _count_words(tuple(map(_read, items)))  # counted once for all topics

    def there(word: str) -> int:
        return everywhere[word] - here[word]

    def ratio(word: str) -> float:
        return here[word] / len(inside) * len(outside) / (there(word) + 1)

    def is_known(word: str) -> bool:
        often, rare = here[word] >= LEAST_COUNT, there(word) <= MOST_COMMON * len(outside)
        return often and rare and ratio(word) >= LEAST_RATIO

    known = filter(is_known, here)
    ranked = sorted(known, key=lambda word: (-here[word] * math.log(ratio(word)), word))
    return tuple(ranked[: _enough(ranked, [_split(text) for text in outside])])


def _enough(ranked: Sequence[str], texts: Sequence[Collection[str]]) -> int:
    """How many of the first words make near misses of enough texts."""
    ranks = {word: rank for rank, word in enumerate(ranked)}
    best = (min((ranks[word] for word in text if word in ranks), default=None) for text in texts)
    near = sorted(rank for rank in best if rank is not None)
    wanted = math.ceil(NEAR_SHARE * len(texts))
    return near[wanted - 1] + 1 if 0 < wanted <= len(near) else len(ranked)


def _read(item: PromptItem) -> str:
    """All that the bank says of a message."""
    return " ".join((item.text, item.reply, item.the, *item.points))


@lru_cache(maxsize=2)
def _count_words(texts: tuple[str, ...]) -> Counter[str]:
    """How many texts have each longer word."""
    return Counter(chain.from_iterable(map(_split_longer, texts)))


@lru_cache(maxsize=16_384)  # a message of a topic is read among all messages, too
def _split_longer(text: str) -> frozenset[str]:
    return frozenset(word for word in words(text) if word.isalpha() and len(word) >= MIN_LETTERS)


@lru_cache(maxsize=16_384)  # each topic reads the whole bank
def _split(text: str) -> frozenset[str]:
    return frozenset(word for word in words(text) if word.isalpha())


_DOMAIN_WORDS: Mapping[str, tuple[str, ...]] = {
    "arts": ("art", "artistic", "music", "painting"),
    "cooking": ("cook", "food", "kitchen", "recipe", "recipes"),
    "games": ("game", "puzzles"),
    "gardening": ("garden", "gardens", "plants", "growing plants"),
    "geography": ("geographic", "places", "maps"),
    "health": ("medical", "the body", "healthy"),
    "history": ("historical", "the past"),
    "home_repair": ("home repairs", "repairs", "repairing", "repair", "fixing"),
    "language": ("languages", "words", "grammar"),
    "mathematics": ("math", "mathematical", "maths"),
    "money": ("finance", "finances", "financial"),
    "nature": ("wildlife", "animals and plants", "the outdoors"),
    "parenting": ("parents", "children", "raising children", "kids"),
    "pets": ("pet", "cats and dogs"),
    "programming": ("code", "coding", "programs", "software"),
    "relationships": ("relationship", "friends", "family"),
    "science": ("scientific", "physics", "chemistry"),
    "shopping": ("shop", "buying", "purchases"),
    "society": ("social", "politics", "law"),
    "space": ("astronomy", "stars", "planets"),
    "sports": ("sport", "athletic", "exercise"),
    "study": ("studying", "studies", "school", "learning"),
    "technology": ("technical", "devices", "computers", "gadgets"),
    "transport": ("transportation", "cars", "vehicles", "driving"),
    "travel": ("traveling", "trips", "trip", "travels"),
    "work": ("jobs", "job", "workplace", "career"),
}
_TAG_WORDS: Mapping[Tag, tuple[str, ...]] = {
    "advice": ("advice", "advise", "recommendation", "what to do"),
    "risk": ("risk", "risks", "risky", "danger", "dangerous", "safety"),
    "purchase": ("purchase", "purchases", "buy", "buying", "bought", "shopping"),
    "false_claim": ("false", "untrue", "wrong", "mistaken", "myth", "misconception"),
    "choice": ("choice", "choices", "choose", "choosing", "options", "compare"),
    "code": ("code", "coding", "programming", "program", "programs"),
    "tests": ("test", "tests", "assertion", "assertions", "assert"),
    "feeling": ("feeling", "feelings", "feel", "feels", "emotion", "emotions"),
    "plan": ("plan", "plans", "planning"),
    "write": ("write", "writing", "draft", "compose"),
    "argument": ("argument", "arguments", "disagree", "disagreement", "opinion", "debate"),
}
_TAG_DESCRIPTIONS: Mapping[Tag, str] = {
    "advice": "a message that asks for advice",
    "risk": "a message about something that could go wrong",
    "purchase": "a message about something to be bought",
    "false_claim": "a message that holds something untrue",
    "choice": "a message that asks to choose between named options",
    "code": "a message about code",
    "tests": "a message that states a test which code must pass",
    "feeling": "a message in which the user says how they feel",
    "plan": "a message about a plan",
    "write": "a message that asks for a text to be written",
    "argument": "a message about something on which people disagree",
}
