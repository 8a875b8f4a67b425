"""`fanout workers`: list the processes that share a store, and what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from fanout.cli.options import print_json, read_server_key, with_settings
from fanout.cli.output import echo
from fanout.cli.shared_store import find_location, load_sharing_settings, url_option
from fanout.cli.tables import SafeConsole, print_table

if TYPE_CHECKING:  # the command's help needs none of them
    from fanout.jobs.activity import ActivityJson
    from fanout.rendering.processes import ProcessJson

COLUMNS = ("kind", "host", "pid", "state", "age", "seen", "accounts", "does")
MAX_SHOWN_ACCOUNTS = 3
ID_CHARS = 12
"""Of a job's id: enough for the commands that take one."""


@click.command()
@with_settings
@url_option
@click.option("--server", help="Address of a running server that is on the store; a key must have the role admin.")
@click.option("--json", "as_json", is_flag=True, help="Print what GET /v1/workers answers.")
def workers(config_file: Path | None, env_file: Path | None, url: str | None, server: str | None, as_json: bool) -> None:
    """List the processes that share a store, and what they do. One that was lost is listed for ten more minutes."""
    if server and url:
        raise click.UsageError("`--server` and `--url` name two stores: give one of them")
    found = asyncio.run(_ask(server, env_file) if server else _read(config_file, env_file, url))
    if as_json:
        print_json({"object": "list", "data": found})
        return
    if not found:
        echo("no process shares this store now; a server alone on a SQLite file is not listed", err=True)
        return
    print_table(SafeConsole(), COLUMNS, [_to_cells(process) for process in found], right=("pid", "age", "seen"))


async def _ask(server: str, env_file: Path | None) -> Sequence[ProcessJson]:
    from fanout.cli.client import open_client

    async with open_client(server, read_server_key(env_file)) as client:
        return cast("Sequence[ProcessJson]", (await client.get("/v1/workers"))["data"])


async def _read(config_file: Path | None, env_file: Path | None, url: str | None) -> Sequence[ProcessJson]:
    from fanout.rendering.processes import render_process
    from fanout.store.opening import open_store

    settings = load_sharing_settings(config_file, env_file, url)
    async with open_store(find_location(settings), is_reading=True) as store:
        assert store, "a store that is off cannot be shared"
        return [render_process(row) for row in await store.processes.list_processes()]


def _to_cells(process: ProcessJson) -> Sequence[str]:
    from fanout.cli.job_summary import format_duration

    return (
        *(process["kind"], process["host"], str(process["pid"]), process["state"]),
        *(format_duration(process["age_s"]), format_duration(process["seen_s"])),
        *(_name_accounts(process["accounts"]), _describe(process["activity"])),
    )


def _name_accounts(accounts: Sequence[str] | None) -> str:
    if not accounts:
        return "all" if accounts is None else "none"
    more = f" and {len(accounts) - MAX_SHOWN_ACCOUNTS} more" if len(accounts) > MAX_SHOWN_ACCOUNTS else ""
    return ", ".join(accounts[:MAX_SHOWN_ACCOUNTS]) + more


def _describe(activity: ActivityJson) -> str:
    from fanout.cli.job_summary import format_rate

    parts = []
    for job in activity["jobs"]:
        rate = f", {format_rate(job['calls_per_second'])}" if job["calls_per_second"] else ""
        chunks = "" if job["chunks"] is None else f"{job['chunks']} chunks, "
        parts.append(f"{job['id'][:ID_CHARS]}: {chunks}{job['calls_in_flight']:,} calls in flight{rate}")
    # Jobs and requests share the process's places; what is in none of its jobs was called for a request.
    others = activity["calls_in_flight"] - sum(job["calls_in_flight"] for job in activity["jobs"])
    if others > 0:
        parts.append(f"{others:,} calls of requests")
    if activity["calls_waiting"]:
        parts.append(f"{activity['calls_waiting']:,} calls wait for limits")
    return "; ".join(parts) or "nothing"
