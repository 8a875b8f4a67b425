"""Scale's two own text formats: the platform's `/v4/completions`, and LLM Engine's version 1."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.core.messages import Message, TextPart
from fanout.core.schema import Query, TokenLogprob
from fanout.providers.scale import Scale
from fanout.providers.scale_llm_engine import DEFAULT_MAX_TOKENS, LlmEngine
from fanout.providers.transport.http import HttpProvider
from tests.support.provider_calls import (
    KEY,
    build_adapter,
    build_call,
    collect_stream,
    corrupt,
    cut_at,
    encode_body,
    expect_answer,
    expect_failure,
    open_session,
    try_decode,
    try_stream,
)
from tests.support.server import Server
from tests.support.upstream.canned import answer_in_pieces, answer_with, serve_adapter

UP = build_adapter(Scale, "https://api.egp.scale.com")
CALL = build_call(UP, "gpt-6-luna", prompt="Once")
ENGINE = build_adapter(LlmEngine, "https://api.spellbook.scale.com/llm-engine")
PROMPT_CALL = build_call(ENGINE, "llama-2-7b", prompt="Once", max_tokens=9, temperature=0.5)
BASIC = b64encode(f"{KEY}:".encode()).decode()


def encode_events(*items: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in items)


def build_packet(text: str, finish: Any = None, usage: Any = None) -> dict[str, Any]:
    """An event of the platform's, or its whole answer. Source: scale-gp 0.1.0a62 `types/completions_response.py`"""
    return {"completion": {"text": text, "finish_reason": finish, "response_metadata": None}, "token_usage": usage}


USAGE = {"prompt": 3, "completion": 2, "total": 5}
STREAM = encode_events(build_packet("On"), build_packet("ce ☀"), build_packet("", "stop", USAGE))


def build_token(text: str, number: int, *, finished: bool = False) -> dict[str, Any]:
    """An event of LLM Engine's. Source: scale-llm-engine 0.0.0b45 `data_types/completion.py`"""
    output = {"text": text, "finished": finished, "num_prompt_tokens": 3, "num_completion_tokens": number, "token": None}
    return {"request_id": "r-1", "output": output, "error": None}


TOKENS = encode_events(build_token("On", 1), build_token("ce ☀", 2, finished=True))
OUTPUT = {"text": "Once ☀", "num_prompt_tokens": 3, "num_completion_tokens": 2, "tokens": None}


