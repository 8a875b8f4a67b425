"""The programs of a measurement: the upstream, and the servers that are put before it."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench import Bench, NotInstalled
from machine import BenchError, Program, cores, free_port, running, wait_until_ready

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
MODELS = 16
NO_LIMIT = {"requests_per_minute": 100_000_000, "tokens_per_minute": 1_000_000_000_000, "concurrency": 10_000}
NO_PEER = "peer not installed: `python -m venv DIR && DIR/bin/pip install 'litellm[proxy]'`, then LITELLM_BIN=DIR/bin/litellm"


@dataclass(frozen=True, slots=True)
class Upstream:
    port: int
    path: str = "/v1/chat/completions"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def counts(self) -> dict[str, int]:
        """`requests`, `faults` and `chunks` served so far."""
        with urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=10) as response:
            counts: dict[str, int] = json.load(response)
            return counts


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test, or what it is measured against."""

    name: str
    program: Program
    port: int
    path: str = "/v1/completion"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def come_to_rest(self) -> None:
        """Waits, 10 s at most, until it has finished with the calls that a leaving client left behind."""
        for _ in range(50):
            before_s = self.program.cpu_s()
            time.sleep(0.2)
            if self.program.cpu_s() - before_s <= 0.02:
                return


def compile_upstream(folder: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise BenchError("needs a C compiler for the upstream: `apt-get install gcc libc6-dev`")
    command = [compiler, "-O2", "-o", str(folder / "upstream"), str(HERE / "upstream.c")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise BenchError(f"`{' '.join(command)}` failed: {made.stderr[-600:]}")


@contextmanager
def upstream(
    bench: Bench, *, latency_ms: int = 0, chunks: int = 100, gap_ms: int = 0, fault_every: int = 0
) -> Iterator[Upstream]:
    port = free_port()
    command = [str(bench.folder / "upstream"), *map(str, (port, latency_ms, chunks, gap_ms, fault_every))]
    with running(command, cores()[1], bench.folder / "upstream.log") as program:
        wait_until_ready(program, port, "/counts", timeout_s=5)
        yield Upstream(port)


@contextmanager
def floor(bench: Bench, to: Upstream, script: str = "floor.py") -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(HERE / script), str(port), to.url]
    with running(command, cores()[0], bench.folder / "floor.log") as program:
        wait_until_ready(program, port, "/readyz", timeout_s=20)
        yield Server("floor", program, port)


def providers_file(bench: Bench, to: Upstream, attempts: int) -> Path:
    """Sixteen priced models at the upstream, with every limit on and none of them reached."""
    provider = {
        "adapter": "openai",
        "base_url": f"http://127.0.0.1:{to.port}/v1",
        "api_key_env": "BENCH_KEY",
        "limits": NO_LIMIT,
        "retries": {"attempts": attempts},
    }
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
    models = {f"m{n}": {"provider": "up", "id": f"m{n}", "kind": "chat", "price": price} for n in range(MODELS)}
    path = bench.folder / f"providers-{to.port}-{attempts}.json"
    path.write_text(json.dumps({"extends": False, "providers": {"up": provider}, "models": models}))
    return path


def clean_environ(bench: Bench) -> dict[str, str]:
    """This environment without what the operator has set for a Fanout of his own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FANOUT_")}
    return kept | {"BENCH_KEY": "bench", "XDG_CONFIG_HOME": str(bench.folder)}


@contextmanager
def starting_fanout(bench: Bench, to: Upstream, attempts: int = 3) -> Iterator[Server]:
    """The server under test, just started: it may not listen yet."""
    port, config = free_port(), providers_file(bench, to, attempts)
    command = [sys.executable, "-m", "fanout", "serve", "--host", "127.0.0.1", "--port", str(port), "--config", str(config)]
    if bench.server_command:
        command = shlex.split(bench.server_command.format(port=port, config=config, upstream=to.url))
    with running(command, cores()[0], bench.folder / "fanout.log", clean_environ(bench), CHECKOUT) as program:
        yield Server("fanout", program, port)


@contextmanager
def fanout(bench: Bench, to: Upstream, attempts: int = 3) -> Iterator[Server]:
    with starting_fanout(bench, to, attempts) as server:
        wait_until_ready(server.program, server.port, "/readyz", timeout_s=30)
        yield server


@contextmanager
def litellm(bench: Bench, to: Upstream) -> Iterator[Server]:
    """LiteLLM's proxy, the one other gateway that fans out in one call (a comma-separated `model`)."""
    binary = os.environ.get("LITELLM_BIN")
    if not binary or not shutil.which(binary):
        raise NotInstalled(NO_PEER)
    port, config = free_port(), bench.folder / "litellm.yaml"
    account = {"api_base": f"http://127.0.0.1:{to.port}/v1", "api_key": "bench"}
    models = [{"model_name": f"m{n}", "litellm_params": account | {"model": f"openai/m{n}"}} for n in range(MODELS)]
    config.write_text(json.dumps({"model_list": models}))  # JSON is YAML
    command = [binary, "--host", "127.0.0.1", "--port", str(port), "--config", str(config)]
    environ = clean_environ(bench) | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its own table, not one from the network
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # as ours: on loopback, without keys
    }
    with running(command, cores()[0], bench.folder / "litellm.log", environ, bench.folder) as program:
        wait_until_ready(program, port, "/health/liveliness", timeout_s=120)
        yield Server("litellm", program, port, "/v1/chat/completions")


def ran_alone(bench: Bench, template: str, values: Mapping[str, object]) -> dict[str, Any]:
    """Runs a client of the library to its end, on the server's core; its last line is JSON."""
    command = shlex.split(template.format(**values))
    log = bench.folder / "alone.log"
    with running(command, cores()[0], log, clean_environ(bench) | {"PYTHONPATH": str(CHECKOUT)}) as program:
        try:
            status = program.child.wait(300)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"`{command[1]}` did not end in 300 s") from error
        if status:
            program.check()
    said: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return said
