"""The Ray executor: workers run groups of items over one store, which carries all results.

Ray starts processes and reports when one has died; it resumes nothing. Every worker commits
artifacts and checkpoints as a build in one process does, so the worker that takes over a bucket
resumes from them, and this process reads from the store how far each item is.
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
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bestiary.errors import BestiaryError, OrganismError, StoreError
from bestiary.executor.partition import DEATHS, Bucket, partition, requeue_after_death
from bestiary.executor.worker import Assignment, read_holder, run_assignment
from bestiary.stage import Context, Finished, Item, Stage, Todo
from bestiary.store import MANIFEST

if TYPE_CHECKING:
    from ray import ObjectRef

POLL_SECONDS = 1.0
"""How long to wait for a worker to finish before looking at the store again."""
LAG_SECONDS = 60.0
"""How long a shared folder may take to show what another machine has written."""
CONNECT_SECONDS = 5.0
STOP_SECONDS = 10.0
"""How long canceled workers may take to exit."""
CORES = 4
"""Cores per worker, if the number of workers is not given."""
CARRIED = ("BESTIARY_CACHE", "BESTIARY_DATA", "PYTHONPATH")
"""Variables that workers must see as this process does; all of them name folders."""

SETTINGS = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray's messages about workers would mix with our output
    "RAY_USAGE_STATS_ENABLED": "0",  # a build reports to nobody
    "RAY_worker_niceness": "0",  # at Ray's 15, workers starve if anything else computes
}
"""How Ray is used unless the environment says otherwise."""

In = TypeVar("In", bound=Item)


@dataclass(frozen=True)
class RayExecutor:
    """Runs stages on a Ray cluster, or on a Ray of its own on this machine."""

    workers: int | None = None
    """Buckets run at once; None is one per GPU, else one per four cores and at least two."""
    address: str | None = None
    """The cluster to join; None starts a Ray of its own."""

    def __call__(
        self, stage: Stage[In, Any], todo: Sequence[Todo[In]], context: Context, /
    ) -> Iterator[Finished]:
        """Run a stage on items; every artifact is in the store before its Finished comes."""
        with open_ray(self, len(todo)) as cluster:
            yield from Dispatch(stage, todo, context, cluster)()


def choose_ray(*, workers: int | None = None, address: str | None = None) -> RayExecutor:
    """The executor; raises OrganismError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise OrganismError(
            "executor 'ray': the package ray is not installed, and workers are its processes",
            "run: pip install 'bestiary[ray]'",
            code="ray-not-installed",
        )
    return RayExecutor(workers, address)


@dataclass(frozen=True)
class Cluster:
    """The workers that Ray offers."""

    workers: int
    threads: int
    """Threads of each worker."""
    gpu: bool
    """Whether each worker has a GPU of its own."""
    memory_shared: bool
    """Whether all workers use this machine's memory."""


@contextmanager
def open_ray(executor: RayExecutor, items: int) -> Iterator[Cluster]:
    """Join a cluster or start one; only what was started here is shut down."""
    for name, value in SETTINGS.items():  # Ray reads them when it is imported
        os.environ.setdefault(name, value)
    import ray

    ours = not ray.is_initialized()
    alone = ours and executor.address is None
    if ours and executor.address is not None:
        _join_cluster(executor.address)
    try:
        yield _measure_cluster(executor, items, alone=alone)
    finally:
        if ours:
            ray.shutdown()


