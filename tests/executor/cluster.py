"""A real Ray of two workers for tests, on which a process is killed where a test says so."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from tests.forkserver import CHECKOUT
from tests.jobs import make_word_base

from bestiary.executor.ray import SETTINGS
from bestiary.model.lazy import LazyBase, open_base

KILLS = "TEST_KILLS"
"""The variable that names a folder with a file for each rename at which a process is killed."""
HOOK = f"""\
import os, signal

rename = os.rename


def rename_or_kill(source, target, *args, **named):
    kills = os.environ.get("{KILLS}", "")
    place = "-".join(str(target).rsplit("/", 2)[-2:])
    if os.path.exists(f"{{kills}}/always-{{place}}"):
        with open(f"{{kills}}/killed", "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target, *args, **named)
    if os.path.exists(f"{{kills}}/once-{{place}}"):
        os.remove(f"{{kills}}/once-{{place}}")
        with open(f"{{kills}}/killed", "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        os.kill(os.getpid(), signal.SIGKILL)


os.rename = rename_or_kill
"""
"""Python runs `sitecustomize` as it starts: this one kills a worker at a rename of the store."""


@dataclass(frozen=True)
class Cluster:
    """A running Ray."""

    address: str
    kills: Path

    def kill_at(self, stage: str, key: str, *, always: bool) -> None:
        """Kill a worker once after an artifact is committed, or always before."""
        (self.kills / f"{'always' if always else 'once'}-{stage}-{key}").touch()

    @property
    def killed(self) -> list[int]:
        """Processes that were killed so."""
        path = self.kills / "killed"
        return [int(line) for line in path.read_text("utf8").split()] if path.exists() else []

    def reset(self) -> None:
        """Forget all kills, done and planned."""
        for path in self.kills.iterdir():
            path.unlink()


@contextmanager
def start_cluster(work: Path) -> Iterator[Cluster]:
    """Two workers that see this checkout."""
    kills, hook = work / "kills", work / "hook"
    kills.mkdir()
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK, encoding="utf8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{hook}{os.pathsep}{CHECKOUT / 'src'}")
        patch.setenv(KILLS, str(kills))
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.delenv("RAY_AUTH_MODE")  # Ray sets it as it starts, and it is to be undone
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        try:
            yield Cluster(ray.get_runtime_context().gcs_address, kills)
        finally:
            ray.shutdown()


def save_word_base(folder: Path) -> Path:
    """The base of tests/jobs.py as a folder, which every process can load."""
    base = make_word_base()
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def open_word_base(folder: Path) -> LazyBase:
    """That folder, identified."""
    return open_base(str(folder), None)


def list_descendants(pid: int) -> dict[int, str]:
    """The processes below one, each with how it calls itself."""
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        parent = Path(f"/proc/{waiting.pop()}")
        try:
            lists = [path.read_text() for path in parent.glob("task/*/children")]
            children = [int(child) for text in lists for child in text.split()]
            for child in children:
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().decode().rstrip("\0 ")
            waiting += children
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


def wait_for_worker(pid: int, *, seconds: float = 150.0) -> int:
    """The first worker below a process that is seen to run an assignment."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for child, name in list_descendants(pid).items():
            if name.startswith("ray::run_assignment"):
                return child
        time.sleep(0.02)
    raise AssertionError(f"no worker below {pid} runs anything within {seconds} s")
