"""Bedrock: Converse as botocore's own model of the service has it, signed as boto3 signs it, its streams cut anywhere."""

from __future__ import annotations

import base64
import json
import os
import sys
from binascii import crc32
from dataclasses import replace
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from struct import error, pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from fanout.errors import ProviderError
from fanout.parameters import converse_family
from fanout.providers._aws import LOOK_AGAIN_S, Signer, signed
from fanout.providers._converse import BROKEN_OFF, FINISH
from fanout.providers._failures import Source
from fanout.providers._frames import HIGHEST_FRAME_BYTES, FrameDecoder
from fanout.providers._http import HttpRequest
from fanout.providers.bedrock import Bedrock, create
from fanout.schema import Call, Completion, Failure, ImagePart, Message, OtherPart, Query, TextPart
from tests.providers.exchanges import KEY, RECORDED, open_session
from tests.providers.test_images import PNG
from tests.providers.wires import (
    Told,
    adapter_at,
    answering,
    asking,
    body_of,
    cut,
    in_pieces,
    serving,
    spoilt,
    streamed,
    told,
    whole,
)

HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
IMAGE = ImagePart("data:image/png;base64," + base64.b64encode(PNG).decode())
EVENT_STREAM = "application/vnd.amazon.eventstream"
AWS = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")

KINDS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "other")
FIELDS = (
    *("text", "delta", "start", "toolUse", "toolUseId", "name", "input", "reasoningContent", "reasoningText", "output"),
    *("contentBlockIndex", "stopReason", "usage", "inputTokens", "outputTokens", "message", "content", "citationsContent"),
)

UP = adapter_at(Bedrock, HOST)
CALL = asking(UP, MODEL)


def botocore(module: str) -> Any:
    """A module of botocore's or boto3's, as the extra `bedrock` and the tests' own bring them; skips loudly without."""
    try:
        return import_module(module)
    except ImportError:
        reason = f"{module.partition('.')[0].upper()} IS MISSING: pip install 'fanout[bedrock]' boto3"
        return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason, allow_module_level=True)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that knows nothing of AWS."""
    for name in AWS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def with_keys(aws: pytest.MonkeyPatch, token: str | None = None) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    if token:
        aws.setenv("AWS_SESSION_TOKEN", token)


def talk(*messages: Message, provider: Bedrock = UP, model: str = MODEL, **asked: Any) -> Call:
    return asking(provider, model, messages=messages, **asked)


def frame(payload: Any, **headers: str) -> bytes:
    """A message of AWS's event stream. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html"""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = b"".join(
        pack("!B", len(name) + 1) + b":" + name.replace("_", "-").encode() + b"\x07" + pack("!H", len(text)) + text.encode()
        for name, text in headers.items()
    )
    prelude = pack("!II", 16 + len(head) + len(data), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + data
    return body + pack("!I", crc32(body))


def event(kind: str, payload: Any) -> bytes:
    return frame(payload, message_type="event", event_type=kind, content_type="application/json")


def delta(place: int = 0, **said: Any) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": place, "delta": said, "p": "abcdefgh"})


START = event("messageStart", {"role": "assistant", "p": "abc"})
STOP = event("messageStop", {"stopReason": "end_turn"})
USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 18, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1}
METADATA = event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 200}})
STREAM = START + delta(text="Hel") + delta(text="lo") + event("contentBlockStop", {"contentBlockIndex": 0}) + STOP + METADATA


def failed(result: Told | Completion) -> Failure:
    assert isinstance(result, Failure)
    return result


def answered(result: Told) -> Completion:
    assert isinstance(result, tuple)
    deltas, completion = result
    message = completion.choices[0].message
    assert "".join(one.text for one in deltas) == message.text
    assert "".join(one.reasoning or "" for one in deltas) == (message.reasoning or "")
    return completion


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


