"""Artifacts, the lock, and disks that are full or cannot be written.

Run: python -m pytest tests/test_store.py
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.expect import expect_error
from tests.forkserver import COMMAND, ForkServer, environment
from tests.tiny import QUIRK, change_file, hash_tree, make_tiny_data, tiny_roster

from bestiary.errors import StoreError
from bestiary.records import Artifact
from bestiary.store import FORMAT, FORMAT_FILE, PART, Store

INPUTS = {"upstream": "abc"}


def write_two(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "one.txt").write_text("one")
    (folder / "inner" / "two.txt").write_text("two")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that an earlier build has opened."""
    opened = Store(tmp_path / "runs")
    with opened.lock():
        return opened


@pytest.fixture
def artifact(store: Store) -> Artifact:
    return store.build("corpus", "f1", write_two, inputs=INPUTS)


def list_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_an_artifact_is_found_as_it_was_committed(store: Store, artifact: Artifact) -> None:
    assert store.find("corpus", "f1") == artifact
    assert sorted(artifact.files) == ["inner/two.txt", "one.txt"]
    assert artifact.inputs == INPUTS
    assert artifact.folder == store.root / "store" / "corpus" / "f1"
    assert store.find("corpus", "f2") is None
    assert store.find("organism", "f1") is None


def test_an_artifact_that_is_there_is_not_written_again(store: Store, artifact: Artifact) -> None:
    def write(folder: Path) -> None:
        raise AssertionError(f"{folder} is written a second time")

    assert store.build("corpus", "f1", write, inputs=INPUTS) == artifact


def test_the_hash_of_an_artifact_is_that_of_its_files(store: Store, artifact: Artifact) -> None:
    assert store.build("corpus", "f2", write_two, inputs={}).sha256 == artifact.sha256
    other = store.build("corpus", "f3", lambda at: void(at / "one.txt"), inputs=INPUTS)
    assert other.sha256 != artifact.sha256


def void(path: Path) -> None:
    path.write_text("")


def damage_file(folder: Path) -> Path:
    (folder / "one.txt").write_text("two")
    return folder / "one.txt"


def remove_file(folder: Path) -> Path:
    (folder / "inner" / "two.txt").unlink()
    return folder / "inner" / "two.txt"


def cut_manifest(folder: Path) -> Path:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    return path


def empty_manifest(folder: Path) -> Path:
    (folder / "manifest.json").write_text("[]")
    return folder / "manifest.json"


@pytest.mark.parametrize("harm", [damage_file, remove_file, cut_manifest, empty_manifest])
def test_damage_is_named_with_its_remedy(
    store: Store, artifact: Artifact, harm: Callable[[Path], Path]
) -> None:
    path = harm(artifact.folder)
    # The artifact's folder, also for a file deeper in it: deleting less would leave it damaged.
    with expect_error(StoreError, "artifact-damaged", path=path, folder=artifact.folder):
        store.find("corpus", "f1")
    shutil.rmtree(artifact.folder)
    assert store.build("corpus", "f1", write_two, inputs=INPUTS) == artifact


def test_a_folder_without_manifest_is_no_artifact(store: Store, artifact: Artifact) -> None:
    (artifact.folder / "manifest.json").unlink()
    (artifact.folder / "stray.txt").write_text("left by someone")
    assert store.find("corpus", "f1") is None
    assert store.build("corpus", "f1", write_two, inputs=INPUTS) == artifact
    assert list_names(artifact.folder) == ["inner", "inner/two.txt", "manifest.json", "one.txt"]


def leave_part(store: Store, stage: str, key: str) -> Path:
    """An unfinished folder, as a killed process leaves it."""
    part = store.folder(stage, f"{key}.elsewhere-1{PART}")
    part.mkdir(parents=True)
    return part


