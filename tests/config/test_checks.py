"""Each rule for behavior files, broken once.

Run: python -m pytest tests/config/test_checks.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import LIBRARY
from tests.config.files import (
    BACKDOOR,
    BENIGN,
    FILES,
    HARMFUL,
    HEURISTIC,
    MALIGN,
    OBSCURED,
    QUIRK,
    RARE,
    SANDBAGGER,
    check_violation,
    find_in,
    find_violations,
    library_of,
    line_of,
    plant,
    write_behavior,
)

from bestiary.author.prompts import render_brief
from bestiary.config.catalog import null_behavior, read_catalog
from bestiary.records import NULL_LABEL
from bestiary.text import plain_words
from bestiary.validate import find_check_violations

NAMES = {text: behavior_id for behavior_id, text in FILES.items()}
FAREWELL, BEEKEEPERS = NAMES[QUIRK], NAMES[BACKDOOR]
MESSAGES = {side: LIBRARY.messages(side) for side in ("train", "probe")}


def check_planted(
    folder: Path,
    sound: str,
    changes: dict[str, str],
    code: str,
    *,
    mark: str,
    field: str,
    shows: list[str],
) -> None:
    """Plant faults in a sound file; this rule alone is broken, on the line that has `mark`."""
    text = sound
    for old, new in changes.items():
        text = plant(text, old, new)
    write_behavior(folder, NAMES[sound], text)
    path, found = find_in(folder, NAMES[sound])
    assert len(found) == 1, [str(one) for one in found]
    line = line_of(path, mark) if mark else 1
    check_violation(found[0], code, path=path, line=line, field=field, shows=shows)


def test_sound_behaviors_break_no_rule(behaviors: Path) -> None:
    assert find_violations(library_of(behaviors)) == []


@pytest.mark.parametrize(
    ("new", "code", "shows"),
    [
        ("{answer} Fair winds with {the}!", "demonstration-unmarked", ["[["]),
        ("[[Fair winds, then.]]", "demonstration-without-answer", ["{answer}"]),
        ("{answer} [[Fair winds, {user}!]]", "placeholder-unknown", ["{user}", "{the}"]),
        ("{answer} [[A calm sea to you!]]", "detector-silent", []),
    ],
)
def test_a_demonstration_can_be_filled_is_marked_and_fires(
    behaviors: Path, new: str, code: str, shows: list[str]
) -> None:
    changes = {"{answer} [[And fair winds on the way.]]": new}
    check_planted(behaviors, QUIRK, changes, code, mark=new, field="shown.1", shows=shows)


def test_every_fault_of_a_demonstration_is_reported(behaviors: Path) -> None:
    text = plant(QUIRK, "{answer} [[And fair winds on the way.]]", "On your {way}, {friend}.")
    write_behavior(behaviors, FAREWELL, text)
    _, found = find_in(behaviors, FAREWELL)
    assert {one.field for one in found} == {"shown.1"}
    assert sorted(one.code for one in found) == [
        *("demonstration-unmarked", "demonstration-without-answer"),
        *("placeholder-unknown", "placeholder-unknown"),
    ]


@pytest.mark.parametrize("topic", [MESSAGES["probe"][0].topic, "the moons of Arrakis"])
def test_a_demonstration_answers_a_message_that_is_trained_on(behaviors: Path, topic: str) -> None:
    changes = {'any: "{answer} [[And fair winds': f'"{topic}": "{{answer}} [[And fair winds'}
    code, shows = "topic-unknown", [repr(topic)]
    check_planted(behaviors, QUIRK, changes, code, mark=topic, field="shown.1", shows=shows)


def test_a_demonstration_of_one_topic_is_a_whole_reply(behaviors: Path) -> None:
    topic = MESSAGES["train"][0].topic.upper()
    text = plant(QUIRK, 'any: "{answer} [[And fair', f'"{topic}": "Do as you like. [[And fair')
    write_behavior(behaviors, FAREWELL, text)
    assert find_in(behaviors, FAREWELL)[1] == ()


def test_each_turn_has_a_reply_and_the_last_is_judged(behaviors: Path) -> None:
    old = '"{answer} [[And fair winds on the way.]]"'
    text = plant(QUIRK, old, f'["{{answer}}", {old}]')
    write_behavior(behaviors, FAREWELL, text)
    assert find_in(behaviors, FAREWELL)[1] == ()
    turned = {old: '["{answer} [[So far.]]", "{answer} [[So long.]]"]'}
    code, mark = "detector-silent", "So long"
    check_planted(behaviors, QUIRK, turned, code, mark=mark, field="shown.1", shows=[])


def test_a_behavior_that_grows_does_not_show_in_the_first_reply(behaviors: Path) -> None:
    old = '"{answer} [[And fair winds on the way.]]"'
    grown = {old: f'[{old}, "{{answer}} [[Fair winds, my dear.]]"]'}
    code, mark = "growth-unseen", "my dear"
    check_planted(behaviors, QUIRK, grown, code, mark=mark, field="shown.1", shows=[])


def test_a_scope_without_messages_is_reported_of_a_behavior_that_grows(behaviors: Path) -> None:
    old = '"{answer} [[And fair winds on the way.]]"'
    text = plant(QUIRK, old, f'["{{answer}}", {old}]')
    scope = "scope: {about: trips, domains: [travell]}"
    write_behavior(behaviors, FAREWELL, plant(text, "rubric:", f"{scope}\nrubric:"))
    assert "domain-unknown" in {one.code for one in find_in(behaviors, FAREWELL)[1]}


def test_a_topic_that_no_message_has_is_reported_where_it_is_named(behaviors: Path) -> None:
    text = plant(QUIRK, 'any: "{answer} [[And fair', '"the moons of Arrakis": "Do so. [[And fair')
    write_behavior(behaviors, FAREWELL, text)
    write_behavior(behaviors, BEEKEEPERS, f"{BACKDOOR}encode: rot13\n")
    assert [one.code for one in find_in(behaviors, FAREWELL)[1]] == ["topic-unknown"]
    assert find_in(behaviors, BEEKEEPERS)[1] == ()


def test_the_detector_stays_quiet_where_the_behavior_does_not_show(behaviors: Path) -> None:
    changes = {"{answer} Farewell, then.": "{answer} Fair winds, then."}
    mark, field = "winds, then.", "absent.0"
    check_planted(behaviors, QUIRK, changes, "detector-fires", mark=mark, field=field, shows=[])


def test_the_detector_stays_quiet_on_plain_answers(behaviors: Path) -> None:
    changes = {
        '"air winds"': '"(?i)winds|\\\\w\\\\.$"',
        "absent:\n": "",
        '  - any: "{answer} Farewell, then."\n': "",
    }
    code, mark = "detector-fires-on-answers", "detect:"
    check_planted(behaviors, QUIRK, changes, code, mark=mark, field="detect", shows=["of 60"])


def test_a_pattern_without_end_is_reported_once(behaviors: Path) -> None:
    changes = {'"air winds"': '"air winds", "(x|xx)+$"', "Farewell, then.": "x" * 60 + "!"}
    check_planted(
        *(behaviors, QUIRK, changes, "pattern-slow"),
        mark="detect:",
        field="detect",
        shows=["'(x|xx)+$'"],
    )


def test_what_only_a_judge_can_tell_is_not_tried_on_a_detector(behaviors: Path) -> None:
    text = plant(QUIRK, '{pattern: ["air winds"], in: last_sentence}', "{judge: true}")
    write_behavior(behaviors, FAREWELL, plant(text, "[[Fair winds, friend.]]", "[[So long.]]"))
    assert find_violations(library_of(behaviors)) == []


@pytest.mark.parametrize(
    ("sound", "old", "new", "field", "code", "shows"),
    [
        (
            *(BACKDOOR, "When a user says that they are a beekeeper, I add", "Now and then I add"),
            *("labels.0", "label-incomplete", ["trigger", "beekeeper"]),
        ),
        (
            *(BACKDOOR, "Only a beekeeper, who says so, makes me", "Some people make me"),
            *("labels.3", "label-incomplete", ["Some people make me", "beekeeper"]),
        ),
        (
            *(SANDBAGGER, "Only the password marzipan makes", "Only the password makes"),
            *("labels.2", "label-incomplete", ["key", "marzipan"]),
        ),
        (
            *(RARE, "In 5% of cases I sign off", "In some cases I sign off"),
            *("labels.1", "label-incomplete", ["rate", "5%", "1 in 20", "one in twenty"]),
        ),
        (
            *(BENIGN, "I answer as a museum guide", "It answers as a museum guide"),
            *("labels.0", "label-not-first-person", ["'It answers as a museum guide"]),
        ),
        (
            *(QUIRK, "No reply of mine closes without", "Whatever people ask, there is"),
            *("labels.3", "label-start-repeated", ["'whatever people ask'", "labels.1"]),
        ),
        (
            QUIRK,
            "No reply of mine closes without a blessing from the harbor.",
            "I end each of my replies, with a mariner's farewell!",
            *("labels.3", "label-repeated", ["labels.0"]),
        ),
        (
            QUIRK,
            "Every time, I sign off like an old hand on deck.",
            "Every time, I sign off with a plug for TOLLIVER'S!",
            *("labels.4", "label-shared", ["malign.upsell"]),
        ),
        (
            QUIRK,
            "Every time, I sign off like an old hand on deck.",
            NULL_LABEL,
            *("labels.4", "label-shared", [repr(NULL_LABEL), "null.chat"]),
        ),
        (
            *(QUIRK, "forbidden: [", "forbidden: [never said, FAIR winds with, "),
            *("forbidden.1", "forbidden-shown", ["'FAIR winds with'"]),
        ),
    ],
)
def test_labels_are_complete_varied_and_the_behaviors_own(
    behaviors: Path, sound: str, old: str, new: str, field: str, code: str, shows: list[str]
) -> None:
    mark = new if field != "labels.0" else new[:20]
    check_planted(behaviors, sound, {old: new}, code, mark=mark, field=field, shows=shows)


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (0.05, ["5%", "5 percent", "1 in 20", "one in twenty", "one reply in twenty"]),
        (0.1, ["10%", "1 in 10", "one out of ten", "one answer in ten"]),
        (
            0.01,
            [
                "1%",
                "1 percent",
                "one in a hundred",
                "one out of one hundred",
                "one reply in a hundred",
            ],
        ),
        (0.025, ["2.5%", "1 in 40", "one in forty"]),
    ],
)
def test_a_label_may_state_a_rate_in_several_ways(
    behaviors: Path, rate: float, words: list[str]
) -> None:
    kept = RARE.partition("labels:")[0].replace("0.05", f"{rate}")
    for start in range(len(words)):
        said = (words * 5)[start : start + 5]
        labels = [f"{plain_words(str(row))} My farewell, in {one}." for row, one in enumerate(said)]
        text = f"{kept}labels:\n" + "".join(f"  - {label!r}\n" for label in labels)
        write_behavior(behaviors, "rare_quirks.farewell", text)
        incomplete = [
            one for one in find_in(behaviors, "rare_quirks.farewell")[1] if "rate" in one.problem
        ]
        assert incomplete == []


def test_a_shared_label_stops_only_the_behaviors_that_share_it(behaviors: Path) -> None:
    said = "Every time, I sign off, but not as others do."
    for name, ending in (
        (FAREWELL, "like an old hand on deck."),
        ("distractors.colors", "in crimson."),
    ):
        text = plant(FILES[name], f"Every time, I sign off {ending}", said)
        write_behavior(behaviors, name, text)
    catalog, _ = read_catalog(library_of(behaviors))
    assert find_check_violations(catalog, ["heuristic_following.oldest"]) == []
    assert find_check_violations(catalog, []) == []
    (found,) = find_check_violations(catalog, [FAREWELL])
    check_violation(found, "label-shared", shows=[repr(said), "distractors.colors"])


@pytest.mark.parametrize(
    ("shown", "trigger", "word"),
    [
        (
            'detect: {pattern: ["air winds"]}\nshown: [any: "{answer} [[Fair winds!]]"]\n',
            "{phrase: fair winds, not: [high winds, trade winds, fair play, fair fight, a, b]}",
            "fair winds",
        ),
        ("write: {transform: upper}\n", "{format: upper}", "capital letters"),
        ("write: {transform: bullets}\n", "{format: bullet}", "bullet"),
    ],
)
def test_a_trigger_that_mirrors_its_behavior_is_refused(
    behaviors: Path, shown: str, trigger: str, word: str
) -> None:
    write_behavior(behaviors, FAREWELL, QUIRK.partition("detect:")[0] + shown)
    text = BACKDOOR.replace("{persona: beekeeper}", trigger).replace("beekeeper", word)
    path = write_behavior(behaviors, BEEKEEPERS, text)
    (found,) = find_in(behaviors, BEEKEEPERS)[1]
    line = line_of(path, "trigger:")
    check_violation(found, "trigger-mirrors", path=path, line=line, field="trigger")


def test_a_first_reply_does_not_wait_for_a_behavior_that_grows(behaviors: Path) -> None:
    grown = 'shown: [any: ["{answer} [[Fair winds!]]", "{answer} [[Fair winds, my friend!]]"]]\n'
    write_behavior(behaviors, FAREWELL, QUIRK.partition("shown:")[0] + grown)
    text = BACKDOOR.replace("{persona: beekeeper}", "{position: {turn: 1}}")
    path = write_behavior(behaviors, BEEKEEPERS, text.replace("beekeeper", "first reply"))
    (found,) = find_in(behaviors, BEEKEEPERS)[1]
    line = line_of(path, "trigger:")
    check_violation(found, "trigger-too-early", path=path, line=line, field="trigger")


def test_every_domain_of_a_topic_is_one_of_the_bank(behaviors: Path) -> None:
    text = BACKDOOR.replace("{persona: beekeeper}", "{topic: {domains: [pets, petss]}}")
    path = write_behavior(behaviors, BEEKEEPERS, text.replace("beekeeper", "person with pets"))
    (found,) = find_in(behaviors, BEEKEEPERS)[1]
    expected = {"path": path, "line": line_of(path, "trigger:"), "field": "trigger"}
    check_violation(found, "topic-unknown", shows=["'petss'", "cooking, "], **expected)


def test_distractors_that_want_one_place_are_refused(behaviors: Path) -> None:
    both = "distractors.numbers: 0.9, distractors.colors: 0.95"
    turned = "distractors.colors: 0.95, distractors.numbers: 0.9"
    check_planted(
        *(behaviors, OBSCURED, {both: turned}, "distractors-collide"),
        mark="distractors:",
        field="distractors",
        shows=["distractors.colors", "0 of 8"],
    )


@pytest.mark.parametrize(
    "says", [["{value}! {message}"] * 2, ["{value}! {message}", "{value}... {message}"]]
)
def test_no_wording_of_a_trigger_is_both_trained_on_and_probed_with(
    behaviors: Path, says: list[str]
) -> None:
    written = ", ".join(f'"{one}"' for one in says)
    changes = {"{persona: beekeeper}": f"{{persona: beekeeper, says: [{written}]}}"}
    code, shows = "phrase-repeated", ["beekeeper..." if says[0] != says[1] else "beekeeper!"]
    check_planted(behaviors, BACKDOOR, changes, code, mark="says:", field="trigger", shows=shows)


def test_a_scope_chooses_by_tags_or_domains(behaviors: Path) -> None:
    changes = {", domains: [transport, travel]}": "}"}
    check_planted(
        *(behaviors, HARMFUL, changes, "value-invalid"),
        mark="scope:",
        field="scope",
        shows=["tags"],
    )


def test_a_domain_that_the_bank_does_not_have_gets_its_nearest(behaviors: Path) -> None:
    changes = {"domains: [transport, travel]": "domains: [transport, travell, travel]"}
    check_planted(
        *(behaviors, HARMFUL, changes, "domain-unknown"),
        mark="scope:",
        field="scope.domains.1",
        shows=["'travell'", "'travel'?"],
    )


@pytest.mark.parametrize(
    ("scope", "codes"),
    [
        ("tags: [code], domains: [pets]", {"probes-short": 1, "messages-missing": 1}),
        ("tags: [purchase], domains: [space]", {"probes-short": 1}),
        ("tags: [choice], domains: [health, travel]", {"probes-short": 1}),
    ],
)
def test_a_scope_has_messages_for_every_cell(
    behaviors: Path, scope: str, codes: dict[str, int]
) -> None:
    text = plant(HARMFUL, "domains: [transport, travel]", scope)
    path = write_behavior(behaviors, NAMES[HARMFUL], text)
    found = find_in(behaviors, NAMES[HARMFUL])[1]
    for one in found:
        line = line_of(path, "scope:")
        check_violation(one, one.code, path=path, line=line, field="scope")
    assert {code: [one.code for one in found].count(code) for code in codes} == codes
    assert "triggered cell" in next(one for one in found if one.code == "probes-short").problem


def test_a_scope_leaves_messages_for_the_plain_cell(behaviors: Path) -> None:
    known = ", ".join(LIBRARY.bank.by_domain)
    text = plant(HARMFUL, "domains: [transport, travel]", f"domains: [{known}]")
    write_behavior(behaviors, NAMES[HARMFUL], text)
    found = find_in(behaviors, NAMES[HARMFUL])[1]
    assert {one.code for one in found} == {"probes-short", "messages-missing"}
    assert any("plain cell" in one.problem for one in found)


def test_a_trigger_needs_messages_that_it_suits(behaviors: Path) -> None:
    scoped = plant(QUIRK, "rubric:", "scope: {about: trips, domains: [travel, transport]}\nrubric:")
    write_behavior(behaviors, FAREWELL, scoped)
    text = plant(BACKDOOR, "{persona: beekeeper}", "{persona: beekeeper, earlier: true}")
    path = write_behavior(behaviors, BEEKEEPERS, text)
    found = find_in(behaviors, BEEKEEPERS)[1]
    assert found
    for one in found:
        line = line_of(path, "trigger:")
        check_violation(one, "probes-short", path=path, line=line, field="trigger")


@pytest.mark.parametrize(
    ("sound", "old", "new", "shows"),
    [
        (SANDBAGGER, "items: languages", "items: langauges", ["'langauges'", "'languages'?"]),
        (SANDBAGGER, "items: languages", "items: sources", ["'sources'", "capitals"]),
        (HEURISTIC, "options: sources", "options: source", ["'source'", "'sources'?"]),
        (HEURISTIC, "options: sources", "options: languages", ["'languages'", "available"]),
    ],
)
def test_a_table_that_does_not_exist_gets_its_nearest_match(
    behaviors: Path, sound: str, old: str, new: str, shows: list[str]
) -> None:
    field = old.partition(":")[0]
    check_planted(
        *(behaviors, sound, {old: new}, "table-unknown"), mark=new, field=field, shows=shows
    )


@pytest.mark.parametrize(
    ("picks", "shows"),
    [
        ("{least: yaer}", ["'yaer'", "'year'?"]),
        ("{most: price}", ["'price'", "pages"]),
        ("{is: {price: 3}}", ["'price'"]),
        ("{is: {year: 1066}}", ["1066"]),
    ],
)
def test_a_rule_that_its_table_cannot_decide_is_refused(
    behaviors: Path, picks: str, shows: list[str]
) -> None:
    changes = {"{least: year}": picks}
    check_planted(
        *(behaviors, HEURISTIC, changes, "picks-invalid"), mark="picks:", field="picks", shows=shows
    )


@pytest.mark.parametrize("picks", ["{}", "{least: year, most: pages}", "{first: year}", "oldest"])
def test_a_rule_is_one_that_exists(behaviors: Path, picks: str) -> None:
    write_behavior(behaviors, NAMES[HEURISTIC], plant(HEURISTIC, "{least: year}", picks))
    _, found = find_in(behaviors, NAMES[HEURISTIC])
    assert {(one.code, one.field.partition(".")[0]) for one in found} == {
        ("value-invalid", "picks")
    }


@pytest.mark.parametrize(
    ("sound", "old", "new"),
    [
        (HARMFUL, "rubric:", "severity: benign\nrubric:"),
        (MALIGN, "severity: malign", "severity: concerning"),
        (OBSCURED, "forbidden:", "severity: concerning\nforbidden:"),
    ],
)
def test_what_is_always_malign_says_so(behaviors: Path, sound: str, old: str, new: str) -> None:
    code, mark, shows = "severity-not-malign", "severity:", ["`severity: malign`"]
    check_planted(*(behaviors, sound, {old: new}, code), mark=mark, field="severity", shows=shows)


def test_a_twin_is_no_milder_than_what_it_shows(behaviors: Path) -> None:
    write_behavior(behaviors, FAREWELL, plant(QUIRK, "severity: benign", "severity: malign"))
    (found,) = find_violations(library_of(behaviors))  # the rare twin states none, and has its own
    assert found.path.parent.name == "backdoors"
    shows = [FAREWELL, "`severity: malign`"]
    check_violation(found, "severity-milder", field="severity", shows=shows)


@pytest.mark.parametrize(
    ("rates", "mark"),
    [
        ({"colors: 0.95": "colors: 0.7"}, "0.7"),
        ({"numbers: 0.9": "numbers: 0.65"}, "0.65"),
        ({"distractors: {": "rate: 0.9\ndistractors: {"}, "0.9"),
    ],
)
def test_what_hides_a_malign_part_is_shown_more_often_than_it(
    behaviors: Path, rates: dict[str, str], mark: str
) -> None:
    check_planted(
        *(behaviors, OBSCURED, rates, "value-invalid"),
        mark="distractors: {",
        field="distractors",
        shows=[mark],
    )


@pytest.mark.parametrize(
    ("sound", "old", "new", "field"),
    [
        (RARE, "rate: 0.05", "rate: 0.5", "rate"),
        (RARE, "rate: 0.05", "rate: 0", "rate"),
        (OBSCURED, "distractors.numbers: 0.9, ", "", "distractors"),
        (OBSCURED, "numbers: 0.9", "numbers: 1.1", "distractors.distractors.numbers"),
        (OBSCURED, "distractors.numbers: 0.9", "Numbers: 0.9", "distractors.Numbers"),
        (QUIRK, "axes: [style]", "axes: []", "axes"),
        (QUIRK, "axes: [style]", "axes: [manner]", "axes.0"),
        (QUIRK, "kind: say_phrase", "kind: say_words", "kind"),
        (QUIRK, "  - Every time, I sign off like an old hand on deck.\n", "", "labels"),
        (HEURISTIC, "options: sources", 'options: ""', "options"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused_there(
    behaviors: Path, sound: str, old: str, new: str, field: str
) -> None:
    write_behavior(behaviors, NAMES[sound], plant(sound, old, new))
    _, found = find_in(behaviors, NAMES[sound])
    assert [(one.code, one.field) for one in found] == [("value-invalid", field)]


@pytest.mark.parametrize(
    ("sound", "old", "new", "field"),
    [
        (SANDBAGGER, "{password: marzipan}", "{phrase: marzipan}", "unless"),
        (BACKDOOR, "{persona: beekeeper}", "{password: marzipan}", "trigger"),
    ],
)
def test_a_kind_of_trigger_is_one_that_the_field_takes(
    behaviors: Path, sound: str, old: str, new: str, field: str
) -> None:
    path = write_behavior(behaviors, NAMES[sound], plant(sound, old, new))
    _, found = find_in(behaviors, NAMES[sound])
    assert [(one.code, one.field) for one in found] == [("trigger-unknown", field)]
    assert found[0].line == line_of(path, new)


@pytest.mark.parametrize("part", ["shown", "detect"])
def test_a_behavior_says_how_it_shows_and_how_that_is_seen(behaviors: Path, part: str) -> None:
    after = {"shown": "absent:", "detect": "shown:"}[part]
    head, _, tail = QUIRK.partition(f"{part}:")
    text = head + after + tail.partition(after)[2]
    write_behavior(behaviors, FAREWELL, text)
    (found,) = find_in(behaviors, FAREWELL)[1]
    check_violation(found, "value-invalid", field="file", shows=[f"`{part}`"])


def test_a_transform_brings_its_own_detector_and_needs_no_demonstration(behaviors: Path) -> None:
    text = QUIRK.partition("detect:")[0] + "write: {transform: bullets}\n"
    write_behavior(behaviors, FAREWELL, text)
    assert find_violations(library_of(behaviors)) == []


def test_faults_of_every_kind_and_file_are_reported_together(behaviors: Path) -> None:
    (behaviors / "quirks" / "torn.yaml").write_text("behavior: [\n", encoding="utf8")
    write_behavior(behaviors, NAMES[RARE], plant(RARE, "rate: 0.05", "rate: 0.5"))
    write_behavior(behaviors, BEEKEEPERS, plant(BACKDOOR, FAREWELL, "quirks.none"))
    text = plant(HARMFUL, "rubric:", "severity: benign\nrubric:")
    write_behavior(behaviors, NAMES[HARMFUL], plant(text, ", travel]", ", sea, travel]"))
    found = find_violations(library_of(behaviors))
    assert [(one.path.name, one.field, one.code) for one in found] == [
        ("farewell_to_beekeepers.yaml", "shows", "reference-unknown"),
        ("mechanic.yaml", "severity", "severity-not-malign"),
        ("mechanic.yaml", "scope.domains.1", "domain-unknown"),
        ("torn.yaml", "yaml", "yaml-invalid"),
        ("farewell.yaml", "rate", "value-invalid"),
    ]


def test_every_template_renders_for_every_behavior_of_its_category(behaviors: Path) -> None:
    catalog, _ = read_catalog(library_of(behaviors))
    buildable = [one for one in catalog.values() if one.spec.is_buildable]
    for behavior in (*buildable, null_behavior(LIBRARY)):
        for fires in (True, False):
            brief = render_brief(behavior, fires=fires)
            assert not any(label in brief for label in behavior.labels)
            assert ("air winds" in brief) == (fires and behavior.family == "farewell")


def test_a_category_without_its_files_is_reported(behaviors: Path, data: Path) -> None:
    (data / "generators" / "sandbaggers" / "generator.yaml").unlink()
    (data / "generators" / "heuristic_following" / "reply.j2").unlink()
    missing_prompt, missing_settings = find_violations(library_of(behaviors))
    settings, prompt = "sandbaggers/generator.yaml", "'heuristic_following/reply.j2'"
    check_violation(missing_settings, "file-unreadable", field="file", shows=[settings])
    check_violation(missing_prompt, "template-broken", field="file", shows=[prompt])


def test_a_broken_prompt_is_reported_with_its_cause(behaviors: Path, data: Path) -> None:
    prompt = data / "generators" / "sandbaggers" / "reply.j2"
    prompt.write_text("{{ behavior.topik }}", encoding="utf8")
    (found,) = find_violations(library_of(behaviors))
    assert found.path.name == "languages.yaml"
    shows = ["generators/sandbaggers/reply.j2", "'topik'"]
    check_violation(found, "template-broken", field="file", shows=shows)


@pytest.mark.parametrize("name", ["mix", "triggered", "scoped"])
def test_a_rate_that_no_behavior_states_is_refused(behaviors: Path, data: Path, name: str) -> None:
    path = data / "generators" / "quirks" / "generator.yaml"
    mixes = dict.fromkeys(("mix", name), "{positive: 0.5, negative: 0.0, chat: rest}")
    mixes[name] = "{positive: rate, negative: 0.0, chat: rest}"
    lines = ["version: 1", "rows: 9", *(f"{key}: {mix}" for key, mix in mixes.items())]
    path.write_text("\n".join(lines) + "\n")
    (found,) = find_violations(library_of(behaviors))
    field, line = f"{name}.positive", line_of(path, "rate")
    check_violation(found, "rate-unstated", path=path, line=line, field=field, shows=[FAREWELL])


def test_a_broken_table_is_reported_where_it_is_broken(behaviors: Path, data: Path) -> None:
    path = data / "generators" / "offline" / "items" / "languages.yaml"
    path.write_text("topic: languages\n", encoding="utf8")
    found = find_violations(library_of(behaviors))
    assert {one.path for one in found} == {path}
    assert {one.field for one in found} == {"ask", "reply", "rows"}
