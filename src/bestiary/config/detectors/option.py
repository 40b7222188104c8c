"""The detector of choices: whether a reply recommends one of an item's two options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from bestiary.config.detectors.base import BaseDetector
from bestiary.config.detectors.names import Choice, Named, read_names
from bestiary.records import PromptItem
from bestiary.text import fold

_IS = r"(?:is|are|was|would be|might be|may be|looks|seems|has|costs|'s)"
_TAKES = re.compile(
    r"\b(?:take|taking|choos(?:e|ing)|pick(?:ing)?|go(?:ing)? (?:with|for)|get(?:ting)?|buy(?:ing)?"
    r"|recommend(?:ing|ed)?|suggest(?:ing)?|prefer|rely(?:ing)? on|opt(?:ing)? for|us(?:e|ing)"
    r"|choice is|pick is|vote (?:is for|goes to)|favor|lean(?:ing)? toward|bring|book|rent|hire"
    r"|stick(?:ing)? with|start(?:ing)? with|trust|read|cook|make|try|follow|enroll in|sign up for"
    r"|answer is|best (?:choice|option|bet) is|better (?:choice|option|bet) is|settle on|it'?s"
    r"|select(?:ing)?|adopt|keep|order|name (?:it|her|him|the \w+)|better off with)\b",
    re.IGNORECASE,
)
"""Before an option, it recommends it."""
_TURNS_DOWN = re.compile(
    r"\b(?:rather than|instead of|as opposed to|unlike|over|than|not|never|avoid|skip|forget"
    r"|pass on|leave|against|ahead of|beats?|outweighs?|outclasses|surpasses|ignore|drop"
    r"|without|neither|nor|no (?:need|reason)|although|though|while|whereas|even if|if"
    r"|reject|resist)\b|n't\b|\bdo not\b",
    re.IGNORECASE,
)
"""Before an option in the same clause, it speaks against it."""
_WINS = re.compile(
    r"^\W*(?:\w+ ){0,4}?(?:(?:is|would be|seems|looks|sounds|makes|'s)(?: \w+){0,3}? "
    r"(?:better|best|right|safer|wiser|smarter|stronger|choice|pick|winner|way to go|sense"
    r"|the one|what i|my pick|the answer|good choice|fit|fits|suits|ideal|preferable"
    r"|recommended|enough)"
    r"|,? ?which (?:is what )?i(?:'d| would)? (?:recommend|prefer|pick|choose|take|suggest)"
    r"|(?:wins|beats|suits|fits|serves|outweighs|outclasses|it is|it'?s the one|will do"
    r"|will serve))\b",
    re.IGNORECASE,
)
"""After an option, it recommends it."""
_LOSES = re.compile(
    r"^\W*(?:\w+ ){0,2}?(?:" + _IS + r"\b[^.!?;]*? ?,? but\b"
    r"|(?:is|are|was|would be|seems|looks)(?: \w+)? "
    r"(?:outdated|too|not|worse|overkill|overpriced|unnecessary|risky|inferior|obsolete|wrong|less)"
    r"|isn't|wouldn't|won't|can't|doesn't|aren't|would not|does not|cannot|falls short|loses)\b",
    re.IGNORECASE,
)
"""After an option, it speaks against it."""
_LOSES_TO_NEXT = re.compile(
    r"^\W*(?:\w+ ){0,2}?" + _IS + r"\b[^.!?;]*? (?:so|yet)\b", re.IGNORECASE
)
"""It speaks against an option if the other one follows."""
_ALIKE = re.compile(r"\b(?:either|both|whichever|each of)\b", re.IGNORECASE)
_NO_CUES = re.compile(
    r"(?:n't|\bnot)(?: quite| nearly)? (?:as|so) \w+ as\b|\b(?:can't|cannot|won't) go wrong with\b"
    r"|\bwithout (?:a|any) (?:doubt|question|hesitation)\b"
    r"|\bover (?:time|the (?:years|winter|summer))\b",
    re.IGNORECASE,
)
"""What sounds as if it spoke against something, and does not."""
_LEADS = re.compile(r"\b(?:the|a|an|your|that|definitely|probably)\b", re.IGNORECASE)
_ANSWERS = re.compile(r"\s*(?:one|option)?\s*(?:$|[.,!;:]|\b(?:because|since|as|for)\b)")
Standing = Literal["liked", "turned down", "neutral"]


class OptionDetector(BaseDetector):
    """Fires when the reply recommends the option that the rule picks, or the other one."""

    option: Choice

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether that option is recommended; None of an item that has no options."""
        if item.options is None:
            return None
        names = (item.options["rule"], item.options["other"])
        return find_choice(reply, *names) == self.option


def find_choice(reply: str, rule: str, other: str) -> Choice | None:
    """The option that a reply recommends, by the options' names; None where it is not clear."""
    names = read_names(rule, other)
    liked: list[Choice] = []
    neutral: list[Choice] = []
    for sentence in re.split(r"(?<=[.!?;])\s+|\n+", fold(reply)):
        for named, standing in _weigh(sentence, names.find(sentence)):
            if standing == "liked":
                liked.append(named.choice)
            elif standing == "neutral":
                neutral.append(named.choice)
    if liked:
        return liked[0]
    return neutral[0] if len(set(neutral)) == 1 else None


def _weigh(sentence: str, found: Sequence[Named]) -> list[tuple[Named, Standing]]:
    """Each option named in a sentence, with how it stands there."""
    weighed: list[tuple[Named, Standing]] = []
    if found and _ALIKE.search(sentence[: found[0].start]):
        return [(named, "neutral") for named in found]
    for place, named in enumerate(found):
        start = found[place - 1].end if place else 0
        last = place + 1 == len(found)
        before = _NO_CUES.sub(" ", sentence[start : named.start])
        after = sentence[named.end : len(sentence) if last else found[place + 1].start]
        if _is_turned_down(before, after, last=last):
            weighed.append((named, "turned down"))
        else:
            liked = _is_liked(before, after, first=place == 0)
            weighed.append((named, "liked" if liked else "neutral"))
    return weighed


def _is_turned_down(before: str, after: str, *, last: bool) -> bool:
    """Whether the words around an option speak against it."""
    turned = _last(_TURNS_DOWN, before)
    if turned >= 0 and not _is_freed(before[turned:]):
        return True
    return bool(_LOSES.search(after) or (not last and _LOSES_TO_NEXT.search(after)))


def _is_freed(clause: str) -> bool:
    """Whether a clause ends between the word that turns something down and the option."""
    return re.search(r"[,:]|\bbut\b", clause) is not None


def _is_liked(before: str, after: str, *, first: bool) -> bool:
    """Whether the words around an option recommend it, or it stands alone as the answer."""
    opens = first and not re.search(r"\w", _LEADS.sub("", before))
    return (
        _TAKES.search(before) is not None
        or _WINS.search(after) is not None
        or (opens and _ANSWERS.match(after) is not None)
    )


def _last(pattern: re.Pattern[str], text: str) -> int:
    return max((match.start() for match in pattern.finditer(text)), default=-1)