def test_what_a_killed_build_left_is_ignored_and_cleared(store: Store) -> None:
    part = leave_part(store, "corpus", "f1")
    (part / "half.txt").write_text("half")
    assert store.find("corpus", "f1") is None
    built = store.build("corpus", "f1", write_two, inputs=INPUTS)
    assert "half.txt" not in built.files
    stale = leave_part(store, "organism", "of-a-recipe-since-changed")
    with store.lock():
        assert not stale.exists()
    assert store.find("corpus", "f1") == built


def test_an_error_while_writing_leaves_nothing(store: Store) -> None:
    def write(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build("corpus", "f1", write, inputs=INPUTS)
    assert list_names(store.root / "store" / "corpus") == []
    assert store.find("corpus", "f1") is None


def test_a_build_that_gives_up_takes_its_half_written_folders_along(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.lock():
        leave_part(store, "organism", "f1")
        raise KeyboardInterrupt
    assert list_names(store.root / "store" / "organism") == []


def test_timings_survive_a_line_cut_short(store: Store, artifact: Artifact) -> None:
    timings = store.root / "timings.jsonl"
    row = {"stage": "corpus", "key": "f2", "seconds": 2.5}
    timings.write_text('{"stage": "corp\n' + json.dumps(row) + "\n")
    assert store.read_seconds(artifact.folder.parent.name) == {"f2": 2.5}


def test_names_are_the_folders_that_begin_so_in_order(store: Store) -> None:
    assert store.names("corpus", "f") == []
    for name in ("f2-000100", "f1", "f2-000099", "g1"):
        store.build("corpus", name, write_two, inputs=INPUTS)
    store.build("organism", "f3", write_two, inputs=INPUTS)
    leave_part(store, "corpus", "f4")  # never read, since it was not committed
    assert store.names("corpus", "f") == ["f1", "f2-000099", "f2-000100"]
    assert store.names("corpus", "f2-") == ["f2-000099", "f2-000100"]
    assert store.names("corpus", "") == ["f1", "f2-000099", "f2-000100", "g1"]
    assert store.names("corpus", "h") == []


def test_a_discarded_artifact_is_gone_and_others_stay(store: Store, artifact: Artifact) -> None:
    other = store.build("corpus", "f2", write_two, inputs=INPUTS)
    store.discard("corpus", "f1")
    assert not artifact.folder.exists()
    assert store.find("corpus", "f1") is None
    assert store.names("corpus", "f") == ["f2"]
    assert store.find("corpus", "f2") == other
    store.discard("corpus", "f1")  # what is gone can be discarded again
    assert store.build("corpus", "f1", write_two, inputs=INPUTS) == artifact


def test_a_discard_that_is_cut_short_leaves_no_artifact(
    store: Store, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", give_up)
        store.discard("corpus", "f1")
    assert (artifact.folder / "one.txt").is_file()
    assert store.find("corpus", "f1") is None
    assert store.names("corpus", "f") == ["f1"]  # half-dropped, so that it can be dropped wholly
    store.discard("corpus", "f1")
    assert store.names("corpus", "f") == []


@pytest.mark.parametrize("harm", [damage_file, remove_file, cut_manifest])
def test_a_damaged_artifact_can_be_discarded(
    store: Store, artifact: Artifact, harm: Callable[[Path], Path]
) -> None:
    harm(artifact.folder)
    store.discard("corpus", "f1")
    assert store.find("corpus", "f1") is None


HOLD = "from pathlib import Path; from bestiary.store import Store; import sys, time\n"
HOLD += "with Store(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(600)"


def test_a_second_process_is_refused_until_the_first_is_gone(store: Store) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.root],
        stdout=subprocess.PIPE,
        env=environment(),
    )
    try:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        holding = str(holder.pid)
        with expect_error(StoreError, "store-locked", holder=holding), store.lock():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert holder.stdout
        holder.stdout.close()
    with store.lock():
        assert (store.root / "lock").read_text() == str(os.getpid())


@dataclass(frozen=True)
class Disks:
    """A server that may mount small disks, a tiny roster, and what a build without limits left."""

    server: ForkServer
    roster: Path
    work: Path
    whole: dict[str, str]
    blocks: int
    """4 KiB blocks that the whole build takes."""

    def mount(self, name: str, options: str) -> Path:
        """A fresh disk; returns the folder to build in."""
        (self.work / name).mkdir()
        self.server.mount(self.work / name, options)
        return self.work / name / "runs"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Disks]:
    work = tmp_path_factory.mktemp("disks")
    data = make_tiny_data(work / "data")
    roster = tiny_roster(work / "roster", tiny_base, [QUIRK])
    with ForkServer(data=data, disk=True) as server:
        (work / "large").mkdir()
        server.mount(work / "large", "size=256m")
        done = server.run("build", roster, "--out", work / "large" / "runs")
        assert done.code == 0, done.err
        seen = server.see(work / "large")
        blocks = shutil.disk_usage(seen).used // 4096
        yield Disks(server, roster, work, hash_tree(seen / "runs"), blocks)


