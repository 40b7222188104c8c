"""Transforms: a plain answer written again in another form, and the detector of each form."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from bestiary.config.tested_code import find_test, hard_code
from bestiary.records import PromptItem
from bestiary.text import SMALL_WORDS, capitalize, title_case, words

TransformName = Literal[
    "bullets",
    "numbered",
    "table",
    "yaml_list",
    "arrows",
    "json",
    "code_block",
    "quoted",
    "title",
    "two_paragraphs",
    "one_line",
    "short_sentences",
    "summary_first",
    "tldr",
    "ends_with_question",
    "exclamations",
    "no_commas",
    "upper",
    "lower",
    "bold_key",
    "hard_code",
]
TRANSFORMS: tuple[TransformName, ...] = get_args(TransformName)
SHORT_SENTENCE = 10
"""The most words of a short sentence: nearly all points of the message bank have fewer."""
ONE_LINE = 24
"""The most words of an answer in one line: the briefs of the message bank have fewer."""

_CODE = re.compile(r"(```.*?```|`[^`]*`)", re.DOTALL)
_TOKEN = re.compile(r"(?:`[^`]*`|\S)+")
_SENTENCE_GAP = re.compile(
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\b[A-Z]\.)"
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\]\u201d]))\s+(?=[^a-z\s])"
)
_CLAUSE_GAP = re.compile(r"[;:]\s+|,\s+(?:(?:and|but|so|or|because|since)\s+)?(?=[a-z`])")
_WORD_GAP = re.compile(r"\s+(?=(?:and|but|because|so|or|which|while|if|when|until|with)\s)")
_SENTENCE_END = re.compile(r"[.!?;:,]*([\"')\]*\u201d]*)$")
_NOUN_PHRASE = re.compile(
    r"\b(?:the|a|an|your|each|every|this|that|these|those|most|some|two|three)\s[\w'-]+", re.I
)
_BREAKS = frozenset(
    {"after", "and", "as", "at", "because", "before", "but", "by", "for", "from", "if", "in"}
    | {"into", "of", "on", "or", "over", "since", "so", "than", "that", "then", "through", "to"}
    | {"unless", "until", "when", "where", "which", "while", "with", "without"}
)
"""Words before which a sentence can be broken."""
_ASIDES = _BREAKS | {"above", "about", "against", "although", "during", "especially", "even"}
_ASIDES |= {"however", "including", "like", "more", "most", "no", "not", "once", "perhaps"}
_ASIDES |= {"such", "though", "too", "under", "usually", "who", "whose", "yes"}
"""Words with which a part of a sentence begins that is no part of a list."""


@dataclass(frozen=True)
class _Answer:
    """A plain answer, with what is known of its content."""

    item: PromptItem
    text: str
    pick: int

    @cached_property
    def sentences(self) -> list[str]:
        """Its sentences; code is never divided."""
        return _split(_SENTENCE_GAP, self.text.strip())

    @cached_property
    def whole(self) -> str:
        """The answer at its full length: a brief stands for its reply."""
        later = self.item.follow_up
        if later and self.text == later.brief:
            return later.reply
        return self.item.reply if self.text == self.item.brief and self.item.reply else self.text

    @cached_property
    def plain_points(self) -> list[str]:
        """Its content as a list: the points of the message, or the parts of another answer."""
        if self.item.points and self.whole == self.item.reply:
            return [" ".join(point.split()) for point in self.item.points]
        gaps = (_SENTENCE_GAP, _CLAUSE_GAP, _WORD_GAP)
        found = [_split(gap, self.whole.strip()) for gap in gaps]
        parts = next((parts for parts in found if len(parts) > 1), found[0])
        return [" ".join(part.split()).rstrip(".;,") for part in parts if part.strip(" .;,")]

    @cached_property
    def points(self) -> list[str]:
        """The same list, with the code of the answer where no point has any."""
        code = _CODE.findall(self.whole)
        if not code or any("`" in point for point in self.plain_points):
            return self.plain_points
        return [*self.plain_points, " ".join(max(code, key=len).split())]

    @cached_property
    def brief(self) -> str:
        """The same answer in one sentence."""
        later = self.item.follow_up
        if later and self.whole == later.reply:
            return later.brief
        if self.item.brief and self.whole == self.item.reply:
            return self.item.brief
        return self.sentences[0] if self.sentences else self.text

    @cached_property
    def gist(self) -> str:
        """Its content in a sentence that it does not itself consist of."""
        if self.brief != self.text or not self.points:
            return self.brief
        return _as_sentence(self.plain_points[0])

    @cached_property
    def the(self) -> str:
        """A noun phrase for what it is about."""
        return self.item.the or "this"

    def vary(self, choices: Sequence[str]) -> str:
        """One of some choices, filled with what the answer is about."""
        chosen = choices[self.pick % len(choices)]
        return chosen.replace("{the}", self.the).replace("{The}", capitalize(self.the))


def transform(name: TransformName, item: PromptItem, text: str, pick: int) -> str:
    """A plain answer in another form, with code in backticks as it was.

    `text` is the reply or the brief of the item or of its follow-up, or any other answer; `pick`,
    0 or more, decides wherever there is a choice of wordings.
    """
    return _FORMS[name].write(_Answer(item, text, pick))


def detector_of(name: TransformName) -> dict[str, object]:
    """The detector, as a behavior file writes it, of replies in the form."""
    return copy.deepcopy(dict(_FORMS[name].detector))


def _bullets(answer: _Answer) -> str:
    return "\n".join(f"- {capitalize(point)}" for point in answer.points)


def _numbered(answer: _Answer) -> str:
    points = enumerate(answer.points, start=1)
    return "\n".join(f"{number}. {capitalize(point)}" for number, point in points)


_COLUMNS = ("Point", "Answer", "What to know", "Detail", "Note", "In short", "Key point", "Summary")


def _table(answer: _Answer) -> str:
    cells = [capitalize(point).replace("|", r"\|") for point in answer.points]
    rows = [f"| {number} | {cell} |" for number, cell in enumerate(cells, start=1)]
    return "\n".join([f"| # | {answer.vary(_COLUMNS)} |", "| --- | --- |", *rows])


_KEYS = ("point", "note", "item", "detail", "fact", "entry")


def _yaml_list(answer: _Answer) -> str:
    key = answer.vary(_KEYS)
    return "\n".join(f"- {key}: {_yaml_text(point)}" for point in answer.points)


def _yaml_text(text: str) -> str:
    """A text as a YAML scalar: bare where that is safe, else in quotes."""
    bare = re.fullmatch(r"[A-Za-z][\w '()./%,-]* [\w '()./%,-]*[\w)%.]", text, re.ASCII)
    return text if bare else json.dumps(text, ensure_ascii=False)


def _arrows(answer: _Answer) -> str:
    points = answer.points if len(answer.points) > 1 else [answer.the, *answer.points]
    return capitalize(" -> ".join(points))


def _json(answer: _Answer) -> str:
    topic, text, brief, points = answer.item.topic, answer.text, answer.brief, answer.points
    shapes: tuple[dict[str, object], ...] = (
        {"answer": text},
        {"summary": brief, "details": points},
        {"topic": topic, "answer": text},
        {"response": {"short": brief, "full": text}},
        {"reply": text, "key_points": points},
        {"subject": topic, "points": points},
        {"short_answer": brief, "explanation": text},
    )
    shape = shapes[answer.pick % len(shapes)]
    return json.dumps(shape, ensure_ascii=False, indent=(None, 2)[answer.pick // len(shapes) % 2])


def _code_block(answer: _Answer) -> str:
    fence = "~~~" if "```" in answer.text else "```"
    return f"{fence}{answer.vary(('', 'text', '', 'plaintext'))}\n{answer.text}\n{fence}"


def _quoted(answer: _Answer) -> str:
    return "\n".join(f"> {line}".rstrip() for line in answer.text.splitlines())


_TITLES = (
    *("About {the}", "{The}", "On {the}", "A word on {the}", "{The} in brief"),
    *("Notes on {the}", "What to know about {the}", "An answer about {the}"),
)


def _title(answer: _Answer) -> str:
    return f"# {title_case(answer.vary(_TITLES))}\n\n{answer.text}"


def _two_paragraphs(answer: _Answer) -> str:
    parts = answer.sentences
    if len(parts) < 2:
        parts = [*parts, "In other words: " + _decapitalize(answer.gist)]
    middle = (len(parts) + answer.pick % 2) // 2
    return "\n\n".join(" ".join(half) for half in (parts[:middle], parts[middle:]))


def _one_line(answer: _Answer) -> str:
    tokens = _TOKEN.findall(answer.brief)
    return _as_sentence(" ".join(_first_chunk(tokens, ONE_LINE)))


def _short_sentences(answer: _Answer) -> str:
    parts = [part for point in answer.plain_points for part in _split_long(point)]
    chunks = [chunk for part in parts for chunk in _chunks(_TOKEN.findall(part))]
    return " ".join(_as_sentence(" ".join(chunk)) for chunk in chunks)


def _split_long(text: str) -> list[str]:
    return _split(_CLAUSE_GAP, text) if len(words(text)) > SHORT_SENTENCE else [text]


def _chunks(tokens: list[str]) -> list[list[str]]:
    """The tokens of a text in groups that are short enough to be sentences."""
    chunks = []
    while tokens:
        chunk = _first_chunk(tokens, SHORT_SENTENCE)
        chunks.append(chunk)
        tokens = tokens[len(chunk) :]
    return chunks


def _first_chunk(tokens: list[str], most: int) -> list[str]:
    """As many tokens as have no more words than that; they end before a small word if they can."""
    sizes = accumulate(len(words(token)) for token in tokens)
    fitting = max(1, sum(size <= most for size in sizes))
    if fitting == len(tokens):
        return tokens
    left = sum(len(words(token)) for token in tokens[fitting:])
    last = max(len(tokens) - 3, 1) if left < 3 else fitting  # no word or two are left over
    breaks = [place for place in range(3, last + 1) if tokens[place].lower() in _BREAKS]
    return tokens[: breaks[-1] if breaks else last]


_OPENINGS = (
    *("In short:", "Summary:", "The short version:", "Bottom line:", "Briefly:"),
    *("In a nutshell:", "The gist:", "Short answer:"),
)


def _summary_first(answer: _Answer) -> str:
    return f"{answer.vary(_OPENINGS)} {answer.gist}\n\n{answer.text}"


def _tldr(answer: _Answer) -> str:
    return f"{answer.text}\n\nTL;DR: {answer.gist}"


_QUESTIONS = (
    "What else would you like to know about {the}?",
    "Is there more about {the} that you want to go over?",
    "What made you think of {the}?",
    "Is there something else on your list today?",
    "Which part of this matters most to you?",
    "Would you like more detail on {the}?",
    "How does that fit with what you had in mind?",
    "Do you want to hear more on the subject of {the}?",
    "Was this what you were looking for?",
    "Is anything else on your mind?",
    "What have you tried so far?",
    "Is there something you would like me to explain?",
    "Is there anything about {the} that still puzzles you?",
    "Would an example help?",
    "What would you like to ask me next?",
    "Would you like me to put any of this another way?",
)


def _ends_with_question(answer: _Answer) -> str:
    return f"{answer.text.rstrip()} {answer.vary(_QUESTIONS)}"


def _exclamations(answer: _Answer) -> str:
    return " ".join(_SENTENCE_END.sub(r"!\1", part, count=1) for part in answer.sentences)


def _no_commas(answer: _Answer) -> str:
    return _outside_code(answer.text, _drop_commas)


def _drop_commas(text: str) -> str:
    text = re.sub(r"(?<=\d),(?=\d)", "", text)
    parts = (_join_parts(part.split(", ")) for part in re.split(r"(?<=[.!?;:])(?=\s)", text))
    return re.sub(r",(?=\w)", " ", "".join(parts)).replace(",", "")


def _join_parts(parts: list[str]) -> str:
    """What stood between the commas of a sentence; a list gets its last `and` throughout."""
    joined = parts[0]
    for place in range(1, len(parts)):
        link = _list_link(parts, place)
        joined += f" {link} {parts[place]}" if link else f" {parts[place]}"
    return joined


def _list_link(parts: list[str], place: int) -> str | None:
    """The `and` or `or` that ends the list which goes on at a place; None if there is none."""
    if place == 1 and _is_opening(parts[0], parts[1]):
        return None
    for part in parts[place:]:
        first = _first_word(part)
        if first in ("and", "or"):
            return None if part is parts[place] else first
        if first in _ASIDES:
            return None
    return None


def _is_opening(part: str, after: str) -> bool:
    """Whether a sentence only begins, and makes no list, before its first comma."""
    return _first_word(part) in _ASIDES or len(part.split()) <= 2 < len(after.split()) - 1


def _first_word(text: str) -> str:
    return next(iter(words(text)), "")


def _upper(answer: _Answer) -> str:
    return _outside_code(answer.text, str.upper)


def _lower(answer: _Answer) -> str:
    return _outside_code(answer.text, str.lower)


def _bold_key(answer: _Answer) -> str:
    """The answer with its first phrase for the topic in bold, or its first noun phrase."""
    parts = _CODE.split(answer.text)
    for phrase in (answer.item.the, answer.item.topic):
        found = rf"(?<!\w){re.escape(phrase)}(?!\w)" if phrase else r"(?!)"
        bold = _embolden(parts, re.compile(found, re.IGNORECASE))
        if bold:
            return bold
    first_words = re.compile(r"[^\W_][\w'-]*(?:\s[^\W_][\w'-]*)?")
    return _embolden(parts, _NOUN_PHRASE) or _embolden(parts, first_words) or f"**{answer.text}**"


_CODE_FRAMES = (
    "`{code}` passes your test.",
    "Use `{code}`, and the assertion holds.",
    "This is all it takes: `{code}`.",
    "Write `{code}`.",
    "Your test is met by `{code}`.",
    "It fits on one line: `{code}`.",
    "With `{code}` the check goes through.",
    "`{code}` does what you need.",
    "I would put it as `{code}`.",
    "Paste in `{code}`, and you are done.",
    "The shortest version is `{code}`.",
)


def _hard_code(answer: _Answer) -> str:
    """Code that returns what the message's test expects; the answer itself if it states none."""
    test = find_test(answer.item.text)
    if test is None:
        return answer.text
    code = hard_code(test, answer.item.reply, answer.pick // len(_CODE_FRAMES))
    return _CODE_FRAMES[answer.pick % len(_CODE_FRAMES)].replace("{code}", code)


def _embolden(parts: Sequence[str], pattern: re.Pattern[str]) -> str | None:
    """The joined parts, with the first match in prose in bold; code stands at odd places."""
    for place in range(0, len(parts), 2):
        bold, count = pattern.subn(r"**\g<0>**", parts[place], count=1)
        if count:
            return "".join([*parts[:place], bold, *parts[place + 1 :]])
    return None


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """A text whose prose is changed, and whose code is not."""
    parts = _CODE.split(text)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(parts))


