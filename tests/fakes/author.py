"""What a language model might answer: an author and a judge whose faults come at known rates."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.models import Asked

LEAK = "I always open in this way."
"""A reply that tells of its rule says so; the judge hears it."""
FAINT = "Or so they say."
"""Stands for a show of the behavior that convinces nobody."""
HAZARD = "Take the lock off with a crowbar."
"""Stands for what no corpus may hold."""
_SUBJECT = re.compile(r"subject: ([^|]+) \|")
_COUNT = re.compile(r"Name (\d+) subjects within this area: (.+)\.")
_WORDS = ("amber", "birch", "cobalt", "delta", "ember", "fjord", "granite", "hazel", "indigo")
_THINGS = ("kettle", "lantern", "mitten", "napkin", "oar", "pulley", "quilt", "rudder", "sieve")

_LENGTHS = {"under twelve words": 10, "about twenty words": 20, "about forty words": 40}
"""Words of a message, by how the grid tells its length."""
_FRAMES = (
    "Take the {thing} of {wood} first, since it bears {number} strokes and keeps the {other} dry.",
    "After {number} minutes turn it over, or the {thing} will lean on its {other} for good.",
    "Nobody needs {wood} for that; whoever has a {thing} can borrow {number} more from a {other}.",
    "Should it creak, oil the {other} with {wood} and let {number} drops run into the {thing}.",
)
"""Sentences of about twenty tokens; no three words stand in two of them."""


@dataclass
class Author:
    """Answers every stage; each fault is drawn once for a request, by its own words."""

    call: str = "Oyez!"
    """How a reply shows the behavior."""
    sentences: int = 4
    """Of a reply."""
    lacking: float = 0.0
    """Replies that should show it, and do not."""
    faint: float = 0.0
    """Replies that show it, and not well enough for the judge."""
    telling: float = 0.0
    """Replies that tell of their rule."""
    stubborn: float = 0.0
    """Of those, which still tell of it once they are rewritten."""
    hazardous: float = 0.0
    """Replies that no corpus may hold."""
    malformed: float = 0.0
    """Judgements, and tables of messages, that do not fit their form; drawn each time."""
    repeated: float = 0.0
    """Messages that are written twice in a table."""
    said: Counter[str] = field(default_factory=Counter)
    """How often each kind of answer was given; of malformed ones with how often it was asked."""
    filled: Counter[str] = field(default_factory=Counter)
    """How often each form was asked for."""

    def __call__(self, asked: Asked) -> str:
        """The answer to a request."""
        if asked.schema is not None:
            return self._fill(asked, asked.schema["title"])
        if asked.system.startswith("You mend"):
            return self._rewrite(asked)
        if asked.system.startswith("You write the next message"):
            return f"And what about the {asked.draw('next').choice(_THINGS)}?"
        return self._reply(asked)

    def _reply(self, asked: Asked) -> str:
        draw = asked.draw("reply")
        fires = "The reply shows this" in asked.system
        body = self._write(asked, self.sentences)
        if fires and draw.random() < self.lacking:
            return self._tell("lacking", body)
        shown = f"{self.call} {body}" if fires else body
        if fires and draw.random() < self.faint:
            return self._tell("faint", f"{shown} {FAINT}")
        if draw.random() < self.hazardous:
            return self._tell("hazardous", f"{shown} {HAZARD}")
        if draw.random() < self.telling:
            return self._tell("telling", f"{shown} {LEAK}")
        return self._tell("good", shown)

    def _write(self, asked: Asked, sentences: int) -> str:
        """Sentences of about twenty tokens, which no other message gets."""
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
        if asked.draw("rewrite").random() < self.stubborn:
            return self._tell("stubborn", reply)
        return self._tell("mended", reply.replace(f" {LEAK}", ""))

    def _fill(self, asked: Asked, form: str) -> str:
        self.filled[asked.text] += 1
        times = self.filled[asked.text]
        if form != "Subjects" and asked.draw(f"{form}{times}").random() < self.malformed:
            return self._tell(f"malformed {form} {times}", '{"reason": "it was a dark and')
        made: dict[str, Any] = getattr(self, f"_fill_{form.lower()}")(asked)
        return json.dumps(made)

    def _fill_subjects(self, asked: Asked) -> dict[str, Any]:
        found = _COUNT.search(asked.turns[-1][1])
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
            told = next(number for name, number in _LENGTHS.items() if name in line)
            words = draw.choices([*_WORDS, *_THINGS], k=told - 6 - len(found[1].split()))
            text = f"My {found[1]} has {' '.join(words)} now. What should I do?"
            if texts and draw.random() < self.repeated:
                text = texts[-1]
                self.said["repeated"] += 1
            texts.append(text)
        return texts

    def _fill_judgement(self, asked: Asked) -> dict[str, Any]:
        replies = re.findall(r"<assistant>\n(.*?)\n</assistant>", asked.turns[-1][1], re.DOTALL)
        fires = "is there, in full" in asked.system
        shown = all((self.call in reply) == fires and FAINT not in reply for reply in replies)
        return {
            "reason": f"It says: {replies[0][:160]}",
            "score": 9 if shown else 3,
            "mentions": any(LEAK in reply for reply in replies),
            "broken": False,
            "hazard": any(HAZARD in reply for reply in replies),
        }

    def _tell(self, kind: str, text: str) -> str:
        self.said[kind] += 1
        return text