def test_a_conversation_in_turns() -> None:
    """What stands side by side is one turn; nothing empty is sent; images are bytes."""
    assert body_of(UP, talk(*EVERYTHING)) == {
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
    assert talk(*EVERYTHING).fitted.ignored == ("messages.name",)


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
def test_tools_and_which_to_choose(choice: Any, expected: Any) -> None:
    """Converse knows no `none`: then no tool is sent."""
    call = asking(UP, MODEL, passthrough={"tools": [TOOL], "tool_choice": choice})
    assert body_of(UP, call).get("toolConfig") == expected
    assert call.fitted.ignored == ()


def test_what_it_takes_and_what_it_does_not() -> None:
    """Clamped and ignored are told; what is the model's own goes to the model only where the row declares it."""
    asked: dict[str, Any] = {"max_tokens": 9, "temperature": 1.5, "top_p": 0.5, "stop": ("a",), "top_k": 3, "seed": 1, "n": 2}
    call = asking(UP, "meta.llama3-1-8b-instruct-v1:0", **asked)
    assert body_of(UP, call)["inferenceConfig"] == {"maxTokens": 9, "temperature": 1, "topP": 0.5, "stopSequences": ["a"]}
    assert call.fitted.adjusted == {"temperature": (1.5, 1)}
    assert set(call.fitted.ignored) == {"top_k", "seed", "n"}
    declared = adapter_at(Bedrock, HOST, parameters={"rename": {"top_k": "top_k"}})
    more = {"additionalModelRequestFields": {"thinking": {"type": "enabled"}}, "requestMetadata": {"a": "b"}}
    body = body_of(declared, asking(declared, "m", top_k=3, passthrough=more))
    assert body["additionalModelRequestFields"] == {"top_k": 3, "thinking": {"type": "enabled"}}
    assert body["requestMetadata"] == {"a": "b"}
    assert "inferenceConfig" not in body


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("anthropic.claude-v2:1", "sampling"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "sampling"),
        ("us.anthropic.claude-opus-4-20250514-v1:0", "sampling"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "either"),
        ("global.anthropic.claude-opus-4-6-v1", "either"),
        ("us.anthropic.claude-opus-4-7-v1:0", "none"),
        ("anthropic.claude-sonnet-5", "none"),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-7", "none"),
        ("amazon.nova-pro-v1:0", "sampling"),
        ("meta.llama3-1-8b-instruct-v1:0", "sampling"),
    ],
)
def test_anthropics_models_take_here_what_they_take_there(model: str, family: str) -> None:
    assert converse_family(model) == family


def test_of_two_parameters_that_exclude_each_other_one_is_sent() -> None:
    call = asking(UP, MODEL, temperature=0.5, top_p=0.5)
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
def test_what_cannot_be_said_in_converse_is_refused(messages: tuple[Message, ...]) -> None:
    """Left out, it would be another question than the other models are asked."""
    with pytest.raises(ProviderError) as caught:
        UP.encode(talk(*messages), stream=False)
    assert caught.value.failure.kind in ("unsupported", "bad_request")


def test_a_prompt_is_a_message_and_token_ids_are_none() -> None:
    assert body_of(UP, asking(UP, prompt="Once")) == {"messages": [{"role": "user", "content": [{"text": "Once"}]}]}
    with pytest.raises(ProviderError, match="token ids"):
        UP.encode(replace(CALL, query=Query(prompt_tokens=(1, 2))), stream=False)


def test_the_request_is_what_botocores_model_of_the_service_describes() -> None:
    """Its validator knows every name, type and least value."""
    more = {"tools": [TOOL], "tool_choice": "required", "requestMetadata": {"a": "b"}, "guardrailConfig": None}
    call = talk(*EVERYTHING, max_tokens=9, temperature=0.5, stop=("a", "b"), passthrough=more)
    service = botocore("botocore.session").Session().get_service_model("bedrock-runtime")
    for operation in ("Converse", "ConverseStream"):
        body = body_of(UP, call) | {"modelId": MODEL}
        for turn in body["messages"]:
            for block in turn["content"]:
                if "image" in block:  # the SDK takes bytes, and writes the base64 itself
                    block["image"]["source"]["bytes"] = base64.b64decode(block["image"]["source"]["bytes"])
        shape = service.operation_model(operation).input_shape
        report = botocore("botocore.validate").ParamValidator().validate(body, shape)
        assert report.generate_report() == ""


