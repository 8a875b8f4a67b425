"""The programs of a measurement: the upstream and the servers in front of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from bench import Bench
from machine import BenchError, Program, find_free_port, get_cores, pin_to, run_program, wait_until_ready

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parent.parent
MODELS = 16
NO_LIMIT = {"requests_per_minute": 100_000_000, "tokens_per_minute": 1_000_000_000_000, "concurrency": 10_000}


@dataclass(frozen=True, slots=True)
class Upstream:
    port: int
    path: str = "/v1/chat/completions"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def counts(self) -> dict[str, int]:
        """Return the numbers of `requests`, `faults` and `chunks` served so far."""
        with urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=10) as response:
            counts: dict[str, int] = json.load(response)
            return counts


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test, or one it is compared with."""

    name: str
    program: Program
    port: int
    path: str = "/v1/completion"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def wait_until_idle(self) -> None:
        """Wait, for at most 30 s, until the server has finished the calls of a client that has left."""
        for _ in range(150):
            before = self.program.usage()
            time.sleep(0.2)
            used = self.program.usage().since(before)
            # Waiting for its core counts as work: on a busy machine a server may get none of it for as long.
            if used.cpu_s + used.waited_s <= 0.02:
                return


def compile_upstream(folder: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise BenchError("needs a C compiler for the upstream: `apt-get install gcc libc6-dev`")
    command = [compiler, "-O2", "-o", str(folder / "upstream"), str(FOLDER / "upstream.c")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchError(f"`{' '.join(command)}` failed: {result.stderr[-600:]}")


@contextmanager
def run_upstream(
    bench: Bench, *, latency_ms: int = 0, chunks: int = 100, gap_ms: int = 0, fault_every: int = 0
) -> Iterator[Upstream]:
    port = find_free_port()
    command = [str(bench.folder / "upstream"), *map(str, (port, latency_ms, chunks, gap_ms, fault_every))]
    with run_program(command, get_cores()[1], bench.folder / "upstream.log") as program:
        wait_until_ready(program, port, "/counts", timeout_s=5)
        yield Upstream(port)


@contextmanager
def run_floor(bench: Bench, to: Upstream, script: str = "floor.py") -> Iterator[Server]:
    port = find_free_port()
    command = [sys.executable, str(FOLDER / script), str(port), to.url]
    with run_program(command, get_cores()[0], bench.folder / "floor.log") as program:
        wait_until_ready(program, port, "/readyz", timeout_s=20)
        yield Server("floor", program, port)


def write_providers_file(bench: Bench, to: Upstream, attempts: int, count: int = MODELS) -> Path:
    """Write a configuration of so many priced models at the upstream, with all limits set and none reached."""
    provider = {
        "adapter": "openai",
        "base_url": f"http://127.0.0.1:{to.port}/v1",
        "api_key_env": "BENCH_KEY",
        "limits": NO_LIMIT,
        "retries": {"attempts": attempts},
    }
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
    models = {f"m{n}": {"provider": "up", "id": f"m{n}", "kind": "chat", "price": price} for n in range(count)}
    path = bench.folder / f"providers-{to.port}-{attempts}-{count}.json"
    path.write_text(json.dumps({"extends": False, "providers": {"up": provider}, "models": models}))
    return path


def build_environ(bench: Bench) -> dict[str, str]:
    """Return this environment without variables meant for another Fanout, or that keep Python from starting as usual."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FANOUT_", "PYTHONDONTWRITE"))}
    return (
        kept
        | dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(bench.folder))
        | {"BENCH_KEY": "bench", "FANOUT_MAX_CALLS": "4096"}
    )


@contextmanager
def start_fanout(bench: Bench, to: Upstream, attempts: int = 3, *, workers: int = 1, pinned: bool = True) -> Iterator[Server]:
    """Start the server under test; it may not listen yet. Its history and usage go into a file.

    Unless it is `pinned` to the first core, it has both.
    """
    port, config = find_free_port(), write_providers_file(bench, to, attempts)
    command = [sys.executable, "-m", "fanout", "serve", "--host", "127.0.0.1", "--port", str(port), "--config", str(config)]
    if bench.server_command:
        command = shlex.split(bench.server_command.format(port=port, config=config, upstream=to.url))
    store = str(bench.folder / f"history-{port}.db")
    environ = build_environ(bench) | {"FANOUT_STORE": store, "FANOUT_WORKERS": str(workers)}
    cores = get_cores()[:1] if pinned else get_cores()
    with run_program(command, cores, bench.folder / "fanout.log", environ, CHECKOUT) as program:
        yield Server("fanout", program, port)


@contextmanager
def run_fanout(bench: Bench, to: Upstream, attempts: int = 3, *, workers: int = 1, pinned: bool = True) -> Iterator[Server]:
    with start_fanout(bench, to, attempts, workers=workers, pinned=pinned) as server:
        wait_until_ready(server.program, server.port, "/readyz", timeout_s=30)
        yield server


@contextmanager
def run_switched(bench: Bench, to: Upstream) -> Iterator[Server]:
    """Run the server under test so that SIGUSR1 switches its history and usage off, and on again."""
    port, config = find_free_port(), write_providers_file(bench, to, 3)
    command = [sys.executable, str(FOLDER / "switched.py"), "serve", "--port", str(port), "--config", str(config)]
    environ = build_environ(bench) | {"FANOUT_STORE": str(bench.folder / f"history-{port}.db"), "PYTHONPATH": str(CHECKOUT)}
    with run_program(command, get_cores()[:1], bench.folder / "switched.log", environ, CHECKOUT) as program:
        wait_until_ready(program, port, "/readyz", timeout_s=30)
        yield Server("fanout", program, port)


class CommandTimes(NamedTuple):
    """The times of a command that has ended."""

    first_byte_s: float
    """From its start to the first byte of its output."""
    cpu_s: float


def time_command(bench: Bench, *arguments: str) -> CommandTimes:
    """Run `fanout` with these arguments on the core of the server, its output in a pipe."""
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "fanout", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=build_environ(bench),
        cwd=CHECKOUT,
        preexec_fn=pin_to(get_cores()[0]),
    )
    assert child.stdout
    with child, child.stdout:
        is_empty = not child.stdout.read(1)
        first_byte_s = time.monotonic() - began
        child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode or is_empty:
        raise BenchError(f"`fanout {' '.join(arguments)}` ended with {child.returncode}")
    return CommandTimes(first_byte_s, usage.ru_utime + usage.ru_stime)


def run_to_end(bench: Bench, template: str, values: Mapping[str, object]) -> dict[str, Any]:
    """Run a program to its end on the core of the server; return the JSON in its last line."""
    command = shlex.split(template.format(**values))
    log = bench.folder / "alone.log"
    with run_program(command, get_cores()[0], log, build_environ(bench) | {"PYTHONPATH": str(CHECKOUT)}) as program:
        try:
            status = program.child.wait(300)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"`{command[1]}` did not end in 300 s") from error
        if status:
            program.check()
    result: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return result
