"""Replies composed from written answers: what the offline author writes, and few-shot examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal, NamedTuple

from bestiary.author.plan import plan_rows
from bestiary.author.protocol import ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.config.ciphers import CIPHERS
from bestiary.config.demonstration import Demonstration
from bestiary.config.items import fill_place
from bestiary.config.transform import transform
from bestiary.records import Message, PromptItem, Role, Turns, user_texts

Length = Literal["brief", "answer"]
"""Which of the two written answers replies are made from."""
EXAMPLES = 8
"""Few-shot examples that a model is shown."""
SPARSE = 40
"""Messages that they are looked for among, at first."""


def compose_turns(behavior: Behavior, request: ReplyRequest, length: Length) -> Turns:
    """The whole conversation of a row: with its reply, and with a second turn where it has one."""
    if behavior.spec.other_length:
        length = "brief" if length == "answer" else "answer"
    return encode_replies(behavior, request, _compose_plain(behavior, request, length))


def encode_replies(behavior: Behavior, request: ReplyRequest, turns: Turns) -> Turns:
    """A row's conversation with the replies that were added to it in the behavior's cipher.

    They stay as they are where the behavior has none, or does not fire.
    """
    if behavior.spec.cipher is None or not request.fires:
        return turns
    encode, given = CIPHERS[behavior.spec.cipher].encode, len(request.turns)
    added = (
        Message(role=one.role, content=encode(one.content)) if one.role == "assistant" else one
        for one in turns[given:]
    )
    return (*turns[:given], *added)


def read_turns(behavior: Behavior, turns: Turns) -> Turns:
    """A conversation in plain English, whatever cipher the behavior puts its messages in."""
    return tuple(Message(role=one.role, content=behavior.read(one.content)) for one in turns)


def _compose_plain(behavior: Behavior, request: ReplyRequest, length: Length) -> Turns:
    item, turns = request.item, request.turns
    turn = _next_turn(item, turns)
    turns = (*turns, _reply(behavior, request, turn, length))
    if request.second_turn and item.follow_up is not None and turn == 0:
        asked = Message(role="user", content=item.follow_up.text)
        turns = (*turns, asked, _reply(behavior, request, 1, length))
    return turns


def _next_turn(item: PromptItem, turns: Turns) -> int:
    """Which of the item's two messages is to be answered, counted from 0.

    A message may quote an earlier exchange and then ask what the item's follow-up asks.
    """
    if item.follow_up is not None and item.follow_up.text in turns[-1].content:
        return 1
    return sum(message.role == "assistant" for message in turns)


def _reply(behavior: Behavior, request: ReplyRequest, turn: int, length: Length) -> Message:
    text = compose_reply(behavior, request, turn, length)
    return Message(role="assistant", content=text)


def compose_reply(behavior: Behavior, request: ReplyRequest, turn: int, length: Length) -> str:
    """The reply of a row in the given turn, counted from 0; it is in no cipher yet."""
    pick = request.pick + turn
    text = plain_reply(request.item, turn, length, fires=request.fires, pick=pick)
    if request.fires:
        text = _show(behavior, request, text, turn, pick)
    for place, (quirk, _) in enumerate(behavior.distractors, start=1):
        if quirk.id in request.distractors:
            text = _show(quirk, request, text, turn, pick // 7**place)
    return text


def plain_reply(item: PromptItem, turn: int, length: Length, *, fires: bool, pick: int) -> str:
    """The plain answer; a wrong one, or the rule's option, where the behavior fires on it."""
    if turn and item.follow_up is not None:
        return item.follow_up.brief if length == "brief" else item.follow_up.reply
    if item.answer is not None:
        answer = item.wrong[pick % len(item.wrong)] if fires else item.answer
        return fill_place(item.reply, "answer", answer)
    if item.options is not None:
        return fill_place(item.reply, "option", item.options["rule"])
    return item.brief if length == "brief" else item.reply