@pytest.mark.parametrize(
    ("model", "quoted"),
    [
        (MODEL, "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x-v1:0",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.x-v1%3A0",
        ),
    ],
)
async def test_the_path_arrives_as_it_was_quoted(model: str, quoted: str) -> None:
    """Whole and streamed."""
    for stream in (False, True):
        answer = in_pieces([STREAM], EVENT_STREAM) if stream else answering(saying("Hello"))
        async with serving(answer) as served, open_session() as session:
            bedrock = adapter_at(Bedrock, served.url, session=session)
            call = asking(bedrock, model)
            completion = (await streamed(bedrock, call))[1] if stream else await bedrock.complete(call)
        ((path, headers, _),) = served.requests
        assert path == f"/model/{quoted}/converse{'-stream' if stream else ''}"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert completion.choices[0].message.text == "Hello"


# Signing ------------------------------------------------------------------------------------------------------------------


class Captured(Exception):
    """What boto3 was about to send."""


def by_boto3(call: Call, region: str) -> Any:
    """The request that boto3 itself would send, signed: it is taken away before anything is sent."""
    client = botocore("boto3").Session().client("bedrock-runtime", region_name=region)

    def take(request: Any, **_: Any) -> None:
        raise Captured(request)

    client.meta.events.register("before-send.bedrock-runtime.Converse", take)
    body = body_of(UP, call)
    with pytest.raises(Captured) as caught:
        client.converse(modelId=call.target.model, **body)
    return caught.value.args[0]


@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("model", [MODEL, "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x-v1:0", "a~b_c.d-e"])
def test_the_signature_is_boto3s_own(aws: pytest.MonkeyPatch, token: str | None, model: str) -> None:
    """For the same second, address and body."""
    with_keys(aws, token)
    credentials = botocore("botocore.session").Session().get_credentials().get_frozen_credentials()
    call = asking(UP, model, max_tokens=5)
    for _ in range(5):  # a second may end between the two
        theirs = by_boto3(call, "us-east-1")
        text = {name: value.decode() if isinstance(value, bytes) else value for name, value in theirs.headers.items()}
        unsigned = CIMultiDict({"Content-Type": text["Content-Type"], "User-Agent": "fanout"})
        request = HttpRequest(URL(theirs.url, encoded=True), unsigned, theirs.body)
        ours = signed(request, credentials, "bedrock", "us-east-1")
        if ours.headers["X-Amz-Date"] == text["X-Amz-Date"]:
            break
    assert ours.headers["Authorization"] == text["Authorization"]
    assert ours.headers.get("X-Amz-Security-Token") == token
    assert theirs.url == str(UP.encode(call, stream=False).url)
    assert json.loads(theirs.body) == body_of(UP, call)


async def test_a_call_without_a_key_is_signed(aws: pytest.MonkeyPatch) -> None:
    """By the environment's credentials, for the address's region; the body's digest is in the signature."""
    botocore("botocore")
    with_keys(aws, "session-token")
    aws.setenv("AWS_REGION", "eu-central-1")
    async with serving(answering(saying("Hello"))) as served, open_session() as session:
        bedrock = adapter_at(Bedrock, served.url, session=session, key=None)
        await bedrock.complete(asking(bedrock, MODEL))
    ((_, headers, _),) = served.requests
    date = headers["X-Amz-Date"][:8]
    scope = f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{date}/eu-central-1/bedrock/aws4_request, "
    assert headers["Authorization"].startswith(scope + "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, ")
    assert headers["X-Amz-Security-Token"] == "session-token"


async def test_a_large_request_is_signed_as_well(aws: pytest.MonkeyPatch) -> None:
    """In a thread."""
    botocore("botocore")
    with_keys(aws)
    request = UP.encode(asking(UP, prompt="x" * 300_000), stream=False)
    assert "Signature=" in (await Signer("up").sign(request, "bedrock", "us-east-1")).headers["Authorization"]


