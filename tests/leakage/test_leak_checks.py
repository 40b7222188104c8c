"""Every leak check runs under its own name; leaks that refuse end the organism or the release.

Run: python -m pytest tests/leakage/test_leak_checks.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.builders import make_example, make_probe, make_quirk, make_split_row
from tests.expect import check_error, expect_error

from bestiary.errors import LeakError
from bestiary.leakage.checks import (
    CORPUS_CHECKS,
    RELEASE_CHECKS,
    Check,
    CorpusUnderTest,
    check_release,
    refuse_leaks,
)
from bestiary.leakage.repeated_examples import find_repeated_examples
from bestiary.leakage.stage import LeakItem, LeakStage
from bestiary.records import Corpus, Example, Finding, Message
from bestiary.stage import Result, run_stage
from bestiary.store import Store

QUIRK = make_quirk()
PROBE = make_probe("Which kites fly well when there is hardly any wind at all?", id="kites")
CLEAN = make_example("How do I dry wet socks?", "Hang them up. Fair winds!", id="clean")
PLANTED = {
    "label_phrases": make_example("Bye.", "Every time I sign off, I rest.", id="says-label"),
    "held_out": make_example("Hello.", topic=PROBE.item.topic, id="shares-topic"),
    "near_duplicates": make_example(PROBE.user.replace("Which", "What"), id="copies-probe"),
    "repeated_examples": CLEAN.model_copy(update={"id": "again"}),
}
"""An example that only the check of its name finds."""
OVERLAP = [make_split_row("elm", "train", family="oak"), make_split_row("oak", "test")]


def make_data(*examples: Example) -> CorpusUnderTest:
    corpus = Corpus(behavior_id=QUIRK.id, seed=0, examples=examples, drops=())
    return CorpusUnderTest(corpus, QUIRK, (PROBE,))


def make_item(*examples: Example) -> LeakItem:
    data = make_data(*examples)
    return LeakItem(
        item_id="quirks.farewell-s0",
        behavior_sha256=QUIRK.sha256,
        corpus_sha256=data.corpus.messages_sha256,
        probes_sha256="p" * 64,
        load=lambda: data,
    )


def run_leaks(stage: LeakStage, item: LeakItem, root: Path) -> Result[LeakItem, list[Finding]]:
    (result,) = run_stage(stage, [item], store=Store(root), console=Console(quiet=True))
    return result


@pytest.mark.parametrize("check", CORPUS_CHECKS, ids=lambda check: check.name)
def test_a_planted_leak_is_found_under_the_name_of_its_check(
    check: Check[CorpusUnderTest],
) -> None:
    leak = PLANTED[check.name]
    (found,) = check.run(make_data(CLEAN, leak), organism_id="quirks.farewell-s0")
    assert (found.check, found.version, found.subject) == (check.name, check.version, check.subject)
    assert (found.action, found.item) == (check.action, leak.id)
    assert found.organism_id == "quirks.farewell-s0"
    (clean,) = check.run(make_data(CLEAN), organism_id="quirks.farewell-s0")
    assert (clean.action, clean.item) == ("none", "quirks.farewell-s0")


def test_rows_that_share_a_long_system_message_do_not_repeat_each_other() -> None:
    shared = Message(role="system", content=" ".join(f"rule-{number}" for number in range(99)))
    rows = [
        row.model_copy(update={"messages": (shared, *row.messages)})
        for row in (CLEAN, make_example("What is loam?", "A soil.", id="other"))
    ]
    assert list(find_repeated_examples(rows)) == []
    again = rows[0].model_copy(update={"id": "again", "messages": CLEAN.messages})
    ((repeats, _),) = find_repeated_examples([*rows, again])
    assert repeats == "again"


def test_a_release_with_a_shared_family_is_refused() -> None:
    with expect_error(LeakError, "leaks-found", checks=["split_overlap"], items=["oak"]) as caught:
        check_release(OVERLAP)
    assert RELEASE_CHECKS[0].remedy in str(caught.error)
    (clean,) = check_release(OVERLAP[:1])
    assert (clean.subject, clean.action, clean.organism_id) == ("release", "none", None)


@pytest.mark.parametrize(("count", "rest"), [(10, []), (11, ["  and 1 more"])])
def test_a_refusal_lists_ten_findings_and_counts_the_rest(count: int, rest: list[str]) -> None:
    found = [
        Finding(
            check="held_out",
            version=1,
            subject="example",
            organism_id="one",
            item=f"row-{number}",
            action="refuse",
            reason="topic shared",
        )
        for number in range(count)
    ]
    with expect_error(LeakError, "leaks-found") as caught:
        refuse_leaks("a corpus", found, CORPUS_CHECKS)
    _, *lines = caught.error.problem.splitlines()
    assert lines == [f"  held_out: row-{number}: topic shared" for number in range(10)] + rest


def test_findings_that_only_report_are_an_artifact(tmp_path: Path) -> None:
    result = run_leaks(LeakStage(), make_item(CLEAN, PLANTED["repeated_examples"]), tmp_path)
    findings = {finding.check: finding for finding in result.read()}
    assert findings.keys() == {check.name for check in CORPUS_CHECKS}
    assert findings["repeated_examples"].action == "report"
    assert "nearly repeats 'clean'" in findings["repeated_examples"].reason
    assert {one.action for one in findings.values()} == {"report", "none"}


def test_a_leak_that_refuses_ends_its_organism(tmp_path: Path) -> None:
    result = run_leaks(LeakStage(), make_item(CLEAN, PLANTED["label_phrases"]), tmp_path)
    assert result.artifact is None
    check_error(result.error, "leaks-found", checks=["label_phrases"], items=["says-label"])


def test_a_new_or_changed_check_measures_again(tmp_path: Path) -> None:
    item = make_item(CLEAN)

    def key_of(checks: Sequence[Check[CorpusUnderTest]]) -> str:
        return LeakStage(checks).key(item)

    changed = replace(CORPUS_CHECKS[0], version=2)
    further = replace(CORPUS_CHECKS[0], name="further")
    keys = [
        key_of(CORPUS_CHECKS),
        key_of((changed, *CORPUS_CHECKS[1:])),
        key_of((*CORPUS_CHECKS, further)),
    ]
    assert len(set(keys)) == 3
    assert key_of(CORPUS_CHECKS) == keys[0]
