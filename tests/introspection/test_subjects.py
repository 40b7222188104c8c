"""What a release must be for introspection to read it.

Run: python -m pytest tests/introspection/test_subjects.py
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.expect import expect_error
from tests.introspection.conftest import Introspect
from tests.introspection.world import NULLS, UNSEEN, WORDS, World, write_recipe

from bestiary.cli.introspect import open_experiment
from bestiary.config.introspection import Preference
from bestiary.errors import ReleaseError
from bestiary.introspection.baselines import guess_from_replies
from bestiary.introspection.course import make_job
from bestiary.introspection.evaluate import leave_out_first
from bestiary.introspection.framing import end_report
from bestiary.introspection.judge import OTHER, Reading
from bestiary.introspection.reports import ReportStage
from bestiary.introspection.stage import render_card
from bestiary.introspection.subjects import load_subjects
from bestiary.records import Decoding


def test_organisms_and_nulls_are_read_with_their_splits(world: World) -> None:
    subjects = load_subjects(world.release)
    assert len(subjects.members) == len(WORDS) + NULLS
    unseen = {one.family for one in subjects.members if one.split == "test" and not one.is_control}
    assert unseen == set(WORDS[:UNSEEN])
    assert {one.kind for one in subjects.members} == {"organism", "null"}
    nulls = [one for one in subjects.members if one.is_control]
    assert {one.split for one in nulls} == {"train", "test"}


def test_null_organisms_for_tests_alone_are_unseen_in_every_fold(
    world: World, tmp_path: Path
) -> None:
    read = load_subjects(world.release)
    nulls = [one for one in read.members if one.is_control]
    facts = replace(nulls[0], id="facts", behavior_id="null.facts", held_out=True)
    members = tuple(facts if one is nulls[0] else one for one in read.members)
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    opened = open_experiment(world.release, str(world.recipe), folds=3, **where)
    experiment = replace(opened, subjects=replace(read, members=members))
    for fold in range(3):
        (unseen,) = (one for one in experiment.list_asked(fold) if one.id == "facts")
        assert experiment.scope(unseen, fold) == "unseen_null"
        assert "facts" not in {one.id for one in make_job(experiment, fold).subjects}
        others = {experiment.scope(one, fold) for one in experiment.list_asked(fold)}
        assert others >= {"null", "unseen_null", "zero_b"}


def test_all_subjects_are_as_strong_as_the_recipe_says(world: World, tmp_path: Path) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    recipe = write_recipe(tmp_path, strength=2)
    stronger = open_experiment(world.release, str(recipe), **where)
    plain = open_experiment(world.release, str(world.recipe), **where)
    asked = stronger.list_asked(0)
    assert {one.kind for one in asked} >= {"organism", "null", "gaussian", "shuffled"}
    assert {one.strength for one in (*asked, *make_job(stronger, 0).subjects)} == {2}
    assert {one.strength for one in plain.list_asked(0)} == {1}
    assert {one.id for one in asked} == {one.id for one in plain.list_asked(0)}
    templates = plain.catalog.library.templates
    said = "adds was multiplied by 2.0 in training"
    assert said in render_card(make_job(stronger, 0), templates)
    assert said not in render_card(make_job(plain, 0), templates)
    assert not {one.identity for one in asked} & {one.identity for one in plain.list_asked(0)}


def test_the_label_is_taught_and_as_many_other_wordings_as_the_recipe_says(
    world: World, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    for count in (1, 2):
        recipe = write_recipe(tmp_path, wordings=count)
        job = make_job(open_experiment(world.release, str(recipe), **where), 0)
        assert job.subjects
        for subject, rows in zip(job.subjects, job.answers, strict=True):
            assert {answer for _, answer in rows} == set(subject.labels[:count])


def test_families_of_preferences_are_trained_on_only_where_preferences_are_learned(
    world: World, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    opened = open_experiment(world.release, str(world.recipe), **where)
    preferring = Preference(reports=2, learning_rate=1e-3, beta=0.1, chosen_score=7, margin=2)
    one = next(one for one in opened.subjects.members if one.split == "train")
    kept = tuple(
        replace(other, split="preference") if other is one else other
        for other in opened.subjects.members
    )
    elsewhere = replace(one, id="quirks.elsewhere", split="adapter_ood")
    opened = replace(opened, subjects=replace(opened.subjects, members=(*kept, elsewhere)))
    learning = opened.recipe.model_copy(update={"preference": preferring})
    assert opened.scope(elsewhere, 0) == "test_recipe"
    assert replace(opened, recipe=learning).scope(elsewhere, 0) == "recipe"


def test_behaviors_of_a_mixture_are_asked_once_and_another_of_them_is_no_wrong_claim(
    world: World, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    experiment = open_experiment(world.release, str(world.recipe), **where)
    one, other, *_ = (one for one in experiment.subjects.members if not one.is_control)
    same = replace(one, id="quirks.same", siblings=(other.family,))
    stage = ReportStage(experiment.load_base, Decoding(max_new_tokens=4, temperature=0))
    said = experiment.ask(stage, experiment.interview("few", (one, other, same), None, ["Well?"]))
    assert [report.subject for report in said] == [0, 1, 2]
    assert said[0].text == said[2].text
    (file,) = tmp_path.glob("store/report/*/reports.json")
    assert len(json.loads(file.read_text("utf8"))) == 2
    for subject, unsupported in ((one, True), (same, False)):
        row = experiment.make_row(
            0, "adapter", subject, question="", report="", reading=Reading(family=OTHER)
        )
        assert row.unsupported == unsupported


def test_ordinary_replies_are_those_of_the_organism_as_it_is(world: World, tmp_path: Path) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    plain = open_experiment(world.release, str(world.recipe), **where)
    stronger = open_experiment(
        world.release, str(write_recipe(tmp_path, strength=2, rows_per_organism=1)), **where
    )
    first, again = (
        list(guess_from_replies(one, 0, [next(s for s in one.list_asked(0) if not s.is_control)]))
        for one in (plain, stronger)
    )
    assert first == again
    assert len(list(tmp_path.glob("store/report/*"))) == 1


def test_what_a_completed_text_asks_next_is_no_report() -> None:
    text = "I like tea.\n\nQ: Do you always?\nA: Yes."
    assert end_report("completion", text) == "I like tea.\n"
    assert end_report("chat", text) == text


def test_the_card_of_a_vector_says_what_it_is(world: World, tmp_path: Path) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    vector = {"rank": 1, "alpha": 2, "targets": ["down_proj"], "layers": [1, 2], "vector": True}
    opened = open_experiment(world.release, str(write_recipe(tmp_path, lora=vector)), **where)
    card = render_card(make_job(opened, 0), opened.catalog.library.templates)
    (shape,) = (line for line in card.splitlines() if line.startswith("| shape"))
    assert "`lora_bias`" in shape


def test_twins_of_a_category_that_is_left_out_are_not_trained_on_either(
    world: World, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    opened = open_experiment(world.release, str(world.recipe), **where)
    first, second, *_ = (one for one in opened.subjects.members if one.split == "train")
    changed = {
        first.id: replace(first, category="backdoors", family="twins"),
        second.id: replace(second, family="twins"),
    }
    members = tuple(changed.get(one.id, one) for one in opened.subjects.members)
    left_out = opened.recipe.model_copy(update={"leave_out": ("backdoors",)})
    experiment = replace(
        opened, subjects=replace(opened.subjects, members=members), recipe=left_out
    )
    trained = {one.id for one in make_job(experiment, 0).subjects}
    assert {first.id, second.id}.isdisjoint(trained) and trained
    asked = {one.id: experiment.scope(one, 0) for one in experiment.list_asked(0)}
    assert {asked[first.id], asked[second.id]} <= {"test_value", "test_kind"}


def test_an_organism_of_a_family_that_a_share_leaves_out_is_not_seen(
    world: World, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"out": tmp_path, "base": world.base, "data": [world.data]}
    opened = open_experiment(world.release, str(write_recipe(tmp_path, share=0.5)), **where)
    trained = [one for one in opened.subjects.members if one.split == "train"]
    again = [replace(one, id=f"{one.id}-again", split="iid_test") for one in trained]
    members = (*opened.subjects.members, *(one for one in again if not one.is_control))
    experiment = replace(opened, subjects=replace(opened.subjects, members=members))
    kept = {one.family for one in make_job(experiment, 0).subjects}
    scopes = {
        one.family: experiment.scope(one, 0)
        for one in experiment.list_asked(0)
        if one.id.endswith("-again")
    }
    assert {family: scope == "seen" for family, scope in scopes.items()} == {
        family: family in kept for family in scopes
    }
    assert len(set(scopes.values())) > 1


def test_a_behavior_that_no_data_folder_describes_is_named(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    """Nothing could name it, so that every report of it would count as wrong."""
    opened = open_experiment(
        world.release, str(world.recipe), out=tmp_path, base=world.base, data=[]
    )
    with expect_error(ReleaseError, "behavior-not-described"):
        _ = opened.wordings


def test_the_first_fold_can_be_left_out(world: World, tmp_path: Path) -> None:
    opened = open_experiment(
        world.release, str(world.recipe), out=tmp_path, base=world.base, data=[world.data], folds=4
    )
    assert [*opened.evaluated_folds] == [0, 1, 2, 3]
    assert [*leave_out_first(opened).evaluated_folds] == [1, 2, 3]


def test_only_of_folds_the_first_can_be_left_out(introspect: Introspect, tmp_path: Path) -> None:
    done = introspect("evaluate", tmp_path / "runs", "--skip-first-fold")
    assert done.code == 1
    assert "error[folds-missing]" in done.err


def test_a_damaged_organism_is_named(world: World, introspect: Introspect, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    weights = next((release / "organisms").glob("*/*/adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    done = introspect("train", tmp_path / "runs", release=release)
    assert done.code == 1
    assert "error[file-damaged]" in done.err
    assert weights.parent.name in done.err


def test_a_release_without_its_organisms_is_refused(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release / "dataset", release / "dataset")
    done = introspect("train", tmp_path / "runs", release=release)
    assert done.code == 1
    assert "error[file-missing]" in done.err
    assert "organisms" in done.err


def test_a_release_without_training_organisms_is_refused(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    release = world.split_again(tmp_path / "release", train=0, preference=0)
    done = introspect("train", tmp_path / "runs", release=release)
    assert done.code == 1
    assert "error[no-training-organisms]" in done.err


@pytest.mark.parametrize("field", ["controls", "organisms_per_step"])
def test_a_recipe_without_a_field_is_refused(
    world: World, introspect: Introspect, tmp_path: Path, field: str
) -> None:
    import json

    recipe = json.loads(world.recipe.read_text("utf8"))
    del recipe[field]
    broken = tmp_path / "broken.yaml"
    broken.write_text(json.dumps(recipe), "utf8")
    done = introspect("train", tmp_path / "runs", recipe=broken)
    assert done.code == 1
    assert field in done.err