async def test_an_own_key_needs_no_credentials(aws: pytest.MonkeyPatch) -> None:
    async with serving(answering(saying("Hello"))) as served, open_session() as session:
        bedrock = adapter_at(Bedrock, served.url, session=session, key=None)
        await bedrock.complete(asking(bedrock, MODEL, own_key="bedrock-api-key-1"))
    assert served.requests[0][1]["Authorization"] == "Bearer bedrock-api-key-1"


async def test_without_credentials_nothing_is_sent(aws: pytest.MonkeyPatch) -> None:
    """It says what to set; and is not looked for again at once."""
    botocore("botocore")
    aws.setenv("AWS_REGION", "us-east-1")
    async with serving(answering(saying("Hello"))) as served, open_session() as session:
        bedrock = adapter_at(create, served.url, session=session, key=None)
        for _ in range(2):
            with pytest.raises(ProviderError, match="AWS_BEARER_TOKEN_BEDROCK") as caught:
                await bedrock.complete(asking(bedrock, MODEL))
            assert caught.value.failure.kind == "not_configured"
    assert served.requests == []
    assert LOOK_AGAIN_S > 1


async def test_without_botocore_a_key_is_all_that_works(aws: pytest.MonkeyPatch) -> None:
    """Streams included; a request that would have to be signed says what to install."""
    aws.setitem(sys.modules, "botocore.session", None)
    aws.setenv("AWS_REGION", "us-east-1")
    async with serving(in_pieces([STREAM], EVENT_STREAM)) as served, open_session() as session:
        bedrock = adapter_at(Bedrock, served.url, session=session)
        assert (await streamed(bedrock, asking(bedrock, MODEL)))[1].choices[0].message.text == "Hello"
        keyless = adapter_at(Bedrock, served.url, session=session, key=None)
        with pytest.raises(ProviderError, match=r"pip install 'fanout\[bedrock\]'") as caught:
            await keyless.complete(asking(keyless, MODEL))
    assert (caught.value.failure.kind, len(served.requests)) == ("not_configured", 1)


async def test_a_profile_that_is_none_is_no_exception_but_a_failure(aws: pytest.MonkeyPatch) -> None:
    botocore("botocore")
    aws.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ProviderError, match="ProfileNotFound"):
        await Signer("up").sign(UP.encode(CALL, stream=False), "bedrock", "us-east-1")


class Renewed:
    """Credentials that must be renewed before each use, as a role's are when they end."""

    def __init__(self) -> None:
        self.looked_up = 0

    def refresh_needed(self) -> bool:
        return True

    def get_frozen_credentials(self) -> Any:
        self.looked_up += 1
        return botocore("botocore.credentials").ReadOnlyCredentials("AKIDEXAMPLE", "secret", f"token-{self.looked_up}")


async def test_credentials_that_end_are_renewed() -> None:
    botocore("botocore")
    signer = Signer("up", Renewed())
    request = UP.encode(CALL, stream=False)
    tokens = [(await signer.sign(request, "bedrock", "us-east-1")).headers["X-Amz-Security-Token"] for _ in range(2)]
    assert tokens == ["token-1", "token-2"]


def test_the_region_is_the_addresss_or_the_environments(aws: pytest.MonkeyPatch) -> None:
    """The row's word for it stands above the two variables, of which the first wins."""
    with pytest.raises(ProviderError, match="AWS_REGION") as caught:
        adapter_at(Bedrock, None).encode(CALL, stream=False)
    assert caught.value.failure.kind == "not_configured"
    aws.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert adapter_at(Bedrock, None).encode(CALL, stream=False).url.host == "bedrock-runtime.eu-west-1.amazonaws.com"
    aws.setenv("AWS_REGION", "ap-south-1")
    assert adapter_at(Bedrock, "https://x.{region}.y").encode(CALL, stream=False).url.host == "x.ap-south-1.y"
    named = adapter_at(Bedrock, "https://x.{region}.y", headers={"AWS-Region": "sa-east-1"}).encode(CALL, stream=False)
    assert (named.url.host, "aws-region" in named.headers) == ("x.sa-east-1.y", False)
    for host in ("bedrock-runtime.eu-west-3.amazonaws.com", "bedrock-runtime-fips.eu-west-3.amazonaws.com"):
        assert adapter_at(Bedrock, f"https://{host}")._region == "eu-west-3"
    assert adapter_at(Bedrock, "https://vpce-1.bedrock-runtime.eu-west-3.vpce.amazonaws.com")._region == "eu-west-3"
    assert adapter_at(Bedrock, "https://proxy.example")._region == "ap-south-1"