def _measure_cluster(executor: RayExecutor, items: int, *, alone: bool) -> Cluster:
    """How many workers there are and what each has; starts a Ray of its own if `alone`."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = len(os.sched_getaffinity(0))
    if not alone:
        cores, gpus = _check_resources(executor.address, gpus)
    workers = min(executor.workers or gpus or max(2, cores // CORES), items)
    if alone:
        _start_ray(workers, gpus)
    return Cluster(workers, max(1, cores // workers), gpus > 0, alone and not gpus)


def _check_resources(address: str | None, gpus: int) -> tuple[int, int]:
    """The cores and GPUs of a joined cluster; raises OrganismError if it cannot be used."""
    import ray

    found = ray.cluster_resources()
    if gpus and not found.get("GPU"):
        raise OrganismError(
            f"Ray at {address}: it has no GPU, but this build computes on one",
            "join a cluster that has GPUs, or set CUDA_VISIBLE_DEVICES= to build without",
            code="ray-no-gpu",
            address=address,
        )
    cores = int(found.get("CPU", 0))
    if not cores:
        raise OrganismError(
            f"Ray at {address}: it has no CPU to offer, but each worker needs one",
            "start its nodes without --num-cpus 0",
            code="ray-no-cpu",
            address=address,
        )
    return cores, gpus and int(found["GPU"])


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
        check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    # SystemExit: Ray stops the process if something else answers on the port.
    except (OSError, RuntimeError, ValueError, ImportError, RayError, SystemExit) as cause:
        raise join_error(address, cause) from cause


def join_error(address: str, cause: BaseException) -> OrganismError:
    """The error for a cluster that cannot be joined."""
    causes = [str(cause)]
    while cause.__cause__ is not None:
        cause = cause.__cause__
        causes.append(str(cause))
    remedy = "give the host:port that `ray start --head` printed, on a machine that is a node of it"
    if any("auth token" in one.lower() or "InvalidAuthToken" in one for one in causes):
        remedy = (
            "it asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what "
            "~/.ray/auth_token holds on the machine where it was started"
        )
    return OrganismError(
        f"Ray at {address}: cannot be joined ({causes[0].splitlines()[0]})",
        f"{remedy}, or leave --address out to build on this machine",
        code="ray-not-joined",
        address=address,
    )


def check_reachable(address: str) -> None:
    """Fail at once if nothing listens there: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


@dataclass(frozen=True)
class Running(Generic[In]):
    """A bucket that a worker has."""

    bucket: Bucket[In]
    done_before: int
    """Units that its items had done when the worker got it."""


