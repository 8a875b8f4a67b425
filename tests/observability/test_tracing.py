"""Traces, as a collector receives them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.observability.trace_content import MAX_CONTENT_CHARACTERS
from tests.support.builders.settings import write_providers_file
from tests.support.cli import run_command
from tests.support.collector import CollectedSpan, Collector, run_collector
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RETRIES = {"attempts": 3, "max_delay_s": 0.01}
PRICED = {"provider": "up", "id": "ok", "kind": "text", "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}
ROUTE = "/v1/completion"


@asynccontextmanager
async def trace_server(
    upstream: Upstream, folder: Path, patch: pytest.MonkeyPatch, **variables: str
) -> AsyncIterator[tuple[Server, Collector]]:
    """Run a server with two providers, of which `trusted` is given the trace context; its spans have arrived at the end."""
    trusted = {"adapter": "openai", "base_url": upstream.url, "trace_context": True}
    config = write_providers_file(
        upstream.url, folder, more={"providers": {"trusted": trusted}, "models": {"priced": PRICED}}, retries=RETRIES
    )
    async with run_collector() as collector:
        variables = collector.variables | variables
        for name, value in variables.items():
            patch.setenv(name, value)  # OpenTelemetry reads them itself
        own = {name: value for name, value in variables.items() if name.startswith("FANOUT_")}
        async with serve(config, **own) as server:
            yield server, collector


async def ask(server: Server, *models: Any, path: str = ROUTE, headers: Mapping[str, str] = {}, **fields: Any) -> str:
    body = {"model": list(models), "prompt": "a secret question", **fields}
    async with server.session.post(path, json=body, headers=headers) as response:
        text = await response.text()
        assert response.status in (200, 502), text
        return text


def find_one(collector: Collector, name: str) -> CollectedSpan:
    [span] = collector.find(name)
    return span


async def test_a_request_has_a_span_with_a_child_for_each_call_that_covers_its_retries(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    async with trace_server(upstream, tmp_path, monkeypatch) as (server, collector):
        await ask(
            server,
            {"model": "up/fail-2-then-ok", "temperature": 0.5, "max_tokens": 9, "stop": ["."]},
            "priced",
            "local/ngram-3",
            "up/400",
            "nobody-serves-it",
            headers={"traceparent": CALLER, "tracestate": "vendor=1", "x-request-id": "req-7"},
        )
    request = find_one(collector, f"POST {ROUTE}")
    calls = {call.attributes["gen_ai.request.model"]: call for call in collector.find_children(request)}

    assert len(collector.spans) == 6
    assert request.trace_id == CALLER[3:35], "it is of the caller's trace"
    assert (request.kind, request.parent_id, request.status) == ("SERVER", CALLER[36:52], "unset")
    assert request.resource["service.name"] == "fanout"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "url.path": ROUTE,
        "url.scheme": "http",
        "http.response.status_code": 200,
        "fanout.request_id": "req-7",
        "fanout.calls": 5,
        "fanout.failures": 2,
    }
    answered = [line for line in map(json.loads, log_lines) if line["event"] == "request.answered"]
    assert [line["trace_id"] for line in answered] == [request.trace_id]

    retried = calls["fail-2-then-ok"]
    assert (retried.name, retried.kind, retried.status) == ("chat fail-2-then-ok", "CLIENT", "unset")
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "up",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ["."],
        "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "fanout.attempts": 3,
        "fanout.entry": 0,
        "fanout.sample": 0,
    }
    assert retried.attributes.items() >= expected.items()
    assert retried.attributes["gen_ai.usage.output_tokens"] > 0
    assert [(name, fields["fanout.attempt"], fields["fanout.error_type"]) for name, fields in retried.events] == [
        ("fanout.retry", 1, "server"),
        ("fanout.retry", 2, "server"),
    ]

    priced, local = calls["ok"].attributes, calls["ngram-3"].attributes
    assert (priced["gen_ai.operation.name"], priced["fanout.cost_usd"]) == ("text_completion", 18e-6)
    assert "fanout.cost_usd" not in local, "it has no price here"
    assert "server.address" not in local
    refused, unknown = calls["400"], calls["nobody-serves-it"]
    assert (refused.status, refused.attributes["error.type"]) == ("error", "bad_request")
    assert (refused.attributes["fanout.upstream_status"], refused.attributes["fanout.attempts"]) == (400, 1)
    assert unknown.attributes.items() >= {"error.type": "not_found", "gen_ai.provider.name": "_OTHER"}.items()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_trace_context_goes_to_trusted_providers_alone(
    stream: bool, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trace_server(upstream, tmp_path, monkeypatch) as (server, collector):
        caller = {"traceparent": CALLER, "tracestate": "vendor=1", "baggage": "a=b"}
        await ask(server, "trusted/ok", "up/say-hello", headers=caller, stream=stream)
        await ask(server, "trusted/fail-2-then-ok", stream=stream, headers={"traceparent": f"00-{'0' * 32}-{'z' * 16}-01"})
    received = {request.body["model"]: request.headers for request in upstream.requests}
    call = find_one(collector, "chat ok")

    assert (received["ok"]["traceparent"][:-2], received["ok"]["tracestate"]) == (call.traceparent, "vendor=1")
    assert "baggage" not in received["ok"], "callers may put anything into it"
    assert {"traceparent", "tracestate"}.isdisjoint(map(str.lower, received["say-hello"]))
    retried = [
        request.headers["traceparent"][:-2] for request in upstream.requests if request.body["model"] == "fail-2-then-ok"
    ]
    span = find_one(collector, "chat fail-2-then-ok")
    assert retried == [span.traceparent] * 3
    assert span.trace_id != call.trace_id, "a request begins a trace of its own if its caller's cannot be read"
    assert call.attributes["gen_ai.request.stream"] is stream
    assert ("gen_ai.response.time_to_first_chunk" in call.attributes) is stream


async def test_no_prompt_and_no_answer_is_in_a_trace(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trace_server(upstream, tmp_path, monkeypatch) as (server, collector):
        assert "a secret question" in await ask(server, "up/echo")
        await ask(server, "up/cut", stream=True)
    sent = b"".join(collector.bodies)
    assert len(collector.spans) == 4
    assert b"secret" not in sent
    assert b"messages" not in sent


async def test_prompts_and_answers_are_in_a_trace_if_they_are_switched_on_and_have_a_bound(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,SECRET"}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "dropped: no room is left for it"},
        {"role": "user", "content": "x" * 2 * MAX_CONTENT_CHARACTERS},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "user", "content": [{"type": "text", "text": "and this?"}, picture]},
    ]
    async with trace_server(upstream, tmp_path, monkeypatch, **on) as (server, collector):
        await ask(server, "up/say-hello")
        async with server.session.post("/v1/chat/completions", json={"model": "up/echo", "messages": messages}) as response:
            assert response.status == 200
    short, long = find_one(collector, "chat say-hello").attributes, find_one(collector, "chat echo").attributes

    [question] = json.loads(short["gen_ai.input.messages"])
    assert (question["role"], question["parts"]) == ("user", [{"content": "a secret question", "type": "text"}])
    [answer] = json.loads(short["gen_ai.output.messages"])
    assert answer["parts"] == [{"content": "hello", "type": "text"}]
    cut, asked, found, last = json.loads(long["gen_ai.input.messages"])
    assert cut["parts"][0]["content"].endswith("x…")
    assert len(long["gen_ai.input.messages"]) < MAX_CONTENT_CHARACTERS * 1.1
    assert (asked["parts"][0]["name"], found["parts"][0]["response"]) == ("look", "found")
    assert [part.get("content") or part.get("uri") for part in last["parts"]] == ["and this?", "data:image/png;base64,…"]


async def test_calls_that_are_cancelled_and_embeddings_have_spans_of_their_kind(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trace_server(upstream, tmp_path, monkeypatch) as (server, collector):
        await ask(server, "up/ok", "up/hang", return_when=1)
        async with server.session.post("/v1/embeddings", json={"model": "local/ngram-3", "input": "a text"}) as response:
            assert response.status == 200
    cancelled = find_one(collector, "chat hang")
    assert (cancelled.status, cancelled.attributes["error.type"]) == ("error", "cancelled")
    embedded = find_one(collector, "embeddings ngram-3")
    assert embedded.parent_id == find_one(collector, "POST /v1/embeddings").span_id
    assert embedded.attributes["gen_ai.usage.input_tokens"] > 0


async def test_the_calls_of_a_job_are_traces_of_their_own(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = {"FANOUT_STORE": str(tmp_path / "fanout.db")}
    async with trace_server(upstream, tmp_path, monkeypatch, **store) as (server, collector):
        job = {"items": [{"prompt": "one"}, {"prompt": "two"}], "models": ["up/ok"]}
        async with server.session.post("/v1/jobs", json=job) as response:
            id_ = (await response.json())["id"]
        async with server.session.get(f"/v1/jobs/{id_}/events") as events:
            await events.read()
    calls = collector.find("chat ok")
    assert [call.parent_id for call in calls] == ["", ""]
    assert len({call.trace_id for call in calls}) == 2


async def test_without_traces_nothing_is_sent_and_nothing_of_opentelemetry_is_loaded(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trace_server(upstream, tmp_path, monkeypatch, FANOUT_TRACES="off") as (server, collector):
        await ask(server, "trusted/ok", headers={"traceparent": CALLER})
        assert server.dispatcher.tracing is None
    assert "traceparent" not in upstream.requests[0].headers
    assert collector.bodies == []


PROGRAM = """
import asyncio, sys, fanout

