"""Bedrock's messages, encoded as AWS describes them."""

from __future__ import annotations

import json
import os
from binascii import crc32
from importlib import import_module
from struct import pack
from typing import Any

import pytest

from fanout.providers.bedrock.adapter import Bedrock
from tests.support.provider_calls import build_adapter, build_call

HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
MODEL = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
EVENT_STREAM = "application/vnd.amazon.eventstream"

UP = build_adapter(Bedrock, HOST)
CALL = build_call(UP, MODEL)


def import_botocore(module: str) -> Any:
    """Return a module of botocore or boto3; skip the tests without it, or fail them under CI."""
    try:
        return import_module(module)
    except ImportError:
        reason = f"{module.partition('.')[0].upper()} IS MISSING: scripts/test installs it"
        return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason, allow_module_level=True)


def build_answer(*texts: str, stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"text": one} for one in texts]}
    return {"output": {"message": message}, "stopReason": stop, "usage": USAGE, "metrics": {"latencyMs": 1}, **more}


def encode_frame(payload: Any, **headers: str) -> bytes:
    """Encode a message of AWS's event stream.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html
    """
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = b"".join(
        pack("!B", len(name) + 1) + b":" + name.replace("_", "-").encode() + b"\x07" + pack("!H", len(text)) + text.encode()
        for name, text in headers.items()
    )
    prelude = pack("!II", 16 + len(head) + len(data), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + data
    return body + pack("!I", crc32(body))


def encode_event(kind: str, payload: Any) -> bytes:
    return encode_frame(payload, message_type="event", event_type=kind, content_type="application/json")


def encode_delta(place: int = 0, **answer: Any) -> bytes:
    return encode_event("contentBlockDelta", {"contentBlockIndex": place, "delta": answer, "p": "abcdefgh"})


START = encode_event("messageStart", {"role": "assistant", "p": "abc"})
STOP = encode_event("messageStop", {"stopReason": "end_turn"})
USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 18, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1}
METADATA = encode_event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 200}})
STREAM = (
    START
    + encode_delta(text="Hel")
    + encode_delta(text="lo")
    + encode_event("contentBlockStop", {"contentBlockIndex": 0})
    + STOP
    + METADATA
)
