"""`GET /v1/jobs/{id}/gate` and `/plan`: decisions over HTTP."""

from __future__ import annotations

from fanout.rendering.decisions import GateJson, PlanJson
from tests.support.batches import read_answer, wait_for_state
from tests.support.server import Server
from tests.support.shapes import check_shape


async def test_a_job_is_a_gate_and_a_pilot_over_http(store_server: Server) -> None:
    session = store_server.session
    items = [{"prompt": f"p{number}", "reference": "yes" if number % 3 else "no"} for number in range(30)]
    body = {"items": items, "models": ["up/say-yes", "up/say-no"], "scorers": ["exact"]}
    _, job = await read_answer(session.post("/v1/jobs", json=body))
    path = f"/v1/jobs/{job['id']}"
    await wait_for_state(session, path)
    query = {"model": "up/say-yes", "baseline": "up/say-no", "margin": "0.02"}
    status, gate = await read_answer(session.get(f"{path}/gate", params=query))
    assert status == 200, gate
    check_shape(gate, GateJson)
    turned = {**query, "model": "up/say-no", "baseline": "up/say-yes", "metric": "exact"}
    _, failed = await read_answer(session.get(f"{path}/gate", params={**turned, "margin": "0.01"}))
    status, plan = await read_answer(session.get(f"{path}/plan", params={"difference": "0.1"}))
    assert status == 200, plan
    check_shape(plan, PlanJson)
    wrong, answer = await read_answer(session.get(f"{path}/gate", params={"model": "up/say-yes", "margin": "-1"}))

    reworded = {**body, "items": [{**item, "prompt": "other"} for item in items]}
    _, second = await read_answer(session.post("/v1/jobs", json=body))
    _, third = await read_answer(session.post("/v1/jobs", json=reworded))
    for created in (second, third):
        await wait_for_state(session, f"/v1/jobs/{created['id']}")
    earlier = {**query, "baseline_job": job["id"]}
    status, across = await read_answer(session.get(f"/v1/jobs/{second['id']}/gate", params=earlier))
    assert status == 200, across
    check_shape(across, GateJson)
    pilot = {"difference": "0.1", "model": "up/say-yes", "baseline": "up/say-no", "baseline_job": job["id"]}
    status, planned = await read_answer(session.get(f"/v1/jobs/{second['id']}/plan", params=pilot))
    assert status == 200, planned
    refused, reason = await read_answer(session.get(f"/v1/jobs/{third['id']}/gate", params=earlier))
    unknown, _ = await read_answer(session.get(f"/v1/jobs/{third['id']}/gate", params={**query, "baseline_job": "job_none"}))

    assert (across["verdict"], across["baseline_job_id"]) == ("pass", job["id"])
    assert {**across, "job_id": job["id"], "baseline_job_id": None} == gate
    assert planned["pairs"][0]["b"] == f"up/say-no of {job['id']}"
    assert {**planned["pairs"][0], "b": "up/say-no"} == plan["pairs"][0]
    assert (refused, reason["error"]["param"], unknown) == (400, "baseline_job", 404)
    assert (gate["verdict"], gate["difference"]["n"]) == ("pass", 30)
    assert failed["verdict"] in ("fail", "inconclusive")
    assert plan["pairs"][0]["items"] > 600
    assert (wrong, {detail["param"] for detail in answer["error"]["details"]}) == (400, {"baseline", "margin"})
