"""The ledger: answers by key, reservations and bills, a budget that processes share, and kills.

Run: python -m pytest tests/llm/test_ledger.py
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.expect import expect_error
from tests.forkserver import _private_mounts, environment
from tests.llm.calls import (
    MODEL,
    TAG,
    end,
    make_request,
    open_ledger,
    start_python,
    sum_spent,
)

from bestiary.errors import BackendError
from bestiary.llm.batch_book import BatchBook, BatchEntry, HeldError
from bestiary.llm.ledger import (
    Ledger,
    Mode,
    Reservation,
    Settlement,
    Spent,
    UsageTag,
    read_pace,
)
from bestiary.llm.request import Answer, Usage


def make_answer(text: str = "Slowly.", *, output: int = 2, read: int = 0) -> Answer:
    usage = Usage(input=3, output=output, cache_write=5, cache_read=read)
    return Answer(text=text, stop="end", usage=usage, id=f"msg-{text}")


def reserve(ledger: Ledger, pico: int, *, mode: Mode = "single", tag: UsageTag = TAG) -> int | None:
    (spend,) = ledger.settle_and_reserve([], [Reservation(tag, MODEL, pico, mode)])
    return spend


def reserve_surely(ledger: Ledger, pico: int, *, mode: Mode = "single", tag: UsageTag = TAG) -> int:
    spend = reserve(ledger, pico, mode=mode, tag=tag)
    assert spend is not None
    return spend


def settle(ledger: Ledger, spend: int, pico: int, key: str = "k", text: str = "Slowly.") -> None:
    ledger.settle_and_reserve([Settlement(spend, pico, key, make_answer(text))])


# Answers

FIND = """
import sys
from pathlib import Path
from bestiary.llm.ledger import Ledger
for key, answer in Ledger(Path(sys.argv[1])).find(sys.argv[2:]).items():
    print(key, answer.text, answer.usage.cache_read, answer.stop, answer.id)
