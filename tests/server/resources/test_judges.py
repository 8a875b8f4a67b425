"""Judges over HTTP: declared in a job or applied afterwards, in jobs of their own, and reported with their reliability."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fanout.rendering.report import ReportJson
from fanout.rendering.scores import JobScoresJson
from tests.support.batches import PATIENCE_S, create_job, read_answer, wait_for_state
from tests.support.builders.settings import write_providers_file
from tests.support.dialects import CannedUpstream
from tests.support.server import Server, serve
from tests.support.shapes import check_shape
from tests.support.upstream.canned import serve_answers

MODELS = ["up/say-yes", "up/say-no"]
NOT_VALIDATED = "judge not validated: 0 of 30 labels by people"


async def judge(server: Server, path: str, **options: Any) -> list[str]:
    """Apply a judge and wait until it has judged; return the ids of its jobs."""
    declared = {"type": "judge", "retest": 1, **options}
    deadline, known = time.monotonic() + PATIENCE_S, -1
    while True:
        status, answer = await read_answer(server.session.post(f"{path}/scores", json={"scorers": [declared]}))
        assert status == 200, answer
        check_shape(answer, JobScoresJson)
        ids = [id_ for scorer in answer["scorers"] for id_ in scorer["judge_jobs"]]
        for id_ in ids:
            await wait_for_state(server.session, f"/v1/jobs/{id_}")
        if len(ids) == known:
            return ids
        known = len(ids)
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def fetch_report(server: Server, path: str) -> dict[str, Any]:
    status, report = await read_answer(server.session.get(f"{path}/report"))
    assert status == 200, report
    check_shape(report, ReportJson)
    found: dict[str, Any] = report
    return found


async def run_job(server: Server, count: int = 16, models: Sequence[Any] = MODELS, **fields: Any) -> str:
    job = await create_job(server.session, [f"p{number}" for number in range(count)], models, **fields)
    path = f"/v1/jobs/{job['id']}"
    await wait_for_state(server.session, path)
    return path


async def test_a_judge_scores_answers_by_a_rubric_in_a_job_of_its_own(any_store_server: Server) -> None:
    path = await run_job(any_store_server)
    (judge_job,) = await judge(any_store_server, path, model="up/prefers-yes", rubric="It agrees.", name="agreement")
    _, shown = await read_answer(any_store_server.session.get(f"/v1/jobs/{judge_job}"))
    _, results = await read_answer(any_store_server.session.get(f"/v1/jobs/{judge_job}/results", params={"limit": 1}))
    report = await fetch_report(any_store_server, path)
    (metric,), (figures,) = report["metrics"], report["judges"]
    _, plan = await read_answer(any_store_server.session.get(f"{path}/plan", params={"difference": 0.1}))
    gate_query = {"model": MODELS[0], "baseline": MODELS[1], "margin": "0.1"}
    _, gate = await read_answer(any_store_server.session.get(f"{path}/gate", params=gate_query))

    assert gate["sentence"].endswith(f"; {NOT_VALIDATED}")
    assert plan["pairs"][0]["note"].endswith(f"; {NOT_VALIDATED}")
    assert shown["judging"] == {"job": path.rpartition("/")[2], "scorer": "agreement", "round": "1"}
    assert "It agrees." in results["data"][0]["prompt"][0]["content"]
    assert results["data"][0]["text"].endswith("VERDICT: 5"), "the raw answer is kept"
    assert metric["verdict"].startswith("agreement: up/say-yes is best, 1 [0.8064, 1]")
    assert metric["verdict"].endswith(f"({NOT_VALIDATED})")
    assert all(NOT_VALIDATED in model["mean"]["note"] for model in metric["models"])
    assert (figures["questions"], figures["unread"], figures["retested"], figures["retest"]) == (64, 0, 32, 1)


async def test_a_judge_declared_in_a_job_compares_pairs_after_it_and_people_validate_it(store_server: Server) -> None:
    scorer = {"type": "judge", "model": "up/prefers-yes", "task": "pair", "order": "both", "name": "pairwise"}
    path = await run_job(store_server, 30, scorers=[scorer])
    await judge(store_server, path, **{**scorer, "retest": 0.1})
    before = await fetch_report(store_server, path)
    for number in range(30):
        _, ballot = await read_answer(store_server.session.post(f"{path}/ballots", json={}))
        better = "ab"[[answer["text"] for answer in ballot["answers"]].index("yes" if number else "no")]
        await read_answer(store_server.session.post("/v1/votes", json={"ballot_id": ballot["id"], "choice": better}))
    after = await fetch_report(store_server, path)
    by_source = {one["source"]: one for one in after["preferences"]}

    assert before["metrics"] == []
    assert before["preferences"][0]["verdict"].endswith(f"30 judgements ({NOT_VALIDATED})")
    assert before["judges"][0]["kappa"] is None
    assert by_source["pairwise"]["verdict"] == "pairwise: up/say-yes is preferred to every other model, 30 judgements"
    (figures,) = after["judges"]
    assert (figures["labels"], figures["note"], figures["both_orders"], figures["consistency"]) == (30, None, 30, 1)
    assert figures["bias"] == 0
    assert figures["kappa"] is not None
    (corrected,) = figures["corrected"]
    assert (corrected["a"], corrected["b"], corrected["judged"], corrected["labels"]) == (*MODELS, 1, 30)
    assert "two unlabelled items are needed" in corrected["corrected"]["note"]


async def test_further_calls_of_a_member_are_not_judged(store_server: Server) -> None:
    models = ["up/say-yes", {"fusion": {"of": ["up/say-yes"] * 3, "by": "up/say-no"}}]
    path = await run_job(store_server, 4, models)
    for task, questions in (("pair", 2), ("score", 2)):
        *_, judge_job = await judge(store_server, path, model="up/prefers-yes", name=task, task=task, order="both", retest=0)
        _, shown = await read_answer(store_server.session.get(f"/v1/jobs/{judge_job}"))
        assert shown["items"] == 4 * questions, "both orders of one pair, or the answers of two models"


async def test_a_judge_that_prefers_the_first_place_is_found_out(store_server: Server) -> None:
    path = await run_job(store_server)
    await judge(store_server, path, model="up/say-VERDICT: A", task="pair", order="both")
    report = await fetch_report(store_server, path)
    (figures,), (preferences,) = report["judges"], report["preferences"]

    assert (figures["consistency"], figures["bias"], figures["retest"]) == (0, 1, 1)
    assert preferences["pairs"][0]["ties"] == 16, "no order agrees with the other, so nobody wins"


async def test_an_unreadable_verdict_is_asked_once_more_then_counted_and_never_guessed(store_server: Server) -> None:
    path = await run_job(store_server)
    ids = await judge(store_server, path, model="up/prefers-yes-says-I prefer", retest=0)
    again = await judge(store_server, path, model="up/prefers-yes-says-I prefer", retest=0)
    report = await fetch_report(store_server, path)
    sizes = [(await read_answer(store_server.session.get(f"/v1/jobs/{id_}")))[1]["items"] for id_ in ids]

    assert (ids, sizes) == (again, [32, 32])
    assert report["judges"][0]["unread"] == 32
    assert report["metrics"][0]["n"] == 0
    assert report["metrics"][0]["dropped"] == {"unfinished": 0, "failed": 0, "unscored": 16}
    assert "judge: 32 of 32 verdicts could not be read; they are in no figure" in report["notes"]


async def test_the_limit_on_a_judges_cost_is_one_over_all_of_its_rounds(store_server: Server) -> None:
    path = await run_job(store_server, 2)
    first, second = await judge(store_server, path, model="priced", retest=0, max_tokens=4, max_cost_usd=40)
    _, before = await read_answer(store_server.session.get(f"/v1/jobs/{first}"))
    _, after = await read_answer(store_server.session.get(f"/v1/jobs/{second}"))

    assert before["max_cost_usd"] == 40
    assert before["progress"]["cost_usd"] > 0
    assert after["max_cost_usd"] == pytest.approx(40 - before["progress"]["cost_usd"])


async def test_answers_that_come_by_a_retry_are_judged_and_no_other_one_is_asked_about_again(store_server: Server) -> None:
    scorer = {"type": "judge", "model": "up/prefers-yes", "retest": 0}
    body = {
        "items": [{"prompt": f"p{number}"} for number in range(16)],
        "models": ["up/say-yes", "up/fail-5-then-say-no"],
        "scorers": [scorer],
        "attempts": 1,
    }
    _, job = await read_answer(store_server.session.post("/v1/jobs", json=body))
    path = f"/v1/jobs/{job['id']}"
    await wait_for_state(store_server.session, path)
    first = await judge(store_server, path, **scorer)
    await read_answer(store_server.session.post(f"{path}/retry", json={}))
    await wait_for_state(store_server.session, path)
    ids = await judge(store_server, path, **scorer)
    report = await fetch_report(store_server, path)
    sizes = [(await read_answer(store_server.session.get(f"/v1/jobs/{id_}")))[1]["items"] for id_ in ids]

    assert (len(first), ids[:1], sizes) == (1, first, [27, 5])
    assert report["judges"][0]["questions"] == 32
    assert report["metrics"][0]["n"] == 16
    assert report["metrics"][0]["models"][1]["mean"]["value"] == 0


async def test_a_judge_whose_model_nobody_knows_is_refused_by_name(store_server: Server) -> None:
    path = await run_job(store_server, 1)
    body: dict[str, Any] = {"scorers": ["exact", {"type": "judge", "model": "nobody"}]}
    created = {"items": [{"prompt": "p"}], "models": MODELS, **body}
    for where, sent in ((f"{path}/scores", body), ("/v1/jobs", created)):
        status, answer = await read_answer(store_server.session.post(where, json=sent))
        assert status == 400
        assert "nobody" in answer["error"]["message"]
        assert answer["error"]["param"] == "scorers[1].model"
    assert (await fetch_report(store_server, path))["judges"] == [], "it is no scorer of the job"


async def test_a_judge_reads_a_refusal_as_people_do(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I must not."}
    upstream = CannedUpstream(whole={"choices": [{"message": message, "finish_reason": "stop"}]})
    async with serve_answers(upstream.answer) as canned:
        config = write_providers_file(f"{canned.url}/v1", tmp_path)
        async with serve(config, FANOUT_STORE=str(tmp_path / "fanout.db")) as server:
            path = await run_job(server, 1)
            judge_job, *_ = await judge(server, path, model="up/judge", rubric="It agrees.")
            _, results = await read_answer(server.session.get(f"/v1/jobs/{judge_job}/results"))

    assert "I must not." in results["data"][0]["prompt"][0]["content"]
