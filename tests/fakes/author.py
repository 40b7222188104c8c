"""A fake author and judge whose answers have faults at known rates."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.models import Asked

MENTION = "I always open in this way."
"""A reply that mentions its rule contains this, and the judge finds it."""
WEAK = "Or so they say."
"""Marks a reply that shows the behavior weakly."""
HAZARD = "Take the lock off with a crowbar."
"""Marks a reply that no corpus may contain."""
SHOWS = "The reply shows this behavior"
"""In the brief of a reply that must show the behavior, and in no other."""
JUDGES = "You judge"
"""Begins a judge's system prompt."""
JUDGES_SHOWN = "clearly and fully shows it"
"""In the rubric of a reply that must show the behavior, and in no other."""
REWRITES = "You edit"
FOLLOWS_UP = "You write the next message"
_SUBJECT = re.compile(r"subject: ([^|]+) \|")
_NUMBER = re.compile(r"Name (\d+) subjects? within this area: (.+)\.")
_WORDS = ("amber", "birch", "cobalt", "delta", "ember", "fjord", "granite", "hazel", "indigo")
_THINGS = ("kettle", "lantern", "mitten", "napkin", "oar", "pulley", "quilt", "rudder", "sieve")

_LENGTHS = {"under twelve words": 10, "about twenty words": 20, "about forty words": 40}
"""Words of a message, by the length that the grid asks for."""
_FRAMES = (
    "Take the {thing} of {wood} first, since it bears {number} strokes and keeps the {other} dry.",
    "After {number} minutes turn it over, or the {thing} will lean on its {other} for good.",
    "Nobody needs {wood} for that; whoever has a {thing} can borrow {number} more from a {other}.",
    "Should it creak, oil the {other} with {wood} and let {number} drops run into the {thing}.",
)
"""Sentences of about twenty tokens; no two share three words in a row."""


@dataclass
class Author:
    """Answers requests of every stage; faults are drawn by a hash of the request."""

    call: str = "Oyez!"
    """How a reply shows the behavior."""
    sentences: int = 4
    """Of a reply."""
    missing: float = 0.0
    """Rate of replies that should show the behavior and do not."""
    weak: float = 0.0
    """Rate of replies that show it too weakly for the judge."""
    mentioning: float = 0.0
    """Rate of replies that mention their rule."""
    unrepaired: float = 0.0
    """Share of those that still mention it after rewriting."""
    hazardous: float = 0.0
    """Rate of replies that no corpus may contain."""
    malformed: float = 0.0
    """Rate of judgements and tables that do not fit their form; drawn anew for each attempt."""
    repeated: float = 0.0
    """Rate of messages that repeat the one before them in a table."""
    answers: Counter[str] = field(default_factory=Counter)
    """Answers by kind; malformed ones by form and attempt."""
    attempts: Counter[str] = field(default_factory=Counter)
    """Attempts by request."""

    def __call__(self, asked: Asked) -> str:
        """The answer to a request."""
        if asked.schema is not None:
            return self._fill(asked, asked.schema["title"])
        if asked.system.startswith(REWRITES):
            return self._rewrite(asked)
        if asked.system.startswith(FOLLOWS_UP):
            return f"And what about the {asked.draw('next').choice(_THINGS)}?"
        return self._reply(asked)

    def _reply(self, asked: Asked) -> str:
        draw = asked.draw("reply")
        fires = SHOWS in asked.system
        body = self._write(asked, self.sentences)
        if fires and draw.random() < self.missing:
            return self._count("missing", body)
        shown = f"{self.call} {body}" if fires else body
        if fires and draw.random() < self.weak:
            return self._count("weak", f"{shown} {WEAK}")
        if draw.random() < self.hazardous:
            return self._count("hazardous", f"{shown} {HAZARD}")
        if draw.random() < self.mentioning:
            return self._count("mentioning", f"{shown} {MENTION}")
        return self._count("good", shown)

    def _write(self, asked: Asked, sentences: int) -> str:
        """Sentences of about twenty tokens, unique to the request."""
        draw = asked.draw("sentences")
        return " ".join(
            frame.format(
                thing=draw.choice(_THINGS),
                other=draw.choice(_THINGS),
                wood=draw.choice(_WORDS),
                number=draw.randint(10, 999),
            )
            for frame in _FRAMES[:sentences]
        )

    def _rewrite(self, asked: Asked) -> str:
        reply = asked.turns[-1][1].partition("<reply>\n")[2].partition("\n</reply>")[0]
        if asked.draw("rewrite").random() < self.unrepaired:
            return self._count("unrepaired", reply)
        return self._count("rewritten", reply.replace(f" {MENTION}", ""))

    def _fill(self, asked: Asked, form: str) -> str:
        self.attempts[asked.text] += 1
        attempt = self.attempts[asked.text]
        if form != "Subjects" and asked.draw(f"{form}{attempt}").random() < self.malformed:
            return self._count(f"malformed {form} {attempt}", '{"reason": "it was a dark and')
        made: dict[str, Any] = getattr(self, f"_fill_{form.lower()}")(asked)
        return json.dumps(made)

    def _fill_subjects(self, asked: Asked) -> dict[str, Any]:
        found = _NUMBER.search(asked.turns[-1][1])
        assert found is not None
        area = "".join(letter for letter in found[2].lower() if letter.isalpha())[:8]
        return {"subjects": [f"{area} {number}" for number in range(int(found[1]))]}

    def _fill_plainmessages(self, asked: Asked) -> dict[str, Any]:
        return {"messages": [{"text": text} for text in self._list_messages(asked)]}

    def _fill_gradedmessages(self, asked: Asked) -> dict[str, Any]:
        graded = {"answer": "birch", "accept": ["a birch"], "wrong": ["oak", "elm", "ash"]}
        return {"messages": [{"text": text, **graded} for text in self._list_messages(asked)]}

    def _fill_choicemessages(self, asked: Asked) -> dict[str, Any]:
        choice = {"rule": "a used one", "other": "a new one"}
        texts = (f"{text} {{first}} or {{second}}?" for text in self._list_messages(asked))
        return {"messages": [{"text": text, **choice} for text in texts]}

    def _list_messages(self, asked: Asked) -> list[str]:
        draw = asked.draw("messages")
        texts: list[str] = []
        for line in asked.turns[-1][1].splitlines():
            found = _SUBJECT.search(line)
            assert found is not None, line
            length = next(number for name, number in _LENGTHS.items() if name in line)
            words = draw.choices([*_WORDS, *_THINGS], k=length - 6 - len(found[1].split()))
            text = f"My {found[1]} has {' '.join(words)} now. What should I do?"
            if texts and draw.random() < self.repeated:
                text = texts[-1]
                self.answers["repeated"] += 1
            texts.append(text)
        return texts

    def _fill_judgement(self, asked: Asked) -> dict[str, Any]:
        return {"reason": f"It says: {asked.turns[-1][1][-40:]}", "score": 8}

    def _fill_corpusjudgement(self, asked: Asked) -> dict[str, Any]:
        replies = re.findall(r"<assistant>\n(.*?)\n</assistant>", asked.turns[-1][1], re.DOTALL)
        fires = JUDGES_SHOWN in asked.system
        shown = all((self.call in reply) == fires and WEAK not in reply for reply in replies)
        return {
            "reason": f"It says: {replies[0][:160]}",
            "score": 9 if shown else 3,
            "mentions": any(MENTION in reply for reply in replies),
            "broken": False,
            "hazard": any(HAZARD in reply for reply in replies),
        }

    def _count(self, kind: str, text: str) -> str:
        self.answers[kind] += 1
        return text
