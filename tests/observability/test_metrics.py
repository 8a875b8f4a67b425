"""`/metrics`, read with prometheus-client's own parser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fanout.config.catalogue import Catalogue
from fanout.config.settings import load_settings
from fanout.core.schema import Call, Completion, Failure, Outcome, Query, Retry, Target, Timing
from fanout.core.usage import Usage
from fanout.observability.metrics import Metrics
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client, encode_request
from tests.support.server import UP_KEY, serve
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

CALL = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "up"}
DURATION = "gen_ai_client_operation_duration_seconds"


class Page:
    """A page of metrics."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, labels: Mapping[str, str] | None = None, **more: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        wanted = {**(labels or {}), **more}.items()
        return sum(sample.value for sample in self.samples if sample.name == name and wanted <= sample.labels.items())

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if sample.name == name}


async def fetch_page(client: Client) -> Page:
    reply = await client.send("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return Page(reply.body.decode())


ODD = ('say-"quoted"', "say-back\\slash", "say-é")
"""Ids of models that the format of the page must escape."""


@pytest.fixture
async def client(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Client]:
    retried = {"provider": "up", "id": "fail-2-then-ok", "kind": "chat"}
    price = {"input_usd_per_mtok": 100_000, "output_usd_per_mtok": 200_000}
    priced = {
        "models": {
            "priced": {"provider": "up", "id": "input-3-tokens-2", "kind": "chat", "price": price},
            "retried": retried,
            **{f"m{number}": {"provider": "up", "id": model, "kind": "chat"} for number, model in enumerate(ODD)},
            **{model: {"provider": "up", "id": model, "kind": "chat"} for model in ("sleep-0.2", "first-0.2")},
        }
    }
    config = write_providers_file(upstream.url, tmp_path, more=priced, api_key_env="UP_KEY", retries={"max_delay_s": 0.01})
    async with serve(config, UP_KEY=UP_KEY) as server:
        yield Client(server)


async def test_calls_are_counted_by_provider_model_and_outcome(client: Client) -> None:
    await client.complete(model=["up/ok", "up/ok", "up/400", "nobody", "ok-text"], n=2)
    await client.stream(model=["up/ok", "up/500"])
    shown = await fetch_page(client)

    count = f"{DURATION}_count"
    assert shown.value(count, CALL, gen_ai_request_model="ok", error_type="") == 5
    assert shown.value(count, CALL, gen_ai_request_model="400", error_type="bad_request") == 2
    assert shown.value(count, CALL, gen_ai_request_model="500", error_type="server") == 1
    assert shown.value(count, gen_ai_operation_name="text_completion", gen_ai_request_model="ok") == 2
    assert shown.value(count, gen_ai_provider_name="", gen_ai_request_model="", error_type="not_found") == 2
    assert shown.value(count) == 12
    assert shown.value("fanout_call_queue_wait_seconds_count") == 10, "what is not called does not queue"
    assert "nobody" not in shown.labels(count, "gen_ai_request_model"), "text of callers must not become a label"


@timed
async def test_times_are_counted_in_buckets(client: Client) -> None:
    await client.complete(model="up/sleep-0.2")
    await client.stream(model="up/first-0.2")
    shown = await fetch_page(client)

    slow = {**CALL, "gen_ai_request_model": "sleep-0.2"}
    assert shown.value(f"{DURATION}_bucket", slow, le="0.16") == 0
    assert shown.value(f"{DURATION}_bucket", slow, le="0.32") == 1
    assert shown.value(f"{DURATION}_bucket", slow, le="+Inf") == 1
    assert shown.value(f"{DURATION}_sum", slow) == pytest.approx(0.2, abs=0.1)
    first = "gen_ai_client_operation_time_to_first_chunk_seconds"
    assert shown.value(f"{first}_count") == 1, "only streams have a first chunk"
    assert shown.value(f"{first}_sum", CALL, gen_ai_request_model="first-0.2") == pytest.approx(0.2, abs=0.08)


async def test_tokens_and_cost_of_answers_are_counted(client: Client) -> None:
    answer = (await client.complete(model=["priced", "priced", "up/no_usage", "up/400"])).json
    shown = await fetch_page(client)

    tokens, priced = "gen_ai_client_token_usage", {**CALL, "gen_ai_request_model": "input-3-tokens-2"}
    assert shown.value(f"{tokens}_sum", priced, gen_ai_token_type="input") == 6
    assert shown.value(f"{tokens}_sum", priced, gen_ai_token_type="output") == 4
    assert shown.value(f"{tokens}_count") == 4, "what was not reported is not counted as 0"
    assert shown.value("fanout_call_cost_usd_total", priced) == pytest.approx(answer["cost_usd"])
    assert answer["cost_usd"] == pytest.approx(1.4)


async def test_retries_are_counted_by_kind_of_failure(client: Client) -> None:
    await client.complete(model=["up/fail-2-then-ok", "up/429-times-1-then-ok"])
    shown = await fetch_page(client)
    assert shown.value("fanout_call_retries_total", CALL, gen_ai_request_model="other", error_type="rate_limit") == 1

    assert shown.value("fanout_call_retries_total", CALL, gen_ai_request_model="fail-2-then-ok", error_type="server") == 2
    assert shown.value("fanout_call_retries_total", CALL, error_type="rate_limit") == 1
    assert shown.value(f"{DURATION}_count") == 2


@timed
async def test_calls_in_flight_and_waiting_are_shown(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path, limits={"concurrency": 2})
    async with serve(config) as server:
        client = Client(server)
        asking = asyncio.create_task(client.complete(model=["up/sleep-0.2"] * 5))
        await upstream.wait_for_requests(2)
        during = await fetch_page(client)
        await asking
        after = await fetch_page(client)

    assert during.value("fanout_calls_in_flight", account="up") == 2
    assert during.value("fanout_calls_waiting", account="up", priority="interactive") == 3
    assert during.value("fanout_calls_waiting", account="up", priority="batch") == 0
    assert after.value("fanout_calls_in_flight") == after.value("fanout_calls_waiting") == 0
    queue = "fanout_call_queue_wait_seconds"
    assert after.value(f"{queue}_count", CALL) == 5
    assert after.value(f"{queue}_bucket", CALL, le="0.1") == 2
    assert after.value(f"{queue}_sum", CALL) == pytest.approx(0.2 * 2 + 0.4, abs=0.3)


async def test_a_paused_account_is_shown(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path, limits={"concurrency": 1})) as server:
        client = Client(server)
        await client.complete(model="up/ok")
        server.dispatcher.limiters.get("up", server.dispatcher.settings.providers["up"].row.limits, None).pause(None, 30)
        shown = await fetch_page(client)

    assert 29 < shown.value("fanout_account_pause_seconds", account="up") <= 30


