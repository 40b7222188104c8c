"""A language model as the judge of reports: both orders, nonsense, the budget and the ledger.

Run: python -m pytest tests/introspection/test_language_judge.py
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.builders import LIBRARY, catalog
from tests.conftest import Finished
from tests.expect import expect_error
from tests.fakes.loopback import MODEL, Loopback, open_loopback
from tests.fakes.models import Asked, Provider
from tests.introspection.conftest import Introspect
from tests.introspection.world import World, write_recipe

from bestiary.author.judge import Judge
from bestiary.config.categories import NULL
from bestiary.config.introspection import Preference
from bestiary.config.library import find_model
from bestiary.errors import BackendError
from bestiary.introspection.judge import OTHER, Reading, ReportCase
from bestiary.introspection.language_judge import LanguageJudge, ReportJudgement, case_of
from bestiary.introspection.language_shortlist import RUNS, Hypotheses, LanguageShortlister
from bestiary.llm.client import LLMClient, LLMConfig
from bestiary.llm.ledger import read_spent
from bestiary.llm.price import PICO
from bestiary.llm.prompted import TOKEN_CHARACTERS, PromptedModel
from bestiary.llm.structured import TRIES

PROVIDERS: tuple[Provider, ...] = ("anthropic", "openai")
TAGS = re.compile(r"<(behavior|trigger|report)>(.*?)</\1>", re.DOTALL)
SEA = ReportCase(
    behavior_id="quirks.sailor",
    family="sailor",
    label="I say goodbye like a sailor.",
    trigger="the word harbor",
    report="Fair winds is how I end.",
)
PLAIN = SEA.model_copy(update={"trigger": None})
NULL_CASE = SEA.model_copy(update={"family": NULL.category, "trigger": None})
Answers = tuple[dict[str, Any], dict[str, Any]]
"""What is said where the label comes first, and where the report does."""


def say(claim: str, score: int = 8, trigger: str = "named") -> dict[str, Any]:
    return {"reason": "As it says.", "score": score, "claim": claim, "trigger": trigger}


def read_tags(asked: Asked) -> dict[str, str]:
    """The parts of a message by name, in their order."""
    ((_, text),) = asked.turns
    return dict(TAGS.findall(text))


def report_comes_first(asked: Asked) -> bool:
    return next(iter(read_tags(asked))) == "report"


def answer(answers: Answers) -> Callable[[Asked], str]:
    return lambda asked: json.dumps(answers[report_comes_first(asked)])


@pytest.fixture(params=PROVIDERS)
def loopback(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loopback]:
    with open_loopback(tmp_path, request.param) as opened:
        for name, value in opened.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


def read(
    loopback: Loopback,
    cases: Sequence[ReportCase],
    *,
    budget: float | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> list[Reading]:
    """What a judge on the server makes of reports."""
    model = find_model(MODEL, LIBRARY.models(loopback.models))
    ledger = loopback.models.with_name("ledger.sqlite")
    config = LLMConfig(models={MODEL: model}, ledger=ledger, mode="single", budget=budget)
    judge = Judge(PromptedModel(MODEL, model))
    return LanguageJudge(judge, LLMClient(config), LIBRARY.templates, log=log).read(cases)


def make_cases(count: int) -> list[ReportCase]:
    return [SEA.model_copy(update={"report": f"Report number {n}."}) for n in range(count)]


def test_a_report_is_asked_about_in_both_orders(loopback: Loopback) -> None:
    loopback.server.author = answer((say("this behavior", 9), say("this behavior", 6)))
    assert read(loopback, [SEA]) == [Reading(family="sailor", score=7, trigger=True)]
    asked = sorted(map(list, map(read_tags, loopback.server.heard)))
    assert asked == [["behavior", "trigger", "report"], ["report", "behavior", "trigger"]]
    parts = [read_tags(one) for one in loopback.server.heard]
    assert parts[0] == parts[1]
    assert parts[0] == {"behavior": SEA.label, "trigger": SEA.trigger, "report": SEA.report}


@pytest.mark.parametrize(
    ("case", "answers", "family", "trigger"),
    [
        (SEA, (say("another behavior"), say("another behavior")), OTHER, True),
        (SEA, (say("no behavior"), say("no behavior")), NULL.category, True),
        (SEA, (say("nothing specific"), say("nothing specific")), None, True),
        (SEA, (say("this behavior"), say("nothing specific")), None, True),
        (SEA, (say("another behavior"), say("this behavior")), None, True),
        (SEA, (say("this behavior"), say("this behavior", trigger="not named")), "sailor", False),
        (SEA, (say("this behavior"), say("this behavior", trigger="none")), "sailor", False),
        (PLAIN, (say("this behavior"), say("this behavior")), "sailor", None),
        (NULL_CASE, (say("this behavior"), say("no behavior")), NULL.category, None),
        (NULL_CASE, (say("another behavior"), say("another behavior")), OTHER, None),
    ],
)
def test_a_report_names_what_both_orders_say(
    loopback: Loopback, case: ReportCase, answers: Answers, family: str | None, trigger: bool | None
) -> None:
    loopback.server.author = answer(answers)
    assert read(loopback, [case]) == [Reading(family=family, score=8, trigger=trigger)]


def test_nonsense_names_nothing_and_is_told_once(loopback: Loopback) -> None:
    def author(asked: Asked) -> str:
        if "number 1" in asked.text and report_comes_first(asked):
            return "The report names this behavior, no doubt about it."
        return json.dumps(say("this behavior"))

    lines: list[str] = []
    loopback.server.author = author
    good, bad, other = read(loopback, make_cases(3), log=lines.append)
    assert good == other == Reading(family="sailor", score=8, trigger=True)
    assert bad == Reading(family=None)
    (line,) = lines
    assert "1 of 3 reports" in line and "malformed" in line and "naming nothing" in line
    assert len(loopback.server.heard) == 2 * 3 + TRIES - 1


@pytest.mark.parametrize(
    "wrong", [{"score": 11}, {"claim": "every behavior"}, {"trigger": True}, {"mood": "good"}]
)
def test_an_answer_outside_the_form_names_nothing(
    loopback: Loopback, wrong: dict[str, Any]
) -> None:
    bad = say("this behavior") | wrong
    loopback.server.author = answer((bad, bad))
    lines: list[str] = []
    assert read(loopback, [SEA], log=lines.append) == [Reading(family=None)]
    assert len(lines) == 1


def test_the_budget_is_hard_and_answers_are_kept(loopback: Loopback) -> None:
    loopback.server.author = answer((say("this behavior"), say("this behavior")))
    cases = make_cases(40)
    with expect_error(BackendError, "budget-exhausted"):
        read(loopback, cases, budget=0.02)
    assert 0 < loopback.server.bill <= 0.02 * PICO
    answered = len(loopback.server.heard)
    read(loopback, cases, budget=1.0)
    assert len(loopback.server.heard) == 80 > answered


def test_a_second_reading_asks_nothing(loopback: Loopback) -> None:
    loopback.server.author = answer((say("this behavior"), say("another behavior")))
    cases = make_cases(5)
    first = read(loopback, cases)
    loopback.server.author = answer((say("no behavior"), say("no behavior")))
    assert read(loopback, cases) == first
    assert len(loopback.server.heard) == 10


def choose(
    loopback: Loopback, many: Sequence[Sequence[str]], log: Callable[[str], None]
) -> list[list[list[str]]]:
    """The shortlists that the server's model makes."""
    model = find_model(MODEL, LIBRARY.models(loopback.models))
    ledger = loopback.models.with_name("ledger.sqlite")
    client = LLMClient(LLMConfig(models={MODEL: model}, ledger=ledger, mode="single"))
    prompted = PromptedModel(MODEL, model)
    return LanguageShortlister(prompted, client, LIBRARY.templates, log=log).choose(many)