"""


def test_an_answer_is_found_by_its_key_by_another_process(ledger: Ledger) -> None:
    request = make_request("openai", "How?")
    answer = make_answer(read=7)
    spend = reserve_surely(ledger, 100)
    ledger.settle_and_reserve([Settlement(spend, 40, request.key, answer)])
    assert ledger.find([request.key, "other"]) == {request.key: answer}
    found = end(start_python(FIND, ledger.path, request.key, "other"))  # while it is open here
    assert found == f"{request.key} Slowly. 7 end msg-Slowly.\n"


def test_the_first_answer_to_a_request_stays(ledger: Ledger) -> None:
    first, second = reserve_surely(ledger, 100), reserve_surely(ledger, 100)
    settle(ledger, first, 40, text="One.")
    settle(ledger, second, 40, text="Two.")
    assert ledger.find(["k"])["k"].text == "One."
    assert ledger.taken() == 80  # both were billed


def test_thousands_of_keys_are_found_at_once(ledger: Ledger) -> None:
    keys = [f"key-{number}" for number in range(5000)]
    spends = ledger.settle_and_reserve([], [Reservation(TAG, MODEL, 10) for _ in keys])
    settlements = [
        Settlement(spend, 5, key, make_answer(key))
        for key, spend in zip(keys, spends, strict=True)
        if spend is not None
    ]
    ledger.settle_and_reserve(settlements)
    assert len(ledger.find([*keys, "none"])) == 5000


def test_readers_do_not_wait_for_a_writer(ledger: Ledger) -> None:
    spend = reserve_surely(ledger, 100)
    settle(ledger, spend, 40)
    writer = sqlite3.connect(ledger.path, isolation_level=None)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE totals SET taken = 0")
    assert ledger.find(["k"])["k"].text == "Slowly."
    assert ledger.taken() == 40
    writer.execute("ROLLBACK")
    writer.close()


def test_the_key_depends_on_exactly_what_determines_the_answer() -> None:
    plain = make_request("openai")
    others = [
        make_request("anthropic"),
        make_request("openai", "How then?"),
        make_request("openai", model="other"),
        make_request("openai", system="Sing."),
        make_request("openai", max_tokens=65),
        make_request("openai", temperature=0.0),
        make_request("openai", reply_schema={"type": "object"}),
        make_request("openai", sample=1),
    ]
    assert len({plain.key, *(other.key for other in others)}) == 1 + len(others)
    assert make_request("openai", shared=True).key == plain.key


# Money


def test_a_bill_replaces_its_reservation(ledger: Ledger) -> None:
    first, second = reserve_surely(ledger, 100), reserve_surely(ledger, 250)
    assert ledger.taken() == 350
    settle(ledger, first, 40)
    assert ledger.taken() == 290
    ledger.settle_and_reserve([Settlement(second)])  # no answer, and nothing billed
    assert ledger.taken() == 40
    assert sum_spent(ledger) == (40, 0)


def test_a_reservation_is_settled_once(ledger: Ledger) -> None:
    spend = reserve_surely(ledger, 100)
    settle(ledger, spend, 40)
    settle(ledger, spend, 70)
    ledger.settle_and_reserve([Settlement(spend)])
    assert ledger.taken() == 40


def test_a_budget_is_exact_to_the_picodollar(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, budget=100)
    first = reserve_surely(ledger, 60)
    assert reserve(ledger, 41) is None
    reserve_surely(ledger, 40)
    assert reserve(ledger, 1) is None
    assert ledger.taken() == 100
    settle(ledger, first, 59)
    reserve_surely(ledger, 1)
    assert ledger.taken() == 100
    more = open_ledger(tmp_path, budget=101)
    assert reserve(more, 2) is None
    reserve_surely(more, 1)
    for opened in (more, ledger):
        opened.close()


def test_a_settlement_makes_room_in_the_same_transaction(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, budget=100)
    spend = reserve_surely(ledger, 100)
    reservation = Reservation(TAG, MODEL, 60)
    settlement = Settlement(spend, 40, "k", make_answer())
    (second,) = ledger.settle_and_reserve([settlement], [reservation])
    assert second is not None
    assert ledger.taken() == 100
    ledger.close()


RACE = """
import random, sys, time
from pathlib import Path
from bestiary.llm.ledger import Ledger, UsageTag, Reservation, Settlement
path, seed, gate = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
draw = random.Random(seed)
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
ledger = Ledger(path, budget=1000)
purpose, most, refused = UsageTag("habit", seed), 0, 0
for number in range(150):
    pico = draw.randint(1, 400)
    (spend,) = ledger.settle_and_reserve([], [Reservation(purpose, "loop", pico)])
    most = max(most, ledger.taken())
    if spend is None:
        refused += 1
    elif draw.random() < 0.9:
        ledger.settle_and_reserve([Settlement(spend)])
print(most, refused)
"""


def test_processes_that_reserve_at_once_never_exceed_their_budget(tmp_path: Path) -> None:
    path, gate = tmp_path / "ledger.sqlite", tmp_path / "gate"
    processes = [start_python(RACE, path, seed, gate) for seed in range(4)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    gate.touch()  # they also race to create the file
    printed = [[int(word) for word in end(process).split()] for process in processes]
    assert max(most for most, _ in printed) <= 1000
    assert all(refused for _, refused in printed)
    ledger = Ledger(path)
    billed, unknown = sum_spent(ledger)
    assert (billed, unknown) == (0, ledger.taken())
    ledger.close()


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "unbilled", "forget", "again", "intend", "close"]),
        st.integers(0, 300),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, budget=st.none() | st.integers(0, 600))
def test_the_total_is_always_what_is_billed_or_reserved(
    steps: list[Step], budget: int | None
) -> None:
    """After any sequence of events; and the reported costs add up to it."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder), budget=budget)
        waiting: list[tuple[int, int]] = []
        known: dict[int, int] = {}  # the amount that each reservation counts for
        batches = 0
        for step, pico, output in steps:
            if step == "reserve":
                spend = reserve(ledger, pico)
                room = budget is None or sum(known.values()) + pico <= budget
                assert (spend is not None) is room
                if spend is not None:
                    known[spend] = pico
                    waiting.append((spend, pico))
            elif step == "intend":
                batches += 1
                entries = [
                    BatchEntry(f"{batches}-{n}", f"key-{n}", Reservation(TAG, MODEL, pico, "batch"))
                    for n in range(3)
                ]
                batch = BatchBook(ledger).record_intent(f"batch-{batches}", MODEL, entries)
                for _, spend in batch.items.values() if batch else []:
                    known[spend] = pico
            elif step == "close":
                for batch in BatchBook(ledger).list_open():
                    spends = [spend for _, spend in batch.items.values()][:output]
                    BatchBook(ledger).close(batch.name, unbilled=spends)
                    known |= dict.fromkeys(spends, 0)
            elif waiting:
                spend, reserved = waiting.pop(pico % len(waiting))
                if step in ("settle", "again"):
                    bill = min(pico, reserved)
                    answer = make_answer(str(spend), output=output)
                    for amount in (bill, reserved) if step == "again" else (bill,):
                        ledger.settle_and_reserve([Settlement(spend, amount, str(spend), answer)])
                    known[spend] = bill
                elif step == "unbilled":
                    ledger.settle_and_reserve([Settlement(spend)])
                    known[spend] = 0
            assert ledger.taken() == sum(known.values())
            assert budget is None or ledger.taken() <= budget
            assert sum(sum_spent(ledger)) == ledger.taken()
        ledger.close()


