"""Streams that are taken up again: `resumable`, `Last-Event-ID`, and stopping some of the calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.server import live_comparisons
from fanout.server.live_comparisons import BLOCK_EVENTS, EventLog
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

SLOW = "up/chunks-40-gap-0.02"
KEYS = {"FANOUT_API_KEYS": "one:key-of-account-one-1,two:key-of-account-two-2"}


class Reader:
    """A reader of events with their numbers."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.events: list[tuple[int, Any]] = []

    @property
    def last(self) -> int:
        return self.events[-1][0]

    def text(self, index: int) -> str:
        choices = [choice for _, event in self.events if event != "[DONE]" for choice in event["choices"]]
        return "".join(choice["text"] for choice in choices if choice["index"] == index)

    async def read(self, count: int | None = None) -> None:
        """Read so many events, or all to the end."""
        while count is None or len(self.events) < count:
            line = (await self.response.content.readline()).decode()
            if not line:
                return
            if line.startswith("id: "):
                data = (await self.response.content.readline()).decode().removeprefix("data: ").strip()
                self.events.append((int(line[4:]), data if data == "[DONE]" else json.loads(data)))


@asynccontextmanager
async def start(server: Server, *models: str, **headers: str) -> AsyncIterator[Reader]:
    """Start a comparison and read its first event."""
    body = {"prompt": "hi", "model": list(models), "stream": True, "resumable": True}
    async with server.session.post("/v1/completion", json=body, headers=headers) as response:
        reader = Reader(response)
        await reader.read(1)
        yield reader


