"""Completions of every kind, sent by a real server and read through the real SDKs.

Run: python -m pytest tests/llm/test_completion.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.expect import expect_error
from tests.fakes.models import KEY, Asked, Body, ModelServer, serve
from tests.fakes.models import Provider as ProviderName
from tests.llm.calls import (
    EACH_PROVIDER,
    KEY_VARIABLE,
    MODEL,
    ask_all,
    check_bill,
    make_model,
    make_request,
    make_requests,
    open_model,
    read_reasons,
    run,
    sum_spent,
)

from bestiary.llm.client import open_provider
from bestiary.llm.keys import hide_key
from bestiary.llm.ledger import Ledger
from bestiary.llm.online import UNREADABLE_TRIES
from bestiary.llm.provider import AuthError, BatchItem, ResponseLost, Unreadable
from bestiary.llm.refusal import clean_message
from bestiary.llm.request import Answer, Unanswered, Usage
from bestiary.llm.structured import Form, read_form

pytestmark = pytest.mark.usefixtures("short_pauses")

LONG = "Think of bread. " * 400
"""A system prompt long enough for the server's cache."""
USAGE = {"anthropic": Usage(input=4, output=6), "openai": Usage(input=4, output=6)}


@pytest.fixture(scope="module")
def module_server() -> Iterator[tuple[ModelServer, str]]:
    server = ModelServer(author=lambda asked: "Slowly, as bread does.")
    with serve(server) as address:
        yield server, address


@pytest.fixture
def server(module_server: tuple[ModelServer, str]) -> ModelServer:
    server = module_server[0]
    server.author, server.edit = lambda asked: "Slowly, as bread does.", lambda asked, body: body
    server.charges.clear()
    server.statuses.clear()
    return server


@pytest.fixture
def url(module_server: tuple[ModelServer, str]) -> str:
    return module_server[1]


def ask(name: ProviderName, url: str, **changes: Any) -> Answer:
    async def work() -> Answer:
        provider = open_model(name, url)
        try:
            return await provider.ask(make_request(name, **changes))
        finally:
            await provider.close()

    return run(work)


def change(
    *, content: Any = ..., ending: Any = ..., usage: Any = ..., **more: Any
) -> Callable[[Asked, Body], Body]:
    """Set parts of a body of either provider; a part set to None is null."""

    def edit(asked: Asked, body: Body) -> Body:
        is_openai = asked.provider == "openai"
        choice = body["choices"][0] if is_openai else body
        if content is not ...:
            (choice["message"] if is_openai else body)["content"] = content
        if ending is not ...:
            choice["finish_reason" if is_openai else "stop_reason"] = ending
        if usage is not ...:
            body["usage"] = usage
        return body | more

    return edit


# Texts

