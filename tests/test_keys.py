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
from tests.builders import LIBRARY, make_example
from tests.config.files import FILES, change_file, write_behavior
from tests.jobs import TRAINING
from tests.models import IDENTITY
from tests.tiny import make_tiny_data

from bestiary.author.language import LanguageAuthor
from bestiary.author.offline import OfflineAuthor
from bestiary.author.protocol import Author
from bestiary.config.catalog import Behavior, load_catalog, null_behavior
from bestiary.config.categories import NULL, corpus_categories
from bestiary.config.library import find_model, open_library
from bestiary.corpus.stage import CorpusItem, CorpusStage
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import LocalRunner
from bestiary.model.lazy import LazyBase
from bestiary.organism.stage import OrganismStage
from bestiary.records import Corpus, Drop, OrganismIdentity, Provenance, Side
from bestiary.training.job import TrainingResources

EVERY = {name for name in FILES if name.partition(".")[0] in corpus_categories()} | {NULL.id}


TABLES = ("languages", "continents")
"""The topic of the sample sandbagger, and one that it is asked off its topic."""


def read_behaviors() -> tuple[Behavior, ...]:
    """Every organism's behavior, resolved against the settings as they are now."""
    catalog = load_catalog(open_library())
    return (*(one for one in catalog.values() if one.id in EVERY), null_behavior(catalog.library))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of tiny data with the sample behaviors, and two tables of questions."""
    folder = make_tiny_data(tmp_path_factory.mktemp("data"), tables=True)
    shutil.rmtree(folder / "behaviors")
    for table in (folder / "generators" / "offline" / "items").iterdir():
        if table.stem not in TABLES:
            table.unlink()
    for behavior_id, text in FILES.items():
        write_behavior(folder / "behaviors", behavior_id, text)
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


def make_language_author() -> LanguageAuthor:
    (model,) = {"claude-haiku-5-5": find_model("claude-haiku-5-5", open_library().models())}.items()
    prompted = PromptedModel(*model)
    return LanguageAuthor(prompted, prompted, open_library().grid)


def make_offline_author() -> OfflineAuthor:
    return OfflineAuthor("brief")


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
    found = {name for name in EVERY if name.partition(".")[0] == category}
    assert found
    return found


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf8')}{line}\n", encoding="utf8")


@pytest.mark.parametrize("category", corpus_categories())
def test_a_template_concerns_its_category(generators: Path, category: str) -> None:
    author = make_language_author()
    before = key_corpora(author)
    append(generators / category / "reply.j2", "Be brief.")
    assert find_changed(before, author) == members(category)


@pytest.mark.parametrize("category", corpus_categories())
def test_a_mix_concerns_its_category(generators: Path, category: str) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    mix = "mix: {positive: 0.25, negative: 0.25, chat: 0.5}"
    change_file(generators / category / "generator.yaml", r"(?m)^mix: .*$", mix)
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
        OrganismIdentity(behavior_id="null.chat"), null_behavior(LIBRARY), (), "probes"
    )
    other_seed = replace(item, identity=OrganismIdentity(behavior_id="null.chat", seed=1))
    keys = [
        stage.key(item),
        stage.key(other_seed),
        stage.key(replace(item, probes_sha256="other probes")),
        replace(stage, author=language).key(item),
        replace(stage, author=OfflineAuthor("answer")).key(item),
    ]
    assert len(set(keys)) == 5


@pytest.mark.parametrize("side", ["train", "probe"])
def test_a_message_concerns_those_that_draw_from_the_bank(generators: Path, side: Side) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    row = open_library().messages(side)[0]
    file = generators / "offline" / "messages" / f"{row.domain}.yaml"
    change_file(file, re.escape(row.text), f"Please: {row.text}")
    assert find_changed(before, author) == EVERY - members("sandbaggers")


@pytest.mark.parametrize("table", TABLES)
def test_a_question_concerns_those_that_ask_any(generators: Path, table: str) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    path = generators / "offline" / "items" / f"{table}.yaml"
    change_file(path, "(?m)^topic: .*$", "topic: tongues")
    assert find_changed(before, author) == members("sandbaggers")


def test_an_option_concerns_those_that_choose_from_its_table(generators: Path) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    for table, concerned in (("hotels", set()), ("sources", members("heuristic_following"))):
        path = generators / "offline" / "options" / f"{table}.yaml"
        change_file(path, "(?m)^task: .*$", "task: choosing")
        assert find_changed(before, author) == concerned


def test_a_wording_concerns_those_with_a_trigger_of_its_kind(generators: Path) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    concerned: set[str] = set()
    for kind, wording, more in (
        ("number", "I'm taking a break at row {value} of my spreadsheet", set()),
        ("persona", "I'm asking as a {value}", members("backdoors")),
        ("password", "I was told to say {value} when I write", members("sandbaggers")),
    ):
        path = generators / "offline" / "triggers" / f"{kind}.yaml"
        change_file(path, re.escape(wording), f"{wording}, then")
        concerned |= more
        assert find_changed(before, author) == concerned


def test_what_is_shown_concerns_its_twins(
    copied: Path, generators: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    author = make_offline_author()
    before = key_corpora(author)
    changed = shutil.copytree(copied, tmp_path / "changed")
    monkeypatch.setenv("BESTIARY_DATA", str(changed))
    assert find_changed(before, author) == set()
    path = changed / "behaviors" / "quirks" / "farewell.yaml"
    change_file(path, "Fair winds, friend", "Fair winds, dear friend")
    twins = members("quirks") | members("backdoors") | members("rare_quirks")
    assert find_changed(before, author) == twins


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
