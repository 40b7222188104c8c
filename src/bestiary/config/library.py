"""The settings of a run: every file of some data folders, each read once, when first needed.

It reads all settings files except the behaviors, which `catalog` resolves against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from bestiary.config.categories import corpus_categories, load_categories
from bestiary.config.elicitation import Elicitation
from bestiary.config.folders import DataFolders, shipped_root
from bestiary.config.generator import Generator
from bestiary.config.grid import Grid
from bestiary.config.message_bank import MessageBank, chunk_messages, read_bank
from bestiary.config.messages import Messages, read_messages
from bestiary.config.recipe import Recipe, read_recipe
from bestiary.config.roster import Roster
from bestiary.config.source import load_model
from bestiary.config.template import Templates
from bestiary.config.thresholds import Thresholds
from bestiary.errors import SpecError
from bestiary.llm.models import LanguageModel, ModelFile
from bestiary.records import fingerprint
from bestiary.text import nearest

BANKS = "generators/offline"
MESSAGES = "generators/offline/messages"
MODELS = "generators/models.yaml"


class Library:
    """Settings by name; each method raises SpecError for a file that is missing or broken."""

    def __init__(self, folders: DataFolders) -> None:
        self.folders = folders
        self._generators: dict[str, Generator] = {}
        self._banks: dict[str, MessageBank] = {}

    def load(self) -> None:
        """Read everything that a build may need, so that no file is opened later."""
        for category in corpus_categories():
            self.generator(category)
        for name in self.bank_files:
            self.bank(name)
        _ = self.grid, self.thresholds, self.elicitation, self.templates, self.chunks

    def generator(self, category: str) -> Generator:
        """How a category's corpora are made."""
        if category not in self._generators:
            path = self.folders.find_single(f"generators/{category}/generator.yaml")
            self._generators[category] = load_model(path, Generator)
        return self._generators[category]

    @cached_property
    def bank_files(self) -> dict[str, Path]:
        """The files of message banks by name."""
        found = self.folders.list_files(BANKS, "*.yaml")
        return {Path(name).stem: path for name, path in found.items()}

    def bank(self, name: str) -> MessageBank:
        """A message bank."""
        if name not in self._banks:
            if name not in self.bank_files:
                raise SpecError(
                    f"unknown message bank {name!r}",
                    nearest(name, self.bank_files),
                    code="bank-unknown",
                    name=name,
                )
            self._banks[name] = read_bank(self.bank_files[name])
        return self._banks[name]

    @cached_property
    def messages(self) -> Messages:
        """The message bank: messages with written answers, by domain."""
        return read_messages(self.folders.list_files(MESSAGES, "*.yaml").values())

    @cached_property
    def chunks(self) -> dict[str, tuple[str, ...]]:
        """The messages that the base always answers together, by message."""
        return chunk_messages(self.bank(name) for name in sorted(self.bank_files))

    @cached_property
    def grid(self) -> Grid:
        """The grid over which language models write messages."""
        return load_model(self.folders.find_single("generators/grid.yaml"), Grid)

    @cached_property
    def thresholds(self) -> Thresholds:
        """What a verdict asks for."""
        return load_model(self.folders.find_single("organisms/thresholds.yaml"), Thresholds)

    @cached_property
    def elicitation(self) -> Elicitation:
        """The questions that ask an organism about itself."""
        path = self.folders.find_single("generators/shared/elicitation.yaml")
        return load_model(path, Elicitation)

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

    def roster(self, name: str) -> Roster:
        """A roster, by name or path."""
        return load_model(self.folders.find_named(name, "organisms/rosters", "roster"), Roster)


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


def open_library(*data: Path) -> Library:
    """The shipped settings, those of installed categories, and those of further data folders.

    Raises SpecError for a folder that does not exist.
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
    return Library(DataFolders(tuple(roots)))
