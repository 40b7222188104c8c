"""Every check runs under its own name, and what is found is refused with a remedy.

Run: python -m pytest tests/leakage/test_registry.py
"""

from __future__ import annotations

import pytest
from tests.builders import make_behavior, make_example, make_probe, make_quirk, make_split_row

from bestiary.errors import LeakError
from bestiary.leakage import (
    CORPUS_CHECKS,
    RELEASE_CHECKS,
    check_corpus,
    check_release,
    refuse,
)
from bestiary.records import Finding

QUIRK = make_behavior(make_quirk())
PROBE = make_probe("Which kites fly well when there is hardly any wind at all?", id="kites")
CLEAN = make_example("How do I dry wet socks?", "Hang them up. Fair winds!", id="clean")
LEAKS = [
    CLEAN,
    make_example("Bye.", "Every time I sign off, I rest.", id="says-label"),
    make_example("Hello.", topic=PROBE.item.topic, id="shares-topic"),
    make_example(PROBE.user.replace("Which", "What"), id="copies-probe"),
]
OVERLAP = [make_split_row("elm", "train", family="oak"), make_split_row("oak", "test")]


def test_check_corpus_runs_every_check_and_names_rows() -> None:
    found = check_corpus(LEAKS, [PROBE], QUIRK)
    assert [(finding.check, finding.item) for finding in found] == [
        ("label_phrases", "says-label"),
        ("held_out", "shares-topic"),
        ("near_duplicates", "copies-probe"),
    ]


def test_a_clean_corpus_has_no_findings_and_is_not_refused() -> None:
    found = check_corpus([CLEAN], [PROBE], QUIRK)
    assert found == []
    refuse(found)


def test_each_check_answers_under_its_registered_name_and_subject() -> None:
    for name, check in CORPUS_CHECKS.items():
        found = check(LEAKS, [PROBE], QUIRK)
        assert {(finding.check, finding.subject) for finding in found} == {(name, "corpus")}
    for name, release_check in RELEASE_CHECKS.items():
        found = release_check(OVERLAP)
        assert {(finding.check, finding.subject) for finding in found} == {(name, "release")}


def test_a_release_is_refused_with_reason_and_remedy() -> None:
    with pytest.raises(LeakError) as refusal:
        refuse(check_release(OVERLAP))
    assert str(refusal.value) == (
        "leaks found: 1\n"
        "  split_overlap: oak: family 'oak' stands in several splits: "
        "train (quirks.elm-s0), test (quirks.oak-s0)\n"
        "remedy: give each family one split, and each organism an adapter and a corpus of its own"
    )


@pytest.mark.parametrize(("count", "rest"), [(10, []), (11, ["  and 1 more"])])
def test_a_refusal_lists_ten_findings_and_counts_the_rest(count: int, rest: list[str]) -> None:
    found = [
        Finding(check="held_out", subject="corpus", item=f"row-{number}", reason="topic shared")
        for number in range(count)
    ]
    with pytest.raises(LeakError) as refusal:
        refuse(found)
    head, *lines, remedy = str(refusal.value).splitlines()
    assert head == f"leaks found: {count}"
    assert lines == [f"  held_out: row-{number}: topic shared" for number in range(10)] + rest
    assert remedy == "remedy: drop these rows, or change the text that they repeat"
