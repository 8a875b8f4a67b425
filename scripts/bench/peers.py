"""Peers: other gateways before the same upstream, where they are installed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from bench import Bench, NotInstalledError, extract, sum_errors
from load import build_chat, build_comparison, count_answers, post
from machine import BenchError, find_free_port, get_cores, run_program, wait_until_ready
from servers import MODELS, Server, Upstream, build_environ, run_fanout, run_upstream
from table import Row
from whole import make_load

NO_LITELLM = "not installed: `python -m venv DIR && DIR/bin/pip install 'litellm[proxy]'`, then LITELLM_BIN=DIR/bin/litellm"
NO_PORTKEY = "not installed: `npm install --prefix DIR @portkey-ai/gateway`, then PORTKEY_BIN=DIR/node_modules/.bin/gateway"


@contextmanager
def run_litellm(bench: Bench, to: Upstream) -> Iterator[Server]:
    """Run LiteLLM's proxy, the one other gateway that fans out in one call (a comma-separated `model`)."""
    binary = os.environ.get("LITELLM_BIN")
    if not binary or not shutil.which(binary):
        raise NotInstalledError(NO_LITELLM)
    port, config = find_free_port(), bench.folder / "litellm.yaml"
    account = {"api_base": f"http://127.0.0.1:{to.port}/v1", "api_key": "bench"}
    models = [{"model_name": f"m{n}", "litellm_params": account | {"model": f"openai/m{n}"}} for n in range(MODELS)]
    config.write_text(json.dumps({"model_list": models}))  # JSON is YAML
    command = [binary, "--host", "127.0.0.1", "--port", str(port), "--config", str(config)]
    environ = build_environ(bench) | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its built-in table, not one from the network
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # like Fanout here: on loopback, without keys
    }
    with run_program(command, get_cores()[0], bench.folder / "litellm.log", environ, bench.folder) as program:
        wait_until_ready(program, port, "/health/liveliness", timeout_s=120)
        yield Server("LiteLLM", program, port, "/v1/chat/completions")


@contextmanager
def run_portkey(bench: Bench, to: Upstream) -> Iterator[Server]:
    """Run Portkey's gateway, which sends one request to one model."""
    binary = os.environ.get("PORTKEY_BIN")
    if not binary or not shutil.which(binary):
        raise NotInstalledError(NO_PORTKEY)
    port = find_free_port()
    log = bench.folder / "portkey.log"
    with run_program(
        [binary, f"--port={port}", "--headless"], get_cores()[0], log, build_environ(bench), bench.folder
    ) as program:
        wait_until_ready(program, port, "/", timeout_s=30)
        account = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{to.port}/v1",
            "Authorization": "Bearer bench",
        }
        yield Server("Portkey", program, port, "/v1/chat/completions", account)


def measure_litellm(bench: Bench) -> list[Row]:
    """Measure requests per second at 4 models, compared with LiteLLM's proxy."""
    with run_upstream(bench) as to, run_litellm(bench, to) as theirs, run_fanout(bench, to) as ours:
        check_peer(theirs, build_chat("m0,m1,m2,m3"), 4)
        return [compare_rates(bench, ours, theirs, build_chat("m0,m1,m2,m3"), 4, must=30, aim=45)]


def measure_portkey(bench: Bench) -> list[Row]:
    """Measure requests per second at one model, compared with Portkey's gateway."""
    with run_upstream(bench) as to, run_portkey(bench, to) as theirs, run_fanout(bench, to) as ours:
        check_peer(theirs, build_chat("m0"), 1)
        return [compare_rates(bench, ours, theirs, build_chat("m0"), 1)]


def check_peer(server: Server, body: bytes, answers: int) -> None:
    """Check that a peer answers for every model."""
    status, answer = post(server.port, server.path, body, server.headers)
    if status != 200 or (answers > 1 and len(answer) != answers):
        raise BenchError(f"{server.name} did not answer for {answers} models: {status} {str(answer)[:300]}")


def compare_rates(
    bench: Bench, ours: Server, theirs: Server, body: bytes, models: int, must: float | None = None, aim: float | None = None
) -> Row:
    """Return the row of requests per second over those of a peer, which stands in the floor's place."""
    if count_answers(ours.port, models) != models:
        raise BenchError(f"Fanout did not answer for {models} models")
    samples = bench.measure_in_turns(
        {
            "floor": make_load(theirs.url, body, 32, theirs.headers),
            "fanout": make_load(ours.url, build_comparison(models), 32),
        }
    )
    return Row.from_samples(
        f"requests/s, {models} {'models' if models > 1 else 'model'}, 32 connections, over {theirs.name}'s",
        "/s",
        extract(samples, lambda load: load.rate),
        against="ratio",
        must=must,
        aim=aim,
        is_lower_bound=True,
        errors=sum_errors(samples),
        rss_mb=ours.program.rss_mb(),
    )
