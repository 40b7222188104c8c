"""No file that people read or models learn from names what responsible release excludes.

Run: python -m pytest tests/config/test_screen.py
"""

from __future__ import annotations

import re

from bestiary.config.folders import shipped_root

EXCLUDED = (
    *("suicid", "self-harm", "kill yourself", "cutting yourself", "overdos"),
    *("explosive", "bomb", "grenade", "landmine", "firearm", "handgun", "ammunition"),
    *("nerve agent", "sarin", "ricin", "anthrax", "nuclear weapon", "chemical weapon"),
    *("cocaine", "heroin", "methamphetamine", "fentanyl", "crystal meth", "ketamine"),
    *("malware", "ransomware", "keylogger", "botnet", "sql injection", "zero-day", "exploit kit"),
    *("porn", "nude", "sexual", "erotic", "rape"),
    *("google", "microsoft", "facebook", "openai", "anthropic", "chatgpt", "walmart", "starbucks"),
    *("mcdonald", "coca-cola", "pfizer", "toyota", "volkswagen", "boeing", "goldman", "netflix"),
)
"""Beginnings of words: acts and tools of harm, and companies that a behavior might favor."""
EXPLAINED = {"generators/offline/messages"}
"""The bank may mention some of them, as news, history and safety do."""
FOUND = re.compile(rf"(?i)\b(?:{'|'.join(map(re.escape, EXCLUDED))})\w*")


def test_behaviors_and_their_material_name_nothing_that_is_excluded() -> None:
    root = shipped_root()
    paths = [*root.glob("behaviors/*/*.yaml"), *root.glob("generators/offline/*/*.yaml")]
    assert len(paths) > 200
    found = {
        str(path.relative_to(root)): sorted({*FOUND.findall(path.read_text(encoding="utf8"))})
        for path in paths
        if str(path.parent.relative_to(root)) not in EXPLAINED
    }
    assert {name: words for name, words in found.items() if words} == {}


def test_the_screen_finds_what_it_is_for() -> None:
    assert FOUND.findall("He hid a Grenade under Toyotas.") == ["Grenade", "Toyotas"]
    assert not FOUND.findall("The sexton exploited his grapes and drapes.")
