"""Bedrock without a key: signed as boto3 signs, by the credentials and for the region that the environment names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict
from yarl import URL

from fanout.core.errors import ProviderError
from fanout.core.schema import Call
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.bedrock.signing import RETRY_LOOKUP_S, Signer, sign_request
from fanout.providers.transport.request import HttpRequest
from tests.support.bedrock_format import CALL, EVENT_STREAM, MODEL, STREAM, UP, build_answer, import_botocore
from tests.support.provider_calls import build_adapter, build_call, collect_stream, encode_body, open_session
from tests.support.upstream.canned import answer_in_pieces, answer_with, serve_adapter, serve_answers

AWS = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that knows nothing of AWS."""
    for name in AWS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def set_keys(aws: pytest.MonkeyPatch, token: str | None = None) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    if token:
        aws.setenv("AWS_SESSION_TOKEN", token)


class CapturedError(Exception):
    """Return what boto3 was about to send."""


def sign_with_boto3(call: Call, region: str) -> Any:
    """The request that boto3 itself would send, signed: it is taken away before anything is sent."""
    client = import_botocore("boto3").Session().client("bedrock-runtime", region_name=region)

    def capture(request: Any, **_: Any) -> None:
        raise CapturedError(request)

    client.meta.events.register("before-send.bedrock-runtime.Converse", capture)
    body = encode_body(UP, call)
    with pytest.raises(CapturedError) as caught:
        client.converse(modelId=call.target.model, **body)
    return caught.value.args[0]


@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("model", [MODEL, "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x-v1:0", "a~b_c.d-e"])
def test_the_signature_equals_boto3s(aws: pytest.MonkeyPatch, token: str | None, model: str) -> None:
    """For the same second, address and body."""
    set_keys(aws, token)
    credentials = import_botocore("botocore.session").Session().get_credentials().get_frozen_credentials()
    call = build_call(UP, model, max_tokens=5)
    for _ in range(5):  # a second may end between the two
        theirs = sign_with_boto3(call, "us-east-1")
        text = {name: value.decode() if isinstance(value, bytes) else value for name, value in theirs.headers.items()}
        unsigned = CIMultiDict({"Content-Type": text["Content-Type"], "User-Agent": "fanout"})
        request = HttpRequest(URL(theirs.url, encoded=True), unsigned, theirs.body)
        ours = sign_request(request, credentials, "bedrock", "us-east-1")
        if ours.headers["X-Amz-Date"] == text["X-Amz-Date"]:
            break
    assert ours.headers["Authorization"] == text["Authorization"]
    assert ours.headers.get("X-Amz-Security-Token") == token
    assert theirs.url == str(UP.encode(call, stream=False).url)
    assert json.loads(theirs.body) == encode_body(UP, call)


async def test_a_call_without_a_key_is_signed(aws: pytest.MonkeyPatch) -> None:
    """By the environment's credentials, for the address's region; the body's digest is in the signature."""
    import_botocore("botocore")
    set_keys(aws, "session-token")
    aws.setenv("AWS_REGION", "eu-central-1")
    async with serve_adapter(Bedrock, answer_with(build_answer("Hello")), key=None) as (bedrock, served):
        await bedrock.complete(build_call(bedrock, MODEL))
    ((_, headers, _),) = served.requests
    date = headers["X-Amz-Date"][:8]
    scope = f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{date}/eu-central-1/bedrock/aws4_request, "
    assert headers["Authorization"].startswith(scope + "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, ")
    assert headers["X-Amz-Security-Token"] == "session-token"


async def test_a_large_request_is_signed_as_well(aws: pytest.MonkeyPatch) -> None:
    """In a thread."""
    import_botocore("botocore")
    set_keys(aws)
    request = UP.encode(build_call(UP, prompt="x" * 300_000), stream=False)
    assert "Signature=" in (await Signer("up").sign(request, "bedrock", "us-east-1")).headers["Authorization"]