def check_one_message(err: str, *parts: str) -> None:
    """One error, in one line, with no traceback."""
    assert "Traceback" not in err
    (message,) = [line for line in err.splitlines() if line.startswith("error[")]
    for part in parts:
        assert part in message


TOO_SMALL = ("error[disk-too-small]", "the adapters of 2 organisms", "free some space")
FULL = ("the disk is full (", "free some space and build again")
SHARES = {0.01: TOO_SMALL, 0.5: FULL}
"""What is said, by the share of the space that a build takes."""
FURTHER_SHARES = (0.1, 0.15, 0.25, 0.4, 0.6, 0.7, 0.8, 0.9, 0.97)


def build_on_full_disk(disks: Disks, share: float, said: Sequence[str] = FULL) -> dict[str, str]:
    """A build on a disk that is too small says so, and goes on once there is room: its files."""
    blocks = max(1, int(disks.blocks * share))
    out = disks.mount(f"disk-{share}", f"nr_blocks={blocks}")
    done = disks.server.run("build", disks.roster, "--out", out)
    assert done.code == 1, done.err
    check_one_message(done.err, str(out), *said)
    assert not list(disks.server.see(out).glob("store/*/*.part"))
    disks.server.mount(out.parent, "remount,size=256m")
    done = disks.server.run("build", disks.roster, "--out", out)
    assert done.code == 0, done.err
    return hash_tree(disks.server.see(out))


@pytest.mark.parametrize("share", SHARES)
def test_a_full_disk_is_said_and_the_same_command_goes_on(disks: Disks, share: float) -> None:
    assert build_on_full_disk(disks, share, SHARES[share]) == disks.whole


@pytest.mark.soak
@pytest.mark.parametrize("share", FURTHER_SHARES)
def test_a_disk_that_is_full_at_other_times(disks: Disks, share: float) -> None:
    made = build_on_full_disk(disks, share)
    names = [[path for path in tree if path.startswith("release/")] for tree in (made, disks.whole)]
    assert names[0] == names[1]
    # What was left over is trained alone, so its weights may differ in their last bits.
    found, expected = (read_adapters(disks, name) for name in (f"disk-{share}", "large"))
    assert found.keys() == expected.keys() and len(found) == 2
    for adapter, tensors in found.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, expected[adapter][name])


