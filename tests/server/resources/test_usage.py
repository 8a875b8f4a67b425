"""`GET /v1/usage` over HTTP: calls, tokens and cost by account, through kills and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.cli import PATIENCE_S, read_address, start_fanout
from tests.support.dialects import chat, complete, complete_scale, post
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

SET = ["local/ngram-2", "local/ngram-5"]
ACCOUNT = {"x-selected-account-id": "team-a"}
PRICES = {
    "models": {
        "priced": {
            "provider": "up",
            "id": "ok",
            "kind": "chat",
            "price": {"input_usd_per_mtok": 1e3, "output_usd_per_mtok": 1e4},
        }
    }
}


@pytest.fixture
async def counting_server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """Start a server with a store in a file, scripted upstreams and the embedded models."""
    retries = {"attempts": 2, "max_delay_s": 0.01}
    config = write_providers_file(upstream.url, tmp_path, more=PRICES, retries=retries, timeout_s=1)
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db")) as server:
        yield server


async def get_usage(server: Server, **query: str) -> tuple[int, Any]:
    async with server.session.get("/v1/usage", params=query) as response:
        return response.status, await response.json()


async def get_rows(server: Server, **query: str) -> list[dict[str, Any]]:
    status, answer = await get_usage(server, **query)
    assert status == 200, answer
    data: list[dict[str, Any]] = answer["data"]
    return data


def sum_requests(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT coalesce(sum(calls), 0) FROM usage").fetchone()[0])


async def test_usage_is_the_sum_of_the_answers_usage(counting_server: Server) -> None:
    models = [*SET, "priced", "up/no_usage", "nobody", "up/429"]
    body = {"model": models, "prompt": "The", "max_tokens": 5}
    choices = [choice for _ in range(3) for choice in (await post(counting_server, "/v1/completion", body, ACCOUNT)).choices]

    found = {row["model"]: row for row in await get_rows(counting_server)}

    # Nothing is known of a model that has no entry and has never answered.
    listed = [model for model in models if model != "nobody"]
    assert found.keys() == {*listed, None}
    for model, row in found.items():
        mine = [choice for choice in choices if choice["model"] == (model or "nobody")]
        assert (row["account_id"], row["requests"]) == ("team-a", 3)
        assert row["failures"] == ({mine[0]["error"]["kind"]: 3} if mine[0]["error"] else {})
        assert row["answered"] == (0 if mine[0]["error"] else 3)
        for figure in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"):
            known = [choice["usage"][figure] for choice in mine if choice["usage"][figure] is not None]
            assert row[figure] == (sum(known) if known else None)
        costs = [choice["cost_usd"] for choice in mine if choice["cost_usd"] is not None]
        assert row["cost_usd"] == (pytest.approx(sum(costs)) if costs else None)
    assert found["priced"]["cost_usd"] == pytest.approx(3 * (10 * 1e3 + 4 * 1e4) / 1e6)
    assert (found["up/no_usage"]["unknown_usage"], found["up/no_usage"]["cost_unknown"]) == (3, 3)
    assert found["up/429"]["failures"] == {"rate_limit": 3}


async def test_every_dialect_counts_for_the_account_it_names(counting_server: Server) -> None:
    await post(counting_server, "/v1/completion", {"model": SET, "prompt": "The", "max_tokens": 3}, ACCOUNT)
    await post(counting_server, "/v1/completions", {"model": SET[0], "prompt": "The"}, ACCOUNT)
    await post(
        counting_server, "/v1/chat/completions", {"model": SET[0], "messages": [{"role": "user", "content": "hi"}]}, ACCOUNT
    )
    await post(counting_server, "/v4/completions", {"model": SET[0], "prompt": "The", "account_id": "team-b"}, ACCOUNT)
    await post(counting_server, "/v2/completions", {"model": SET[0], "prompt": "The", "account_id": None}, ACCOUNT)
    await complete_scale(counting_server, SET[0])
    await complete(counting_server, SET[0])
    await chat(counting_server, SET[0], stream=True)

    found = {row["account_id"]: row["requests"] for row in await get_rows(counting_server, group_by="account")}

    assert found == {None: 3, "team-a": 5, "team-b": 1}


async def test_rows_are_grouped_as_requested_and_show_nothing_else(counting_server: Server) -> None:
    await post(counting_server, "/v1/completion", {"model": [*SET, "nobody"], "prompt": "The"}, ACCOUNT)
    await complete(counting_server, SET[0])
    today = datetime.now(UTC)

    (whole,) = await get_rows(counting_server, group_by="")
    hours = await get_rows(counting_server, group_by="hour, model")
    days = await get_rows(counting_server, group_by="day,day")
    providers = await get_rows(counting_server, group_by="provider,upstream_model")

    assert whole["requests"] == 4
    assert {"account_id", "model", "provider", "upstream_model", "day", "hour"} & set(whole) == set()
    assert [row["model"] for row in hours] == [None, *SET]
    assert hours[0]["hour"] == today.strftime("%Y-%m-%dT%H:00:00Z")
    assert [(row["day"], row["requests"]) for row in days] == [(today.strftime("%Y-%m-%d"), 4)]
    assert [(row["provider"], row["upstream_model"]) for row in providers] == [
        (None, None),
        ("local", "ngram-2"),
        ("local", "ngram-5"),
    ]


async def test_rows_cover_only_the_requested_account_and_time(counting_server: Server) -> None:
    await post(counting_server, "/v1/completion", {"model": SET[0], "prompt": "The"}, ACCOUNT)
    await complete(counting_server, SET[0])
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    only: dict[str, dict[str, str]] = {
        "all": {},
        "an account's": {"account_id": "team-a"},
        "nobody's": {"account_id": ""},
        "a stranger's": {"account_id": "team-z"},
        "today's": {"from": today, "to": today},
        "until yesterday's": {"to": "2020-01-01"},
        "from tomorrow on": {"from": "2999-01-01"},
        "with a zone": {"from": f"{today}T00:00:00+00:00", "to": "2999-01-01T00:00:00-12:00"},
        "with a plus sign that became a space": {"from": "2020-01-01T00:00:00 05:30"},
    }

    found = {name: sum(row["requests"] for row in await get_rows(counting_server, **query)) for name, query in only.items()}

    assert found == {
        "all": 2,
        "an account's": 1,
        "nobody's": 1,
        "a stranger's": 0,
        "today's": 2,
        "until yesterday's": 0,
        "from tomorrow on": 0,
        "with a zone": 2,
        "with a plus sign that became a space": 2,
    }


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ({"from": "2026-11-01", "to": "2026-11-30"}, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        (
            {"from": "2026-11-01T10:59:59.5+01:00", "to": "2026-11-01t09:59:00.001z"},
            "2026-11-01T09:59:00Z",
            "2026-11-01T10:00:00Z",
        ),
        ({"from": "1960-01-01", "to": "2026-11-01T10:00:00Z"}, None, "2026-11-01T10:00:00Z"),
        ({"to": "9999-12-31"}, None, "9999-12-31T23:59:00Z"),
        ({"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-01"}, None, "1970-01-01T00:00:00Z"),
    ],
)
async def test_the_answer_has_its_start_and_end(
    counting_server: Server, query: dict[str, str], since: str | None, until: str
) -> None:
    _, answer = await get_usage(counting_server, **query)

    assert (answer["object"], answer["from"], answer["to"]) == ("list", since, until)
    assert answer["group_by"] == ["account", "model"]


async def test_every_wrong_parameter_is_named_at_once(counting_server: Server) -> None:
    status, answer = await get_usage(
        counting_server,
        **{"from": "2026-13-01", "to": "soon", "group_by": "modle,day", "account": "a", "account_id": "x" * 257},
    )

    faults = {fault["param"]: fault["message"] for fault in answer["error"]["details"]}
    assert status == 400
    assert faults["from"].startswith("`2026-13-01` is not allowed: a date, `2026-11-20`, or a time with its zone")
    assert faults["to"].startswith("`soon` is not allowed")
    assert faults["group_by"].startswith("`modle` is not allowed; did you mean `model`?; allowed: model, provider")
    assert faults["account"] == "unknown field `account`; did you mean `account_id`?"
    assert "at most 256 characters" in faults["account_id"]
    assert "`from`: `2026-13-01`" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("query", "param", "sentence"),
    [
        ("from=2026-11-20&to=2026-11-01", "to", "2026-11-02T00:00:00Z is before `from`, 2026-11-20T00:00:00Z"),
        ("from=2026-11-20T10:00:00", "from", "`2026-11-20T10:00:00` is not allowed"),
        ("from=20261120", "from", "is not allowed"),
        ("from=2026-02-30", "from", "is not allowed"),
        ("from=٢٠٢٦-11-20", "from", "is not allowed"),
        ("to=", "to", "`` is not allowed"),
        ("account_id=a&account_id=b", "account_id", "is given 2 times: once is allowed"),
        ("group_by=cost", "group_by", "`cost` is not allowed"),
    ],
)
async def test_a_wrong_parameter_is_refused_with_a_hint(counting_server: Server, query: str, param: str, sentence: str) -> None:
    async with counting_server.session.get(f"/v1/usage?{query}") as response:
        answer = await response.json()

    assert response.status == 400
    assert answer["error"]["param"] == param
    assert sentence in answer["error"]["message"]


async def test_more_rows_than_an_answer_may_have_are_refused(counting_server: Server, tmp_path: Path) -> None:
    insert = "INSERT INTO usage VALUES (?, ?, 'm', 'p', 'u', 'answered', 1, 1, 1, NULL, 0, NULL, 1)"
    with closing(sqlite3.connect(tmp_path / "fanout.db")) as database:
        database.executemany(insert, [(int(time.time()) // 60 * 60, f"account-{number:05}") for number in range(10_001)])
        database.commit()

    status, answer = await get_usage(counting_server)
    fewer = await get_rows(counting_server, group_by="model")
    almost = await get_rows(counting_server, account_id="account-09999")

    assert (status, answer["error"]["param"]) == (400, "group_by")
    assert "more than 10000 rows" in answer["error"]["message"]
    assert [row["requests"] for row in (*fewer, *almost)] == [10_001, 1]


async def test_a_call_whose_client_left_is_counted_as_cancelled(counting_server: Server, upstream: Upstream) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await post(counting_server, "/v1/completion", {"model": "up/sleep-0.9-then-ok", "prompt": "hi"}, ACCOUNT)
    await upstream.wait_until_idle()

    async with asyncio.timeout(5):
        while not (found := await get_rows(counting_server)):
            await asyncio.sleep(0.02)

    assert (found[0]["requests"], found[0]["answered"], found[0]["failures"]) == (1, 0, {"cancelled": 1})


async def test_without_a_store_the_answer_is_503_store_off_and_everything_else_works(tmp_path: Path) -> None:
    async with serve(FANOUT_STORE="off") as server:
        answered = await complete(server, SET[0])
        async with server.session.get("/v1/usage") as response:
            error = (await response.json())["error"]

    assert answered.status == 200
    assert (response.status, error["code"], response.headers["x-should-retry"]) == (503, "store_off", "false")
    assert "FANOUT_STORE is `off`" in error["message"]


async def test_a_broken_database_gives_503_and_completions_still_work(
    counting_server: Server, tmp_path: Path, log_lines: list[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "fanout.db")) as database:
        database.execute("DROP TABLE usage")
        database.commit()

    status, answer = await get_usage(counting_server)
    answered = await complete(counting_server, SET[0])

    assert (status, answer["error"]["code"]) == (503, "store_unavailable")
    assert answered.status == 200
    assert any("no such table: usage" in line for line in log_lines)


async def test_usage_needs_a_key_like_all_other_paths() -> None:
    async with serve(FANOUT_API_KEYS="key-one-abcdefghij") as server:
        assert (await get_usage(server))[0] == 401


async def test_a_kill_loses_at_most_the_last_second(tmp_path: Path) -> None:
    path, ended = tmp_path / "fanout.db", []
    body = {"model": SET[0], "prompt": "The", "max_tokens": 2}

    async with start_fanout("serve", "--port", "0", FANOUT_STORE=str(path), FANOUT_LOG_LEVEL="error") as process:
        address = await read_address(process)

        async def keep_sending(session: aiohttp.ClientSession) -> None:
            while True:
                async with session.post("/v1/completion", json=body) as response:
                    await response.read()
                    ended.append(time.monotonic())

        async with aiohttp.ClientSession(address) as session:
            senders = [asyncio.create_task(keep_sending(session)) for _ in range(8)]
            await asyncio.sleep(3)
            killed = time.monotonic()
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.gather(*senders, return_exceptions=True)
        assert await process.wait() == -signal.SIGKILL

    long_ago = sum(moment < killed - 1 for moment in ended)
    assert long_ago > 100
    assert long_ago <= sum_requests(path) <= len(ended) + 8


async def test_sigterm_loses_nothing(upstream: Upstream, tmp_path: Path) -> None:
    """Answered calls are counted, and so are those that the stop cancels."""
    path = tmp_path / "fanout.db"
    config = write_providers_file(upstream.url, tmp_path, timeout_s=60)
    serve = ("serve", "--port", "0", "--config", str(config))

    async with start_fanout(*serve, FANOUT_STORE=str(path), FANOUT_GRACE_S="0.2", FANOUT_LOG_LEVEL="error") as process:
        async with aiohttp.ClientSession(await read_address(process)) as session:
            waiting = [
                asyncio.create_task(session.post("/v1/completion", json={"model": "up/hang", "prompt": "hi"})) for _ in range(5)
            ]
            await upstream.wait_for_requests(5)
            for _ in range(40):
                async with session.post(
                    "/v1/completion", json={"model": [*SET, "nobody"], "prompt": "The", "max_tokens": 2}
                ) as it:
                    assert it.status == 200
            process.terminate()
            statuses = [response.status for response in await asyncio.gather(*waiting)]
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0

    with closing(sqlite3.connect(path)) as database:
        found = dict(database.execute("SELECT result, sum(calls) FROM usage GROUP BY result"))
    assert statuses == [503] * 5
    assert found == {"answered": 80, "not_found": 40, "cancelled": 5}


async def test_counts_of_an_earlier_process_are_still_there(tmp_path: Path) -> None:
    for _ in range(2):
        async with serve(FANOUT_STORE=str(tmp_path / "fanout.db")) as server:
            await complete(server, SET[0])
            (row,) = await get_rows(server)

    assert row["requests"] == 2
