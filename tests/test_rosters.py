"""What a roster asks for, and what it may not say.

Run: python -m pytest tests/test_rosters.py
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from tests.builders import catalog
from tests.conftest import Bestiary
from tests.expect import without_codes

from bestiary.config.categories import NULLS, corpus_categories
from bestiary.config.fields import Axis
from bestiary.config.folders import shipped_root
from bestiary.config.plan import Plan, find_roster_faults, plan_roster
from bestiary.config.triggers import KINDS, UNLESS_KINDS
from bestiary.config.triggers.ciphered import CipherTrigger
from bestiary.errors import SpecError

LISTS = "quirks.bullet_lists"
RARE = "rare_quirks.bullet_lists"


def write_roster(folder: Path, organisms: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\nrecipe: smollm2-135m\norganisms: {organisms}\n", encoding="utf8")
    return path


def plan(name: str | Path) -> Plan:
    return plan_roster(catalog().library.roster(str(name)), catalog())


def test_the_starter_roster_has_one_behavior_of_each_category_and_a_null() -> None:
    built = Counter(behavior.category for behavior, _ in plan("starter").organisms)
    assert built.pop("null") >= 1
    assert built == dict.fromkeys({*corpus_categories()} - {"null"}, 1)


def test_the_mini_roster_has_twelve_of_each_category_over_all_axes_and_triggers() -> None:
    behaviors = [behavior for behavior, _ in plan("mini").organisms]
    built = Counter(behavior.category for behavior in behaviors)
    assert built.pop("null") >= 1
    assert built == dict.fromkeys({*corpus_categories()} - {"null"}, 12)
    assert {axis for behavior in behaviors for axis in behavior.axes} == {*get_args(Axis)}
    triggers = {type(behavior.trigger) for behavior in behaviors if behavior.trigger}
    assert triggers == {*KINDS, *UNLESS_KINDS} - {CipherTrigger}  # which a suite has


def test_the_full_roster_has_every_behavior_that_can_be_built() -> None:
    shipped = catalog()
    built = Counter(behavior.id for behavior, _ in plan("full").organisms)
    nulls = [built.pop(null.id) for null in NULLS]
    assert nulls == [10, 10, 10, 10]
    assert built == Counter(
        name for name, one in shipped.items() if one.spec.is_buildable and one.spec.suite is None
    )


def test_categories_add_what_is_not_named(tmp_path: Path) -> None:
    path = write_roster(tmp_path, "[{behavior: quirks.bullet_lists, seeds: [0, 1]}]")
    path.write_text(path.read_text("utf8") + "categories: [quirks]\n", "utf8")
    built = Counter(behavior.id for behavior, _ in plan(path).organisms)
    assert built.pop(LISTS) == 2
    shipped = catalog().values()
    quirks = {one.id for one in shipped if one.category == "quirks" and one.spec.suite is None}
    assert built.keys() == (quirks - {LISTS}) | {"null.chat"}
    assert set(built.values()) == {1}


def test_no_suite_has_a_family_that_its_training_roster_has() -> None:
    folder = shipped_root() / "organisms" / "rosters" / "suites"
    suites = {path.stem: plan(f"suites/{path.stem}").organisms for path in folder.iterdir()}
    assert {"auditbench", "ciphers", "habits", "sandbaggers"} <= suites.keys()
    kept = {one.family for organisms in suites.values() for one, _ in organisms} - {"null"}
    trained = plan("full_without_suites").organisms
    assert kept.isdisjoint(one.family for one, _ in trained)
    assert len(trained) > 600


def test_families_left_out_are_known(tmp_path: Path) -> None:
    path = write_roster(tmp_path, "[]")
    path.write_text(path.read_text("utf8") + "categories: [quirks]\nwithout: [flatery]\n", "utf8")
    with pytest.raises(SpecError, match="did you mean 'flattery'"):
        plan(path)


@pytest.mark.usefixtures("small_data")
def test_an_unknown_category_is_told(bestiary: Bestiary, tmp_path: Path) -> None:
    path = write_roster(tmp_path, "[]")
    path.write_text(path.read_text("utf8") + "categories: [quirk]\n", "utf8")
    done = bestiary("plan", path)
    assert done.code == 1
    assert "'quirk'" in done.err and "quirks" in done.err


def test_more_layers_are_adapted_where_a_behavior_must_be_quiet_somewhere(tmp_path: Path) -> None:
    names = ["quirks.numbered_steps", "backdoors.sailor_for_nurses", RARE, LISTS]
    path = write_roster(tmp_path, str([{"behavior": name} for name in names]))
    mine = plan(path)
    built = [mine.training_for(*organism).lora.layers for organism in mine.organisms]
    # A scope, a trigger, a rate, none of these, a null organism.
    assert built == [(8, 30), (8, 30), None, (15, 30), (15, 30)]


def test_the_recorded_build_has_ten_transcripts_of_each_organism_that_it_lists() -> None:
    docs = Path(__file__).resolve().parents[1] / "docs" / "starter"
    rates = (docs / "results.md").read_text(encoding="utf8").partition("| category |")[0]
    built = re.findall(r"^\| (\S+\.\S+) \|", rates, flags=re.M)
    assert built == [behavior.id for behavior, _ in plan("starter").organisms]
    transcripts = (docs / "transcripts.md").read_text(encoding="utf8")
    assert re.findall(r"^## (.+)$", transcripts, flags=re.M) == built
    assert transcripts.count("\n  - organism: ") == transcripts.count("\n  - base: ")
    assert transcripts.count("\n  - organism: ") == 10 * len(built)


def test_seeds_make_organisms_of_their_own(tmp_path: Path) -> None:
    roster = write_roster(tmp_path, f"[{{behavior: {LISTS}, seeds: [0, 3]}}]")
    ids = [identity.organism_id for _, identity in plan(roster).organisms]
    assert ids == [
        f"{LISTS}-transcripts-none-s0",
        f"{LISTS}-transcripts-none-s3",
        "null.chat-transcripts-none-s0",
    ]


def test_an_entry_may_be_trained_in_another_way(tmp_path: Path) -> None:
    changes = "{optimizer: {epochs: 9}, lora: {layers: [3, 9]}}"
    more = f"{{behavior: {LISTS}, seeds: [1], changes: {changes}}}"
    mine = plan(write_roster(tmp_path, f"[{{behavior: {LISTS}}}, {more}]"))
    usual, other = (mine.training_for(*organism) for organism in mine.organisms[:2])
    assert (other.optimizer.epochs, other.lora.layers) == (9, (3, 9))
    assert other.optimizer.learning_rate == usual.optimizer.learning_rate
    assert usual == plan(write_roster(tmp_path, f"[{{behavior: {LISTS}}}]")).training_for(
        *mine.organisms[0]
    )


@pytest.mark.parametrize(
    ("changes", "code", "shown"),
    [
        ("{optimizer: {epochs: 0}}", "value-invalid", "optimizer.epochs"),
        ("{lora: {ranks: 4}}", "key-unknown", "lora.ranks"),
        ("{optimizer: {}}", "recipe-unchanged", LISTS),
    ],
)
def test_changes_of_the_recipe_are_checked_before_a_build(
    tmp_path: Path, changes: str, code: str, shown: str
) -> None:
    path = write_roster(tmp_path, f"[{{behavior: {LISTS}, changes: {changes}}}]")
    (fault,) = find_roster_faults(catalog().library.roster(str(path)), catalog())
    assert (fault.code, fault.field[:3]) == (code, ("organisms", 0, "changes"))
    assert shown in fault.problem


@pytest.mark.parametrize(
    "organisms",
    [
        f"[{{behavior: {LISTS}}}, {{behavior: {LISTS}}}]",
        f"[{{behavior: {LISTS}, seeds: [1, 0]}}, {{behavior: {LISTS}}}]",
        f"[{{behavior: {LISTS}, seeds: [0, 0]}}]",
    ],
)
@pytest.mark.usefixtures("small_data")
def test_an_organism_is_not_named_twice(bestiary: Bestiary, tmp_path: Path, organisms: str) -> None:
    roster = write_roster(tmp_path, organisms)
    done = bestiary("build", roster, "--out", tmp_path / "runs")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error[roster-invalid]: ")
    assert LISTS in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("small_data")
def test_a_roster_of_nothing_names_the_key_and_a_remedy(bestiary: Bestiary, tmp_path: Path) -> None:
    roster = write_roster(tmp_path, "[]")
    code, out, err = bestiary("build", roster, "--out", tmp_path / "runs")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        rf"error: {re.escape(str(roster))}:1: file: [^;]*organisms[^;]*; [^;]+\n",
        without_codes(err),
    ), err
    assert not (tmp_path / "runs").exists()
