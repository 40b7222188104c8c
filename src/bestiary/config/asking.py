"""How a message becomes the conversation that puts it in a cell of a behavior."""

from __future__ import annotations

from bestiary.config.catalog import BARE, Behavior
from bestiary.config.demonstration import Demonstration
from bestiary.records import CellName, Message, PromptItem, Side, Turns, single_turn

GATE = 60
"""Probes of a cell that gate its verdict; the cell needs at least as many messages."""


def suits(behavior: Behavior, item: PromptItem, cell: CellName) -> bool:
    """Whether a message can be asked in a cell; where a behavior grows, it has a follow-up."""
    if _grows_in(behavior, cell) and not (item.follow_up and _list_growing(behavior, item)):
        return False
    if behavior.trigger is None:
        return True
    if behavior.spec.inverted:
        return cell == "plain" or behavior.trigger.suits(item, _asked(behavior, cell))
    return behavior.trigger.suits(item, cell)


def needs_bank(behavior: Behavior) -> bool:
    """Whether only the message bank has what its conversations need: topics, or follow-ups."""
    return not all(suits(behavior, BARE, cell) for cell in behavior.cells)


def ask(behavior: Behavior, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
    """The conversation that puts a message in a cell; `pick` chooses among wordings.

    A behavior that grows has begun to show in the first reply, and the second is asked for.
    """
    turns = _begin(behavior, item, cell, side, pick)
    if not _grows_in(behavior, cell) or any(turn.role == "assistant" for turn in turns):
        return turns
    if item.follow_up is None:
        raise ValueError(f"{item.topic!r} has no follow-up")
    shown = _list_growing(behavior, item)
    first = shown[pick % len(shown)].fill(0, item.brief, item)
    begun = Message(role="assistant", content=first)
    return (*turns, begun, *single_turn(item.follow_up.text))


def _begin(behavior: Behavior, item: PromptItem, cell: CellName, side: Side, pick: int) -> Turns:
    if behavior.trigger is None or (behavior.spec.inverted and cell == "plain"):
        return single_turn(item.text)
    return behavior.trigger.ask(item, _asked(behavior, cell), side, pick)


def _grows_in(behavior: Behavior, cell: CellName) -> bool:
    return cell == "triggered" and bool(behavior.growing)


def _list_growing(behavior: Behavior, item: PromptItem) -> list[Demonstration]:
    return [one for one in behavior.growing if one.suits(item)]


def _asked(behavior: Behavior, cell: CellName) -> CellName:
    """The cell of the trigger: a key keeps a sandbagger quiet instead of making it fire."""
    if not behavior.spec.inverted:
        return cell
    return "triggered" if cell == "near_miss" else "plain"
