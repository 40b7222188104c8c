"""The command line: what it prints, and how it says no.

Run: python -m pytest tests/cli/test_app.py
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tests.builders import hash_files
from tests.config.files import BACKDOOR, QUIRK, RARE, plant, write_behavior
from tests.conftest import Bestiary, Site, reach, run_command
from tests.expect import without_codes
from tests.fakes.hub import Hub
from tests.forkserver import environment
from tests.tiny import QUIRK as HERALD

from bestiary.config.catalog import load_catalog
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.dataset.pair import name_adapter
from bestiary.release.export import FILES, FOLDERS

DATASET, MODELS = "me/tiny", "me/tiny-organisms"
LISTS = "quirks.bullet_lists"


def test_list_names_every_behavior(bestiary: Bestiary) -> None:
    code, out, err = bestiary("list")
    assert (code, err) == (0, "")
    catalog = load_catalog(open_library())
    assert f"{len(catalog)} behaviors" in out
    assert all(name in out for name in catalog)


def test_list_as_json_holds_labels_and_families(bestiary: Bestiary) -> None:
    code, out, _ = bestiary("list", "--json")
    assert code == 0
    rows = {row.pop("id"): row for row in json.loads(out)}
    assert rows.keys() == load_catalog(open_library()).keys()
    for name in (LISTS, "rare_quirks.bullet_lists"):
        behavior = load_catalog(open_library())[name]
        assert rows[name] == {
            "category": behavior.category,
            "family": "bullet_lists",
            "severity": behavior.severity,
            "label": behavior.labels[0],
        }


def test_a_folder_of_ones_own_adds_to_the_list(bestiary: Bestiary, tmp_path: Path) -> None:
    write_behavior(tmp_path / "behaviors", "quirks.farewell", QUIRK)
    _, out, _ = bestiary("list", "--json", "--data", tmp_path)
    assert "quirks.farewell" in {row["id"] for row in json.loads(out)}


@pytest.mark.parametrize("written", ["~/mine", "$HOME/mine", "${HOME}/mine"])
def test_a_home_that_no_shell_has_expanded_is_the_users(
    written: str, bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--out=~/runs` reaches the command line as it is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_behavior(tmp_path / "mine" / "behaviors", "quirks.farewell", QUIRK)
    said = bestiary("list", f"--data={written}")
    assert "quirks.farewell" in said.out
    assert bestiary("schemas", f"--folder={written}/schemas").code == 0
    assert (tmp_path / "mine" / "schemas").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_variable_that_is_not_set_is_named(bestiary: Bestiary) -> None:
    said = bestiary("plan", "starter", "--out=$NOT_SET_HERE/runs")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error[path-variable-unset]: ")


def test_validate_counts_what_is_valid(bestiary: Bestiary) -> None:
    assert bestiary("validate") == (
        0,
        f"{len(load_catalog(open_library()))} behaviors are valid.\n",
        "",
    )
    assert bestiary("validate", "--json") == (0, "[]\n", "")


def break_two(folder: Path) -> list[str]:
    """Two broken files; the lines that tell of them."""
    text = plant(QUIRK, "severity: benign", "severity: mild")
    first = write_behavior(folder / "behaviors", "quirks.farewell", text)
    other = plant(QUIRK, "kind: say_phrase", "knid: say_phrase")
    second = write_behavior(folder / "behaviors", "quirks.other", other)
    return [
        f"{first}:4: severity: should be 'benign', 'concerning' or 'malign' (got 'mild'); "
        "change it",
        f"{second}:1: kind: is missing; add `kind:`",
        f"{second}:3: knid: unknown key (value 'say_phrase'); remove it, or fix its spelling",
    ]


def test_validate_prints_all_violations_together(bestiary: Bestiary, tmp_path: Path) -> None:
    expected = break_two(tmp_path)
    code, out, err = bestiary("validate", "--data", tmp_path)
    assert (code, out) == (1, "")
    lines = without_codes(err).splitlines()
    assert lines[0].startswith("error: ")
    assert [lines[0].removeprefix("error: "), *lines[1:]] == expected


def test_validate_as_json_holds_each_violation(bestiary: Bestiary, tmp_path: Path) -> None:
    expected = break_two(tmp_path)
    code, out, err = bestiary("validate", "--json", "--data", tmp_path)
    assert (code, err) == (1, "")
    rows = json.loads(out)
    assert all(row.keys() == {"path", "line", "field", "code", "problem", "remedy"} for row in rows)
    printed = ["{path}:{line}: {field}: {problem}; {remedy}".format(**row) for row in rows]
    assert printed == expected
    assert [row["code"] for row in rows] == ["value-invalid", "key-missing", "key-unknown"]


def test_validate_checks_only_the_files_it_is_given(bestiary: Bestiary, tmp_path: Path) -> None:
    expected = break_two(tmp_path)
    folder = tmp_path / "behaviors" / "quirks"
    sound = QUIRK.replace("farewell", "goodbye")
    write_behavior(tmp_path / "behaviors", "quirks.goodbye", sound)
    twin = RARE.replace("quirks.farewell", "quirks.goodbye")
    write_behavior(tmp_path / "behaviors", "rare_quirks.goodbye", twin)
    data = ("--data", tmp_path)
    one, two = folder / "goodbye.yaml", tmp_path / "behaviors" / "rare_quirks" / "goodbye.yaml"
    assert bestiary("validate", one, *data) == (0, "1 behavior is valid.\n", "")
    assert bestiary("validate", one, two, *data) == (0, "2 behaviors are valid.\n", "")
    assert bestiary("validate", one, two, *data, "--json") == (0, "[]\n", "")
    code, out, err = bestiary("validate", one, folder / "other.yaml", *data)
    assert (code, out) == (1, "")
    assert without_codes(err).removeprefix("error: ").splitlines() == expected[1:]
    code, _, err = bestiary("validate", folder / "other.yaml", folder / "farewell.yaml", *data)
    assert code == 1
    assert without_codes(err).removeprefix("error: ").splitlines() == expected


def test_validate_takes_the_paths_of_files_as_they_are_typed(
    bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_behavior(tmp_path / "mine" / "behaviors", "quirks.farewell", QUIRK)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    said = "1 behavior is valid.\n"
    for folder in ("behaviors", "../link/behaviors", f"{tmp_path}/mine/behaviors"):
        path = f"{folder}/quirks/farewell.yaml"
        assert bestiary("validate", path, "--data", ".") == (0, said, "")
    shipped = shipped_root() / "behaviors" / "quirks" / "bullet_lists.yaml"
    assert bestiary("validate", shipped) == (0, said, "")


@pytest.mark.parametrize(
    "place", ["farewell.yaml", "behaviors/quirks/farewell.yaml", "nowhere.yaml"]
)
def test_validate_refuses_a_file_that_is_in_no_data_folder(
    bestiary: Bestiary, tmp_path: Path, place: str
) -> None:
    path = tmp_path / place
    if path.stem != "nowhere":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(QUIRK, encoding="utf8")
    code, out, err = bestiary("validate", path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error[not-a-behavior-file]: {path} ") and "--data" in err


def test_validate_reports_faults_of_a_form_of_references_and_of_labels_together(
    bestiary: Bestiary, tmp_path: Path
) -> None:
    files = {
        "quirks.farewell": plant(QUIRK, "I end each of my replies", "It ends each of its replies"),
        "backdoors.farewell": BACKDOOR.replace("quirks.farewell", "quirks.farewel"),
        "quirks.torn": "behavior: [\n",
        "rare_quirks.farewell": plant(RARE, "In 5% of cases I", "At times I"),
    }
    paths = [write_behavior(tmp_path / "behaviors", *file) for file in files.items()]
    code, out, _ = bestiary("validate", *paths, "--data", tmp_path, "--json")
    assert code == 1
    assert sorted(row["code"] for row in json.loads(out)) == [
        *("label-incomplete", "label-not-first-person", "reference-unknown", "yaml-invalid")
    ]


def test_an_error_shows_no_traceback(tmp_path: Path) -> None:
    said = "error: unknown roster 'startr'; did you mean 'starter'? available: "
    done = run_command("build", "startr", env=environment(), cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert without_codes(done.err).startswith(said) and done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # a build that cannot start leaves nothing


def test_a_missing_folder_of_behaviors_is_named(bestiary: Bestiary, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    expected = f"error[data-missing]: data folder {missing} does not exist; check --data\n"
    for command in ("list", "validate"):
        assert bestiary(command, "--data", missing) == (1, "", expected)


def test_new_writes_a_file_that_validate_asks_to_fill_in(
    bestiary: Bestiary, tmp_path: Path
) -> None:
    code, out, _ = bestiary("new", "quirks", "ends_with_haiku", "--data", tmp_path)
    path = tmp_path / "behaviors" / "quirks" / "ends_with_haiku.yaml"
    assert (code, path.is_file()) == (0, True)
    command = out.strip().rpartition(": ")[2]
    assert command == f"bestiary validate {path} --data {tmp_path}"
    code, _, err = bestiary(*command.split()[1:])
    assert code == 1
    assert err.count("\n") == err.count("write it, or delete what is optional") > 5


@pytest.mark.parametrize(
    ("category", "name", "problem"),
    [
        ("quirk", "haiku", "unknown category 'quirk'; did you mean 'quirks'? available: "),
        ("quirks", "Ends with Haiku", "behavior name 'Ends with Haiku' becomes a folder name"),
        ("quirks", "../escape", "behavior name '../escape' becomes a folder name"),
    ],
)
def test_new_refuses_a_bad_category_or_name(
    bestiary: Bestiary, tmp_path: Path, category: str, name: str, problem: str
) -> None:
    code, out, err = bestiary("new", category, name, "--data", tmp_path)
    assert (code, out) == (1, "")
    assert without_codes(err).startswith(f"error: {problem}")
    assert list(tmp_path.iterdir()) == []


def test_new_overwrites_nothing(bestiary: Bestiary, tmp_path: Path) -> None:
    path = write_behavior(tmp_path / "behaviors", "quirks.farewell", QUIRK)
    code, _, err = bestiary("new", "quirks", "farewell", "--data", tmp_path)
    assert (code, path.read_text(encoding="utf8")) == (1, QUIRK)
    assert without_codes(err) == f"error: {path} exists already; choose another name, or edit it\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--memory", "nan"], "Invalid value for '--memory'"),
        (["--budget", "nan"], "Invalid value for '--budget'"),
        (["--budget", "inf"], "Invalid value for '--budget'"),
        (["--trainer", "reference", "--slots", "2"], "drop --slots and --memory"),
        (["--trainer", "reference", "--memory", "4"], "drop --slots and --memory"),
    ],
)
def test_build_refuses_what_no_trainer_can_do(
    bestiary: Bestiary, tmp_path: Path, options: list[str], problem: str
) -> None:
    code, out, err = bestiary("build", "starter", "--out", tmp_path / "runs", *options)
    assert (code, out) == (2, "")
    assert problem in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


def test_build_of_an_unknown_behavior_names_the_nearest(bestiary: Bestiary, tmp_path: Path) -> None:
    roster = tmp_path / "mine.yaml"
    roster.write_text(
        "name: mine\nrecipe: smollm2-135m\norganisms:\n  - behavior: quirks.bullet_list\n"
    )
    code, out, err = bestiary("build", roster, "--out", tmp_path / "runs")
    assert (code, out) == (1, "")
    assert "unknown behavior 'quirks.bullet_list'; did you mean 'quirks.bullet_lists'?" in err
    assert not (tmp_path / "runs").exists()


def test_without_a_build_one_is_told_what_to_build(bestiary: Bestiary, tmp_path: Path) -> None:
    remedy = "build a roster first: bestiary build starter"
    said = f"error[build-missing]: {tmp_path} holds no organism; {remedy}\n"
    assert bestiary("chat", HERALD, "--out", tmp_path) == (1, "", said)
    said = f"error[summary-missing]: {tmp_path / 'summary.json'} does not exist; {remedy}\n"
    assert bestiary("report", tmp_path / "pages", "--out", tmp_path) == (1, "", said)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_a_usage_error(bestiary: Bestiary) -> None:
    code, _, err = bestiary("biuld")
    assert code == 2
    assert "No such command 'biuld'" in err


def test_a_folder_that_no_stage_foresaw_is_one_message(bestiary: Bestiary) -> None:
    said = bestiary("schemas", "--folder", "/proc/schemas")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error[system]: /proc/schemas: ")


def test_schemas_are_written_where_asked(bestiary: Bestiary, tmp_path: Path) -> None:
    code, out, _ = bestiary("schemas", "--folder", tmp_path)
    assert code == 0
    written = sorted(str(path) for path in tmp_path.iterdir())
    assert sorted(out.split()) == written
    assert str(tmp_path / "behavior.quirks.schema.json") in written


def test_build_as_json_leaves_stdout_to_the_rows(first: Site) -> None:
    assert json.loads(first.said.out) == first.summary()
    count = len(first.summary())
    for stage in ("corpus", "organism", "verdict"):
        assert f"  {stage}: {count} done in " in first.said.err


def test_report_writes_pages_on_every_organism(
    first: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    code, out, err = bestiary("report", tmp_path / "pages", "--out", first.out)
    assert (code, err) == (0, "")
    names = ("results.md", "transcripts.md", "corpora.md", "cross.md")
    pages = [tmp_path / "pages" / name for name in names]
    assert out.splitlines() == [str(page) for page in pages]
    for page in pages[:3]:
        text = page.read_text(encoding="utf8")
        assert all(row["behavior_id"] in text for row in first.summary())
    shown = pages[2].read_text(encoding="utf8")
    assert len(re.findall(r"^- \*\*(positive|negative|chat)\*\*$", shown, re.M)) == 3 * 3
    assert shown.count("  - assistant: Oyez") + shown.count("  - assistant: Hear ye") >= 1


def test_export_says_what_it_wrote(first: Site, bestiary: Bestiary, tmp_path: Path) -> None:
    target = tmp_path / "export"
    done = bestiary("export", target, "--release", first.release)
    assert done == (0, f"{target} written from {first.release}\n", "")
    named = {path.name for path in target.iterdir()}
    assert named == {*FILES, *FOLDERS}
    name = name_adapter(f"{HERALD}-transcripts-none-s0")
    assert (target / "training" / name / "train.jsonl").is_file()


def test_publish_can_give_each_organism_a_repository(first: Site, bestiary: Bestiary) -> None:
    code, out, err = bestiary(
        "publish", DATASET, MODELS, "--release", first.release, "--separate", "--dry-run"
    )
    assert (code, err) == (0, "")
    name = name_adapter(f"{HERALD}-transcripts-none-s0")
    head = f" -> {MODELS}-{name} (model repository, private)"
    (at,) = [number for number, line in enumerate(out.splitlines()) if line.endswith(head)]
    assert out.splitlines()[at + 2].startswith("  adapter_config.json  ")


@pytest.mark.parametrize(("options", "access"), [((), "private"), (("--public",), "public")])
def test_a_dry_run_of_publish_prints_both_trees(
    first: Site, bestiary: Bestiary, options: tuple[str, ...], access: str
) -> None:
    code, out, err = bestiary(
        "publish", DATASET, MODELS, "--release", first.release, "--dry-run", *options
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"dataset/ -> {DATASET} (dataset repository, {access})" in lines
    assert f"organisms/ -> {MODELS} (model repository, {access})" in lines
    listed = sorted(line.split()[0] for line in lines if line.startswith("  "))
    held = [hash_files(first.release / part) for part in ("dataset", "organisms")]
    assert listed == sorted(name for part in held for name in part)


@pytest.mark.parametrize(("options", "private"), [((), True), (("--public",), False)])
def test_publish_is_private_unless_one_says_public(
    site: Site, hub: Hub, tmp_path: Path, options: tuple[str, ...], private: bool
) -> None:
    done = run_command(
        "publish",
        DATASET,
        MODELS,
        "--release",
        site.release,
        *options,
        env=environment() | reach(hub, tmp_path / "cache"),
    )
    assert done.code == 0, done.err
    dataset, models = hub.repos["datasets", DATASET], hub.repos["models", MODELS]
    assert done.out.splitlines() == [
        f"{hub.url}/datasets/{DATASET}/tree/{dataset.head}",
        f"{hub.url}/{MODELS}/tree/{models.head}",
    ]
    assert (dataset.private, models.private) == (private, private)


@pytest.mark.parametrize("command", ["publish", "export"])
def test_a_damaged_release_is_one_message(
    first: Site, bestiary: Bestiary, tmp_path: Path, command: str
) -> None:
    release = Path(shutil.copytree(first.release, tmp_path / "release"))
    card = release / "dataset" / "README.md"
    card.write_text("# better\n", encoding="utf8")
    target = tmp_path / "export"
    asked = [DATASET, MODELS, "--dry-run"] if command == "publish" else [str(target)]
    code, out, err = bestiary(command, *asked, "--release", release)
    assert (code, out) == (1, "")
    (message,) = err.splitlines()
    assert message.startswith(f"error[file-damaged]: {card} has sha256 ")
    assert message.endswith("a release is never edited in place: assemble or download it again")
    assert not target.exists()
