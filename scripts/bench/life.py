"""Start-up time, memory over many requests, and the Dispatcher without the HTTP server."""

from __future__ import annotations

import os
import shlex
import sys
import time
from statistics import median
from typing import Any

from bench import Bench, Start, extract
from load import build_comparison, count_answers, run_wrk
from machine import BenchError, wait_until_ready
from servers import FOLDER, Upstream, run_fanout, run_to_end, run_upstream, start_fanout, time_command, write_providers_file
from table import Row

# Bare aiohttp with the same faults grew by 2.7 MB and levelled off (2026-11-20, `run.py --only growth`);
# one small object kept for each of 180,000 requests would be 9 MB.
MAX_GROWTH_MB = 4.0
STARTS = 5
"""The least number of samples."""


def sample_start(bench: Bench) -> None:
    """Take a sample of each kind of start.

    Between all other figures: these are times, not ratios, and the speed of a shared machine changes by the minute.
    """
    os.sync()  # or the server's new store would wait on the disk behind what the last figure has left to be written
    with run_upstream(bench) as to:
        ready_s, rss_mb = _start_server(bench, to)
        version_s = time_command(bench, "--version").cpu_s
        ask = ("ask", "hi", "-m", "m0", "--config", str(write_providers_file(bench, to, attempts=1)))
        bench.starts.append(Start(ready_s, rss_mb, version_s, time_command(bench, *ask).first_byte_s))


def measure_start(bench: Bench) -> list[Row]:
    """Measure the times to a server's first 200 of /readyz and to the first token of `ask`, and the CPU of `--version`."""
    while len(bench.starts) <= STARTS:
        sample_start(bench)
    starts = bench.starts[1:]
    ready_s, version_s, ask_s = zip(*((one.ready_s, one.version_s, one.ask_s) for one in starts), strict=True)
    rss_mb = starts[-1].rss_mb
    return [
        Row("ready after start", "s", median(ready_s), must=0.8, aim=0.4, rss_mb=rss_mb, samples={"fanout": ready_s}),
        Row("`fanout --version`: CPU", "s", median(version_s), must=0.25, aim=0.125, samples={"fanout": version_s}),
        Row("`fanout ask`: first token", "s", median(ask_s), must=0.6, aim=0.3, samples={"fanout": ask_s}),
    ]


def _start_server(bench: Bench, to: Upstream) -> tuple[float, float]:
    """Return the seconds until a server is ready, and its memory by then."""
    began = time.monotonic()
    with start_fanout(bench, to) as ours:
        wait_until_ready(ours.program, ours.port, "/readyz", timeout_s=30)
        return time.monotonic() - began, ours.program.rss_mb()


def measure_growth(bench: Bench) -> list[Row]:
    """Measure the memory that many requests leave behind while a tenth of the calls fails."""
    first, last = (2_000, 20_000) if bench.quick else (20_000, 200_000)
    end = time.monotonic() + 600
    seen: list[tuple[int, float]] = []  # requests so far, memory by then
    done = errors = 0
    with run_upstream(bench, fault_every=10) as to, run_fanout(bench, to, attempts=1) as ours:
        if (answers := sum(count_answers(ours.port, 4) for _ in range(10))) != 36:
            raise BenchError(f"expected 36 of 40 calls to be answered at 10 % faults, not {answers}")
        while done < last:
            if time.monotonic() > end:
                raise BenchError(f"only {done} of {last} requests in 600 s")
            seconds = 2.0 if done < first else bench.seconds(8)
            load = run_wrk(ours.url, build_comparison(4), connections=32, seconds=seconds)
            done, errors = done + load.requests, errors + load.errors
            seen.append((done, ours.program.rss_mb()))
    before = next(rss_mb for requests, rss_mb in seen if requests >= first)
    return [
        Row(
            f"RSS after {last:,} requests with 10 % faults, over that after {first:,}",
            "MB",
            seen[-1][1],
            before,
            against="added",
            must=None if bench.quick else MAX_GROWTH_MB,  # the first 20,000 fill the allocator's pools
            aim=MAX_GROWTH_MB,
            errors=errors,
            rss_mb=seen[-1][1],
            samples={"fanout": seen},
        )
    ]


def measure_library(bench: Bench) -> list[Row]:
    """Measure the Dispatcher alone, as batch jobs use it."""
    prompts, models, workers = (1_000 if bench.quick else 10_000), 4, 16
    python = shlex.quote(sys.executable)
    ours = f"{python} {FOLDER / 'dispatcher_alone.py'} {{config}} {{prompts}} {{models}} {{workers}}"
    templates = {
        "floor": f"{python} {FOLDER / 'client_floor.py'} {{upstream}} {{prompts}} {{models}} {{calls_at_once}}",
        "fanout": bench.library_command or ours,
    }
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in templates}
    with run_upstream(bench) as to:
        values = {"upstream": to.url, "config": write_providers_file(bench, to, attempts=3)}
        values |= {"prompts": prompts, "models": models, "workers": workers, "calls_at_once": workers * models}
        for _ in range(bench.repeats):
            for name, template in templates.items():
                samples[name].append(run_to_end(bench, template, values))
    cpu_us = extract(samples, lambda run: run["cpu_s"] * 1e6 / run["calls"])
    return [
        Row.from_samples(
            f"Dispatcher alone, {prompts:,} prompts × {models}: CPU per call",
            "µs",
            cpu_us,
            against="ratio",
            must=1.34,
            aim=1.0,
            errors=sum(run["errors"] for of in samples.values() for run in of),
            rss_mb=samples["fanout"][-1]["rss_mb"],
        )
    ]
