"""Jobs of keys: they keep to the budget and the limits of the key that made them, and accounts to their quotas."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import FormData

from fanout.server.accounts.admission import KEY_LEDGER
from tests.server.accounts.conftest import ADMIN, MODEL, PRICED, Team
from tests.support.client import Reply

ENDED = ("done", "stopped", "cancelled", "expired")


async def begin(team: Team, key: str, rows: int = 3, model: str = PRICED, **fields: Any) -> Reply:
    items = [{"prompt": f"a {number}"} for number in range(rows)]
    body = {"items": items, "models": [model], "parameters": {"max_tokens": 2, "seed": 1}, "concurrency": 1, **fields}
    return await team.send(key, "POST", "/v1/jobs", body)


async def wait_for_end(team: Team, key: str, job_id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            job = (await team.send(key, "GET", f"/v1/jobs/{job_id}")).json
            if job["state"] in ENDED:
                return job
            await asyncio.sleep(0.02)


async def upload(team: Team, key: str, content: bytes = b"{}\n") -> Reply:
    form = FormData({"purpose": "batch"})
    form.add_field("file", content, filename="a.jsonl")
    async with team.client.server.session.post("/v1/files", data=form, headers={"x-api-key": key}) as response:
        return Reply(response.status, response.headers, await response.read())


async def test_a_job_stops_at_the_budget_of_its_key_and_goes_on_when_there_is_more(team: Team) -> None:
    made = await team.make_key(budget_total_usd=0.45)
    key, path = made["key"], f"/v1/keys/{made['id']}"

    job = (await begin(team, key, rows=6)).json
    stopped = await wait_for_end(team, key, job["id"])
    own = (await team.send(key, "GET", "/v1/keys/self")).json
    await team.send(ADMIN, "PATCH", path, {"budget_total_usd": 100})
    resumed = await team.send(key, "POST", f"/v1/jobs/{job['id']}/resume", {})
    done = await wait_for_end(team, key, job["id"])
    after = (await team.send(key, "GET", "/v1/keys/self")).json

    assert stopped["state"] == "stopped"
    assert "this key's budget is 0.45 USD in total" in stopped["reason"]
    assert 0 < own["used"]["budget_total_usd"] == pytest.approx(stopped["progress"]["cost_usd"])
    assert own["used"]["budget_total_usd"] <= 0.45
    assert (own["reserved_usd"], own["used"]["in_flight"]) == (0, 0)
    assert (resumed.status, done["state"]) == (200, "done")
    assert after["used"]["budget_total_usd"] == pytest.approx(done["progress"]["cost_usd"])


async def test_a_job_waits_for_the_limits_of_its_key(team: Team) -> None:
    made = await team.make_key(requests_per_minute=2)

    job = (await begin(team, made["key"], model=MODEL)).json
    ledger = team.client.server.app[KEY_LEDGER]
    async with asyncio.timeout(20):
        while (counts := ledger.find(made["id"])) is None or counts.in_flight or counts.sum_days(None).requests < 2:
            await asyncio.sleep(0.02)
    refused = await team.complete(made["key"])
    await team.send(ADMIN, "PATCH", f"/v1/keys/{made['id']}", {"requests_per_minute": None})
    done = await wait_for_end(team, made["key"], job["id"])

    assert refused.status == 429
    assert (done["state"], counts.sum_days(None).requests) == ("done", 3)


async def test_a_job_stops_with_its_key_and_goes_on_with_another_of_the_account(team: Team) -> None:
    made, other = await team.make_key(requests_per_minute=1), (await team.make_key())["key"]

    job = (await begin(team, made["key"], rows=4, model=MODEL)).json
    await team.send(ADMIN, "DELETE", f"/v1/keys/{made['id']}")
    stopped = await wait_for_end(team, other, job["id"])
    await team.send(other, "POST", f"/v1/jobs/{job['id']}/resume", {})
    done = await wait_for_end(team, other, job["id"])

    assert (stopped["state"], "was revoked, has expired" in stopped["reason"]) == ("stopped", True)
    assert done["state"] == "done"


async def test_a_job_calls_the_models_of_its_key_alone(team: Team) -> None:
    key = (await team.make_key(models=[MODEL]))["key"]

    job = (await begin(team, key, rows=1, models=[MODEL, PRICED])).json
    done = await wait_for_end(team, key, job["id"])
    results = (await team.send(key, "GET", f"/v1/jobs/{job['id']}/results")).json["data"]

    assert done["state"] == "done"
    failed = {row["model"]: row["error_code"] for row in results}
    assert failed == {MODEL: None, PRICED: "model_not_allowed"}


async def test_quotas_bound_files_bytes_rows_and_jobs_of_the_account(team: Team) -> None:
    limits = {"max_files": 2, "max_stored_bytes": 100, "max_rows": 4, "max_running_jobs": 1, "requests_per_minute": 1}
    key = (await team.make_key(**limits))["key"]
    other = (await team.make_key(account_id="other"))["key"]

    uploads = [await upload(team, key), await upload(team, key, b"x" * 200), await upload(team, key), await upload(team, key)]
    assert [reply.status for reply in uploads] == [200, 413, 200, 403]
    assert uploads[3].error["code"] == "quota_exceeded"
    assert "the account has 2 files, and this key allows 2" in uploads[3].error["message"]
    assert (await upload(team, other)).status == 200

    too_long = await begin(team, key, rows=5, model=MODEL)
    first = await begin(team, key, rows=2, model=MODEL)  # waits for its second request
    second = await begin(team, key, rows=1, model=MODEL)
    assert (too_long.status, first.status, second.status) == (403, 201, 403)
    assert "more rows than the 4" in too_long.error["message"]
    assert "1 jobs that have not ended" in second.error["message"]
    await team.send(key, "POST", f"/v1/jobs/{first.json['id']}/cancel", {})
    assert (await wait_for_end(team, key, first.json["id"]))["state"] == "cancelled"
    assert (await begin(team, key, rows=3, model=MODEL)).status == 403, "rows stay"
    batch = {"input_file_id": uploads[0].json["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    assert (await team.send(key, "POST", "/v1/batches", batch)).status == 200


async def test_a_key_that_becomes_a_viewers_ends_its_jobs(team: Team) -> None:
    """Calls that wait for its limits by then are not made either."""
    made = await team.make_key(requests_per_minute=1)
    job = (await begin(team, made["key"], model=MODEL, concurrency=3)).json
    ledger = team.client.server.app[KEY_LEDGER]
    async with asyncio.timeout(20):
        while (counts := ledger.find(made["id"])) is None or counts.in_flight or counts.sum_days(None).requests < 1:
            await asyncio.sleep(0.02)
    await team.send(ADMIN, "PATCH", f"/v1/keys/{made['id']}", {"role": "viewer", "requests_per_minute": None})

    ended = await wait_for_end(team, made["key"], job["id"])

    assert ended["state"] == "stopped"
    assert "calls no models" in ended["reason"]
    assert (ended["progress"]["answered"], counts.sum_days(None).requests) == (1, 1)


async def test_a_judge_is_paid_by_the_key_that_adds_it(team: Team) -> None:
    """Or a key would spend the budget, and call the models, of another key of its account."""
    rich, poor = (await team.make_key()), (await team.make_key(models=[MODEL]))
    judge = {"scorers": [{"type": "judge", "model": PRICED, "rubric": "Is it right?", "max_tokens": 2}]}
    waiting = (await begin(team, (await team.make_key(requests_per_minute=1))["key"], model=MODEL)).json
    job = (await begin(team, rich["key"], rows=1, model=MODEL)).json
    await wait_for_end(team, rich["key"], job["id"])

    too_early = await team.send(poor["key"], "POST", f"/v1/jobs/{waiting['id']}/scores", judge)
    scored = await team.send(poor["key"], "POST", f"/v1/jobs/{job['id']}/scores", judge)
    (judge_job,) = scored.json["scorers"][0]["judge_jobs"]
    await wait_for_end(team, poor["key"], judge_job)
    results = (await team.send(poor["key"], "GET", f"/v1/jobs/{judge_job}/results")).json["data"]

    assert (too_early.status, too_early.error["code"]) == (409, "wrong_state")
    assert {row["error_code"] for row in results} == {"model_not_allowed"}


async def test_requests_at_once_pass_no_quota_together(team: Team) -> None:
    limits = {"max_files": 2, "max_rows": 4, "max_running_jobs": 1, "requests_per_minute": 1}
    key = (await team.make_key(**limits))["key"]

    jobs = await asyncio.gather(*(begin(team, key, rows=2, model=MODEL) for _ in range(4)))
    uploads = await asyncio.gather(*(upload(team, key) for _ in range(6)))
    kept = (await team.send(key, "GET", "/v1/files")).json["data"]

    assert sorted(reply.status for reply in jobs) == [201, 403, 403, 403]
    assert [reply.status for reply in uploads].count(200) == len(kept) <= 2
