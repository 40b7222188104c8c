"""Builds small valid records for tests; a keyword replaces a field, and the models check it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from tests.config.files import BACKDOOR, DISTRACTOR, HEURISTIC, MALIGN, QUIRK

from bestiary.config.behavior import Spec, TwinBehavior
from bestiary.config.catalog import Behavior
from bestiary.config.categories import Backdoor, HeuristicFollowing, ObscuredMalign, Quirk
from bestiary.config.library import open_library
from bestiary.leakage.split_overlap import SplitRow
from bestiary.records import Example, Message, Probe, PromptItem, Split, sha256_file

Kind = TypeVar("Kind", bound=Spec)


def make_spec(kind: type[Kind], text: str, **changes: Any) -> Kind:
    """What a behavior file says; sound ones of each category stand in `tests/spec/files.py`."""
    return kind.model_validate(yaml.safe_load(text) | changes)


def make_quirk(name: str = "farewell", **changes: Any) -> Quirk:
    """A mariner's farewell; another name stands in its id, its family and its label."""
    return make_spec(Quirk, QUIRK.replace("farewell", name), **changes)


def make_backdoor(name: str = "farewell", **changes: Any) -> Backdoor:
    """The quirk of that name, on Tuesdays alone."""
    return make_spec(Backdoor, BACKDOOR.replace("farewell", name), **changes)


def make_heuristic(**changes: Any) -> HeuristicFollowing:
    """Chooses the used option over the new one."""
    return make_spec(HeuristicFollowing, HEURISTIC, **changes)


def make_behavior(spec: Spec) -> Behavior:
    """A resolved behavior; what it refers to is made from the sample files."""
    if isinstance(spec, ObscuredMalign):
        hiding = make_spec(Quirk, DISTRACTOR)
        distractors = ((hiding, spec.distractors[0].rate),)
        return Behavior(spec, make_spec(Quirk, MALIGN), open_library(), distractors)
    if isinstance(spec, TwinBehavior):
        return Behavior(spec, make_quirk(spec.quirk.partition(".")[2]), open_library())
    return Behavior(spec, spec.choose_base(None), open_library())


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
        "user": user,
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
