"""`fanout keys create`, `show`, `rotate`, `revoke` and `audit`: keys of those who call a server, in its store or through it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from fanout.cli.ask.location import AskLocation
from fanout.cli.options import load_settings, print_json, read_server_key, with_settings
from fanout.cli.output import echo, format_usd
from fanout.cli.tables import SafeConsole, print_table
from fanout.core.json_text import JsonObject

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.cli.client import ServerClient
    from fanout.store.opening import Store

ACTOR = "command line"
ROLES = ("admin", "user", "viewer", "metrics")
NUMBERS: dict[str, tuple[type, str]] = {
    "requests_per_minute": (int, "Requests a minute."),
    "tokens_per_minute": (int, "Tokens of prompts and answers a minute."),
    "in_flight": (int, "Requests at once."),
    "queue_share": (float, "Part of each queue's places, 0 to 1."),
    "budget_day_usd": (float, "US dollars a day, in UTC."),
    "budget_month_usd": (float, "US dollars a month, in UTC."),
    "budget_total_usd": (float, "US dollars ever."),
    "max_files": (int, "Uploaded files of its account."),
    "max_stored_bytes": (int, "Bytes of these files."),
    "max_rows": (int, "Rows of all jobs of its account."),
    "max_running_jobs": (int, "Jobs of its account that have not ended."),
}
"""Limits by their field, with the help of their option."""
MAX_PAGE = 100
NO_STORE = "nothing is kept in memory or with FANOUT_STORE=off: name a file or a database, or --server"


class KeyPlace(Protocol):
    """A place that keeps keys: the store of this configuration, or a server."""

    async def create(self, body: JsonObject) -> JsonObject:
        """Return a new key with its secret."""

    async def list_keys(self, limit: int) -> Sequence[JsonObject]:
        """Return the newest keys."""

    async def show(self, key_id: str) -> JsonObject:
        """Return a key; with what it has used, where a server shows it."""

    async def rotate(self, key_id: str, grace_s: float) -> JsonObject:
        """Return a key with its new secret."""

    async def revoke(self, key_id: str) -> None:
        """Revoke a key."""

    async def list_changes(self, limit: int) -> Sequence[JsonObject]:
        """Return the newest changes."""


class StoredKeys:
    """The keys in a store. Servers on it see a change within two seconds."""

    def __init__(self, store: Store) -> None:
        self._keys, self._audit = store.keys, store.audit

    async def create(self, body: JsonObject) -> JsonObject:
        from fanout.api.keys import create_key
        from fanout.core.json_text import encode_json
        from fanout.requests.bodies import validate_body
        from fanout.requests.keys import KeyBody

        # By the same model as the server's, so that both refuse the same, in the same words.
        key, secret = await create_key(self._keys, validate_body(encode_json(body), KeyBody), ACTOR)
        return {**await self.show(key.id), "key": secret}

    async def list_keys(self, limit: int) -> Sequence[JsonObject]:
        from fanout.api.keys import list_prefixes
        from fanout.rendering.keys import render_key

        found = await self._keys.list_keys(limit=limit)
        secrets = await list_prefixes(self._keys, found)
        return [{**render_key(key, secrets[key.id])} for key in found]

    async def show(self, key_id: str) -> JsonObject:
        from fanout.api.keys import find_key, list_prefixes
        from fanout.rendering.keys import render_key

        key = await find_key(self._keys, key_id)
        return {**render_key(key, (await list_prefixes(self._keys, [key]))[key.id])}

    async def rotate(self, key_id: str, grace_s: float) -> JsonObject:
        from fanout.api.keys import rotate_key

        key, secret = await rotate_key(self._keys, key_id, grace_s, ACTOR)
        return {**await self.show(key.id), "key": secret}

    async def revoke(self, key_id: str) -> None:
        from fanout.api.keys import revoke_key

        await revoke_key(self._keys, key_id, ACTOR)

    async def list_changes(self, limit: int) -> Sequence[JsonObject]:
        from fanout.rendering.keys import render_change

        return [{**render_change(row)} for row in await self._audit.list_changes(limit=limit)]


class ServedKeys:
    """The keys of a server, for a key of the role `admin`."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def create(self, body: JsonObject) -> JsonObject:
        return await self._client.post("/v1/keys", body)

    async def list_keys(self, limit: int) -> Sequence[JsonObject]:
        return await self._list("/v1/keys", limit)

    async def show(self, key_id: str) -> JsonObject:
        return await self._client.get(f"/v1/keys/{key_id}")

    async def rotate(self, key_id: str, grace_s: float) -> JsonObject:
        return await self._client.post(f"/v1/keys/{key_id}/rotate", {"grace_s": grace_s})

    async def revoke(self, key_id: str) -> None:
        await self._client.delete(f"/v1/keys/{key_id}")

    async def list_changes(self, limit: int) -> Sequence[JsonObject]:
        return await self._list("/v1/audit", limit)

    async def _list(self, path: str, limit: int) -> list[JsonObject]:
        found: list[JsonObject] = []
        query: dict[str, str | int | Sequence[str]] = {}
        while len(found) < limit:
            page = await self._client.get(path, limit=min(limit - len(found), MAX_PAGE), **query)
            found += page["data"]
            if not page["has_more"]:
                break
            query = {"after": page["last_id"]}
        return found


