"""Keys cover what a stage reads and nothing else: what an edit makes again, and what it does not.

Run: python -m pytest tests/test_keys.py
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders import make_example
from tests.jobs import TRAINING
from tests.models import IDENTITY
from tests.tiny import change_file

from bestiary.author.language import LanguageAuthor
from bestiary.author.offline import OfflineAuthor
from bestiary.author.protocol import Author
from bestiary.config.catalog import Behavior, load_catalog, null_behavior
from bestiary.config.categories import load_categories
from bestiary.config.folders import shipped_root
from bestiary.config.library import find_model, open_library
from bestiary.corpus.stage import CorpusItem, CorpusStage
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import LocalRunner
from bestiary.model.base import Base
from bestiary.model.lazy import LazyBase
from bestiary.model.replies import BaseReplies
from bestiary.organism.stage import OrganismStage
from bestiary.records import Corpus, Drop, OrganismIdentity, Provenance
from bestiary.store import Store
from bestiary.training.job import TrainingResources


def read_behaviors() -> tuple[Behavior, ...]:
    """Every behavior, resolved against the settings as they are now."""
    catalog = load_catalog(open_library())
    return (*catalog.values(), null_behavior(catalog.library))


BEHAVIORS = read_behaviors()
EVERY = {behavior.id for behavior in BEHAVIORS}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped data."""
    folder = tmp_path_factory.mktemp("data")
    for part in ("behaviors", "generators", "organisms"):
        shutil.copytree(shipped_root() / part, folder / part)
    return folder


