"""`GET /v1/comparisons` over HTTP: requests of every dialect and their answers, through kills and stops."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.cli import PATIENCE_S, read_address, start_fanout
from tests.support.client import Reply
from tests.support.dialects import HI, post
from tests.support.server import Server, serve
from tests.support.shapes import check_answer
from tests.support.upstream.server import Upstream

SET = ["local/ngram-2", "local/ngram-5"]
ACCOUNT = {"x-selected-account-id": "team-a"}
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/completion": {"model": [*SET, "nobody"], "prompt": "The", "max_tokens": 3, "n": 2},
    "/v1/completions": {"model": [*SET, "nobody"], "prompt": ["The", "A"], "max_tokens": 3},
    "/v1/chat/completions": {"model": SET, "messages": HI, "max_tokens": 3, "n": 2},
    "/v4/completions": {"model": SET[0], "prompt": "The", "model_parameters": {"max_tokens": 3}},
    "/v3/completions": {"model": SET[0], "prompt": "The", "model_parameters": {"max_tokens": 3}},
    "/v2/completions": {"model": SET[0], "prompt": "The", "model_parameters": {"max_tokens": 3}},
    "/v4/chat-completions": {"model": SET[0], "messages": HI, "model_parameters": {"max_tokens": 3}},
}


@pytest.fixture
async def recording_server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """Start a server that records everything in a file, with scripted upstreams and the embedded models."""
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 2, "max_delay_s": 0.01}, timeout_s=1)
    async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY="full") as server:
        yield server


async def fetch(server: Server, path: str = "", **query: str) -> Reply:
    async with server.session.get(f"/v1/comparisons{path}", params=query) as response:
        return Reply(response.status, response.headers, await response.read())


async def fetch_page(server: Server, **query: str) -> list[dict[str, Any]]:
    got = await fetch(server, **query)
    assert got.status == 200, got.body
    check_answer(("GET", "/v1/comparisons"), got)
    data: list[dict[str, Any]] = got.json["data"]
    return data


async def fetch_comparison(server: Server, id_: str) -> dict[str, Any]:
    got = await fetch(server, f"/{id_}")
    assert got.status == 200, got.body
    check_answer(("GET", "/v1/comparisons/{id}"), got)
    found: dict[str, Any] = got.json
    return found


def count_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        pages = database.execute("SELECT rows FROM comparison_pages").fetchall()
        written = int(database.execute("SELECT count(*) FROM comparisons").fetchone()[0])
    return written + sum(len(json.loads(rows)) for (rows,) in pages)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", DIALECTS)
async def test_every_dialect_is_recorded_and_readable_at_once(path: str, stream: bool, recording_server: Server) -> None:
    got = await post(recording_server, path, {**DIALECTS[path], "stream": stream}, ACCOUNT)
    (one,) = await fetch_page(recording_server)
    found = await fetch_comparison(recording_server, one["id"])

    assert one["id"] == got.headers["x-comparison-id"]
    assert (one["path"], one["stream"], one["status"], one["account_id"]) == (path, stream, 200, "team-a")
    assert not one["client_left"]
    assert one["request_id"] == got.headers["x-request-id"]
    assert found["request"] == {**DIALECTS[path], "stream": stream}
    if path.startswith("/v1"):
        assert one["id"] == (got.events[0] if stream else got.json)["id"]
    assert [choice["index"] for choice in found["choices"]] == list(range(len(found["choices"])))
    if path.startswith("/v1") and not stream:
        for old, choice in zip(found["choices"], got.choices, strict=True):
            same = {name: choice[name] for name in ("index", "entry", "sample", "model", "label", "provider", "finish_reason")}
            same |= {name: choice.get(name) for name in ("prompt_index",) if name in choice}
            assert old.items() >= same.items()
            assert old["text"] == (choice["text"] if "text" in choice else choice["message"]["content"])
            assert (old["error"] or {}).get("message") == (choice["error"] or {}).get("message")
            assert old["cost_usd"] == choice["cost_usd"]
            if choice["usage"]:
                assert old["usage"]["completion_tokens"] == choice["usage"]["completion_tokens"]
                assert old["timing"]["attempts"] == choice["timing"]["attempts"]
        assert (one["usage"]["prompt_tokens"], one["cost_usd"]) == (got.json["usage"]["prompt_tokens"], got.json["cost_usd"])
        assert (one["failed"] > 0, one["entries"][0]["model"]) == ("nobody" in str(DIALECTS[path]), SET[0])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("model", "status", "kind"), [("nobody", 404, "not_found"), ("up/429", 429, "rate_limit")])
async def test_a_request_that_failed_is_recorded_too(
    model: str, status: int, kind: str, stream: bool, recording_server: Server
) -> None:
    for path in ("/v1/completion", "/v1/completions", "/v4/completions"):
        got = await post(recording_server, path, {"model": model, "prompt": "hi", "stream": stream})
        found = await fetch_comparison(recording_server, got.headers["x-comparison-id"])

        assert (got.status, found["status"], found["failed"], found["answered"]) == (status, status, 1, 0)
        assert found["choices"][0]["error"]["kind"] == kind
        assert found["choices"][0]["error"]["message"] in got.error["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_comparison_whose_client_left_is_marked(stream: bool, recording_server: Server, upstream: Upstream) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await post(
                recording_server, "/v1/completion", {"model": ["up/ok", "up/sleep-0.9"], "prompt": "hi", "stream": stream}
            )
    await upstream.wait_until_idle()

    async with asyncio.timeout(5):
        while not (found := await fetch_page(recording_server)):
            await asyncio.sleep(0.02)

    assert (found[0]["status"], found[0]["client_left"], found[0]["answered"], found[0]["failed"]) == (499, True, 1, 1)
    choices = (await fetch_comparison(recording_server, found[0]["id"]))["choices"]
    assert [(choice["error"] or {}).get("kind") for choice in choices] == [None, "cancelled"]


async def test_a_request_without_calls_is_no_comparison(recording_server: Server) -> None:
    answered = [
        await post(recording_server, "/v1/completion", {"model": SET, "prompt": "The", "dry_run": True}),
        await post(recording_server, "/v1/completion", {"model": SET, "prompt": 7}),
        await post(recording_server, "/v1/completions", {"model": SET, "prompt": "The", "return_when": 9}),
    ]

    assert [got.status for got in answered] == [200, 400, 400]
    assert not any("x-comparison-id" in got.headers for got in answered)
    assert await fetch_page(recording_server) == []


async def test_texts_are_kept_only_if_the_operator_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "fanout.db"
    async with serve(FANOUT_STORE=str(path)) as server:
        got = await post(server, "/v1/completion", {"model": [*SET, "nobody"], "prompt": "Sesame and lilies"})
        found = await fetch_comparison(server, got.json["id"])

    assert found["request"] is None
    assert [choice["text"] for choice in found["choices"]] == [None] * 3
    assert found["choices"][2]["error"]["message"] is None
    assert found["choices"][2]["error"]["code"] == "model_not_found"
    sent = json.dumps({"model": [*SET, "nobody"], "prompt": "Sesame and lilies"}).encode()
    assert found["request_digest"] == hashlib.sha256(sent).hexdigest()
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"esame" not in everything
    assert got.choices[1]["text"].encode()[:20] not in everything


async def test_history_off_records_nothing_and_still_shows_old_comparisons(tmp_path: Path) -> None:
    for mode in ("usage", "off"):
        async with serve(FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY=mode) as server:
            got = await post(server, "/v1/completion", {"model": SET, "prompt": "The", "max_tokens": 2})
            found = await fetch_page(server)
            assert ("x-comparison-id" in got.headers) == (mode == "usage")

    assert len(found) == 1


async def test_filters_select_comparisons_and_metadata_has_two_spellings(recording_server: Server) -> None:
    hot = {"model": SET[0], "label": "hot", "temperature": 1}
    first = await post(
        recording_server,
        "/v1/completion",
        {"model": [hot, SET[1]], "prompt": "The", "metadata": {"experiment": "7", "a.b[c]": "x y"}},
        ACCOUNT,
    )
    second = await post(
        recording_server, "/v1/chat/completions", {"model": SET[1], "messages": HI, "metadata": {"experiment": "7"}}
    )
    third = await post(recording_server, "/v4/completions", {"model": "nobody", "prompt": "The", "account_id": "team-b"})
    one, two, three = (got.headers["x-comparison-id"] for got in (first, second, third))
    queries: dict[str, tuple[dict[str, str], list[str]]] = {
        "all": ({}, [three, two, one]),
        "model": ({"model": SET[1]}, [two, one]),
        "label": ({"label": "hot"}, [one]),
        "both of one answer": ({"label": "hot", "model": SET[1]}, []),
        "metadata": ({"metadata.experiment": "7"}, [two, one]),
        "brackets": ({"metadata[experiment]": "7", "metadata[a.b[c]]": "x y"}, [one]),
        "another value": ({"metadata.experiment": "8"}, []),
        "account": ({"account_id": "team-b"}, [three]),
        "nobody's": ({"account_id": ""}, [two]),
        "status": ({"status": "404"}, [three]),
        "failed": ({"failed": "true"}, [three]),
        "not failed": ({"failed": "false", "model": SET[1], "account_id": "team-a"}, [one]),
        "from now": ({"from": "2026-01-01", "to": "9999-12-31"}, [three, two, one]),
        "long ago": ({"to": "2020-01-01"}, []),
        "in future": ({"from": "9998-01-01T00:00:00Z"}, []),
    }

    for name, (query, expected) in queries.items():
        assert [found["id"] for found in await fetch_page(recording_server, **query)] == expected, name


async def test_texts_and_the_beginning_of_an_id_select_comparisons(recording_server: Server) -> None:
    for prompt in ("One Apple", "one pear", "an APPLE"):
        await post(recording_server, "/v1/completion", {"model": "up/say-plum", "prompt": prompt})
    ids = [one["id"] for one in await fetch_page(recording_server)]

    async def find(*texts: str) -> list[str]:
        async with recording_server.session.get("/v1/comparisons", params=[("text", text) for text in texts]) as response:
            return [one["id"] for one in (await response.json())["data"]]

    assert await find("apple") == [ids[0], ids[2]]
    assert await find("apple", "ONE") == [ids[2]]
    assert await find("plum") == ids, "of an answer, too"
    assert await find("apple", "cherry") == []
    assert [one["id"] for one in await fetch_page(recording_server, id_prefix=ids[1][:10])] == [ids[1]]
    assert (await fetch(recording_server, text="")).json["error"]["details"][0]["param"] == "text[0]"


async def test_pages_hold_every_comparison_exactly_once(recording_server: Server, tmp_path: Path) -> None:
    made = []
    for number in range(7):
        made.append(
            (await post(recording_server, "/v1/completion", {"model": SET[0], "prompt": "The", "max_tokens": 1})).json["id"]
        )
        if number == 3:  # half of it is written, half of it is not
            async with asyncio.timeout(5):
                while count_rows(tmp_path / "fanout.db") < 4:
                    await asyncio.sleep(0.02)
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        answer = (await fetch(recording_server, limit="3", **after)).json
        found += [one["id"] for one in answer["data"]]
        assert (answer["first_id"], answer["last_id"]) == (answer["data"][0]["id"], answer["data"][-1]["id"])
        if not answer["has_more"]:
            break
        after = {"after": answer["last_id"]}

    assert found == made[::-1]


async def test_every_wrong_parameter_is_named_at_once(recording_server: Server) -> None:
    wrong = "limit=0&status=99&failed=maybe&from=soon&to=later&modle=x&model=a&model=b&metadata=7&after="
    async with recording_server.session.get(f"/v1/comparisons?{wrong}") as response:
        error = (await response.json())["error"]

    faults = {detail["param"]: detail["message"] for detail in error["details"]}
    assert response.status == 400
    assert faults["limit"] == "`0` is not allowed: a whole number from 1 to 100"
    assert faults["status"] == "`99` is not allowed: an HTTP status, 100 to 599"
    assert faults["failed"] == "`maybe` is not allowed: `true` or `false`"
    assert faults["modle"] == "unknown field `modle`; did you mean `model`?"
    assert faults["model"] == "is given more than once: once is allowed"
    assert faults["metadata"] == "is written `metadata.KEY=VALUE`"
    assert {"from", "to", "after"} <= set(faults)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=2026-11-20&to=2026-11-01", "to"),
        ("after=0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e", "after"),
        ("metadata.k=1&metadata[k]=2", "metadata[k]"),
        (f"metadata.{'k' * 65}=1", None),
        ("limit=101", "limit"),
        ("limit=٣", "limit"),
    ],
)
async def test_a_wrong_parameter_is_refused(query: str, param: str | None, recording_server: Server) -> None:
    async with recording_server.session.get(f"/v1/comparisons?{query}") as response:
        error = (await response.json())["error"]

    assert response.status == 400
    assert param is None or error["param"] == param


async def test_an_unknown_id_is_404(recording_server: Server) -> None:
    for id_ in ("nope", "0b54b61c-9df7-4f0f-9d3b-5a2d0c3c1f0e", "%00", "x" * 3000):
        got = await fetch(recording_server, f"/{id_}")
        assert (got.status, got.error["code"], got.error["param"]) == (404, "comparison_not_found", "id")


async def test_without_a_store_the_answer_is_503_store_off(tmp_path: Path) -> None:
    async with serve(FANOUT_STORE="off") as server:
        answered = await post(server, "/v1/completion", {"model": SET, "prompt": "The", "max_tokens": 2})
        answers = [await fetch(server), await fetch(server, "/x")]

    assert answered.status == 200
    assert [(got.status, got.error["code"], got.headers["x-should-retry"]) for got in answers] == [
        (503, "store_off", "false")
    ] * 2


async def test_a_broken_database_gives_503_and_completions_still_work(
    recording_server: Server, tmp_path: Path, log_lines: list[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "fanout.db")) as database:
        database.execute("DROP TABLE comparisons")
        database.commit()

    answers = [await fetch(recording_server), await fetch(recording_server, "/x")]
    going_on = {"model": SET, "input": "x", "previous_response_id": "resp_1"}
    answers.append(await post(recording_server, "/v1/responses", going_on))
    answered = await post(recording_server, "/v1/completion", {"model": SET, "prompt": "The", "max_tokens": 2})

    known = [(got.status, got.error["code"], got.headers["Retry-After"]) for got in answers]
    assert known == [(503, "store_unavailable", "5")] * 3
    assert answered.status == 200
    assert any("no such table: comparisons" in line for line in log_lines)


async def test_the_history_needs_a_key_like_all_other_paths() -> None:
    async with serve(FANOUT_API_KEYS="key-one-abcdefghij") as server:
        assert [(await fetch(server)).status, (await fetch(server, "/x")).status] == [401, 401]


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
    assert long_ago <= count_rows(path) <= len(ended) + 8


async def test_sigterm_loses_nothing(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "fanout.db"
    config = write_providers_file(upstream.url, tmp_path, timeout_s=60)
    serve = ("serve", "--port", "0", "--config", str(config))

    async with start_fanout(*serve, FANOUT_STORE=str(path), FANOUT_GRACE_S="0.2", FANOUT_LOG_LEVEL="error") as process:
        async with aiohttp.ClientSession(await read_address(process)) as session:
            waiting = [
                asyncio.create_task(session.post("/v1/completion", json={"model": "up/hang", "prompt": "hi"})) for _ in range(3)
            ]
            await upstream.wait_for_requests(3)
            for _ in range(40):
                async with session.post("/v1/completion", json={"model": SET, "prompt": "The", "max_tokens": 2}) as it:
                    assert it.status == 200
            process.terminate()
            await asyncio.gather(*waiting)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0

    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT status, count(*) FROM comparisons GROUP BY status ORDER BY status").fetchall()
    assert found == [(200, 40), (503, 3)]