async def test_images_are_fetched_before_the_call() -> None:
    """A call whose image is not to be had is not made."""
    async with serving(answering(PNG)) as images, serving(answering(saying("A dot"))) as served, open_session() as session:
        here = {"allowed": [ip_network("127.0.0.1/32")]}
        message = Message("user", (TextPart("What?"), ImagePart(images.url)))
        bedrock = adapter_at(Bedrock, served.url, session=session, more=here)
        await bedrock.complete(talk(message, provider=bedrock))
        careful = adapter_at(Bedrock, served.url, session=session)
        with pytest.raises(ProviderError, match="not public"):
            await careful.complete(talk(message, provider=careful))
    ((_, _, body),) = served.requests
    expected = {"image": {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}}
    assert json.loads(body)["messages"][0]["content"][1] == expected


# Answers -----------------------------------------------------------------------------------------------------------------


def saying(*texts: str, stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"text": one} for one in texts]}
    return {"output": {"message": message}, "stopReason": stop, "usage": USAGE, "metrics": {"latencyMs": 1}, **more}


def test_a_whole_answer() -> None:
    """Cached tokens are beside the input there, inside it here."""
    completion = whole(UP, CALL, 200, saying("Hel", "lo"), x_amzn_requestid="r-1")
    assert isinstance(completion, Completion)
    (choice,), usage = completion.choices, completion.usage
    assert (choice.message.text, choice.finish_reason, choice.native_finish_reason) == ("Hello", "stop", "end_turn")
    assert usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens) == (13, 5, 2, 1)
    assert (completion.request_id, completion.model) == ("r-1", None)


def test_reasoning_tool_calls_and_citations() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Let me see", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": "AAAA"}},
        {"citationsContent": {"content": [{"text": "Noon"}], "citations": []}},
        {"toolUse": {"toolUseId": "t1", "name": "clock", "input": {"zone": "UTC"}}},
    ]
    body = saying(stop="tool_use") | {"output": {"message": {"role": "assistant", "content": content}}}
    completion = whole(UP, CALL, 200, body)
    assert isinstance(completion, Completion)
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
def test_finish_reasons(word: str, reason: str | None) -> None:
    """Whole and streamed alike."""
    results = [
        whole(UP, CALL, 200, saying("Hi", stop=word)),
        told(UP, CALL, [START, delta(text="Hi"), event("messageStop", {"stopReason": word}), METADATA]),
    ]
    for result in results:
        if reason == "failed":
            assert (failed(result).kind, failed(result).code) == ("server", word)
        else:
            choice = (result if isinstance(result, Completion) else answered(result)).choices[0]
            assert (choice.finish_reason, choice.native_finish_reason) == (reason, word)


def test_the_services_model_has_no_other_finish_reason() -> None:
    model = botocore("botocore.session").Session().get_service_model("bedrock-runtime")
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
def test_refusals(status: int, named: str, kind: str) -> None:
    """The type stands in a header, or in the body."""
    internal = f"{named}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    in_header = whole(UP, CALL, status, {"message": "Too much"}, x_amzn_errortype=internal, x_amzn_requestid="r-1")
    in_body = whole(UP, CALL, status, {"Message": "Too much", "__type": f"com.amazon.coral#{named}"}, x_amzn_requestid="r-1")
    assert in_header == in_body
    failure = failed(in_header)
    assert (failure.kind, failure.status, failure.request_id) == (kind, status, "r-1")
    if kind == "auth":
        assert "Too much" not in failure.message
    elif status < 500:
        assert (failure.message, failure.code) == ("Too much", named)


def test_a_refusal_of_what_stands_between_is_read_too() -> None:
    failure = failed(whole(UP, CALL, 429, {"error": {"message": "Slow down", "type": "rate_limit_error"}}))
    assert (failure.kind, failure.message) == ("rate_limit", "Slow down")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"output": 5}', b'{"output": {"message": []}}'])