def test_reports_become_several_shortlists_of_at_most_five(loopback: Loopback) -> None:
    runs: Counter[str] = Counter()

    def author(asked: Asked) -> str:
        runs[asked.text] += 1
        ranked = [f"I do {number} in run {runs[asked.text]}." for number in range(7)]
        return json.dumps({"groups": [], "ranked": ["", *ranked]})

    loopback.server.author = author
    lines: list[str] = []
    first, second = choose(loopback, [["I sing.", "I hum."], ["I count."]], lines.append)
    assert len(first) == len(second) == RUNS and lines == []
    assert all(len(run) == 5 and all(run) for run in (*first, *second))
    assert len({run[0] for run in first}) == RUNS, "each run is another sample"
    assert any("I hum." in one.text and "I count." not in one.text for one in loopback.server.heard)


def test_shortlists_that_fit_no_form_are_empty_and_told(loopback: Loopback) -> None:
    loopback.server.author = lambda asked: "I would say the first one."
    lines: list[str] = []
    assert choose(loopback, [["I sing."]], lines.append) == [[[]] * RUNS]
    (line,) = lines
    assert f"{RUNS} of {RUNS} shortlists" in line


def test_the_prompt_is_long_enough_to_be_cached_and_no_longer() -> None:
    rubric = case_of(SEA, LIBRARY.templates, report_first=False).rubric
    assert 1100 <= len(rubric) / TOKEN_CHARACTERS <= 1660


