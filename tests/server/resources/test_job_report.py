"""`GET /v1/jobs/{id}/report`: the report of a job over HTTP."""

from __future__ import annotations

import subprocess
import sys

from fanout.rendering.report import ReportJson
from tests.support.batches import create_job, read_answer, wait_for_state
from tests.support.server import Server
from tests.support.shapes import check_shape
from tests.support.upstream.server import Upstream


async def test_a_job_is_reported_with_its_scores_failures_and_costs(any_store_server: Server) -> None:
    session = any_store_server.session
    items = [{"prompt": f"p{number}", "reference": "yes", "topic": f"t{number % 4}"} for number in range(20)]
    models = ["up/say-yes", "up/say-no", "up/error-404", "priced"]
    body = {"items": items, "models": models, "scorers": ["exact"], "attempts": 1}
    status, job = await read_answer(session.post("/v1/jobs", json=body))
    assert status == 201, job
    await wait_for_state(session, f"/v1/jobs/{job['id']}")
    status, report = await read_answer(session.get(f"/v1/jobs/{job['id']}/report"))
    assert status == 200, report
    check_shape(report, ReportJson)
    (metric,) = report["metrics"]
    by_name = {model["model"]: model for model in report["models"]}

    assert metric["verdict"].startswith("exact: up/say-yes is best, 1 [0.8389, 1]")
    assert (metric["n"], metric["failures_are_zero"], report["failed"]) == (20, True, "score_zero")
    assert by_name["up/error-404"]["failures"] == {"not_found": 20} or by_name["up/error-404"]["answered"] == 0
    assert by_name["priced"]["cost_usd"] > 0
    assert by_name["priced"]["cost_per_1000_items_usd"]["value"] > 0
    assert any("20 calls failed" in note for note in report["notes"])
    status, clustered = await read_answer(session.get(f"/v1/jobs/{job['id']}/report", params={"cluster": "topic"}))
    assert (status, clustered["clusters"], clustered["cluster_column"]) == (200, 4, "topic")


async def test_a_job_that_streams_has_the_times_of_first_and_further_tokens(store_server: Server, upstream: Upstream) -> None:
    session = store_server.session
    scorers = [{"type": "latency", "until": "first_token", "name": "start"}]
    models = ["up/chunks-8-gap-0.01", "up/fail-1-then-ok"]
    reports = []
    for stream in (True, False):
        job = await create_job(session, ["p0", "p1"], models, stream=stream, scorers=scorers)
        await wait_for_state(session, f"/v1/jobs/{job['id']}")
        _, page = await read_answer(session.get(f"/v1/jobs/{job['id']}/results"))
        _, report = await read_answer(session.get(f"/v1/jobs/{job['id']}/report"))
        check_shape(report, ReportJson)
        reports.append(report)
        assert job["stream"] is stream
        assert [result["error_kind"] for result in page["data"]] == [None] * 4
        assert [result["ttft_ms"] is not None for result in page["data"]] == [stream] * 4
        assert [result["scores"]["start"]["value"] is not None for result in page["data"]] == [stream] * 4
    streamed, whole = ({model["model"]: model for model in report["models"]} for report in reports)

    assert {request.body.get("stream", False) for request in upstream.requests} == {True, False}
    chunked = streamed[models[0]]
    assert chunked["ttft_ms"]["n"] == chunked["tpot_ms"]["n"] == 2
    assert 0 < chunked["ttft_ms"]["p50"] < chunked["call_ms"]["p50"]
    assert [model["ttft_ms"]["n"] for model in whole.values()] == [0, 0]
    notes = [[note for note in report["notes"] if note.startswith("time to first token: not measured")] for report in reports]
    assert [len(found) for found in notes] == [0, 1]


async def test_the_report_comes_as_a_page_a_table_or_markdown_as_its_reader_likes_best(any_store_server: Server) -> None:
    session = any_store_server.session
    body = {"items": [{"prompt": f"p{n}"} for n in range(3)], "models": ["up/say-yes", "up/say-no"], "scorers": ["length"]}
    _, job = await read_answer(session.post("/v1/jobs", json=body))
    path = f"/v1/jobs/{job['id']}/report"
    await wait_for_state(session, path.removesuffix("/report"))
    found: dict[str, tuple[str, str]] = {}
    for name, query, accepted in (
        ("browser", {}, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("html", {"format": "html"}, "*/*"),
        ("csv", {"format": "csv"}, "text/html"),
        ("markdown", {}, "text/html;q=0.1, text/markdown;q=0.9"),
        ("any", {}, "*/*"),
        ("none", {}, "text/html;q=0, image/png"),
    ):
        async with session.get(path, params=query, headers={"Accept": accepted}) as response:
            assert response.status == 200
            assert response.headers["Vary"].split(", ")[0] == "Accept"
            found[name] = response.headers["Content-Type"], await response.text()
            policy = response.headers.get("Content-Security-Policy", "")
            assert ("sandbox allow-scripts allow-downloads" in policy) == (name in ("browser", "html"))
    status, refused = await read_answer(session.get(path, params={"format": "pdf"}))

    assert {name: media.partition(";")[0] for name, (media, _) in found.items()} == {
        "browser": "text/html",
        "html": "text/html",
        "csv": "text/csv",
        "markdown": "text/markdown",
        "any": "application/json",
        "none": "application/json",
    }
    assert found["browser"] == found["html"]
    assert found["html"][1].count('id="chunk-') == 1
    assert found["html"][1].endswith("</body></html>\n")
    assert found["csv"][1].startswith("table,metric,a,b,figure,value\r\n")
    assert found["markdown"][1].startswith("### ")
    assert (status, refused["error"]["param"]) == (400, "format")


async def test_a_wrong_cluster_and_an_unknown_job_are_named(store_server: Server) -> None:
    session = store_server.session
    job = await create_job(session, ["p0"], ["up/ok"])
    await wait_for_state(session, f"/v1/jobs/{job['id']}")
    status, answer = await read_answer(session.get(f"/v1/jobs/{job['id']}/report", params={"cluster": "topic"}))
    assert (status, answer["error"]["message"]) == (400, "`cluster`: no row has a column `topic`")
    status, answer = await read_answer(session.get("/v1/jobs/job_none/report"))
    assert (status, answer["error"]["code"]) == (404, "job_not_found")


async def test_a_job_without_scores_or_without_results_has_a_report_that_says_so(store_server: Server) -> None:
    session = store_server.session
    job = await create_job(session, ["p0"], ["up/hang"])
    status, report = await read_answer(session.get(f"/v1/jobs/{job['id']}/report"))
    assert status == 200, report
    check_shape(report, ReportJson)

    assert report["metrics"] == []
    assert "no scores: declare scorers in the job, or apply them with `fanout evaluate score`" in report["notes"]
    assert "0 of 1 calls have ended" in report["notes"][0]
    await session.post(f"/v1/jobs/{job['id']}/cancel")


def test_the_server_describes_reports_without_loading_what_makes_them() -> None:
    program = (
        "import sys; import fanout.server.app, fanout.cli.report, fanout.cli.evaluate, fanout.rendering.report; "
        "print([name for name in ('numpy', 'scipy', 'statsmodels') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
