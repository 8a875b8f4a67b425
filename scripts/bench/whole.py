"""Whole answers: CPU, rate, memory and latency under wrk, compared with the floor and the bare upstream."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from types import MappingProxyType

from bench import Bench, extract, join_samples, max_lost_ratio, sum_errors
from load import Load, build_comparison, count_answers, run_wrk
from machine import BenchError
from servers import Server, Upstream, run_fanout, run_floor, run_switched, run_upstream
from table import Row

TURNS = 8
"""Of one start."""
SWITCHED_TURNS = 32
"""Of one start of a server that is switched between its turns, of which single pairs differ by a tenth."""
LATENCY_TURNS = 12
"""Of some 190 requests, of which the second slowest is the p99: a slow spell of the machine takes a whole turn or two."""
WRITE_S = 1.0
"""Time in which a server writes what it keeps of the requests that have ended; the rows of pages are made later."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One server under load for a few seconds."""

    cpu_us: float
    """Per request."""
    lost_ratio: float
    """Share of the time it wanted its core in which another program had it."""
    rate: float
    """Requests per second."""
    errors: int
    rss_mb: float


Samples = dict[str, list[Sample]]


def load_server(server: Server, to: Upstream, models: int, connections: int, seconds: float) -> Sample:
    """Load one server with comparisons of several models."""
    calls_before, before = to.counts()["requests"], server.program.usage()
    load = run_wrk(server.url, build_comparison(models), connections=connections, seconds=seconds)
    server.wait_until_idle()
    time.sleep(WRITE_S)
    calls, usage = to.counts()["requests"] - calls_before, server.program.usage().since(before)
    return Sample(
        # Divide by the calls that the upstream saw: wrk does not count the requests it breaks off at the end.
        cpu_us=usage.cpu_s * 1e6 * models / max(calls, 1),
        lost_ratio=usage.lost_ratio,
        rate=load.rate,
        errors=load.errors + count_mismatch(load, models, connections, calls),
        rss_mb=server.program.rss_mb(),
    )


def count_mismatch(load: Load, models: int, connections: int, calls: int) -> int:
    """Return the number of upstream calls missing or made twice for the requests wrk counted."""
    fewest, most = load.requests * models, (load.requests + connections) * models
    return max(0, fewest - calls, calls - most)


def compare_servers(
    bench: Bench, servers: Iterable[Server], to: Upstream, models: int, connections: int, **turns: int
) -> Samples:
    """Return samples of the servers, taken in turns, after a check that each answers with every model."""

    def measure(server: Server) -> Callable[[float], Sample]:
        if (answers := count_answers(server.port, models)) != models:
            raise BenchError(f"{server.name}: only {answers} of {models} models answered")
        return lambda seconds: load_server(server, to, models, connections, seconds)

    return bench.measure_in_turns({server.name: measure(server) for server in servers}, **turns)


def compare_starts(
    bench: Bench, starts: Sequence[Callable[[], AbstractContextManager[Server]]], to: Upstream, models: int, times: int
) -> Samples:
    """Return samples of servers that are started several times, in turns of a second, with 32 connections.

    Processes of the same program differ by up to a tenth, as their places in memory and caches do (2026-11-28); and what else
    a machine does for some seconds meets all of them where the turns are short.
    """
    parts = []
    for _ in range(times):
        with ExitStack() as stack:
            servers = [stack.enter_context(start()) for start in starts]
            parts.append(compare_servers(bench, servers, to, models, 32, seconds=1, turns=2 if bench.quick else TURNS))
    return join_samples(parts)


def measure_whole(bench: Bench) -> list[Row]:
    """Measure CPU per request, its slope over models, and requests per second: 32 connections, no latency."""
    with run_upstream(bench) as to:
        starts = (partial(run_floor, bench, to), partial(run_fanout, bench, to))
        samples = {models: compare_starts(bench, starts, to, models, bench.repeats) for models in (1, 4, 16)}
    return [
        build_cpu_row(samples),
        build_slope_row(samples),
        *(build_rate_row(models, of_models) for models, of_models in samples.items()),
    ]


def build_cpu_row(samples: Mapping[int, Mapping[str, list[Sample]]]) -> Row:
    cpu_us = extract(samples[4], lambda sample: sample.cpu_us)
    return Row.from_samples(
        "CPU per request, 4 models, 32 connections",
        "µs",
        cpu_us,
        against="ratio",
        must=1.4,
        aim=1.0,
        errors=sum_errors(samples[4]),
        lost_ratio=max_lost_ratio(samples[4]),
        rss_mb=samples[4]["fanout"][-1].rss_mb,
    )


def build_slope_row(samples: Mapping[int, Mapping[str, list[Sample]]]) -> Row:
    def slope_us(name: str) -> float:
        at_4, at_16 = (median(sample.cpu_us for sample in samples[models][name]) for models in (4, 16))
        return (at_16 - at_4) / 12

    return Row(
        "CPU per added model, 4 → 16, 32 connections",
        "µs",
        slope_us("fanout"),
        slope_us("floor"),
        against="ratio",
        must=1.2,
        aim=0.8,
        errors=sum_errors(samples[4]) + sum_errors(samples[16]),
        lost_ratio=max(max_lost_ratio(samples[4]), max_lost_ratio(samples[16])),
        rss_mb=samples[16]["fanout"][-1].rss_mb,
        samples=extract(samples[16], lambda sample: sample.cpu_us),
    )


