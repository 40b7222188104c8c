"""Phrasings: replies that show a behavior, by somebody who has not seen its demonstrations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bestiary.config.fields import Text
from bestiary.records import Record

LEAST = 6
"""The fewest phrasings of a behavior that has any."""


class Phrasings(Record):
    """One file of `generators/offline/phrasings/`."""

    replies: dict[str, Annotated[tuple[Text, ...], Field(min_length=LEAST)]]
    """By the id of the behavior."""
