"""The Dispatcher without the HTTP server: comparisons from concurrent workers, as in a batch job.

usage: dispatcher_alone.py PROVIDERS_JSON PROMPTS MODELS WORKERS      prints {"calls": …, "cpu_s": …, "rss_mb": …, "errors": …}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from floor import freeze
from machine import rss_mb

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.core.schema import Completion
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher


async def work(dispatcher: Dispatcher, prompts: Iterable[str], models: Sequence[str]) -> int:
    """Run comparisons until `prompts`, which several workers share, is empty; return the number of failed calls."""
    errors = 0
    for prompt in prompts:
        calls = dispatcher.plan(build_request(prompt, models, max_tokens=50, temperature=0.7))
        outcomes = await dispatcher.run(calls, deadline_s=120)
        errors += sum(not isinstance(outcome.result, Completion) for outcome in outcomes)
    return errors


async def main() -> None:
    count, model_count, workers = map(int, sys.argv[2:5])
    models = [f"m{model}" for model in range(model_count)]
    prompts = (f"Prompt {prompt}: what is the capital of France?" for prompt in range(count))
    async with open_dispatcher(load_settings(Path(sys.argv[1]))) as dispatcher:
        freeze()
        start_s = time.process_time()
        errors = sum(await asyncio.gather(*(work(dispatcher, prompts, models) for _ in range(workers))))
        cpu_s = time.process_time() - start_s
    print(json.dumps({"calls": count * model_count, "cpu_s": cpu_s, "rss_mb": rss_mb("self"), "errors": errors}))


if __name__ == "__main__":
    asyncio.run(main())
