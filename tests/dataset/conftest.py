"""The sample release of the release's own tests."""

from __future__ import annotations

from tests.release.conftest import release

__all__ = ["release"]