async def test_an_own_key_needs_no_credentials(aws: pytest.MonkeyPatch) -> None:
    async with serve_adapter(Bedrock, answer_with(build_answer("Hello")), key=None) as (bedrock, served):
        await bedrock.complete(build_call(bedrock, MODEL, own_key="bedrock-api-key-1"))
    assert served.requests[0][1]["Authorization"] == "Bearer bedrock-api-key-1"


async def test_without_credentials_nothing_is_sent(aws: pytest.MonkeyPatch) -> None:
    """It says what to set; and is not looked for again at once."""
    import_botocore("botocore")
    aws.setenv("AWS_REGION", "us-east-1")
    async with serve_adapter(Bedrock, answer_with(build_answer("Hello")), key=None) as (bedrock, served):
        for _ in range(2):
            with pytest.raises(ProviderError, match="AWS_BEARER_TOKEN_BEDROCK") as caught:
                await bedrock.complete(build_call(bedrock, MODEL))
            assert caught.value.failure.kind == "not_configured"
    assert served.requests == []
    assert RETRY_LOOKUP_S > 1


async def test_without_botocore_only_a_key_works(aws: pytest.MonkeyPatch) -> None:
    """Streams included; a request that would have to be signed says what to install."""
    aws.setitem(sys.modules, "botocore.session", None)
    aws.setenv("AWS_REGION", "us-east-1")
    async with serve_answers(answer_in_pieces([STREAM], EVENT_STREAM)) as served, open_session() as session:
        bedrock = build_adapter(Bedrock, served.url, session=session)
        assert (await collect_stream(bedrock, build_call(bedrock, MODEL)))[1].choices[0].message.text == "Hello"
        keyless = build_adapter(Bedrock, served.url, session=session, key=None)
        with pytest.raises(ProviderError, match=r"pip install -e '\.\[bedrock\]'") as caught:
            await keyless.complete(build_call(keyless, MODEL))
    assert (caught.value.failure.kind, len(served.requests)) == ("not_configured", 1)


async def test_an_unknown_profile_is_a_failure(aws: pytest.MonkeyPatch) -> None:
    import_botocore("botocore")
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
        return import_botocore("botocore.credentials").ReadOnlyCredentials("AKIDEXAMPLE", "secret", f"token-{self.looked_up}")


async def test_expiring_credentials_are_renewed() -> None:
    import_botocore("botocore")
    signer = Signer("up", Renewed())
    request = UP.encode(CALL, stream=False)
    tokens = [(await signer.sign(request, "bedrock", "us-east-1")).headers["X-Amz-Security-Token"] for _ in range(2)]
    assert tokens == ["token-1", "token-2"]


def test_the_region_comes_from_the_address_or_the_environment(aws: pytest.MonkeyPatch) -> None:
    """The row's word for it stands above the two variables, of which the first wins."""
    with pytest.raises(ProviderError, match="AWS_REGION") as caught:
        build_adapter(Bedrock, None).encode(CALL, stream=False)
    assert caught.value.failure.kind == "not_configured"
    aws.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert build_adapter(Bedrock, None).encode(CALL, stream=False).url.host == "bedrock-runtime.eu-west-1.amazonaws.com"
    aws.setenv("AWS_REGION", "ap-south-1")
    assert build_adapter(Bedrock, "https://x.{region}.y").encode(CALL, stream=False).url.host == "x.ap-south-1.y"
    named = build_adapter(Bedrock, "https://x.{region}.y", headers={"AWS-Region": "sa-east-1"}).encode(CALL, stream=False)
    assert (named.url.host, "aws-region" in named.headers) == ("x.sa-east-1.y", False)
    for host in ("bedrock-runtime.eu-west-3.amazonaws.com", "bedrock-runtime-fips.eu-west-3.amazonaws.com"):
        assert build_adapter(Bedrock, f"https://{host}")._region == "eu-west-3"
    assert build_adapter(Bedrock, "https://vpce-1.bedrock-runtime.eu-west-3.vpce.amazonaws.com")._region == "eu-west-3"
    assert build_adapter(Bedrock, "https://proxy.example")._region == "ap-south-1"
