"""One world for all tests of introspection, and the command line that reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Bestiary, Finished, share_folder
from tests.introspection.world import World, make_world

Introspect = Callable[..., Finished]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The organisms and their release, made once a run; tests only read them."""
    return World(share_folder(tmp_path_factory, "world", make_world))


@pytest.fixture
def introspect(bestiary: Bestiary, world: World) -> Introspect:
    """`bestiary introspect COMMAND` on the world's release, or on another one."""

    def run(
        command: str, out: Path, *more: str, release: Path | None = None, recipe: Path | None = None
    ) -> Finished:
        options = [*world.options(out, recipe=recipe), *more]
        return bestiary("introspect", command, release or world.release, *options)

    return run