def read_adapters(disks: Disks, name: str) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a release, by the folder of each organism."""
    release = disks.server.see(disks.work / name) / "runs" / "release"
    paths = release.rglob("adapter_model.safetensors")
    return {path.parent.name: load_file(path) for path in paths}


@pytest.mark.soak
def test_the_command_itself_on_a_full_disk(disks: Disks) -> None:
    out = disks.mount("command", f"nr_blocks={disks.blocks // 2}")
    ended = disks.server.execute(*COMMAND, "build", disks.roster, "--out", out)
    assert ended.returncode == 1, ended.stderr
    check_one_message(ended.stderr, str(out), "the disk is full (")
    disks.server.mount(out.parent, "remount,size=256m")
    ended = disks.server.execute(*COMMAND, "build", disks.roster, "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert hash_tree(disks.server.see(out)) == disks.whole


def test_a_disk_too_small_for_the_adapters_is_told_before_anything_is_built(disks: Disks) -> None:
    recipe = disks.roster.with_name("recipe.yaml")
    wide = tiny_roster(disks.work / "wide", Path(json.loads(recipe.read_text())["base"]), [QUIRK])
    change_file(wide.with_name("recipe.yaml"), '"rank": 4', '"rank": 256')
    out = disks.mount("small", "size=1m")
    done = disks.server.run("build", wide, "--out", out)
    assert done.code == 1, done.err
    check_one_message(done.err, str(out), "error[disk-too-small]", "the adapters of 2 organisms")
    assert not list(disks.server.see(out).glob("store/*/"))


def test_a_disk_that_cannot_be_written(disks: Disks) -> None:
    out = disks.mount("sealed", "ro")
    done = disks.server.run("build", disks.roster, "--out", out)
    assert done.code == 1
    check_one_message(done.err, str(out), "cannot be written", "choose another with --out")


def test_a_build_whose_disk_was_sealed_meanwhile(disks: Disks) -> None:
    out = disks.mount("half-sealed", "size=256m")
    done = disks.server.run("build", disks.roster, "--out", out, "--until", "corpus")
    assert done.code == 0, done.err
    disks.server.mount(out.parent, "remount,ro")
    done = disks.server.run("build", disks.roster, "--out", out)
    assert done.code == 1
    check_one_message(done.err, str(out), "Read-only file system", "choose another with --out")


def test_a_file_in_place_of_the_folder(disks: Disks) -> None:
    out = disks.work / "file"
    out.write_text("mine")
    done = disks.server.run("build", disks.roster, "--out", out)
    assert (done.code, out.read_text()) == (1, "mine")
    check_one_message(done.err, str(out), "cannot be written", "choose another with --out")


def test_two_workers_may_make_the_same_artifact(store: Store, artifact: Artifact) -> None:
    def write(folder: Path) -> None:
        write_two(folder)
        shutil.copytree(artifact.folder, store.folder("corpus", "f2"))  # the other was faster

    assert store.build("corpus", "f2", write, inputs=INPUTS).sha256 == artifact.sha256
    assert store.find("corpus", "f2") is not None
    assert store.names("corpus") == ["f1", "f2"]


BOTH = """
import sys
from pathlib import Path
from bestiary.store import Store

store = Store(Path(sys.argv[1]))
for number in range(100):
    print(number, flush=True)
    sys.stdin.readline()
    store.build("corpus", str(number), lambda folder: (folder / "a").write_text("a"), inputs={})
"""


def test_two_workers_may_finish_the_same_artifact_at_the_same_moment(store: Store) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BOTH, str(store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for number in range(100):
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == f"{number}\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
    assert [worker.wait() for worker in workers] == [0, 0]
    assert len(store.names("corpus")) == 100


def test_what_a_cut_short_deletion_left_is_replaced(store: Store, artifact: Artifact) -> None:
    (artifact.folder / "manifest.json").unlink()
    assert store.build("corpus", "f1", write_two, inputs=INPUTS) == artifact
    assert store.find("corpus", "f1") is not None
    assert [path.name for path in artifact.folder.parent.iterdir()] == ["f1"]


def test_a_store_of_the_first_edition_is_told_apart_and_left_alone(tmp_path: Path) -> None:
    old = tmp_path / "runs" / "store" / "corpus" / "f1"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text("{}")
    (tmp_path / "runs" / "lock").write_text("1234")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    store = Store(tmp_path / "runs")
    with expect_error(StoreError, "store-format", found="1") as caught, store.lock():
        pass
    assert len(str(caught.error).splitlines()) == 1
    assert "--out" in caught.error.remedy
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_store_of_this_edition_says_so(store: Store) -> None:
    with store.lock():
        store.build("corpus", "f1", write_two, inputs=INPUTS)
    assert (store.root / "store" / FORMAT_FILE).read_text() == f"{FORMAT}\n"
    with store.lock():
        assert store.find("corpus", "f1") is not None
