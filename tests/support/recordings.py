"""Real exchanges with providers, recorded elsewhere, to answer calls with."""

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
class Exchange:
    """One recorded request and its answer."""

    name: str
    uri: str
    request: Mapping[str, Any]
    status: int
    headers: CIMultiDict[str]
    body: bytes
    streamed: bool


def recorded(*names: str, path: str = "/chat/completions") -> list[Any]:
    """The exchanges of these files whose address holds `path`, as pytest parameters; one that skips loudly without any."""
    if not RECORDED.is_dir():
        reason = f"RECORDED EXCHANGES ARE MISSING: no folder {RECORDED}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="missing")]
    items = ((name, number, item) for name in names for number, item in enumerate(_read(name)))
    found = [_exchange(f"{name}-{number}", item) for name, number, item in items if path in item["request"]["uri"]]
    return [pytest.param(exchange, id=exchange.name) for exchange in found]


def _read(name: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((RECORDED / f"{name}.json").read_text())
    return items


def _exchange(name: str, item: dict[str, Any]) -> Exchange:
    request, response = item["request"], item["response"]
    return Exchange(
        name=f"{name}-{response['status']}",
        uri=request["uri"],
        request=request.get("json") or {},
        status=response["status"],
        headers=CIMultiDict(response["headers"]),
        body=_body(response),
        streamed="json" not in response and not response.get("text", "").startswith("{"),
    )


def _body(response: Mapping[str, Any]) -> bytes:
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return (response["text"] if "text" in response else json.dumps(response["json"])).encode()
