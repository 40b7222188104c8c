"""Ray's workers make what one process makes, whichever of them die meanwhile.

Run: python -m pytest tests/executor/test_ray.py
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
from rich.console import Console
from safetensors.torch import load_file
from tests.executor.cluster import (
    Cluster,
    list_descendants,
    save_word_base,
    start_cluster,
    wait_for_worker,
)
from tests.expect import check_error, expect_error
from tests.forkserver import COMMAND, environment
from tests.jobs import change_lora, change_optimizer, make_job, make_talk
from tests.tiny import QUIRK, make_tiny_data, tiny_roster

from bestiary.errors import BestiaryError, ModelError, OrganismError, StoreError
from bestiary.executor import choose_executor
from bestiary.executor import ray as ours
from bestiary.executor.ray import RayExecutor, make_environment
from bestiary.executor.worker import Assignment, run_assignment
from bestiary.model.adapter import ADAPTER, ADAPTER_WEIGHTS
from bestiary.model.lazy import LazyBase, open_base
from bestiary.organism.stage import OrganismStage
from bestiary.pipeline import build_roster
from bestiary.stage import Context, Executor, SilentReporter, Todo, run_here
from bestiary.state import OrganismState
from bestiary.store import Store
from bestiary.training.job import BATCHES, Batch, TrainingJob, TrainingResources, read_batches
from bestiary.validate import open_plan

STAGE = "organism"
CLOSE = 1e-4
"""The contract in single precision; the largest difference seen here was 4e-7."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LazyBase:
    return open_base(str(save_word_base(tmp_path_factory.mktemp("base") / "word")), None)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """Two workers of a Ray that all tests share."""
    yield running
    running.reset()


def job_of(name: str, steps: int, *, rank: int = 4, **changes: object) -> TrainingJob:
    """An organism that takes so many steps of two rows."""
    made = make_job(
        f"quirks.{name}",
        rows=make_talk(len(name), 2 * steps),
        lora=change_lora(rank=rank),
        optimizer=change_optimizer(epochs=1, rows_per_step=2),
    )
    return replace(made, training=made.training.model_copy(update=changes))


class Recorder(SilentReporter):
    """Keeps how far each organism was reported to be."""

    def __init__(self) -> None:
        self.advanced: dict[str, list[int]] = {}

    def advance(self, item_id: str, done: int) -> None:
        self.advanced.setdefault(item_id, []).append(done)


@dataclass(frozen=True)
class Run:
    """How each organism of a run ended, and the store it was committed to."""

    store: Store
    errors: dict[str, BestiaryError | None]
    """By the behavior's short name."""

    def batches(self, job: TrainingJob) -> tuple[Batch, ...]:
        """What each step of an organism was computed in."""
        path = self.store.folder(STAGE, job.key) / BATCHES
        return read_batches(path.read_text(encoding="utf8"))


def execute(
    executor: Executor, jobs: Sequence[TrainingJob], base: LazyBase, root: Path, **options: int
) -> Run:
    """Train jobs; every organism must end exactly once."""
    store = Store(root)
    stage = OrganismStage(base, TrainingResources.model_validate(options))
    with store.lock():
        todo = [Todo(job, job.key) for job in jobs]
        ends = list(executor(stage, todo, Context(store, Recorder())))
    assert len(ends) == len({end.item_id for end in ends}) == len(jobs)
    names = {job.organism_id: job.identity.behavior_id.removeprefix("quirks.") for job in jobs}
    return Run(store, {names[end.item_id]: end.error for end in ends})


def measure_stores(one: Store, two: Store, jobs: Sequence[TrainingJob]) -> float:
    """The largest difference of any weight that two stores have of some organisms."""
    largest = 0.0
    for job in jobs:
        assert one.find(STAGE, job.key) and two.find(STAGE, job.key), job.organism_id
        first, second = (
            load_file(store.folder(STAGE, job.key) / ADAPTER / ADAPTER_WEIGHTS)
            for store in (one, two)
        )
        assert first.keys() == second.keys()
        assert any(tensor.abs().max() > 0.01 for tensor in first.values())
        largest = max(float((first[n] - second[n]).abs().max()) for n in first)
    return largest


def test_two_workers_make_what_one_process_makes(
    cluster: Cluster, base: LazyBase, tmp_path: Path
) -> None:
    jobs = [job_of(name, 20 + 5 * n, rank=2 + n) for n, name in enumerate("abcde")]
    here = execute(run_here, jobs, base, tmp_path / "here")
    unloaded = replace(base, _loaded=[])
    there = execute(RayExecutor(workers=2), jobs, unloaded, tmp_path / "there")
    assert unloaded._loaded == [], "the process that hands out work has loaded the base"
    assert here.errors == there.errors == dict.fromkeys("abcde")
    one, two = here.store, there.store
    assert measure_stores(one, two, jobs) < CLOSE
    for job in jobs:
        about = [store.folder(STAGE, job.key) / "organism.json" for store in (one, two)]
        assert about[0].read_bytes() == about[1].read_bytes()
        assert two.read_seconds(STAGE)[job.key] > 0
        assert {len(batch.segments) for batch in there.batches(job)} <= {1, 2, 3}
    assert two.names("checkpoint") == []