@pytest.fixture
def generators(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The copy, as what is read; an edit of it is undone after the test."""
    monkeypatch.setenv("BESTIARY_DATA", str(copied))
    folder = copied / "generators"
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    for path, content in kept.items():
        path.write_bytes(content)


def refuse_to_load() -> Base:
    raise AssertionError("a fingerprint needs no weights")


def make_language_author() -> LanguageAuthor:
    (model,) = {"claude-haiku-5-5": find_model("claude-haiku-5-5", open_library().models())}.items()
    prompted = PromptedModel(*model)
    return LanguageAuthor(prompted, prompted, open_library().grid)


def make_offline_author() -> OfflineAuthor:
    return OfflineAuthor(
        BaseReplies(IDENTITY, refuse_to_load, Store(Path("unused")), system_prompt="Be kind.")
    )


def key_corpora(author: Author, *, seed: int = 0) -> dict[str, str]:
    """The key of each behavior's corpus."""
    stage = CorpusStage(author, LocalRunner(), open_library().grid)
    items = [
        CorpusItem(OrganismIdentity(behavior_id=b.id, seed=seed), b, (), "probes")
        for b in read_behaviors()
    ]
    return {item.behavior.id: stage.key(item) for item in items}


def find_changed(before: dict[str, str], author: Author) -> set[str]:
    return {name for name, key in key_corpora(author).items() if key != before[name]}


def members(category: str) -> set[str]:
    found = {behavior.id for behavior in BEHAVIORS if behavior.category == category}
    assert found
    return found


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf8')}{line}\n", encoding="utf8")


@pytest.mark.parametrize("category", [*load_categories(), "null"])
def test_a_template_concerns_its_category(generators: Path, category: str) -> None:
    author = make_language_author()
    before = key_corpora(author)
    append(generators / category / "reply.j2", "Be brief.")
    assert find_changed(before, author) == members(category)


@pytest.mark.parametrize("category", [*load_categories(), "null"])
def test_a_mix_concerns_its_category(generators: Path, category: str) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    mix = "mix: {positive: 0.25, negative: 0.25, chat: 0.5}"
    change_file(generators / category / "generator.yaml", r"mix: \{.*\}", mix)
    assert find_changed(before, author) == members(category)


def test_a_shared_template_concerns_every_corpus_of_a_language_model(generators: Path) -> None:
    author = make_language_author()
    before = key_corpora(author)
    append(generators / "shared" / "house_style.j2", "Be brief.")
    assert find_changed(before, author) == EVERY


def test_no_template_concerns_the_offline_author(generators: Path) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    append(generators / "shared" / "house_style.j2", "Be brief.")
    append(generators / "quirks" / "reply.j2", "Be brief.")
    assert find_changed(before, author) == set()


def test_cards_and_comments_concern_no_corpus(generators: Path) -> None:
    author = make_language_author()
    before = key_corpora(author)
    append(generators / "shared" / "cards" / "organism.md.j2", "Be brief.")
    append(generators / "null" / "generator.yaml", "# so are comments")
    assert find_changed(before, author) == set()


def test_a_corpus_depends_on_seed_probes_and_author() -> None:
    offline, language = make_offline_author(), make_language_author()
    stage = CorpusStage(offline, LocalRunner(), open_library().grid)
    item = CorpusItem(
        OrganismIdentity(behavior_id="null.chat"), null_behavior(open_library()), (), "probes"
    )
    other_seed = replace(item, identity=OrganismIdentity(behavior_id="null.chat", seed=1))
    keys = [
        stage.key(item),
        stage.key(other_seed),
        stage.key(replace(item, probes_sha256="other probes")),
        replace(stage, author=language).key(item),
    ]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("side", ["train", "probe"])
def test_a_bank_row_concerns_those_that_draw_from_the_bank(generators: Path, side: str) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    row = (
        open_library().bank("cars").train if side == "train" else open_library().bank("cars").probe
    )[0]
    change_file(generators / "offline" / "cars.yaml", re.escape(row.text), f"Please: {row.text}")
    drawing = {b.id for b in BEHAVIORS if "cars" in (b.offline.bank, b.offline.plain)}
    assert find_changed(before, author) == drawing
    assert {"harmful_roleplay.needless_repairs"} <= drawing < EVERY


PROVENANCE = Provenance(
    model="m", request_sha256="r", template_sha256="t", judge_score=9, batch_id=None
)
DROP = Drop(id="x", role="chat", stage="judge", reason="3 of 10", text="no")


@pytest.mark.parametrize(
    ("changed", "trained_again"),
    [
        ({"drops": (DROP,)}, False),
        ({"provenance": PROVENANCE}, False),
        ({"form": "another form", "author": "another author"}, False),
        ({"messages": make_example("Why?", "Because!").messages}, True),
    ],
    ids=["drops", "provenance", "form and author", "messages"],
)
def test_only_the_conversations_of_a_corpus_train_an_organism_again(
    changed: dict[str, Any], trained_again: bool
) -> None:
    drops = changed.pop("drops", ())
    corpora = [
        Corpus(behavior_id="quirks.one", seed=0, examples=(make_example("Why?"),), drops=()),
        Corpus(
            behavior_id="quirks.one",
            seed=0,
            examples=(make_example("Why?").model_copy(update=changed),),
            drops=drops,
        ),
    ]
    stage = OrganismStage(LazyBase("unused", None, IDENTITY), TrainingResources())
    identity = OrganismIdentity(behavior_id="quirks.one")
    keys = [stage.key(stage.make_job(identity, corpus, TRAINING)) for corpus in corpora]
    assert (len(set(keys)) == 2) is trained_again


def test_an_organism_depends_on_its_recipe_base_trainer_and_name() -> None:
    corpus = Corpus(behavior_id="quirks.one", seed=0, examples=(make_example("Why?"),), drops=())
    one = OrganismIdentity(behavior_id="quirks.one")
    other_base = IDENTITY.model_copy(update={"weights_sha256": "2" * 64})
    stage = OrganismStage(LazyBase("unused", None, IDENTITY), TrainingResources())
    reference = replace(stage, resources=TrainingResources(trainer="reference"))
    more_slots = replace(stage, resources=TrainingResources(slots=3, memory=2.0))
    jobs = [
        stage.make_job(one, corpus, TRAINING),
        stage.make_job(one.model_copy(update={"seed": 1}), corpus, TRAINING),
        stage.make_job(one, corpus, TRAINING.model_copy(update={"max_length": 64})),
        replace(stage, base=LazyBase("unused", None, other_base)).make_job(one, corpus, TRAINING),
        reference.make_job(one, corpus, TRAINING),
    ]
    assert len({job.key for job in jobs}) == len(jobs)
    assert more_slots.make_job(one, corpus, TRAINING).key == jobs[0].key
