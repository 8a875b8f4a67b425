"""`GET /v1/providers/figures`: providers over time, from what the store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import Server, serve
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

PRICED = {"up/ok": {"provider": "up", "id": "ok", "kind": "chat", "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}}
PATH = "/v1/providers/figures"


async def get_steps(server: Server, query: str = "", **headers: str) -> dict[str, list[dict[str, Any]]]:
    reply = await Client(server).send("GET", PATH + query, headers=headers)
    assert reply.status == 200, reply.body
    return {series["provider"]: series["steps"] for series in reply.json["data"]}


@timed
async def test_calls_of_each_provider_are_summed_by_step_and_outlive_the_server(upstream: Upstream, tmp_path: Path) -> None:
    retries = {"attempts": 2, "max_delay_s": 0.01}
    config = write_providers_file(upstream.url, tmp_path, more={"models": PRICED}, retries=retries)
    store = {"FANOUT_STORE": str(tmp_path / "fanout.db")}
    async with serve(config, **store) as server:
        client = Client(server)
        await client.complete(model=["up/ok", "up/sleep-0.1", "up/429", "up/400", "nobody", "local/ngram-2"])
        await client.stream(model="up/first-0.2")
        before = await get_steps(server)
    async with serve(config, **store) as server:
        reply = await Client(server).send("GET", f"{PATH}?step_s=86400&provider=up")
        unlike = await Client(server).send("GET", f"{PATH}?from=2001-01-01&to=2001-01-31")

    assert before.keys() == {"up", "local"}, "a name that no provider has is not one"
    (series,) = reply.json["data"]
    assert (series["provider"], reply.json["step_s"], reply.json["in_memory"]) == ("up", 86_400, False)
    assert reply.json["to"].endswith("T00:00:00Z")
    step = series["steps"][-1]
    assert step["start"].endswith("T00:00:00Z")
    assert (step["calls"], step["answered"], step["failures"]) == (5, 3, {"rate_limit": 1, "bad_request": 1})
    assert (step["error_rate"], step["rate_limits"]) == (0.4, 1)
    assert 0 <= step["median_ms"] <= step["p95_ms"]
    assert step["p95_ms"] >= 0.93 * 200
    assert step["median_ttft_ms"] == pytest.approx(200, rel=0.5)
    assert step["cost_usd"] == pytest.approx((10 * 1 + 4 * 2) / 1e6)
    assert step["total_tokens"] > 14
    assert unlike.json["data"] == []
    assert unlike.json["step_s"] == 86_400


async def test_a_store_in_memory_says_so() -> None:
    async with serve(FANOUT_STORE=":memory:") as server:
        reply = await Client(server).send("GET", PATH)
    assert (reply.json["in_memory"], reply.json["step_s"], reply.json["data"]) == (True, 900, [])


@pytest.mark.parametrize(
    ("query", "param", "sentence"),
    [
        ("step_s=7", "step_s", "7 is not allowed: input should be 300, 900, 3600, 21600 or 86400"),
        ("from=2020-01-01&to=2024-01-01", "from", "steps of 86400 s would follow: at most 1,000"),
        ("from=2026-01-01&to=2026-03-01&step_s=300", "step_s", "17,280 steps of 300 s would follow: at most 1,000"),
        ("from=2026-11-20&to=2026-11-01", "to", "is before `from`"),
        ("group_by=day", "group_by", "unknown"),
    ],
)
async def test_a_report_without_a_bound_is_refused(query: str, param: str, sentence: str, store_server: Server) -> None:
    reply = await Client(store_server).send("GET", f"{PATH}?{query}")
    assert (reply.status, reply.error["param"]) == (400, param)
    assert sentence in reply.error["message"]


async def test_without_a_store_there_are_no_figures() -> None:
    async with serve(FANOUT_STORE="off") as server:
        reply = await Client(server).send("GET", PATH)
    assert (reply.status, reply.error["code"]) == (503, "store_off")
