"""A real llama.cpp server on 127.0.0.1: `python server.py MODEL.gguf PORT [KEY,KEY]`; port 0 takes a free one.

It prints `LISTENING <address>` once it serves and stops on SIGTERM. `GET /slots` shows which calls still run.
Each of its 4 slots has a context of 4,096 tokens.
"""

from __future__ import annotations

import signal
import sys

import xllamacpp  # type: ignore[import-untyped]  # a compiled module without stubs

SLOTS = 4
SLOT_TOKENS = 4096


def build_parameters(model: str, port: int, keys: list[str]) -> xllamacpp.CommonParams:
    """Return parameters with one thread for the model, so that a test's own loop keeps its core."""
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = model, {"tiny"}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel = SLOTS * SLOT_TOKENS, SLOTS
    params.cpuparams.n_threads, params.n_threads_http = 1, 4
    params.endpoint_metrics = params.use_jinja = True
    params.api_keys = keys
    return params


def main() -> None:
    model, port, *keys = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, ends := {signal.SIGTERM, signal.SIGINT})  # its threads inherit this
    server = xllamacpp.Server(build_parameters(model, int(port), keys[0].split(",") if keys else []))
    print("LISTENING", server.listening_address, flush=True)
    signal.sigwait(ends)


if __name__ == "__main__":
    main()
