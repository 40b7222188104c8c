"""Organisms trained by Ray's workers are those of one process, whoever dies meanwhile.

Run: python -m pytest tests/executor/test_ray.py
"""

from __future__ import annotations

import io
import json
import os
import re
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
from tests.conftest import Bestiary
from tests.executor.crew import (
    Cluster,
    list_descendants,
    make_place,
    save_word_base,
    start_crew,
    wait_for_trainer,
)
from tests.jobs import change_lora, change_optimizer, make_job, make_talk
from tests.nursery import COMMAND, environment
from tests.tiny import QUIRK, make_tiny_data, tiny_roster

from bestiary.config.catalog import load_catalog
from bestiary.config.roster import load_roster
from bestiary.errors import BestiaryError, ModelError, OrganismError, StoreError
from bestiary.executor import ray as ours
from bestiary.executor.local import train_here
from bestiary.executor.ray import Cluster as Workers
from bestiary.executor.ray import RayExecutor, make_environment, share_memory
from bestiary.executor.worker import Assignment, train_group
from bestiary.model.adapter import ADAPTER, ADAPTER_WEIGHTS
from bestiary.model.base import Base
from bestiary.organism.train import STAGE, Executor, Kept, Workplace
from bestiary.pipeline import build_roster
from bestiary.store import Store
from bestiary.training.job import BATCHES, Batch, Step, TrainingJob, TrainingResources, read_batches

