"""Whole answers: CPU, rate, memory and latency under wrk, beside the floor, the bare upstream and a peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bench import Bench, each, most_lost, total_errors
from load import Load, answered, chat, comparison, post, wrk
from machine import BenchError
from servers import Server, Upstream, fanout, floor, litellm, upstream
from table import Row


@dataclass(frozen=True, slots=True)
class Sample:
    """One server under load for a few seconds."""

    cpu_us: float
    """Per request."""
    lost_ratio: float
    """Of the time it wanted its core, in which something else had it."""
    rate: float
    """Requests per second."""
    errors: int
    rss_mb: float


def under_load(server: Server, to: Upstream, models: int, connections: int, seconds: float) -> Sample:
    """Loads one server with comparisons of so many models."""
    calls_before, before = to.counts()["requests"], server.program.usage()
    load = wrk(server.url, comparison(models), connections=connections, seconds=seconds)
    server.come_to_rest()
    calls, usage = to.counts()["requests"] - calls_before, server.program.usage().since(before)
    return Sample(
        # By the calls that the upstream saw: wrk does not count the requests it broke off at its end.
        cpu_us=usage.cpu_s * 1e6 * models / max(calls, 1),
        lost_ratio=usage.lost_ratio,
        rate=load.rate,
        errors=load.errors + miscounted(load, models, connections, calls),
        rss_mb=server.program.rss_mb(),
    )


def miscounted(load: Load, models: int, connections: int, calls: int) -> int:
    """Upstream calls too few or too many for what wrk saw: answers without their calls, or calls made twice."""
    fewest, most = load.requests * models, (load.requests + connections) * models
    return max(0, fewest - calls, calls - most)


def compared(bench: Bench, servers: Iterable[Server], to: Upstream, models: int, connections: int) -> dict[str, list[Sample]]:
    """Samples of the servers by turns; each is first seen to answer with every model."""

    def measure(server: Server) -> Callable[[float], Sample]:
        if (given := answered(server.port, models)) != models:
            raise BenchError(f"{server.name}: only {given} of {models} models answered")
        return lambda seconds: under_load(server, to, models, connections, seconds)

    return bench.by_turns({server.name: measure(server) for server in servers})


def whole(bench: Bench) -> list[Row]:
    """CPU per request, its slope over models, and requests per second: 32 connections, no latency."""
    with upstream(bench) as to, floor(bench, to) as bare, fanout(bench, to) as ours:
        taken = {models: compared(bench, (bare, ours), to, models, 32) for models in (1, 4, 16)}
    return [cpu_row(taken), slope_row(taken), *(rate_row(models, samples) for models, samples in taken.items())]


def cpu_row(taken: Mapping[int, Mapping[str, list[Sample]]]) -> Row:
    cpu_us = each(taken[4], lambda sample: sample.cpu_us)
    return Row.of(
        "CPU per request, 4 models, 32 connections",
        "µs",
        cpu_us,
        against="ratio",
        must=1.8,
        aim=1.4,
        errors=total_errors(taken[4]),
        lost_ratio=most_lost(taken[4]),
        rss_mb=taken[4]["fanout"][-1].rss_mb,
    )


def slope_row(taken: Mapping[int, Mapping[str, list[Sample]]]) -> Row:
    def slope_us(name: str) -> float:
        at_4, at_16 = (median(sample.cpu_us for sample in taken[models][name]) for models in (4, 16))
        return (at_16 - at_4) / 12

    return Row(
        "CPU per added model, 4 → 16, 32 connections",
        "µs",
        slope_us("fanout"),
        slope_us("floor"),
        against="ratio",
        must=1.7,
        aim=1.3,
        errors=total_errors(taken[4]) + total_errors(taken[16]),
        lost_ratio=max(most_lost(taken[4]), most_lost(taken[16])),
        rss_mb=taken[16]["fanout"][-1].rss_mb,
        samples=each(taken[16], lambda sample: sample.cpu_us),
    )


def rate_row(models: int, taken: Mapping[str, list[Sample]]) -> Row:
    rates = each(taken, lambda sample: sample.rate)
    return Row.of(
        f"requests/s, {models} {'model' if models == 1 else 'models'}, 32 connections",
        "/s",
        rates,
        against="ratio",
        errors=total_errors(taken),
        lost_ratio=most_lost(taken),
        rss_mb=taken["fanout"][-1].rss_mb,
    )


def memory(bench: Bench) -> list[Row]:
    """Resident memory after 4,096 calls in flight for a while."""
    with upstream(bench) as to, floor(bench, to) as bare, fanout(bench, to) as ours:
        taken = compared(bench, (bare, ours), to, 16, 256)
    rss_mb = each(taken, lambda sample: sample.rss_mb)
    return [
        Row(
            "RSS after 256 connections × 16 models",
            "MB",
            rss_mb["fanout"][-1],
            rss_mb["floor"][-1],
            must=130,
            aim=90,
            errors=total_errors(taken),
            lost_ratio=most_lost(taken),
            rss_mb=rss_mb["fanout"][-1],
            samples=rss_mb,
        )
    ]


def posting(url: str, body: bytes, connections: int) -> Callable[[float], Load]:
    return lambda seconds: wrk(url, body, connections=connections, seconds=seconds)


def latency(bench: Bench) -> list[Row]:
    """What Fanout adds to an upstream of 50 ms, one request at a time."""
    with upstream(bench, latency_ms=50) as to, floor(bench, to) as bare, fanout(bench, to) as ours:
        asked = {"floor": (to.url, chat("m0")), "bare": (bare.url, comparison(4)), "fanout": (ours.url, comparison(4))}
        taken = bench.by_turns({name: posting(url, body, 1) for name, (url, body) in asked.items()}, seconds=10)
        rss_mb = ours.program.rss_mb()

    def row(name: str, times_ms: Mapping[str, list[float]], must: float, aim: float) -> Row:
        bare_ms = median(times_ms["bare"]) - median(times_ms["floor"])
        return Row.of(
            f"{name} over direct (bare aiohttp: + {bare_ms:.2f}), 1 connection, 4 models, 50 ms upstream",
            "ms",
            times_ms,
            against="added",
            must=must,
            aim=aim,
            errors=total_errors(taken),
            rss_mb=rss_mb,
        )

    return [
        row("p50", each(taken, lambda load: load.p50_ms), must=2, aim=1),
        row("p99", each(taken, lambda load: load.p99_ms), must=6, aim=3),
    ]


def peer(bench: Bench) -> list[Row]:
    """Requests per second at 4 models, over those of LiteLLM's proxy."""
    asked = chat("m0,m1,m2,m3")
    with upstream(bench) as to, litellm(bench, to) as theirs, fanout(bench, to) as ours:
        status, answer = post(theirs.port, theirs.path, asked)
        if status != 200 or len(answer) != 4 or answered(ours.port, 4) != 4:
            raise BenchError(f"one of the two did not fan out; LiteLLM said {status}: {str(answer)[:300]}")
        taken = bench.by_turns({"floor": posting(theirs.url, asked, 32), "fanout": posting(ours.url, comparison(4), 32)})
        rss_mb = ours.program.rss_mb()
    rates = each(taken, lambda load: load.rate)
    return [
        Row.of(
            "requests/s, 4 models, 32 connections, over LiteLLM's",
            "/s",
            rates,
            against="ratio",
            must=30,
            aim=45,
            at_least=True,
            errors=total_errors(taken),
            rss_mb=rss_mb,
        )
    ]
