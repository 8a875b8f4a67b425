"""Common behaviour of Anthropic's, Google's and Cohere's formats: streams cut anywhere, keys, conversations, tools."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.config.providers_file import ParametersRow, ProviderRow
from fanout.core.errors import ConfigError, ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Completion, Failure, Query, RequestScope
from fanout.providers import ADAPTERS, create
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.gemini.vertex import Vertex
from fanout.providers.mapping import answer_reader
from fanout.providers.transport import request
from fanout.providers.transport.http import HttpProvider
from fanout.providers.transport.request import SharedTexts, write_body
from tests.support.conversations import IMAGE_URL, WEATHER
from tests.support.provider_calls import (
    KEY,
    build_adapter,
    build_call,
    collect_stream,
    corrupt,
    cut_at,
    encode_body,
    expect_failure,
    try_decode,
    try_stream,
)
from tests.support.upstream.canned import answer_in_pieces, answer_with, serve_adapter
from tests.support.vendor_streams import CLAUDE, CLAUDE_ANSWER, COHERE, COHERE_ANSWER, GEMINI, GEMINI_ANSWER

ANTHROPIC, GOOGLE, CO = build_adapter(Anthropic), build_adapter(Gemini), build_adapter(Cohere)
ALL = [pytest.param(provider, id=type(provider).__name__.lower()) for provider in (ANTHROPIC, GOOGLE, CO)]
STREAMS: list[Any] = [
    pytest.param(ANTHROPIC, CLAUDE, CLAUDE_ANSWER, id="anthropic"),
    pytest.param(GOOGLE, GEMINI, GEMINI_ANSWER, id="gemini"),
    pytest.param(CO, COHERE, COHERE_ANSWER, id="cohere"),
]
LONG = "data:image/png;base64," + "AAAA" * 20 + "AA"
PLACES = st.lists(st.integers(0, 10_000), max_size=40)


def describe(completion: Completion) -> dict[str, Any]:
    """Return an answer in the form in which the vendor's client was recorded."""
    (choice,) = completion.choices
    message, usage = choice.message, completion.usage
    assert usage
    calls = [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message.tool_calls]
    counts = (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens)
    return {
        "text": message.text,
        "reasoning": message.reasoning,
        "calls": calls,
        "native": choice.native_finish_reason,
        "tokens": (usage.input_tokens, usage.output_tokens, *counts),
    }


@pytest.mark.parametrize(("provider", "stream", "expected"), STREAMS)
def test_a_stream_is_read_as_the_vendors_client_reads_it(
    provider: HttpProvider, stream: bytes, expected: Mapping[str, Any]
) -> None:
    """Text, thoughts, tool calls and tokens; its deltas amount to the same as its end."""
    outcome = try_stream(provider, build_call(provider), [stream])
    assert not isinstance(outcome, Failure)
    deltas, completion = outcome
    assert describe(completion) == expected
    assert completion.choices[0].finish_reason == "tool_calls"
    assert "".join(delta.text for delta in deltas) == expected["text"]
    assert "".join(delta.reasoning or "" for delta in deltas) == expected["reasoning"]
    pieces = [call for delta in deltas for call in delta.tool_calls]
    for number, (_, name, arguments) in enumerate(expected["calls"]):
        mine = [piece["function"] for piece in pieces if piece["index"] == number]
        assert "".join(piece.get("name", "") for piece in mine) == name
        assert json.loads("".join(piece.get("arguments", "") for piece in mine)) == arguments


@pytest.mark.parametrize(("provider", "stream", "expected"), STREAMS)
@given(places=PLACES)
def test_the_cuts_of_a_stream_do_not_matter(provider: HttpProvider, stream: bytes, expected: Any, places: list[int]) -> None:
    """Not within an event, a line ending or a character; text is only grouped otherwise."""
    assert try_stream(provider, build_call(provider), cut_at(stream, places)) == try_stream(
        provider, build_call(provider), [stream]
    )


