"""Requests and whole answers of Bedrock, checked against botocore's model of the service."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Call, Completion, Query
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.bedrock.frames import BROKEN_OFF, FINISH
from fanout.providers.parameter_tables import find_converse_family
from tests.support.bedrock_format import (
    CALL,
    EVENT_STREAM,
    HOST,
    METADATA,
    MODEL,
    START,
    STREAM,
    UP,
    build_answer,
    encode_delta,
    encode_event,
    import_botocore,
)
from tests.support.conversations import PNG
from tests.support.provider_calls import (
    KEY,
    build_adapter,
    build_call,
    collect_stream,
    encode_body,
    expect_answer,
    expect_failure,
    open_session,
    try_decode,
    try_stream,
)
from tests.support.upstream.canned import answer_in_pieces, answer_with, serve_adapter, serve_answers

IMAGE = ImagePart("data:image/png;base64," + base64.b64encode(PNG).decode())


def build_talk(*messages: Message, provider: Bedrock = UP, model: str = MODEL, **params: Any) -> Call:
    return build_call(provider, model, messages=messages, **params)


EVERYTHING = (
    Message("system", "Be brief", {"name": "boss"}),
    Message("developer", "and kind"),
    Message("user", (TextPart("What is this?"), TextPart(""), IMAGE, OtherPart({"cachePoint": {"type": "default"}}))),
    Message("user", "And the time?"),
    Message(
        "assistant",
        None,
        {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}}]},
    ),
    Message("tool", "Noon", {"tool_call_id": "c1"}),
    Message("tool", "", {"tool_call_id": "c2"}),
    Message("assistant", ""),
    Message("user", "Thanks"),
)


def test_a_conversation_is_sent_in_turns() -> None:
    """Neighbours of one role become one turn; nothing empty is sent; images are bytes."""
    assert encode_body(UP, build_talk(*EVERYTHING)) == {
        "system": [{"text": "Be brief"}, {"text": "and kind"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "What is this?"},
                    {"image": {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}},
                    {"cachePoint": {"type": "default"}},
                    {"text": "And the time?"},
                ],
            },
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c1", "name": "clock", "input": {"zone": "UTC"}}}]},
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "c1", "content": [{"text": "Noon"}]}},
                    {"toolResult": {"toolUseId": "c2", "content": [{"text": " "}]}},
                    {"text": "Thanks"},
                ],
            },
        ],
    }
    assert build_talk(*EVERYTHING).fitted.ignored == ("messages.name",)


TOOL = {
    "type": "function",
    "function": {"name": "clock", "description": "Tells", "parameters": {"type": "object"}, "strict": True},
}
SPEC = {"toolSpec": {"name": "clock", "description": "Tells", "inputSchema": {"json": {"type": "object"}}, "strict": True}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {"tools": [SPEC]}),
        ("auto", {"tools": [SPEC]}),
        ("required", {"tools": [SPEC], "toolChoice": {"any": {}}}),
        ({"type": "function", "function": {"name": "clock"}}, {"tools": [SPEC], "toolChoice": {"tool": {"name": "clock"}}}),
        ("none", None),
    ],
    ids=str,
)
def test_tools_and_their_choice_are_converted(choice: Any, expected: Any) -> None:
    """Converse knows no `none`: then no tool is sent."""
    call = build_call(UP, MODEL, passthrough={"tools": [TOOL], "tool_choice": choice})
    assert encode_body(UP, call).get("toolConfig") == expected
    assert call.fitted.ignored == ()


def test_parameters_are_sent_adjusted_or_ignored() -> None:
    """Clamped and ignored parameters are reported; a model's own parameter is sent only where the row declares it."""
    params: dict[str, Any] = {"max_tokens": 9, "temperature": 1.5, "top_p": 0.5, "stop": ("a",), "top_k": 3, "seed": 1, "n": 2}
    call = build_call(UP, "meta.llama3-1-8b-instruct-v1:0", **params)
    assert encode_body(UP, call)["inferenceConfig"] == {"maxTokens": 9, "temperature": 1, "topP": 0.5, "stopSequences": ["a"]}
    assert call.fitted.adjusted == {"temperature": (1.5, 1)}
    assert set(call.fitted.ignored) == {"top_k", "seed", "n"}
    declared = build_adapter(Bedrock, HOST, parameters={"rename": {"top_k": "top_k"}})
    more = {"additionalModelRequestFields": {"thinking": {"type": "enabled"}}, "requestMetadata": {"a": "b"}}
    body = encode_body(declared, build_call(declared, "m", top_k=3, passthrough=more))
    assert body["additionalModelRequestFields"] == {"top_k": 3, "thinking": {"type": "enabled"}}
    assert body["requestMetadata"] == {"a": "b"}
    assert "inferenceConfig" not in body


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("anthropic.claude-v2:1", "sampling"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "sampling"),
        ("us.anthropic.claude-opus-4-20250514-v1:0", "sampling"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "either"),
        ("global.anthropic.claude-opus-4-6-v1", "either"),
        ("us.anthropic.claude-opus-4-7-v1:0", "none"),
        ("anthropic.claude-sonnet-5", "none"),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-7", "none"),
        ("amazon.nova-pro-v1:0", "sampling"),
        ("meta.llama3-1-8b-instruct-v1:0", "sampling"),
    ],
)
def test_anthropics_models_have_the_same_families_here(model: str, family: str) -> None:
    assert find_converse_family(model) == family