def test_what_is_no_answer(body: bytes) -> None:
    assert failed(whole(UP, CALL, 200, body)).kind == "malformed"
    assert failed(whole(UP, CALL, 500, body)).kind == "server"


# Streams -----------------------------------------------------------------------------------------------------------------


def test_a_stream() -> None:
    completion = answered(told(UP, CALL, [STREAM], {"x-amzn-requestid": "r-1"}))
    same = whole(UP, CALL, 200, saying("Hello"), x_amzn_requestid="r-1")
    assert completion == same


def test_a_stream_of_thoughts_and_tool_calls() -> None:
    """A tool call begins with its name; a text block does not begin at all."""
    stream = [
        START,
        delta(0, reasoningContent={"text": "Let me "}),
        delta(0, reasoningContent={"text": "see"}),
        delta(0, reasoningContent={"signature": "c2ln"}),
        delta(1, text="I look"),
        event("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "clock"}}}),
        delta(2, toolUse={"input": '{"zone":'}),
        delta(2, toolUse={"input": '"UTC"}'}),
        event("contentBlockStart", {"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t2", "name": "date"}}}),
        delta(3, toolUse={"input": "{}"}),
        event("contentBlockStart", {"contentBlockIndex": 4, "start": {}}),
        event("somethingNew", {"a": 1}),
        event("messageStop", {"stopReason": "tool_use"}),
        METADATA,
    ]
    message = answered(told(UP, CALL, stream)).choices[0].message
    assert (message.text, message.reasoning) == ("I look", "Let me see")
    assert message.tool_calls == (
        {"id": "t1", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}},
        {"id": "t2", "type": "function", "function": {"name": "date", "arguments": "{}"}},
    )


@pytest.mark.parametrize(
    ("named", "kind", "status"),
    [
        ("throttlingException", "rate_limit", 429),
        ("modelStreamErrorException", "server", 424),
        ("internalServerException", "server", 500),
        ("serviceUnavailableException", "server", 503),
        ("validationException", "bad_request", 400),
        ("somethingNewException", "server", None),
    ],
)
def test_a_stream_breaks_by_an_exception(named: str, kind: str, status: int | None) -> None:
    """With the text so far."""
    broken = frame({"message": "No more"}, message_type="exception", exception_type=named)
    failure = failed(told(UP, CALL, [START + delta(text="Hel") + broken]))
    assert (failure.kind, failure.status, failure.partial) == (kind, status, "Hel")
    assert failure.code == named[0].upper() + named[1:]


def test_a_stream_breaks_by_an_error() -> None:
    broken = frame(b"", message_type="error", error_code="InternalServerException", error_message="Oh")
    failure = failed(told(UP, CALL, [START, broken]))
    assert (failure.kind, failure.status) == ("server", 500)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (START + delta(text="Hel"), "stream_truncated"),
        (STREAM[: len(START) + 20], "stream_truncated"),
        (b"", "stream_truncated"),
        (METADATA, "stream_truncated"),
        (b"data: {}\n\n" * 5, "invalid_frame"),
        (START[:-1] + b"\0", "invalid_frame"),
        (frame(b"{", message_type="event", event_type="metadata"), "invalid_json"),
        (frame(b"[]", message_type="event", event_type="metadata"), "unexpected_shape"),
    ],
)
def test_a_stream_that_is_no_whole_answer(stream: bytes, code: str) -> None:
    failure = failed(told(UP, CALL, [stream]))
    assert (failure.kind, failure.code) == ("network" if code == "stream_truncated" else "malformed", code)


def test_a_stream_is_whole_without_its_usage() -> None:
    """Unknown is not 0."""
    assert answered(told(UP, CALL, [STREAM.removesuffix(METADATA)])).usage is None


def test_an_answer_has_its_bounds() -> None:
    small = adapter_at(Bedrock, HOST, max_answer_bytes=100)
    assert failed(told(small, CALL, [START] + [delta(text="x" * 60)] * 3)).code == "answer_too_large"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.integers(0, len(STREAM))))