class TestPlatform:
    """`/v4/completions`."""

    def test_parameters_stand_in_their_own_object(self) -> None:
        """Two of them in camelCase."""
        params: dict[str, Any] = {"max_tokens": 9, "temperature": 1.5, "top_p": 0.5, "top_k": 5, "stop": ("a",), "seed": 1}
        call = build_call(UP, "gpt-6-luna", prompt="Once", presence_penalty=0.1, frequency_penalty=0.2, n=2, **params)
        assert encode_body(UP, call, stream=True) == {
            "model": "gpt-6-luna",
            "prompt": "Once",
            "stream": True,
            "model_parameters": {
                "max_tokens": 9,
                "temperature": 1,
                "topP": 0.5,
                "topK": 5,
                "stop_sequences": ["a"],
                "presence_penalty": 0.1,
                "frequency_penalty": 0.2,
            },
        }
        assert (call.fitted.adjusted, set(call.fitted.ignored)) == ({"temperature": (1.5, 1)}, {"seed", "n"})
        assert encode_body(UP, CALL) == {"model": "gpt-6-luna", "prompt": "Once", "stream": False}

    def test_the_key_and_the_account_are_headers(self) -> None:
        up = build_adapter(Scale, "https://api.egp.scale.com/v4", headers={"x-selected-account-id": "acct-0123"})
        request = up.encode(build_call(up, prompt="Once"), stream=False)
        assert str(request.url) == "https://api.egp.scale.com/v4/completions"
        assert (request.headers["x-api-key"], request.headers["x-selected-account-id"]) == (KEY, "acct-0123")
        assert "Authorization" not in request.headers
        assert up.encode(build_call(up, prompt="Once", own_key="mine-0123"), stream=False).headers["x-api-key"] == "mine-0123"

    def test_a_whole_answer_is_read(self) -> None:
        completion = expect_answer(try_decode(UP, CALL, 200, build_packet("Once ☀", "stop", USAGE), x_request_id="r-1"))
        (choice,), usage = completion.choices, completion.usage
        assert (choice.message.text, choice.finish_reason, choice.native_finish_reason) == ("Once ☀", "stop", None)
        assert usage
        assert (usage.input_tokens, usage.output_tokens, completion.request_id) == (3, 2, "r-1")

    def test_a_stream_equals_the_whole_answer(self) -> None:
        """It has no `[DONE]`."""
        assert expect_answer(try_stream(UP, CALL, [STREAM])) == expect_answer(
            try_decode(UP, CALL, 200, build_packet("Once ☀", "stop", USAGE))
        )

    @pytest.mark.parametrize(
        ("word", "reason", "native"),
        [
            ("stop", "stop", None),
            ("max_tokens", None, "max_tokens"),
            ("eos", "stop", "eos"),
            (None, None, None),
            ("", None, None),
        ],
    )
    def test_a_finish_reason_is_a_free_word(self, word: Any, reason: Any, native: Any) -> None:
        """Behind it, or behind the usage alone, a stream is whole."""
        for result in (
            try_decode(UP, CALL, 200, build_packet("Hi", word, USAGE)),
            try_stream(UP, CALL, [encode_events(build_packet("Hi"), build_packet("", word, USAGE))]),
        ):
            choice = expect_answer(result).choices[0]
            assert (choice.finish_reason, choice.native_finish_reason) == (reason, native)

    @pytest.mark.parametrize(
        "stream", [encode_events(build_packet("On")), STREAM[: len(encode_events(build_packet("On"))) + 9], b""]
    )
    def test_a_cut_stream_is_a_failure(self, stream: bytes) -> None:
        assert expect_failure(try_stream(UP, CALL, [stream])).code == "stream_truncated"

    @pytest.mark.parametrize(
        "detail",
        ["No such model", {"detail": "No such model"}, [{"loc": ["body", "model"], "msg": "No such model", "type": "x"}]],
    )
    def test_fastapis_errors_are_read(self, detail: Any) -> None:
        """With a status, in a body of status 200, and in a stream, named or not."""
        body = {"detail": detail}
        failure = expect_failure(try_decode(UP, CALL, 422, body))
        assert failure.kind == "bad_request"
        assert failure.message.endswith("No such model")
        assert expect_failure(try_decode(UP, CALL, 200, body)).message.endswith("No such model")
        named = encode_events(build_packet("On")) + b"event: error\n" + encode_events(body)
        for stream in (named, encode_events(build_packet("On"), body)):
            broken = expect_failure(try_stream(UP, CALL, [stream]))
            assert (broken.message.endswith("No such model"), broken.partial) == (True, "On")