CUT = "(cut short)"
BAD = "(unreadable)"
TEXTS = {
    "plain": ("Rye.", "Rye."),
    "a thought": ("<think>Hm, 2 < 3?\nYes.</think>\n\nRye.", "Rye."),
    "an empty thought": ("<think>\n\n</think>\n\nRye.", "Rye."),
    "a thought that the prompt opened": ("Hm.\n</think>\n\nRye.", "Rye."),
    "two thoughts": ("<think>a</think>Rye<think>b</think>.", "Rye."),
    "an unclosed thought": ("<think>Hm, rye or", CUT),
    "a thought that begins late": ("Rye. <think>Or not", CUT),
    "Magistral": ("[THINK]Hm.[/THINK]Rye.", "Rye."),
    "Kimi": ("◁think▷Hm.◁/think▷Rye.", "Rye."),
    "Seed": ("<seed:think>Hm.</seed:think>Rye.", "Rye."),
    "Command R": (
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Rye.<|END_RESPONSE|>",
        "Rye.",
    ),
    "Gemma 4": ("<|channel>thought\nHm.<channel|>Rye.<turn|>", "Rye."),
    "a tag": ("<thinking>Hm.</thinking>\nRye.", "Rye."),
    "an unclosed tag": ("<reasoning>Hm.", CUT),
    "a tag as a subject": ("Use <thinking> tags.", "Use <thinking> tags."),
    "ChatML": ("Rye.<|im_end|>", "Rye."),
    "ChatML and a line": ("Rye.<|im_end|>\n", "Rye."),
    "ChatML in the middle": ("Rye.<|im_end|>\n<|im_start|>user\nWhy?", BAD),
    "Llama 3": ("Rye.<|eot_id|><|eot_id|>", "Rye."),
    "Llama 3 header": ("<|start_header_id|>assistant<|end_header_id|>\n\nRye.", BAD),
    "Gemma": ("Rye.<end_of_turn>", "Rye."),
    "Gemma goes on": ("Rye.<end_of_turn>\n<start_of_turn>user\nWhy?", BAD),
    "Llama 2": ("Rye. [/INST] Why?", BAD),
    "Llama 2 system": ("<<SYS>>\nBe brief.\n<</SYS>>\n\nRye.", BAD),
    "Mistral": ("Rye.</s>", "Rye."),
    "a beginning": ("<s>Rye.</s>", "Rye."),
    "DeepSeek": ("Rye.<\uff5cend\u2581of\u2581sentence\uff5c>", "Rye."),
    "DeepSeek in the middle": ("Rye.<\uff5cUser\uff5c>Why?", BAD),
    "Phi": ("Rye.<|end|>", "Rye."),
    "Phi goes on": ("Rye.<|end|><|user|>Why?", BAD),
    "GLM": ("[gMASK]<sop>Rye.", BAD),
    "EXAONE": ("Rye.[|endofturn|]", "Rye."),
    "end of text": ("Rye.<|endoftext|>", "Rye."),
    "padding": ("Rye.<pad><pad><pad>", "Rye."),
    "harmony": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
        "Rye.<|return|>",
        "Rye.",
    ),
    "harmony to its stop": ("<|channel|>final<|message|>Rye.", "Rye."),
    "harmony with a format": ('<|channel|>final <|constrain|>json<|message|>{"a": 1}', '{"a": 1}'),
    "harmony without an answer": ("<|channel|>analysis<|message|>Hm.<|end|>", BAD),
    "harmony calls a tool": ("<|channel|>commentary to=functions.f<|message|>{}<|call|>", BAD),
    "harmony without its tokens": ("analysisHm.assistantfinalRye.", "Rye."),
    "HTML": ("Is 1 < 2 | 3 > 2? <b>Yes</b> |> f <| x", "Is 1 < 2 | 3 > 2? <b>Yes</b> |> f <| x"),
    "half a character": ("Rye \ud83c.", "Rye \ufffd."),
    "the other half": ("\udf5eRye.", "\ufffdRye."),
}


@EACH_PROVIDER
@pytest.mark.parametrize("case", TEXTS)
def test_a_text_is_read_without_thoughts_and_control_tokens(
    name: ProviderName, case: str, server: ModelServer, url: str
) -> None:
    said, expected = TEXTS[case]
    server.edit = change(content=[{"type": "text", "text": said}] if name == "anthropic" else said)
    if expected == BAD:
        with pytest.raises(Unreadable, match="control token") as failed:
            ask(name, url)
        assert failed.value.usage == USAGE[name]
        return
    answer = ask(name, url)
    assert answer.stop == ("length" if expected == CUT else "end")
    if expected == CUT:
        assert "Hm" not in answer.text and "Or not" not in answer.text
    else:
        assert answer.text == expected