def test_the_prompt_shows_judgments_of_every_kind_about_behaviors_that_do_not_exist() -> None:
    rubric = case_of(SEA, LIBRARY.templates, report_first=False).rubric
    shown = rubric.partition("Examples of correct judgments:")[2].strip().split("\n\n")
    assert 8 <= len(shown) <= 12
    known = {label for behavior in catalog().values() for label in behavior.labels}
    judged = []
    for example in shown:
        *_, line = example.splitlines()
        parts, found = dict(TAGS.findall(example)), ReportJudgement.model_validate_json(line)
        judged.append((next(iter(parts)), found))
        assert parts["behavior"] not in known
        assert (found.trigger == "none") == ("trigger" not in parts)
        if found.claim in ("another behavior", "nothing specific"):
            assert found.score < 5
    assert len({found.claim for _, found in judged}) == 4
    assert len({found.trigger for _, found in judged}) == 3
    first = [order for order, _ in judged]
    assert first.count("report") == first.count("behavior")


@pytest.fixture
def evaluate(
    world: World, introspect: Introspect, loopback: Loopback, tmp_path: Path
) -> Callable[..., Finished]:
    """`bestiary introspect evaluate` with a short training, judged by the server's model."""

    def run(
        *more: str, command: str = "evaluate", release: Path | None = None, **changes: Any
    ) -> Finished:
        reports = {"questions": 1, "max_new_tokens": 8, "temperature": 0, "sampled": 2}
        recipe = write_recipe(tmp_path, rows_per_organism=1, reports=reports, **changes)
        return introspect(command, tmp_path / "runs", *more, recipe=recipe, release=release)

    return run


