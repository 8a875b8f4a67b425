"""Real exchanges in the vendors' own formats, recorded elsewhere; see `exchanges.py` for those in OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from tests.providers.exchanges import RECORDED, Exchange


def recorded_in(name: str, path: str) -> list[Any]:
    """The exchanges of a file whose address holds `path`, as pytest parameters; one that skips loudly where there are none."""
    if not RECORDED.is_dir():
        reason = f"RECORDED EXCHANGES ARE MISSING: no folder {RECORDED}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="missing")]
    items = enumerate(json.loads((RECORDED / f"{name}.json").read_text()))
    found = [_exchange(f"{name}-{number}", item) for number, item in items if path in item["request"]["uri"]]
    return [pytest.param(exchange, id=exchange.name) for exchange in found]


def _exchange(name: str, item: dict[str, Any]) -> Exchange:
    request, response = item["request"], item["response"]
    body = response["text"] if "text" in response else json.dumps(response["json"])
    return Exchange(
        name=f"{name}-{response['status']}",
        uri=request["uri"],
        request=request["json"],
        status=response["status"],
        headers=CIMultiDict(response["headers"]),
        body=body.encode(),
        streamed="text" in response,
    )
