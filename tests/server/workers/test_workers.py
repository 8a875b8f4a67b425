"""`fanout serve --workers 2`: real processes that share a port, a store, metrics, streams and keys."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.builders.settings import write_providers_file
from tests.support.cli import ServerProcess, run_fanout, start_server
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "an-administrators-key-0123"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CONNECTIONS = 16
"""Connections that are opened to have one to each worker: all but one in 32,768 times they are not all to the same."""
ANSWERED = 'http_server_request_duration_seconds_count{http_request_method="POST",http_route="/v1/completion"'


@dataclass(frozen=True, slots=True)
class Workers:
    """A server of two workers, and a connection to each."""

    serving: ServerProcess
    config: Path
    upstream: Upstream
    sessions: Mapping[int, aiohttp.ClientSession]

    async def complete(self, worker: int, model: str = "up/ok", **headers: str) -> Any:
        async with self.sessions[worker].post(
            "/v1/completion", json={"prompt": "hi", "model": model}, headers=headers
        ) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def get(self, worker: int, path: str) -> Any:
        async with self.sessions[worker].get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def get_status(self, worker: int, path: str, headers: Mapping[str, str]) -> int:
        async with self.sessions[worker].get(path, headers=headers) as response:
            await response.read()  # or the connection would be closed, and the next one be anybody's
            return response.status

    async def count_answered(self, worker: int) -> float:
        async with self.sessions[worker].get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(ANSWERED))

    def find_pids(self) -> dict[int, int]:
        """Return the processes of the workers, which the system lists in the order of their starts."""
        children = Path(f"/proc/{self.serving.process.pid}/task/{self.serving.process.pid}/children").read_text()
        return dict(enumerate(map(int, children.split())))


def write_config(upstream: Upstream, folder: Path, **models: Any) -> Path:
    """Write a configuration with two accounts beside `up` that have limits."""
    row = {"adapter": "openai", "base_url": upstream.url, "retries": {"attempts": 1}}
    limited = {
        "few": {**row, "limits": {"requests_per_minute": 6}},
        "narrow": {**row, "limits": {"concurrency": 2}},
    }
    more = {"providers": limited, "models": models}
    return write_providers_file(upstream.url, folder, api_key_env="UP_KEY", retries={"attempts": 1}, more=more)


async def connect(serving: ServerProcess, stack: AsyncExitStack) -> dict[int, aiohttp.ClientSession]:
    """Return a client with a kept connection to each worker."""
    opened: dict[str, aiohttp.ClientSession] = {}
    for number in range(CONNECTIONS):
        connector = aiohttp.TCPConnector(limit=1)
        session = await stack.enter_async_context(aiohttp.ClientSession(serving.url, connector=connector, headers=HEADERS))
        opened[f"connection-{number}-{id(stack)}"] = session
    for id_, session in opened.items():
        async with session.get("/v1/models", headers={"x-request-id": id_}) as response:
            await response.read()
    by_worker: dict[int, aiohttp.ClientSession] = {}
    async with asyncio.timeout(5):
        while len(by_worker) < 2:
            await asyncio.sleep(0.02)
            lines = serving.log_lines("request.answered")
            by_worker = {line["worker"]: opened[line["request_id"]] for line in lines if line["request_id"] in opened}
    return by_worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workers]:
    """Two workers before the scripted upstream."""
    folder = tmp_path_factory.mktemp("workers")
    async with Upstream() as upstream, AsyncExitStack() as stack:
        config = write_config(upstream, folder)
        store = str(folder / "store.db")
        start = start_server(config, FANOUT_WORKERS="2", FANOUT_STORE=store, FANOUT_API_KEYS=KEY, UP_KEY="k")
        serving = await stack.enter_async_context(start)
        yield Workers(serving, config, upstream, await connect(serving, stack))


async def test_whichever_worker_answers_the_metrics_shows_the_sums(workers: Workers) -> None:
    before = await workers.count_answered(0)

    for worker in (0, 1, 1):
        await workers.complete(worker)

    assert [await workers.count_answered(worker) - before for worker in (0, 1)] == [3, 3]


async def test_each_worker_is_listed_among_the_processes_that_share_the_store(workers: Workers) -> None:
    listed = (await workers.get(1, "/v1/workers"))["data"]

    assert sorted(process["pid"] for process in listed) == sorted(workers.find_pids().values())
    assert {(process["kind"], process["state"]) for process in listed} == {("serve", "working")}


async def test_what_one_worker_has_answered_is_in_the_history_and_usage_of_the_other_at_once(workers: Workers) -> None:
    (row,) = (await workers.get(1, "/v1/usage?group_by="))["data"] or [{"requests": 0}]

    answer = await workers.complete(0)
    past = await workers.get(1, f"/v1/comparisons/{answer['id']}")
    (summed,) = (await workers.get(1, "/v1/usage?group_by="))["data"]

    assert past["id"] == answer["id"]
    assert summed["requests"] == row["requests"] + 1


async def test_repetitions_at_both_workers_are_one_call(workers: Workers) -> None:
    before = len(workers.upstream.requests)
    headers = {"Idempotency-Key": "once"}

    answers = await asyncio.gather(*(workers.complete(worker, "up/sleep-0.1", **headers) for worker in (0, 1, 0, 1)))

    assert len(workers.upstream.requests) == before + 1
    assert len({answer["id"] for answer in answers}) == 1


async def test_a_stream_is_taken_up_and_cancelled_at_the_other_worker(workers: Workers) -> None:
    body = {"prompt": "hi", "model": ["up/chunks-400-gap-0.02", "up/ok"], "stream": True, "resumable": True}
    async with workers.sessions[0].post("/v1/completion", json=body) as first:
        path = f"/v1/comparisons/{first.headers['x-comparison-id']}"
        async with workers.sessions[1].post(f"{path}/cancel", json={"index": [0]}) as response:
            cancelled = await response.json()
        async with workers.sessions[1].get(f"{path}/events") as response:
            events = await response.text()
        whole = await first.text()
    missing = await workers.get_status(1, "/v1/comparisons/none/events", {})

    assert (cancelled["cancelled"], missing) == ([0], 404)
    assert events == whole
    assert events.endswith("data: [DONE]\n\n")


async def test_a_key_counts_at_both_workers_before_its_answer_has_left(workers: Workers) -> None:
    async with workers.sessions[0].post("/v1/keys", json={"name": "new"}) as response:
        key = await response.json()
    own = {"Authorization": f"Bearer {key['key']}"}

    shown = [await workers.get_status(worker, "/v1/keys/self", own) for worker in (0, 1)]
    async with workers.sessions[1].delete(f"/v1/keys/{key['id']}") as response:
        assert (await response.json())["id"] == key["id"]
    refused = [await workers.get_status(worker, "/v1/keys/self", own) for worker in (0, 1)]

    assert (shown, refused) == ([200, 200], [401, 401])


@pytest.mark.parametrize(("model", "sent", "at_once"), [("few/echo", 6, 6), ("narrow/sleep-0.05", 16, 2)])
async def test_the_limits_of_an_account_are_exact_over_both_workers(
    workers: Workers, model: str, sent: int, at_once: int
) -> None:
    body = {"prompt": "hi", "model": model, "timeout_s": 2}

    async def send(session: aiohttp.ClientSession) -> int:
        async with session.post("/v1/completion", json=body) as response:
            await response.read()
            return response.status

    async with aiohttp.ClientSession(workers.serving.url, headers=HEADERS) as session:  # each on a connection of its own
        statuses = await asyncio.gather(*(send(session) for _ in range(16)))

    name = model.partition("/")[2]
    assert len(workers.upstream.requests_for(name)) == statuses.count(200) == sent
    assert workers.upstream.peaks[name] <= at_once


async def test_the_limits_of_a_key_are_exact_over_both_workers(workers: Workers) -> None:
    async with workers.sessions[0].post("/v1/keys", json={"name": "limited", "requests_per_minute": 3}) as response:
        key = await response.json()
    own = {"Authorization": f"Bearer {key['key']}"}

    async def send(worker: int) -> int:
        body = {"prompt": "hi", "model": "up/ok"}
        async with workers.sessions[worker].post("/v1/completion", json=body, headers=own) as response:
            await response.read()
            return response.status

    statuses = await asyncio.gather(*(send(number % 2) for number in range(8)))
    shown = [await workers.get(worker, f"/v1/keys/{key['id']}") for worker in (0, 1)]

    assert sorted(statuses) == [200] * 3 + [429] * 5
    assert [one["used"]["requests_per_minute"] for one in shown] == [3, 3], shown


async def test_a_job_is_cancelled_at_the_other_worker_at_once(workers: Workers) -> None:
    before = len(workers.upstream.requests)
    items = [{"prompt": "hi"}] * 400
    async with workers.sessions[0].post("/v1/jobs", json={"models": "up/sleep-0.2", "items": items}) as made:
        job = await made.json()
    await workers.upstream.wait_for_requests(before + 2)

    async with workers.sessions[1].post(f"/v1/jobs/{job['id']}/cancel", json={}) as response:
        assert response.status == 200, await response.text()
        await response.read()
    async with asyncio.timeout(2):  # a lease is renewed every three seconds
        while (state := (await workers.get(1, f"/v1/jobs/{job['id']}"))["state"]) != "cancelled":
            assert state in ("running", "cancelling")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_signal", [True, False])
async def test_a_reload_reaches_both_workers(workers: Workers, is_signal: bool) -> None:
    name = f"new-{is_signal}"
    model = {"provider": "up", "id": "ok", "kind": "chat"}
    write_config(workers.upstream, workers.config.parent, **{name: model})

    if is_signal:
        count = len(workers.serving.log_lines("config.reloaded"))
        workers.serving.process.send_signal(signal.SIGHUP)
        await workers.serving.wait_for_event("config.reloaded", count + 1)
    else:
        async with workers.sessions[1].post("/v1/config/reload", json={}) as response:
            assert (await response.json())["changed"]["models"] == ["new-True", name]

    for worker in (0, 1):
        assert (await workers.complete(worker, name))["choices"][0]["error"] is None


async def test_a_worker_that_is_killed_is_replaced_and_nobody_else_notices(workers: Workers) -> None:
    counted = await workers.count_answered(0)
    before = len(workers.upstream.requests)
    doomed = asyncio.create_task(workers.complete(1, "up/sleep-5"))
    safe = asyncio.create_task(workers.complete(0, "up/sleep-0.3"))
    await workers.upstream.wait_for_requests(before + 2)
    died = len(workers.serving.log_lines("worker.died"))

    os.kill(workers.find_pids()[1], signal.SIGKILL)
    async with aiohttp.ClientSession(workers.serving.url, headers=HEADERS) as session:
        for _ in range(8):  # each on a connection of its own, half of which are the dead one's
            async with session.post("/v1/completion", json={"prompt": "hi", "model": "up/ok"}) as response:
                assert response.status == 200
                response.close()

    with pytest.raises(aiohttp.ClientError):
        await doomed
    assert (await safe)["choices"][0]["error"] is None
    (line,) = (await workers.serving.wait_for_event("worker.died", died + 1))[died:]
    assert (line["worker"], line["signal"], line["replaced_in_s"]) == (1, "SIGKILL", 0.0)
    await workers.serving.wait_for_event("worker.replaced")
    assert await workers.count_answered(0) >= counted + 9, "what the dead one had counted stays counted"


async def test_sigterm_lets_the_requests_of_both_workers_finish(tmp_path: Path) -> None:
    async with Upstream() as upstream, AsyncExitStack() as stack:
        config = write_providers_file(upstream.url, tmp_path, api_key_env="UP_KEY")
        store = str(tmp_path / "store.db")
        start = start_server(config, FANOUT_WORKERS="2", FANOUT_STORE=store, UP_KEY="k", FANOUT_DRAIN_S="0")
        serving = await stack.enter_async_context(start)
        both = Workers(serving, config, upstream, await connect(serving, stack))
        running = [asyncio.create_task(both.complete(worker, "up/sleep-0.4")) for worker in (0, 1)]
        await upstream.wait_for_requests(2)
        for pid in (*both.find_pids().values(), serving.process.pid):  # as a service manager may do
            os.kill(pid, signal.SIGTERM)
        answers = await asyncio.gather(*running)
        code = await serving.wait()
        lines = serving.log_lines("server.stopping")

    assert [answer["choices"][0]["error"] for answer in answers] == [None, None]
    assert (code, sorted(line["worker"] for line in lines)) == (0, [0, 1])


async def test_a_server_whose_workers_cannot_start_ends_with_their_error(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    store.write_text("this is no database, and will not become one by being opened")

    result = await run_fanout("serve", "--workers", "2", "--port", "0", FANOUT_STORE=str(store))

    assert result.code == 2
    assert result.err.count("FANOUT_STORE") == 1, result.err


@pytest.mark.parametrize(
    ("workers", "variables", "sentence"),
    [
        ("0", {}, "0 is not in the range 1<=x<=64"),
        ("abc", {}, "'abc' is not a valid integer"),
        ("65", {}, "65 is not in the range 1<=x<=64"),
        (
            "2",
            {"FANOUT_STORE": ":memory:"},
            "FANOUT_STORE: is `:memory:`: 2 workers share a store; name a file or a PostgreSQL",
        ),
        ("4", {"FANOUT_MAX_HELD_BYTES": "100000000"}, "FANOUT_MAX_HELD_BYTES: is 100000000; 4 workers share it"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(workers: str, variables: dict[str, Any], sentence: str) -> None:
    result = await run_fanout("serve", "--workers", workers, "--port", "0", **variables)

    assert result.code == 2
    assert sentence in result.err
