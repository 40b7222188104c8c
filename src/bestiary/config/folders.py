"""Where the data folders lie: in the checkout, inside the installed wheel, or where one says."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def data_root() -> Path:
    """The folder that holds behaviors/, generators/, organisms/; $BESTIARY_DATA names another."""
    chosen = os.environ.get("BESTIARY_DATA")
    if chosen:
        return Path(chosen)
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parents[1]


def behavior_folder() -> Path:
    """The shipped behaviors, one folder a category."""
    return data_root() / "behaviors"


def generator_folder() -> Path:
    """Templates, mixes and prompt banks."""
    return data_root() / "generators"


def organism_folder() -> Path:
    """Recipes, rosters and thresholds."""
    return data_root() / "organisms"
