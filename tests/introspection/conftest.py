"""One world for all tests of introspection, and the command line that reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Bestiary, Finished, run_command, share_folder
from tests.forkserver import environment
from tests.introspection.world import World, make_world

Introspect = Callable[..., Finished]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The organisms and their release, made once a run; tests only read them."""
    return World(share_folder(tmp_path_factory, "world", make_world))


@pytest.fixture(autouse=True)
def data(small_data: Path) -> Path:
    """The data folder of these tests, which the world's own is added to."""
    return small_data


@pytest.fixture(scope="session")
def evaluated_runs(
    tmp_path_factory: pytest.TempPathFactory, world: World, small_folder: Path
) -> Path:
    """A runs folder with the organisms, an adapter trained on them, and its evaluation.

    Beside it, `panel.json` is what the evaluation printed, and `before.json` has the hashes of the
    release and the base before it.
    """

    def make(work: Path) -> None:
        out = work / "runs"
        before = json.dumps(world.hash_files())
        shutil.copytree(world.runs, out)
        options = [*world.options(out), "--json"]
        seen = environment(small_folder)
        done = run_command("introspect", "evaluate", world.release, *options, env=seen)
        assert done.code == 0, done.err
        (work / "panel.json").write_text(done.out, encoding="utf8")
        (work / "before.json").write_text(before, encoding="utf8")

    return share_folder(tmp_path_factory, "evaluated", make) / "runs"


@pytest.fixture
def introspect(bestiary: Bestiary, world: World) -> Introspect:
    """`bestiary introspect COMMAND` on the world's release, or on another one."""

    def run(
        command: str, out: Path, *more: str, release: Path | None = None, recipe: Path | None = None
    ) -> Finished:
        options = [*world.options(out, recipe=recipe), *more]
        return bestiary("introspect", command, release or world.release, *options)

    return run