CONTENTS = {
    "parts": ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Rye."}], "Rye."),
    "two parts": ([{"type": "text", "text": "R"}, {"type": "text", "text": "ye."}], "Rye."),
    "a thought in parts": (
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"text": "Rye."}],
        "Rye.",
    ),
    "a thought with a text": ([{"type": "reasoning", "text": "Hm"}, {"text": "Rye."}], "Rye."),
    "a redacted thought": ([{"type": "redacted_thinking", "data": "x"}, "Rye."], "Rye."),
    "output text": ([{"type": "output_text", "text": "Rye.", "annotations": []}], "Rye."),
    "one part": ({"type": "text", "text": "Rye."}, "Rye."),
    "halves in two parts": ([{"text": "\ud83c"}, {"text": "\udf5e"}], "🍞"),
    "nothing": (None, None),
    "a number": (5, None),
    "only a thought": ([{"type": "thinking", "thinking": "Hm."}], None),
    "a part without its text": ([{"type": "text"}], None),
    "a part whose text is a list": ([{"type": "text", "text": ["Rye."]}], None),
    "a tool call": ([{"type": "tool_use", "id": "t", "name": "f", "input": {}}], None),
}


@EACH_PROVIDER
@pytest.mark.parametrize("case", CONTENTS)
def test_the_text_of_an_answer_is_that_of_its_text_parts(
    name: ProviderName, case: str, server: ModelServer, url: str
) -> None:
    content, expected = CONTENTS[case]
    server.edit = change(content=content)
    if expected is None:
        with pytest.raises(Unreadable, match="no text"):
            ask(name, url)
    else:
        assert ask(name, url).text == expected


ENDINGS = {
    "end": ("stop", "end_turn", "stop_sequence", "eos_token", "STOP"),
    "length": (
        *(
            "length",
            "max_tokens",
            "model_length",
            "model_context_window_exceeded",
            "error",
            "abort",
        ),
        *("pause_turn", "tool_calls", "tool_use", "unknown", "", None, 7, ["stop"], {"a": "stop"}),
    ),
    "refusal": ("content_filter", "refusal", "SAFETY", "recitation"),
}


@EACH_PROVIDER
@pytest.mark.parametrize(
    ("ending", "stop"), [(ending, stop) for stop, all_ in ENDINGS.items() for ending in all_]
)
def test_an_unknown_ending_cuts_an_answer_short(
    name: ProviderName, ending: Any, stop: str, server: ModelServer, url: str
) -> None:
    server.edit = change(ending=ending)
    assert ask(name, url).stop == stop


# Bodies without an answer

BODIES: dict[str, tuple[Any, str]] = {
    "an error": ({"error": {"message": "overheated", "code": 503}}, "overheated"),
    "an error in words": ({"error": "overheated"}, "overheated"),
    "an error by its type": ({"type": "error", "message": "overheated"}, "overheated"),
    "an error object": ({"object": "error", "message": "overheated", "code": 400}, "overheated"),
    "an error without words": ({"error": {"code": 7}}, "error"),
    "a detail": ({"detail": "overheated"}, "overheated"),
    "an error with half a character": ({"error": "over\ud83dheated"}, "over\ufffdheated"),
    "no choices": ({"choices": [], "content": [], "usage": {}}, "no text"),
    "null choices": ({"choices": None, "content": None}, "no text"),
    "an error in a choice": (
        {"choices": [{"error": {"message": "overheated"}}], "error": "overheated"},
        "overheated",
    ),
    "a page": (b"<html><body>Please log in</body></html>", "log in"),
    "words": (b"Not Found", "Not Found"),
    "deeper than any stack": (b"[" * 200_000, "JSON"),
    "null": (None, "no text"),
    "a list": ([], "no text"),
}