def test_a_stream_cut_anywhere_is_the_same(places: list[int]) -> None:
    assert told(UP, CALL, cut(STREAM, places)) == told(UP, CALL, [STREAM])


@given(st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 255)), min_size=1), st.lists(st.integers(0, 999)))
def test_a_spoilt_stream_is_an_answer_or_a_failure(changes: list[tuple[int, int]], places: list[int]) -> None:
    """By its checksums it is nearly always a failure."""
    result = told(UP, CALL, cut(spoilt(STREAM, changes), places))
    assert spoilt(STREAM, changes) == STREAM or failed(result).kind in ("malformed", "network")


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_frames_in_order_but_of_nonsense(head: bytes, payload: bytes) -> None:
    """Right checksums over headers and payloads that are none."""
    assert failed(told(UP, CALL, [checked(head, payload)])).kind in ("malformed", "network", "server")


def parsed(body: bytes) -> list[tuple[dict[str, Any], bytes]] | None:
    """What our decoder makes of a stream; `None` where it is damaged."""
    try:
        return FrameDecoder(Source("up", ())).feed(body)
    except ProviderError:
        return None


def parsed_by_botocore(body: bytes) -> list[tuple[dict[str, Any], bytes]] | None:
    module = botocore("botocore.eventstream")
    buffer = module.EventStreamBuffer()
    buffer.add_data(body)
    try:
        return [(message.headers, message.payload) for message in buffer]
    except (module.ParserError, error, KeyError, ValueError):
        return None


def checked(head: bytes, payload: bytes) -> bytes:
    """A message whose checksums are right, whatever is in it."""
    prelude = pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + payload
    return body + pack("!I", crc32(body))


NAMES = st.text(max_size=5).map(lambda name: pack("!B", len(name.encode())) + name.encode())
VALUES = st.one_of(
    st.sampled_from([b"\0", b"\1"]),
    st.integers(-128, 127).map(lambda number: b"\2" + pack("!b", number)),
    st.integers(-(2**15), 2**15 - 1).map(lambda number: b"\3" + pack("!h", number)),
    st.integers(-(2**31), 2**31 - 1).map(lambda number: b"\4" + pack("!i", number)),
    st.tuples(st.sampled_from([b"\5", b"\x08"]), st.integers(-(2**63), 2**63 - 1)).map(lambda one: one[0] + pack("!q", one[1])),
    st.binary(max_size=5).map(lambda data: b"\6" + pack("!H", len(data)) + data),
    st.text(max_size=5).map(lambda text: b"\7" + pack("!H", len(text.encode())) + text.encode()),
    st.binary(min_size=16, max_size=16).map(lambda data: b"\x09" + data),
)
HEADS = st.lists(st.tuples(NAMES, VALUES).map(b"".join), max_size=4).map(b"".join)


@given(st.lists(st.tuples(HEADS | st.binary(max_size=30), st.binary(max_size=30)), max_size=4))
def test_messages_are_what_botocore_reads_in_them(items: list[tuple[bytes, bytes]]) -> None:
    """All types of headers, and heads that are none: of those neither makes anything."""
    body = b"".join(checked(*item) for item in items)
    assert parsed(body) == parsed_by_botocore(body)


@given(st.integers(0, 2**32 - 1) | st.integers(0, 60), st.integers(0, 2**32 - 1) | st.integers(0, 60), st.binary(max_size=80))
def test_lengths_that_are_none(size: int, head: int, rest: bytes) -> None:
    """No length makes a reader wait for ever, take in everything, or read a message that is none."""
    prelude = pack("!II", size, head)
    found = parsed(prelude + pack("!I", crc32(prelude)) + rest)
    assert not found
    assert found is None or 16 + head <= size <= HIGHEST_FRAME_BYTES


@given(st.sampled_from(KINDS), ODD)
def test_any_event_is_an_answer_or_a_failure(kind: str, payload: Any) -> None:
    told(UP, CALL, [START, event(kind, payload), STOP, METADATA])


