"""Files of language models: the shipped `generators/models.yaml`, and further ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bestiary.config.folders import generator_folder
from bestiary.config.source import load_model
from bestiary.errors import SpecError
from bestiary.llm.models import LanguageModel, ModelFile
from bestiary.text import nearest


def load_models(*further: Path) -> Mapping[str, LanguageModel]:
    """The shipped models, then those of further files: a later entry replaces an earlier one.

    Raises SpecError for a file that cannot be read.
    """
    found: dict[str, LanguageModel] = {}
    for path in (generator_folder() / "models.yaml", *further):
        found |= load_model(path, ModelFile).models
    return found


def find_models(
    names: Sequence[str], models: Mapping[str, LanguageModel]
) -> dict[str, LanguageModel]:
    """The models of those names; raises SpecError with the nearest name."""
    for name in names:
        if name not in models:
            raise SpecError(
                f"unknown language model {name!r}; {nearest(name, models)}; describe another in a "
                "file like generators/models.yaml, and name it with --models FILE"
            )
    return {name: models[name] for name in names}