class TestEngine:
    """`/v1/llm/completions-sync` and `-stream`."""

    def test_a_request_is_converted(self) -> None:
        params: dict[str, Any] = {"top_p": 0.5, "top_k": 5, "stop": ("a",), "presence_penalty": -1, "logprobs": 3, "seed": 1}
        call = build_call(ENGINE, "my model", prompt="Once", max_tokens=9, temperature=0.5, frequency_penalty=0.2, **params)
        request = ENGINE.encode(call, stream=False)
        assert str(request.url) == (
            "https://api.spellbook.scale.com/llm-engine/v1/llm/completions-sync?model_endpoint_name=my+model"
        )
        assert str(ENGINE.encode(call, stream=True).url).startswith(
            "https://api.spellbook.scale.com/llm-engine/v1/llm/completions-stream?"
        )
        assert json.loads(b"".join(request.pieces)) == {
            "prompt": "Once",
            "max_new_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.5,
            "top_k": 5,
            "stop_sequences": ["a"],
            "presence_penalty": 0,
            "frequency_penalty": 0.2,
            "return_token_log_probs": True,
        }
        assert (call.fitted.ignored, call.fitted.adjusted) == (("seed",), {"presence_penalty": (-1, 0)})

    def test_required_parameters_are_added_and_reported(self) -> None:
        call = build_call(ENGINE, prompt="Once")
        assert encode_body(ENGINE, call) == {"prompt": "Once", "max_new_tokens": DEFAULT_MAX_TOKENS, "temperature": 1.0}
        assert call.fitted.adjusted == {"max_tokens": (None, DEFAULT_MAX_TOKENS), "temperature": (None, 1.0)}

    def test_the_key_is_a_user_without_a_password(self) -> None:
        headers = ENGINE.encode(PROMPT_CALL, stream=False).headers
        assert (headers["Authorization"], headers["x-api-key"]) == (f"Basic {BASIC}", KEY)
        own = ENGINE.encode(build_call(ENGINE, prompt="Once", own_key="mine"), stream=False).headers
        assert (own["Authorization"], own["x-api-key"]) == ("Basic bWluZTo=", "mine")
        assert ENGINE.encode(PROMPT_CALL, stream=False).headers["x-api-key"] == KEY

    def test_a_failure_shows_the_key_in_no_form(self) -> None:
        failure = expect_failure(try_decode(ENGINE, PROMPT_CALL, 400, {"detail": f"bad {KEY} or {BASIC}"}))
        assert failure.message == "bad [key] or [key]"

    def test_a_whole_answer_has_no_finish_reason(self) -> None:
        """None is made up for it."""
        completion = expect_answer(try_decode(ENGINE, PROMPT_CALL, 200, {"request_id": "r-1", "output": OUTPUT}))
        (choice,), usage = completion.choices, completion.usage
        assert (choice.message.text, choice.finish_reason, choice.native_finish_reason) == ("Once ☀", None, None)
        assert usage
        assert (usage.input_tokens, usage.output_tokens, completion.request_id) == (3, 2, "r-1")

    def test_a_stream_equals_the_whole_answer(self) -> None:
        assert expect_answer(try_stream(ENGINE, PROMPT_CALL, [TOKENS])) == expect_answer(
            try_decode(ENGINE, PROMPT_CALL, 200, {"request_id": "r-1", "output": OUTPUT})
        )

    def test_logprobs_are_read(self) -> None:
        """Of the tokens alone: there are no alternatives."""
        one = {"token": "Hi", "log_prob": -0.5}
        body = {"request_id": "r-1", "output": {**OUTPUT, "text": "Hi", "tokens": [one]}}
        event = build_token("Hi", 1, finished=True)
        event["output"]["token"] = one
        for result in (try_decode(ENGINE, PROMPT_CALL, 200, body), try_stream(ENGINE, PROMPT_CALL, [encode_events(event)])):
            assert expect_answer(result).choices[0].logprobs == (TokenLogprob("Hi", -0.5),)

    def test_counts_that_are_missing_are_unknown(self) -> None:
        output = {"text": "Hi", "num_prompt_tokens": None, "num_completion_tokens": 1}
        usage = expect_answer(try_decode(ENGINE, PROMPT_CALL, 200, {"request_id": "r-1", "output": output})).usage
        assert usage
        assert (usage.input_tokens, usage.output_tokens) == (None, 1)

    @pytest.mark.parametrize(("status", "kind"), [(400, "bad_request"), (429, "rate_limit"), (500, "server")])
    def test_an_error_in_a_stream_has_a_status(self, status: int, kind: str) -> None:
        error = {"status_code": status, "content": {"error": "Too long", "timestamp": "2026"}}
        stream = encode_events(build_token("On", 1), {"request_id": "r-1", "output": None, "error": error})
        failure = expect_failure(try_stream(ENGINE, PROMPT_CALL, [stream]))
        assert (failure.kind, failure.status, failure.partial, failure.request_id) == (kind, status, "On", "r-1")
        if status < 500:
            assert failure.message == "Too long"

    def test_a_cut_stream_is_a_failure(self) -> None:
        assert expect_failure(try_stream(ENGINE, PROMPT_CALL, [encode_events(build_token("On", 1))])).code == "stream_truncated"