@asynccontextmanager
async def take_up(server: Server, id_: str, after: int | None = None) -> AsyncIterator[Reader]:
    """Take a comparison up again, after an event."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with server.session.get(f"/v1/comparisons/{id_}/events", headers=headers) as response:
        assert response.status == 200, await response.text()
        yield Reader(response)


async def test_a_broken_stream_is_taken_up_again_without_a_gap_or_a_repetition(server: Server, upstream: Upstream) -> None:
    async with start(server, SLOW, "ok") as first:
        await first.read(10)
        id_ = first.events[0][1]["id"]
        first.response.close()

    async with take_up(server, id_, first.last) as rest:
        await rest.read()
    async with take_up(server, id_) as again:
        await again.read()

    assert [number for number, _ in first.events + rest.events] == list(range(1, rest.last + 1))
    assert first.events + rest.events == again.events
    assert again.events[-1][1] == "[DONE]"
    assert len(upstream.requests) == 2, "no call was made a second time"
    assert upstream.abandoned == []


async def test_a_stream_that_has_ended_holds_no_answer_beside_its_events(server: Server) -> None:
    """Nobody read its end, and its events are kept for whoever takes it up."""
    async with start(server, "up/mb-2-gap-0.001", "up/cut") as first:
        id_ = first.events[0][1]["id"]
        first.response.close()
    live = server.app[live_comparisons.LIVE_COMPARISONS].find(id_, None)
    assert live
    await live.task
    assert server.dispatcher.answers.used == 0
    assert len(live.collected.outcomes) == 2
    for outcome in live.collected.outcomes:
        assert len(repr(outcome.result)) < 1000
    async with take_up(server, id_) as again:
        await again.read()
    assert len(again.text(0)) == 2_000_000


async def test_two_readers_get_the_same_events(server: Server) -> None:
    async with start(server, SLOW) as one, take_up(server, one.events[0][1]["id"]) as other:
        await asyncio.gather(one.read(), other.read())

    assert one.events == other.events


async def test_one_call_is_stopped_and_keeps_its_text_while_the_others_go_on(server: Server, upstream: Upstream) -> None:
    async with start(server, SLOW, "up/first-0.4", SLOW) as reader:
        await reader.read(6)
        path = f"/v1/comparisons/{reader.events[0][1]['id']}/cancel"
        async with server.session.post(path, json={"index": [0]}) as answer:
            assert (await answer.json())["cancelled"] == [0]
        await reader.read()
        async with server.session.post(path, json={}) as answer:
            assert (await answer.json())["cancelled"] == [], "all have ended"

    ends = {c["index"]: c for _, e in reader.events if e != "[DONE]" for c in e["choices"] if "usage" in c}
    assert ends[0]["error"]["kind"] == "cancelled"
    assert ends[1]["error"] is ends[2]["error"] is None
    assert 0 < len(reader.text(0)) < len(reader.text(2))
    assert len(upstream.abandoned) == 1


async def test_a_comparison_that_nobody_reads_is_cancelled_and_recorded(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_comparisons, "ABANDONED_S", 0.05)
    async with serve(write_providers_file(upstream.url, tmp_path), FANOUT_STORE=str(tmp_path / "store.db")) as server:
        async with start(server, "up/chunks-1000-gap-0.02") as reader:
            reader.response.close()
        await upstream.wait_until_idle()
        async with server.session.get("/v1/comparisons") as answer:
            (stored,) = (await answer.json())["data"]

    assert len(upstream.abandoned) == 1
    assert (stored["id"], stored["status"], stored["client_left"]) == (reader.events[0][1]["id"], 499, True)


async def test_a_comparison_whose_reader_left_goes_on_and_is_recorded_whole(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path)
    async with serve(config, FANOUT_STORE=str(tmp_path / "store.db"), FANOUT_HISTORY="full") as server:
        async with start(server, SLOW) as reader:
            id_ = reader.events[0][1]["id"]
            reader.response.close()
        async with take_up(server, id_) as rest:
            await rest.read()
        async with server.session.get(f"/v1/comparisons/{id_}") as answer:
            stored = await answer.json()

    assert (stored["status"], stored["choices"][0]["text"]) == (200, rest.text(0))


async def test_a_foreign_account_finds_no_comparison(upstream: Upstream, tmp_path: Path) -> None:
    own, other = ({"Authorization": f"Bearer key-of-account-{name}"} for name in ("one-1", "two-2"))
    config = write_providers_file(upstream.url, tmp_path)
    async with serve(config, **KEYS) as server, start(server, SLOW, **own) as reader:
        for method, path in (("GET", "events"), ("POST", "cancel")):
            address = f"/v1/comparisons/{reader.events[0][1]['id']}/{path}"
            async with server.session.request(method, address, json={}, headers=other) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (404, "comparison_not_found")


async def test_with_an_idempotency_key_the_same_events_are_sent_again(client: Client, upstream: Upstream) -> None:
    body = {"model": ["up/ok", "up/chunks-5"], "stream": True, "resumable": True}
    first, again = [await client.complete({"Idempotency-Key": "once"}, **body) for _ in range(2)]

    assert first.body == again.body
    assert first.body.startswith(b"id: 1\n")
    assert (again.headers["Idempotent-Replayed"], len(upstream.requests)) == ("true", 2)


async def test_if_every_call_fails_the_answer_is_an_error(client: Client) -> None:
    reply = await client.complete(model=["up/502", "nobody"], stream=True, resumable=True)

    assert reply.status == 502
    assert [detail["index"] for detail in reply.error["details"]] == [0, 1]


async def test_resumable_needs_a_stream(client: Client) -> None:
    reply = await client.complete(model="ok", stream=False, resumable=True)

    assert (reply.status, reply.params) == (400, ["resumable"])


@pytest.mark.parametrize(("given", "says"), [("x", "is not allowed"), ("-1", "is not allowed"), ("9999", "the last event")])
async def test_a_wrong_number_is_refused(given: str, says: str, server: Server) -> None:
    async with start(server, "ok") as reader:
        await reader.read()
    headers = {"Last-Event-ID": given}
    async with server.session.get(f"/v1/comparisons/{reader.events[0][1]['id']}/events", headers=headers) as answer:
        assert answer.status == 400
        assert says in (await answer.json())["error"]["message"]


async def test_the_log_returns_every_event_from_any_place_and_stays_small() -> None:
    log = EventLog()
    count = 5 * BLOCK_EVENTS + 7
    for number in range(count):
        await log.append(b'data: {"id":"8f3e3832","choices":[{"index":0,"text":"%d"}]}\n\n' % number)

    for after in (0, 1, BLOCK_EVENTS - 1, BLOCK_EVENTS, 3 * BLOCK_EVENTS + 5, count - 1, count):
        place, found = after, b""
        while piece := (log.read(place) or (b"", 0))[0]:
            found += piece
            place = (log.read(place) or (b"", 0))[1]
        assert found.count(b"id: ") == count - after
        assert found.startswith(b"id: %d\n" % (after + 1) if after < count else b"")
    assert log.bytes < count * 10


async def test_the_log_drops_its_oldest_events_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_comparisons, "MAX_STREAM_BYTES", 4096)
    log = EventLog()
    for number in range(50 * BLOCK_EVENTS):
        await log.append(b"data: %d\n\n" % number)

    assert log.bytes <= 4096
    assert log.read(0) is None
    assert log.read(log.last) == (b"", log.last)


async def test_the_log_counts_and_compresses_long_events_however_few() -> None:
    log = EventLog()
    for number in range(BLOCK_EVENTS - 1):
        await log.append(b"data: %d %s\n\n" % (number, b"x" * 2**16))

    assert 0 < log.bytes < 2**20
    place, found = 0, []
    while place < log.last:
        piece, place = log.read(place) or pytest.fail("nothing is dropped")
        found += [event.split(b" ")[2] for event in piece.split(b"\n\n")[:-1]]
    assert found == [b"%d" % number for number in range(BLOCK_EVENTS - 1)]


async def test_an_ended_log_is_compressed_to_its_end() -> None:
    log = EventLog()
    await log.append(b"data: %s\n\n" % (b"x" * 2**16))
    await log.pack()

    assert log.bytes < 1024
    assert (log.read(0) or (b"", 0))[0].count(b"x") == 2**16
    assert log.read(1) == (b"", 1)
