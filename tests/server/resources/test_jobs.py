"""`/v1/jobs`: rows × models in one request, their progress, and what can be done to them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import Engine
from sqlalchemy.event import listen, remove

from fanout.core.errors import StoreError
from fanout.jobs import export
from fanout.jobs.job import JobSpec
from fanout.jobs.result_records import COLUMNS
from fanout.rendering.job import JobEstimateJson, JobJson, JobResultsJson
from fanout.server.lifecycle import BATCH_STORE, JOB_STORE
from fanout.store.batches import BatchRow
from fanout.store.jobs.records import NewJobRow
from tests.support.batches import create_job, encode_lines, read_answer, upload_file, wait_for_state, write_config
from tests.support.cli import start_server
from tests.support.server import Server, serve
from tests.support.shapes import check_shape
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


async def wait_for_end(session: aiohttp.ClientSession, made: dict[str, Any], *states: str) -> dict[str, Any]:
    """Wait for a job to end, and check its fields against the document."""
    found = await wait_for_state(session, f"/v1/jobs/{made['id']}", *states)
    check_shape(found, JobJson)
    return found


async def fetch_results(session: aiohttp.ClientSession, made: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    """Return all results, page by page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        status, page = await read_answer(session.get(f"/v1/jobs/{made['id']}/results", params={**query, **after}))
        assert status == 200, page
        check_shape(page, JobResultsJson)
        found += page["data"]
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            return found
        after = {"after": page["next"]}


async def test_every_row_is_sent_to_every_model(store_server: Server, upstream: Upstream) -> None:
    models = ["up/say-one", {"model": "up/echo", "label": "mine", "temperature": 0.5}]
    given = {"repeats": 2, "name": "first", "metadata": {"a": "b"}, "parameters": {"max_tokens": 9}, "system": "Be brief."}
    async with store_server.session.post(
        "/v1/jobs", json={"items": [{"prompt": "p0"}, {"prompt": "p1"}], "models": models, **given}
    ) as r:
        made, location = await r.json(), r.headers["Location"]
    done = await wait_for_end(store_server.session, made)
    found = await fetch_results(store_server.session, made, limit=3)

    check_shape(made, JobJson)
    assert (location, made["state"], made["items"], made["calls"]) == (f"/v1/jobs/{made['id']}", "queued", 2, 8)
    assert (done["state"], done["name"], done["metadata"], done["repeats"]) == ("done", "first", {"a": "b"}, 2)
    assert [entry["label"] for entry in done["models"] if "label" in entry] == ["mine"]
    assert (done["progress"]["ended"], done["progress"]["answered"], done["progress"]["left"]) == (8, 8, 0)
    assert [(row["model"], row["answered"], row["failures"]) for row in done["counts"]] == [
        ("mine", 4, {}),
        ("up/say-one", 4, {}),
    ]
    places = [(row["item"], row["line"], row["entry"], row["repeat"], row["label"]) for row in found]
    assert places == [
        (item, item + 1, entry, repeat, label)
        for item in (0, 1)
        for entry, label in enumerate(("up/say-one", "mine"))
        for repeat in (0, 1)
    ]
    sent = json.loads(next(row["text"] for row in found if row["label"] == "mine"))
    assert (sent["temperature"], sent["max_tokens"]) == (0.5, 9)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert len(upstream.requests) == 8


async def test_a_template_is_filled_from_columns_which_stand_in_the_results(store_server: Server, upstream: Upstream) -> None:
    items = [{"word": "return", "reference": "a statement", "custom_id": "a"}, {"word": "class", "level": 3}]
    status, made = await read_answer(
        store_server.session.post("/v1/jobs", json={"items": items, "template": "What is {{word}}?", "models": "up/ok"})
    )
    await wait_for_end(store_server.session, made)
    found = await fetch_results(store_server.session, made)

    assert status == 201
    assert [row["prompt"] for row in found] == ["What is return?", "What is class?"]
    assert [(row["custom_id"], row["reference"], row["values"]) for row in found] == [
        ("a", "a statement", {"word": "return"}),
        (None, None, {"word": "class", "level": 3}),
    ]
    assert [request.body["messages"][0]["content"] for request in upstream.requests] == ["What is return?", "What is class?"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", encode_lines({"prompt": "p0"}, {"prompt": "p1", "max_tokens": 5})),
        ("rows.csv", b"prompt,max_tokens\r\np0,\r\np1,5\r\n"),
        ("rows.tsv", b"prompt\tmax_tokens\np0\t\np1\t5\n"),
    ],
)
async def test_rows_come_from_an_uploaded_file(name: str, content: bytes, store_server: Server) -> None:
    file = await upload_file(store_server.session, content, name)
    status, made = await read_answer(store_server.session.post("/v1/jobs", json={"input_file_id": file, "models": "up/echo"}))
    done = await wait_for_end(store_server.session, made)

    assert (status, done["state"], done["input"]) == (201, "done", {"name": name, "file": file})
    sent = [json.loads(row["text"]) for row in await fetch_results(store_server.session, made)]
    assert [(body["messages"][0]["content"], body.get("max_tokens")) for body in sent] == [("p0", None), ("p1", 5)]