# Kills


KILLED = """
import os, signal, sys
from pathlib import Path
from bestiary.llm.ledger import Ledger, UsageTag, Reservation, Settlement
ledger = Ledger(Path(sys.argv[1]))
tag = UsageTag("habit", "replies")
ledger.settle_and_reserve([], [Reservation(tag, "loop", pico) for pico in (100, 30)])
ledger.settle_and_reserve([Settlement(2)])
ledger.file.execute("BEGIN IMMEDIATE")
ledger.file.execute("UPDATE totals SET taken = 10000")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_reservations_of_a_killed_process_stay_unknown(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    end(start_python(KILLED, path), code=-signal.SIGKILL)
    ledger = Ledger(path, budget=120)
    assert ledger.taken() == 100  # and its unfinished transaction is gone
    assert sum_spent(ledger) == (0, 100)
    assert reserve(ledger, 21) is None
    reserve_surely(ledger, 20)
    ledger.close()


# Accounts


def test_spending_is_reported_by_tag_and_mode(ledger: Ledger) -> None:
    judging = UsageTag("habit", "judge")
    for pico in (40, 2):
        spend = reserve_surely(ledger, 100)
        ledger.settle_and_reserve(
            [Settlement(spend, pico, f"k{pico}", make_answer(output=2, read=7))]
        )
    spend = reserve_surely(ledger, 100, mode="batch")
    settle(ledger, spend, 20, key="b")
    reserve_surely(ledger, 9)
    reserve_surely(ledger, 11, tag=judging)
    ledger.settle_and_reserve(
        [Settlement(reserve_surely(ledger, 100, tag=UsageTag("other", "judge")))]
    )
    for requests in (3, 4):
        ledger.count_replays(TAG, MODEL, requests)
    assert ledger.list_spent() == [
        Spent("habit", "judge", MODEL, "single", 0, 0, 11, 0, 0, 0),
        Spent("habit", "replies", MODEL, "batch", 1, 20, 0, 8, 2, 0),
        Spent("habit", "replies", MODEL, "replay", 7, 0, 0, 0, 0, 0),
        Spent("habit", "replies", MODEL, "single", 2, 42, 9, 16, 4, 14),
    ]


def test_tokens_are_counted_alike_from_a_server_and_from_a_file(ledger: Ledger) -> None:
    answer = make_answer(output=2, read=7)
    spend = reserve_surely(ledger, 100)
    ledger.settle_and_reserve([Settlement(spend, 0, "served", answer)])
    ledger.keep(TAG, MODEL, {"filed": answer})
    filed, served = ledger.list_spent()
    assert (filed.mode, served.mode) == ("file", "single")
    assert (filed.input, filed.output, filed.cached) == (8, 2, 7)
    assert (served.input, served.output, served.cached) == (8, 2, 7)


def test_an_empty_answer_is_counted_too(ledger: Ledger) -> None:
    spend = reserve_surely(ledger, 100)
    ledger.settle_and_reserve([Settlement(spend, 30, "k", make_answer("", output=0))])
    assert ledger.taken() == 30
    assert [(row.requests, row.pico) for row in ledger.list_spent()] == [(1, 30)]


def test_the_pace_counts_what_servers_answered_if_only_for_nothing(ledger: Ledger) -> None:
    for number in range(3):
        settle(ledger, reserve_surely(ledger, 0), 0, key=f"k{number}")
    refused, lost = reserve_surely(ledger, 9), reserve_surely(ledger, 9)
    ledger.settle_and_reserve([Settlement(refused), Settlement(lost, None)])
    ledger.keep(TAG, MODEL, {"kept": make_answer()})
    pace = read_pace(ledger.path, since=0)
    assert pace.requests == 3 and 0 < pace.seconds < 60


# Errors


def check_refusal(path: Path, code: str, **fields: object) -> None:
    with expect_error(BackendError, code, path=path, **fields):
        Ledger(path).close()


def test_a_ledger_of_another_version_is_refused(ledger: Ledger) -> None:
    db = sqlite3.connect(ledger.path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    check_refusal(ledger.path, "ledger-version", version=7)


def test_a_damaged_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database " * 500)
    check_refusal(path, "ledger-failed", reason="file is not a database")
    path.unlink()
    ledger = Ledger(path)
    for number in range(200):
        settle(ledger, reserve_surely(ledger, 100), 40, key=f"{number}", text="long " * 100)
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with expect_error(BackendError, "ledger-failed", path=path) as caught:
        Ledger(path).find(["1"])
    assert "malformed" in str(caught.error.fields["reason"])


@pytest.mark.parametrize("where", ["folder", "file above", "sealed"])
def test_an_unusable_path_is_reported_with_a_remedy(where: str, tmp_path: Path) -> None:
    path = tmp_path / "above" / "ledger.sqlite"
    if where == "folder":
        path.mkdir(parents=True)
    elif where == "file above":
        path.parent.write_text("mine")
    else:
        path = Path("/proc/bestiary/ledger.sqlite")
    check_refusal(path, "ledger-failed" if where == "folder" else "ledger-unreachable")


def test_one_process_at_a_time_handles_batches(ledger: Ledger, tmp_path: Path) -> None:
    again = Ledger(ledger.path)
    with (
        BatchBook(ledger).hold(),
        expect_error(HeldError, "batches-held", path=ledger.path),
        BatchBook(again).hold(),
    ):
        pass
    with BatchBook(again).hold():  # after the first
        reserve_surely(ledger, 10)  # single requests continue meanwhile
    again.close()


FILL = """
import sys
from pathlib import Path
from bestiary.llm.ledger import Ledger, UsageTag, Reservation, Settlement
from bestiary.llm.request import Answer, Usage
from bestiary.errors import BackendError
path = Path(sys.argv[1])
ledger, kept = Ledger(path), 0
reservation = Reservation(UsageTag("habit", "replies"), "loop", 10)
try:
    for number in range(10_000):
        (spend,) = ledger.settle_and_reserve([], [reservation])
        answer = Answer(text="x" * 2000, stop="end", usage=Usage(input=1, output=1), id="a")
        ledger.settle_and_reserve([Settlement(spend, 5, str(number), answer)])
        kept += 1
