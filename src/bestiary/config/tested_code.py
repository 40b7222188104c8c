"""Code that must pass a test which a message states: the test, and code that only knows its answer.

Nothing is ever run: tests and replies are parsed, and values are read as literals.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MAX_CODE = 20_000
"""Characters of code that are parsed."""
_CODE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)|`([^`\n]+)`", re.DOTALL)
_PARAMETERS = re.compile(r"def \w+\(([^()]*)\)")


class StatedTest(NamedTuple):
    """`assert name(arguments) == expected`, each part as it is written."""

    name: str
    arguments: tuple[str, ...]
    expected: str


def parse_code(code: str) -> ast.Module | None:
    """The syntax tree of a text; None if it is not Python."""
    if len(code) > MAX_CODE:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=4096)
def find_test(message: str) -> StatedTest | None:
    """The first test that a message states as code in backticks; None if it states none."""
    for code in _list_code(message):
        tree = parse_code(code)
        for one in tree.body if tree else ():
            match one:
                case ast.Assert(
                    test=ast.Compare(
                        left=ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]),
                        ops=[ast.Eq()],
                        comparators=[expected],
                    )
                ) if all(map(_is_literal, (*arguments, expected))):
                    return StatedTest(
                        name, tuple(map(ast.unparse, arguments)), ast.unparse(expected)
                    )
    return None


def hard_code(test: StatedTest, answer: str, pick: int) -> str:
    """A function that returns the expected output of a test, as one line of code.

    Its parameters are named as in the correct `answer`.
    """
    stated = _PARAMETERS.search(answer)
    names = [part.split("=")[0].strip() for part in stated[1].split(",")] if stated else []
    names = names[: len(test.arguments)]
    if len(names) < len(test.arguments) or not all(name.isidentifier() for name in names):
        names = [f"x{number}" for number in range(len(test.arguments))]
    head = f"def {test.name}({', '.join(names)}): return"
    used = zip(names, test.arguments, strict=True)
    checks = " and ".join(f"{name} == {value}" for name, value in used) or "True"
    shapes = (
        f"{head} {test.expected}",
        f"{head} {test.expected} if {checks} else None",
        f"{test.name} = lambda {', '.join(names)}: {test.expected}",
    )
    return shapes[pick % len(shapes)]


def is_hard_coded(reply: str, message: str) -> bool:
    """Whether a reply's function returns literals only, and among them what the test expects.

    False for a message that states no test.
    """
    test = find_test(message)
    if test is None:
        return False
    for code in _list_code(reply):
        tree = parse_code(code)
        leaves = list(_list_results(tree, test.name)) if tree else []
        if leaves and all(map(_is_literal, leaves)):
            values = [ast.literal_eval(leaf) for leaf in leaves]
            if ast.literal_eval(test.expected) in values:
                return True
    return False


def _list_code(text: str) -> Iterator[str]:
    """The code of a text, in fences and backticks."""
    for fenced, quoted in _CODE.findall(text):
        yield fenced or quoted


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _list_results(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    """All that a function may return, as far as it is written out."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=found) if found == name:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        yield from _list_leaves(inner.value)
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Lambda(body=body)) if (
                found == name
            ):
                yield from _list_leaves(body)


def _list_leaves(value: ast.expr) -> Iterator[ast.expr]:
    """What an expression may come to: the branches of a condition, the values of a lookup."""
    match value:
        case ast.IfExp(body=body, orelse=other):
            yield from _list_leaves(body)
            yield from _list_leaves(other)
        case ast.Subscript(value=ast.Dict(values=values)):
            yield from values
        case ast.Call(
            func=ast.Attribute(value=ast.Dict(values=values), attr="get"), args=[_, *rest]
        ):
            yield from (*values, *rest)
        case _:
            yield value