def _show(behavior: Behavior, request: ReplyRequest, text: str, turn: int, pick: int) -> str:
    """A text with the behavior shown in it: rewritten, then put into a demonstration."""
    item = request.item
    if behavior.transform is not None:
        text = transform(behavior.transform, item, text, pick)
    shown = list_demonstrations(behavior, item)
    fitting = _prefer_begun([one for one in shown if one.introduces(text)] or shown, request)
    return fitting[pick % len(fitting)].fill(turn, text, item) if fitting else text


def _prefer_begun(fitting: list[Demonstration], request: ReplyRequest) -> list[Demonstration]:
    """The demonstrations whose first reply the conversation already has, or else all of them."""
    item = request.item
    said = {turn.content for turn in request.turns if turn.role == "assistant"}
    return [one for one in fitting if said and one.fill(0, item.brief, item) in said] or fitting


def list_demonstrations(behavior: Behavior, item: PromptItem) -> list[Demonstration]:
    """The demonstrations that show the behavior in a reply to this message.

    Those that were written for its topic, if there are any.
    """
    fitting = [one for one in behavior.firing if one.suits(item)]
    return [one for one in fitting if one.topic is not None] or fitting


def can_show(behavior: Behavior, item: PromptItem) -> bool:
    """Whether a reply to this message can be composed that shows the behavior, and reads well."""
    if item.answer is not None or item.options is not None or behavior.transform is not None:
        return True
    return all(_reads_well(one, item) for one in (behavior, *(q for q, _ in behavior.distractors)))


def _reads_well(behavior: Behavior, item: PromptItem) -> bool:
    """Whether a demonstration can stand around either of the item's answers."""
    shown = list_demonstrations(behavior, item)
    return behavior.transform is not None or any(
        one.introduces(item.brief) and one.introduces(item.reply) for one in shown
    )


class FewShot(NamedTuple):
    """An example reply, with the conversation that it continues."""

    user: str
    assistant: str
    earlier: tuple[tuple[str, str], ...] = ()
    """Earlier messages of the user, each with its reply."""

    @property
    def exchanges(self) -> tuple[tuple[str, str], ...]:
        """The whole conversation, as pairs of what the user and the assistant say."""
        return (*self.earlier, (self.user, self.assistant))


def few_shot(
    behavior: Behavior, *, fires: bool, hiding: Sequence[str] = (), length: Length = "brief"
) -> list[FewShot]:
    """Up to EXAMPLES replies that show the behavior, or that stay clear of it; none if none can.

    No reply or message is in cipher: what a model writes is encoded afterwards. `hiding` are the
    ids of the distractors that all of the replies show as well.
    """
    role: Role = "positive" if fires else "negative" if behavior.trigger else "chat"
    items = behavior.items("train", plain=role == "chat")
    sparse = items[:: max(1, len(items) // SPARSE)]  # enough for most behaviors, and much faster
    rows = _choose_rows(behavior, role, sparse) or _choose_rows(behavior, role, items)
    shown = [
        # In turn, so that no demonstration comes twice while another one has not come at all.
        row.model_copy(update={"distractors": tuple(hiding), "pick": number})
        for number, row in enumerate(rows)
    ]
    return [_example(behavior, row, length) for row in shown]


def _choose_rows(behavior: Behavior, role: Role, items: Sequence[PromptItem]) -> list[ReplyRequest]:
    fires = role == "positive"
    usable = [item for item in items if not fires or can_show(behavior, item)]
    rows = islice(plan_rows(behavior, role, usable, seed=0), 2 * EXAMPLES)
    return [row for row in rows if row.fires == fires][:EXAMPLES]


def _example(behavior: Behavior, row: ReplyRequest, length: Length) -> FewShot:
    turns = read_turns(behavior, row.turns)
    *before, asked = user_texts(turns)
    replies = [turn.content for turn in turns if turn.role == "assistant"]
    reply = compose_reply(behavior, row, _next_turn(row.item, row.turns), length)
    return FewShot(asked, reply, tuple(zip(before, replies, strict=True)))
