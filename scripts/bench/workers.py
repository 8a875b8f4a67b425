"""Several workers of one server: requests per second of two on two cores over one on one, and their memory.

The load and the upstream take their part of the same two cores. So what is compared is what a core serves: requests per second
of CPU time of all processes of the server, times the cores that it can use. How evenly the workers shared the work, and how
many requests came through beside the load, stands below it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench import Bench, extract, join_samples, max_lost_ratio, sum_errors
from load import build_comparison, count_answers, run_wrk
from machine import TICKS_PER_S, BenchError
from servers import Server, Upstream, run_fanout, run_upstream
from table import Row
from whole import count_mismatch

COUNT = 2
CONNECTIONS = 64
MODELS = 4
TURNS = 4
"""Of one start."""


@dataclass(frozen=True, slots=True)
class WorkersSample:
    """All processes of one server under load for a few seconds."""

    cpu_us: float
    """Per request, of all processes together."""
    rate: float
    """Requests per second that the load has seen, with what itself took."""
    shares: Sequence[float]
    """Of the CPU time, by worker, the greatest first."""
    own_mb: float
    """Memory that no two processes share, by worker."""
    lost_ratio: float
    errors: int


def list_workers(server: Server) -> list[int]:
    """Return the processes that serve: those below a supervisor, or the only one."""
    pid = server.program.child.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] or [pid]


def read_times(pid: int) -> tuple[float, float]:
    """Return the CPU time of a process, and the time that its main thread has waited for a core."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    waited_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S, waited_s


def read_own_mb(pid: int) -> float:
    """Return the memory of a process that no other one shares. Source: proc_pid_smaps(5), Private_…"""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def wait_until_idle(pids: Sequence[int]) -> None:
    """Wait, for at most 30 s, until the calls of clients that have left are over."""
    for _ in range(60):
        before = [sum(read_times(pid)) for pid in pids]
        time.sleep(0.5)
        if sum(sum(read_times(pid)) for pid in pids) - sum(before) <= 0.03 * len(pids):
            return


def load_workers(server: Server, to: Upstream, seconds: float) -> WorkersSample:
    pids = list_workers(server)
    # A steady load: after seconds without any, workers keep nothing of the account's limits, and its first calls wait for that.
    run_wrk(server.url, build_comparison(MODELS), connections=CONNECTIONS, seconds=1)
    wait_until_idle(pids)
    before, calls_before = {pid: read_times(pid) for pid in pids}, to.counts()["requests"]
    load = run_wrk(server.url, build_comparison(MODELS), connections=CONNECTIONS, seconds=seconds)
    wait_until_idle(pids)
    calls = to.counts()["requests"] - calls_before
    spent = {pid: [now - then for now, then in zip(read_times(pid), before[pid], strict=True)] for pid in pids}
    cpu_s = sum(cpu for cpu, _ in spent.values())
    waited_s = sum(waited for _, waited in spent.values())
    return WorkersSample(
        cpu_us=cpu_s * 1e6 * MODELS / max(calls, 1),
        rate=load.rate,
        shares=sorted((cpu / cpu_s for cpu, _ in spent.values()), reverse=True),
        own_mb=median(map(read_own_mb, pids)),
        lost_ratio=waited_s / max(waited_s + cpu_s, 1e-9),
        errors=load.errors + count_mismatch(load, MODELS, CONNECTIONS, calls),
    )


def measure_workers(bench: Bench) -> list[Row]:
    """Measure two workers against one process."""

    def measure(server: Server) -> Callable[[float], WorkersSample]:
        if (answers := count_answers(server.port, MODELS)) != MODELS:
            raise BenchError(f"{server.name}: only {answers} of {MODELS} models answered")
        return lambda seconds: load_workers(server, to, seconds)

    parts = []
    with run_upstream(bench) as to:
        # Started anew, as for the rows on whole answers: processes of one program differ by up to a tenth.
        for _ in range(bench.repeats):
            with run_fanout(bench, to, pinned=False) as one, run_fanout(bench, to, workers=COUNT, pinned=False) as two:
                servers = {"one": measure(one), "two": measure(two)}
                parts.append(bench.measure_in_turns(servers, seconds=3, turns=1 if bench.quick else TURNS))
    samples = join_samples(parts)
    cpu_us = extract(samples, lambda sample: sample.cpu_us)
    ratios = [COUNT * alone / together for alone, together in zip(*cpu_us.values(), strict=True)]
    make = partial(Row, errors=sum_errors(samples), lost_ratio=max_lost_ratio(samples))
    return [
        make(
            "requests per second of two workers on two cores, over one",
            "×",
            median(ratios),
            must=1.7,
            aim=1.9,
            is_lower_bound=True,
            samples=cpu_us,
        ),
        make("share of the busier of two workers", "%", 100 * median(sample.shares[0] for sample in samples["two"])),
        make("requests/s of one, beside the load", "/s", median(sample.rate for sample in samples["one"])),
        make("requests/s of two, beside the load", "/s", median(sample.rate for sample in samples["two"])),
        make("memory of one worker's own", "MB", median(sample.own_mb for sample in samples["two"])),
    ]
