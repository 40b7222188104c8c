"""Bestiary: a factory of model organisms, language models that carry one known behavior each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bestiary.dataset.load import load_pairs as load_pairs
    from bestiary.model.base import load_base as load_base

__version__ = "0.1.0"
__all__ = ["__version__", "load_base", "load_pairs"]


def __getattr__(name: str) -> Any:
    """Import the consumers' functions when first used, so that `import bestiary` stays instant."""
    if name == "load_pairs":
        from bestiary.dataset.load import load_pairs

        return load_pairs
    if name == "load_base":
        from bestiary.model.base import load_base

        return load_base
    raise AttributeError(f"module 'bestiary' has no attribute {name!r}")
