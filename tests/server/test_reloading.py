"""Reloading: all of a configuration or nothing; what runs ends under the old one, and limits keep their counts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fanout.server.reloading import RELOADER
from tests.support.cli import PATIENCE_S, run_fanout
from tests.support.client import Client
from tests.support.server import Server, serve
from tests.support.terminal import TerminalSession
from tests.support.upstream.server import Upstream

KEY, OTHER = "key-one-abcdefghij", "key-two-0123456789"
RETRIES = {"attempts": 2, "max_delay_s": 0.01}


def write_config(upstream: Upstream, folder: Path, name: str = "up", **row: Any) -> Path:
    """Write a providers.json whose only provider before the upstream has this name."""
    rows = {"providers": {name: {"adapter": "openai", "base_url": upstream.url, "retries": RETRIES, **row}}}
    path = folder / "providers.json"
    path.write_text(json.dumps({"extends": False, **rows}))
    return path


async def reload(client: Client, **headers: str) -> Any:
    return await client.send("POST", "/v1/config/reload", headers=headers)


@pytest.fixture
async def running(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    async with serve(write_config(upstream, tmp_path)) as server:
        yield server


async def test_what_runs_ends_under_the_old_configuration_and_new_requests_see_the_new_one(
    running: Server, upstream: Upstream, tmp_path: Path
) -> None:
    client = Client(running)
    streamed = asyncio.create_task(client.stream(model=["up/chunks-10-gap-0.03", "up/ok"]))
    retried = asyncio.create_task(client.complete(model="up/503-sleep-0.2-then-ok"))
    await upstream.wait_for_requests(3)
    write_config(upstream, tmp_path, "renamed")

    reply = await reload(client)

    assert (reply.status, reply.json["changed"]) == (
        200,
        {"variables": [], "providers": ["up", "renamed"], "models": [], "sets": []},
    )
    assert reply.json["files"] == [str(tmp_path / "providers.json")]
    old, new = await client.complete(model="up/ok"), await client.complete(model="renamed/ok")
    assert (old.status, old.json["error"]["code"], new.status) == (404, "model_not_found", 200)
    assert not streamed.done()
    assert not retried.done()
    assert [end["error"] for end in (await streamed).ends] == [None, None]
    answer = await retried
    assert (answer.status, answer.choice["timing"]["attempts"]) == (200, 2)
    assert [provider["id"] for provider in (await client.send("GET", "/v1/providers")).json["data"]] == ["renamed"]


async def test_a_configuration_with_faults_changes_nothing_and_every_fault_is_named(
    running: Server, upstream: Upstream, tmp_path: Path
) -> None:
    client = Client(running)
    path = write_config(upstream, tmp_path, timeout_s=-1, colour="red")
    reply = await reload(client)

    assert (reply.status, reply.json["error"]["code"]) == (409, "invalid_configuration")
    named = [detail["param"] for detail in reply.json["error"]["details"]]
    assert named == [f"{path}: providers.up.timeout_s", f"{path}: providers.up.colour"]
    assert (await client.complete(model="up/ok")).status == 200

    for adapter in ("no_such_adapter", "hooks.leaving"):
        write_config(upstream, tmp_path, "mine", adapter=f"tests.support.{adapter}")
        reply = await reload(client)
        assert (reply.status, (await client.complete(model="up/ok")).status) == (409, 200)


async def test_an_adapter_with_a_bug_changes_nothing_either_and_a_signal_logs_it(
    running: Server, upstream: Upstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(running)
    write_config(upstream, tmp_path, "mine", adapter="tests.support.hooks.faulty")
    assert (await reload(client)).status == 500
    running.app[RELOADER].reload_by_signal()
    await running.app[RELOADER].close()
    running.app[RELOADER].reload_by_signal()
    async with asyncio.timeout(5):
        while "config.reload_crashed" not in "".join(capsys.readouterr()):
            await asyncio.sleep(0.01)
    assert (await client.complete(model="up/ok")).status == 200


async def test_limits_keep_their_counts(upstream: Upstream, tmp_path: Path) -> None:
    config = write_config(upstream, tmp_path, limits={"requests_per_minute": 2})
    async with serve(config) as server:
        client = Client(server)
        assert (await client.complete(model=["up/ok"] * 2)).status == 200
        write_config(upstream, tmp_path, limits={"requests_per_minute": 3})
        assert (await reload(client)).status == 200
        assert (await client.complete(model="up/ok", timeout_s=1)).status == 200
        reply = await client.complete(model="up/ok", timeout_s=1)
    assert (reply.status, reply.json["error"]["code"]) == (429, "queue_too_long")


async def test_administrators_alone_reload_and_the_audit_table_names_them(upstream: Upstream, tmp_path: Path) -> None:
    config, administrator = write_config(upstream, tmp_path), {"Authorization": f"Bearer {KEY}"}
    async with serve(config, FANOUT_API_KEYS=f"ops:{KEY}", FANOUT_STORE=":memory:") as server:
        client = Client(server)
        made = await client.send("POST", "/v1/keys", {"name": "team", "account_id": "team"}, headers=administrator)
        write_config(upstream, tmp_path, "second")
        refused = await reload(client, Authorization=f"Bearer {made.json['key']}")
        assert (refused.status, (await reload(client, **administrator)).status) == (403, 200)
        audit = await client.send("GET", "/v1/audit", headers=administrator)

    row = next(row for row in audit.json["data"] if row["event"] == "configuration.reloaded")
    assert (row["actor"], row["details"]["providers"]) == ("environment:ops", ["up", "second"])


async def test_keys_are_exchanged_and_a_request_without_one_reloads_nothing(upstream: Upstream, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    async with serve(write_config(upstream, tmp_path), FANOUT_API_KEYS_FILE=str(keys)) as server:
        client = Client(server)
        keys.write_text(f"{OTHER}\n")
        assert (await reload(client)).status == 401
        reply = await reload(client, Authorization=f"Bearer {KEY}")
        assert (reply.status, reply.json["changed"]["variables"]) == (200, ["FANOUT_API_KEYS"])
        assert KEY not in str(reply.json)
        statuses = [(await reload(client, Authorization=f"Bearer {key}")).status for key in (KEY, OTHER)]
    assert statuses == [401, 200]


async def test_the_command_reloads_and_prints_the_changes_or_a_line_for_each_fault(
    running: Server, upstream: Upstream, tmp_path: Path
) -> None:
    path = write_config(upstream, tmp_path, "second")
    command = await run_fanout("reload", "--server", running.url)
    assert (command.code, command.out, command.err) == (0, "providers: up, second\n", "")

    path.write_text('{"providers": 1, "sets": 2}')
    command = await run_fanout("reload", "--server", running.url)
    assert (command.code, command.out) == (2, "")
    named = [line.removeprefix(f"fanout: {path}: ").partition(":")[0] for line in command.err.splitlines()]
    assert named == ["providers", "sets"]


async def test_a_signal_reloads_but_one_of_a_terminal_that_has_gone_stops(upstream: Upstream, tmp_path: Path) -> None:
    config = write_config(upstream, tmp_path)
    async with TerminalSession("serve", "--port", "0", "--config", str(config)) as session:
        await session.wait_for("listens on")
        os.kill(session.process.pid, signal.SIGHUP)
        await session.wait_for("config.reloaded")
        config.write_text('{"providers": 1}')
        os.kill(session.process.pid, signal.SIGHUP)
        await session.wait_for("config.reload_failed")
        assert session.process.returncode is None
        session.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            assert await session.process.wait() == 0