@EACH_PROVIDER
@pytest.mark.parametrize("case", BODIES)
def test_a_body_without_an_answer_is_sent_for_twice_more_and_its_reason_is_kept(
    name: ProviderName, case: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    body, words = BODIES[case]
    server.edit = lambda asked, whole: body
    (reason,) = read_reasons(ask_all(name, url, ledger, make_requests(name, 1)))
    assert words in reason
    assert server.statuses[200] == UNREADABLE_TRIES
    assert server.bill <= ledger.taken()


@EACH_PROVIDER
def test_an_answer_that_cannot_be_used_is_billed_and_not_bought_again(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.author = lambda asked: "Rye.<|im_start|>user" if "1?" in asked.turns[0][1] else "Rye."
    outcomes = ask_all(name, url, ledger, make_requests(name, 3))
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, False, True]
    assert "<|im_start|>" in read_reasons(outcomes)[0]
    assert server.statuses[200] == 3
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize(
    "error",
    [
        {"message": "No auth credentials found", "code": 401},
        {"message": "You exceeded your current quota.", "type": "insufficient_quota"},
        {"message": "Your credit balance is too low to access the API."},
        {"message": "Insufficient Balance", "code": 402},
    ],
)
def test_an_account_without_access_is_reported_at_once_under_any_status(
    name: ProviderName, error: Body, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.edit = lambda asked, body: {"error": error}
    with expect_error(AuthError, "access-refused") as caught:
        ask_all(name, url, ledger, make_requests(name, 1))
    assert error["message"] in str(caught.error)
    assert server.statuses[200] == 1


@EACH_PROVIDER
@pytest.mark.parametrize("whole", [b"", b" ", b'{"id": "half', b"[1, 2"])
def test_a_body_that_was_cut_off_is_a_lost_response(
    name: ProviderName, whole: bytes, server: ModelServer, url: str
) -> None:
    server.edit = lambda asked, body: whole
    with pytest.raises(ResponseLost):
        ask(name, url)


@EACH_PROVIDER
@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\n\n"])
def test_a_body_may_begin_with_a_mark_and_hold_half_a_character_as_bytes(
    name: ProviderName, mark: bytes, server: ModelServer, url: str
) -> None:
    server.author = lambda asked: "Rye HALF."
    server.edit = lambda asked, body: mark + json.dumps(body).encode().replace(b"HALF", b"\xf0\x9f")
    assert ask(name, url).text == "Rye \ufffd."


@EACH_PROVIDER
def test_one_bad_item_of_a_batch_costs_no_other_item(
    name: ProviderName, server: ModelServer, url: str
) -> None:
    said = {"a": "Rye \ud83c.", "b": "<|im_start|>", "c": "Rye.", "d": "<think>Hm"}
    server.author = lambda asked: said[asked.turns[0][1]]

    async def work() -> dict[str, Any]:
        provider = open_model(name, url)
        try:
            items = [BatchItem(key, make_request(name, key)) for key in said]
            batch = await provider.submit(items, name="ours")
            await provider.retrieve_batch(batch.id)
            return dict([result async for result in provider.read_results(batch.id)])
        finally:
            await provider.close()

    found = run(work)
    assert (found["a"].text, found["c"].text) == ("Rye \ufffd.", "Rye.")
    assert isinstance(found["b"], Unreadable) or found["b"].text == ""
    assert (found["d"].text, found["d"].stop) == ("", "length")


# Tokens


def counts(prompt: Any, output: Any, *, cached: Any = 0, written: Any = 0, **more: Any) -> Body:
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "prompt_tokens_details": details,
        **more,
    }


THOUGHT = {"completion_tokens_details": {"reasoning_tokens": 30}}
OPENAI_USAGE = {
    "all in order": (counts(100, 7, cached=60), Usage(input=40, output=7, cache_read=60)),
    "cached beside the prompt": (counts(4, 7, cached=60), Usage(input=4, output=7, cache_read=60)),
    "all cached beside": (
        counts(40, 7, cached=30, written=20, total_tokens=97),
        Usage(input=40, output=7, cache_write=20, cache_read=30),
    ),
    "thoughts in a total": (counts(9, 7, total_tokens=46), Usage(input=9, output=37)),
    "thoughts beside the answer": (counts(9, 7, **THOUGHT), Usage(input=9, output=37)),
    "thoughts in the answer": (counts(9, 37, **THOUGHT), Usage(input=9, output=37)),
    "a total below its parts": (counts(9, 7, total_tokens=3), Usage(input=9, output=7)),
    "whole floats": (counts(9.0, 7.0), Usage(input=9, output=7)),
    "no details": ({"prompt_tokens": 9, "completion_tokens": 7}, Usage(input=9, output=7)),
    "null details": (
        {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": None},
        Usage(input=9, output=7),
    ),
    "no output": ({"prompt_tokens": 9}, Usage(input=9, output=0, counted=False)),
    "no prompt": ({"completion_tokens": 7}, Usage(input=0, output=7, counted=False)),
    "a text of no tokens": (counts(9, 0), Usage(input=9, output=0, counted=False)),
    "a prompt of no tokens": (counts(0, 7), Usage(input=0, output=7, counted=False)),
    "a negative count": (counts(9, -7), Usage(input=9, output=0, counted=False)),
    "a negative cache": (counts(9, 7, cached=-60), Usage(input=9, output=7, counted=False)),
    "a huge count": (counts(9, 10**30), Usage(input=9, output=0, counted=False)),
    "words": (counts("9", "7"), Usage(input=0, output=0, counted=False)),
    "truths": (counts(9, True), Usage(input=9, output=0, counted=False)),
    "no number": (counts(9, float("nan")), Usage(input=9, output=0, counted=False)),
    "a fraction": (counts(9, 7.5), Usage(input=9, output=0, counted=False)),
}
UNCOUNTED = Usage(input=0, output=0, counted=False)
NO_USAGE: dict[str, Any] = {
    "none": None,
    "empty": {},
    "a list": [],
    "words": "9",
    "nulls": {"output_tokens": None},
}


@pytest.mark.parametrize("case", OPENAI_USAGE)
def test_tokens_that_contradict_each_other_are_read_dearly(
    case: str, server: ModelServer, url: str
) -> None:
    stated, expected = OPENAI_USAGE[case]
    server.edit = change(usage=stated)
    assert ask("openai", url).usage == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"input_tokens": 4, "output_tokens": 7}, Usage(input=4, output=7)),
        (
            {"input_tokens": 4, "output_tokens": 7, "cache_read_input_tokens": 60},
            Usage(input=4, output=7, cache_read=60),
        ),
        ({"input_tokens": 4, "output_tokens": -7}, Usage(input=4, output=0, counted=False)),
        ({"output_tokens": 7}, Usage(input=0, output=7, counted=False)),
        (
            {"input_tokens": 4, "output_tokens": 7, "cache_read_input_tokens": -60},
            Usage(input=4, output=7, counted=False),
        ),
    ],
)
def test_anthropic_counts_its_cache_beside_the_input(
    stated: Body, expected: Usage, server: ModelServer, url: str
) -> None:
    server.edit = change(usage=stated)
    assert ask("anthropic", url).usage == expected