async def test_parquet_is_read_and_written(store_server: Server) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    written = io.BytesIO()
    parquet.write_table(pyarrow.table({"prompt": [f"p{n}" for n in range(50)]}), written)
    file = await upload_file(store_server.session, written.getvalue(), "rows.parquet")
    _, made = await read_answer(store_server.session.post("/v1/jobs", json={"input_file_id": file, "models": "up/ok"}))
    await wait_for_end(store_server.session, made)

    async with store_server.session.get(f"/v1/jobs/{made['id']}/results.parquet") as response:
        table = parquet.read_table(io.BytesIO(await response.read()))

    assert table.column_names == list(COLUMNS)
    assert table["prompt"].to_pylist() == [f"p{n}" for n in range(50)]


async def test_exports_hold_the_same_results_as_pages(any_store_server: Server) -> None:
    made = await create_job(any_store_server.session, [f"p{n}" for n in range(300)], ["up/say-hi", "up/400"])
    await wait_for_end(any_store_server.session, made)
    pages = await fetch_results(any_store_server.session, made, limit=250)
    path = f"/v1/jobs/{made['id']}/results"

    async with any_store_server.session.get(f"{path}.jsonl") as response:
        assert (response.status, response.content_type) == (200, "application/jsonl")
        assert [json.loads(line) for line in (await response.text()).splitlines()] == pages
    async with any_store_server.session.get(f"{path}.csv?failed=false") as response:
        rows = list(csv.DictReader(io.StringIO(await response.text(), newline="")))
        assert response.headers["Content-Disposition"] == f'attachment; filename="{made["id"]}.csv"'
    assert len(pages) == 600
    assert [(row["prompt"], row["text"]) for row in rows] == [(f"p{n}", "hi") for n in range(300)]
    assert (await read_answer(any_store_server.session.get(f"{path}.xlsx")))[0] == 404