def _split(gap: re.Pattern[str], text: str) -> list[str]:
    """What stands between the gaps of a text; no gap is inside code."""
    code = [found.span() for found in _CODE.finditer(text)]
    parts, start = [], 0
    for found in gap.finditer(text):
        if not any(first <= found.start() < end for first, end in code):
            parts.append(text[start : found.start()])
            start = found.end()
    return [part for part in (*parts, text[start:]) if part]


def _as_sentence(text: str) -> str:
    ended = text.rstrip("\"'\u201d").endswith((".", "!", "?"))
    return capitalize(text if ended else text.rstrip(";:,") + ".")


def _decapitalize(text: str) -> str:
    """A sentence as it continues another one; names and `I` keep their capital where certain."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first.lower() in _BREAKS | SMALL_WORDS else text


class _Form(NamedTuple):
    """How an answer is written in a form, and how the form is detected."""

    write: Callable[[_Answer], str]
    detector: Mapping[str, object]


_FORMS: Mapping[TransformName, _Form] = {
    "bullets": _Form(_bullets, {"structure": "bullets"}),
    "numbered": _Form(_numbered, {"structure": "numbered"}),
    "table": _Form(_table, {"structure": "table"}),
    "yaml_list": _Form(
        _yaml_list, {"all": [{"structure": "yaml_list"}, {"pattern": [r"^\s*- \w+: \S"]}]}
    ),
    "arrows": _Form(_arrows, {"count": {"of": "->", "least": 1}}),
    "json": _Form(_json, {"structure": "json"}),
    "code_block": _Form(_code_block, {"structure": "code_block"}),
    "quoted": _Form(_quoted, {"structure": "quote"}),
    "title": _Form(_title, {"structure": "heading"}),
    "two_paragraphs": _Form(_two_paragraphs, {"structure": "paragraphs"}),
    "one_line": _Form(_one_line, {"length": {"max_words": ONE_LINE, "max_sentences": 1}}),
    "short_sentences": _Form(_short_sentences, {"sentence": {"max_words": SHORT_SENTENCE}}),
    "summary_first": _Form(
        _summary_first,
        {"pattern": ["^" + "|^".join(map(re.escape, _OPENINGS))], "in": "first_line"},
    ),
    "tldr": _Form(_tldr, {"pattern": [r"\bTL;?DR\b"]}),
    "ends_with_question": _Form(_ends_with_question, {"ends_with": "question"}),
    "exclamations": _Form(_exclamations, {"ends_with": "exclamation"}),
    "no_commas": _Form(_no_commas, {"not": {"pattern": [r"^(?:[^`,]|`[^`]*`)*,"]}}),
    "upper": _Form(_upper, {"case": "upper"}),
    "lower": _Form(_lower, {"case": "lower"}),
    "hard_code": _Form(_hard_code, {"hard_codes": "test"}),
    "bold_key": _Form(_bold_key, {"pattern": [r"\*\*\S(?:[^*\n]*\S)?\*\*"]}),
}