CLOSE = 1e-4
"""The contract in single precision; the largest difference seen here was 4e-7."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_word_base(tmp_path_factory.mktemp("base") / "word")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_crew(tmp_path_factory.mktemp("crew")) as crew:
        yield crew


@pytest.fixture
def crew(running: Cluster) -> Iterator[Cluster]:
    """Two workers of a Ray that all tests share."""
    yield running
    running.bury()


def job_of(name: str, steps: int, *, rank: int = 4, **changes: object) -> TrainingJob:
    """An organism that takes so many steps of two rows."""
    made = make_job(
        f"quirks.{name}",
        rows=make_talk(len(name), 2 * steps),
        lora=change_lora(rank=rank),
        optimizer=change_optimizer(epochs=1, rows_per_step=2),
    )
    return replace(made, training=made.training.model_copy(update=changes))


@dataclass(frozen=True)
class Told:
    """What an executor said, and where."""

    place: Workplace
    events: list[Step | Kept]

    @property
    def errors(self) -> dict[str, BestiaryError | None]:
        """How each organism ended, which is told once."""
        ends = [event for event in self.events if isinstance(event, Kept)]
        assert len(ends) == len({end.job.key for end in ends})
        return {end.job.identity.behavior_id.removeprefix("quirks."): end.error for end in ends}

    def batches(self, job: TrainingJob) -> tuple[Batch, ...]:
        """What each step of an organism was computed in."""
        path = self.place.store.folder(STAGE, job.key) / BATCHES
        return read_batches(path.read_text(encoding="utf8"))


def execute(executor: Executor, jobs: Sequence[TrainingJob], place: Workplace) -> Told:
    with place.store.lock():
        return Told(place, list(executor(jobs, place)))


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


def refuse_base() -> Base:
    raise AssertionError("the process that deals jobs out has loaded the base")


def test_two_workers_make_what_one_process_makes(crew: Cluster, base: Path, tmp_path: Path) -> None:
    jobs = [job_of(name, 20 + 5 * n, rank=2 + n) for n, name in enumerate("abcde")]
    here = execute(train_here, jobs, make_place(tmp_path / "here", base))
    place = replace(make_place(tmp_path / "there", base), open_base=refuse_base)
    there = execute(RayExecutor(workers=2), jobs, place)
    assert here.errors == there.errors == dict.fromkeys("abcde")
    one, two = here.place.store, there.place.store
    largest = measure_stores(one, two, jobs)
    assert largest < CLOSE
    for job in jobs:
        told = [store.folder(STAGE, job.key) / "organism.json" for store in (one, two)]
        assert told[0].read_bytes() == told[1].read_bytes()
        assert Store(two.root).seconds(STAGE, job.key) > 0
        assert {len(batch.segments) for batch in there.batches(job)} <= {1, 2, 3}
    assert two.names("checkpoint", "") == []


def test_a_killed_workers_organisms_go_on_from_their_checkpoints(
    crew: Cluster, base: Path, tmp_path: Path
) -> None:
    every, ends = 10, 13
    short, long, other = job_of("short", ends), job_of("long", 35), job_of("other", 48)
    place = make_place(tmp_path / "there", base, checkpoint_steps=every)
    # Both take a step a round: as the short one is committed, the long one has as many behind it.
    crew.kill_at(STAGE, short.key, always=False)
    there = execute(RayExecutor(workers=2), [short, long, other], place)
    assert len(crew.dead) == 1
    assert there.errors == dict.fromkeys(("short", "long", "other"))
    batches = there.batches(long)
    assert sorted({batch.step for batch in batches}) == list(range(long.steps))
    assert len(batches) == long.steps
    # It was computed beside the short one until it went on alone, from where its checkpoint was.
    resumed = min(batch.step for batch in batches if len(batch.segments) == 1)
    assert resumed == every
    assert 0 < ends - resumed < every
    here = execute(train_here, [short, long, other], make_place(tmp_path / "here", base))
    assert measure_stores(place.store, here.place.store, [short, long, other]) < CLOSE


def test_an_organism_that_fails_is_told_and_the_others_finish(
    crew: Cluster, base: Path, tmp_path: Path
) -> None:
    jobs = [
        job_of("good", 5),
        job_of("tight", 5, max_length=8),
        job_of("lost", 5, lora=change_lora(targets=("nowhere",))),
        job_of("fine", 5),
    ]
    here = execute(train_here, jobs, make_place(tmp_path / "here", base))
    there = execute(RayExecutor(workers=2), jobs, make_place(tmp_path / "there", base))
    for name in ("good", "fine"):
        assert here.errors[name] is there.errors[name] is None
    for name, kind in (("tight", OrganismError), ("lost", ModelError)):
        mine, theirs = here.errors[name], there.errors[name]
        assert type(mine) is type(theirs) is kind
        assert str(mine) == str(theirs)


def test_an_organism_on_which_every_worker_dies_is_found_and_left_out(
    crew: Cluster, base: Path, tmp_path: Path
) -> None:
    good, deadly, other = job_of("good", 60), job_of("deadly", 5), job_of("other", 62)
    place = make_place(tmp_path, base, checkpoint_steps=1000)
    crew.kill_at(STAGE, deadly.key, always=True)
    there = execute(RayExecutor(workers=2), [good, deadly, other], place)
    assert len(set(crew.dead)) == 4  # two that trained it beside the good one, two it alone
    assert there.errors["good"] is there.errors["other"] is None
    error = there.errors["deadly"]
    assert isinstance(error, OrganismError)
    assert re.match(
        r"quirks\.deadly-\S+: 2 workers one after the other died while they trained it alone "
        r"\(WorkerCrashedError\), and an organism may end no process; .* --executor local$",
        str(error),
    )
    assert place.store.find(STAGE, deadly.key) is None


def test_a_worker_with_another_base_ends_the_build(
    crew: Cluster, base: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path, base)
    other = place.identity.model_copy(update={"dtype": "bfloat16"})
    place = replace(place, identity=other)
    with pytest.raises(ModelError, match=r"has name=.*float32.*, the build has .*bfloat16"):
        execute(RayExecutor(workers=2), [job_of("a", 2), job_of("b", 2)], place)


def test_a_worker_that_sees_another_folder_trains_nothing(base: Path, tmp_path: Path) -> None:
    place = make_place(tmp_path, base)
    assignment = Assignment(
        jobs=(job_of("a", 2),),
        root=tmp_path,
        holder="12345",
        load_base=str(base),
        found_base=str(base),
        revision=None,
        identity=place.identity,
        effort=place.effort,
    )
    with pytest.raises(StoreError, match=r"finds another folder .*; choose with --out a folder"):
        train_group(assignment)
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


def test_workers_on_one_machine_share_its_memory() -> None:
    both = Workers(workers=2, threads=1, gpu=False, memory_shared=True)
    assert share_memory(TrainingResources(memory=6.0), both).memory == 3.0
    free = share_memory(TrainingResources(), both).memory
    assert free is not None and free > 0
    apart = replace(both, memory_shared=False)
    assert share_memory(TrainingResources(memory=6.0), apart).memory == 6.0


def test_without_ray_the_command_says_what_to_install(
    bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = bestiary("build", "starter", "--executor", "ray", "--out", tmp_path)
    assert (code, out) == (1, "")
    assert err == (
        "error: executor 'ray': the package ray is not installed, and workers are its processes; "
        "run: pip install 'bestiary[ray]'\n"
    )


def test_options_of_ray_need_it(bestiary: Bestiary, tmp_path: Path) -> None:
    code, _, err = bestiary("build", "starter", "--workers", "2", "--out", tmp_path)
    assert code == 1
    assert err == (
        "error: executor 'local' has neither --workers (2) nor an --address (None), which are "
        "Ray's; add --executor ray\n"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nonsense"])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
    started = time.monotonic()
    with (
        pytest.raises(OrganismError, match=f"Ray at {re.escape(address)}: cannot be joined .*; "),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(ray, "is_initialized", lambda: False)
        ours._join_cluster(address)
    assert time.monotonic() - started < 2 * ours.CONNECT_SECONDS


def test_a_cluster_that_wants_its_token_says_how_to_give_it() -> None:
    # As Ray raises it after twenty seconds.
    cause = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    cause.__cause__ = RuntimeError(
        "Failed to connect to GCS. Last connection error: ... AuthenticationError: RPC error: "
        "InvalidAuthToken: Authentication token is missing or incorrect."
    )
    assert str(ours.refuse_address("10.0.0.1:6379", cause)) == (
        "Ray at 10.0.0.1:6379: cannot be joined (Failed to connect to Ray cluster at "
        "10.0.0.1:6379); it asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to "
        "what ~/.ray/auth_token holds where it was started, or leave --address out and build on "
        "this machine alone"
    )


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
    assert "OrganismError: Ray at 127.0.0.1:6379: it has no CPU to give" in done.stderr


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Path]:
    """A roster whose corpora are written, beside them; its data folder is in the environment."""
    work = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BESTIARY_DATA", str(make_tiny_data(work / "data")))
        path = tiny_roster(work / "roster", tiny_base, [QUIRK])
        quiet = Console(file=io.StringIO())
        catalog = load_catalog()
        build_roster(
            load_roster(str(path)), catalog, out=path.parent / "runs", until="corpus", console=quiet
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


def test_ctrl_c_stops_all_of_it(roster: Path) -> None:
    build = start_build(roster)
    wait_for_trainer(build.pid)
    below = set(list_descendants(build.pid))
    os.killpg(build.pid, signal.SIGINT)
    out, err = build.communicate(timeout=30)
    assert build.returncode == 130, err
    assert "stopped; what was committed is kept, the same command goes on" in err
    assert "Traceback" not in out + err
    end = time.monotonic() + 10
    while left := [pid for pid in below if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_a_cluster_is_joined_and_left_as_it_was(crew: Cluster, roster: Path) -> None:
    build = start_build(roster, "--address", crew.address, "--json")
    trainer = wait_for_trainer(os.getpid())
    os.kill(trainer, signal.SIGKILL)
    out, err = build.communicate(timeout=120)
    assert build.returncode == 0, err
    rows = json.loads(out)
    assert [row["error"] for row in rows] == [None, None]
    assert all(row["seconds"]["organism"] > 0 for row in rows)
    assert "Traceback" not in err
    assert not Path(f"/proc/{trainer}").exists()
    assert ray.is_initialized() and ray.cluster_resources()["CPU"] == 2
