"""Measure Fanout against the floor on this machine, and print one table.

usage: python scripts/bench/run.py [--only NAME…] [--quick] [--recorded FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from adapters import measure_adapters
from bench import Bench, NotInstalledError
from jobs import measure_job, measure_journal, measure_models
from life import measure_growth, measure_library, measure_start, sample_start
from load import find_wrk
from machine import BenchError, get_cores
from peers import measure_litellm, measure_portkey
from servers import compile_upstream
from streams import measure_first_token, measure_stream
from table import Missing, Row, format_table
from whole import measure_history, measure_latency, measure_memory, measure_whole
from workers import measure_workers

FIGURES: dict[str, Callable[[Bench], list[Row]]] = {
    "whole": measure_whole,
    "history": measure_history,
    "litellm": measure_litellm,
    "portkey": measure_portkey,
    "workers": measure_workers,
    "latency": measure_latency,
    "stream": measure_stream,
    "first_token": measure_first_token,
    "memory": measure_memory,
    "growth": measure_growth,
    "library": measure_library,
    "adapters": measure_adapters,
    "journal": measure_journal,
    "job": measure_job,
    "models": measure_models,
    "start": measure_start,
}
WITHOUT_SERVERS = frozenset({"adapters"})
"""Figures of pure functions, which need no server."""


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="Measure Fanout against the floor, and print one table.")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=FIGURES, default=list(FIGURES), help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="shorter and rougher: a check that everything works")
    parser.add_argument("--recorded", type=Path, metavar="FOLDER", help="recorded exchanges for `adapters`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to this file")
    parser.add_argument("--server-command", help=argparse.SUPPRESS)
    parser.add_argument("--library-command", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(name: str, bench: Bench) -> Sequence[Row | Missing]:
    """Return the rows of one figure; one that cannot be measured does not stop the others."""
    print(f"{name} … ", end="", flush=True, file=sys.stderr)
    began = time.monotonic()
    try:
        return FIGURES[name](bench)
    except BenchError as error:
        return [Missing(name, str(error), is_bad=not isinstance(error, NotInstalledError))]
    finally:
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


def describe_machine() -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
    }


def raise_file_limit() -> None:
    """Raise the limit for all child processes: 4,096 calls in flight need as many sockets, and the usual limit is 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop(*_: object) -> None:
    sys.exit("run.py: stopped")  # an exception, so that every context ends its program


def main() -> int:
    chosen = parse_options(sys.argv[1:])
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, stop)
    try:
        alone = set(chosen.only) <= WITHOUT_SERVERS
        if not alone:
            find_wrk()
        os.sched_setaffinity(0, {get_cores()[1]})
        raise_file_limit()
        with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
            if not alone:
                compile_upstream(Path(folder))
            repeats = 1 if chosen.quick else 3
            bench = Bench(Path(folder), chosen.quick, repeats, chosen.server_command, chosen.library_command, chosen.recorded)
            rows: list[Row | Missing] = []
            for name in sorted(chosen.only, key=list(FIGURES).index):
                if "start" in chosen.only and not chosen.quick:
                    with suppress(BenchError):  # `start` itself reports it, unless it passes
                        sample_start(bench)
                rows += measure(name, bench)
    except BenchError as error:
        sys.exit(f"run.py: {error}")
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(format_table(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(describe_machine() | {"rows": [row.to_json() for row in rows]}, indent=1))
    return int(any(row.is_bad for row in rows))


if __name__ == "__main__":
    sys.exit(main())
