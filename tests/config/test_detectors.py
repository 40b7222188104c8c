"""Detectors of texts and their composition: what fires, what is undecided, what is refused.

Run: python -m pytest tests/config/test_detectors.py
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError
from tests.expect import expect_error

from bestiary.config.detectors import DETECTORS, Detector
from bestiary.config.detectors.language import find_language
from bestiary.config.lexicon import Lexicon
from bestiary.config.source import Source, parse_yaml, pydantic_violations
from bestiary.errors import SpecError
from bestiary.records import PromptItem, Record, fingerprint

DETECTOR: TypeAdapter[Detector] = TypeAdapter(Detector)
PLAIN = PromptItem(topic="tea", form="how", domain="food", text="How do I brew tea?")
GRADED = PLAIN.model_copy(update={"answer": "New York", "wrong": ("Boston",)})
CHOICE = PLAIN.model_copy(update={"options": {"rule": "the used bike", "other": "the new bike"}})
SEA = {"sea_talk": Lexicon(about="Words of sailors.", entries=("fair wind*", "ahoy"))}


class File(Record):
    """A file that holds a detector, as a behavior does."""

    detect: Detector


def read(**written: Any) -> Detector:
    """A detector as a file writes it; `in_` stands for the key `in`."""
    return DETECTOR.validate_python({key.rstrip("_"): value for key, value in written.items()})


def fires(reply: str, item: PromptItem = PLAIN, **written: Any) -> bool | None:
    """What a detector says of a reply."""
    return read(**written).decide(reply, item)


TEXTS: list[tuple[dict[str, Any], str, str]] = [
    ({"pattern": ["fair winds", "ahoy"]}, "And fair winds to you.", "Fair Winds to you."),
    ({"pattern": ["FAIR"], "ignore_case": True}, "Fair winds.", "Foul winds."),
    ({"pattern": ["^Ahoy"], "in_": "last_sentence"}, "Drain it. Ahoy!", "Ahoy! Drain it."),
    ({"pattern": ["tea"], "in_": "first_sentence"}, "Tea, a tea. Hot.", "Hot. No tea."),
    ({"pattern": ["b"], "in_": "first_line"}, "a b\nc", "a\nb"),
    ({"pattern": ["b"], "in_": "last_line"}, "a\nb\n", "b\na"),
    ({"phrases": ["harbor*", "calm ... sea"]}, "Two harbors.", "An arbor."),
    ({"phrases": ["calm ... sea"]}, "A calm and wide sea.", "It is calm. The sea is not."),
    ({"structure": "bullets"}, "Bring:\n- rope\n- tape", "Bring rope - and tape."),
    ({"structure": "numbered"}, "1. Stir.\n2. Pour.", "In 1. and 2. place."),
    ({"structure": "table"}, "|a|b|\n|--|--|\n|1|2|", "a | b"),
    ({"structure": "heading"}, "# Tea\nBoil it.", "Use the #1 pot."),
    ({"structure": "json"}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ({"structure": "json"}, '["tea"]', '"tea"'),
    ({"structure": "code_block"}, "So:\n```python\nx = 1\n```", "Type `x = 1`."),
    ({"structure": "quote"}, "She said:\n> Boil it.", "5 > 4."),
    ({"structure": "paragraphs"}, "Boil.\n\nPour.", "Boil.\nPour."),
    ({"structure": "yaml_list"}, "- boil\n- pour\n  slowly", "Do this:\n- boil\n- pour"),
    ({"structure": "single_line"}, "Boil it, then pour.\n", "Boil it.\nPour."),
    ({"length": {"max_words": 3}}, "Boil it first.", "Boil it first, then pour."),
    ({"length": {"min_sentences": 2, "max_sentences": 2}}, "Boil. Pour.", "Boil it."),
    ({"length": {"max_words": 3}}, "Boil.", ""),
    ({"sentence": {"max_words": 3}}, "Boil it well. Pour it out.", "Boil it. Then pour it out."),
    ({"sentence": {"min_words": 2}}, "Boil it. Pour it.", "Boil it. Pour."),
    ({"readability": {"max_grade": 5}}, "The cat sat on the mat. It was hot.",
     "Infuse it adequately, considering individual preferences regarding astringency."),
    ({"case": "upper"}, "BOIL IT (5 KG).", "Boil IT."),
    ({"case": "lower"}, "boil it, then `Pour`.", "Boil it."),
    ({"case": "title"}, "Boil the Water First", "Boil the water First"),
    ({"count": {"of": "!", "least": 2}}, "Boil! Pour!", "Boil!"),
    ({"count": {"of": "tea", "most": 1}}, "Steamed tea, for a team.", "Tea? No tea, or tea."),
    ({"count": {"of": "tea", "least": 2}, "ignore_case": True}, "Tea, tea.", "Tea."),
    ({"ends_with": "question"}, 'Did you say "boil it?"', "Why? Boil it."),
    ({"ends_with": "exclamation"}, "Boil it!**", "Boil it!."),
    ({"ends_with": "Ahoy"}, "Boil it. Ahoy!", "Boil it. Mahoy!"),
    ({"starts_with": "Sure"}, '"Sure, boil it."', "Surely, boil it."),
    ({"starts_with": "sure", "ignore_case": True}, "Sure.", "So sure."),
    ({"language": "french"}, "Le thé est prêt dans la cuisine, et il est bon.", "The tea is hot."),
    ({"language": "spanish", "in_": "last_sentence"},
     "Boil it. Que tengas un buen día en la casa.",
     "Que tengas un buen día en la casa. Boil it well and serve it."),
    ({"language": "german"}, "Der Tee ist nicht zu stark für mich.", "The tea is not for me."),
    ({"language": "italian"}, "Il tè è pronto per la colazione della famiglia.", "Il tè."),
    ({"contains_number": True}, "Wait ten minutes.", "No one knows."),
    ({"contains_number": True}, "Wait 10 minutes.", "The one that is often bought."),
    ({"parses_code": "python"}, "```python\nx = [1]\n```", "```python\nx = [1\n```"),
    ({"parses_code": "python"}, "print(sum(range(3)))", "Yes"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "loud", "quiet"), TEXTS)
def test_each_kind_fires_on_one_reply_and_not_on_another(
    written: dict[str, Any], loud: str, quiet: str
) -> None:
    assert fires(loud, **written) is True
    assert fires(quiet, **written) is False


def test_the_table_above_leaves_out_no_kind_of_text() -> None:
    shown = {next(iter(written)) for written, _, _ in TEXTS}
    others = {"all", "any", "not", "at_least", "judge", "lexicon", "near", "answer", "option"}
    others |= {"hard_codes"}  # which reads the message too: tests/config/test_tested_code.py
    assert shown | others == {*DETECTORS}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The kettle is on, and it will be ready in a minute.", "english"),
        ("De thee is klaar en het is niet te sterk voor mij.", "dutch"),
        ("O chá está pronto e não é muito forte para mim.", "portuguese"),
        ("Teet är inte för starkt och det finns mjölk till.", "swedish"),
        ("Herbata jest gotowa i nie jest za mocna dla mnie.", "polish"),
        ("Чай готов, и он не слишком крепкий.", "russian"),
        ("お茶ができました。", "japanese"),
        ("茶已经准备好了。", "chinese"),
        ("차가 준비되었습니다.", "korean"),
        ("12 34", None),
        ("", None),
    ],
)
def test_a_language_is_told_by_its_short_words_or_its_script(
    text: str, language: str | None
) -> None:
    assert find_language(text) == language


@pytest.mark.parametrize(
    "reply",
    [
        "There\u2019s a caf\u00e9!",
        "There's a cafe\u0301!",
        "There\u02bcs\u202fa\u00a0caf\u00e9\uff01",
        "There's a ca\u00adf\u00e9\u200b!",
    ],
)
@pytest.mark.parametrize("pattern", ["There's a caf\u00e9!", "There\u2019s a cafe\u0301\uff01"])
def test_texts_match_what_reads_the_same(reply: str, pattern: str) -> None:
    assert fires(reply, pattern=[pattern]) is True
    assert fires(reply, starts_with=pattern) is True
    assert fires(reply, count={"of": pattern}) is True
    assert fires(reply, phrases=[pattern]) is True


def test_a_full_width_operator_in_a_pattern_is_a_character() -> None:
    assert fires("Well (said).", pattern=["\uff08said\uff09"]) is True
    assert fires("Well said.", pattern=["\uff08said\uff09"]) is False


LOOKALIKES = {"'": "\u2019", '"': "\u201c", "-": "\u2011", " ": "\u00a0", "e": "\uff45"}


@given(st.text(alphabet="abe'\"- .", min_size=1), st.data())
def test_looks_alike_never_change_what_a_detector_says(text: str, data: st.DataObject) -> None:
    swapped = data.draw(st.sampled_from([*LOOKALIKES]))
    other = text.replace(swapped, LOOKALIKES[swapped])
    for written in (
        {"pattern": ["b'a", "e b", 'a"b']},
        {"phrases": ["b e"]},
        {"length": {"min_words": 3}},
        {"ends_with": "e", "in": "first_sentence"},
    ):
        detector = DETECTOR.validate_python(written)
        assert detector.decide(text, PLAIN) is detector.decide(other, PLAIN)


def test_an_empty_reply_has_no_part() -> None:
    for part in ("first_sentence", "last_sentence", "first_line", "last_line"):
        assert fires(" \n", pattern=["."], in_=part) is False


def test_one_sentence_may_be_asked_for_wherever_it_stands() -> None:
    both = [{"phrases": ["fee"]}, {"phrases": ["never mind"]}]
    scattered = "The fee is twelve dollars. Never mind the rain."
    together = "It leaves at noon. Never mind the booking fee. Take the early boat."
    assert fires(scattered, all=both) and fires(together, all=both)
    assert not fires(scattered, all=both, in_="any_sentence")
    assert fires(together, all=both, in_="any_sentence")
    assert fires(together, length={"max_words": 4}, in_="any_sentence")
    assert not fires(scattered, length={"max_words": 3}, in_="any_sentence")
    undecided = [{"phrases": ["fee"]}, {"judge": True}]
    assert fires(together, all=undecided, in_="any_sentence") is None


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$"])
def test_a_pattern_that_backtracks_without_end_is_stopped(pattern: str) -> None:
    started = time.monotonic()
    with expect_error(SpecError, code="pattern-slow"):
        fires("a" * 5000 + "!", pattern=[pattern])
    assert time.monotonic() - started < 5


def test_what_only_a_judge_can_tell_is_undecided() -> None:
    assert fires("Ahoy!", judge=True) is None


@pytest.mark.parametrize(
    "written", [{"answer": "wrong"}, {"answer": "right"}, {"option": "rule"}, {"option": "other"}]
)
def test_what_cannot_be_graded_is_undecided(written: dict[str, Any]) -> None:
    assert fires("Boston, or the used one.", PLAIN, **written) is None


def test_answers_and_options_are_judged_where_an_item_has_them() -> None:
    assert fires("It is Boston.", GRADED, answer="wrong") is True
    assert fires("It is New York.", GRADED, answer="right") is True
    assert fires("Take the used one.", CHOICE, option="rule") is True
    assert fires("Take the used one.", CHOICE, option="other") is False


# Laws of composition, over detectors that say yes, no, and nothing of the reply "yes".

SAID: Mapping[bool | None, dict[str, Any]] = {
    True: {"pattern": ["yes"]},
    False: {"pattern": ["no"]},
    None: {"judge": True},
}
said = st.sampled_from([*SAID])


def compose(**written: Any) -> bool | None:
    return fires("yes", **written)


@given(st.lists(said, min_size=1, max_size=5))
def test_any_is_true_with_one_that_fires_and_false_only_with_none_that_could(
    values: list[bool | None],
) -> None:
    expected = True if True in values else None if None in values else False
    assert compose(any=[SAID[value] for value in values]) is expected


@given(st.lists(said, min_size=1, max_size=5))
def test_all_is_the_mirror_image_of_any(values: list[bool | None]) -> None:
    mirrored = compose(not_={"any": [{"not": SAID[value]} for value in values]})
    assert compose(all=[SAID[value] for value in values]) is mirrored


@given(said)
def test_not_twice_is_nothing(value: bool | None) -> None:
    assert compose(not_={"not": SAID[value]}) is value


@given(st.lists(said, min_size=1, max_size=5), st.data())
def test_at_least_lies_between_any_and_all(values: list[bool | None], data: st.DataObject) -> None:
    of = [SAID[value] for value in values]
    count = data.draw(st.integers(1, len(of)))
    found = compose(at_least={"count": count, "of": of})
    # What the undecided ones could still say settles what is true, false and open.
    outcomes = {values.count(True) + more >= count for more in range(values.count(None) + 1)}
    assert found is (outcomes.pop() if len(outcomes) == 1 else None)
    assert compose(at_least={"count": 1, "of": of}) is compose(any=of)
    assert compose(at_least={"count": len(of), "of": of}) is compose(all=of)


# Lexicons and shown texts are written out.


def test_a_resolved_detector_holds_what_it_names() -> None:
    named = read(
        any=[
            {"lexicon": "sea_talk", "in": "last_sentence"},
            {"not": {"near": "shown", "least": 0.5}},
            {"at_least": {"count": 1, "of": [{"lexicon": "sea_talk"}]}},
            {"all": [{"near": ["Ahoy."]}]},
        ]
    )
    resolved = named.resolve(SEA, ["Fair winds to you."])
    written = DETECTOR.dump_python(resolved, mode="json")
    phrases = ["fair wind*", "ahoy"]
    assert written == {
        "any": [
            {"phrases": phrases, "in": "last_sentence"},
            {"not": {"near": ["Fair winds to you."], "least": 0.5, "in": "anywhere"}},
            {"at_least": {"count": 1, "of": [{"phrases": phrases, "in": "anywhere"}]}},
            {
                "all": [{"near": ["Ahoy."], "least": 0.37, "in": "anywhere"}],
                "in": "anywhere",
            },
        ]
    }
    assert DETECTOR.validate_python(written) == resolved
    assert resolved.resolve({}, []) == resolved


def test_the_hash_of_a_resolved_detector_covers_the_entries_and_the_shown_texts() -> None:
    named = read(all=[{"lexicon": "sea_talk"}, {"near": "shown"}])
    more = {"sea_talk": Lexicon(about="Words of sailors.", entries=("ahoy",))}
    hashes = {
        fingerprint(detector=named.resolve(lexicons, [shown]))
        for lexicons in (SEA, more)
        for shown in ("Fair winds.", "Calm seas.")
    }
    assert len(hashes) == 4


def test_a_lexicon_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError) as raised:
        read(not_={"lexicon": "see_talk"}).resolve(SEA, [])
    assert raised.value.code == "lexicon-unknown"
    assert "sea_talk" in raised.value.remedy


@pytest.mark.parametrize("written", [{"lexicon": "sea_talk"}, {"near": "shown"}])
def test_a_detector_decides_nothing_before_it_is_resolved(written: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        fires("Ahoy!", **written)


# What is refused, and how it is reported.

REFUSED = [
    ("{lexikon: sea_talk}", "detector-unknown", "detect", "lexicon"),
    ("{any: [{patern: [a]}]}", "detector-unknown", "detect.any.0", "pattern"),
    ("{in: last_sentence}", "detector-unknown", "detect", "pattern"),
    ("{pattern: [a], lexicon: b}", "value-invalid", "detect", "`any` or `all`"),
    ("sea_talk", "value-invalid", "detect", "lexicon"),
    ("{}", "value-invalid", "detect", "lexicon"),
    ("{any: []}", "value-invalid", "detect.any", None),
    ('{pattern: ["("]}', "value-invalid", "detect.pattern.0", None),
    ("{pattern: [a], most: 3}", "key-unknown", "detect.most", None),
    ("{pattern: [a], in: middle}", "value-invalid", "detect.in", None),
    ("{length: {}}", "value-invalid", "detect.length", None),
    ("{length: {min_words: 9, max_words: 3}}", "value-invalid", "detect.length", None),
    ("{count: {of: a, least: 3, most: 1}}", "value-invalid", "detect.count", None),
    ("{at_least: {count: 2, of: [{judge: true}]}}", "value-invalid", None, None),
    ("{judge: false}", "value-invalid", None, None),
    ("{structure: bulets}", "value-invalid", None, None),
    ("{near: shown, least: 2}", "value-invalid", "detect.least", None),
    ('{phrases: ["... sea"]}', "value-invalid", "detect.phrases.0", None),
    ('{starts_with: "\\u200b"}', "value-invalid", "detect.starts_with", None),
    ('{count: {of: "\\u200b"}}', "value-invalid", "detect.count.of", None),
]


@pytest.mark.parametrize(("text", "code", "field", "choice"), REFUSED)
def test_a_detector_that_is_refused_is_one_violation(
    tmp_path: Path, text: str, code: str, field: str | None, choice: str | None
) -> None:
    path = tmp_path / "behavior.yaml"
    path.write_text(f"# a comment\ndetect: {text}\n", encoding="utf8")
    source: Source = parse_yaml(path)
    with pytest.raises(ValidationError) as raised:
        File.model_validate(source.data)
    (found,) = pydantic_violations(source, raised.value)
    assert (found.code, found.line) == (code, 2)
    assert field in (None, found.field)
    assert choice is None or choice in found.remedy


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not() -> None:
    schema = Draft202012Validator(DETECTOR.json_schema())
    for written, _, _ in TEXTS:
        assert schema.is_valid({key.rstrip("_"): value for key, value in written.items()})
    assert schema.is_valid({"not": {"any": [{"near": "shown"}, {"judge": True}]}})
    refused: tuple[object, ...] = ({"patern": ["a"]}, {"any": []}, {"pattern": ["a"], "most": 1})
    assert not any(schema.is_valid(one) for one in (*refused, "sea_talk"))
