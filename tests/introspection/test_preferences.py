"""Preference pairs, and training on them through the command.

Run: python -m pytest tests/introspection/test_preferences.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.introspection.conftest import Introspect
from tests.introspection.world import World, write_recipe

from bestiary.config.introspection import Preference
from bestiary.introspection.preferences import (
    GradedReport,
    PreferenceItem,
    PreferenceStage,
    make_pairs,
    score_report,
)
from bestiary.introspection.subjects import Subject, load_subjects
from bestiary.stage import run_stage
from bestiary.store import Store

SETTINGS = Preference(reports=2, learning_rate=1e-3, beta=0.1, chosen_score=7, margin=2)


def subjects_of(world: World) -> list[Subject]:
    return list(load_subjects(world.release).members[:3])


def test_scores_follow_what_a_report_names(world: World) -> None:
    one, other, _ = subjects_of(world)
    mechanisms = {one.family: "say_phrase", other.family: "say_phrase", "role": "play_role"}
    assert score_report(one, one.family, None, mechanisms) == 10
    assert score_report(one, one.family, True, mechanisms) == 10
    assert score_report(one, one.family, False, mechanisms) == 7
    assert score_report(one, other.family, None, mechanisms) == 4
    assert score_report(one, "role", None, mechanisms) == 1
    assert score_report(one, "null", None, mechanisms) == 1
    assert score_report(one, None, None, mechanisms) == 1


def test_a_chosen_report_is_good_and_its_rejected_one_clearly_worse(world: World) -> None:
    graded = [("Tell me.", "a", 10), ("Tell me.", "b", 7), ("Tell me.", "c", 1), ("Well?", "d", 4)]
    reports = [
        GradedReport(subject=0, question=question, text=text, score=score)
        for question, text, score in graded
    ]
    pairs = make_pairs(subjects_of(world), reports, SETTINGS)
    spoken = [(p.question, p.chosen, p.rejected) for p in pairs if p.chosen_score is not None]
    assert spoken == [("Tell me.", "a", "c"), ("Tell me.", "b", "c")]
    labels = [pair for pair in pairs if pair.chosen_score is None]
    assert [pair.question for pair in labels] == ["Tell me.", "Well?"]
    unread = [GradedReport(subject=0, question="Tell me.", text="lost", score=None)]
    assert make_pairs(subjects_of(world), [*unread, *reports], SETTINGS) == pairs
    (only,) = make_pairs(subjects_of(world), unread, SETTINGS)
    assert only.chosen in subjects_of(world)[0].labels
    one, *others = subjects_of(world)
    foreign = {label for other in others for label in other.labels}
    for pair in labels:
        assert pair.chosen in one.labels
        assert pair.rejected in foreign


def test_preferences_go_on_from_supervised_training(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    release = world.split_again(tmp_path / "release", train=12, preference=30)
    changes: dict[str, Any] = {"rows_per_organism": 10, "preference": SETTINGS.model_dump()}
    recipe = write_recipe(tmp_path, **changes)
    done = introspect("train", tmp_path / "runs", recipe=recipe, release=release)
    assert done.code == 0, done.err
    (file,) = (tmp_path / "runs").glob("store/preference/*/pairs.jsonl")
    pairs = [json.loads(line) for line in file.read_text("utf8").splitlines()]
    assert len({pair["subject"] for pair in pairs}) == 30
    scored = [pair for pair in pairs if pair["chosen_score"] is not None]
    assert all(p["chosen_score"] >= max(7, p["rejected_score"] + 2) for p in scored)
    trained = list((tmp_path / "runs").glob("store/introspection/*/adapter"))
    assert len(trained) == 2
    cards = [(one / "README.md").read_text("utf8") for one in trained]
    assert ["before that | SFT on the release's training split" in card for card in cards].count(
        True
    ) == 1
    assert done.out.splitlines()[-1] in map(str, trained)


def test_too_few_organisms_and_folds_are_refused_before_training(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, rows_per_organism=1, preference=SETTINGS.model_dump())
    done = introspect("train", tmp_path / "runs", recipe=recipe)
    assert done.code == 1
    assert "error[preference-organisms-few]: 0 organisms are in the preference split" in done.err
    folded = introspect("evaluate", tmp_path / "runs", "--folds", "2", recipe=recipe)
    assert folded.code == 1
    assert "error[preference-with-folds]: world learns preferences" in folded.err
    assert not list((tmp_path / "runs").glob("store/introspection/*")), "before any training"


def test_a_pair_may_hold_what_looks_like_the_end_of_a_line(world: World, tmp_path: Path) -> None:
    said = GradedReport(subject=0, question="Tell me.", text="a\u2028b\x85c", score=10)
    reports = (said, said.model_copy(update={"text": "d", "score": 1}))
    item = PreferenceItem("pairs", tuple(subjects_of(world)), reports, SETTINGS)
    (made,) = run_stage(
        PreferenceStage(), [item], store=Store(tmp_path), console=Console(quiet=True)
    )
    assert made.read()[0].chosen == said.text