async def test_requests_are_counted_by_route_and_status(client: Client) -> None:
    await client.complete(model="up/ok")
    await client.stream(model="up/ok")
    await client.complete(model="up/ok", temperature=9)
    await client.send("GET", "/v1/models/ok")
    await client.send("GET", "/v1/models/hang")
    for path in ("/nowhere", "/else/where", "/v1/x"):
        await client.send("GET", path)
    await client.send_raw(encode_request(method="PURGE", path="/livez"))
    shown = await fetch_page(client)

    name = "http_server_request_duration_seconds_count"
    completion = {"http_request_method": "POST", "http_route": "/v1/completion"}
    assert shown.value(name, completion, http_response_status_code="200") == 2
    assert shown.value(name, completion, http_response_status_code="400") == 1
    assert shown.value(name, http_route="/v1/models/{model}", http_response_status_code="200") == 2
    assert shown.value(name, http_route="unknown", http_response_status_code="404") == 3
    assert shown.value(name, http_request_method="_OTHER") == 1, "callers invent methods"
    assert shown.value("fanout_request_overhead_seconds_count", http_route="/v1/completion") == 2


async def test_a_request_whose_client_left_is_counted_as_499(client: Client, upstream: Upstream) -> None:
    asking = asyncio.create_task(client.complete(model="up/hang"))
    await upstream.wait_for_requests(1)
    asking.cancel()
    await upstream.wait_until_idle(1)
    shown = await fetch_page(client)

    assert shown.value("http_server_request_duration_seconds_count", http_response_status_code="499") == 1
    assert shown.value(f"{DURATION}_count", CALL, error_type="cancelled") == 1
    assert shown.value("fanout_calls_in_flight") == 0


