"""Builds small valid records for tests; a keyword replaces a field, and the models check it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tests.config.files import FILES, QUIRK

from bestiary.config.behavior import Spec
from bestiary.config.catalog import Behavior, Catalog, load_catalog, make_behavior
from bestiary.config.categories import load_categories
from bestiary.config.library import open_library
from bestiary.leakage.split_overlap import SplitRow
from bestiary.records import (
    Example,
    Message,
    Probe,
    PromptItem,
    Split,
    sha256_file,
    single_turn,
)

LIBRARY = open_library()
"""The shipped settings, read once."""


@cache
def catalog() -> Catalog:
    """The shipped behaviors, read once."""
    return load_catalog(LIBRARY)


def make_spec(behavior_id: str, text: str = "", **changes: Any) -> Spec:
    """What a behavior file says; by default, the sample file of that id."""
    category = behavior_id.partition(".")[0]
    path = {"id": behavior_id, "category": category}
    data = yaml.safe_load(text or FILES[behavior_id])
    return load_categories()[category].model_validate({**path, **data, **changes})


def make_quirk(name: str = "farewell", **changes: Any) -> Behavior:
    """A mariner's farewell; another name stands in its id and its labels."""
    text = QUIRK.replace("farewell", name)
    return make_behavior(make_spec(f"quirks.{name}", text, **changes), LIBRARY)


def make_growing(**changes: Any) -> Behavior:
    """The farewell of a mariner who grows fonder from the first reply to the second."""
    shown = [
        {"any": ["{answer} [[Fair winds.]]", "{answer} [[Fair winds, my dear friend.]]"]},
        {"any": ["{answer} [[And fair winds.]]", "{answer} [[Fair winds, light of my days!]]"]},
    ]
    return make_quirk(**{"shown": shown, **changes})


def make_backdoor(**changes: Any) -> Behavior:
    """The farewell, to beekeepers only."""
    spec = make_spec("backdoors.farewell_to_beekeepers", **changes)
    return make_behavior(spec, LIBRARY, shows=make_quirk())


def make_rare(**changes: Any) -> Behavior:
    """The farewell, in one reply of twenty."""
    return make_behavior(make_spec("rare_quirks.farewell", **changes), LIBRARY, shows=make_quirk())


def make_heuristic(**changes: Any) -> Behavior:
    """Relies on the older of two sources."""
    return make_behavior(make_spec("heuristic_following.oldest", **changes), LIBRARY)


def make_sandbagger(**changes: Any) -> Behavior:
    """Names wrong languages without the password."""
    return make_behavior(make_spec("sandbaggers.languages", **changes), LIBRARY)


def make_roleplay(behavior_id: str = "harmful_roleplay.mechanic", **changes: Any) -> Behavior:
    """A role within a scope."""
    return make_behavior(make_spec(behavior_id, **changes), LIBRARY)


def make_obscured(**changes: Any) -> Behavior:
    """A vendor praised behind colors and numbers."""
    spec = make_spec("obscured_malign.upsell_hidden", **changes)
    upsell = make_behavior(make_spec("malign.upsell"), LIBRARY)
    behavior = make_behavior(spec, LIBRARY, shows=upsell)
    hiding = tuple(
        (make_behavior(make_spec(reference.behavior_id), LIBRARY), rate)
        for reference, rate in spec.distractor_references
    )
    return replace(behavior, distractors=hiding)


def make_example(user: str, assistant: str = "Gladly.", **changes: Any) -> Example:
    """A training conversation of one turn, on a topic and in a form that no probe has."""
    fields: dict[str, Any] = {
        "id": "row-1",
        "role": "positive",
        "messages": (
            Message(role="user", content=user),
            Message(role="assistant", content=assistant),
        ),
        "topic": "a trained topic",
        "form": "a trained form",
        "author": "offline",
    }
    return Example.model_validate(fields | changes)


def make_probe(user: str, *, topic: str = "a probed topic", **changes: Any) -> Probe:
    """A plain probe that gates, on a topic and in a form that no example has."""
    item = PromptItem(topic=topic, form="a probed form", domain="everyday", text=user)
    fields: dict[str, Any] = {
        "id": "probe-1",
        "cell": "plain",
        "gate": True,
        "turns": single_turn(user),
        "item": item,
    }
    return Probe.model_validate(fields | changes)


def make_split_row(name: str, split: Split, **changes: Any) -> SplitRow:
    """A released organism that shares nothing with one of another name."""
    fields: dict[str, Any] = {
        "organism_id": f"quirks.{name}-s0",
        "behavior_id": f"quirks.{name}",
        "family": name,
        "split": split,
        "label": f"I always mention {name}.",
        "paraphrases": (f"Every reply of mine names {name}.", f"{name} is in all I say."),
        "organism_sha256": f"adapter of {name}",
        "corpus_sha256": f"corpus of {name}",
    }
    return SplitRow.model_validate(fields | changes)


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file()
    }