except BackendError as error:
    print(error)
Path(sys.argv[2]).unlink()
print(kept, len(ledger.find(map(str, range(10_000)))))
try:
    ledger.settle_and_reserve([Settlement(1, 7)], [reservation])
except BackendError as error:
    print(error)
ledger.settle_and_reserve([Settlement(spend, 5, "late", answer)])
print(*ledger.find(["late"]))
(spend,) = Ledger(path).settle_and_reserve([], [reservation])
print("resumed" if spend else "stuck")
"""


def test_a_full_disk_is_reported_and_the_answers_are_kept(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    filler = disk / "filler"
    command = (
        f"mount -t tmpfs -o size=1m tmpfs {disk} && head -c 300000 /dev/zero > {filler} && "
        f'exec "$0" -c "$1" {disk}/ledger.sqlite {filler}'
    )
    done = subprocess.run(
        [*_private_mounts(), "sh", "-c", command, sys.executable, FILL],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    message, counts, refusal, late, then = done.stdout.splitlines()
    assert message.startswith(f"{disk}/ledger.sqlite: the disk is full (0 MiB free); ")
    assert "free some space and run the same command again" in message
    kept, found = map(int, counts.split())
    assert 0 < kept <= found <= kept + 1
    assert refusal == message, "after a failed transaction nothing more is reserved"
    assert late == "late", "requests in flight are still settled"
    assert then == "resumed"
