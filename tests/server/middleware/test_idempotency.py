"""`Idempotency-Key`: a repeated request gets the same answer, and nothing is called or paid twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.server.middleware.replayable_stream import MAX_BYTES
from tests.support.builders.settings import write_providers_file
from tests.support.cli import read_address, start_fanout
from tests.support.client import Reply
from tests.support.dialects import HI, post
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

REPLAYED = "Idempotent-Replayed"
PATHS = ["/v1/completion", "/v1/completions", "/v1/chat/completions", "/v4/completions", "/v4/chat-completions"]
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> Path:
    return write_providers_file(upstream.url, tmp_path, retries={"attempts": 1}, key_header="X-Up-Key", timeout_s=60)


@pytest.fixture
async def durable_server(config: Path, tmp_path: Path) -> AsyncIterator[Server]:
    """Start a server whose store is a file."""
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db")) as server:
        yield server


async def complete(server: Server, model: Any, key: str | None = "k-1", path: str = PATHS[0], **more: Any) -> Reply:
    question = {"messages": HI} if "chat" in path else {"prompt": "hi"}
    headers: Mapping[str, str] = {**({"Idempotency-Key": key} if key else {}), **more.pop("headers", {})}
    return await post(server, path, {"model": model, **question, **more}, headers)


def is_replayed(got: Reply) -> bool:
    return got.headers.get(REPLAYED) == "true"


@STREAM
@pytest.mark.parametrize("path", PATHS)
async def test_a_repeated_request_gets_the_same_answer(
    path: str, stream: bool, durable_server: Server, upstream: Upstream
) -> None:
    one, two, three = [await complete(durable_server, "up/chunks-5", path=path, stream=stream) for _ in range(3)]

    assert (one.status, one.body) == (two.status, two.body) == (three.status, three.body)
    assert one.status == 200
    assert [is_replayed(got) for got in (one, two, three)] == [False, True, True]
    for name in ("Content-Type", "x-comparison-id", "Cache-Control"):
        assert one.headers.get(name) == two.headers.get(name)
    assert two.headers["x-request-id"] != one.headers["x-request-id"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_key_with_another_body_is_refused(path: str, durable_server: Server, upstream: Upstream) -> None:
    await complete(durable_server, "up/ok", path=path)
    got = await complete(durable_server, "up/echo", path=path)

    assert (got.status, got.error["code"], got.error["param"]) == (409, "idempotency_key_reused", "Idempotency-Key")
    assert got.headers["x-should-retry"] == "false"
    assert ("detail" in got.json) == path.startswith("/v4")
    assert len(upstream.requests) == 1


@STREAM
async def test_simultaneous_duplicates_make_one_call(stream: bool, durable_server: Server, upstream: Upstream) -> None:
    requests = [asyncio.create_task(complete(durable_server, "up/sleep-0.3", stream=stream)) for _ in range(10)]
    await upstream.wait_for_requests(1)
    other = await complete(durable_server, "up/ok", stream=stream)
    answers = await asyncio.gather(*requests)

    assert len(upstream.requests) == 1
    assert len({(got.status, got.body) for got in answers}) == 1
    assert sorted(is_replayed(got) for got in answers) == [False] + [True] * 9
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")
    assert len((await (await durable_server.session.get("/v1/comparisons")).json())["data"]) == 1


@STREAM
@pytest.mark.parametrize("leaves_after_s", [0.1, 0.5])
async def test_when_the_first_client_leaves_the_waiting_ones_are_still_answered(
    leaves_after_s: float, stream: bool, durable_server: Server, upstream: Upstream, log_lines: list[str]
) -> None:
    model = "up/first-0.3-chunks-6-gap-0.1"
    first = asyncio.create_task(complete(durable_server, model, stream=stream))
    await upstream.wait_for_requests(1)
    second = asyncio.create_task(complete(durable_server, model, stream=stream))
    await asyncio.sleep(leaves_after_s)
    first.cancel()
    got = await second
    again = await complete(durable_server, model, stream=stream)

    assert (got.status, is_replayed(got)) == (200, True)
    assert again.body == got.body
    if stream:
        assert got.events[-1] == "[DONE]"
    assert len(upstream.requests) == 1
    assert not upstream.abandoned
    (one,) = (await (await durable_server.session.get("/v1/comparisons")).json())["data"]
    assert (one["status"], one["answered"]) == (200, 1)
    assert not [line for line in log_lines if "crashed" in line]


@STREAM
async def test_when_all_clients_leave_the_call_is_cancelled_and_nothing_is_kept(
    stream: bool, durable_server: Server, upstream: Upstream
) -> None:
    model = "up/sleep-30-times-1-then-ok"
    requests = [asyncio.create_task(complete(durable_server, model, stream=stream)) for _ in range(3)]
    await upstream.wait_for_requests(1)
    await asyncio.sleep(0.1)
    for one in requests:
        one.cancel()
    await upstream.wait_until_idle()
    got = await complete(durable_server, model, stream=stream)

    assert len(upstream.abandoned) == 1
    assert (got.status, is_replayed(got)) == (200, False)


@pytest.mark.parametrize("model", ["up/429-times-1-then-ok", "up/503-times-1-then-ok", "up/400-times-1-then-ok"])
async def test_an_answer_that_was_not_paid_for_is_not_kept(model: str, durable_server: Server, upstream: Upstream) -> None:
    failed, answered, again = [await complete(durable_server, model) for _ in range(3)]

    assert failed.status >= 400
    assert (answered.status, again.status) == (200, 200)
    assert [is_replayed(got) for got in (failed, answered, again)] == [False, False, True]
    assert len(upstream.requests) == 2


async def test_an_invalid_body_does_not_use_up_the_key(durable_server: Server, upstream: Upstream) -> None:
    wrong = await complete(durable_server, "up/ok", temperature=9)
    right = await complete(durable_server, "up/ok")

    assert (wrong.status, right.status, len(upstream.requests)) == (400, 200, 1)


@pytest.mark.parametrize(("model", "status"), [("up/hang", 504), ("up/cut", 502)])
async def test_an_answer_that_may_be_billed_is_kept(
    model: str, status: int, durable_server: Server, upstream: Upstream
) -> None:
    one, two = [await complete(durable_server, model, timeout_s=0.3) for _ in range(2)]

    assert (one.status, two.status, two.body) == (status, status, one.body)
    kept = status == 504
    assert (is_replayed(two), len(upstream.requests)) == (kept, 1 if kept else 2)


async def test_an_answer_among_failures_is_kept(durable_server: Server, upstream: Upstream) -> None:
    one, two = [await complete(durable_server, ["up/ok", "up/500", "nobody"]) for _ in range(2)]

    assert (two.status, two.body, is_replayed(two)) == (200, one.body, True)
    assert len(upstream.requests) == 2


async def test_without_a_key_every_request_is_called_again(durable_server: Server, upstream: Upstream) -> None:
    one, two = [await complete(durable_server, "up/ok", key=None) for _ in range(2)]

    assert REPLAYED not in two.headers
    assert one.json["id"] != two.json["id"]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([("Idempotency-Key", "x" * 256)], "1 to 255 printable ASCII characters"),
        ([("Idempotency-Key", "")], "1 to 255 printable ASCII characters"),
        ([("Idempotency-Key", "schlüssel")], "1 to 255 printable ASCII characters"),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "a")], "is given 2 times: once is allowed"),
    ],
)
async def test_a_malformed_key_is_refused(given: list[tuple[str, str]], sentence: str, durable_server: Server) -> None:
    for path, status in (("/v1/completion", 400), ("/v4/completions", 422)):
        async with durable_server.session.post(path, json={"model": "up/ok", "prompt": "hi"}, headers=given) as response:
            error = (await response.json())["error"]
        assert (response.status, error["param"]) == (status, "Idempotency-Key")
        assert sentence in error["message"]


async def test_a_file_upload_accepts_no_key(durable_server: Server) -> None:
    form = aiohttp.FormData({"a": "b"}, default_to_multipart=True)
    async with durable_server.session.post("/v1/completion", data=form, headers={"Idempotency-Key": "k"}) as response:
        assert response.status == 400
        assert "is not accepted with a file upload" in (await response.json())["error"]["message"]


async def test_a_key_belongs_to_its_caller(config: Path, upstream: Upstream, tmp_path: Path) -> None:
    one, two, team = "key-one-abcdefghij", "key-two-0123456789", "key-three-01234567"
    keys = f"{one},{two},team-a:{team},team-a:{team}-new"
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_API_KEYS=keys) as server:
        strangers: list[dict[str, Any]] = [
            {"headers": {"x-api-key": one}},
            {"headers": {"x-api-key": two}},
            {"headers": {"x-api-key": team, "x-selected-account-id": "team-a"}},
            {"headers": {"x-api-key": one, "X-Up-Key": "own"}},
            {"headers": {"x-api-key": one}, "path": "/v1/completions"},
            {"headers": {"x-api-key": one}, "key": "k-2"},
        ]
        first = [await complete(server, "up/ok", **one) for one in strangers]
        again = [await complete(server, "up/ok", **one) for one in strangers]
        exchanged = await complete(server, "up/ok", headers={"x-api-key": f"{team}-new"})
        wrong = await complete(server, "up/ok", headers={"x-api-key": "three"})

    assert [(got.status, is_replayed(got)) for got in first] == [(200, False)] * 6
    assert [(got.body, is_replayed(got)) for got in again] == [(got.body, True) for got in first]
    assert (exchanged.body, is_replayed(exchanged)) == (first[2].body, True), "another key of the same account"
    assert (wrong.status, len(upstream.requests)) == (401, 6)


@STREAM
async def test_an_answer_survives_a_kill_of_the_server(stream: bool, config: Path, upstream: Upstream, tmp_path: Path) -> None:
    """The answer is on disk before its last bytes leave, so a client that has read it whole can have it again."""
    serve = ("serve", "--port", "0", "--config", str(config))
    body = {"model": ["up/chunks-3", "local/ngram-5"], "prompt": "hi", "max_tokens": 5, "stream": stream}
    bodies: list[bytes] = []
    for attempt in range(2):
        store = str(tmp_path / "fanout.db")
        async with start_fanout(*serve, FANOUT_STORE=store, FANOUT_LOG_LEVEL="error") as process:
            async with aiohttp.ClientSession(await read_address(process)) as session:
                headers = {"Idempotency-Key": "k"}
                async with session.post("/v1/completion", json=body, headers=headers) as response:
                    bodies.append(await response.read())
                    os.kill(process.pid, signal.SIGKILL)
                    assert (response.status, REPLAYED in response.headers) == (200, attempt == 1)
            await process.wait()

    assert bodies[0] == bodies[1]
    assert len(upstream.requests) == 1


async def test_an_answer_expires_after_a_day(durable_server: Server, upstream: Upstream, tmp_path: Path) -> None:
    await complete(durable_server, "up/ok")
    with closing(sqlite3.connect(tmp_path / "fanout.db")) as database:
        database.execute("UPDATE idempotent_answers SET created = created - 86401")
        database.commit()
    later, again = [await complete(durable_server, "up/ok", temperature=0.5) for _ in range(2)]

    assert [is_replayed(got) for got in (later, again)] == [False, True]
    assert (later.status, len(upstream.requests)) == (200, 2)


@STREAM
async def test_a_large_answer_is_not_kept(stream: bool, durable_server: Server, upstream: Upstream) -> None:
    one, two = [await complete(durable_server, "up/mb-5", stream=stream) for _ in range(2)]

    assert len(one.body) > MAX_BYTES
    assert (one.status, two.status) == (200, 200)
    assert not is_replayed(two)
    assert len(upstream.requests) == 2


async def test_a_client_that_waits_for_a_large_stream_gets_a_conflict(durable_server: Server, upstream: Upstream) -> None:
    requests = [asyncio.create_task(complete(durable_server, "up/first-0.2-mb-5", stream=True)) for _ in range(2)]
    answers = sorted([await one for one in requests], key=lambda got: got.status)

    assert [got.status for got in answers] == [200, 409]
    assert answers[1].error["code"] == "idempotency_answer_too_large"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("store", ["off", ":memory:"])
async def test_without_a_database_file_answers_are_kept_in_memory(store: str, config: Path, upstream: Upstream) -> None:
    async with serve(config, FANOUT_STORE=store) as server:
        one, two = [await complete(server, "up/ok") for _ in range(2)]
        other = await complete(server, "up/echo")

    assert (two.body, is_replayed(two), other.status) == (one.body, True, 409)
    assert len(upstream.requests) == 1


async def test_while_the_store_cannot_be_read_nothing_is_called(
    durable_server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "fanout.db")) as database:
        database.execute("DROP TABLE idempotent_answers")
        database.commit()
    got, free = await complete(durable_server, "up/ok"), await complete(durable_server, "up/ok", key=None)

    assert (got.status, got.error["code"], got.headers["Retry-After"]) == (503, "store_unavailable", "1")
    assert (free.status, len(upstream.requests)) == (200, 1)


async def test_while_the_store_cannot_be_written_answers_are_kept_in_memory_after_a_short_delay(
    durable_server: Server, upstream: Upstream, tmp_path: Path, log_lines: list[str]
) -> None:
    holder = sqlite3.connect(tmp_path / "fanout.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    one, two = [await complete(durable_server, "up/ok") for _ in range(2)]
    holder.execute("COMMIT")
    holder.close()

    assert (one.status, two.body, is_replayed(two), len(upstream.requests)) == (200, one.body, True, 1)
    assert any("answer.write_failed" in line for line in log_lines)


async def test_a_stop_does_not_wait_for_clients_that_have_left(config: Path, upstream: Upstream) -> None:
    async with asyncio.timeout(20), serve(config) as server:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await complete(server, "up/hang", stream=True)
    await upstream.wait_until_idle()

    assert len(upstream.abandoned) == 1