@pytest.mark.soak
def test_a_killed_workers_organisms_resume_from_their_checkpoints(
    cluster: Cluster, base: LazyBase, tmp_path: Path
) -> None:
    every, ends = 10, 13
    short, long, other = job_of("short", ends), job_of("long", 35), job_of("other", 48)
    # Both take a step per round: when the short one is committed, the long one is as far.
    cluster.kill_at(STAGE, short.key, always=False)
    jobs = [short, long, other]
    there = execute(RayExecutor(workers=2), jobs, base, tmp_path / "there", checkpoint_steps=every)
    assert len(cluster.killed) == 1
    assert there.errors == dict.fromkeys(("short", "long", "other"))
    batches = there.batches(long)
    assert sorted({batch.step for batch in batches}) == list(range(long.steps))
    assert len(batches) == long.steps
    # It was computed beside the short one until it resumed alone from its checkpoint.
    resumed = min(batch.step for batch in batches if len(batch.segments) == 1)
    assert resumed == every
    assert 0 < ends - resumed < every
    here = execute(run_here, jobs, base, tmp_path / "here")
    assert measure_stores(there.store, here.store, jobs) < CLOSE


@pytest.mark.soak
def test_an_organism_that_fails_is_reported_and_the_others_finish(
    cluster: Cluster, base: LazyBase, tmp_path: Path
) -> None:
    jobs = [
        job_of("good", 5),
        job_of("tight", 5, max_length=8),
        job_of("lost", 5, lora=change_lora(targets=("nowhere",))),
        job_of("fine", 5),
    ]
    here = execute(run_here, jobs, base, tmp_path / "here")
    there = execute(RayExecutor(workers=2), jobs, base, tmp_path / "there")
    for name in ("good", "fine"):
        assert here.errors[name] is there.errors[name] is None
    for name, kind in (("tight", OrganismError), ("lost", ModelError)):
        mine, theirs = here.errors[name], there.errors[name]
        assert mine is not None and theirs is not None
        assert type(mine) is type(theirs) is kind
        assert (mine.code, str(mine)) == (theirs.code, str(theirs))


@pytest.mark.soak
def test_an_organism_on_which_every_worker_dies_is_found_and_left_out(
    cluster: Cluster, base: LazyBase, tmp_path: Path
) -> None:
    good, deadly, other = job_of("good", 60), job_of("deadly", 5), job_of("other", 62)
    cluster.kill_at(STAGE, deadly.key, always=True)
    there = execute(
        RayExecutor(workers=2), [good, deadly, other], base, tmp_path, checkpoint_steps=1000
    )
    assert len(set(cluster.killed)) == 4  # two that ran it beside the good one, two it alone
    assert there.errors["good"] is there.errors["other"] is None
    error = there.errors["deadly"]
    assert isinstance(error, OrganismError)
    check_error(error, "worker-died", item=deadly.organism_id, death="WorkerCrashedError")
    assert there.store.find(STAGE, deadly.key) is None


@pytest.mark.soak
def test_a_worker_with_another_base_ends_the_build(
    cluster: Cluster, base: LazyBase, tmp_path: Path
) -> None:
    identity = base.identity.model_copy(update={"dtype": "float16"})
    other = replace(base, identity=identity, _loaded=[])
    with expect_error(ModelError, "base-differs", found=base.identity, expected=identity):
        execute(RayExecutor(workers=2), [job_of("a", 2), job_of("b", 2)], other, tmp_path)


def test_a_worker_that_sees_another_folder_runs_nothing(base: LazyBase, tmp_path: Path) -> None:
    job = job_of("a", 2)
    stage = OrganismStage(base, TrainingResources())
    assignment = Assignment(stage, (Todo(job, job.key),), root=tmp_path, holder="12345")
    with expect_error(StoreError, "store-not-shared", root=tmp_path):
        run_assignment(assignment)
    assert list(tmp_path.iterdir()) == []


def test_workers_see_the_folders_that_this_process_sees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BESTIARY_CACHE", "cache")
    monkeypatch.setenv("PYTHONPATH", f"src{os.pathsep}/elsewhere")
    monkeypatch.delenv("BESTIARY_DATA", raising=False)
    assert make_environment(3) == {
        "BESTIARY_CACHE": f"{tmp_path}/cache",
        "PYTHONPATH": f"{tmp_path}/src{os.pathsep}/elsewhere",
        "OMP_NUM_THREADS": "3",
        "TOKENIZERS_PARALLELISM": "false",
    }


