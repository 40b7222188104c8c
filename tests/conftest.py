"""What tests share: the tiny base, its data folder, one build of it, and the command line."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from filelock import FileLock
from tests.forkserver import COMMAND, environment

from bestiary.cli.app import COLLECTOR_THRESHOLD

if TYPE_CHECKING:
    from tests.fakes.hub import Hub

# Matrices of 64 columns gain nothing from threads, which only wait for each other on a busy
# machine; the variable counts because nothing has imported torch yet.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Servers of tests speak plain HTTP. A folder without certificates spares every client the reading
# of the system's, which takes longer than most of its tests.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
# A shell that runs the suite in the background ignores Ctrl-C for it, and builds that are started
# here to be interrupted would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# As the command line does: what is imported stays, and need not be walked again and again.
gc.set_threshold(COLLECTOR_THRESHOLD)


LONGEST = (
    *("test_end_to_end.py", "test_ray.py", "test_kills.py", "test_batch.py", "test_engine.py"),
    *("test_bench.py", "test_language.py", "test_memory.py", "test_store.py", "test_pipeline.py"),
    *("test_evaluate.py", "test_ask.py", "test_language_judge.py", "test_push.py"),
    "test_extending.py",
)


SLOW = {
    *LONGEST,
    *("test_adapter.py", "test_app.py", "test_backend_bench.py", "test_base.py"),
    *("test_checkpoint.py", "test_checks.py", "test_completion.py", "test_decoding.py"),
    *("test_engine_faults.py", "test_full_disk.py", "test_keys.py", "test_layout.py"),
    *("test_lazy.py", "test_library.py", "test_limiter.py", "test_line.py", "test_machines.py"),
    *("test_online.py", "test_packing.py", "test_providers.py", "test_reference.py"),
    *("test_chat.py", "test_results.py", "test_served.py", "test_shipped_corpora.py"),
    *("test_guide.py", "test_preferences.py", "test_subjects.py", "test_sweep.py", "test_train.py"),
}
"""Files that take more than ten seconds, or read the build of a roster: `make test-fast` leaves
them out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast` leaves out the slow files."""
    parser.addoption("--fast", action="store_true", help="leave out the files that take long")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Slow files are not even imported, which takes as long as many a test."""
    return True if config.getoption("fast") and collection_path.name in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that two workers end together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    gc.freeze()  # everything is imported


class Finished(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Bestiary(Protocol):
    """Runs the command line with some arguments, `say` being what it reads from its user."""

    def __call__(self, *args: str | Path, say: str = "") -> Finished: ...


@dataclass(frozen=True)
class Site:
    """A data folder, a roster over it, and what it was built into."""

    data: Path
    roster: Path
    out: Path
    said: Finished
    """What its first build said."""

    @property
    def release(self) -> Path:
        return self.out / "release"

    def artifacts(self) -> dict[str, set[str]]:
        """Keys by stage, without the checkpoints, which training keeps for itself."""
        stages = [path for path in (self.out / "store").glob("*/") if path.name != "checkpoint"]
        return {stage.name: {folder.name for folder in stage.iterdir()} for stage in stages}

    def summary(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.out / "summary.json").read_text("utf8"))
        return rows

    def times(self) -> dict[str, int]:
        """When each file of the store and of the release was last written."""
        return {
            path.relative_to(self.out).as_posix(): path.stat().st_mtime_ns
            for part in ("store", "release")
            for path in (self.out / part).rglob("*")
        }

    def added_since(self, before: dict[str, set[str]]) -> dict[str, int]:
        """How many artifacts each stage has more; those from before must all be there."""
        now = self.artifacts()
        assert all(before[stage] <= now[stage] for stage in before)
        return {stage: len(now[stage] - before.get(stage, set())) for stage in now}

    def damage_adapter(self) -> Path:
        """Flip one bit in the weights of the first organism; returns their file."""
        weights: Path = (
            self.out / self.summary()[0]["folder"] / "adapter" / "adapter_model.safetensors"
        )
        damaged = bytearray(weights.read_bytes())
        damaged[-1] ^= 1
        weights.write_bytes(damaged)
        return weights


def run_command(*args: str | Path, env: Mapping[str, str], cwd: Path | None = None) -> Finished:
    """Run the command line as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *args], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def bestiary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bestiary:
    """Runs the command line in this process, which has its libraries loaded already."""
    from bestiary.cli.app import main

    monkeypatch.setenv("COLUMNS", "160")

    def run(*args: str | Path, say: str = "") -> Finished:
        monkeypatch.setattr(sys, "argv", ["bestiary", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(say))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capsys.readouterr()
        return Finished(code if isinstance(code, int) else int(code is not None), out, err)

    return run


def share_folder(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """A folder that the first worker makes, while others that need it wait."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers of this run
    folder, done = root / "shared" / name, root / "shared" / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base model, fitted once a run."""
    from tests.tiny import make_tiny_base

    return share_folder(tmp_path_factory, "tiny", make_tiny_base)


@pytest.fixture
def tiny_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, which everything in this process and below it reads."""
    from tests.tiny import make_tiny_data

    data = make_tiny_data(tmp_path / "data")
    monkeypatch.setenv("BESTIARY_DATA", str(data))
    return data


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with few behaviors, which no test changes."""
    from tests.small import make_small_data

    return share_folder(tmp_path_factory, "small", make_small_data)


@pytest.fixture
def small_data(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the one that this process reads."""
    monkeypatch.setenv("BESTIARY_DATA", str(small_folder))
    return small_folder


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Site:
    """A roster of a quirk and a backdoor, built once with `--json`, for tests to read or copy."""
    from tests.tiny import ALONE, BACKDOOR, QUIRK, make_tiny_data, tiny_roster

    def make(work: Path) -> None:
        data = make_tiny_data(work / "data")
        roster = tiny_roster(work / "roster", tiny_base, [QUIRK, BACKDOOR])
        options = ("--out", work / "runs", "--json")
        said = run_command("build", roster, *ALONE, *options, env=environment(data))
        assert said.code == 0, said.err
        (work / "said.json").write_text(json.dumps(said), encoding="utf8")

    work = share_folder(tmp_path_factory, "first", make)
    said = Finished(*json.loads((work / "said.json").read_text(encoding="utf8")))
    return Site(work / "data", work / "roster" / "roster.yaml", work / "runs", said)


@pytest.fixture
def site(first: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy of the first build, with the times of its files, and a data folder to change."""
    shutil.copytree(first.data, tmp_path / "data")
    shutil.copytree(first.out, tmp_path / "runs")
    monkeypatch.setenv("BESTIARY_DATA", str(tmp_path / "data"))
    return replace(first, data=tmp_path / "data", out=tmp_path / "runs")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub on loopback; `reach` says how a process finds it."""
    from tests.fakes.hub import serve_hub

    with serve_hub() as server:
        yield server


def reach(hub: Hub, cache: Path) -> dict[str, str]:
    """What makes the loopback Hub the one that a process knows: its client reads it once."""
    from tests.fakes.hub import TOKEN

    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "HF_HOME": str(cache),
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
