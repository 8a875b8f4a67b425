"""Recorded exchanges with real providers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

RECORDED = Path(__file__).parents[2].parent / "shared" / "recorded"


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """One recorded request and its answer."""

    name: str
    uri: str
    request: Mapping[str, Any]
    status: int
    headers: CIMultiDict[str]
    body: bytes
    streamed: bool


def load_recordings(*names: str, path: str = "/chat/completions") -> list[Any]:
    """Return the exchanges of these files whose address contains `path`, as pytest parameters; a skipped one without files."""
    if not RECORDED.is_dir():
        reason = f"RECORDED EXCHANGES ARE MISSING: no folder {RECORDED}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="missing")]
    items = ((name, number, item) for name in names for number, item in enumerate(_read_file(name)))
    found = [_parse_exchange(f"{name}-{number}", item) for name, number, item in items if path in item["request"]["uri"]]
    return [pytest.param(exchange, id=exchange.name) for exchange in found]


def _read_file(name: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((RECORDED / f"{name}.json").read_text())
    return items


def _parse_exchange(name: str, item: dict[str, Any]) -> RecordedExchange:
    request, response = item["request"], item["response"]
    return RecordedExchange(
        name=f"{name}-{response['status']}",
        uri=request["uri"],
        request=request.get("json") or {},
        status=response["status"],
        headers=CIMultiDict(response["headers"]),
        body=_decode_body(response),
        streamed="json" not in response and not response.get("text", "").startswith("{"),
    )


def _decode_body(response: Mapping[str, Any]) -> bytes:
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return (response["text"] if "text" in response else json.dumps(response["json"])).encode()
