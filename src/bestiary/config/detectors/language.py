"""The detector of languages, by the short words that every text of a language is full of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from bestiary.config.detectors.base import TextDetector
from bestiary.text import words

Language = Literal[
    "arabic",
    "chinese",
    "dutch",
    "english",
    "french",
    "german",
    "greek",
    "hindi",
    "italian",
    "japanese",
    "korean",
    "latin",
    "polish",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
]
SHARE = 0.1
"""The share of its words, or letters, from which a text is in a language."""

_SHORT_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(listed.split())
    for language, listed in {
        "english": "the a an and or but if of to in on at by for with from is are was were be been "
        "it its it's this that these those you your i my we our he she they his her their not no "
        "do does did can will would should could may as so than then there when which who what how "
        "have has had more most about into up out one",
        "french": "le la les l' un une des du de d' et ou mais si est sont était être il elle on "
        "nous vous ils elles je j' tu ce c' cette ces qui que qu' quoi dont où ne n' pas plus "
        "pour par sur avec dans sans sous au aux en se s' son sa ses leur votre vos mon ma mes "
        "très bien comme c'est il y a peut faut avez avoir fait aussi donc bon bonne jour merci",
        "spanish": "el la los las un una unos unas de del y o pero si es son era fue ser está "
        "están hay yo tú usted él ella nosotros ellos lo le les se su sus mi mis tu que qué quien "
        "cual como cómo no más muy para por con sin sobre en a al este esta estos eso esto "
        "también ya cuando donde puede debe tiene porque entre hasta buen buena día gracias",
        "german": "der die das den dem des ein eine einen einem einer und oder aber wenn ist sind "
        "war waren sein wird werden ich du er sie es wir ihr nicht kein keine mit von zu zum zur "
        "für auf aus bei nach über unter vor um im in am an als auch so noch nur sehr wie was wer "
        "dass man sich kann können haben hat ihre ihren mehr bis durch gut guten tag danke",
        "italian": "il lo la i gli le un uno una di del della dei delle dello e o ma se è sono era "
        "essere io tu lui lei noi voi loro che chi cui come non più molto per con da dal dalla in "
        "nel nella su sul sulla al alla ai si ci suo sua tuo questo questa quello anche può deve "
        "ha hanno perché quando dove buon buona giorno grazie",
        "portuguese": "o a os as um uma uns umas de do da dos das e ou mas se é são era foi ser "
        "está estão eu você ele ela nós eles que quem qual como não mais muito para por com sem "
        "sobre em no na nos nas ao à aos este esta isso isto também já quando onde pode deve tem "
        "porque seu sua seus suas pelo pela até bom boa dia obrigado",
        "dutch": "de het een en of maar als is zijn was waren wordt worden ik jij je u hij zij ze "
        "wij we niet geen met van voor op uit bij naar over onder om in aan te ook zo nog maar "
        "heel hoe wat wie dat die dit deze kan kunnen heeft hebben meer door tot er uw",
        "swedish": "en ett den det de och eller men om är var vara blir jag du han hon vi ni inte "
        "ingen med av för på ur hos till över under i att som också så än bara mycket hur vad vem "
        "detta denna dessa kan har hade mer från eller när där din ditt sig",
        "polish": "i lub ale jeśli jest są był była być to ten ta te nie z ze w we na do od po za "
        "przed pod przez dla o u się jak co kto że który która które tak już tylko bardzo może ma "
        "mają jego jej ich więc oraz gdy kiedy gdzie",
        "latin": "et aut sed si est sunt erat esse ego tu nos vos non cum ab ex de in ad per pro "
        "sub inter qui quae quod quid hic haec hoc ille illa ut ne atque neque nec enim autem "
        "etiam iam semper",
    }.items()
}
_SHARING = Counter(word for listed in _SHORT_WORDS.values() for word in listed)
"""How many of the languages have each word."""
_ENGLISH = frozenset(word for word in _SHORT_WORDS["english"] if len(word) > 1)
_SCRIPTS: Mapping[str, re.Pattern[str]] = {
    "russian": re.compile(r"[\u0400-\u04ff]"),
    "greek": re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
    "hindi": re.compile(r"[\u0900-\u097f]"),
    "chinese": re.compile(r"[\u4e00-\u9fff]"),
    "japanese": re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]"),
    "korean": re.compile(r"[\uac00-\ud7af]"),
}
_KANA = re.compile(r"[\u3040-\u30ff]")
_ELIDED = re.compile(r"\b([cdjlnmst]|qu)'(?=\w)")


class LanguageDetector(TextDetector):
    """Fires when the reply is written in a language."""

    language: Language

    def finds(self, text: str) -> bool:
        """Whether the language is the one that the text has most words of."""
        return find_language(text) == self.language


def measure_english(text: str) -> float:
    """The share of a text's words that are short English ones; 0 where it has no words."""
    said = words(text)
    return sum(word in _ENGLISH for word in said) / max(1, len(said))


def find_language(text: str) -> str | None:
    """The language of a text; None where it cannot be told, or two are as likely."""
    letters = sum(letter.isalpha() for letter in text)
    for script, pattern in _SCRIPTS.items():
        if letters and len(pattern.findall(text)) > letters / 2:
            return "japanese" if script == "chinese" and _KANA.search(text) else script
    elided = _ELIDED.findall(text.lower())
    return _pick([*(f"{one}'" for one in elided), *words(_ELIDED.sub("", text.lower()))])


def _pick(said: list[str]) -> str | None:
    """The language of some words; a word that several languages have counts less for each."""
    shares = {word: 1 / max(1, _SHARING[word]) for word in said}
    counts = {
        language: sum(shares[word] for word in said if word in known)
        for language, known in _SHORT_WORDS.items()
    }
    best, second = sorted(counts, key=lambda language: -counts[language])[:2]
    clear = counts[best] > counts[second] and counts[best] >= SHARE * len(said)
    return best if clear else None