@pytest.mark.parametrize(("provider", "stream", "expected"), STREAMS)
@settings(max_examples=150)
@given(
    places=PLACES,
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=20),
    length=st.integers(0, 10_000),
)
def test_a_corrupt_stream_is_an_answer_or_a_failure(
    provider: HttpProvider, stream: bytes, expected: Any, places: list[int], changes: list[tuple[int, int]], length: int
) -> None:
    """Another answer or a failure, the same however it is cut; never another exception."""
    body = corrupt(stream, changes)[: length or None]
    outcome = try_stream(provider, build_call(provider), [body])
    again = try_stream(provider, build_call(provider), cut_at(body, places))
    if isinstance(outcome, Failure):
        assert isinstance(again, Failure)
        assert (again.kind, again.code, again.message) == (outcome.kind, outcome.code, outcome.message)
    else:
        assert not isinstance(again, Failure)
        assert again[1] == outcome[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def replace_part(value: Any, odd: Any, place: list[int]) -> Any:
    """`value` with the place-th of its parts replaced."""
    place[0] -= 1
    if place[0] == -1:
        return odd
    if isinstance(value, dict):
        return {name: replace_part(item, odd, place) for name, item in value.items()}
    return [replace_part(item, odd, place) for item in value] if isinstance(value, list) else value


def parse_events(stream: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(("provider", "stream", "expected"), STREAMS)
@settings(max_examples=150)
@given(odd=JSON, place=st.integers(0, 250))
def test_a_field_of_any_type_gives_an_answer_or_a_failure(
    provider: HttpProvider, stream: bytes, expected: Any, odd: Any, place: int
) -> None:
    """Of a stream as of a whole answer, a refusal's too: what is of another type has no meaning, and breaks nothing."""
    events = replace_part(parse_events(stream), odd, [place])
    if isinstance(events, list):
        try_stream(provider, build_call(provider), [f"data: {json.dumps(event)}\n\n".encode() for event in events])
    for event in events if isinstance(events, list) else [events]:
        for status in (200, 400, 429):
            try_decode(provider, build_call(provider), status, event)


@pytest.mark.parametrize(("provider", "stream", "expected"), STREAMS)
def test_a_stream_without_its_end_is_a_failure_with_its_partial_text(
    provider: HttpProvider, stream: bytes, expected: Mapping[str, Any]
) -> None:
    """Wherever it was cut before the finish reason came."""
    ends = stream.rfind(b"event: message_delta" if provider is ANTHROPIC else b"event: message-end")
    body = stream[:ends] if ends > 0 else stream[: stream.rfind(b"data:")]
    for length in (*range(0, len(body), 7), len(body)):
        failure = expect_failure(try_stream(provider, build_call(provider), [body[:length]]))
        assert (failure.kind, failure.code) == ("network", "stream_truncated")
        assert expected["text"].startswith(failure.partial or "")
        assert length < len(body) or failure.partial == expected["text"]


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b'{"a": ', "invalid_json"),
        (b"<html>hello</html>", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"[1, 2]", "unexpected_shape"),
        (b'"text"', "unexpected_shape"),
        (b"{}", "no_choices"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_body_that_is_no_answer_is_a_failure(provider: HttpProvider, body: bytes, code: str) -> None:
    """A proxy's page, half an answer, another thing altogether."""
    failure = expect_failure(try_decode(provider, build_call(provider), 200, body))
    assert (failure.kind, failure.code) == ("malformed", code)


@pytest.mark.parametrize("provider", ALL)
def test_an_answer_of_very_many_values_is_not_parsed(provider: HttpProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes each, they take a hundred times as much memory; signs within a text are none."""
    monkeypatch.setattr(answer_reader, "MAX_ANSWER_VALUES", 1_000)
    many, few = b'{"x":[' + b"[]," * 1_000 + b"0]}", b'{"x":"' + b"[]," * 1_000 + b'"}'
    failures = [
        expect_failure(try_decode(provider, build_call(provider), 200, many)),
        expect_failure(try_stream(provider, build_call(provider), [b"data: " + many + b"\n\n"])),
    ]
    assert {(failure.kind, failure.code) for failure in failures} == {("malformed", "answer_too_large")}
    assert expect_failure(try_decode(provider, build_call(provider), 200, few)).code == "no_choices"


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"data: {nope}\n\n", "invalid_json"),
        (b"data: 7\n\n", "unexpected_shape"),
        (b"data: [DONE]\n\n", "no_choices"),
        (b"", "stream_truncated"),
        (b": ping\n\ndata:\n\n", "stream_truncated"),
        (b"data: " + b"x" * (2**24 + 5000), "event_too_large"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_body_that_is_no_stream_is_a_failure(provider: HttpProvider, stream: bytes, code: str) -> None:
    failure = expect_failure(try_stream(provider, build_call(provider), [stream]))
    assert failure.code == code


@pytest.mark.parametrize(("provider", "stream", "expected"), STREAMS)
def test_an_error_is_raised_after_the_deltas_before_it(provider: HttpProvider, stream: bytes, expected: Any) -> None:
    """An error that arrives together with deltas is raised at the next step, even from a last, unended event."""
    before = stream[: stream.rindex(b"data:")]
    events = provider.open_reader(build_call(provider), {})
    assert events.feed(before + b'data: {"error": {"message": "no", "code": 400}}\n\n')
    for step in (events.flush, events.close):
        with pytest.raises(ProviderError, match="no"):
            step()
    unended = try_stream(provider, build_call(provider), [before, b'data: {"error": {"message": "no", "code": 400}}'])
    assert isinstance(unended, Failure)
    assert (unended.message, unended.partial) == ("no", expected["text"])


@pytest.mark.parametrize(("make", "stream"), [(Anthropic, CLAUDE), (Gemini, GEMINI), (Cohere, COHERE)])
def test_a_stream_beyond_the_limit_is_a_failure(make: type[HttpProvider], stream: bytes) -> None:
    """The sum of its deltas has the same limit as a whole answer."""
    small = build_adapter(make, max_answer_bytes=8)
    failure = expect_failure(try_stream(small, build_call(small), cut_at(stream, range(0, len(stream), 50))))
    assert failure.code == "answer_too_large"


@pytest.mark.parametrize(
    ("make", "name", "prefix"),
    [(Anthropic, "x-api-key", ""), (Gemini, "x-goog-api-key", ""), (Cohere, "Authorization", "Bearer ")],
)
def test_the_key_is_sent_in_the_vendors_own_header(make: type[HttpProvider], name: str, prefix: str) -> None:
    """A caller's own key replaces it; a row's header of that name remains; without a key none is sent."""
    provider = build_adapter(make)
    assert provider.encode(build_call(provider), stream=False).headers[name] == prefix + KEY
    assert provider.encode(build_call(provider, own_key="mine"), stream=False).headers[name] == prefix + "mine"
    assert provider.encode(build_call(provider), stream=False).headers[name] == prefix + KEY
    assert name not in build_adapter(make, key=None).encode(build_call(provider), stream=False).headers
    own = build_adapter(make, headers={name: "of the row"})
    assert own.encode(build_call(own), stream=False).headers[name] == "of the row"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_is_found_by_its_name(adapter: str) -> None:
    settings = replace(build_adapter(Anthropic).settings, row=ProviderRow(adapter=adapter), base_url="http://127.0.0.1:9")
    session: Any = None
    module, _, name = ADAPTERS[adapter].partition(":")
    assert type(create(settings, session)).__module__ == module
    assert name in (type(create(settings, session)).__name__, "create")


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != "ngram"])
def test_models_of_one_request_share_the_json_of_a_long_text(adapter: str) -> None:
    """Also of different formats: it is written once, and held once."""
    session: Any = None
    providers: list[HttpProvider] = []
    for name in (adapter, "anthropic"):
        settings = replace(build_adapter(Anthropic).settings, row=ProviderRow(adapter=name), base_url="http://127.0.0.1:9")
        provider = create(settings, session)
        assert isinstance(provider, HttpProvider)
        providers.append(provider)
    text, scope = "w" * 300_000, RequestScope()
    query = build_call(providers[1], messages=(Message("user", text),)).query
    texts: list[list[bytes]] = []
    for provider, model in ((providers[0], "m"), (providers[0], "n"), (providers[1], "m")):
        call = replace(build_call(provider, model), query=query, scope=scope)
        pieces = provider.encode(call, stream=False).pieces
        assert b"".join(pieces).count(b"w" * 300_000) == 1
        texts.append([piece for piece in pieces if len(piece) > 10_000])
    for others in texts[1:]:
        assert all(piece is other for piece, other in zip(texts[0], others, strict=True))


def test_the_json_of_texts_goes_with_the_last_call_of_its_request_and_other_texts_at_once() -> None:
    provider = build_adapter(Anthropic)
    call = build_call(provider, messages=(Message("user", "w" * 300_000),))
    shared = request._TEXTS[call.scope] = SharedTexts()
    body = write_body({"question": (call.query.messages or ())[0].content, "own": "v" * 300_000}, call)
    assert len(shared._written) == 1
    assert b"".join([body] if isinstance(body, bytes) else body).count(b"v") == 300_000
    gone = weakref.ref(shared)
    del shared, call
    assert gone() is None


@pytest.mark.parametrize("make", [Anthropic, Gemini, Vertex, Cohere])
def test_a_provider_without_an_address_can_be_made_but_not_called(make: type[HttpProvider]) -> None:
    provider = build_adapter(make, None)
    with pytest.raises(ProviderError) as caught:
        provider.encode(build_call(provider), stream=False)
    assert caught.value.failure.kind == "not_configured"
    with pytest.raises(ConfigError):
        build_adapter(make, "http://user:pw@host")


@pytest.mark.parametrize(
    ("make", "base_url", "url"),
    [
        (Anthropic, "https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        (Anthropic, "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        (Anthropic, "https://gateway.test/v1/me/anthropic", "https://gateway.test/v1/me/anthropic/v1/messages"),
        (Gemini, "https://google.test", "https://google.test/v1beta/models/m:generateContent"),
        (Gemini, "https://google.test/v1", "https://google.test/v1/models/m:generateContent"),
        (Cohere, "https://api.cohere.com", "https://api.cohere.com/v2/chat"),
        (Cohere, "https://api.cohere.com/v2", "https://api.cohere.com/v2/chat"),
    ],
)
def test_the_base_address_may_name_the_version_or_not(make: type[HttpProvider], base_url: str, url: str) -> None:
    """As the vendors' own variables do and do not."""
    provider = build_adapter(make, base_url)
    assert str(provider.encode(build_call(provider), stream=False).url) == url


@pytest.mark.parametrize("provider", ALL)
def test_a_refused_key_and_a_missing_permission_are_told_apart(provider: HttpProvider) -> None:
    """In our words, with the vendor's own behind them but without the key."""
    for status, body in (
        (401, {"type": "error", "error": {"type": "authentication_error", "message": f"invalid key {KEY}"}}),
        (403, {"message": f"no {KEY}"}),
    ):
        failure = expect_failure(try_decode(provider, build_call(provider), status, body))
        said = (
            "refused the API key (HTTP 401): invalid key [key]"
            if status == 401
            else "does not permit this call (HTTP 403): no [key]"
        )
        assert (failure.kind, failure.message) == ("auth", f"`up` {said}")


@pytest.mark.parametrize("provider", ALL)
def test_a_refusal_shows_no_secret(provider: HttpProvider) -> None:
    """Neither ours nor the caller's own, nor where the provider is."""
    text = f"bad {KEY} and my-own-key at https://10.0.0.1/x"
    failure = expect_failure(
        try_decode(provider, build_call(provider, own_key="my-own-key"), 400, {"error": {"message": text}})
    )
    assert failure.message == "bad [key] and [key] at [address]"


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize("body", [b"<html>502</html>", b"upstream connect error", b"", b'{"detail": "no"}'], ids=repr)
def test_a_refusal_by_a_gateway_is_read(provider: HttpProvider, body: bytes) -> None:
    failure = expect_failure(try_decode(provider, build_call(provider), 502, body))
    assert (failure.kind, failure.message) == ("server", "`up` had an internal error (HTTP 502)")


@pytest.mark.parametrize("provider", ALL)
def test_a_prompt_becomes_a_message_of_the_user(provider: HttpProvider) -> None:
    """On a row that calls the model a text model; token ids mean something to one tokenizer only."""
    chat = build_call(provider, messages=(Message("user", "Once"),))
    assert encode_body(provider, build_call(provider, prompt="Once")) == encode_body(provider, chat)
    call = build_call(provider)
    with pytest.raises(ProviderError) as caught:
        provider.encode(type(call)(0, 0, 0, call.target, Query(prompt_tokens=(1, 2)), fitted=call.fitted), stream=False)
    assert caught.value.failure.kind == "unsupported"


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Message("user", (OtherPart({"type": "input_audio", "input_audio": {}}),)), "unsupported"),
        (Message("system", (ImagePart(IMAGE_URL),)), "unsupported"),
        (Message("function", "Noon", {"name": "now"}), "unsupported"),
        (Message("assistant", None, {"function_call": {"name": "now", "arguments": "{}"}}), "unsupported"),
        (Message("assistant", None, {"tool_calls": [{"id": "1", "type": "custom", "custom": {}}]}), "unsupported"),
        (Message("assistant", None, {"tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}), "unsupported"),
        (Message("assistant", None, {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}), "unsupported"),
        (Message("tool", "Noon"), "unsupported"),
    ],
    ids=lambda value: value.role if isinstance(value, Message) else value,
)
def test_a_message_the_format_cannot_express_is_refused(provider: HttpProvider, message: Message, kind: str) -> None:
    """Leaving it out would ask another question than the other models get."""
    with pytest.raises(ProviderError) as caught:
        provider.encode(build_call(provider, messages=(message,)), stream=False)
    assert caught.value.failure.kind == kind
    assert caught.value.failure.param == "messages"


@pytest.mark.parametrize("provider", [ANTHROPIC, GOOGLE])
@pytest.mark.parametrize(
    "url", ["data:image/png;base64,", "data:image/png;base64,%%%", "data:image/png;base64,abc", "data:x", LONG]
)
def test_a_broken_image_is_refused(provider: HttpProvider, url: str) -> None:
    with pytest.raises(ProviderError) as caught:
        provider.encode(build_call(provider, messages=(Message("user", (ImagePart(url),)),)), stream=False)
    assert (caught.value.failure.kind, caught.value.failure.code) == ("bad_request", "invalid_image")


def test_omitted_parts_of_a_conversation_are_reported() -> None:
    """Names of participants; how closely to look at an image, unless that is up to the model anyway."""
    low = (Message("user", (TextPart("?"), ImagePart(IMAGE_URL, "low"))), Message("user", "Hi", {"name": "Ann"}))
    auto = (Message("user", (TextPart("?"), ImagePart(IMAGE_URL, "auto"))),)
    assert build_call(ANTHROPIC, "claude-opus-5", messages=low).fitted.ignored == ("image_url.detail", "messages.name")
    assert build_call(GOOGLE, messages=low).fitted.ignored == ("image_url.detail", "messages.name")
    assert build_call(CO, messages=low).fitted.ignored == ("messages.name",)
    assert build_call(GOOGLE, messages=auto).fitted.ignored == ()


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("passthrough", "ignored"),
    [
        ({"tools": [{"type": "web_search"}]}, ("tools",)),
        ({"tools": [WEATHER, {"type": "custom", "custom": {}}], "tool_choice": "auto"}, ("tool_choice", "tools")),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, ("tool_choice", "tools")),
        ({"tools": [WEATHER], "tool_choice": "any"}, ("tool_choice", "tools")),
        ({"tool_choice": "auto"}, ("tool_choice",)),
        ({"tools": []}, ("tools",)),
        ({"min_p": 0.1, "thinking": {}}, ("min_p", "thinking")),
        ({"response_format": {"type": "grammar"}}, ("response_format",)),
        ({"response_format": "json"}, ("response_format",)),
    ],
    ids=str,
)
def test_other_fields_are_reported(provider: HttpProvider, passthrough: dict[str, Any], ignored: tuple[str, ...]) -> None:
    """Fields that the format cannot express are reported; the vendor's own are sent."""
    call = build_call(provider, passthrough=passthrough)
    assert call.fitted.ignored == ignored
    assert not {"tools", "toolConfig", "tool_choice"} & set(encode_body(provider, call))


@pytest.mark.parametrize("provider", ALL)
def test_a_row_can_drop_tools(provider: HttpProvider) -> None:
    """A model that has none."""
    without = build_adapter(type(provider), parameters=ParametersRow(drop=("tools", "temperature")))
    assert build_call(without, temperature=0.5, passthrough={"tools": [WEATHER]}).fitted.ignored == ("temperature", "tools")


@pytest.mark.parametrize(
    ("make", "stream", "answer"),
    [
        (Anthropic, CLAUDE, {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}),
        (Gemini, GEMINI, {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}),
        (Cohere, COHERE, {"message": {"content": [{"type": "text", "text": "Hi"}]}, "finish_reason": "COMPLETE"}),
    ],
)
async def test_calls_work_over_the_network(make: type[HttpProvider], stream: bytes, answer: Any) -> None:
    """Whole, in pieces, and whole in spite of a request for pieces."""
    async with serve_adapter(make, answer_with(answer)) as (provider, _):
        assert (await provider.complete(build_call(provider))).choices[0].message.text == "Hi"
        deltas, completion = await collect_stream(provider, build_call(provider))
        assert [delta.text for delta in deltas] == ["Hi"]
        assert completion.choices[0].finish_reason == "stop"
    async with serve_adapter(make, answer_in_pieces(cut_at(stream, range(0, len(stream), 99)), "text/event-stream")) as (
        provider,
        _,
    ):
        deltas, completion = await collect_stream(provider, build_call(provider))
        assert "".join(delta.text for delta in deltas) == completion.choices[0].message.text
        assert completion.choices[0].finish_reason == "tool_calls"
