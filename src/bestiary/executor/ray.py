"""Training by Ray's workers: groups of organisms over one store, which alone carries results.

Ray starts processes and says when one has died; it resumes nothing. Every worker commits its
organisms and checkpoints as a build in one process does, so that whoever takes a group up again
goes on from there, and this process reads from the store how far each organism is.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.errors import BestiaryError, OrganismError, StoreError
from bestiary.executor.groups import DEATHS, Group, deal_jobs, regroup_jobs
from bestiary.executor.worker import Assignment, Failure, read_holder, train_group
from bestiary.organism.train import STAGE, Kept, Workplace
from bestiary.store import MANIFEST
from bestiary.training.checkpoint import Checkpoints
from bestiary.training.job import Step, TrainingJob, TrainingResources

if TYPE_CHECKING:
    from ray import ObjectRef

POLL_SECONDS = 1.0
"""How long to wait for a worker's end before the store is looked at again."""
LAG_SECONDS = 60.0
"""How long a shared folder may take to show what another node has written."""
CONNECT_SECONDS = 5.0
STOP_SECONDS = 10.0
"""How long workers may take to end that were told to."""
CORES = 4
"""Cores of one worker, where nobody says how many workers there are to be."""
CARRIED = ("BESTIARY_CACHE", "BESTIARY_DATA", "PYTHONPATH")
"""Variables that workers must see as this process does; all of them name folders."""

SETTINGS = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what Ray prints of its workers would go among our output
    "RAY_USAGE_STATS_ENABLED": "0",  # a build tells nobody that it ran
    "RAY_worker_niceness": "0",  # Ray's 15 leaves workers nothing where anything else computes
}
"""How Ray is used where the environment does not say otherwise."""


@dataclass(frozen=True)
class RayExecutor:
    """Trains jobs on a Ray cluster, or on a Ray of its own on this machine."""

    workers: int | None = None
    """Groups trained at once; None is one a GPU, else one for every four cores, at least two."""
    address: str | None = None
    """The cluster to join; None starts a Ray of its own."""

    def __call__(self, jobs: Sequence[TrainingJob], place: Workplace, /) -> Iterator[Step | Kept]:
        """Train every job, and say how far each is."""
        with open_ray(self, len(jobs)) as crew:
            yield from Dispatch(jobs, place, crew)()


def choose_ray(*, workers: int | None = None, address: str | None = None) -> RayExecutor:
    """The executor; raises OrganismError at once where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise OrganismError(
            "executor 'ray': the package ray is not installed, and workers are its processes; "
            "run: pip install 'bestiary[ray]'"
        )
    return RayExecutor(workers, address)


@dataclass(frozen=True)
class Cluster:
    """Who trains."""

    workers: int
    threads: int
    """Threads of each."""
    gpu: bool
    """Whether each has a GPU of its own."""
    memory_shared: bool
    """Whether all of them take of this machine's memory."""


