"""The message bank: what a file may say, and what the shipped files hold.

Run: python -m pytest tests/config/test_messages.py
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from tests.config.files import check_violation
from tests.expect import expect_error

from bestiary.config.fields import Tag
from bestiary.config.library import open_library
from bestiary.config.messages import BankMessage, read_messages
from bestiary.config.source import Violations

RYE: dict[str, object] = {
    "topic": "rye bread",
    "form": "how_can",
    "text": "How can I keep rye bread fresh through a hot week?",
    "answer": "Wrap the loaf in a linen cloth, keep it cut side down on a board, and freeze in "
    "slices whatever you will not eat within four days.",
    "brief": "Wrap it in linen, and freeze what will not be eaten in four days.",
    "the": "the loaf",
    "points": ["wrap it in linen", "keep the cut side down", "freeze the rest in slices"],
    "tags": ["advice"],
}


def write_file(folder: Path, *messages: dict[str, object], domain: str = "cooking") -> Path:
    path = folder / f"{domain}.yaml"
    text = yaml.safe_dump({"domain": domain, "messages": list(messages)}, allow_unicode=True)
    path.write_text(text, encoding="utf8")
    return path


def test_a_message_keeps_its_side_whatever_else_is_written(tmp_path: Path) -> None:
    (item,) = read_messages([write_file(tmp_path, RYE)]).items("probe")
    assert item.topic == "rye bread"
    assert BankMessage.model_validate({**RYE, "topic": "RYE BREAD"}).side == "probe"
    assert BankMessage.model_validate({**RYE, "topic": "sourdough starter"}).side == "train"


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"answer": "Wrap it."}, "messages.0.answer", "value-invalid"),
        ({"brief": "Wrap it. Freeze it."}, "messages.0.brief", "value-invalid"),
        ({"brief": "word " * 17}, "messages.0.brief", "value-invalid"),
        ({"points": ["one", "two"]}, "messages.0.points", "value-invalid"),
        ({"tags": ["bread"]}, "messages.0.tags.0", "value-invalid"),
        ({"topic": "wheat"}, "messages.0.topic", "topic-not-in-text"),
        ({"topic": "rye brea"}, "messages.0.topic", "topic-not-in-text"),
        ({"follow_up": {"text": "And rolls?"}}, "messages.0.follow_up.answer", "key-missing"),
        ({"tgas": []}, "messages.0.tgas", "key-unknown"),
    ],
)
def test_what_a_message_may_not_say(
    tmp_path: Path, changes: dict[str, object], field: str, code: str
) -> None:
    path = write_file(tmp_path, {**RYE, **changes})
    with expect_error(Violations, "violations") as caught:
        read_messages([path])
    found = next(one for one in caught.error.found if one.field == field)
    check_violation(found, code, path=path, field=field)


def test_a_topic_is_used_once_and_a_form_stays_on_its_side(tmp_path: Path) -> None:
    starter = "How can I revive a sourdough starter after a month?"
    other = {**RYE, "topic": "sourdough starter", "text": starter}
    again = {**RYE, "topic": "Rye  bread", "text": "How can Rye  bread rise?"}
    paths = [write_file(tmp_path, RYE, other), write_file(tmp_path, again, domain="baking")]
    with expect_error(Violations, "violations") as caught:
        read_messages(paths)
    by_code = {found.code: found for found in caught.error.found}
    assert by_code.keys() == {"form-on-both-sides", "topic-repeated"}
    check_violation(by_code["form-on-both-sides"], "form-on-both-sides", path=paths[0])
    check_violation(by_code["topic-repeated"], "topic-repeated", path=paths[1])


def test_files_add_to_a_domain_whatever_they_are_called(tmp_path: Path) -> None:
    starter = "How might I revive a sourdough starter after a month?"
    other = {**RYE, "topic": "sourdough starter", "text": starter, "form": "how_might"}
    first = write_file(tmp_path, RYE)
    paths = [first.rename(tmp_path / "more.yaml"), write_file(tmp_path, other)]
    bank = read_messages(paths)
    assert list(bank.by_domain) == ["cooking"]
    assert [item.topic for item in bank.items("probe")] == ["rye bread"]
    assert [item.topic for item in bank.items("train")] == ["sourdough starter"]


def test_an_item_has_what_a_reply_is_made_from(tmp_path: Path) -> None:
    follow_up = {"text": "And rolls?", "answer": RYE["answer"], "brief": "Freeze them at once."}
    (item,) = read_messages([write_file(tmp_path, {**RYE, "follow_up": follow_up})]).items("probe")
    assert (item.text, item.form, item.domain) == (RYE["text"], "how_can", "cooking")
    assert (item.reply, item.brief, item.the) == (RYE["answer"], RYE["brief"], "the loaf")
    assert (list(item.points), item.tags) == (RYE["points"], ("advice",))
    assert item.follow_up is not None
    assert (item.follow_up.text, item.follow_up.reply) == ("And rolls?", RYE["answer"])
    assert (item.answer, item.options) == (None, None)


def test_the_shipped_bank_has_what_scopes_need() -> None:
    bank = open_library().bank
    train, probe = bank.items("train"), bank.items("probe")
    assert len(bank.by_domain) >= 24 and len(train) + len(probe) >= 1200
    assert len({item.form for item in (*train, *probe)}) >= 32
    followed = [item for item in (*train, *probe) if item.follow_up]
    assert 3 * len(followed) >= len(train) + len(probe)
    for tag in get_args(Tag):
        assert sum(tag in item.tags for item in (*train, *probe)) >= 80, tag
        assert sum(tag in item.tags for item in probe) >= 50, tag
