"""`fanout worker` and `fanout serve` started while PostgreSQL is away: they wait for it, and for nothing else."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import ConfigError
from fanout.store import opening
from fanout.store.opening import open_store
from tests.support.cli import end, read_until, run_fanout, start_fanout
from tests.support.postgres import PASSWORD, Postgres

COMMANDS = [("worker",), ("serve", "--port", "0"), ("serve", "--port", "0", "--workers", "2")]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=["worker", "serve", "serve --workers"])


def list_events(output: str) -> list[dict[str, Any]]:
    events = []
    for line in output.splitlines():
        with suppress(ValueError):
            events.append(json.loads(line))
    return events


@each_command
async def test_it_waits_for_a_database_that_is_away(command: tuple[str, ...], restartable_postgres: Postgres) -> None:
    location = await restartable_postgres.create()
    await asyncio.to_thread(restartable_postgres.stop)
    async with start_fanout(*command, FANOUT_STORE=location) as process:
        output = await read_until(process, "store.unreachable")
        await asyncio.sleep(1.2)  # for two attempts more
        await asyncio.to_thread(restartable_postgres.start)
        output += await read_until(process, "Fanout ")
        code, rest = await end(process)

    output += rest
    events = [event for event in list_events(output) if event["event"].startswith("store.")]
    names = [event["event"] for event in events]
    assert names[:2] == ["store.unreachable", "store.reached"]
    assert names.count("store.unreachable") == 1
    assert "Connect call failed" in events[0]["reason"]
    assert events[1]["after_s"] >= 1.2
    assert (code, PASSWORD in output) == (0, False)


@each_command
async def test_sigterm_ends_the_wait(command: tuple[str, ...], restartable_postgres: Postgres) -> None:
    location = await restartable_postgres.create()
    await asyncio.to_thread(restartable_postgres.stop)
    async with start_fanout(*command, FANOUT_STORE=location) as process:
        await read_until(process, "store.unreachable")
        code, rest = await end(process)
    assert code == 0
    assert "Traceback" not in rest
    assert "fanout:" not in rest


@each_command
async def test_what_never_ends_by_itself_is_an_error_at_once(command: tuple[str, ...], postgres_server: Postgres) -> None:
    wrong = {
        postgres_server.url("migrated", password="geheim-falsch"): 'password authentication failed for user "fanout"',
        postgres_server.url("absent"): 'database "absent" does not exist',
        "postgresql://fanout@nowhere.invalid/fanout": "postgresql://nowhere.invalid/fanout` cannot be used: ",
    }
    for location, sentence in wrong.items():
        result = await run_fanout(*command, FANOUT_STORE=location)
        assert (result.code, sentence in result.err) == (2, True), result.err
        assert "store.unreachable" not in result.err
        assert "geheim" not in result.err


async def test_the_wait_has_an_end(
    restartable_postgres: Postgres, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    monkeypatch.setattr(opening, "AWAY_TIMEOUT_S", 1.0)
    location = await restartable_postgres.create()
    await asyncio.to_thread(restartable_postgres.stop)
    with pytest.raises(ConfigError, match="cannot be used: Connect call failed"):
        async with open_store(location, stop=asyncio.Event()):
            pass
    assert sum("store.unreachable" in line for line in log_lines) == 1


async def test_a_file_is_opened_at_once_or_not_at_all(tmp_path: Path, log_lines: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        async with open_store(str(tmp_path), stop=asyncio.Event()):
            pass
    assert not any("store.unreachable" in line for line in log_lines)