def build_rate_row(models: int, samples: Mapping[str, list[Sample]]) -> Row:
    rates = extract(samples, lambda sample: sample.rate)
    return Row.from_samples(
        f"requests/s, {models} {'model' if models == 1 else 'models'}, 32 connections",
        "/s",
        rates,
        against="ratio",
        errors=sum_errors(samples),
        lost_ratio=max_lost_ratio(samples),
        rss_mb=samples["fanout"][-1].rss_mb,
    )


def measure_history(bench: Bench) -> list[Row]:
    """Measure the share of a request's CPU that goes into its history and usage, written to a file.

    In turns of a second in which one server keeps them or does not: two processes of the same program differ by more than that.
    """
    with run_upstream(bench) as to:
        parts = []
        for _ in range(bench.repeats):
            with run_switched(bench, to) as server:
                parts.append(compare_states(bench, server, to))
        samples = join_samples(parts)
    cpu_us = extract(samples, lambda sample: sample.cpu_us)
    # Of pairs that were measured one after the other: what else the machine does changes less between those two.
    shares = [100 * (1 - without / ours) for without, ours in zip(*cpu_us.values(), strict=True)]
    return [
        Row(
            "share of history and store in it",
            "%",
            compute_midmean(shares),
            must=5,
            aim=2,
            errors=sum_errors(samples),
            lost_ratio=max_lost_ratio(samples),
            rss_mb=samples["fanout"][-1].rss_mb,
            samples=cpu_us,
        )
    ]


def compute_midmean(values: Sequence[float]) -> float:
    """Return the mean of the middle half: of many noisy values it varies less than their median."""
    quarter = len(values) // 4
    return mean(sorted(values)[quarter : len(values) - quarter])


def compare_states(bench: Bench, server: Server, to: Upstream) -> Samples:
    """Return samples of a server with what it keeps and without, in turns of a second, with 4 models and 32 connections."""
    if (answers := count_answers(server.port, 4)) != 4:
        raise BenchError(f"{server.name}: only {answers} of 4 models answered")
    load_server(server, to, 4, 32, bench.seconds(2))
    kept: list[Sample] = []
    others: list[Sample] = []
    # Strictly in turns: after five seconds without requests to keep, the server begins to spread those that it has kept.
    for _ in range(4 if bench.quick else SWITCHED_TURNS):
        for samples in (kept, others):
            samples.append(load_server(server, to, 4, 32, bench.seconds(1)))
            server.program.child.send_signal(signal.SIGUSR1)
    return {"without store": others, "fanout": kept}


def measure_memory(bench: Bench) -> list[Row]:
    """Measure resident memory after 4,096 calls in flight for a while."""
    with run_upstream(bench) as to, run_floor(bench, to) as bare, run_fanout(bench, to) as ours:
        samples = compare_servers(bench, (bare, ours), to, 16, 256)
    rss_mb = extract(samples, lambda sample: sample.rss_mb)
    return [
        Row(
            "RSS after 256 connections × 16 models",
            "MB",
            rss_mb["fanout"][-1],
            rss_mb["floor"][-1],
            must=130,
            aim=90,
            errors=sum_errors(samples),
            lost_ratio=max_lost_ratio(samples),
            rss_mb=rss_mb["fanout"][-1],
            samples=rss_mb,
        )
    ]


def make_load(
    url: str, body: bytes, connections: int, headers: Mapping[str, str] = MappingProxyType({})
) -> Callable[[float], Load]:
    return lambda seconds: run_wrk(url, body, connections=connections, seconds=seconds, headers=headers)


def measure_latency(bench: Bench) -> list[Row]:
    """Measure the time Fanout adds to what bare aiohttp takes for an upstream of 50 ms, one request at a time."""
    with run_upstream(bench, latency_ms=50) as to, run_floor(bench, to) as bare, run_fanout(bench, to) as ours:
        loads = {server.name: make_load(server.url, build_comparison(4), 1) for server in (bare, ours)}
        samples = bench.measure_in_turns(loads, seconds=10, turns=2 if bench.quick else LATENCY_TURNS)
        rss_mb = ours.program.rss_mb()

    def row(name: str, times_ms: Mapping[str, list[float]], must: float, aim: float) -> Row:
        return Row.from_samples(
            f"{name} added, 1 connection, 4 models, 50 ms upstream, over bare aiohttp's own",
            "ms",
            times_ms,
            against="added",
            must=must,
            aim=aim,
            errors=sum_errors(samples),
            rss_mb=rss_mb,
        )

    return [
        row("p50", extract(samples, lambda load: load.p50_ms), must=0.5, aim=0.3),
        row("p99", extract(samples, lambda load: load.p99_ms), must=1, aim=0.5),
    ]