async def test_results_are_filtered(any_store_server: Server) -> None:
    made = await create_job(any_store_server.session, ["same", "p1"], ["up/say-a-then-say-b", "up/say-a", "up/400"])
    await wait_for_end(any_store_server.session, made)

    async def fetch_labels(**query: Any) -> list[tuple[int, str]]:
        return [(row["item"], row["label"]) for row in await fetch_results(any_store_server.session, made, **query)]

    assert await fetch_labels(failed="true") == [(0, "up/400"), (1, "up/400")]
    assert await fetch_labels(kind="bad_request") == await fetch_labels(failed="true")
    assert await fetch_labels(kind="timeout") == []
    assert await fetch_labels(model="up/say-a") == [(0, "up/say-a"), (1, "up/say-a")]
    assert len(await fetch_labels(failed="false", limit=1)) == 4
    different = {item for item, _ in await fetch_labels(different="true")}
    texts = {
        row["item"]: row["text"] for row in await fetch_results(any_store_server.session, made, model="up/say-a-then-say-b")
    }
    assert different == {item for item, text in texts.items() if text != "a"}
    for query in ("failed=maybe", "kind=odd", "after=1", "after=1.2.x", "limit=5000", "modle=x"):
        status, answer = await read_answer(any_store_server.session.get(f"/v1/jobs/{made['id']}/results?{query}"))
        assert (status, answer["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_dry_run_returns_an_estimate_and_calls_nothing(store_server: Server, upstream: Upstream) -> None:
    items = [{"prompt": "x" * 400} for _ in range(10)]
    body = {"items": items, "models": ["priced", "up/ok"], "repeats": 3, "parameters": {"max_tokens": 100}, "dry_run": True}
    status, estimate = await read_answer(store_server.session.post("/v1/jobs", json=body))

    check_shape(estimate, JobEstimateJson)
    assert (status, estimate["items"], estimate["calls"], estimate["cost_usd"]) == (200, 10, 60, None)
    priced, free = estimate["models"]
    assert (priced["model"], priced["calls"], priced["completion_tokens"], priced["guessed"]) == ("priced", 30, 3000, False)
    assert priced["cost_usd"] == pytest.approx((priced["prompt_tokens"] * 1e3 + 3000 * 1e4) / 1e6)
    assert (free["cost_usd"], estimate["cost_unknown"]) == (None, ["up/ok"])
    assert upstream.requests == []
    assert (await read_answer(store_server.session.get("/v1/jobs")))[1]["data"] == []


@pytest.mark.parametrize(
    ("change", "params"),
    [
        ({"items": None}, ["items"]),
        ({"items": []}, ["items"]),
        ({"models": None}, ["models"]),
        ({"models": []}, ["models"]),
        ({"models": ["up/ok", "nobody"]}, ["models[1]"]),
        ({"models": [{"model": "up/ok", "temprature": 1}]}, ["models[0].temprature"]),
        (
            {"items": [{"prompt": "x"}, {}, {"prompt": 3, "temperature": 9}]},
            ["items[1].prompt", "items[2].prompt", "items[2].temperature"],
        ),
        ({"items": [{"prompt": "x", "custom_id": "a"}] * 2}, ["items[1].custom_id"]),
        ({"template": "no variable"}, ["template"]),
        ({"input_file_id": "file-x"}, ["input_file_id"]),
        ({"parameters": {"temperature": "hot"}}, ["parameters.temperature"]),
        ({"repeats": 0}, ["repeats"]),
        ({"max_cost_usd": 1}, ["max_cost_usd"]),
        ({"max_cost_usd": 0}, ["max_cost_usd"]),
        ({"deadline": -1}, ["deadline"]),
        ({"deadline": "2020-01-01T00:00:00Z"}, ["deadline"]),
        ({"deadline": "2030-01-01T00:00:00"}, ["deadline"]),
        ({"concurency": 3}, ["concurency"]),
        ({"fork_of": "job_x"}, ["fork_of"]),
    ],
)
async def test_invalid_fields_are_named_and_nothing_is_sent(
    change: dict[str, Any], params: list[str], store_server: Server, upstream: Upstream
) -> None:
    body = {"items": [{"prompt": "x"}], "models": "up/ok", **change}

    status, answer = await read_answer(store_server.session.post("/v1/jobs", json=body))

    assert status == 400, answer
    assert [detail["param"] for detail in answer["error"]["details"]][: len(params)] == params
    assert upstream.requests == []
    assert (await read_answer(store_server.session.get("/v1/jobs")))[1]["data"] == []


async def test_invalid_rows_of_a_file_are_named_with_their_lines(store_server: Server) -> None:
    file = await upload_file(store_server.session, b'{"prompt":"a"}\n{"prompt"\n\n{"promt":"b"}\n')

    status, answer = await read_answer(store_server.session.post("/v1/jobs", json={"input_file_id": file, "models": "up/ok"}))

    assert status == 400
    assert [detail["param"].partition(":")[0] for detail in answer["error"]["details"]][:2] == ["line 2", "line 4"]
    odd = await upload_file(store_server.session, b"x", "rows.docx")
    for file_id, expected in (("file-nobody", 404), (odd, 400)):
        status, answer = await read_answer(
            store_server.session.post("/v1/jobs", json={"input_file_id": file_id, "models": "up/ok"})
        )
        assert (status, answer["error"]["param"]) == (expected, "input_file_id")


async def test_progress_is_streamed_as_events_until_the_end(store_server: Server) -> None:
    made = await create_job(store_server.session, [f"p{n}" for n in range(12)], ["up/sleep-0.5", "up/400"])
    events: list[dict[str, Any]] = []
    async with store_server.session.get(f"/v1/jobs/{made['id']}/events") as response:
        assert response.content_type == "text/event-stream"
        frames = (await response.text()).split("\n\n")
    events = [json.loads(frame[6:]) for frame in frames if frame.startswith("data: {")]

    assert frames[-2:] == ["data: [DONE]", ""]
    assert len(events) >= 2
    for event in events:
        check_shape(event, JobJson)
    assert [event["progress"]["ended"] for event in events] == sorted(event["progress"]["ended"] for event in events)
    assert (events[-1]["state"], events[-1]["progress"]["ended"], events[-1]["progress"]["failed"]) == ("done", 24, 12)
    assert {row["model"]: row["failures"] for row in events[-1]["counts"]} == {
        "up/400": {"bad_request": 12},
        "up/sleep-0.5": {},
    }
    during = [event for event in events if event["state"] == "running" and event["progress"]["left"]]
    assert all(event["progress"]["left_s"] is not None for event in during if event["progress"]["calls_per_second"])


async def test_a_client_that_leaves_the_events_stops_no_job(store_server: Server) -> None:
    made = await create_job(store_server.session, [f"p{n}" for n in range(6)], "up/sleep-0.3")
    async with store_server.session.get(f"/v1/jobs/{made['id']}/events") as response:
        await response.content.readline()
        response.close()

    assert (await wait_for_end(store_server.session, made))["progress"]["answered"] == 6


async def test_a_cancelled_job_resumes_where_it_was(any_store_server: Server, upstream: Upstream) -> None:
    made = await create_job(any_store_server.session, [f"p{n}" for n in range(40)], "up/sleep-0.2")
    await upstream.wait_for_requests(4)
    status, answer = await read_answer(any_store_server.session.post(f"/v1/jobs/{made['id']}/cancel"))
    cancelled = await wait_for_end(any_store_server.session, made)
    before = len(upstream.requests)
    again, resumed = await read_answer(any_store_server.session.post(f"/v1/jobs/{made['id']}/resume", json={"concurrency": 40}))
    done = await wait_for_end(any_store_server.session, made, "done")

    assert (status, answer["state"]) == (200, "cancelling")
    assert cancelled["state"] == "cancelled"
    assert cancelled["progress"]["ended"] == before < 40
    assert (again, resumed["concurrency"]) == (200, 40)
    assert (done["progress"]["answered"], len(upstream.requests)) == (40, 40)
    for what in ("cancel", "resume"):
        status, answer = await read_answer(any_store_server.session.post(f"/v1/jobs/{made['id']}/{what}", json={}))
        assert (status, answer["error"]["code"]) == (409, "wrong_state")


async def test_only_failures_of_the_given_kinds_are_retried(any_store_server: Server, upstream: Upstream) -> None:
    made = await create_job(any_store_server.session, ["p0", "p1"], ["up/fail-4-then-ok", "up/400", "up/ok"])
    first = await wait_for_end(any_store_server.session, made)
    status, _ = await read_answer(any_store_server.session.post(f"/v1/jobs/{made['id']}/retry", json={"kinds": ["server"]}))
    second = await wait_for_end(any_store_server.session, made, "done")

    assert {row["model"]: row["failures"] for row in first["counts"]}["up/fail-4-then-ok"] == {"server": 2}
    assert status == 200
    assert {row["model"]: row["failures"] for row in second["counts"]} == {
        "up/400": {"bad_request": 2},
        "up/fail-4-then-ok": {},
        "up/ok": {},
    }
    assert (len(upstream.requests_for("ok")), len(upstream.requests_for("400"))) == (2, 2)
    status, answer = await read_answer(any_store_server.session.post(f"/v1/jobs/{made['id']}/retry", json={"kinds": ["odd"]}))
    assert (status, answer["error"]["param"]) == (400, "kinds[0]")


async def test_a_job_stops_at_its_cost_limit_and_resumes_with_a_higher_one(store_server: Server, upstream: Upstream) -> None:
    # An answer costs 0.05 USD; before it is known, what it may cost at most is set aside.
    made = await create_job(
        store_server.session, [f"p{n}" for n in range(6)], "priced", max_cost_usd=0.2, parameters={"max_tokens": 4}
    )
    stopped = await wait_for_end(store_server.session, made)
    _, resumed = await read_answer(store_server.session.post(f"/v1/jobs/{made['id']}/resume", json={"max_cost_usd": 5}))
    done = await wait_for_end(store_server.session, made, "done")

    assert (stopped["state"], stopped["progress"]["cost_usd"] <= 0.2) == ("stopped", True)
    assert "0.2 USD" in stopped["reason"]
    assert stopped["progress"]["left_usd"] == pytest.approx(0.05 * stopped["progress"]["left"])
    assert resumed["max_cost_usd"] == 5
    assert (done["progress"]["answered"], len(upstream.requests)) == (6, 6)
    assert done["progress"]["cost_usd"] == pytest.approx(0.3)


@pytest.mark.parametrize("written", [True, False], ids=["RFC 3339", "seconds"])
async def test_a_deadline_ends_a_job(written: bool, store_server: Server) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    made = await create_job(store_server.session, [f"p{n}" for n in range(60)], "up/sleep-1", deadline=at if written else 1.5)
    expired = await wait_for_end(store_server.session, made)

    assert (expired["state"], expired["deadline"]) == ("expired", made["deadline"])
    assert 0 < expired["progress"]["left"] < 60


async def test_changed_models_prevent_a_resume_and_a_fork_repeats_all_calls(upstream: Upstream, tmp_path: Path) -> None:
    config, store = write_config(upstream, tmp_path), str(tmp_path / "fanout.db")
    async with serve(config, FANOUT_STORE=store) as server:
        made = await create_job(server.session, ["p0"], ["priced", "up/400"])
        await wait_for_end(server.session, made)
    given = json.loads(config.read_text())
    given["models"]["priced"]["id"] = "say-new"
    config.write_text(json.dumps(given))
    async with serve(config, FANOUT_STORE=store) as server:
        path = f"/v1/jobs/{made['id']}"
        status, refused = await read_answer(server.session.post(f"{path}/retry", json={}))
        forking, fork = await read_answer(server.session.post(f"{path}/resume", json={"fork": True}))
        other, second = await read_answer(server.session.post("/v1/jobs", json={"fork_of": made["id"]}))
        await wait_for_end(server.session, fork)
        texts = [row["text"] for row in await fetch_results(server.session, fork, failed="false")]

    assert (status, refused["error"]["code"]) == (409, "changed")
    assert "`ok`" in refused["error"]["message"]
    assert "`say-new`" in refused["error"]["message"]
    assert (forking, fork["forked_from"], texts) == (201, made["id"], ["new"])
    assert (other, second["forked_from"]) == (201, made["id"])


async def test_jobs_are_listed_by_page_state_and_account(any_store_server: Server) -> None:
    ids = [
        (await create_job(any_store_server.session, ["p"], "up/ok", account_id=account))["id"] for account in ("a", "b", "a")
    ]
    for job_id in ids:
        await wait_for_state(any_store_server.session, f"/v1/jobs/{job_id}")

    async def list_ids(**query: str) -> list[str]:
        _, page = await read_answer(any_store_server.session.get("/v1/jobs", params=query))
        for found in page["data"]:
            check_shape(found, JobJson)
        return [found["id"] for found in page["data"]]

    assert await list_ids() == ids[::-1]
    assert await list_ids(account_id="a") == [ids[2], ids[0]]
    assert await list_ids(limit="1", after=ids[2]) == [ids[1]]
    assert await list_ids(state="done") == ids[::-1]
    assert await list_ids(state="running") == []
    _, usage = await read_answer(any_store_server.session.get("/v1/usage?group_by=account"))
    assert {row["account_id"]: row["requests"] for row in usage["data"]} == {"a": 2, "b": 1}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
async def test_a_page_asks_the_store_as_often_whatever_its_length(path: str, store_server: Server) -> None:
    jobs, batches = store_server.app[JOB_STORE], store_server.app[BATCH_STORE]
    for place in range(30):
        row = NewJobRow(f"job-{place}", float(place), account_id="", spec=JobSpec().to_json(), fingerprint="{}")
        number, epoch = await jobs.create(row, "test")
        await jobs.update(number, {"state": "done", "ended": 1.0}, epoch=epoch)
        await batches.create(
            BatchRow(row.id, row.created, "", json.dumps({"endpoint": "x", "completion_window": "24h", "input_file_id": "x"}))
        )
    statements: list[str] = []
    listener = ("before_cursor_execute", lambda *given: statements.append(given[2]))
    listen(Engine, *listener)
    try:
        counts = []
        for limit in (1, 30):
            statements.clear()
            _, page = await read_answer(store_server.session.get(path, params={"limit": limit}))
            assert [found["id"] for found in page["data"]] == [f"job-{place}" for place in range(29, 29 - limit, -1)]
            counts.append(sum("SELECT" in text and "job_counts" in text for text in statements))
    finally:
        remove(Engine, *listener)
    assert counts == [1, 1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/j"),
        ("GET", "/v1/jobs/j/events"),
        ("GET", "/v1/jobs/j/results"),
        ("GET", "/v1/jobs/j/results.csv"),
        ("POST", "/v1/jobs/j/cancel"),
        ("POST", "/v1/jobs/j/resume"),
        ("POST", "/v1/jobs/j/retry"),
        ("GET", "/v1/jobs?after=j"),
    ],
)
async def test_an_unknown_job_is_not_found(method: str, path: str, store_server: Server) -> None:
    status, answer = await read_answer(store_server.session.request(method, path, json={} if method == "POST" else None))

    assert (status, answer["error"]["code"]) == (404, "job_not_found")


@timed
async def test_jobs_stay_queued_over_a_restart_and_finish_after_it(upstream: Upstream, tmp_path: Path) -> None:
    config, store = write_config(upstream, tmp_path), str(tmp_path / "fanout.db")
    async with (
        start_server(config, FANOUT_STORE=store, FANOUT_GRACE_S="20") as first,
        aiohttp.ClientSession(first.url) as session,
    ):
        made = await create_job(session, [f"p{n}" for n in range(60)], "up/sleep-0.2")
        watching = asyncio.create_task(watch_events(first.url, made["id"]))
        await upstream.wait_for_requests(10, 30)
        began = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        assert await first.wait() == 0
        took_s = time.monotonic() - began
        events = await watching
    left = [line for line in first.log_lines("job.ended") if line["state"] == "queued"]
    before = len(upstream.requests)
    async with start_server(config, FANOUT_STORE=store) as second, aiohttp.ClientSession(second.url) as session:
        done = await wait_for_end(session, made)

    assert took_s < 10, "neither the job nor its watcher takes the whole grace"
    assert "[DONE]" not in events
    assert len(left) == 1
    assert 10 <= before < 60
    assert (done["state"], done["progress"]["answered"], len(upstream.requests)) == ("done", 60, 60)


async def watch_events(url: str, job_id: str) -> str:
    async with aiohttp.ClientSession(url) as session, session.get(f"/v1/jobs/{job_id}/events") as response:
        return await response.text()


@timed
async def test_calls_that_outlast_the_grace_are_cancelled(upstream: Upstream, tmp_path: Path) -> None:
    config, store = write_config(upstream, tmp_path), str(tmp_path / "fanout.db")
    async with (
        start_server(config, FANOUT_STORE=store, FANOUT_GRACE_S="0.3") as first,
        aiohttp.ClientSession(first.url) as session,
    ):
        made = await create_job(session, ["p0", "p1"], "up/hang")
        await upstream.wait_for_requests(2, 30)
        began = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        assert await first.wait() == 0
        assert time.monotonic() - began < 8
    async with start_server(config, FANOUT_STORE=store) as second, aiohttp.ClientSession(second.url) as session:
        found = await wait_for_state(session, f"/v1/jobs/{made['id']}", "running")
        await upstream.wait_for_requests(4, 30)

    assert found["progress"]["ended"] == 0


class BreakingResults:
    """Results of a store that cannot be read any more after the first page."""

    def __init__(self, inner: Any, pages: int) -> None:
        self._inner, self._pages = inner, pages

    async def read_page(self, *args: Any) -> Any:
        if self._pages == 0:
            raise StoreError("the disk is gone")
        self._pages -= 1
        return await self._inner.read_page(*args)


async def test_an_export_that_breaks_is_cut_off_and_logged(
    store_server: Server, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    session, store = store_server.session, store_server.app[JOB_STORE]
    job = await create_job(session, (f"q{number}" for number in range(300)), "up/ok")
    await wait_for_state(session, f"/v1/jobs/{job['id']}")
    monkeypatch.setattr(export, "READ_INTERVAL_S", 0.0)
    for kind in ("jsonl", "csv", "parquet"):
        for pages in (0, 1):
            with monkeypatch.context() as broken:
                broken.setattr(store, "results", BreakingResults(store.results, pages))
                async with session.get(f"/v1/jobs/{job['id']}/results.{kind}") as response:
                    assert response.status == (200 if pages else 503)
                    if pages:
                        with pytest.raises(aiohttp.ClientPayloadError):
                            await response.read()
        async with session.get(f"/v1/jobs/{job['id']}/results.{kind}") as response:
            assert await response.read()
    assert sum("BrokenDownloadError" in line for line in log_lines) == 3


async def test_formulas_are_quoted_on_request(store_server: Server) -> None:
    session = store_server.session
    job = await create_job(session, ["=1+1"], "up/echo")
    await wait_for_state(session, f"/v1/jobs/{job['id']}")
    path = f"/v1/jobs/{job['id']}/results"
    async with session.get(f"{path}.csv?quote_formulas=true") as response:
        assert "'=1+1" in await response.text()
    async with session.get(f"{path}.csv") as response:
        assert "'=1+1" not in await response.text()
    status, answer = await read_answer(session.get(f"{path}.jsonl?quote_formulas=true"))
    assert (status, answer["error"]["details"][0]["param"]) == (400, "quote_formulas")
