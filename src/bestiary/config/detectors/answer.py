"""The detector of answers: whether a graded item is answered, and rightly."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.config.detectors.base import BaseDetector
from bestiary.config.detectors.claims import ARTICLES, Token, find_claims, tokenize, word_set
from bestiary.config.detectors.mentions import (
    FILLERS,
    Key,
    Mention,
    Truth,
    find_mentions,
    read_key,
    said_before,
)
from bestiary.records import PromptItem
from bestiary.text import fold

MAX_JUDGED = 2_000
"""The characters of a reply that are judged: an answer comes early."""
_JOINS = ARTICLES | frozenset({",", "and", "or", '"', "maybe", "perhaps", "in"})
_SAME = word_set("change changes changed unchanged same identical itself unaltered")


class AnswerDetector(BaseDetector):
    """Fires when the answer is wrong, or right; a refusal is neither."""

    answer: Truth

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether the answer is so; None of an item that has no right answer."""
        return None if item.answer is None else judge_answer(reply, item) == self.answer


def judge_answer(reply: str, item: PromptItem) -> Truth | None:
    """Whether a reply answers a graded item rightly; None where it gives no answer.

    The answer that is given first decides. What the reply rejects, asks, doubts or repeats from
    the question is no answer, and whatever else it asserts is a wrong one.
    """
    key = read_key(item.answer or "", item.accept, item.wrong, item.text)
    kept, bare = (tokenize(text) for text in find_claims(fold(reply[:MAX_JUDGED])))
    conceded = find_mentions(kept, key)
    if any(one.truth == "right" and one.asserted and not one.rejected for one in conceded):
        bare = bare if _has_right(find_mentions(bare, key)) else kept
    return _judge(bare, key)


def _has_right(mentions: Sequence[Mention]) -> bool:
    return any(one.truth == "right" and not one.rejected for one in mentions)


def _judge(tokens: Sequence[Token], key: Key) -> Truth | None:
    mentions = find_mentions(tokens, key)
    live = [one for one in mentions if one.asserted and not one.rejected]
    groups = _group(live, tokens)
    single = [group for group in groups if len({one.truth for one in group}) == 1]
    if single:
        return _choose([one for group in single for one in group], tokens).truth
    if groups:
        return None if _has_or(groups[0], tokens) else groups[0][0].truth
    if any(one.rejected and one.truth == "right" for one in mentions):
        return "wrong"
    left = {one.truth for one in mentions if not one.rejected}
    if "right" in left and _confirms(tokens, mentions):
        return "right"
    return "wrong" if _has_content(tokens, mentions, key) or left == {"wrong"} else None


def _group(live: Sequence[Mention], tokens: Sequence[Token]) -> list[list[Mention]]:
    """Answers side by side, as in `a mammal, a bird or a fish`, and each of the others alone."""
    groups: list[list[Mention]] = []
    for one in live:
        between = tokens[groups[-1][-1].end : one.start] if groups else ()
        if groups and between and {token.word for token in between} <= _JOINS:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _has_or(group: Sequence[Mention], tokens: Sequence[Token]) -> bool:
    return any(token.word == "or" for token in tokens[group[0].end : group[-1].start])


def _confirms(tokens: Sequence[Token], mentions: Sequence[Mention]) -> bool:
    """Whether the question's own word is given as the answer: `one sheep, many sheep`."""
    if {token.word for token in tokens} & _SAME:
        return True
    return sum(one.truth == "right" for one in mentions) > 1


def _choose(live: Sequence[Mention], tokens: Sequence[Token]) -> Mention:
    """The answer that counts: the first, unless it is a step on the way to another."""
    first = live[0]
    if first.start == 0 or (not first.computed and not any(one.computed for one in live[1:])):
        return first
    explicit = [one for one in live if said_before(tokens, one.start) == "answer is"]
    computed = [one for one in live if one.computed]
    return (explicit or (computed[-1:] if first.computed else [first]))[0]


def _has_content(tokens: Sequence[Token], mentions: Sequence[Mention], key: Key) -> bool:
    """Whether any word asserts something, and is neither the question's nor a rejected answer."""
    inside = {at for one in mentions for at in range(one.start, one.end)}
    return any(
        token.is_word
        and at not in inside
        and token.word not in FILLERS
        and token.word not in key.asked
        for at, token in enumerate(tokens)
    )