class Dispatch(Generic[In]):
    """Hands buckets to workers until no item is left."""

    def __init__(
        self, stage: Stage[In, Any], todo: Sequence[Todo[In]], context: Context, cluster: Cluster
    ) -> None:
        import ray

        self._stage = stage
        self._store, self._reporter = context.store, context.reporter
        self._cluster = cluster
        # Once: later on, running workers hold some of the memory that they were to share.
        self._for_worker = stage.for_workers(cluster.workers if cluster.memory_shared else 1)
        self._run: Any = ray.remote(run_assignment).options(
            name="run_assignment",
            num_cpus=1,
            num_gpus=1 if cluster.gpu else 0,
            max_retries=0,  # deaths are handled here, where it is known how far each item was
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": make_environment(cluster.threads)},
        )
        self._left = {one.key: one for one in todo}
        self._done = dict.fromkeys(self._left, 0)
        self._waiting = deque(partition(stage, todo, cluster.workers))
        self._running: dict[ObjectRef[list[Finished]], Running[In]] = {}

    def __call__(self) -> Iterator[Finished]:
        """Look at the store once a second, and handle each worker that has finished or died."""
        import ray

        try:
            yield from self._look()
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._cluster.workers:
                    self._submit(self._waiting.popleft())
                over, _ = ray.wait(list(self._running), timeout=POLL_SECONDS)
                yield from self._look()
                for task in over:
                    yield from self._handle_end(task)
        finally:
            self._stop()

    def _submit(self, bucket: Bucket[In]) -> None:
        assignment = Assignment(
            stage=self._for_worker,
            todo=bucket.todo,
            root=self._store.root.absolute(),
            holder=read_holder(self._store.root),
        )
        self._running[self._run.remote(assignment)] = Running(bucket, self._count_done(bucket))

    def _count_done(self, bucket: Bucket[In]) -> int:
        return sum(self._done[one.key] for one in bucket.todo)

    def _look(self) -> Iterator[Finished]:
        """New artifacts and later checkpoints found in the store."""
        name = self._stage.name
        committed = set(self._store.names(name))
        checkpoints = self._stage.checkpoints(self._store)
        for key, (item, _) in list(self._left.items()):
            if (
                key in committed
                and (self._store.folder(self._stage.name, key) / MANIFEST).is_file()
            ):
                self._done[key] = self._stage.size(item)
                yield self._finish(key)
            elif checkpoints.get(key, 0) > self._done[key]:
                self._done[key] = checkpoints[key]
                self._reporter.advance(item.item_id, checkpoints[key])
        self._reporter.refresh()

    def _finish(self, key: str, error: BestiaryError | None = None) -> Finished:
        return Finished(self._left.pop(key).item.item_id, error)

    def _handle_end(self, task: ObjectRef[list[Finished]]) -> Iterator[Finished]:
        """Handle a worker that has ended; what it committed was seen in the store."""
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
            ended: list[Finished] = ray.get(task)
        except RayTaskError as error:
            raise read_cause(error) from error
        except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as death:
            yield from self._requeue(running, type(death).__name__)
        except RayError as error:
            raise OrganismError(
                f"Ray: {str(error).splitlines()[0]} ({type(error).__name__})",
                "start Ray again, then the same command, which resumes where it stopped",
                code="ray-failed",
            ) from error
        else:
            yield from self._handle_results(running.bucket, ended)

    def _handle_results(self, bucket: Bucket[In], ended: Sequence[Finished]) -> Iterator[Finished]:
        keys = {one.item.item_id: one.key for one in bucket.todo}
        for item_id, error, _ in ended:
            if error is not None:
                yield self._finish(keys[item_id], error)
        end = time.monotonic() + LAG_SECONDS  # a shared folder may show late what was committed
        while any(key in self._left for key in keys.values()) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            yield from self._look()
        unseen = [item_id for item_id, key in keys.items() if key in self._left]
        if unseen:
            raise StoreError(
                f"{self._store.root}: a worker has committed {', '.join(unseen)}, but the store "
                "does not show it",
                "choose a folder with --out that every machine shares",
                code="store-not-shared",
                root=self._store.root,
            )

    def _requeue(self, running: Running[In], death: str) -> Iterator[Finished]:
        """Hand out again what a dead worker left; an item on which workers die is at fault."""
        bucket = running.bucket
        left = [one for one in bucket.todo if one.key in self._left]
        advanced = self._count_done(bucket) > running.done_before
        again = requeue_after_death(self._stage, bucket, left, advanced=advanced)
        self._waiting.extendleft(reversed(again))
        if left and not again:
            yield self._finish(left[0].key, death_error(left[0].item.item_id, death))

    def _stop(self) -> None:
        """Stop the workers, so that none writes the store once its lock is released."""
        import ray
        from ray.exceptions import RayError

        tasks = list(self._running)
        with suppress(RayError):
            for task in tasks:
                ray.cancel(task, force=True)
            if tasks:
                ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def make_environment(threads: int) -> dict[str, str]:
    """The variables of a worker, which has another working folder."""
    seen = {name: os.environ[name] for name in CARRIED if os.environ.get(name)}
    whole = {
        name: os.pathsep.join(os.path.abspath(part) for part in value.split(os.pathsep) if part)
        for name, value in seen.items()
    }
    return {**whole, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}


def death_error(item_id: str, death: str) -> OrganismError:
    """The error of an item on which workers die."""
    return OrganismError(
        f"{item_id}: {DEATHS} workers in a row died while they ran it alone ({death})",
        "shorten its longest conversations, give its workers more memory with a lower --workers, "
        "or see how it fails with --executor local",
        code="worker-died",
        item=item_id,
        death=death,
    )


def read_cause(error: Any) -> Exception:
    """What a task raised; if it could not even start, an error that says what is missing."""
    cause: Exception = error.cause
    if isinstance(cause, ImportError) or "failed to import" in str(cause):
        last = str(cause).strip().splitlines()[-1]
        return OrganismError(
            f"Ray: a worker cannot import what it needs ({last})",
            "install the same version on every machine: pip install 'bestiary[ray]'",
            code="ray-import-failed",
        )
    return cause