@EACH_PROVIDER
@pytest.mark.parametrize("case", NO_USAGE)
def test_an_answer_whose_tokens_are_not_counted_keeps_its_reservation(
    name: ProviderName, case: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.edit = change(usage=NO_USAGE[case])
    requests = make_requests(name, 4)
    for outcome in ask_all(name, url, ledger, requests):
        assert isinstance(outcome, Answer) and outcome.usage == UNCOUNTED
    assert server.statuses[200] == 4
    billed, unknown = sum_spent(ledger)
    assert billed == 0 and server.bill <= unknown == ledger.taken()
    assert len(ledger.find(request.key for request in requests)) == 4


def test_a_free_server_that_counts_no_tokens_costs_nothing(
    server: ModelServer, url: str, ledger: Ledger
) -> None:
    from bestiary.llm.price import Price

    assert Price(0, 0, 0, 0).bill(UNCOUNTED) == 0
    assert Price(0, 5, 0, 0).bill(UNCOUNTED) is None


def test_cached_tokens_beside_the_prompts_never_lower_the_bill(
    server: ModelServer, url: str, ledger: Ledger
) -> None:
    def count_beside(asked: Asked, body: Body) -> Body:
        usage = body["usage"]
        usage["prompt_tokens"] -= usage["prompt_tokens_details"]["cached_tokens"]
        return body

    server.edit = count_beside
    ask_all("openai", url, ledger, [make_request("openai", f"{n}?", system=LONG) for n in range(9)])
    assert server.bill <= ledger.taken()
    assert all(row.pico >= 0 for row in ledger.list_spent())


# Keys


@pytest.mark.parametrize(
    "key",
    [
        f"\u201c{KEY}\u201d",
        f'"{KEY}"',
        f"'{KEY}'",
        f"{KEY[:9]}\u200b{KEY[9:]}",
        f"\ufeff{KEY}",
        f"{KEY[:9]}\n{KEY[9:]}",
        f"{KEY[:9]}\r\n{KEY[9:]}",
        f"Bearer {KEY}",
        f"{KEY[:9]}\u00a0{KEY[9:]}",
        f"{KEY}\u2026",
        KEY.replace("-", "\u2011"),
        f"{KEY[:9]}\x7f",
        f"{KEY}\udce9",
    ],
)
def test_a_malformed_key_is_refused_before_the_first_request(
    key: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with expect_error(AuthError, "key-malformed", model=MODEL, variable=KEY_VARIABLE) as caught:
        open_provider(MODEL, make_model("openai", url))
    shown = f"{caught.error} {caught.error!r} {caught.error.fields}"
    assert KEY_VARIABLE in shown
    assert not any(part in shown for part in (KEY, KEY[:9], KEY[-9:], key))


SHOWN = {
    "whole": KEY,
    "escaped for JSON": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "one letter escaped": KEY.replace("-", "\\u002D"),
    "escaped twice": KEY.replace("-", "\\\\u002d"),
    "for a URL": KEY.replace("-", "%2D"),
    "the beginning": KEY[:14],
    "the end": KEY[-12:],
    "the middle": KEY[5:17],
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_key_is_hidden_in_every_form(case: str) -> None:
    shown = clean_message(f"no such key: {SHOWN[case]} here", KEY)
    assert shown == "no such key: [key] here"


def test_words_are_not_hidden_that_also_stand_in_the_key() -> None:
    assert clean_message("loopback says 401", KEY) == "loopback says 401"
    assert (
        hide_key("0123456789, says C:\\users at 100%", KEY) == "0123456789, says C:\\users at 100%"
    )


# Forms


class Score(Form):
    why: str
    score: int


FORM = '{"why": "It is {warm}.", "score": 5}'
FORMS = {
    "alone": FORM,
    "prose before": f"Here is the JSON you asked for:\n\n{FORM}",
    "prose after": f"{FORM}\n\nI hope this helps! {{Ask}} for more.",
    "a fence": f"```json\n{FORM}\n```",
    "a capital fence": f"```JSON\n{FORM}\n```",
    "a fence on one line": f"```json {FORM} ```",
    "a fence without a name": f"```\n{FORM}\n```",
    "an unclosed fence": f"```json\n{FORM}",
    "a mark": f"\ufeff{FORM}",
    "braces in prose": f"Of {{warm}} and {{}} and {{cold}}: {FORM}",
    "another object before": f'Given {{"topic": "bread"}}: {FORM}',
    "twice the same": f"{FORM}\n\n```json\n{FORM}\n```",
    "a list": f"[{FORM}]",
    "quotes": f"'{FORM}'",
}


def form_answer(text: str) -> Answer:
    return Answer(text=text, stop="end", usage=Usage(input=1, output=1), id="a")


@pytest.mark.parametrize("case", FORMS)
def test_the_one_object_of_an_answer_is_found(case: str) -> None:
    assert read_form(form_answer(FORMS[case]), Score) == Score(why="It is {warm}.", score=5)


@pytest.mark.parametrize(
    "text",
    [
        "I would say 5.",
        "",
        '{"why": "warm", "score": ',
        '{"why": "warm"}',
        '{"why": "\\ud83d", "score": 5}',
        f'{FORM} or rather {{"why": "cold", "score": 1}}',
        '{"a":' * 5000,
        "{" * 5000,
    ],
)
def test_an_answer_without_one_object_is_malformed(text: str) -> None:
    outcome = read_form(form_answer(text), Score)
    assert isinstance(outcome, Unanswered)
    assert outcome.reason.startswith("malformed")