@contextmanager
def open_ray(executor: RayExecutor, jobs: int) -> Iterator[Cluster]:
    """Join a cluster or start one; what was started is shut down, and what was joined is left."""
    for name, value in SETTINGS.items():  # Ray reads them as it is imported
        os.environ.setdefault(name, value)
    import ray
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = len(os.sched_getaffinity(0))
    ours = not ray.is_initialized()
    alone = ours and executor.address is None
    if ours and executor.address is not None:
        _join_cluster(executor.address)
    try:
        if not alone:
            found = ray.cluster_resources()
            if gpus and not found.get("GPU"):
                raise OrganismError(
                    f"Ray at {executor.address}: it has no GPU, and this build computes on one; "
                    "join a cluster that has, or set CUDA_VISIBLE_DEVICES= to build without"
                )
            cores = int(found.get("CPU", 0))
            if not cores:
                raise OrganismError(
                    f"Ray at {executor.address}: it has no CPU to give, and each worker needs "
                    "one; start its nodes without --num-cpus 0"
                )
            gpus = gpus and int(found["GPU"])
        workers = min(executor.workers or gpus or max(2, cores // CORES), jobs)
        if alone:
            _start_ray(workers, gpus)
        yield Cluster(workers, max(1, cores // workers), gpus > 0, alone and not gpus)
    finally:
        if ours:
            ray.shutdown()


def _start_ray(workers: int, gpus: int) -> None:
    import ray

    # "local": a RAY_ADDRESS in the environment would otherwise be joined.
    ray.init(
        address="local",
        num_cpus=workers,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _join_cluster(address: str) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    # SystemExit: Ray stops the process where the port is answered by something else.
    except (OSError, RuntimeError, ValueError, ImportError, RayError, SystemExit) as cause:
        raise refuse_address(address, cause) from cause


def refuse_address(address: str, cause: BaseException) -> OrganismError:
    """The error of a cluster that cannot be joined."""
    said, inner = str(cause), cause.__cause__
    while inner is not None:
        said, inner = f"{said}\n{inner}", inner.__cause__
    remedy = "give the host:port that `ray start --head` printed, on a machine that is a node of it"
    if "auth token" in said.lower() or "InvalidAuthToken" in said:
        remedy = (
            "it asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what "
            "~/.ray/auth_token holds where it was started"
        )
    return OrganismError(
        f"Ray at {address}: cannot be joined ({said.splitlines()[0]}); {remedy}, or leave "
        "--address out and build on this machine alone"
    )


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


@dataclass(frozen=True)
class Running:
    """A group that a worker has."""

    group: Group
    stood: int
    """Steps that its organisms had behind them when the worker got it."""


class Dispatch:
    """Deals groups out to workers until no organism is left."""

    def __init__(self, jobs: Sequence[TrainingJob], place: Workplace, crew: Cluster) -> None:
        import ray

        self._place = place
        self._crew = crew
        self._effort = share_memory(place.effort, crew)
        self._train: Any = ray.remote(train_group).options(
            name="train_group",
            num_cpus=1,
            num_gpus=1 if crew.gpu else 0,
            max_retries=0,  # a death is answered here, where it is known how far each had got
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": make_environment(crew.threads)},
        )
        self._left = {job.key: job for job in jobs}
        self._done = dict.fromkeys(self._left, 0)
        self._waiting = deque(deal_jobs(jobs, workers=crew.workers))
        self._running: dict[ObjectRef[list[Failure]], Running] = {}

    def __call__(self) -> Iterator[Step | Kept]:
        """Look at the store once a second, and answer each worker's end."""
        import ray

        try:
            yield from self._look()
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._crew.workers:
                    self._submit(self._waiting.popleft())
                over, _ = ray.wait(list(self._running), timeout=POLL_SECONDS)
                yield from self._look()
                for task in over:
                    yield from self._hear(task)
        finally:
            self._stop()

    def _submit(self, group: Group) -> None:
        place = self._place
        assignment = Assignment(
            jobs=group.jobs,
            root=place.store.root.absolute(),
            holder=read_holder(place.store.root),
            load_base=place.load_base,
            found_base=find_folder(place.load_base),
            revision=place.revision,
            identity=place.identity,
            effort=self._effort,
        )
        task = self._train.remote(assignment)
        self._running[task] = Running(group, self._count_steps(group))

    def _count_steps(self, group: Group) -> int:
        return sum(self._done[job.key] for job in group.jobs)

    def _look(self) -> Iterator[Step | Kept]:
        """What the store has that it had not: adapters, and later checkpoints."""
        store = self._place.store
        adapters, checkpoints = set(store.names(STAGE, "")), Checkpoints(store).list_steps()
        for key, job in list(self._left.items()):
            if key in adapters and (store.folder(STAGE, key) / MANIFEST).is_file():
                self._done[key] = job.steps
                yield self._keep(job)
            elif checkpoints.get(key, 0) > self._done[key]:
                self._done[key] = checkpoints[key]
                yield Step(job, checkpoints[key])

    def _keep(self, job: TrainingJob, error: BestiaryError | None = None) -> Kept:
        del self._left[job.key]
        return Kept(job, error)

    def _hear(self, task: ObjectRef[list[Failure]]) -> Iterator[Step | Kept]:
        """Answer a worker's end; what it committed has been seen in the store."""
        import ray
        from ray.exceptions import (
            NodeDiedError,
            OutOfMemoryError,
            RayError,
            RayTaskError,
            WorkerCrashedError,
        )

        running = self._running.pop(task)
        try:
            failures = ray.get(task)
        except RayTaskError as error:
            raise read_cause(error) from error
        except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as death:
            yield from self._bury(running, type(death).__name__)
            return
        except RayError as error:
            raise OrganismError(
                f"Ray: {str(error).splitlines()[0]} ({type(error).__name__}), and without it "
                "nobody trains; start Ray again and then the same command, which goes on"
            ) from error
        named = {job.organism_id: job for job in running.group.jobs}
        for failure in failures:
            yield self._keep(named[failure.organism_id], failure.error)
        yield from self._wait_for(running.group)
        unseen = [job.organism_id for job in named.values() if job.key in self._left]
        if unseen:
            raise StoreError(
                f"{self._place.store.root}: a worker has trained {', '.join(unseen)}, and the "
                "store shows nothing of it; choose a folder with --out that every node shares"
            )

    def _wait_for(self, group: Group) -> Iterator[Step | Kept]:
        """Look again for what a worker has committed: a shared folder may show it late."""
        end = time.monotonic() + LAG_SECONDS
        while any(job.key in self._left for job in group.jobs) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            yield from self._look()

    def _bury(self, running: Running, death: str) -> Iterator[Kept]:
        """Deal out again what a dead worker left; an organism on which workers die is at fault."""
        group = running.group
        left = [job for job in group.jobs if job.key in self._left]
        further = self._count_steps(group) > running.stood
        again = regroup_jobs(group, left, further=further)
        self._waiting.extendleft(reversed(again))
        if left and not again:
            yield self._keep(left[0], blame_death(left[0], death))

    def _stop(self) -> None:
        """End the workers, so that none writes the store once its lock is let go."""
        import ray
        from ray.exceptions import RayError

        tasks = list(self._running)
        with suppress(RayError):
            for task in tasks:
                ray.cancel(task, force=True)
            if tasks:
                ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def share_memory(effort: TrainingResources, crew: Cluster) -> TrainingResources:
    """The effort of one worker: where all compute on this machine, each has its part of it."""
    if not crew.memory_shared:
        return effort
    import torch

    from bestiary.training.memory import FREE_SHARE, GIB, measure_free

    room = effort.memory or FREE_SHARE * measure_free(torch.device("cpu")) / GIB
    return effort.model_copy(update={"memory": room / crew.workers})


def make_environment(threads: int) -> dict[str, str]:
    """The variables of a worker, whose working folder is another."""
    seen = {name: os.environ[name] for name in CARRIED if os.environ.get(name)}
    whole = {
        name: os.pathsep.join(os.path.abspath(part) for part in value.split(os.pathsep) if part)
        for name, value in seen.items()
    }
    return {**whole, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}


def find_folder(base: str) -> str:
    """The name of a base as a worker must have it: a folder's whole path."""
    return str(Path(base).absolute()) if Path(base).is_dir() else base


def blame_death(job: TrainingJob, death: str) -> OrganismError:
    """The error of an organism on which workers die."""
    return OrganismError(
        f"{job.organism_id}: {DEATHS} workers one after the other died while they trained it alone "
        f"({death}), and an organism may end no process; shorten its longest conversations, give "
        "its workers more memory with a lower --workers, or see how it fails with --executor local"
    )


def read_cause(error: Any) -> Exception:
    """What a task raised; where it could not even start, an error that says what is missing."""
    cause: Exception = error.cause
    if isinstance(cause, ImportError) or "failed to import" in str(cause):
        last = str(cause).strip().splitlines()[-1]
        return OrganismError(
            f"Ray: a worker cannot import what it needs ({last}); every node needs the same "
            "version: pip install 'bestiary[ray]'"
        )
    return cause