BOTH = pytest.mark.parametrize(
    ("up", "call", "stream"), [(UP, CALL, STREAM), (ENGINE, PROMPT_CALL, TOKENS)], ids=["v4", "engine"]
)


@BOTH
def test_a_conversation_is_refused(up: HttpProvider, call: Any, stream: bytes) -> None:
    """One message of the user's is; no template is invented for more."""
    one = replace(call, query=Query(messages=(Message("user", (TextPart("On"), TextPart("ce"))),)))
    assert encode_body(up, one)["prompt"] == "Once"
    for query in (Query(messages=(Message("system", "x"), Message("user", "y"))), Query(prompt_tokens=(1,))):
        with pytest.raises(ProviderError) as caught:
            up.encode(replace(call, query=query), stream=False)
        assert caught.value.failure.kind == "unsupported"


@BOTH
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"output": 5}', b'{"completion": 5}'])
def test_a_body_that_is_no_answer_is_a_failure(up: HttpProvider, call: Any, stream: bytes, body: bytes) -> None:
    assert expect_failure(try_decode(up, call, 200, body)).kind == "malformed"


@BOTH
def test_without_an_address_there_is_no_call(up: HttpProvider, call: Any, stream: bytes) -> None:
    with pytest.raises(ProviderError, match="no address"):
        build_adapter(type(up), None).encode(call, stream=False)


@BOTH
@given(data=st.data())
def test_the_cuts_of_a_stream_do_not_matter(up: HttpProvider, call: Any, stream: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(stream))))
    assert try_stream(up, call, cut_at(stream, places)) == try_stream(up, call, [stream])


@BOTH
@given(data=st.data())
def test_a_corrupt_stream_is_an_answer_or_a_failure(up: HttpProvider, call: Any, stream: bytes, data: st.DataObject) -> None:
    changes = data.draw(st.lists(st.tuples(st.integers(0, len(stream)), st.integers(0, 255))))
    try_stream(up, call, cut_at(corrupt(stream, changes), data.draw(st.lists(st.integers(0, len(stream))))))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("completion", "text", "finish_reason", "token_usage", "prompt", "output", "finished", "token", "tokens"),
                    *("error", "content", "detail", "status_code", "num_completion_tokens", "request_id", "log_prob"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@BOTH
@given(items=st.lists(JSON, max_size=3), status=st.sampled_from([200, 400, 500]))
def test_anything_is_an_answer_or_a_failure(up: HttpProvider, call: Any, stream: bytes, items: list[Any], status: int) -> None:
    try_stream(up, call, [encode_events(*items)])
    try_decode(up, call, status, items[0] if items else None)


@BOTH
async def test_calls_work_over_the_network(up: HttpProvider, call: Any, stream: bytes) -> None:
    body = build_packet("Once ☀", "stop", USAGE) if up is UP else {"request_id": "r-1", "output": OUTPUT}
    for answer in (answer_with(body), answer_in_pieces(cut_at(stream, range(0, 999, 13)), "text/event-stream")):
        async with serve_adapter(type(up), answer) as (provider, served):
            one = replace(call, fitted=provider.fit(call.target, call.query))
            completion = (await collect_stream(provider, one))[1]
        assert completion.choices[0].message.text == "Once ☀"
        assert served.requests[0][1]["x-api-key"] == KEY


async def test_fanouts_own_scale_dialect_is_understood(server: Server) -> None:
    """A Fanout behind a Fanout: answers, streams and refusals."""
    async with open_session() as session:
        up = build_adapter(Scale, server.url, session=session)
        call = build_call(up, "up/say-hello", prompt="Once", max_tokens=5)
        for completion in (await up.complete(call), (await collect_stream(up, call))[1]):
            assert completion.choices[0].message.text == "hello"
            assert completion.choices[0].finish_reason == "stop"
            assert completion.usage
            assert (completion.usage.input_tokens, completion.usage.output_tokens) == (10, 4)
        with pytest.raises(ProviderError) as caught:
            await collect_stream(up, build_call(up, "no-such-model", prompt="Once"))
        assert caught.value.failure.kind == "not_found"
