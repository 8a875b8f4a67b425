"""`/v1/jobs/{id}/items`: rows with all models' results, filtered, searched and sorted by the server."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.server.resources.job_items import JobItemsJson
from tests.support.batches import read_answer, wait_for_state
from tests.support.server import Server
from tests.support.shapes import check_shape

PROMPTS = [
    {"prompt": "red apple", "reference": "red apple"},
    {"prompt": "blue Sky 100%", "reference": "other"},
    {"prompt": "x" * 9_000 + " end", "reference": "no"},
]
MODELS = [
    {"model": "up/say-red apple", "label": "red"},
    {"model": "up/say-other-tokens-50", "label": "other"},
    {"model": "up/400", "label": "broken"},
]


async def run_job(server: Server, body: Any) -> str:
    status, made = await read_answer(server.session.post("/v1/jobs", json=body))
    assert status == 201, made
    await wait_for_state(server.session, f"/v1/jobs/{made['id']}", "done")
    return str(made["id"])


async def fetch(server: Server, job: str, **query: Any) -> Any:
    status, page = await read_answer(server.session.get(f"/v1/jobs/{job}/items", params=query))
    assert status == 200, page
    check_shape(page, JobItemsJson)
    return page


def list_items(page: Any) -> list[int]:
    return [row["item"] for row in page["data"]]


async def test_rows_are_filtered_searched_sorted_and_paged(any_store_server: Server) -> None:
    server = any_store_server
    job = await run_job(server, {"items": PROMPTS, "models": MODELS[:2], "scorers": ["exact"]})

    whole = await fetch(server, job)
    assert (list_items(whole), whole["total"], whole["scorers"]) == ([0, 1, 2], 3, ["exact"])
    assert whole["data"][1]["input"]["prompt"] == "blue Sky 100%"
    assert [(result["label"], result["text"]) for result in whole["data"][0]["results"]] == [
        ("red", "red apple"),
        ("other", "other"),
    ]
    second = await fetch(server, job, offset=1, limit=1)
    assert (list_items(second), second["total"], second["offset"]) == ([1], 3, 1)

    expected = {
        (("show", "different"),): [0, 1, 2],
        (("show", "errors"),): [],
        (("show", "disagreement"),): [0, 1],
        (("show", "regressions"),): [0],
        (("show", "regressions"), ("baseline", "other")): [1],
        (("search", "SKY 100%"),): [1],
        (("search", "RED APP"),): [0, 1, 2],
        (("search", " end"),): [2],
        (("search", "100_"),): [],
        (("regex", "blue.*[0-9]{3}%"),): [1],
        (("regex", "x{9000}"),): [2],
        (("sort", "score_difference"),): [0, 1, 2],
        (("sort", "input"), ("order", "desc")): [2, 1, 0],
        (("show", "disagreement"), ("sort", "input"), ("order", "desc"), ("limit", "1")): [1],
    }
    for query, items in expected.items():
        assert list_items(await fetch(server, job, **dict(query))) == items, query
    for sort in ("length", "latency", "cost"):
        assert sorted(list_items(await fetch(server, job, sort=sort))) == [0, 1, 2]


async def test_failures_and_what_has_not_ended_are_rows_too(store_server: Server) -> None:
    job = await run_job(store_server, {"items": PROMPTS[:2], "models": [MODELS[0], MODELS[2]]})

    page = await fetch(store_server, job, show="errors", search="apple")
    assert list_items(page) == [0, 1]
    assert [result["error_kind"] for result in page["data"][0]["results"]] == [None, "bad_request"]
    assert list_items(await fetch(store_server, job, show="different")) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"baseline": "nobody"}, "baseline"),
        ({"scorer": "none"}, "scorer"),
        ({"regex": "("}, "regex"),
        ({"limit": "0"}, "limit"),
    ],
)
async def test_a_wrong_parameter_is_named(query: dict[str, str], param: str, store_server: Server) -> None:
    job = await run_job(store_server, {"items": PROMPTS[:1], "models": MODELS[:1]})
    status, answer = await read_answer(store_server.session.get(f"/v1/jobs/{job}/items", params=query))

    assert (status, answer["error"]["param"]) == (400, param)
