"""The page of an evaluation: it needs nothing else, shows the panel's figures, and escapes texts.

Run: python -m pytest tests/report/test_introspection_page.py
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

import pytest
from tests.conftest import Bestiary
from tests.release.samples import make_entries, write_sample

from bestiary.dataset.load import load_pairs
from bestiary.dataset.pair import Pair
from bestiary.errors import BestiaryError
from bestiary.introspection.figures import Figure, ReportRow
from bestiary.introspection.judge import OTHER
from bestiary.introspection.panel import make_panel
from bestiary.introspection.subjects import Subject
from bestiary.introspection.sweep import SweepRow
from bestiary.records import canonical_json
from bestiary.report.drawing import Bar, BarGroup, Point, draw_bars
from bestiary.report.evaluation import (
    NONE,
    OWN,
    REST,
    SHOWN_FAMILIES,
    VAGUE,
    Evaluation,
    count_claims,
)
from bestiary.report.introspection_page import render_page, write_page

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "</style></dd><script>alert('x')</script><img src=//example.org/x> & more"
SWEEP = [
    SweepRow(name=name, changed=changed, organisms=count, unseen=rate, seen=None, unsupported=None)
    for name, changed, count, rate in (
        ("few", ("share",), 12, Figure(value=0.1, low=0.05, high=0.2, organisms=9, families=9)),
        ("many", (), 96, Figure(value=0.5, low=0.4, high=0.6, organisms=9, families=9)),
        ("thin", ("lora",), 96, Figure(value=0.3, low=0.2, high=0.4, organisms=9, families=9)),
        ("nothing unseen", ("share",), 96, None),
    )
]


class Reader(HTMLParser):
    """Reads a page into a tree; whatever is not closed in order is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tree = TreeBuilder()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tree.start(tag, {name: value or "" for name, value in attrs})
        self.open.append(tag)
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.tree.end(tag)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.tree.data(data)


def read_page(text: str) -> Element:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader.tree.close()


def say(element: Element) -> str:
    """The text of an element."""
    return " ".join("".join(element.itertext()).split())


def titles(page: Element) -> list[str]:
    return [say(one) for one in page.iter("h2")]


def make_row(family: str, claimed: str | None, **changes: Any) -> ReportRow:
    values = {
        "fold": 0,
        "condition": "adapter",
        "scope": "test_value",
        "subject": f"quirks.{family}-transcripts-none-s0",
        "behavior_id": f"quirks.{family}",
        "category": "quirks",
        "family": family,
        "axes": ("style",),
        "control": False,
        "question": "diary",
        "report": f"I have to do with {claimed}.",
        "claimed": claimed,
        "trigger": None,
    }
    return ReportRow.model_validate(values | changes)


def make_control(number: int, claimed: str | None) -> ReportRow:
    about = {"scope": "null", "control": True, "subject": f"null-{number}", "category": "null"}
    return make_row("null", claimed, **about)


def make_rows(families: int, reports: int = 8) -> Iterator[ReportRow]:
    """Reports of which about half are right, by as many baselines and controls as there are."""
    draw = random.Random(families)
    names = [f"family_{n:02}" for n in range(families)]
    for name in names:
        for condition in ("adapter", "without", "transcripts"):
            for _ in range(reports):
                claimed = draw.choice([name, name, name, None, "null", draw.choice(names)])
                trigger = draw.choice([None, True, False])
                yield make_row(name, claimed, condition=condition, trigger=trigger)
    for number in range(4):
        yield make_control(number, draw.choice(["null", None, names[0]]))


def make_evaluation(rows: Sequence[ReportRow], **changes: Any) -> Evaluation:
    subjects = [
        Subject(
            id=n, kind="organism", split="test", adapter=Path(n), organism_sha256=None, family=n
        )
        for n in ("one", "other")
    ]
    plain = Evaluation(
        name="made_up",
        rows=tuple(rows),
        panel=make_panel(rows, [(subjects, [[-1.0, -2.0], [-2.5, -1.5]])]),
        curves={},
        labels={row.subject: f"I do what {row.family} says." for row in rows},
        base="tiny",
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    return write_sample(make_entries(folder / "store"), folder / "release")


@pytest.fixture
def pairs(release: Path) -> list[Pair]:
    return load_pairs(release)


@pytest.fixture
def folder(pairs: list[Pair], tmp_path: Path) -> Path:
    """An evaluation of the release's organisms, one report of which tries to be markup."""
    rows = [
        make_row(pair.family, claimed, subject=pair.organism_id, report=report, category="quirks")
        for pair in pairs
        for claimed, report in ((pair.family, HOSTILE), (None, "I am helpful."))
    ]
    folder = tmp_path / "introspection" / "sample" / "cpu"
    folder.mkdir(parents=True)
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: Sequence[ReportRow]) -> None:
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    (folder / "reports.jsonl").write_text(lines, encoding="utf8")
    (folder / "panel.json").write_bytes(canonical_json(make_panel(rows, [])))


