"""Jobs that stop as soon as they are decided, through the real runner."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.rendering.job import JobJson
from fanout.rendering.report import ReportJson
from tests.support.batches import read_answer, wait_for_state
from tests.support.server import Server
from tests.support.shapes import check_shape
from tests.support.upstream.server import Upstream

MODELS = ["up/say-yes", "up/say-no"]


async def run(server: Server, count: int, models: list[Any], reference: Any = "yes", **plan: Any) -> dict[str, Any]:
    items = [{"prompt": f"p{number}", "reference": reference} for number in range(count)]
    until = {"metric": "exact", **plan}
    body = {"items": items, "models": models, "scorers": ["exact"], "until_decided": until, "attempts": 1}
    status, job = await read_answer(server.session.post("/v1/jobs", json=body))
    assert status == 201, job
    check_shape(job, JobJson)
    return await wait_for_state(server.session, f"/v1/jobs/{job['id']}")


async def test_a_planted_difference_stops_the_job_long_before_its_end(any_store_server: Server, upstream: Upstream) -> None:
    job = await run(any_store_server, 200, MODELS)
    prompts = [request.body["messages"][0]["content"] for request in upstream.requests]
    status, report = await read_answer(any_store_server.session.get(f"/v1/jobs/{job['id']}/report"))
    assert status == 200, report
    check_shape(report, ReportJson)
    stopping = report["stopping"]

    assert (job["state"], job["reason"]) == (
        "done",
        "decided by exact after 7 of 200 items: up/say-yes is better than every other model",
    )
    assert stopping["sentence"] == job["reason"]
    assert len(prompts) == stopping["calls"] <= 2 * (7 + 32)
    assert prompts[:8] != [f"p{number // 2}" for number in range(8)], "the rows run in a random order"
    (pair,) = stopping["pairs"]
    assert (pair["state"], pair["items"], pair["fixed_items"]) == ("difference", 7, 15)
    assert (stopping["fixed_calls"], stopping["fixed_cost_usd"], stopping["cost_usd"]) == (30, None, None)
    assert [point["items"] for point in pair["path"]] == [1, 2, 3, 4, 5, 6, 7]
    assert "e-values, mixture over discordant items, α shared among the pairs" in report["methods"]
    assert (pair["low"], pair["high"]) == (pair["path"][-1]["low"], 1)
    assert pair["path"][-1]["evidence"] == pair["evidence"] >= 20
    assert any("the job stops as soon as it is decided" in note for note in report["notes"])
    assert not any("calls have ended" in note for note in report["notes"])


async def test_a_slow_model_and_a_fast_one_stay_in_step_and_a_loser_is_dropped(
    any_store_server: Server, upstream: Upstream
) -> None:
    job = await run(any_store_server, 100, ["up/say-yes", "up/say-yes-sleep-0.005", "up/say-no"], max_items=60)

    assert job["state"] == "done"
    assert job["reason"].startswith("undecided by exact after 60 items: ") or "cannot decide" in job["reason"]
    assert len(upstream.requests_for("say-no")) <= 10 + 2 * 32
    assert len(upstream.requests_for("say-yes")) <= 60


async def test_further_calls_of_a_member_are_no_contestants_and_end_with_their_fusion(
    any_store_server: Server, upstream: Upstream
) -> None:
    itself = {"fusion": {"of": ["up/say-yes"] * 3, "by": "up/say-no"}}
    job = await run(any_store_server, 200, ["up/say-yes", itself, "up/say-yes-sleep-0.001"], max_items=60)
    _, report = await read_answer(any_store_server.session.get(f"/v1/jobs/{job['id']}/report"))
    pairs = [(pair["a"], pair["b"], pair["state"]) for pair in report["stopping"]["pairs"]]
    fusion = "fusion(up/say-yes*3 by up/say-no)"

    assert len(job["labels"]) == 5, "two of them are further calls"
    assert len(pairs) == 3
    assert [pair for pair in pairs if fusion in pair] == [
        ("up/say-yes", fusion, "difference"),
        (fusion, "up/say-yes-sleep-0.001", "difference"),
    ]
    # The fusion lost after a few rows, and its members went on for nobody but it.
    assert len(upstream.requests_for("say-yes")) <= 60 + 2 * (10 + 32)


async def test_a_model_that_cannot_be_called_stops_the_job_instead_of_leaving_it_waiting(any_store_server: Server) -> None:
    job = await run(any_store_server, 100, ["up/say-yes", "up/401"])

    assert job["state"] == "stopped"
    assert job["reason"]


async def test_failures_that_stay_are_decided_by_the_policy(store_server: Server) -> None:
    job = await run(store_server, 100, ["up/say-yes", "up/400"])

    assert job["reason"] == "decided by exact after 7 of 100 items: up/say-yes is better than every other model"


async def test_a_job_with_nothing_to_compare_is_refused_and_not_stored(store_server: Server) -> None:
    body = {"items": [{"prompt": "p"}], "scorers": ["exact"], "until_decided": {"metric": "exact"}, "models": ["up/say-yes"]}
    status, answer = await read_answer(store_server.session.post("/v1/jobs", json=body))
    _, listed = await read_answer(store_server.session.get("/v1/jobs"))

    assert (status, answer["error"]["param"], listed["data"]) == (400, "until_decided", [])
    assert answer["error"]["message"] == "`until_decided`: needs two models to compare; the job has 1"


@pytest.mark.parametrize(
    ("until", "scorers", "param"),
    [
        ({"metric": "exat"}, ["exact"], "until_decided.metric"),
        ({"metric": "length"}, ["length"], "until_decided.metric"),
        ({"metric": "exact", "margin": 2}, ["exact"], "until_decided.margin"),
        ({}, ["exact"], "until_decided.metric"),
    ],
)
async def test_a_plan_that_cannot_decide_is_refused_with_its_field(
    store_server: Server, until: dict[str, Any], scorers: list[str], param: str
) -> None:
    body = {"items": [{"prompt": "p"}], "models": MODELS, "scorers": scorers, "until_decided": until}
    status, answer = await read_answer(store_server.session.post("/v1/jobs", json=body))

    assert (status, answer["error"]["param"]) == (400, param)