async def test_names_and_labels_follow_opentelemetry(client: Client) -> None:
    """Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, and …/http/http-metrics/."""
    await client.stream(model="up/ok")
    shown = await fetch_page(client)

    required = {"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"}
    for name, more in (
        (DURATION, {"error_type"}),
        ("gen_ai_client_token_usage", {"gen_ai_token_type"}),
        ("gen_ai_client_operation_time_to_first_chunk_seconds", set()),
    ):
        family = shown.families[name]
        assert family.type == "histogram"
        assert set(family.samples[0].labels) - {"le"} == required | more
    http = shown.families["http_server_request_duration_seconds"].samples[0].labels
    assert {"http_request_method", "http_route", "http_response_status_code"} <= set(http)
    bounds = [sample.labels["le"] for sample in shown.families["gen_ai_client_token_usage"].samples if "le" in sample.labels]
    assert [float(bound) for bound in bounds[:15]] == [*(4.0**power for power in range(14)), float("inf")]
    assert shown.families["process_resident_memory_bytes"].samples[0].value > 10**6


async def test_names_of_models_are_escaped(client: Client) -> None:
    await client.complete(model=[f"up/{name}" for name in ODD])

    assert (await fetch_page(client)).labels(f"{DURATION}_count", "gen_ai_request_model") >= set(ODD)


def make_outcome(model: str, tokens: int = 1) -> Outcome:
    call = Call(0, 0, 0, Target("x", "x", "up", model), Query(prompt="x"))
    return Outcome(call, Completion((), Usage(tokens, tokens)), Timing(0.1, 0.1, 0.1, 0.1, 1))


async def test_invented_model_names_cannot_fill_the_memory(tmp_path: Path) -> None:
    """Not even at a server that answers to every name; and the models of the configuration keep their labels."""
    settings = load_settings(write_providers_file("http://127.0.0.1:9", tmp_path), {})
    metrics = Metrics()
    metrics.expect(Catalogue(settings))
    for number in range(50):
        metrics.observe(make_outcome(f"invented-{number}"))
        metrics.observe(Retry(make_outcome(f"invented-{number}").call, Failure("server", "x"), 1, 0.1))
    metrics.observe(make_outcome("ok"))
    shown = Page((await metrics.render()).decode())

    models = shown.labels(f"{DURATION}_count", "gen_ai_request_model")
    entries = {model.id for model in settings.models.values()}
    assert models == entries | {"other"}
    assert shown.value(f"{DURATION}_count", gen_ai_request_model="ok") == 1
    assert shown.value(f"{DURATION}_count") == 51, "nothing is lost"
    assert shown.value("fanout_call_retries_total", gen_ai_request_model="other") == 50


async def test_names_that_no_provider_answers_for_never_take_a_label(client: Client) -> None:
    await client.complete(model=[f"up/invented-{number}" for number in range(5)] + ["local/nix", "up/ok"])
    shown = await fetch_page(client)

    count = f"{DURATION}_count"
    assert not [model for model in shown.labels(count, "gen_ai_request_model") if "invented" in model or model == "nix"]
    assert shown.value(count, gen_ai_provider_name="up", gen_ai_request_model="other", error_type="not_found") == 5
    assert shown.value(count, gen_ai_provider_name="up", gen_ai_request_model="ok", error_type="") == 1


async def test_models_and_accounts_that_can_be_called_are_shown_with_0_before_their_first_call(client: Client) -> None:
    shown = await fetch_page(client)

    zero = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "up", "gen_ai_request_model": "ok", "error_type": ""}
    counts = [sample.value for sample in shown.samples if sample.name == f"{DURATION}_count" and sample.labels == zero]
    assert counts == [0]
    accounts = {"up"}
    assert shown.labels("fanout_calls_in_flight", "account") >= accounts
    assert shown.labels("fanout_account_pause_seconds", "account") >= accounts
    assert shown.value("fanout_calls_in_flight") == 0


@timed
async def test_a_large_page_does_not_block_the_event_loop(tmp_path: Path) -> None:
    metrics = Metrics()
    models = {f"m{number}": {"provider": "up", "id": f"model-{number}", "kind": "chat"} for number in range(500)}
    metrics.expect(Catalogue(load_settings(write_providers_file("http://127.0.0.1:9", tmp_path, more={"models": models}), {})))
    for number in range(500):
        metrics.observe(make_outcome(f"model-{number}"))
        metrics.record_request("GET", f"/route-{number}", 200, 0.1, 0.1)
    making = asyncio.create_task(metrics.render())
    slowest, began = 0.0, time.monotonic()
    while not making.done():
        before = time.monotonic()
        await asyncio.sleep(0.001)
        slowest = max(slowest, time.monotonic() - before)
        metrics.observe(make_outcome(f"meanwhile-{number}"))

    took_s = time.monotonic() - began
    assert b"model-7" in await making
    assert took_s > 0.03, "large enough for this test to mean something"
    assert slowest < took_s / 2, "else the loop stood still for all of it"