@asynccontextmanager
async def open_keys(location: AskLocation) -> AsyncGenerator[KeyPlace]:
    """Open the place that the options name."""
    if location.server:
        from fanout.cli.client import open_client

        async with open_client(location.server, read_server_key(location.env_file)) as client:
            yield ServedKeys(client)
        return
    from fanout.store.opening import MEMORY, OFF, open_store

    stored = load_settings(location.config_file, location.env_file).environment.store
    name = stored.get_secret_value() if stored else MEMORY
    # Of a store that ends with this command, a key would open nothing.
    if name in (MEMORY, OFF):
        raise click.UsageError(NO_STORE)
    async with open_store(name) as store:
        assert store
        yield StoredKeys(store)


def _with_location(command: Callable[..., None]) -> Callable[..., None]:
    @with_settings
    @click.option("--server", help="Address of a running server, whose keys are meant, with a key of the role admin.")
    @functools.wraps(command)
    def wrapper(config_file: Path | None, env_file: Path | None, server: str | None, **options: Any) -> None:
        command(AskLocation(config_file, env_file, server), **options)

    return wrapper


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    for name, (kind, help_) in reversed(NUMBERS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=help_)(command)
    return command


@click.command()
@_with_location
@click.argument("name")
@click.option("--account", "account_id", help="Account whose data it opens; by default one of its own.")
@click.option("--role", type=click.Choice(ROLES), default="user", show_default=True, help="What it may do.")
@click.option("-m", "--model", "models", multiple=True, help="A model, an alias, a set or a pattern that it may call.")
@_with_limits
@click.option("--expires", help="A date, whose whole day is included, or a time: 2027-12-31.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def create(location: AskLocation, models: tuple[str, ...], as_json: bool, **fields: Any) -> None:
    """Make a key for a caller of a server, and print it: it cannot be shown again."""
    body = {field: value for field, value in fields.items() if value is not None}
    made = asyncio.run(_call(location, lambda place: place.create({**body, **({"models": [*models]} if models else {})})))
    _print_secret(made, as_json=as_json)


@click.command()
@_with_location
@click.argument("key_id", metavar="ID")
def show(location: AskLocation, key_id: str) -> None:
    """Print a key as JSON; with --server also what it has used and what is left."""
    print_json(asyncio.run(_call(location, lambda place: place.show(key_id))))


@click.command()
@_with_location
@click.argument("key_id", metavar="ID")
@click.option("--grace", "grace_s", default=0.0, type=click.FloatRange(0), help="Seconds in which the old one is still good.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def rotate(location: AskLocation, key_id: str, grace_s: float, as_json: bool) -> None:
    """Give a key a new secret, and print it: it cannot be shown again."""
    _print_secret(asyncio.run(_call(location, lambda place: place.rotate(key_id, grace_s))), as_json=as_json)


@click.command()
@_with_location
@click.argument("key_id", metavar="ID")
def revoke(location: AskLocation, key_id: str) -> None:
    """Revoke a key: it opens nothing from now on."""
    asyncio.run(_call(location, lambda place: place.revoke(key_id)))
    echo(f"{key_id} is revoked")


@click.command()
@_with_location
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def audit(location: AskLocation, limit: int, as_json: bool) -> None:
    """List who changed what, the newest first."""
    changes = asyncio.run(_call(location, lambda place: place.list_changes(limit)))
    if as_json:
        print_json({"object": "list", "data": changes})
        return
    rows = [[change[column] for column in ("time", "event", "actor", "subject")] for change in changes]
    if rows:
        print_table(SafeConsole(), ("time", "event", "actor", "subject"), rows)
    else:
        echo("nothing was changed", err=True)


def print_keys(location: AskLocation) -> None:
    """Print a table of callers' keys, or nothing where there is no store."""
    try:
        keys = asyncio.run(_call(location, lambda place: place.list_keys(1000)))
    except click.UsageError:
        if location.server:
            raise
        return
    if not keys:
        return
    echo("callers' keys" + (f" of {location.server}" if location.server else ""))
    rows = [
        (key["id"], key["name"], key["account_id"], key["role"], key["state"], ", ".join(key["prefixes"]), _list_limits(key))
        for key in keys
    ]
    print_table(SafeConsole(), ("id", "name", "account", "role", "state", "begins with", "limits"), rows)


def _list_limits(key: JsonObject) -> str:
    set_ = {name: value for name, value in key["limits"].items() if value is not None}
    shown = {name: format_usd(value) if name.endswith("_usd") else value for name, value in set_.items()}
    return ", ".join(f"{name} {', '.join(value) if isinstance(value, list) else value}" for name, value in shown.items())


def _print_secret(made: JsonObject, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    # The key alone on standard output, so that a script can read it into a variable.
    echo(made["key"])
    echo(f"{made['id']}, account {made['account_id']}, role {made['role']}; it is shown only now", err=True)


async def _call(location: AskLocation, work: Callable[[KeyPlace], Any]) -> Any:
    async with open_keys(location) as place:
        return await work(place)