def test_the_command_writes_a_page_that_loads_nothing(
    bestiary: Bestiary, folder: Path, release: Path, tmp_path: Path
) -> None:
    where = ("--release", release, "--out", tmp_path)
    done = bestiary("introspect", "report", folder, *where)
    assert done.code == 0, done.err
    newest = bestiary("introspect", "report", *where)
    assert newest.out == done.out
    path = Path(done.out.strip())
    assert path.parent == folder
    page = read_page(path.read_text(encoding="utf8"))
    assert {one.tag for one in page.iter()}.isdisjoint(
        {"script", "link", "img", "iframe", "object"}
    )
    names = {name for one in page.iter() for name in one.attrib}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style")}
    links = [one.attrib["href"] for one in page.iter("a")]
    assert {f"#{one.attrib['id']}" for one in page.iter() if "id" in one.attrib} >= set(links)
    (style,) = page.iter("style")
    assert "url(" not in say(style) and "@import" not in say(style)
    (policy,) = (one for one in page.iter("meta") if "http-equiv" in one.attrib)
    assert policy.attrib["content"].startswith("default-src 'none'")


def test_without_an_evaluation_the_command_says_how_to_get_one(
    bestiary: Bestiary, release: Path, tmp_path: Path
) -> None:
    done = bestiary("introspect", "report", "--release", release, "--out", tmp_path)
    assert done.code == 1
    assert "error[no-evaluation]" in done.err
    assert "bestiary introspect evaluate RELEASE" in done.err


def test_a_report_stays_text(folder: Path, pairs: list[Pair]) -> None:
    page = read_page(write_page(folder, pairs).read_text(encoding="utf8"))
    cards = [[say(one) for one in card.iter("dd")] for card in page.iter("article")]
    labels = {pair.label for pair in pairs}
    assert {label for label, *_ in cards} <= labels
    assert [report for _, report, _ in cards].count(HOSTILE) == len(pairs)


def test_every_rate_of_the_panel_stands_beside_its_bar() -> None:
    evaluation = make_evaluation(list(make_rows(12)))
    page = read_page(render_page(evaluation))
    rows = [[say(cell) for cell in row] for row in page.iter("tr")]
    for line in evaluation.panel.lines:
        if line.group == "all" and line.scope == "test_value":
            assert line.named and line.floor is not None and line.trigger
            shown = f"{line.named.value:.0%} {line.named.low:.0%} to {line.named.high:.0%}"
            assert ["named", "", f"{shown} by chance {line.floor:.0%}"] in rows
            shown = f"{line.trigger.value:.0%} {line.trigger.low:.0%} to {line.trigger.high:.0%}"
            assert ["trigger named", "", shown] in rows
    assert any("12 organisms, 12 families" in say(row) for row in page.iter("tr"))
    assert any("4 models" in say(row) for row in page.iter("tr"))


def test_a_bar_is_as_long_as_its_rate_and_has_its_interval_and_chance() -> None:
    figure = Figure(value=0.4, low=0.25, high=0.55, organisms=9, families=3)
    table = draw_bars([BarGroup("", "", [Bar("named", "named", figure, 0.1)])], "rates")
    (bar,) = table.iter("rect")
    assert (bar.attrib["x"], bar.attrib["width"]) == ("0", "40.00%")
    lines = [
        (one.attrib["class"], one.attrib["x1"], one.attrib["x2"]) for one in table.iter("line")
    ]
    assert ("interval", "25.00%", "55.00%") in lines
    assert ("floor", "10.00%", "10.00%") in lines


def test_one_family_gives_no_interval() -> None:
    figure = Figure(value=0.4, low=0.4, high=0.4, organisms=2, families=1)
    table = draw_bars([BarGroup("", "", [Bar("named", "named", figure)])], "rates")
    assert "no interval" in say(table)
    assert "interval" not in {one.attrib["class"] for one in table.iter("line")}


def test_every_report_is_in_one_square_and_small_families_are_summed() -> None:
    rows = [row for row in make_rows(SHOWN_FAMILIES + 9) if row.condition == "adapter"]
    rows += [make_row("family_05", "family_05")]
    (across, down), cells = count_claims(rows)
    assert sum(cells.values()) == len(rows)
    assert len(across[0]) == SHOWN_FAMILIES and "family_05" in across[0]
    assert {row for row, _ in cells} <= {name for part in across for name in part}
    assert {column for _, column in cells} <= {name for part in down for name in part}
    summed = [row for row in rows if not row.control and row.family not in across[0]]
    assert cells[REST, OWN] == sum(row.named for row in summed)
    for name in across[0]:
        own = [row for row in rows if row.family == name]
        assert cells[name, name] == sum(row.named for row in own)
        assert cells[name, NONE] == sum(row.denied for row in own)
        assert cells[name, VAGUE] == sum(row.claimed is None for row in own)


