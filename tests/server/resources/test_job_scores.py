"""Scorers over HTTP: declared in a job, or applied to its stored answers."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from fanout.rendering.job import JobJson, JobResultsJson
from fanout.rendering.scores import JobScoresJson
from tests.support.batches import create_job, read_answer, wait_for_state
from tests.support.server import Server
from tests.support.shapes import check_shape


async def fetch_results(server: Server, job: dict[str, Any]) -> list[dict[str, Any]]:
    _, page = await read_answer(server.session.get(f"/v1/jobs/{job['id']}/results"))
    check_shape(page, JobResultsJson)
    results: list[dict[str, Any]] = page["data"]
    return results


async def test_a_job_scores_its_answers_with_the_scorers_it_declares(store_server: Server) -> None:
    scorers = ["length", {"type": "contains", "text": "yes", "name": "agrees"}]
    job = await create_job(store_server.session, ["p0"], ["up/say-yes", "up/say-no"], scorers=scorers, failed="drop_item")
    done = await wait_for_state(store_server.session, f"/v1/jobs/{job['id']}")
    check_shape(done, JobJson)
    first, second = await fetch_results(store_server, job)

    assert (done["failed"], done["scorers"]) == (
        "drop_item",
        [{"type": "length"}, {"type": "contains", "name": "agrees", "text": "yes"}],
    )
    assert (first["scores"]["agrees"]["value"], second["scores"]["agrees"]["value"]) == (1, 0)
    assert first["scores"]["length"] == {"value": 1, "version": first["scores"]["length"]["version"], "explanation": None}


async def test_stored_answers_are_scored_on_request_and_exported_in_each_format(store_server: Server) -> None:
    job = await create_job(store_server.session, ["p0", "p1"], ["up/say-yes"])
    await wait_for_state(store_server.session, f"/v1/jobs/{job['id']}")
    assert (await fetch_results(store_server, job))[0]["scores"] == {}
    body = {"scorers": ["exact", {"type": "regex", "pattern": "^y"}]}
    for _ in range(2):  # a repetition changes nothing
        status, answer = await read_answer(store_server.session.post(f"/v1/jobs/{job['id']}/scores", json=body))
        assert status == 200, answer
        check_shape(answer, JobScoresJson)
        assert [(row["name"], row["scored"], row["unscored"]) for row in answer["scorers"]] == [
            ("exact", 0, 2),
            ("regex", 2, 0),
        ]
    async with store_server.session.get(f"/v1/jobs/{job['id']}/results.csv") as response:
        rows = list(csv.DictReader(io.StringIO(await response.text())))

    assert [json.loads(row["scores"])["regex"]["value"] for row in rows] == [1, 1]
    assert json.loads(rows[0]["scores"])["exact"]["explanation"] == "the row has no `reference`"


@pytest.mark.parametrize(
    ("scorers", "words"),
    [
        ([{"type": "python", "function": "os.system"}], "runs code"),
        (["exat"], "did you mean `exact`?"),
        ([], "at least 1"),
        ([1], "scorers[0]"),
        (["exact"] * 33, "at most 32"),
    ],
)
async def test_wrong_scorers_are_refused_with_their_place(store_server: Server, scorers: list[Any], words: str) -> None:
    job = await create_job(store_server.session, ["p0"], ["up/ok"])
    created = {"items": [{"prompt": "p"}], "models": ["up/ok"], "scorers": scorers}
    for path, body in ((f"/v1/jobs/{job['id']}/scores", {"scorers": scorers}), ("/v1/jobs", created)):
        status, answer = await read_answer(store_server.session.post(path, json=body))
        assert status == 400
        assert words in json.dumps(answer, ensure_ascii=False), answer


async def test_scores_of_an_unknown_job_are_not_found(store_server: Server) -> None:
    status, answer = await read_answer(store_server.session.post("/v1/jobs/job_none/scores", json={"scorers": ["exact"]}))

    assert (status, answer["error"]["code"]) == (404, "job_not_found")
