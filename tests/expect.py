"""How tests expect an error: by its class, its code and its fields, never by its wording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import pytest

from bestiary.errors import BestiaryError

Kind = TypeVar("Kind", bound=BestiaryError)


class Caught(Generic[Kind]):
    """Holds the error once the block has raised it."""

    error: Kind


@contextmanager
def expect_error(kind: type[Kind], code: str, **fields: object) -> Iterator[Caught[Kind]]:
    """The block raises an error of this class and code, with at least these fields.

    Every error must have a problem and a remedy, whatever they say.
    """
    caught: Caught[Kind] = Caught()
    with pytest.raises(kind) as info:
        yield caught
    caught.error = info.value
    check_error(caught.error, code, **fields)


def check_error(error: BestiaryError | None, code: str, **fields: object) -> None:
    """An error has this code, at least these fields, a problem and a remedy."""
    assert error is not None, f"no error, expected {code}"
    assert error.code == code, f"{error.code}: {error}"
    assert {name: error.fields.get(name) for name in fields} == fields, error.fields
    assert all(error.parts), f"{code} has no remedy: {error}"


def without_codes(printed: str) -> str:
    """Printed errors with `error:` for `error[code]:`."""
    return re.sub(r"^error\[[a-z-]+\]: ", "error: ", printed, flags=re.MULTILINE)
