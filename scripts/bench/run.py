"""Measures Fanout against the floor, in one table: what it costs here and now, not what it once did.

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
from importlib.metadata import version
from pathlib import Path

from adapters import adapters
from bench import Bench, NotInstalled
from jobs import job, journal
from life import growth, library, start
from load import need_wrk
from machine import BenchError, cores
from servers import compile_upstream
from streams import first_token, stream
from table import Missing, Row, written
from whole import latency, memory, peer, whole

FIGURES: dict[str, Callable[[Bench], list[Row]]] = {
    figure.__name__: figure
    for figure in (whole, peer, latency, stream, first_token, memory, start, growth, library, adapters, journal, job)
}
ALONE = frozenset({"adapters"})
"""Figures of pure functions: nothing is started for them."""


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="Measures Fanout against the floor, in one table.")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=FIGURES, default=list(FIGURES), help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="shorter and rougher: to see that it works")
    parser.add_argument("--recorded", type=Path, metavar="FOLDER", help="recorded exchanges for `adapters`; else made ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--server-command", help=argparse.SUPPRESS)
    parser.add_argument("--library-command", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measured(name: str, bench: Bench) -> Sequence[Row | Missing]:
    """The rows of one figure; what cannot be measured keeps none of the others from it."""
    print(f"{name} … ", end="", flush=True, file=sys.stderr)
    begin = time.monotonic()
    try:
        return FIGURES[name](bench)
    except BenchError as error:
        return [Missing(name, str(error), bad=not isinstance(error, NotInstalled))]
    finally:
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)


def machine() -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
    }


def raise_file_limit() -> None:
    """For all that is started: 4,096 calls in flight need as many sockets, and the usual soft limit is 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop(*_: object) -> None:
    sys.exit("run.py: stopped")  # an exception, so that what was started is ended


def main() -> int:
    chosen = options(sys.argv[1:])
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, stop)
    try:
        alone = set(chosen.only) <= ALONE
        if not alone:
            need_wrk()
        os.sched_setaffinity(0, {cores()[1]})
        raise_file_limit()
        with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
            if not alone:
                compile_upstream(Path(folder))
            bench = Bench(Path(folder), chosen.quick, 3, chosen.server_command, chosen.library_command, chosen.recorded)
            rows = [row for name in chosen.only for row in measured(name, bench)]
    except BenchError as error:
        sys.exit(f"run.py: {error}")
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(written(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(machine() | {"rows": [row.as_json() for row in rows]}, indent=1))
    return int(any(row.bad for row in rows))


if __name__ == "__main__":
    sys.exit(main())
