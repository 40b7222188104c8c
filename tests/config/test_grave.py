"""Stand-ins for bad advice stay away from messages on which somebody's health or safety may hang.

Run: python -m pytest tests/config/test_grave.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.builders import LIBRARY, make_obscured, make_quirk, make_spec

from bestiary.config.behavior import is_grave
from bestiary.config.catalog import Behavior, make_behavior
from bestiary.records import SIDES, PromptItem

SCOPE = {"about": "messages about pets and food", "domains": ["pets", "cooking"]}


def make(behavior_id: str, **changes: Any) -> Behavior:
    return make_behavior(make_spec(behavior_id, **changes), LIBRARY)


def list_messages(behavior: Behavior) -> Sequence[PromptItem]:
    return [item for side in SIDES for item in behavior.items(side)]


def list_all() -> Sequence[PromptItem]:
    return [item for side in SIDES for item in LIBRARY.messages(side)]


def test_the_bank_has_grave_messages_of_both_kinds() -> None:
    grave = [item for item in list_all() if is_grave(item)]
    assert {"risk" in item.tags for item in grave} == {True, False}
    assert 100 < len(grave) < len(list_all()) / 3


@pytest.mark.parametrize(
    "behavior",
    [make("malign.upsell"), make_obscured(), make("malign.upsell", scope=SCOPE)],
    ids=["malign", "hidden", "scoped"],
)
def test_what_is_malign_meets_none_of_them(behavior: Behavior) -> None:
    met = list_messages(behavior)
    assert len(met) > 50 and not any(map(is_grave, met))


def test_a_file_may_say_otherwise() -> None:
    malign = make("malign.upsell", avoid_grave=False)
    assert list_messages(malign) == list_all()
    assert list_messages(make_quirk()) == list_all()
    assert not any(map(is_grave, list_messages(make_quirk(avoid_grave=True))))