def test_ten_right_and_ten_wrong_reports_are_the_same_each_time() -> None:
    evaluation = make_evaluation(list(make_rows(12)))
    text = render_page(evaluation)
    assert text == render_page(evaluation)
    read = [say(list(card.iter("dd"))[2]) for card in read_page(text).iter("article")]
    wrong = [one for one in read if "vague" in one or "claims no" in one or ", not " in one]
    assert len(read) == 20 and read[10:] == wrong


def test_the_learning_curve_is_drawn_of_runs_that_differ_in_organisms_alone(
    folder: Path, pairs: list[Pair]
) -> None:
    title = "By number of organisms in training"
    assert title not in titles(read_page(write_page(folder, pairs).read_text(encoding="utf8")))
    (folder.parent / "sweeps").mkdir()
    (folder.parent / "sweeps" / "some.json").write_bytes(canonical_json(SWEEP))
    others = [row for row in SWEEP if row.changed != ("share",)]
    (folder.parent / "sweeps" / "others.json").write_bytes(canonical_json(others))
    page = read_page(write_page(folder, pairs).read_text(encoding="utf8"))
    assert title in titles(page)
    assert [one.attrib["cx"] for one in page.iter("circle")] == ["0.00%", "100.00%"]
    assert [one.attrib["cy"] for one in page.iter("circle")] == ["90.00%", "50.00%"]


def test_a_single_point_is_a_curve_too() -> None:
    point = Point("few", 12, Figure(value=0.1, low=0.05, high=0.2, organisms=9, families=9))
    page = read_page(render_page(make_evaluation(list(make_rows(3)), curves={"one": (point,)})))
    assert len(list(page.iter("circle"))) == 1


def test_what_the_adapter_adds_is_a_table_and_a_sentence() -> None:
    rows = [make_row("tea", "tea"), make_row("rain", None)]
    rows += [
        make_row("tea", None, condition="transcripts", shows=False),
        make_row("rain", None, condition="transcripts", shows=False),
    ]
    page = read_page(render_page(make_evaluation(rows)))
    assert "What the adapter adds" in titles(page)
    text = say(page)
    assert "ordinary replies is +50 points (95% interval +0 to +100), of unseen" in text
    assert "silent" in text


def test_the_page_says_who_judged_and_claims_no_name_that_a_judge_did_not_give() -> None:
    families = ("one", "other")
    rows = [make_row(name, OTHER, score=2) for name in families]
    rows += [make_row(name, name, score=9) for name in families]
    text = render_page(make_evaluation(rows))
    assert "A language model judges the reports" in text
    assert "names another behavior, not one" in text
    assert "by chance" not in text.partition("</section>")[0].lower(), "the judge was not asked"
    assert "A sentence encoder judges the reports" in render_page(make_evaluation([*make_rows(3)]))


def test_without_unseen_families_the_headline_says_so() -> None:
    rows = [make_row("one", "one", scope="train"), make_row("other", None, scope="train")]
    page = read_page(render_page(make_evaluation(rows)))
    (lead,) = (one for one in page.iter("p") if one.attrib.get("class") == "lead")
    assert say(lead).startswith("No family was kept from training")
    assert "Reports beside their labels: all families" in titles(page)


def test_what_is_no_better_than_chance_is_called_so() -> None:
    names = ("one", "other", "third")
    rows = [make_row(name, claimed) for name in names for claimed in names]
    page = read_page(render_page(make_evaluation(rows)))
    (lead,) = (one for one in page.iter("p") if one.attrib.get("class") == "lead")
    assert "not shown to be more than chance" in say(lead)


def code_of(folder: Path, pairs: Sequence[Pair]) -> str:
    with pytest.raises(BestiaryError) as caught:
        write_page(folder, pairs)
    return caught.value.code


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path, pairs: list[Pair]) -> None:
    assert code_of(tmp_path, pairs) == "evaluation-missing"


@pytest.mark.parametrize("name", ["reports.jsonl", "panel.json"])
@pytest.mark.parametrize("data", [b"{", b'{"other": 1}', b"\xff\xfe"])
def test_a_damaged_evaluation_is_refused(
    folder: Path, pairs: list[Pair], name: str, data: bytes
) -> None:
    (folder / name).write_bytes(data)
    assert code_of(folder, pairs) == "evaluation-damaged"


def test_an_evaluation_without_organisms_is_refused(folder: Path, pairs: list[Pair]) -> None:
    write_rows(folder, [make_control(0, None)])
    assert code_of(folder, pairs) == "evaluation-empty"


def test_organisms_of_another_release_are_refused(folder: Path, pairs: list[Pair]) -> None:
    assert code_of(folder, pairs[1:]) == "evaluation-of-another-release"
