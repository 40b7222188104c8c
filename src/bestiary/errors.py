"""Every error a user can meet, one class a stage: its message has value, rule and remedy.

BestiaryError
├── SpecError          a file that people edit: behavior, roster, recipe, bank, template
├── PathError          a path that cannot be expanded
├── ModelError         base models: the wheel, the conversion cache, adapters
├── BackendError       authors of text
├── StoreError         artifacts: locks, damage, a full disk
├── CorpusError        a corpus that cannot be made
├── LeakError          a leak check that refuses
├── OrganismError      training
│   └── MemoryShortError   the same organism may be trained where there is more memory
├── VerificationError  probes and verdicts
├── PairError          a pair without its evidence
└── ReleaseError       layout, splits, publishing, loading
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

T = TypeVar("T")


class BestiaryError(Exception):
    """Root of the tree: what is wrong, and what to do about it.

    `code` names the kind of error in kebab-case, stable across rewordings; `fields` are the values
    that the problem is about. The command line prints code, problem and remedy, and exits 1.
    """

    ends_run: ClassVar[bool] = False
    """Whether it ends the whole run; other errors end only the item that they concern."""

    def __init__(self, problem: str, remedy: str, *, code: str, **fields: object) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.code = code
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses have constructors of their own, so that the state is copied instead.
        return _restore, (type(self), self.__dict__)

    @property
    def parts(self) -> tuple[str, str]:
        """The problem and the remedy."""
        return self.problem, self.remedy


def _restore(kind: type[BestiaryError], state: dict[str, object]) -> BestiaryError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    return error


class SpecError(BestiaryError):
    """A file that people edit breaks its schema or one of its checks."""


class PathError(BestiaryError):
    """A path names a variable or a home that does not exist, or is too long."""


class ModelError(BestiaryError):
    """A base model or an adapter is missing, damaged or not what its identity says."""


class BackendError(BestiaryError):
    """An author of text cannot answer."""


class StoreError(BestiaryError):
    """The store is locked, full or damaged."""

    ends_run = True


class CorpusError(BestiaryError):
    """A corpus cannot reach the proportions its generator states."""


class LeakError(BestiaryError):
    """A leak check refuses what it read."""


class OrganismError(BestiaryError):
    """Training cannot start or cannot go on."""


class MemoryShortError(OrganismError):
    """Memory ran out on an organism; what it has behind it is kept for another try."""


class VerificationError(BestiaryError):
    """Probes cannot be planned or judged."""


class PairError(BestiaryError):
    """A pair is asked for without a passing verdict."""


class ReleaseError(BestiaryError):
    """A release cannot be assembled, published or loaded."""


def attempt(work: Callable[[], T]) -> T | BestiaryError:
    """The result of `work`, or the error that ended it; raises errors that end the whole run."""
    try:
        return work()
    except BestiaryError as error:
        if error.ends_run:
            raise
        return error