def test_only_one_of_two_exclusive_parameters_is_sent() -> None:
    call = build_call(UP, MODEL, temperature=0.5, top_p=0.5)
    assert (call.fitted.sent, call.fitted.ignored) == ({"temperature": 0.5}, ("top_p",))


@pytest.mark.parametrize(
    "messages",
    [
        (Message("user", (OtherPart({"type": "input_audio", "input_audio": {}}),)),),
        (Message("assistant", None, {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}),),
        (Message("tool", "Noon"),),
        (Message("user", (ImagePart("data:image/png;base64,AAAA"),)),),
        (Message("user", (ImagePart("https://example.com/not-fetched.png"),)),),
    ],
    ids=["audio", "broken-arguments", "no-id", "no-image", "not-fetched"],
)
def test_a_message_converse_cannot_express_is_refused(messages: tuple[Message, ...]) -> None:
    """If it were left out, this model would get another question than the others."""
    with pytest.raises(ProviderError) as caught:
        UP.encode(build_talk(*messages), stream=False)
    assert caught.value.failure.kind in ("unsupported", "bad_request")


def test_a_prompt_becomes_a_message_and_token_ids_are_refused() -> None:
    assert encode_body(UP, build_call(UP, prompt="Once")) == {"messages": [{"role": "user", "content": [{"text": "Once"}]}]}
    with pytest.raises(ProviderError, match="token ids"):
        UP.encode(replace(CALL, query=Query(prompt_tokens=(1, 2))), stream=False)


def test_the_request_conforms_to_botocores_service_model() -> None:
    """Its validator knows every name, type and least value."""
    marked = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    more = {"tools": [TOOL, TOOL | marked], "tool_choice": "required", "requestMetadata": {"a": "b"}, "guardrailConfig": None}
    thoughts = {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]}
    kept = (Message("system", "Be brief", marked), Message("assistant", "Hm", marked | thoughts), Message("user", "Go", marked))
    call = build_talk(*EVERYTHING, *kept, max_tokens=9, temperature=0.5, stop=("a", "b"), passthrough=more)
    service = import_botocore("botocore.session").Session().get_service_model("bedrock-runtime")
    for operation in ("Converse", "ConverseStream"):
        body = encode_body(UP, call) | {"modelId": MODEL}
        for turn in body["messages"]:
            for block in turn["content"]:
                if "image" in block:  # the SDK takes bytes, and writes the base64 itself
                    block["image"]["source"]["bytes"] = base64.b64decode(block["image"]["source"]["bytes"])
        shape = service.operation_model(operation).input_shape
        report = import_botocore("botocore.validate").ParamValidator().validate(body, shape)
        assert report.generate_report() == ""


@pytest.mark.parametrize(
    ("model", "quoted"),
    [
        (MODEL, "us.anthropic.claude-haiku-4-5-20251001-v1%3A0"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x-v1:0",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.x-v1%3A0",
        ),
    ],
)
async def test_the_path_arrives_as_it_was_quoted(model: str, quoted: str) -> None:
    """Whole and streamed."""
    for stream in (False, True):
        answer = answer_in_pieces([STREAM], EVENT_STREAM) if stream else answer_with(build_answer("Hello"))
        async with serve_adapter(Bedrock, answer) as (bedrock, served):
            call = build_call(bedrock, model)
            completion = (await collect_stream(bedrock, call))[1] if stream else await bedrock.complete(call)
        ((path, headers, _),) = served.requests
        assert path == f"/model/{quoted}/converse{'-stream' if stream else ''}"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert completion.choices[0].message.text == "Hello"


async def test_images_are_fetched_before_the_call() -> None:
    """A call whose image is not to be had is not made."""
    async with (
        serve_answers(answer_with(PNG)) as images,
        serve_answers(answer_with(build_answer("A dot"))) as served,
        open_session() as session,
    ):
        message = Message("user", (TextPart("What?"), ImagePart(images.url)))
        bedrock = build_adapter(Bedrock, served.url, session=session)
        bedrock.allowed_networks = [ip_network("127.0.0.1/32")]
        await bedrock.complete(build_talk(message, provider=bedrock))
        careful = build_adapter(Bedrock, served.url, session=session)
        with pytest.raises(ProviderError, match="not public"):
            await careful.complete(build_talk(message, provider=careful))
    ((_, _, body),) = served.requests
    expected = {"image": {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}}
    assert json.loads(body)["messages"][0]["content"][1] == expected


