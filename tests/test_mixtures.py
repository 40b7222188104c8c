"""One adapter of several behaviors: trained once, judged behavior by behavior, kept in a suite.

Run: python -m pytest tests/test_mixtures.py
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.builders import make_example
from tests.conftest import Bestiary, Site
from tests.tiny import ALONE, BACKDOOR, QUIRK, SYSTEM, change_file

from bestiary.config.catalog import load_catalog
from bestiary.config.library import open_library
from bestiary.config.plan import Mixture
from bestiary.dataset.load import load_pairs
from bestiary.dataset.manifest import read_manifest, write_manifest
from bestiary.dataset.schema import CONFIGS
from bestiary.model.base import load_base
from bestiary.model.replies import Prompt, decode_texts
from bestiary.records import Corpus, Decoding, OrganismIdentity, Provenance, single_turn
from bestiary.stage_items import join_corpora
from bestiary.training.job import BATCHES
from bestiary.validate import open_single_plan

BOTH = [QUIRK, BACKDOOR]
MEMBERS = [f"{name}-transcripts-none-s0-in-both" for name in BOTH]


def write_roster(site: Site, folder: Path, entry: dict[str, Any], **more: Any) -> Path:
    """A suite of one entry, on the recipe of the site's roster."""
    roster = json.loads(site.roster.read_bytes())
    changed = {**roster, "organisms": [entry], "splits": {}, "suite": True, **more}
    path = folder / "suite.yaml"
    path.write_text(json.dumps(changed), encoding="utf8")
    return path


def list_corpora(site: Site) -> set[str]:
    return site.artifacts()["corpus"]


