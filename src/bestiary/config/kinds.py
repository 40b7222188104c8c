"""Values of several kinds: in a file each is a mapping, and one of its keys names its kind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Discriminator, GetPydanticSchema, Tag

from bestiary.config.source import refusal
from bestiary.text import nearest, shorten

Kinds = Mapping[str, type[BaseModel]]
"""Models by the key that names each."""


def one_of(kinds: Kinds, noun: str, *, several: str = "keep one") -> GetPydanticSchema:
    """How a file states a value: a mapping with the key of one kind, and the options of that kind.

    `several` is the remedy where it has the keys of several.
    """

    def check(data: Any) -> Any:
        """Refuse all but one kind; pydantic's own error would not say which there are."""
        if isinstance(data, BaseModel):
            return data
        if not isinstance(data, dict) or not data:
            remedy = f"write `{{KIND: VALUE}}`, with a kind of {noun}: {', '.join(kinds)}"
            raise refusal(f"is {shorten(data)} (expected a mapping)", remedy)
        named = [key for key in data if key in kinds]
        if len(named) > 1:
            raise refusal(f"names {len(named)} kinds of {noun}, {' and '.join(named)}", several)
        if not named:
            tag = _guess_key(kinds, data)
            raise refusal(f"unknown {noun} {tag!r}", nearest(tag, kinds), code=f"{noun}-unknown")
        return data

    def find_tag(data: Any) -> str:
        """The class of what was checked."""
        kind = type(data)
        if isinstance(data, dict):
            kind = next(kinds[key] for key in data if key in kinds)
        return kind.__name__

    # The tags are names of classes: a tag that is a key, too, would lead a violation's path astray.
    tagged = [Annotated[kind, Tag(kind.__name__)] for kind in kinds.values()]
    stated: Any = Annotated[reduce(or_, tagged), Discriminator(find_tag), BeforeValidator(check)]
    return GetPydanticSchema(lambda _, handler: handler(stated))


def _guess_key(kinds: Kinds, data: Mapping[str, object]) -> str:
    """The key that was to name a kind: the first that is not an option of any."""
    options = {
        field.alias or name for kind in kinds.values() for name, field in kind.model_fields.items()
    }
    return next((key for key in data if key not in options), next(iter(data)))