def test_a_whole_answer_is_read() -> None:
    """Cached tokens are beside the input there, inside it here."""
    completion = expect_answer(try_decode(UP, CALL, 200, build_answer("Hel", "lo"), x_amzn_requestid="r-1"))
    (choice,), usage = completion.choices, completion.usage
    assert (choice.message.text, choice.finish_reason, choice.native_finish_reason) == ("Hello", "stop", "end_turn")
    assert usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens) == (13, 5, 2, 1)
    assert (completion.request_id, completion.model) == ("r-1", None)


def test_reasoning_tool_calls_and_citations_are_read() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Let me see", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": "AAAA"}},
        {"citationsContent": {"content": [{"text": "Noon"}], "citations": []}},
        {"toolUse": {"toolUseId": "t1", "name": "clock", "input": {"zone": "UTC"}}},
    ]
    body = build_answer(stop="tool_use") | {"output": {"message": {"role": "assistant", "content": content}}}
    completion = expect_answer(try_decode(UP, CALL, 200, body))
    message = completion.choices[0].message
    assert (message.text, message.reasoning, completion.choices[0].finish_reason) == ("Noon", "Let me see", "tool_calls")
    assert message.tool_calls == (
        {"id": "t1", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}},
    )


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("something_new", None),
        ("malformed_model_output", "failed"),
        ("malformed_tool_use", "failed"),
    ],
)
def test_finish_reasons_are_translated(word: str, reason: str | None) -> None:
    """Whole and streamed alike."""
    results = [
        try_decode(UP, CALL, 200, build_answer("Hi", stop=word)),
        try_stream(UP, CALL, [START, encode_delta(text="Hi"), encode_event("messageStop", {"stopReason": word}), METADATA]),
    ]
    for result in results:
        if reason == "failed":
            assert (expect_failure(result).kind, expect_failure(result).code) == ("server", word)
        else:
            choice = (result if isinstance(result, Completion) else expect_answer(result)).choices[0]
            assert (choice.finish_reason, choice.native_finish_reason) == (reason, word)


def test_every_finish_reason_of_the_service_is_known() -> None:
    model = import_botocore("botocore.session").Session().get_service_model("bedrock-runtime")
    assert set(model.shape_for("StopReason").enum) == set(FINISH) | BROKEN_OFF


@pytest.mark.parametrize(
    ("status", "named", "kind"),
    [
        (400, "ValidationException", "bad_request"),
        (403, "AccessDeniedException", "auth"),
        (403, "ExpiredTokenException", "auth"),
        (400, "UnrecognizedClientException", "auth"),
        (404, "ResourceNotFoundException", "not_found"),
        (408, "ModelTimeoutException", "timeout"),
        (424, "ModelErrorException", "server"),
        (429, "ThrottlingException", "rate_limit"),
        (400, "ThrottlingException", "rate_limit"),
        (429, "ModelNotReadyException", "rate_limit"),
        (400, "ServiceQuotaExceededException", "quota"),
        (500, "InternalServerException", "server"),
        (503, "ServiceUnavailableException", "server"),
    ],
)
def test_refusals_have_their_kind(status: int, named: str, kind: str) -> None:
    """The type stands in a header, or in the body."""
    internal = f"{named}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    in_header = try_decode(UP, CALL, status, {"message": "Too much"}, x_amzn_errortype=internal, x_amzn_requestid="r-1")
    in_body = try_decode(
        UP, CALL, status, {"Message": "Too much", "__type": f"com.amazon.coral#{named}"}, x_amzn_requestid="r-1"
    )
    assert in_header == in_body
    failure = expect_failure(in_header)
    assert (failure.kind, failure.status, failure.request_id) == (kind, status, "r-1")
    if kind == "auth":
        is_permission = named == "AccessDeniedException"
        said = "does not permit this call" if is_permission else "refused the API key"
        assert failure.message == f"`up` {said} (HTTP {status}): Too much"
        assert failure.code == ("permission_denied" if is_permission else "invalid_api_key")
    elif status < 500:
        assert (failure.message, failure.code) == ("Too much", named)


def test_an_error_of_a_gateway_is_read() -> None:
    failure = expect_failure(try_decode(UP, CALL, 429, {"error": {"message": "Slow down", "type": "rate_limit_error"}}))
    assert (failure.kind, failure.message) == ("rate_limit", "Slow down")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"output": 5}', b'{"output": {"message": []}}'])
def test_a_body_that_is_no_answer_is_a_failure(body: bytes) -> None:
    assert expect_failure(try_decode(UP, CALL, 200, body)).kind == "malformed"
    assert expect_failure(try_decode(UP, CALL, 500, body)).kind == "server"