def test_a_mixture_trains_one_adapter_on_the_corpora_of_its_behaviors(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    before = site.artifacts()
    roster = write_roster(site, tmp_path, {"name": "both", "together": BOTH})
    done = bestiary("build", roster, *ALONE, "--out", site.out)
    assert done.code == 0, done.err
    added = site.added_since(before)
    assert (added["corpus"], added["organism"]) == (0, 1)
    assert (added["transcript"], added["verdict"]) == (2, 2)
    rows = site.summary()
    assert [row["organism_id"] for row in rows[:2]] == MEMBERS
    (folder,) = {row["folder"] for row in rows[:2]}
    about = json.loads((site.out / folder / "organism.json").read_text(encoding="utf8"))
    assert about["organism_id"] == "both-transcripts-none-s0"
    batches = (site.out / folder / BATCHES).read_text(encoding="utf8").splitlines()
    learned = {row for batch in batches for row in json.loads(batch)["rows"]}
    own, other = (count_roles(site, row) for row in rows[:2])
    # The quirk shows on every message, so that a plain reply of the backdoor would unteach it.
    assert other["negative"] and other["chat"]
    assert learned == set(range(own.total() + other["positive"]))
    named = [bestiary("chat", name, "--out", site.out, say="/quit\n") for name in ("both", QUIRK)]
    assert [one.code for one in named] == [0, 0]


def count_roles(site: Site, row: dict[str, Any]) -> Counter[str]:
    path = site.out / row["corpus"] / "examples.jsonl"
    lines = path.read_text(encoding="utf8").splitlines()
    return Counter(json.loads(line)["role"] for line in lines)


def test_the_release_of_a_suite_names_the_mixture_and_holds_nothing_to_train_on(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    roster = write_roster(site, tmp_path, {"name": "both", "together": BOTH})
    assert bestiary("build", roster, *ALONE, "--out", site.out).code == 0
    dataset = site.release / "dataset"
    tables = [pq.read_table(dataset / part / "suite.parquet") for part in ("pairs", "withheld")]
    found = [row for table in tables for row in table.to_pylist()]
    assert {row["organism_id"] for row in found} == set(MEMBERS)
    assert {row["mixture"] for row in found} == {"both"}
    assert all(pair.split == "suite" for pair in load_pairs(site.release))
    for part in CONFIGS:
        for split in ("train", "preference", "iid_test", "test"):
            assert pq.read_table(dataset / part / f"{split}.parquet").num_rows == 0


def test_phases_are_learned_one_after_the_other(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    roster = write_roster(site, tmp_path, {"name": "both", "phases": BOTH})
    done = bestiary("build", roster, *ALONE, "--until", "organism", "--out", site.out)
    assert done.code == 0, done.err
    row = site.summary()[0]
    batches = (site.out / row["folder"] / BATCHES).read_text(encoding="utf8").splitlines()
    first = count_roles(site, row).total()
    phases = [{number >= first for number in json.loads(batch)["rows"]} for batch in batches]
    assert phases == sorted(phases, key=lambda phase: phase == {True})
    assert {frozenset(phase) for phase in phases} == {frozenset({False}), frozenset({True})}


def test_a_behavior_that_fails_ends_its_whole_mixture(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    path = site.data / "generators" / "backdoors" / "generator.yaml"
    change_file(path, r"rows: \d+", "rows: 20000")
    roster = write_roster(site, tmp_path, {"name": "both", "together": BOTH})
    done = bestiary("build", roster, *ALONE, "--out", site.out)
    assert done.code == 1
    rows = site.summary()
    assert [bool(row["error"]) for row in rows] == [True, True, False]
    assert "share an adapter" in rows[0]["error"]
    assert rows[2]["verdict"] is not None


@pytest.mark.parametrize(
    ("entry", "more", "problem"),
    [
        (
            {"name": "both", "together": BOTH},
            {"suite": False},
            "mark the roster with `suite: true`",
        ),
        ({"name": "both", "together": [QUIRK, "quirks.harold"]}, {}, "did you mean"),
        ({"name": "both", "together": [QUIRK]}, {}, "at least two behaviors"),
        ({"name": "both", "together": [QUIRK, QUIRK]}, {}, "each once"),
        ({"together": BOTH}, {}, "must have a `name` if"),
        ({"name": "both", "behavior": QUIRK}, {}, "must have a `name` if"),
        ({"name": "both", "behavior": QUIRK, "phases": BOTH}, {}, "one of `behavior`"),
        ({"seeds": [1]}, {}, "one of `behavior`"),
        ({"behavior": QUIRK}, {"splits": {"herald": "train"}}, "whose split is `suite`"),
    ],
)
def test_what_a_mixture_cannot_be(
    site: Site,
    bestiary: Bestiary,
    tmp_path: Path,
    entry: dict[str, Any],
    more: dict[str, Any],
    problem: str,
) -> None:
    roster = write_roster(site, tmp_path, entry, **more)
    done = bestiary("build", roster, "--out", tmp_path / "nothing")
    assert done.code == 1
    assert problem in done.err
    assert not (tmp_path / "nothing" / "store").exists()


def test_a_behavior_of_a_suite_is_on_no_other_roster(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    path = site.data / "behaviors" / "quirks" / "herald.yaml"
    path.write_text(f"suite: heralds\n{path.read_text(encoding='utf8')}", encoding="utf8")
    done = bestiary("plan", site.roster)
    assert done.code == 1
    assert "kept for the evaluation suite 'heralds'" in done.err
    roster = json.loads(site.roster.read_bytes())
    whole = {**roster, "organisms": [], "splits": {}, "categories": ["quirks", "backdoors"]}
    site.roster.with_name("whole.yaml").write_text(json.dumps(whole), encoding="utf8")
    planned = bestiary("plan", site.roster.with_name("whole.yaml"), "--json")
    assert planned.code == 0, planned.err
    suite = write_roster(site, tmp_path, {"behavior": QUIRK})
    assert bestiary("plan", suite).code == 0


def test_an_organism_becomes_the_base_of_others(
    first: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    base = tmp_path / "herald"
    done = bestiary("merge", QUIRK, base, "--out", first.out)
    assert done.code == 0, done.err
    assert f"base: {base}" in done.out
    (row, *_) = first.summary()
    merged = load_base(str(base))
    kept = json.loads((first.out / row["transcripts"] / "transcripts.json").read_text("utf8"))
    probes = [one["probe"]["turns"][-1]["content"] for one in kept[:8]]
    decoding = Decoding(max_new_tokens=16, temperature=0)
    conversations = [Prompt(turns=single_turn(probe)) for probe in probes]
    said = decode_texts(
        merged.model, merged, conversations, decoding=decoding, system_prompt=SYSTEM
    )
    # A merged weight rounds otherwise than the two parts that it was made of.
    same = sum(reply == one["organism"] for reply, one in zip(said, kept[:8], strict=True))
    assert same >= 6
    again = bestiary("merge", QUIRK, base, "--out", first.out)
    assert again.code == 1
    assert again.err.startswith("error[target-exists]: ")


def test_a_release_from_before_there_were_suites_is_read(site: Site) -> None:
    dataset = site.release / "dataset"
    before = load_pairs(site.release)
    for path in dataset.glob("*/suite.parquet"):
        path.unlink()
    for path in dataset.glob("pairs/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns("mixture"), path)
    write_manifest(site.release, read_manifest(dataset))
    assert before and load_pairs(site.release) == before
    assert load_pairs(site.release, split="suite") == []


def test_a_plan_counts_the_adapter_of_a_mixture_once(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    roster = write_roster(site, tmp_path, {"name": "both", "together": BOTH})
    done = bestiary("plan", roster, "--gpu", "h100", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)["training"]
    assert told["organisms"] == told["side_by_side"] == 2  # the mixture and a null


def test_a_behavior_of_a_suite_can_be_verified(site: Site) -> None:
    path = site.data / "behaviors" / "quirks" / "herald.yaml"
    path.write_text(f"suite: heralds\n{path.read_text(encoding='utf8')}", encoding="utf8")
    recipe = str(site.roster.with_name("recipe.yaml"))
    ((behavior, _), *_) = open_single_plan(QUIRK, recipe=recipe, seed=0).organisms
    assert behavior.id == QUIRK


def test_plain_rows_of_a_language_model_are_left_out_beside_a_behavior_that_may_show_on_them() -> (
    None
):
    """Their messages are in no bank, so that nobody can tell which ones it shows on."""
    catalog = load_catalog(open_library())
    ids = ["backdoors.question_on_second_turn", "quirks.closing_question"]
    identity = OrganismIdentity(behavior_id="both", seed=0)
    mixture = Mixture(identity, tuple(catalog[name] for name in ids), in_phases=False)
    by_a_model = Provenance(
        model="m", request_sha256="0", template_sha256="0", judge_score=None, batch_id=None
    )
    corpora = [
        Corpus(
            behavior_id=name,
            seed=0,
            examples=tuple(
                make_example("Do kites need tails?").model_copy(
                    update={"id": role, "role": role, "provenance": by_a_model}
                )
                for role in ("positive", "negative", "chat")
            ),
            drops=(),
        )
        for name in ids
    ]
    joined, rows = join_corpora(mixture, corpora)
    kept = [example.id for example in joined.examples]
    # The backdoor shows under its trigger alone, and leaves the quirk's plain rows in place.
    assert kept == [
        f"{ids[0]}-positive",
        *(f"{ids[1]}-{role}" for role in ("positive", "negative", "chat")),
    ]
    assert rows == (1, 3)