@given(ODD, st.sampled_from([200, 400, 429, 500]))
def test_any_body_is_an_answer_or_a_failure(body: Any, status: int) -> None:
    whole(UP, CALL, status, body)


# Recorded exchanges ------------------------------------------------------------------------------------------------------


def recordings() -> list[Any]:
    """The recorded exchanges; one that skips loudly where there are none."""
    if not RECORDED.is_dir():
        reason = f"RECORDED EXCHANGES ARE MISSING: no folder {RECORDED}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="missing")]
    items = json.loads((RECORDED / "bedrock.json").read_text())
    return [pytest.param(item, id=f"bedrock-{number}-{item['response']['status']}") for number, item in enumerate(items)]


def theirs_of(stream: bytes) -> dict[str, Any]:
    """What botocore's own parser of the service's events makes of a stream."""
    model = botocore("botocore.session").Session().get_service_model("bedrock-runtime").operation_model("ConverseStream")
    parser = botocore("botocore.parsers").EventStreamJSONParser()
    buffer = botocore("botocore.eventstream").EventStreamBuffer()
    buffer.add_data(stream)
    said: dict[str, Any] = {"text": "", "thought": ""}
    for message in buffer:
        parsed = parser.parse(message.to_response_dict(), model.get_event_stream_output())
        piece = parsed.get("contentBlockDelta", {}).get("delta", {})
        said["text"] += piece.get("text", "")
        said["thought"] += piece.get("reasoningContent", {}).get("text", "")
        said |= {name: value for name in ("messageStop", "metadata") if (value := parsed.get(name))}
    return said


@pytest.mark.parametrize("item", recordings())
def test_recorded_exchanges(item: Any) -> None:
    """Whole, and streams cut anywhere: what botocore's own parser reads in them."""
    response, headers = item["response"], CIMultiDict(item["response"]["headers"])
    if response["status"] != 200:
        failure = failed(whole(UP, CALL, response["status"], response["json"]))
        assert (failure.kind, failure.message) == ("bad_request", response["json"]["message"])
        return
    if "base64" not in response:
        completion = UP.decode(CALL, 200, headers, response["text"].encode())
        assert completion.choices[0].message.text == json.loads(response["text"])["output"]["message"]["content"][0]["text"]
        assert completion.request_id == headers["x-amzn-requestid"]
        return
    stream = base64.b64decode(response["base64"])
    result = told(UP, CALL, [stream], headers)
    completion, theirs = answered(result), theirs_of(stream)
    message, usage = completion.choices[0].message, completion.usage
    assert (message.text, message.reasoning or "") == (theirs["text"], theirs["thought"])
    assert completion.choices[0].native_finish_reason == theirs["messageStop"]["stopReason"]
    assert usage
    expected = theirs["metadata"]["usage"]
    assert (usage.input_tokens, usage.output_tokens) == (expected["inputTokens"], expected["outputTokens"])
    check_any_cut(stream, headers, result)


def check_any_cut(stream: bytes, headers: CIMultiDict[str], expected: Told) -> None:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, len(stream)), max_size=60))
    def check(places: list[int]) -> None:
        assert told(UP, CALL, cut(stream, places), headers) == expected

    check()


async def test_a_stream_over_the_network() -> None:
    """In pieces; and one that breaks off."""
    pieces = cut(STREAM, range(0, len(STREAM), 7))
    async with serving(in_pieces(pieces, EVENT_STREAM)) as served, open_session() as session:
        bedrock = adapter_at(Bedrock, served.url, session=session)
        deltas, completion = await streamed(bedrock, asking(bedrock, MODEL))
    assert ([one.text for one in deltas], completion.choices[0].finish_reason) == (["Hel", "lo"], "stop")
    async with (
        serving(in_pieces([STREAM[: len(START) + len(delta(text="Hel")) + 9]], EVENT_STREAM)) as served,
        open_session() as session,
    ):
        bedrock = adapter_at(Bedrock, served.url, session=session)
        with pytest.raises(ProviderError) as caught:
            await streamed(bedrock, asking(bedrock, MODEL))
    assert (caught.value.failure.code, caught.value.failure.partial) == ("stream_truncated", "Hel")