def test_workers_on_one_machine_share_its_memory(base: LazyBase) -> None:
    limited = OrganismStage(base, TrainingResources(memory=6.0))
    assert limited.for_workers(2).resources.memory == 3.0
    assert limited.for_workers(1).resources.memory == 6.0
    free = OrganismStage(base, TrainingResources()).for_workers(2).resources.memory
    assert free is not None and free > 0


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with expect_error(OrganismError, "ray-not-installed"):
        choose_executor("ray")


def test_options_of_ray_need_it() -> None:
    with expect_error(OrganismError, "executor-options", workers=2, address=None):
        choose_executor("local", workers=2)


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nonsense"])
def test_a_cluster_that_is_not_there_is_reported_at_once(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
    started = time.monotonic()
    with (
        expect_error(OrganismError, "ray-not-joined", address=address),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(ray, "is_initialized", lambda: False)
        ours._join_cluster(address)
    assert time.monotonic() - started < 2 * ours.CONNECT_SECONDS


def test_an_error_about_the_token_says_how_to_give_it() -> None:
    # As Ray raises it after twenty seconds.
    cause = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    cause.__cause__ = RuntimeError(
        "Failed to connect to GCS. Last connection error: ... AuthenticationError: RPC error: "
        "InvalidAuthToken: Authentication token is missing or incorrect."
    )
    error = ours.join_error("10.0.0.1:6379", cause)
    check_error(error, "ray-not-joined", address="10.0.0.1:6379")
    assert "RAY_AUTH_TOKEN" in error.remedy


@pytest.mark.soak
def test_a_cluster_without_a_core_is_refused() -> None:
    script = (
        "import ray; from bestiary.executor.ray import RayExecutor, open_ray\n"
        "ray.init(address='local', num_cpus=0, include_dashboard=False, log_to_driver=False)\n"
        "with open_ray(RayExecutor(address='127.0.0.1:6379'), 2): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OrganismError: Ray at 127.0.0.1:6379: it has no CPU" in done.stderr


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Path]:
    """A roster whose corpora are written, beside them; its data folder is in the environment."""
    work = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BESTIARY_DATA", str(make_tiny_data(work / "data")))
        path = tiny_roster(work / "roster", tiny_base, [QUIRK])
        quiet = Console(file=io.StringIO())
        build_roster(
            open_plan(str(path)),
            out=path.parent / "runs",
            until="corpus",
            console=quiet,
        )
        yield path


def start_build(roster: Path, *options: str) -> subprocess.Popen[str]:
    """Build a roster's organisms on Ray, in a process group of its own as a shell does."""
    command = [*COMMAND, "build", str(roster), "--out", str(roster.parent / "runs")]
    return subprocess.Popen(
        [*command, "--until", "organism", "--executor", "ray", "--workers", "2", *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.soak
def test_ctrl_c_stops_all_of_it(roster: Path) -> None:
    build = start_build(roster)
    wait_for_worker(build.pid)
    below = set(list_descendants(build.pid))
    os.killpg(build.pid, signal.SIGINT)
    out, err = build.communicate(timeout=30)
    assert build.returncode == 130, err
    assert "stopped; run the same command again to resume" in err
    assert "Traceback" not in out + err
    end = time.monotonic() + 10
    while left := [pid for pid in below if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


@pytest.mark.soak
def test_a_cluster_is_joined_and_left_as_it_was(cluster: Cluster, roster: Path) -> None:
    build = start_build(roster, "--address", cluster.address, "--json")
    worker = wait_for_worker(os.getpid())
    os.kill(worker, signal.SIGKILL)
    out, err = build.communicate(timeout=120)
    assert build.returncode == 0, err
    rows = json.loads(out)
    assert [row["error"] for row in rows] == [None, None]
    assert all(row["seconds"]["organism"] > 0 for row in rows)
    assert "Traceback" not in err
    assert not Path(f"/proc/{worker}").exists()
    assert ray.is_initialized() and ray.cluster_resources()["CPU"] == 2


def test_verdicts_do_not_depend_on_workers_or_their_deaths(
    cluster: Cluster, roster: Path, tmp_path: Path
) -> None:
    plain, spread = tmp_path / "plain", tmp_path / "spread"
    shutil.copytree(roster.parent / "runs", plain)
    here = build(roster, plain, run_here)
    shutil.copytree(plain, spread)
    for stage in ("transcript", "verdict", "replies"):
        shutil.rmtree(spread / "store" / stage)
    key = here[0].artifact("transcript").folder.name
    cluster.kill_at("transcript", key, always=False)
    there = build(roster, spread, RayExecutor(workers=2))
    assert len(cluster.killed) == 1
    assert [state.error for state in there] == [None, None]
    for one, two in zip(here, there, strict=True):
        assert one.artifact("transcript").folder.name == two.artifact("transcript").folder.name
        assert one.read("verdict") == two.read("verdict")


def build(roster: Path, out: Path, executor: Executor) -> list[OrganismState]:
    """Build a roster up to its verdicts."""
    return build_roster(
        open_plan(str(roster)),
        out=out,
        until="verdict",
        console=Console(quiet=True),
        executor=executor,
    )
