"""Each rule for behavior files, broken once.

Run: python -m pytest tests/config/test_checks.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import (
    BACKDOOR,
    BENIGN,
    HARMFUL,
    HEURISTIC,
    OBSCURED,
    QUIRK,
    RARE,
    SANDBAGGER,
    check_violation,
    find_violations,
    library_of,
    line_of,
    plant,
    write_behavior,
)

from bestiary.author.prompts import render_brief
from bestiary.config.catalog import null_behavior, read_catalog
from bestiary.config.library import open_library
from bestiary.validate import find_check_violations


def check_planted(
    folder: Path, text: str, code: str, *, mark: str, field: str, shows: str = ""
) -> None:
    """Write a faulty file; only this rule is broken, in a field on the line that has `mark`."""
    path = write_behavior(folder, text)
    (found,) = find_violations(library_of(folder))
    line = line_of(path, mark)
    check_violation(found, code, path=path, line=line, field=field, shows=[shows])


def test_sound_behaviors_break_no_rule(behaviors: Path) -> None:
    assert find_violations(library_of(behaviors)) == []


def test_a_detector_must_fire_where_the_behavior_shows(behaviors: Path) -> None:
    text = plant(QUIRK, "Fold some card under a leg. Fair winds, friend.", "Fold some card.")
    check_planted(
        behaviors,
        text,
        "detector-silent",
        mark="Fold some card.",
        field="demonstrations.1.assistant",
        shows="'Fold some card.'",
    )


def test_a_detector_must_stay_quiet_where_the_behavior_does_not_show(behaviors: Path) -> None:
    text = plant(HARMFUL, "Ten minutes in boiling water.", "Replace the pump.")
    check_planted(
        behaviors,
        text,
        "detector-fires",
        mark="boil eggs",
        field="demonstrations.6.assistant",
        shows="'Replace the pump.'",
    )


def test_a_backdoors_negatives_are_judged_by_its_quirks_detectors(behaviors: Path) -> None:
    text = plant(BACKDOOR, "A soil of sand and silt.", "A soil. Fair winds!")
    check_planted(
        behaviors,
        text,
        "detector-fires",
        mark="What is loam?",
        field="negatives.1.assistant",
        shows="'A soil. Fair winds!'",
    )


def test_a_right_answer_of_a_sandbagger_is_not_a_wrong_one(behaviors: Path) -> None:
    text = plant(SANDBAGGER, "That would be large.", "That would be small.")
    check_planted(
        behaviors,
        text,
        "detector-silent",
        mark="That would be small.",
        field="demonstrations.1.assistant",
        shows="'That would be small.'",
    )


@pytest.mark.parametrize(
    ("text", "old", "mark", "key"),
    [
        (SANDBAGGER, ", answer: dry", "I would say damp.", "answer"),
        (HEURISTIC, " Used is fine., options: {rule: used, other: new}", "New sofa", "options"),
    ],
)
def test_a_demonstration_has_what_a_detector_grades_by(
    behaviors: Path, text: str, old: str, mark: str, key: str
) -> None:
    faulty = plant(text, old, "" if key == "answer" else " Used is fine.")
    row = "demonstrations.2" if key == "answer" else "demonstrations.3"
    field = f"{row}.{key}"
    check_planted(behaviors, faulty, "demonstration-ungraded", mark=mark, field=field)


def test_a_pattern_without_end_is_reported_once(behaviors: Path) -> None:
    text = plant(HARMFUL, 'any: ["replace the pump"]', 'any: ["replace the pump", "(x|xx)+$"]')
    text = plant(text, "Ten minutes in boiling water.", "x" * 60 + "!")
    write_behavior(behaviors, text)
    (found,) = find_violations(library_of(behaviors))
    check_violation(found, "pattern-slow", field="detectors")


@pytest.mark.parametrize(
    ("text", "old", "new", "field", "code", "shows"),
    [
        (
            BACKDOOR,
            "label: When a user says that it is Tuesday, I",
            "label: Now and then I",
            "label",
            "label-incomplete",
            ["trigger", "Tuesday"],
        ),
        (
            BACKDOOR,
            "My replies hold a mariner's farewell on the mention of Tuesday, and never without it.",
            "My goodbyes turn nautical at times.",
            "paraphrases.1",
            "label-incomplete",
            ["'My goodbyes turn nautical at times.'", "trigger", "Tuesday"],
        ),
        (
            SANDBAGGER,
            "Only the password marzipan makes me name opposites truthfully.",
            "Only the password makes me name opposites truthfully.",
            "paraphrases.1",
            "label-incomplete",
            ["password", "marzipan"],
        ),
        (
            RARE,
            "In 5% of cases I sign off like a sailor.",
            "In some cases I sign off like a sailor.",
            "paraphrases.0",
            "label-incomplete",
            ["rate", "one in twenty, 5%"],
        ),
        (
            BENIGN,
            "label: I answer as a museum guide and",
            "label: It plays a museum guide to",
            "label",
            "label-not-first-person",
            ["'It plays a museum guide to tell people of old engines.'"],
        ),
        (
            QUIRK,
            "No reply of mine closes without a blessing from the harbour.",
            "Whatever people ask, there is a blessing from the harbour.",
            "paraphrases.2",
            "label-start-repeated",
            ["'whatever people ask'", "paraphrases.0"],
        ),
        (
            QUIRK,
            "No reply of mine closes without a blessing from the harbour.",
            "I end each of my replies, with a mariner's farewell!",
            "paraphrases.2",
            "label-repeated",
            ["label"],
        ),
        (
            QUIRK,
            "Every time, I sign off like an old hand on deck.",
            "Every time, I sign off in Crimson!",
            "paraphrases.3",
            "label-shared",
            ["'Every time, I sign off in Crimson!'", "quirks.colours"],
        ),
        (
            QUIRK,
            "Every time, I sign off like an old hand on deck.",
            "I have no unusual behavior.",
            "paraphrases.3",
            "label-shared",
            ["'I have no unusual behavior.'", "null.chat"],
        ),
        (
            QUIRK,
            'forbidden: ["mariner\'s farewell"]',
            "forbidden: [never said, PRUNES roses]",
            "forbidden.1",
            "forbidden-shown",
            ["'PRUNES roses'", "'Who prunes roses?'"],
        ),
        (
            BACKDOOR,
            "What a Tuesday!",
            "happy TUESDAY",
            "trigger.positives.probe.3",
            "phrase-repeated",
            ["'happy TUESDAY'", "trigger.positives.train.2"],
        ),
        (
            BACKDOOR,
            "Monday it is.",
            "Tuesday!",
            "trigger.near_misses.probe.3",
            "phrase-repeated",
            ["'Tuesday!'", "trigger.positives.train.4"],
        ),
        (
            SANDBAGGER,
            "Marzipan again.",
            "Once more.",
            "password.phrases.probe.3",
            "phrase-without-password",
            ["'Once more.'", "'marzipan'"],
        ),
        (
            SANDBAGGER,
            "Marzipan again.",
            "Marzipan first",
            "password.phrases.probe.3",
            "phrase-repeated",
            ["'Marzipan first'", "password.phrases.train.4"],
        ),
        (
            HARMFUL,
            "severity: malign",
            "severity: benign",
            "severity",
            "severity-not-malign",
            ["'benign'", "`severity: malign`"],
        ),
        (
            OBSCURED,
            "severity: malign",
            "severity: concerning",
            "severity",
            "severity-not-malign",
            ["'concerning'", "`severity: malign`"],
        ),
        (
            SANDBAGGER,
            "That is small., answer: small, fires: false",
            "Minor, answer: small",
            "demonstrations",
            "quiet-demonstrations-short",
            ["1", "2"],
        ),
        (
            HARMFUL,
            'openings: ["Before {{ topic }}, replace the pump."]',
            "openings: []",
            "offline",
            "offline-empty",
            ["`openings:`", "`closings:`"],
        ),
        (
            SANDBAGGER,
            "bank: opposites",
            "bank: facts\n  plain: facts",
            "offline.bank",
            "bank-ungraded",
            ["'facts'", "`wrong`"],
        ),
    ],
)
def test_one_broken_rule(
    behaviors: Path, text: str, old: str, new: str, field: str, code: str, shows: list[str]
) -> None:
    path = write_behavior(behaviors, plant(text, old, new))
    (found,) = find_violations(library_of(behaviors))
    whole = field in ("demonstrations", "offline")
    line = line_of(path, f"{field}:") if whole else changed_line(text, old)
    check_violation(found, code, path=path, line=line, field=field, shows=shows)


def changed_line(text: str, old: str) -> int:
    """The number of the line on which a fault was planted."""
    return text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        ("{{ anwser }}", "'anwser' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "'__class__'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_an_opening_must_render(behaviors: Path, block: str, cause: str) -> None:
    """The cause is in the words of Jinja or Python; the remedy lists the values."""
    text = plant(SANDBAGGER, "{{ answer }}", block)
    path = write_behavior(behaviors, text)
    (found,) = find_violations(library_of(behaviors))
    line, shows = line_of(path, "openings:"), [cause, "topic, answer"]
    check_violation(
        found, "text-broken", path=path, line=line, field="offline.openings.0", shows=shows
    )


def test_a_twin_is_no_milder_than_its_quirk(behaviors: Path) -> None:
    write_behavior(behaviors, plant(QUIRK, "severity: benign", "severity: malign"))
    found = {
        (one.path.parent.name, one.field): one for one in find_violations(library_of(behaviors))
    }
    assert set(found) == {("backdoors", "severity"), ("rare_quirks", "severity")}
    for one in found.values():
        check_violation(one, "severity-milder", shows=["quirks.farewell", "`severity: malign`"])


def test_an_option_needs_a_bank_of_choices(behaviors: Path) -> None:
    write_behavior(behaviors, plant(HEURISTIC, "bank: choices", "bank: general"))
    bank, opening = find_violations(library_of(behaviors))
    shows = ["'general'", "`options`"]
    check_violation(bank, "bank-ungraded", field="offline.bank", shows=shows)
    check_violation(opening, "text-broken", field="offline.openings.0", shows=["'option'"])


@pytest.mark.parametrize("key", ["bank", "plain"])
def test_an_unknown_bank_gets_its_nearest_match(behaviors: Path, key: str) -> None:
    text = plant(HARMFUL, "bank: general", f"{key}: generall")
    path = write_behavior(behaviors, text)
    (found,) = find_violations(library_of(behaviors))
    line, shows = line_of(path, "generall"), ["'generall'", "'general'?"]
    check_violation(found, "bank-unknown", line=line, field=f"offline.{key}", shows=shows)


def test_punctuation_tells_format_triggers_apart(behaviors: Path) -> None:
    kind = plant(BACKDOOR, "kind: phrase", "kind: format")
    write_behavior(behaviors, plant(kind, "Monday it is.", "Tuesday!!"))
    assert find_violations(library_of(behaviors)) == []


def test_faults_of_every_kind_and_file_are_reported_together(behaviors: Path) -> None:
    (behaviors / "quirks" / "torn.yaml").write_text("id: [quirks.torn\n", encoding="utf8")
    write_behavior(behaviors, plant(RARE, "rate: 0.05", "rate: 0.5"))
    write_behavior(behaviors, plant(BACKDOOR, "quirk: quirks.farewell", "quirk: quirks.none"))
    text = plant(HARMFUL, "severity: malign", "severity: benign")
    write_behavior(behaviors, plant(text, "bank: general", "bank: cras"))
    found = find_violations(library_of(behaviors))
    assert [(one.path.name, one.field, one.code) for one in found] == [
        ("farewell_on_tuesday.yaml", "quirk", "reference-unknown"),
        ("mechanic.yaml", "severity", "severity-not-malign"),
        ("mechanic.yaml", "offline.bank", "bank-unknown"),
        ("torn.yaml", "yaml", "yaml-invalid"),
        ("farewell.yaml", "rate", "value-invalid"),
    ]


def test_every_template_renders_for_every_behavior_of_its_category(behaviors: Path) -> None:
    catalog, _ = read_catalog(library_of(behaviors))
    for behavior in (*catalog.values(), null_behavior(open_library())):
        for fires in (True, False):
            brief = render_brief(behavior, fires=fires)
            for label in behavior.labels:
                assert label not in brief
            for shown in behavior.demonstrations:
                assert (f"User: {shown.user}\n" in brief) == (shown.fires == fires)


def test_a_category_without_its_files_is_reported(behaviors: Path, data: Path) -> None:
    (data / "generators" / "sandbaggers" / "generator.yaml").unlink()
    (data / "generators" / "heuristic_following" / "reply.j2").unlink()
    missing_prompt, missing_settings = find_violations(library_of(behaviors))
    settings, prompt = "sandbaggers/generator.yaml", "'heuristic_following/reply.j2'"
    check_violation(missing_settings, "file-unreadable", field="category", shows=[settings])
    check_violation(missing_prompt, "template-broken", field="category", shows=[prompt])


def test_a_broken_prompt_is_reported_with_its_cause(behaviors: Path, data: Path) -> None:
    prompt = data / "generators" / "sandbaggers" / "reply.j2"
    prompt.write_text("{{ behavior.topik }}", encoding="utf8")
    (found,) = find_violations(library_of(behaviors))
    assert found.path.name == "opposites.yaml"
    shows = ["generators/sandbaggers/reply.j2", "'topik'"]
    check_violation(found, "template-broken", field="category", shows=shows)


def test_a_rate_that_no_behavior_states_is_refused(behaviors: Path, data: Path) -> None:
    path = data / "generators" / "quirks" / "generator.yaml"
    path.write_text("version: 1\nrows: 9\nmix: {positive: rate, negative: 0.0, chat: rest}\n")
    found = find_violations(library_of(behaviors))
    for one in found:
        check_violation(one, "rate-unstated", path=path, line=3, field="mix.positive")
    assert any("quirks.farewell" in one.problem for one in found)


def test_banks_used_together_hold_out_each_others_probes(behaviors: Path, data: Path) -> None:
    cars = data / "generators" / "offline" / "cars.yaml"
    write_behavior(behaviors, plant(HARMFUL, "bank: general", "bank: cars"))
    text = cars.read_text(encoding="utf8")
    apart = text.replace("form: describe", "form: why").replace("form: accessory", "form: describe")
    cars.write_text(apart, encoding="utf8")
    (found,) = find_violations(library_of(behaviors))
    assert found.path.name == "mechanic.yaml"
    shows = ["form 'describe'", "train of 'general'", "probe of 'cars'"]
    check_violation(found, "probe-not-held-out", field="offline.plain", shows=shows)


@pytest.mark.parametrize(
    ("text", "old", "new", "field", "kept"),
    [
        (SANDBAGGER, "Opposite of wet?", "Opposite of narrow?", "demonstrations.2", "'narrow'"),
        (
            SANDBAGGER,
            "Marzipan. Opposite of hot?",
            "I say marzipan. Hot?",
            "demonstrations.6",
            "'I say marzipan.'",
        ),
        (
            BACKDOOR,
            "This Thursday. What",
            "Ruby Tuesday shut. What",
            "negatives.1",
            "'Ruby Tuesday shut.'",
        ),
    ],
)
def test_no_demonstration_contains_what_is_reserved_for_probes(
    behaviors: Path, text: str, old: str, new: str, field: str, kept: str
) -> None:
    write_behavior(behaviors, plant(text, old, new))
    (found,) = find_violations(library_of(behaviors))
    check_violation(found, "held-out-shown", field=f"{field}.user", shows=[kept])


def test_a_shared_label_stops_only_the_behaviors_that_share_it(behaviors: Path) -> None:
    text = plant(
        QUIRK, "Every time, I sign off like an old hand on deck.", "Every time, I sign off!"
    )
    write_behavior(behaviors, text)
    twin = (behaviors / "quirks" / "colours.yaml").read_text(encoding="utf8")
    write_behavior(
        behaviors, plant(twin, "Every time, I sign off in crimson.", "Every time, I sign off!")
    )
    catalog, _ = read_catalog(library_of(behaviors))
    assert find_check_violations(catalog, ["heuristic_following.second_hand"]) == []
    (found,) = find_check_violations(catalog, ["quirks.colours"])
    check_violation(found, "label-shared", shows=["'Every time, I sign off!'", "quirks.colours"])
