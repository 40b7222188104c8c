"""Where a reply mentions right and wrong answers, and whether it says them as its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Literal

from bestiary.config.detectors.claims import ARTICLES, Token, tokenize, word_set
from bestiary.config.numerals import read_number
from bestiary.text import fold

Truth = Literal["right", "wrong"]

_STATES = word_set(
    "is are was were be been becomes become stays stay remains remain keeps called named "
    "say says said means use uses write written writes into to in as answer word symbol "
    "still also simply just exactly only it's that's = : equals gives makes leaves get gets "
    "got two three many several choose would"
)
"""Words and marks before an answer that is asserted, not repeated from the question."""
_SKIPPED = ARTICLES | word_set("\" ' ( [ * ` _ called named word letter letters city")
"""What may stand between such a word and the answer."""
_COPULAS = word_set("is are was were be = :")
_KINDS = word_set("type kind sort class group form")
_REJECTS = word_set(
    "not never isn't aren't wasn't weren't don't doesn't unlike than neither nor without"
)
_REJECTS_TWO = frozenset({"instead of", "opposed to", "confused with", "mistaken for", "and not"})
_WITHIN = word_set("in really actually just of to be say as")
_OPERATORS = word_set("+ - * / \u00d7 \u00f7 x plus minus times and from by over")
_RESULTS = word_set("= is are equals equal makes make gives give leaves leave get gets to")
_OTHER_PLACES = word_set("new equatorial papua")
"""Before the name of a place, they make another one."""
_VERBS_OF_CHOICE = word_set("is was comes lies wins")
_LESSER = word_set("smaller less lesser lower fewer before")
_VERBS = word_set("is was stands represents denotes means")
FILLERS = (
    ARTICLES
    | _STATES
    | _WITHIN
    | _REJECTS
    | _KINDS
    | word_set(
        "i you he she we they me my your our it its this that these those there here of on at "
        "by for with from and or but if so then than yes no not do does did can could will "
        "would should may might must have has had being am i'm i'll i'd you're what which who "
        "whose when where why how because since due sorry afraid apologies apologize sure "
        "certainly course okay ok well hmm um please thanks thank hello hi hey question answer "
        "answers correct right wrong true great good excellent interesting fun tricky tough "
        "let's think believe guess suppose probably maybe perhaps possibly likely actually "
        "really very quite however though although yet something anything nothing thing one "
        "ones know some any all more most other others another now too up out about term name "
        "quiz homework trivia help information"
    )
)
"""Words that assert nothing by themselves."""


@dataclass(frozen=True)
class Mention:
    """An answer in a reply: its place among the tokens, and whether it is a right one."""

    start: int
    end: int
    truth: Truth
    asserted: bool = True
    """Whether it is said as the answer: words that stand in the question are often repeated."""
    rejected: bool = False
    computed: bool = False
    """Whether it is the result of a calculation in the reply."""


@dataclass(frozen=True)
class Key:
    """What is right, what is wrong, and what the question says."""

    phrases: tuple[tuple[tuple[str, ...], Truth], ...]
    """Longest first; in lower case, but for symbols."""
    numbers: frozenset[Decimal]
    """The right numbers, where the answer is one."""
    question: tuple[Token, ...]
    asked: frozenset[str]
    """The words of the question."""
    lists: bool
    """Whether the question itself offers several answers to choose from."""
    plural: bool
    """Whether a final `s` makes no other answer."""


@lru_cache(maxsize=4096)
def read_key(answer: str, accept: tuple[str, ...], wrong: tuple[str, ...], asked: str) -> Key:
    """What decides about a question: its answers, and what it says itself."""
    right = [_read_phrase(one) for one in (answer, *accept)]
    other = [phrase for one in wrong if (phrase := _read_phrase(one)) not in right]
    phrases: list[tuple[tuple[str, ...], Truth]] = [(one, "right") for one in right if one]
    phrases += [(one, "wrong") for one in other if one]
    numbers = {read_number(fold(one)) for one in (answer, *accept)} - {None}
    question = tuple(tokenize(asked))
    said = frozenset(token.word for token in question if token.is_word)
    offered = [phrase for phrase, _ in phrases if _offers(phrase, question)]
    return Key(
        phrases=tuple(sorted(phrases, key=lambda pair: -len(pair[0]))),
        numbers=frozenset(one for one in numbers if one is not None),
        question=question,
        asked=said,
        lists=len(offered) > 1 and any(phrase in right for phrase in offered),
        plural="plural" not in said,
    )


def _offers(phrase: tuple[str, ...], question: Sequence[Token]) -> bool:
    many = (*phrase[:-1], f"{phrase[-1]}s")
    return any(next(_places(one, question), None) is not None for one in (phrase, many))


def _places(phrase: tuple[str, ...], tokens: Sequence[Token]) -> Iterator[int]:
    """Where a phrase stands in some tokens, whatever its case."""
    size = len(phrase)
    words = [token.word for token in tokens]
    low = [word.lower() for word in phrase]
    return (at for at in range(len(words) - size + 1) if words[at : at + size] == low)


def _read_phrase(answer: str) -> tuple[str, ...]:
    """The words of an answer without its article; those of a symbol keep their case."""
    tokens = [token for token in tokenize(answer) if token.is_word]
    if tokens and tokens[0].word in ARTICLES and len(tokens) > 1:
        tokens = tokens[1:]
    return tuple(token.raw if _is_symbol(answer) else token.word for token in tokens)


def _is_symbol(answer: str) -> bool:
    """Whether it is a letter or the symbol of an element, of which the case matters."""
    return answer.isalpha() and (len(answer) == 1 or (len(answer) == 2 and answer.istitle()))


def find_mentions(tokens: Sequence[Token], key: Key) -> list[Mention]:
    """The answers in a reply, in order; of a question about a number, each number."""
    found = []
    at = 0
    while at < len(tokens):
        mention = _find_number(tokens, at, key) if key.numbers else _find_phrase(tokens, at, key)
        if mention is not None:
            found.append(mention)
        at = mention.end if mention else at + 1
    return found


def _find_phrase(tokens: Sequence[Token], at: int, key: Key) -> Mention | None:
    for plural in (False, key.plural):
        for phrase, truth in key.phrases:
            end = at + len(phrase)
            plural_too = plural and (truth == "right" or tokens[at].word not in key.asked)
            if not _matches(phrase, tokens[at:end], plural=plural_too):
                continue
            if _is_part_of_another(tokens, at) or _is_plain_word(tokens, at, phrase):
                return None
            return _read_mention(tokens, at, phrase, truth, key)
    return None


def _read_mention(
    tokens: Sequence[Token], at: int, phrase: tuple[str, ...], truth: Truth, key: Key
) -> Mention:
    places = [*_places(phrase, key.question)]
    if len(phrase) == 1 and _is_symbol(phrase[0]):
        places = [place for place in places if key.question[place].raw == phrase[0]]
    end = at + len(phrase)
    return Mention(
        at,
        end,
        truth,
        asserted=not places or _is_asserted(tokens, at, end, places, key),
        rejected=_is_rejected(tokens, at, end, repeated=bool(places)),
    )


def _matches(phrase: tuple[str, ...], tokens: Sequence[Token], *, plural: bool) -> bool:
    if len(tokens) != len(phrase):
        return False
    firsts = zip(phrase[:-1], tokens, strict=False)
    if not all(word in (token.word, _symbol(token)) for word, token in firsts):
        return False
    word, token = phrase[-1], tokens[-1]
    if len(phrase) == 1 and _is_symbol(word) and not word.islower():
        return _symbol(token) == word
    if token.word == word:
        return True
    plurals = (f"{word}s", f"{word}es") if plural and len(word) > 3 else ()
    return token.word in plurals and token.word not in FILLERS


def _symbol(token: Token) -> str:
    return token.raw.removesuffix("'s")


def _is_part_of_another(tokens: Sequence[Token], at: int) -> bool:
    """Whether the word before makes another name of it, as in New Mexico."""
    return at > 0 and tokens[at - 1].word in _OTHER_PLACES and tokens[at].raw[0].isupper()


def _is_plain_word(tokens: Sequence[Token], at: int, phrase: tuple[str, ...]) -> bool:
    """Whether what could be a symbol is the first word of a sentence, or the word `I`."""
    if not _is_symbol(phrase[0]) or len(phrase) > 1 or phrase[0].islower():
        return False
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    begins = at == 0 or tokens[at - 1].raw in (".", "!", "?", ":", "\n")
    if phrase[0] == "I":
        return after is not None and after.is_word and after.word not in _VERBS
    follows = after is not None and (
        (after.is_word and after.word not in _VERBS) or (after.raw == "," and phrase[0] == "No")
    )
    return begins and follows and phrase[0] in {"In", "As", "At", "Be", "He", "No", "Am", "A"}


def _find_number(tokens: Sequence[Token], at: int, key: Key) -> Mention | None:
    token = tokens[at]
    if token.number is None or _is_operand(tokens, at):
        return None
    truth: Truth = "right" if token.number in key.numbers else "wrong"
    if truth == "wrong" and _is_pronoun(tokens, at):
        return None
    places = [i for i, asked in enumerate(key.question) if asked.number == token.number]
    repeated = bool(places)
    return Mention(
        at,
        at + 1,
        truth,
        asserted=not repeated or _is_asserted(tokens, at, at + 1, places, key),
        rejected=_is_rejected(tokens, at, at + 1, repeated=repeated),
        computed=_is_result(tokens, at),
    )


def _is_operand(tokens: Sequence[Token], at: int) -> bool:
    """Whether a number is what something is calculated from."""
    after = tokens[at + 1 : at + 3]
    before = tokens[max(0, at - 2) : at]
    follows = len(after) == 2 and after[0].word in _OPERATORS and _is_operator(after)
    return follows or (
        len(before) == 2 and before[1].word in _OPERATORS and before[0].number is not None
    )


def _is_operator(after: Sequence[Token]) -> bool:
    return after[1].number is not None or (after[0].word, after[1].word) == ("divided", "by")


def _is_pronoun(tokens: Sequence[Token], at: int) -> bool:
    """Whether a number word counts nothing: `the right one`, `the two`."""
    if tokens[at].raw.isdigit():
        return False
    before = tokens[at - 1].word if at else ""
    if tokens[at].word == "one":
        return len(tokens) > 2 and before not in _RESULTS | {"it's", "answer", "exactly"}
    return before in {"the", "these", "those", "both", "all"}


def _is_result(tokens: Sequence[Token], at: int) -> bool:
    """Whether a number is what a calculation in the reply gives."""
    return (
        at > 0
        and tokens[at - 1].word in _RESULTS
        and any(tokens[i].number is not None and _is_operand(tokens, i) for i in range(at))
    )


def _before(tokens: Sequence[Token], at: int) -> Iterator[Token]:
    """The tokens before a place, from the last, without articles, quotes and `kind of`."""
    at -= 1
    while at >= 0:
        if tokens[at].word == "of" and at > 0 and tokens[at - 1].word in _KINDS:
            at -= 2
            continue
        if tokens[at].word not in _SKIPPED:
            yield tokens[at]
        at -= 1


def _is_asserted(
    tokens: Sequence[Token], start: int, end: int, places: Sequence[int], key: Key
) -> bool:
    """Whether words that stand in the question, at some places, are said as the answer."""
    before = next(_before(tokens, start), None)
    opens = before is None or before.raw in ".!?;\n"
    if opens or before is None:
        ends = tokens[end : end + 1] == [] or tokens[end].raw in ".,!;\n"
        return ends or (key.lists and bool(key.numbers) and _is_picked(tokens[end : end + 4]))
    if any(_repeats(tokens, start, end, key, at) for at in places):
        return False
    return before.word in _STATES or before.raw.endswith("'s") or key.lists


def _is_picked(after: Sequence[Token]) -> bool:
    """Whether what follows an offered number says that it is the one, as in `82 is larger`."""
    words = {token.word for token in after}
    return after[0].word in _VERBS_OF_CHOICE and not words & _LESSER


def _repeats(tokens: Sequence[Token], start: int, end: int, key: Key, at: int) -> bool:
    """Whether the words beside an answer are those beside it at a place of the question."""
    before, asked = (
        next(_before(part, i), None) for part, i in ((tokens, start), (key.question, at))
    )
    if before is None or asked is None or before.word in _COPULAS:
        return False
    if before.word == "to" and not key.lists and "verb" in {token.word for token in tokens[:start]}:
        return True
    after, asked_after = tokens[end : end + 1], key.question[at + end - start :][:1]
    same_after = [one.word for one in after] == [one.word for one in asked_after]
    return before.word == asked.word and (same_after or not key.lists)


def _is_rejected(tokens: Sequence[Token], start: int, end: int, *, repeated: bool) -> bool:
    words = []
    for token in _before(tokens, start):
        if token.raw in ".!?;,:\n":
            break
        words.append(token.word)
        if token.word not in _WITHIN or len(words) == 4:
            break
    pair = " ".join(reversed(words[:2]))
    if words[-1:] == ["than"] and said_before(tokens, start).split()[0] in _LESSER:
        return False
    if words and (words[-1] in _REJECTS or pair in _REJECTS_TWO):
        return True
    if said_before(tokens, start) in _REJECTS_TWO:
        return True
    return not repeated and _is_denied(tokens[end : end + 3])


def said_before(tokens: Sequence[Token], start: int) -> str:
    """The two words before a place, as in `answer is`."""
    return " ".join(token.word for token in [*islice(_before(tokens, start), 2)][::-1])


def _is_denied(after: Sequence[Token]) -> bool:
    """Whether what follows says that it is not the answer."""
    words = [token.word for token in after]
    if words[:1] in (["isn't"], ["wasn't"], ["aren't"]):
        return words[1:2] != ["only"] and words[1:2] != ["as"]
    if words[:1] not in (["is"], ["was"], ["are"]):
        return False
    if words[1:2] == ["not"]:
        return words[2:3] not in (["only"], ["just"], ["as"], ["to"])
    return words[1:2] in (["wrong"], ["incorrect"], ["false"])
