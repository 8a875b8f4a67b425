"""Keys: made and shown once, changed, rotated and revoked at once, by administrators alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from multidict import CIMultiDict
from sqlalchemy import Engine, event

from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError
from fanout.server.accounts import directory
from fanout.server.app import create_app, make_runner
from fanout.store.engine.database import Database
from fanout.store.keys.key_store import KeyStore
from tests.server.accounts.conftest import ADMIN, Team
from tests.support.client import EMBEDDED, Client
from tests.support.server import serve


async def test_a_key_is_shown_once_and_opens_its_account_until_it_is_revoked(team: Team, tmp_path: Path) -> None:
    made = await team.make_key(models=["local/*"], budget_day_usd=2.5, expires="2099-01-01")
    key = made["key"]
    first = await team.complete(key)
    shown = await team.send(ADMIN, "GET", f"/v1/keys/{made['id']}")
    listed = await team.send(ADMIN, "GET", "/v1/keys")
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("fanout.db*"))

    assert (first.status, shown.status) == (200, 200)
    (row,) = listed.json["data"]
    assert row == {name: value for name, value in made.items() if name != "key"}
    assert {name: shown.json[name] for name in row} == row
    assert (made["state"], made["expires"], made["created_by"]) == ("active", "2099-01-02T00:00:00Z", "environment:operator")
    assert key.startswith(made["prefixes"][0])
    assert key.split("-", 2)[2].encode() not in stored + shown.body + listed.body
    usage = (await team.send(key, "GET", "/v1/usage")).json["data"]
    assert [row["account_id"] for row in usage] == ["team"]

    revoked = await team.send(ADMIN, "DELETE", f"/v1/keys/{made['id']}")
    again = await team.send(ADMIN, "DELETE", f"/v1/keys/{made['id']}")
    assert (revoked.json["state"], again.json["revoked"]) == ("revoked", revoked.json["revoked"])
    assert (await team.complete(key)).status == 401
    changed = await team.send(ADMIN, "PATCH", f"/v1/keys/{made['id']}", {"name": "b"})
    assert (changed.status, changed.error["code"]) == (409, "wrong_state")


async def test_a_rotated_key_keeps_its_id_and_the_old_secret_for_the_grace_alone(team: Team) -> None:
    made = await team.make_key()
    path = f"/v1/keys/{made['id']}/rotate"
    second = (await team.send(ADMIN, "POST", path, {"grace_s": 60})).json
    with_grace = [(await team.complete(key)).status for key in (made["key"], second["key"])]
    third = (await team.send(ADMIN, "POST", path, {})).json
    without = [(await team.complete(key)).status for key in (made["key"], second["key"], third["key"])]

    assert {made["id"], second["id"], third["id"]} == {made["id"]}
    assert with_grace == [200, 200]
    assert without == [401, 401, 200]
    assert len(second["prefixes"]) == 2
    assert len(third["prefixes"]) == 1


async def test_a_change_counts_at_once_and_null_takes_a_limit_away(team: Team) -> None:
    made = await team.make_key(role="viewer", requests_per_minute=3, in_flight=2)
    path = f"/v1/keys/{made['id']}"
    assert (await team.complete(made["key"])).status == 403

    changed = await team.send(ADMIN, "PATCH", path, {"role": "user", "in_flight": None, "name": "new"})

    assert (changed.json["name"], changed.json["role"]) == ("new", "user")
    assert (changed.json["limits"]["in_flight"], changed.json["limits"]["requests_per_minute"]) == (None, 3)
    assert (await team.complete(made["key"])).status == 200
    events = (await team.send(ADMIN, "GET", f"/v1/audit?subject={made['id']}")).json["data"]
    assert [(one["event"], one["actor"]) for one in events] == [
        ("key.changed", "environment:operator"),
        ("key.created", "environment:operator"),
    ]
    assert events[0]["details"] == {"name": "new", "role": "user", "in_flight": None}
    assert made["key"].split("-", 2)[2] not in json.dumps(events)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["name"]),
        ({"name": "a", "role": "root"}, ["role"]),
        ({"name": "a", "expires": "2020-01-01"}, ["expires"]),
        ({"name": "a", "expires": 5, "in_flight": 0}, ["in_flight", "expires"]),
        ({"name": "a", "queue_share": 1.5, "budget_day_usd": -1}, ["queue_share", "budget_day_usd"]),
        ({"name": "a", "account_id": "a b", "budget": 3}, ["account_id", "budget"]),
    ],
)
async def test_every_wrong_field_is_named(body: object, fields: list[str], team: Team) -> None:
    reply = await team.send(ADMIN, "POST", "/v1/keys", body)

    assert (reply.status, reply.params) == (400, fields)


async def test_the_first_key_closes_the_door_so_it_is_an_administrators(tmp_path: Path) -> None:
    config, store = tmp_path / "embedded.json", str(tmp_path / "fanout.db")
    config.write_text(json.dumps(EMBEDDED))
    async with serve(config, FANOUT_STORE=store) as server:
        team = Team(Client(server))
        refused = await team.send(None, "POST", "/v1/keys", {"name": "a"})
        made = await team.send(None, "POST", "/v1/keys", {"name": "a", "role": "admin"})
        repeated = await team.send(made.json["key"], "POST", "/v1/keys", {"name": "b"}, **{"Idempotency-Key": "k"})
        without = await team.complete(None)

        assert (refused.status, refused.params) == (400, ["role"])
        assert (made.status, made.json["created_by"], made.json["account_id"]) == (201, "local", made.json["id"])
        assert (repeated.status, repeated.params) == (400, ["Idempotency-Key"])
        assert without.status == 401
        assert (await team.send(made.json["key"], "DELETE", f"/v1/keys/{made.json['id']}")).status == 200
        assert (await team.complete(None)).status == 401, "the end of the last key opens nothing"

    async with serve(config, FANOUT_STORE=store) as server:
        assert (await Team(Client(server)).complete(None)).status == 401
    runner = make_runner(create_app(load_settings(config, {"FANOUT_STORE": store}), host="0.0.0.0"), 1.0)
    await runner.setup()
    await runner.cleanup()
    other = {"FANOUT_STORE": str(tmp_path / "empty.db")}
    runner = make_runner(create_app(load_settings(config, other), host="0.0.0.0"), 1.0)
    with pytest.raises(ConfigError, match="FANOUT_API_KEYS"):
        await runner.setup()
    await runner.cleanup()


async def test_a_change_by_another_process_is_seen_soon(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "POLL_INTERVAL_S", 0.02)
    made = await team.make_key()
    other = Database(str(tmp_path / "fanout.db"))
    await KeyStore(other).revoke(made["id"], "command line")
    await other.close()

    async with asyncio.timeout(20):
        while (await team.complete(made["key"])).status != 401:
            await asyncio.sleep(0.02)


async def test_wrong_keys_are_refused_without_a_look_into_the_database(team: Team) -> None:
    made = await team.make_key()
    looks: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        looks.append(statement)

    wrong = [made["key"][:-1], f"{made['key']}x", "fk-aaaaaaaaaaaa-x", f"fk-{'a' * 5000}"]
    event.listen(Engine, "before_cursor_execute", note)
    try:
        statuses = [(await team.complete(key)).status for key in wrong]
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert statuses == [401] * 4
    assert [look for look in looks if "key_secrets" in look] == []


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "Authorization"])
async def test_one_header_twice_with_two_keys_is_refused(team: Team, name: str) -> None:
    """Whose request it is must not depend on which of them is read."""
    key = (await team.make_key())["key"]
    mark = "Bearer " if name == "Authorization" else ""
    headers = CIMultiDict([(name, f"{mark}{key}"), (name, f"{mark}{ADMIN}")])

    async with team.client.server.session.get("/v1/keys/self", headers=headers) as response:
        assert (response.status, "different keys" in await response.text()) == (401, True)
    async with team.client.server.session.get("/v1/keys/self", headers=CIMultiDict([(name, f"{mark}{key}")] * 2)) as response:
        assert response.status == 200