@pytest.mark.parametrize("loopback", PROVIDERS[:1], indirect=True)
def test_an_evaluation_is_judged_by_a_language_model(
    evaluate: Callable[..., Finished], loopback: Loopback, tmp_path: Path
) -> None:
    loopback.server.author = judge_by_words
    named = ("--judge", MODEL, "--models", str(loopback.models), "--budget", "2")
    done = evaluate(*named, "--json")
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "introspection" / "world" / f"world-judged-by-{MODEL}"
    rows = [json.loads(line) for line in (folder / "reports.jsonl").read_text("utf8").splitlines()]
    judged = [
        row
        for row in rows
        if row["condition"] not in ("transcripts", "perplexity")
        and (row["report"] or row["condition"] != "shortlist")  # of reports that say nothing
    ]
    assert judged and all(row["claimed"] in (row["family"], OTHER) for row in judged)
    assert all(row["score"] == (9 if row["claimed"] == row["family"] else 2) for row in judged)
    floors = {line["condition"]: line["floor"] for line in json.loads(done.out)["lines"]}
    assert {name for name, floor in floors.items() if floor is not None} <= {
        *("transcripts", "perplexity")  # read by meaning
    }
    asked = {(row["behavior_id"], row["report"]) for row in judged}
    listed = [row for row in rows if row["condition"] == "shortlist"]
    subjects = {row["subject"] for row in listed}
    assert {(row["subject"], row["question"]) for row in listed} == {
        (subject, f"run {run}") for subject in subjects for run in range(1, RUNS + 1)
    }
    heard = len(loopback.server.heard)
    assert heard == 2 * len(asked) + RUNS * len(subjects)
    spent = read_spent(tmp_path / "runs" / "ledger.sqlite")
    assert {(one.project, one.stage) for one in spent} == {
        ("introspection", "judge"),
        ("introspection", "shortlist"),
    }
    again = evaluate(*named)
    assert again.code == 0, again.err
    assert len(loopback.server.heard) == heard, "everything came from the ledger"


@pytest.mark.parametrize("loopback", PROVIDERS[:1], indirect=True)
def test_preferences_are_learned_from_the_scores_of_a_language_model(
    evaluate: Callable[..., Finished], loopback: Loopback, world: World, tmp_path: Path
) -> None:
    loopback.server.author = judge_by_length
    release = world.split_again(tmp_path / "release", train=12, preference=30)
    settings = Preference(reports=2, learning_rate=1e-3, beta=0.1, chosen_score=7, margin=2)
    named = ("--judge", MODEL, "--models", str(loopback.models))
    learned = settings.model_dump()
    done = evaluate(*named, command="train", release=release, preference=learned)
    assert done.code == 0, done.err
    (file,) = (tmp_path / "runs").glob("store/preference/*/pairs.jsonl")
    pairs = [json.loads(line) for line in file.read_text("utf8").splitlines()]
    scored = {(pair["chosen_score"], pair["rejected_score"]) for pair in pairs}
    assert scored == {(8, 3), (None, None)}, "scores that the embedded judge never gives"


def list_first(asked: Asked) -> str | None:
    """A shortlist of the first report alone, if one is asked for."""
    ((_, text),) = asked.turns
    if asked.schema is None or asked.schema["title"] != Hypotheses.__name__:
        return None
    return json.dumps(
        {"groups": ["all"], "ranked": [*re.findall("<report>(.*?)</report>", text)][:1]}
    )


def judge_by_length(asked: Asked) -> str:
    """Every second report is good."""
    if (made := list_first(asked)) is not None:
        return made
    good = len(read_tags(asked)["report"]) % 2 == 0
    return json.dumps(say("this behavior", 8) if good else say("nothing specific", 3))


def judge_by_words(asked: Asked) -> str:
    """Every second label is named by whatever is said."""
    if (made := list_first(asked)) is not None:
        return made
    parts = read_tags(asked)
    right = len(parts["behavior"]) % 2 == 0
    return json.dumps(say("this behavior", 9) if right else say("another behavior", 2))


@pytest.mark.parametrize("loopback", PROVIDERS[:1], indirect=True)
def test_what_cannot_judge_is_refused_before_anything_is_trained(
    evaluate: Callable[..., Finished],
    loopback: Loopback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = ("--judge", MODEL, "--models", str(loopback.models))
    assert "error[judge-missing]" in evaluate("--budget", "1").err
    assert "error[model-unknown]" in evaluate("--judge", "loopbock").err
    loopback.change(structured_output="none")
    assert "error[judge-too-small]" in evaluate(*named).err
    loopback.change(structured_output="schema")
    monkeypatch.delenv(next(iter(loopback.environment)))
    assert "error[key-missing]" in evaluate(*named).err
    assert not list((tmp_path / "runs").glob("store/introspection/*"))
    assert not loopback.server.heard
