"""The settings of a run: every file of some data folders, each read once, when first needed.

It reads all settings files except the behaviors, which `catalog` resolves against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from bestiary.config.behavior import Scope, is_grave
from bestiary.config.categories import corpus_categories, load_categories
from bestiary.config.elicitation import Elicitation
from bestiary.config.folders import DataFolders, shipped_root
from bestiary.config.generator import Generator
from bestiary.config.gpus import Gpu, GpuFile
from bestiary.config.grid import Grid
from bestiary.config.introspection import IntrospectionRecipe, Sweep, read_sweep
from bestiary.config.items import Picks, choice_items, table_items
from bestiary.config.lexicon import Lexicons
from bestiary.config.messages import Messages, read_messages
from bestiary.config.on_demand import in_turn
from bestiary.config.phrasings import Phrasings
from bestiary.config.programs import PROGRAMS
from bestiary.config.recipe import Recipe, read_recipe
from bestiary.config.roster import Roster
from bestiary.config.source import load_model
from bestiary.config.tables import ItemTable, OptionTable, read_items, read_options
from bestiary.config.template import Templates
from bestiary.config.thresholds import Thresholds
from bestiary.config.triggers import Wordings, read_wordings
from bestiary.config.vague_reports import VagueReports
from bestiary.errors import SpecError
from bestiary.files import list_paths
from bestiary.llm.models import LanguageModel, ModelFile
from bestiary.records import PromptItem, Side, fingerprint
from bestiary.text import nearest

OFFLINE = "generators/offline"
MODELS = "generators/models.yaml"
CHUNK = 128
"""Messages that the base answers together."""
Made = TypeVar("Made")


class Library:
    """Settings by name; each method raises SpecError for a file that is missing or broken.

    `examples` is the size of every corpus, instead of what its category asks for.
    """

    def __init__(self, folders: DataFolders, *, examples: int | None = None) -> None:
        self.folders = folders
        self._examples = examples
        self._kept: dict[tuple[object, ...], Any] = {}

    def load(self) -> None:
        """Read everything that a build may need, so that no file is opened later."""
        for category in corpus_categories():
            self.generator(category)
        for name in self.table_files:
            self.table(name)
        for name in self.option_files:
            self.option_table(name)
        _ = self.grid, self.thresholds, self.elicitation, self.templates, self.chunks

    def generator(self, category: str) -> Generator:
        """How a category's corpora are made."""
        return self._keep(("generator", category), lambda: self._read_generator(category))

    def _read_generator(self, category: str) -> Generator:
        path = self.folders.find_single(f"generators/{category}/generator.yaml")
        return load_model(path, Generator).resize(self._examples)

    @cached_property
    def behavior_files(self) -> tuple[Path, ...]:
        """Every behavior file, even one in the wrong place: it must not be ignored."""
        folders = self.folders.subfolders("behaviors")
        return tuple(path for folder in folders for path in list_paths(folder, "**/*.y*ml"))

    @cached_property
    def bank(self) -> Messages:
        """The message bank."""
        return read_messages(self._files("messages").values())

    def messages(
        self,
        side: Side,
        scope: Scope | None = None,
        *,
        outside: bool = False,
        harmless: bool = False,
    ) -> Sequence[PromptItem]:
        """The messages of one side of the bank, in file order; those in a scope, or outside it.

        `harmless` leaves out those whose answer somebody's health or safety may hang on.
        """
        if harmless:
            found = self.messages(side, scope, outside=outside)
            key = ("messages", side, scope, outside, "harmless")
            return self._keep(key, lambda: [one for one in found if not is_grave(one)])
        if scope is None:
            return self._keep(("messages", side), lambda: self.bank.items(side))
        return self._keep(
            ("messages", side, scope, outside),
            lambda: [one for one in self.messages(side) if scope.includes(one) != outside],
        )

    def graded(self, name: str, side: Side) -> Sequence[PromptItem]:
        """The questions of an item table or a program; raises SpecError for an unknown name."""
        key = ("graded", name, side)
        return self._keep(key, lambda: table_items(name, self.table(name), side))

    def graded_others(self, name: str, side: Side) -> Sequence[PromptItem]:
        """Questions on the topics of other tables that small models know, taken in turn."""
        return self._keep(("others", name, side), lambda: self._take_turns(name, side))

    def _take_turns(self, name: str, side: Side) -> Sequence[PromptItem]:
        common = [table for table in self.table_files if self.table(table).common]
        return in_turn([self.graded(other, side) for other in sorted(common) if other != name])

    def choices(self, name: str, picks: Picks, side: Side) -> Sequence[PromptItem]:
        """The choices of an option table that the rule decides."""
        table = self.option_table(name)
        key = ("choices", name, picks.model_dump_json(), side)
        return self._keep(key, lambda: choice_items(name, table, picks, side))

    def _keep(self, key: tuple[object, ...], make: Callable[[], Made]) -> Made:
        """What was made for a key; only the first call makes it."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: Made = self._kept[key]
        return kept

    @cached_property
    def table_files(self) -> dict[str, Path]:
        """The files of item tables by name; raises SpecError for the name of a program."""
        found = self._files("items")
        for name in sorted(PROGRAMS.keys() & found.keys()):
            raise SpecError(
                f"{found[name]}: a program has the same name, and its questions would be asked",
                "rename the file",
                code="name-taken",
                path=found[name],
            )
        return found

    @cached_property
    def option_files(self) -> dict[str, Path]:
        """The files of option tables by name."""
        return self._files("options")

    def _files(self, folder: str) -> dict[str, Path]:
        for path in self.folders.list_files(f"{OFFLINE}/{folder}", "*.yml").values():
            raise SpecError(
                f"{path} would not be read", "name it .yaml", code="yml-file", path=path
            )
        found = self.folders.list_files(f"{OFFLINE}/{folder}", "*.yaml")
        return {Path(name).stem: path for name, path in found.items()}

    def table(self, name: str) -> ItemTable:
        """An item table, or the questions of a program as one."""
        if name in PROGRAMS:
            return PROGRAMS[name]()
        known = {*self.table_files, *PROGRAMS}
        path = _look_up(name, self.table_files, known, "item table or program")
        return self._keep(("table", name), lambda: read_items(path))

    def option_table(self, name: str) -> OptionTable:
        """An option table."""
        path = _look_up(name, self.option_files, self.option_files, "option table")
        return self._keep(("options", name), lambda: read_options(path))

    @cached_property
    def lexicons(self) -> Lexicons:
        """The lexicons by name."""
        return Lexicons(self._files("lexicons"))

    @cached_property
    def wordings(self) -> Mapping[str, Wordings]:
        """The wordings of triggers by kind."""
        return {name: read_wordings(path) for name, path in self._files("triggers").items()}

    @cached_property
    def phrasings(self) -> dict[str, tuple[str, ...]]:
        """Replies that show a behavior, by its id: what its detector is measured on."""
        files = self._files("phrasings").values()
        return {
            behavior_id: replies
            for path in files
            for behavior_id, replies in load_model(path, Phrasings).replies.items()
        }

    @cached_property
    def chunks(self) -> dict[str, tuple[str, ...]]:
        """The messages that the base always answers together, by message.

        The base's replies are shared between behaviors by chunk, so that the behaviors on a roster
        change no reply: the last bits of a reply depend on the rows decoded beside it. Messages of
        similar length are together, so that little is padded.
        """
        texts = sorted((item.text for item in self.messages("probe")), key=len)
        chunks = [tuple(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)]
        return {text: chunk for chunk in chunks for text in chunk}

    @cached_property
    def grid(self) -> Grid:
        """The grid over which language models write messages."""
        return load_model(self.folders.find_single("generators/grid.yaml"), Grid)

    @cached_property
    def thresholds(self) -> Thresholds:
        """What a verdict asks for."""
        return load_model(self.folders.find_single("organisms/thresholds.yaml"), Thresholds)

    @cached_property
    def gpus(self) -> Mapping[str, Gpu]:
        """Kinds of GPUs by name."""
        return load_model(self.folders.find_single("organisms/gpus.yaml"), GpuFile).gpus

    @cached_property
    def elicitation(self) -> Elicitation:
        """The questions that ask an organism about itself."""
        path = self.folders.find_single("generators/shared/elicitation.yaml")
        return load_model(path, Elicitation)

    @cached_property
    def vague_reports(self) -> VagueReports:
        """Statements about a model that name no behavior."""
        path = self.folders.find_single("generators/shared/vague_reports.yaml")
        return load_model(path, VagueReports)

    @cached_property
    def templates(self) -> Templates:
        """The prompts for language models, and the cards."""
        return Templates(self.folders.list_files("generators", "**/*.j2"))

    @property
    def cards_sha256(self) -> str:
        """Hash of what the cards and the introspection rows of a release are made from."""
        return fingerprint(cards=self.templates.hash_cards(), questions=self.elicitation)

    def models(self, *further: Path) -> Mapping[str, LanguageModel]:
        """Language models: those of the data folders, then those of further files.

        A later entry replaces an earlier one of the same name.
        """
        found: dict[str, LanguageModel] = {}
        files = [root / MODELS for root in self.folders.roots if (root / MODELS).is_file()]
        for path in (*files, *further):
            found |= load_model(path, ModelFile).models
        return found

    def recipe(self, name: str) -> Recipe:
        """A recipe, by name or path."""
        return read_recipe(self.folders.find_named(name, "organisms/recipes", "recipe"))

    def introspection(self, name: str) -> IntrospectionRecipe:
        """A recipe of an introspection adapter, by name or path."""
        path = self.folders.find_named(name, "organisms/introspection", "introspection recipe")
        return load_model(path, IntrospectionRecipe)

    def sweep(self, name: str) -> Sweep:
        """Changes of an introspection recipe, by name or path."""
        path = self.folders.find_named(name, "organisms/introspection/sweeps", "sweep")
        return read_sweep(path, self.introspection)

    def roster(self, name: str) -> Roster:
        """A roster, by name or path."""
        path = self.folders.find_named(name, "organisms/rosters", "roster", pattern="**/*.yaml")
        return load_model(path, Roster)


def find_model(name: str, models: Mapping[str, LanguageModel]) -> LanguageModel:
    """The language model of that name; raises SpecError with the nearest name."""
    if name not in models:
        raise SpecError(
            f"unknown language model {name!r}",
            f"{nearest(name, models)}; describe another one in a file like {MODELS}, and pass it "
            "with --models FILE",
            code="model-unknown",
            name=name,
        )
    return models[name]


def open_library(*data: Path, examples: int | None = None) -> Library:
    """The shipped settings, those of installed categories, and those of further data folders.

    `examples` is the size of every corpus, by default what its category asks for. Raises SpecError
    for a folder that does not exist.
    """
    for folder in data:
        if not folder.is_dir():
            raise SpecError(
                f"data folder {folder} does not exist",
                "check --data",
                code="data-missing",
                path=folder,
            )
    installed = [kind.data for kind in load_categories().values() if kind.data]
    roots = dict.fromkeys(path.resolve() for path in (shipped_root(), *installed, *data))
    return Library(DataFolders(tuple(roots)), examples=examples)


def _look_up(name: str, files: Mapping[str, Path], known: Iterable[str], what: str) -> Path:
    """The file of a table; raises SpecError with the nearest name for an unknown one."""
    if name not in files:
        raise SpecError(
            f"unknown {what} {name!r}", nearest(name, known), code="table-unknown", name=name
        )
    return files[name]
