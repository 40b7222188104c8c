"""A base model that is loaded when it is first needed, in whichever process needs it."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bestiary.config.recipe import LoraShape, Training
from bestiary.errors import ModelError
from bestiary.model.base import Base, identify_base, load_base, outline_base
from bestiary.records import BaseIdentity


@dataclass(frozen=True)
class LazyBase:
    """A base by the name that a recipe gives it; loaded once per process and checked.

    Pickling it carries the name, never the weights.
    """

    name: str
    """The embedded base, a folder, or a Hub name with its `revision`."""
    revision: str | None
    identity: BaseIdentity
    """What the base must be, wherever it is loaded."""
    _loaded: list[Base] = field(default_factory=list, repr=False, compare=False)

    def load(self) -> Base:
        """The base; raises ModelError if this process finds another one under its name."""
        if not self._loaded:
            base = load_base(self.name, revision=self.revision)
            if base.identity != self.identity:
                raise ModelError(
                    f"{self.name} on {socket.gethostname()} is {base.identity}, but this build "
                    f"uses {self.identity}",
                    "give every machine the same files, and a GPU to all of them or to none",
                    code="base-differs",
                    name=self.name,
                    found=base.identity,
                    expected=self.identity,
                )
            self._loaded.append(base)
        return self._loaded[0]

    def check(self, trainings: Collection[Training], *, trainer: str) -> None:
        """Raises ModelError, without loading the weights, if a trainer could not train on them."""
        from bestiary.model.adapter import list_targets
        from bestiary.model.attention import check_attention

        outline = self._outline
        for training in dict.fromkeys(trainings):
            list_targets(outline, training.lora)
            if trainer == "engine":
                check_attention(outline, longest=training.max_length)

    def count_adapter_bytes(self, shape: LoraShape) -> int:
        """Bytes of an adapter's weights on disk; the base's own weights are not loaded."""
        from bestiary.model.adapter import count_bytes

        return count_bytes(self._outline, shape)

    @cached_property
    def _outline(self) -> Base:
        return outline_base(self.name, self.revision, self.identity)

    def __getstate__(self) -> dict[str, object]:
        kept = {name: self.__dict__[name] for name in ("name", "revision", "identity")}
        return {**kept, "_loaded": []}

    @property
    def portable(self) -> LazyBase:
        """The same base for a process with another working folder."""
        name = str(Path(self.name).absolute()) if Path(self.name).is_dir() else self.name
        return replace(self, name=name, _loaded=[])


def open_base(name: str, revision: str | None) -> LazyBase:
    """A base that is identified now and loaded later."""
    return LazyBase(name, revision, identify_base(name, revision))