async def ask(**variables):
    settings = fanout.load_settings(environ={"FANOUT_STORE": "off", **variables})
    async with fanout.open_dispatcher(settings) as dispatcher:
        await fanout.ask("The with statement", ["local/ngram-3"], dispatcher=dispatcher)

asyncio.run(ask())
print([name for name in sys.modules if name.startswith("opentelemetry")])

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
with trace.get_tracer("program").start_as_current_span("own"):
    asyncio.run(ask(FANOUT_TRACES="on"))
child, own = spans.get_finished_spans()
print(child.name, child.parent.span_id == own.context.span_id)
"""


async def test_opentelemetry_is_loaded_only_where_it_is_on_and_a_programs_own_provider_is_used() -> None:
    done = await run_command([sys.executable, "-c", PROGRAM])
    assert (done.err, done.out.splitlines()) == ("", ["[]", "text_completion ngram-3 True"])


async def test_a_collector_that_is_away_delays_nothing_and_is_reported_once(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    async with trace_server(upstream, tmp_path, monkeypatch, **away) as (server, _):
        assert "a secret question" in await ask(server, "up/echo")
        began = time.monotonic()
    assert time.monotonic() - began < 5
    failed = [line for line in map(json.loads, log_lines) if line["event"] == "traces.export_failed"]
    assert len(failed) == 1
    assert failed[0]["reason"]


async def test_what_traces_cannot_do_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(None, {"FANOUT_STORE": "off", "FANOUT_TRACES": "on"})

    async def refuse() -> str:
        with pytest.raises(ConfigError) as caught:
            async with open_dispatcher(settings):
                raise AssertionError
        return str(caught.value)

    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "event_only")
    assert "SPAN_ONLY" in await refuse()
    monkeypatch.delitem(sys.modules, "fanout.observability.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.util.genai.handler", None)
    assert (
        "FANOUT_TRACES: needs the package opentelemetry-util-genai (to install it: `pip install -e '.[otel]'`" in await refuse()
    )
