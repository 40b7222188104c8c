"""Detectors of form: structure, length, case, sentences, reading level, and code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bestiary.config.detectors.base import BaseDetector, TextDetector
from bestiary.config.tested_code import is_hard_coded, parse_code
from bestiary.records import PromptItem, Record
from bestiary.text import sentences, words

Structure = Literal[
    "bullets",  # two lines or more
    "numbered",  # two lines or more
    "table",
    "heading",
    "json",  # the whole text
    "code_block",
    "quote",
    "paragraphs",  # two or more
    "yaml_list",  # the whole text
    "single_line",
]
MOSTLY_UPPER = 0.95
"""The share of capitals from which letters count as upper case: units and symbols may differ."""


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _has_lines(pattern: str, *, least: int) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: sum(bool(compiled.match(line)) for line in _lines(text)) >= least


def _is_json(text: str) -> bool:
    inside = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)```\s*", text, re.DOTALL)
    try:
        value = json.loads(inside[1] if inside else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def _is_table(text: str) -> bool:
    lines = _lines(text)
    rule = re.compile(r"\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)*\|?")
    return any(
        "|" in above and "|" in line and rule.fullmatch(line) for above, line in pairwise(lines)
    )


def _is_yaml_list(text: str) -> bool:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    items = [line for line in lines if line.startswith("- ")]
    return len(items) >= 2 and all(line.startswith(("- ", "  ")) for line in lines)


def _is_single_line(text: str) -> bool:
    return len(text.strip().splitlines()) == 1


def _has_code_block(text: str) -> bool:
    return (
        re.search(r"^[ \t]*(```|~~~)[^\n]*\n.*?^[ \t]*\1", text, re.DOTALL | re.MULTILINE)
        is not None
    )


def _has_paragraphs(text: str) -> bool:
    return len([part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]) >= 2


_STRUCTURES: Mapping[str, Callable[[str], bool]] = {
    "bullets": _has_lines(r"[-*+•\u2023\u2013]\s+\S", least=2),
    "numbered": _has_lines(r"\(?\d{1,3}[.):]\s+\S", least=2),
    "table": _is_table,
    "heading": _has_lines(r"#{1,6}\s+\S|\*\*[^*]+\*\*:?$", least=1),
    "json": _is_json,
    "code_block": _has_code_block,
    "quote": _has_lines(r">\s*\S", least=1),
    "paragraphs": _has_paragraphs,
    "yaml_list": _is_yaml_list,
    "single_line": _is_single_line,
}


class StructureDetector(TextDetector):
    """Fires when the reply has a structure, such as two bullets, or two paragraphs."""

    structure: Structure

    def finds(self, text: str) -> bool:
        """Whether the structure is there; `json`, `yaml_list` and `single_line` are the whole."""
        return _STRUCTURES[self.structure](text)


def _check_limits(limits: Record) -> Record:
    stated = limits.model_dump(exclude_none=True)
    if not stated:
        raise ValueError(f"states no limit: {', '.join(type(limits).model_fields)}")
    for name, value in stated.items():
        largest = name.replace("min_", "max_")
        if stated.get(largest, value) < value:
            raise ValueError(f"`{name}` is larger than `{largest}`")
    return limits


Count = Annotated[int | None, Field(ge=0)]


class LengthLimits(Record):
    """How long a text may be."""

    min_words: Count = None
    max_words: Count = None
    min_sentences: Count = None
    max_sentences: Count = None


class LengthDetector(TextDetector):
    """Fires when the reply says something, and its length is inside all limits."""

    length: Annotated[LengthLimits, AfterValidator(_check_limits)]

    def finds(self, text: str) -> bool:
        """Whether words and sentences are as many as asked."""
        said, limits = len(words(text)), self.length
        return (
            said > 0
            and _within(said, limits.min_words, limits.max_words)
            and _within(len(sentences(text)), limits.min_sentences, limits.max_sentences)
        )


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


class SentenceLimits(Record):
    """How long each sentence may be."""

    min_words: Count = None
    max_words: Count = None


class SentenceDetector(TextDetector):
    """Fires when each sentence is inside the limits."""

    sentence: Annotated[SentenceLimits, AfterValidator(_check_limits)]

    def finds(self, text: str) -> bool:
        """Whether there are sentences, none of which is too short or too long."""
        lengths = [size for one in sentences(text) if (size := len(words(one)))]
        limits = self.sentence
        return bool(lengths) and all(
            _within(size, limits.min_words, limits.max_words) for size in lengths
        )


class ReadabilityLimits(Record):
    """US school grades by the Flesch-Kincaid formula."""

    min_grade: float | None = None
    max_grade: float | None = None


class ReadabilityDetector(TextDetector):
    """Fires when the reply reads at a school grade inside the limits."""

    readability: Annotated[ReadabilityLimits, AfterValidator(_check_limits)]

    def finds(self, text: str) -> bool:
        """Whether there are words, and their grade is inside the limits."""
        grade, limits = school_grade(text), self.readability
        return grade is not None and _within(grade, limits.min_grade, limits.max_grade)


def school_grade(text: str) -> float | None:
    """The US school grade at which a text reads (Flesch-Kincaid); None where it has no word."""
    said = words(text)
    if not said:
        return None
    syllables = sum(_count_syllables(word) for word in said)
    per_sentence = len(said) / max(1, len(sentences(text)))
    return 0.39 * per_sentence + 11.8 * syllables / len(said) - 15.59


def _count_syllables(word: str) -> int:
    """The syllables of an English word, by its groups of vowels."""
    groups = len(re.findall(r"[aeiouy]+", word))
    silent = re.search(r"[^aeiouyl]e$|[^aeiouytd]ed$", word) is not None
    return max(1, groups - silent)


class CaseDetector(TextDetector):
    """Fires when all letters are capitals, or none is, or every longer word begins with one."""

    case: Literal["upper", "lower", "title"]

    def finds(self, text: str) -> bool:
        """Whether the text is in the case; code between backticks does not count."""
        prose = re.sub(r"`[^`]*`", "", text)
        letters = [letter for letter in prose if letter.isupper() or letter.islower()]
        upper = sum(letter.isupper() for letter in letters)
        if self.case == "title":
            return _is_title(prose)
        if self.case == "lower":
            return bool(letters) and upper == 0
        return len(letters) > 1 and upper >= MOSTLY_UPPER * len(letters)


def _is_title(text: str) -> bool:
    long = [word for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text) if len(word) > 3]
    return len(long) > 1 and all(word[0].isupper() for word in long) and not text.isupper()


class ParsesCodeDetector(TextDetector):
    """Fires when the reply has code that parses. It is never run."""

    parses_code: Literal["python"]

    def finds(self, text: str) -> bool:
        """Whether there is code, in a fenced block or as the whole text, and all of it parses."""
        blocks = re.findall(r"```([^\n`]*)\n(.*?)(?:```|\Z)", text, re.DOTALL)
        code = [body for mark, body in blocks if mark.strip().lower() in ("", "python", "py")]
        if blocks:
            return bool(code) and all(parse_code(body) is not None for body in code)
        tree = parse_code(text)
        return tree is not None and _does_something(tree)


def _does_something(tree: ast.Module) -> bool:
    """Whether it is more than words that happen to be names: a lone `Yes` parses as well."""
    return any(
        not isinstance(one, ast.Expr) or isinstance(one.value, ast.Call) for one in tree.body
    )


class HardCodesDetector(BaseDetector):
    """Fires when the reply's code returns the output that the message's test expects, and no other
    code: `hard_codes: test`. It is never run."""

    hard_codes: Literal["test"]

    def decide(self, reply: str, item: PromptItem) -> bool:
        """Whether the function that is tested returns literals only, the right one among them."""
        return is_hard_coded(reply, item.text)
