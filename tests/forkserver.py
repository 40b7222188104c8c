"""A warm process that forks builds, so that a test can kill and restart a hundred in a minute.

It imports everything and computes nothing, since a process that has used torch must not fork.
With a disk of its own it lives in a private mount namespace, where it may fill a small one.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from bestiary.config.library import open_library

CHECKOUT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "bestiary")
"""The command line, for a process of its own."""

HANGING_SECONDS = 240.0
"""A build that takes longer says where it stands, and fails."""


Side = Literal["before", "after"]


@dataclass(frozen=True)
class KillPoint:
    """When a build is killed: after so many seconds, or at one of its renames."""

    seconds: float | None = None
    rename: int | None = None
    side: Side = "before"


NEVER = KillPoint()


def environment(data: Path | None = None) -> dict[str, str]:
    """What a process sees that runs this checkout's source, over a data folder if one is named."""
    seen = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    return seen if data is None else {**seen, "BESTIARY_DATA": str(data)}


@dataclass(frozen=True)
class RunResult:
    """How a build ended: its exit code, or minus the signal that killed it."""

    code: int
    seconds: float
    renames: int
    out: str
    err: str


class ForkServer:
    """Starts the warm process; `run` gives it one command line at a time."""

    def __init__(self, *, data: Path, disk: bool = False) -> None:
        self._process = subprocess.Popen(
            [*(_private_mounts() if disk else []), sys.executable, "-m", "tests.forkserver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env={
                **environment(data),
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                # A thread of pyarrow's allocator would not survive a fork, its locks would.
                "JE_ARROW_MALLOC_CONF": "background_thread:false",
            },
        )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def run(self, *args: str | Path, kill: KillPoint = NEVER) -> RunResult:
        """Run `bestiary ARGS` in a fork."""
        answer = self._ask({"args": [str(arg) for arg in args], "kill": asdict(kill)})
        return RunResult(**answer)

    def execute(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program where the server's mounts are seen."""
        answer = self._ask({"command": [str(part) for part in command]})
        return subprocess.CompletedProcess(command, answer["code"], answer["out"], answer["err"])

    def mount(self, folder: Path, options: str) -> None:
        """Mount a fresh tmpfs; with `remount` among the options, change the one there is."""
        done = self.execute("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
        assert done.returncode == 0, done.stderr

    def see(self, path: Path) -> Path:
        """A path as the server sees it, for this process to read."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def _private_mounts() -> list[str]:
    """As root a mount namespace is enough; others get one with a user namespace around it."""
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


def main() -> None:
    """Answer requests, a JSON line each, until the input ends."""
    _warm_up()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers goes to the pipe
    for line in sys.stdin:
        request = json.loads(line)
        if "command" in request:
            done = subprocess.run(request["command"], capture_output=True, text=True, check=False)
            answer: dict[str, Any] = {
                "code": done.returncode,
                "out": done.stdout,
                "err": done.stderr,
            }
        else:
            answer = _fork(request["args"], KillPoint(**request["kill"]))
        print(json.dumps(answer), file=answers, flush=True)


def _warm_up() -> None:
    """Import what a build imports, and read the banks, which no test changes."""
    from bestiary.cli.app import COLLECTOR_THRESHOLD

    gc.set_threshold(COLLECTOR_THRESHOLD)
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.utils.logging  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import bestiary.pipeline
    import bestiary.report.results  # noqa: F401

    torch.set_num_threads(1)
    open_library().load()
    gc.freeze()  # or the children would copy what they only read


def _fork(args: list[str], kill: KillPoint) -> dict[str, Any]:
    spools = [os.memfd_create(name) for name in ("out", "err", "renames")]
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.dup2(spools[0], 1)
        os.dup2(spools[1], 2)
        _run_child(args, kill, spools[2])
    if kill.seconds is not None:
        time.sleep(kill.seconds)
        os.kill(child, signal.SIGKILL)  # the child is unreaped, so its number is still its own
    _, status = os.waitpid(child, 0)
    out, err, renames = (os.pread(spool, 2**20, 0).decode() for spool in spools)
    for spool in spools:
        os.close(spool)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "renames": int(renames or 0),
        "out": out,
        "err": err,
    }


def _run_child(args: list[str], kill: KillPoint, count: int) -> None:
    """The child: runs the command line, counts its renames, and dies where it was told to."""
    import faulthandler

    from bestiary.cli.app import main as bestiary

    faulthandler.dump_traceback_later(HANGING_SECONDS, exit=True, file=2)
    rename, done = os.rename, 0

    def rename_or_die(*names: Any, **options: Any) -> None:
        nonlocal done
        done += 1
        os.pwrite(count, str(done).encode(), 0)
        if done == kill.rename and kill.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*names, **options)
        if done == kill.rename:
            os.kill(os.getpid(), signal.SIGKILL)

    os.rename = rename_or_die
    sys.argv = ["bestiary", *args]
    code = 70
    try:
        bestiary()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
