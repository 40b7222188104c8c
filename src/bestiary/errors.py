"""Every error a user can meet, one class a stage: its message has value, rule and remedy.

BestiaryError
├── SpecError          a file that people edit: behavior, roster, recipe, bank, template
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


class BestiaryError(Exception):
    """Root of the tree; the command line prints its message and exits 1."""


class SpecError(BestiaryError):
    """A file that people edit breaks its schema or its promises."""

    @property
    def parts(self) -> tuple[str, str]:
        """Its problem and its remedy, which every message ends with."""
        problem, _, remedy = str(self).rpartition("; ")
        return problem, remedy


class ModelError(BestiaryError):
    """A base model or an adapter is missing, damaged or not what its identity says."""


class BackendError(BestiaryError):
    """An author of text cannot answer."""


class StoreError(BestiaryError):
    """The store is locked, full or damaged."""


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
