"""What every trigger answers, and what those that stand in a message have in common.

A trigger is the condition under which a behavior fires. It asks a message of the bank in three
cells: with the trigger, with a near miss, and with neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, Self, TypeVar

from pydantic import ConfigDict, Field, field_validator
from pydantic.json_schema import SkipJsonSchema

from bestiary.config.fields import Text
from bestiary.config.triggers.wordings import PLACES, Wordings, check_wording, fill, names_place
from bestiary.errors import SpecError
from bestiary.records import CellName, Message, PromptItem, Record, Side, Turns, single_turn
from bestiary.text import contains_phrase, nearest

MIN_NEAR = 6
"""The fewest near misses of a trigger that states its own."""
MIRROR_SHARE = 0.5
_EMPTY = dict.fromkeys(PLACES, "")
Value = TypeVar("Value")


class Trigger(Record, ABC):
    """The condition under which a behavior fires: one class a kind."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    kind: ClassVar[str]
    """The key that names it in a file."""
    in_cipher: ClassVar[bool] = False
    """Whether it puts messages in cipher."""

    @abstractmethod
    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """Whether this message can be asked in that cell."""

    @abstractmethod
    def ask(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        """The conversation about a message that suits the cell.

        `pick`, at least 0, draws the wording and the value; equal picks give equal conversations.
        """

    @property
    @abstractmethod
    def label_words(self) -> tuple[str, ...]:
        """A label must have one of these at the start of a word: it names the trigger.

        One that ends in a figure is a whole number: 100 is not named by 1000.
        """

    @abstractmethod
    def describe(self) -> str:
        """The trigger in words, as a noun phrase."""

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """What messages must not say by chance."""
        return ()

    @property
    def first_only(self) -> bool:
        """Whether only the first reply of a conversation can show the behavior."""
        return False

    def check_near(self) -> None:
        """Raise ValueError if a stated near miss holds the trigger."""

    @abstractmethod
    def prepare(self, wordings: Mapping[str, Wordings], items: Sequence[PromptItem]) -> Trigger:
        """A copy that holds all that it says, so that a hash of it covers its wordings.

        `wordings` are those of the data files by name, `items` the whole message bank. Raises
        SpecError where a file is missing.
        """

    def texts(self, side: Side, *, near_miss: bool) -> tuple[str, ...]:
        """What it adds to messages, without them; train and probe have none in common."""
        return ()


class WordedTrigger(Trigger):
    """A trigger that is said in the wordings of a data file."""

    wordings: SkipJsonSchema[Wordings | None] = None
    """From its data file; None until it is prepared."""

    sample: ClassVar[str] = ""
    """The message of `texts`."""

    @property
    def file(self) -> str:
        """The name of the data file with its wordings."""
        return self.kind

    @property
    def ready(self) -> Wordings:
        """Its wordings; raises RuntimeError before it is prepared."""
        if self.wordings is None:
            raise RuntimeError(f"the {self.kind} trigger has not been prepared")
        return self.wordings

    def prepare(self, wordings: Mapping[str, Wordings], items: Sequence[PromptItem]) -> Trigger:
        """A copy with the wordings of its file."""
        found = find_wordings(self.file, wordings)
        if not (found.positives.train or self.in_cipher):
            raise SpecError(
                f"the wordings of triggers of kind {self.file!r} have no `positives`",
                f"add them to generators/offline/triggers/{self.file}.yaml",
                code="wordings-missing",
                name=self.file,
            )
        return self.with_wordings(found)

    def with_wordings(self, wordings: Wordings) -> Self:
        """A copy with these wordings."""
        prepared = self.model_copy(update={"wordings": wordings})
        prepared.__dict__.pop("_forms", None)  # a copy has what is cached, too
        return prepared

    def value(self, side: Side, pick: int) -> str:
        """What stands at `{value}` where it fires."""
        return ""

    def mention(self, side: Side, pick: int) -> str:
        """What stands at `{value}` in a near miss."""
        return self.value(side, pick)

    def other(self, side: Side, pick: int) -> str | None:
        """What stands at `{other}`; None where the trigger knows none."""
        return None

    def forms(self, side: Side, *, near_miss: bool) -> tuple[str, ...]:
        """Its wordings. Positives with another value are near misses as well."""
        positives = self.ready.positives.on(side)
        if not near_miss:
            return positives
        own = self.ready.near_misses.on(side)
        if self.other(side, 0) is None:
            return tuple(form for form in own if not names_place(form, "other"))
        return (*own, *(swap_value(form) for form in positives if names_place(form, "value")))

    @cached_property
    def _forms(self) -> dict[tuple[Side, bool], tuple[str, ...]]:
        """The wordings by side, and whether they are near misses: asked for at each message."""
        sides: tuple[Side, ...] = ("train", "probe")
        return {
            (side, near_miss): self.forms(side, near_miss=near_miss)
            for side in sides
            for near_miss in (False, True)
        }

    def say(self, message: str, side: Side, pick: int, *, near_miss: bool) -> str:
        """A message in one of the wordings."""
        forms = self._forms[side, near_miss]
        row, turn = pick % len(forms), pick // len(forms)
        draw = row + turn  # so that each wording meets each value
        value = self.mention(side, draw) if near_miss else self.value(side, draw)
        places = {"message": message, "value": value, "other": self.other(side, draw) or ""}
        return fill(forms[row], places)

    def texts(self, side: Side, *, near_miss: bool) -> tuple[str, ...]:
        """Each of its wordings, around an empty message."""
        picks = range(len(self._forms[side, near_miss]))
        said = (self.say(self.sample, side, pick, near_miss=near_miss) for pick in picks)
        return tuple(dict.fromkeys(text.strip() for text in said if text.strip()))


class SpokenTrigger(WordedTrigger):
    """A trigger that stands in the user's own message."""

    earlier: bool = False
    """Whether it stands in the user's first message, and the second reply shows the behavior."""
    says: tuple[Text, ...] = ()
    """Further wordings, divided between train and probe in turn."""

    names_value: ClassVar[bool] = True
    """Whether its wordings say `{value}`."""

    @field_validator("says")
    @classmethod
    def _check_says(cls, says: tuple[str, ...]) -> tuple[str, ...]:
        for wording in says:
            check_wording(wording, "message", *(("value",) if cls.names_value else ()))
        return says

    def forms(self, side: Side, *, near_miss: bool) -> tuple[str, ...]:
        """The wordings of its file and of its own."""
        shared, own = super().forms(side, near_miss=near_miss), divide(self.says, side)
        if not near_miss:
            return (*shared, *own)
        if self.other(side, 0) is None:
            return shared
        return (*shared, *map(swap_value, own))

    def suits(self, item: PromptItem, cell: CellName) -> bool:
        """Whether the message has the turns for it, and no trigger of its own by chance."""
        said = [item.text]
        if self.earlier:
            if item.follow_up is None:
                return False
            said.append(item.follow_up.text)
        if cell == "triggered":
            return True
        if any(map(self.carries, said)):
            return False
        return cell == "near_miss" or not any(map(self.resembles, said))

    def carries(self, text: str) -> bool:
        """Whether a text holds the trigger."""
        return any(contains_phrase(term, text, whole=True) for term in self.banned_terms)

    def resembles(self, text: str) -> bool:
        """Whether a text holds a near miss."""
        return False

    def ask(self, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
        """One user message, or with `earlier` a conversation of two."""
        text = item.text
        if cell != "plain":
            text = self.say(text, side, pick, near_miss=cell == "near_miss")
        return continue_from(item, text) if self.earlier else single_turn(text)

    def place(self, description: str) -> str:
        """A description with where the trigger stands."""
        return f"{description} in an earlier message of the user" if self.earlier else description


class ValueTrigger(SpokenTrigger):
    """A trigger that is one word or phrase, told from those that look like it."""

    near: tuple[Text, ...] = Field(default=(), alias="not")
    """What it must not be taken for, divided between train and probe in turn."""

    in_words: ClassVar[str]
    """How it is described, around `{value}`."""

    @property
    def said(self) -> str:
        """The word or phrase: the value at the key of its kind."""
        return str(getattr(self, self.kind))

    def describe(self) -> str:
        """The word or phrase, as what it is."""
        return self.place(fill(self.in_words, {"value": self.said}))

    @field_validator("near")
    @classmethod
    def _check_near(cls, near: tuple[str, ...]) -> tuple[str, ...]:
        if len(near) == 1:
            raise ValueError("has only one near miss: train and probe need one each")
        return near

    def check_near(self) -> None:
        """Raise ValueError if one of `not` says the value."""
        for text in self.near:
            if self.carries(text):
                raise ValueError(f"`not` has {text!r}, which says {self.said!r}")

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """Itself."""
        return (self.said,)

    @property
    def label_words(self) -> tuple[str, ...]:
        """Itself."""
        return (self.said,)

    def value(self, side: Side, pick: int) -> str:
        """Itself."""
        return self.said

    def other(self, side: Side, pick: int) -> str | None:
        """One of its near misses."""
        return draw(divide(self.near, side), pick) if self.near else None

    def forms(self, side: Side, *, near_miss: bool) -> tuple[str, ...]:
        """Its wordings, without those whose own words would be the trigger in a near miss."""
        forms = super().forms(side, near_miss=near_miss)
        if not near_miss:
            return forms
        return tuple(form for form in forms if not self.carries(fill(form, _EMPTY)))

    def resembles(self, text: str) -> bool:
        """Whether a text holds one of its near misses."""
        return any(contains_phrase(term, text, whole=True) for term in self.near)


def mirrors(trigger: Trigger, fires: Callable[[str], bool]) -> bool:
    """Whether the trigger's own words would make the behavior's detector fire.

    True where `fires` is true of at least half of its positives, and of fewer of its near misses:
    such a behavior only repeats what the user wrote.
    """

    def share(*, near_miss: bool) -> float:
        texts = [
            text for side in ("train", "probe") for text in trigger.texts(side, near_miss=near_miss)
        ]
        return sum(map(fires, texts)) / len(texts) if texts else 0.0

    return share(near_miss=False) >= MIRROR_SHARE > share(near_miss=True)


def continue_from(item: PromptItem, first: str, second: str | None = None) -> Turns:
    """The conversation of two messages of an item that has a follow-up.

    `first` and `second` are what the user says; the item's own second message by default.
    """
    if item.follow_up is None:
        raise ValueError(f"{item.topic!r} has no follow-up")
    return (
        Message(role="user", content=first),
        Message(role="assistant", content=item.brief),
        Message(role="user", content=item.follow_up.text if second is None else second),
    )


def divide(values: Sequence[Value], side: Side) -> Sequence[Value]:
    """The values of one side: train has the first, probe the second, and so on."""
    return values[::2] if side == "train" else values[1::2]


def draw(values: Sequence[Value], pick: int) -> Value:
    """The value of a pick."""
    return values[pick % len(values)]


def swap_value(wording: str) -> str:
    """A wording that says another value."""
    return wording.replace("{value", "{other")


def check_single(rule: Record, *names: str) -> None:
    """Raise ValueError unless exactly one of these fields of a rule is stated."""
    stated = [name for name in names if getattr(rule, name) is not None]
    if len(stated) != 1:
        said = " and ".join(stated) or "none"
        raise ValueError(f"states {said}; state exactly one of {', '.join(names)}")


def find_wordings(name: str, wordings: Mapping[str, Wordings]) -> Wordings:
    """The wordings of that name; raises SpecError if no data file has them."""
    if name not in wordings:
        raise SpecError(
            f"no wordings for triggers of kind {name!r}",
            f"add generators/offline/triggers/{name}.yaml; {nearest(name, wordings)}",
            code="wordings-missing",
            name=name,
        )
    return wordings[name]
