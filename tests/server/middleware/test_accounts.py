"""Accounts: what a key may see, at every endpoint, with its own key, with another account's and with none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from tests.support.client import EMBEDDED, Client, Reply
from tests.support.server import serve

OWN, SECOND, OTHER, UNNAMED = "own-key-0123456789", "own-second-0123456789", "other-key-0123456789", "unnamed-key-0123456789"
MODEL = "local/ngram-2"
LIVE = {"stream": True, "resumable": True}
Ids = dict[str, str]


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Client]:
    """A server with three accounts, one of which has two keys."""
    config = tmp_path / "embedded.json"
    config.write_text(json.dumps(EMBEDDED))
    keys = f"own:{OWN},own:{SECOND},other:{OTHER},{UNNAMED}"
    async with serve(config, FANOUT_API_KEYS=keys, FANOUT_STORE=":memory:", FANOUT_HISTORY="full") as server:
        yield Client(server)


async def send(client: Client, key: str | None, method: str, path: str, body: object = None, **headers: str) -> Reply:
    return await client.send(method, path, body, {**({"x-api-key": key} if key else {}), **headers})


async def upload(client: Client, key: str) -> str:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": MODEL, "prompt": "a"}}
    form = FormData({"purpose": "batch"})
    form.add_field("file", json.dumps(line), filename="a.jsonl")
    async with client.server.session.post("/v1/files", data=form, headers={"x-api-key": key}) as response:
        assert response.status == 200
        return str((await response.json())["id"])


async def make_everything(client: Client, key: str) -> Ids:
    """Make one of everything that has an id, and wait for its end."""
    file = await upload(client, key)
    batch = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    job = {"items": [{"prompt": "a"}], "models": [MODEL], "parameters": {"max_tokens": 1}}
    response = {"model": MODEL, "input": "a", "max_output_tokens": 1}
    asked = await send(client, key, "POST", "/v1/completion", {"model": MODEL, "prompt": "a", "max_tokens": 1} | LIVE)
    made = {
        "file_id": file,
        "batch_id": (await send(client, key, "POST", "/v1/batches", batch)).json["id"],
        "job_id": (await send(client, key, "POST", "/v1/jobs", job)).json["id"],
        "id": asked.headers["x-comparison-id"],
        "response": (await send(client, key, "POST", "/v1/responses", response)).json["id"],
    }
    async with asyncio.timeout(20):
        while (
            (ended := (await send(client, key, "GET", f"/v1/batches/{made['batch_id']}")).json)["status"] != "completed"
        ) or (await send(client, key, "GET", f"/v1/jobs/{made['job_id']}")).json["state"] != "done":
            await asyncio.sleep(0.05)
    return {**made, "results": ended["output_file_id"]}


LISTS = ["/v1/files", "/v1/batches", "/v1/jobs", "/v1/comparisons", "/v1/usage", "/v1/providers/figures"]


@pytest.mark.parametrize("path", LISTS)
async def test_lists_hold_an_accounts_own_objects_alone(path: str, accounts: Client) -> None:
    await make_everything(accounts, OWN)
    await make_everything(accounts, OTHER)

    mine, theirs = [(await send(accounts, key, "GET", path)).json["data"] for key in (OWN, OTHER)]
    none = (await send(accounts, UNNAMED, "GET", path)).json["data"]
    assert len(mine) == len(theirs) > 0
    assert none == []
    assert (await send(accounts, SECOND, "GET", f"{path}?account_id=own")).json["data"] == mine
    if path == "/v1/usage":
        assert ({row["account_id"] for row in mine}, {row["account_id"] for row in theirs}) == ({"own"}, {"other"})
    elif path == "/v1/providers/figures":
        used = (await send(accounts, OWN, "GET", "/v1/usage?group_by=provider")).json["data"][0]
        (own,) = mine
        for figure in ("answered", "total_tokens"):
            assert sum(step[figure] for step in own["steps"]) == used[figure]
    else:
        assert not {one["id"] for one in mine} & {one["id"] for one in theirs}
        reply = await send(accounts, OWN, "GET", f"{path}?after={theirs[0]['id']}")
        assert reply.status in (400, 404), "a place in another's list is none in this one"
    for named in ("other", ""):
        reply = await send(accounts, OWN, "GET", f"{path}?account_id={named}")
        assert (reply.status, reply.error["code"]) == (403, "forbidden")


async def test_fields_of_bodies_name_an_accounts_own_objects_alone(accounts: Client) -> None:
    ids = await make_everything(accounts, OWN)
    batch = {"input_file_id": ids["file_id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    for path, body in (
        ("/v1/batches", batch),
        ("/v1/jobs", {"input_file_id": ids["file_id"], "models": [MODEL]}),
        ("/v1/jobs", {"fork_of": ids["job_id"]}),
    ):
        assert (await send(accounts, OTHER, "POST", path, body)).status == 404, body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v4/completions", {"model": MODEL, "prompt": "a", "account_id": "other"}),
        ("/v2/completions", {"model": MODEL, "prompt": "a", "account_id": "other"}),
        ("/v1/jobs", {"items": [{"prompt": "a"}], "models": [MODEL], "account_id": "other"}),
    ],
)
async def test_no_field_counts_usage_for_another_account(path: str, body: object, accounts: Client) -> None:
    reply = await send(accounts, OWN, "POST", path, body)
    assert reply.status == 403
    assert "`other`" in reply.body.decode().replace("'", "`")


async def test_no_header_counts_usage_for_another_account(accounts: Client) -> None:
    body = {"model": MODEL, "prompt": "a", "max_tokens": 1}
    header = "x-selected-account-id"
    refused = await send(accounts, OWN, "POST", "/v1/completion", body, **{header: "other"})
    counted = await send(accounts, OWN, "POST", "/v1/completion", body, **{header: "own"})
    assert (refused.status, counted.status) == (403, 200)
    assert refused.error["message"] == "the account 'other' is not that of this key; name `own`, or no account"
    assert (await send(accounts, OTHER, "GET", "/v1/usage")).json["data"] == []


async def test_an_answer_to_an_idempotency_key_is_given_to_its_account_alone(accounts: Client) -> None:
    body = {"model": MODEL, "prompt": "a", "max_tokens": 1, "seed": 1}
    again = [
        await send(accounts, key, "POST", "/v1/completion", body, **{"Idempotency-Key": "k"})
        for key in (OWN, SECOND, OTHER, UNNAMED)
    ]
    assert [reply.headers.get("Idempotent-Replayed") for reply in again] == [None, "true", None, None]


async def test_scales_clients_learn_their_keys_account(accounts: Client) -> None:
    assert (await send(accounts, OWN, "GET", "/user-info")).json["id"] == "own"
    models = await send(accounts, OTHER, "GET", "/v4/models")
    assert {model["account_id"] for model in models.json["items"]} == {"other"}


async def test_a_job_reuses_the_answers_of_its_own_account_alone(accounts: Client) -> None:
    job = {"items": [{"prompt": "a"}], "models": [MODEL], "parameters": {"max_tokens": 1, "seed": 1}, "cache": True}

    async def run(key: str) -> list[Any]:
        made = await send(accounts, key, "POST", "/v1/jobs", job)
        async with asyncio.timeout(20):
            while (await send(accounts, key, "GET", f"/v1/jobs/{made.json['id']}")).json["state"] != "done":
                await asyncio.sleep(0.05)
        return list((await send(accounts, key, "GET", f"/v1/jobs/{made.json['id']}/results")).json["data"])

    cached = [(await run(key))[0]["cached_from"] is not None for key in (OWN, SECOND, OTHER)]
    assert cached == [False, True, False]
