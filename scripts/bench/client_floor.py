"""The floor of a client: bare aiohttp calls from concurrent workers, without a server in front.

usage: client_floor.py UPSTREAM_URL PROMPTS MODELS WORKERS      prints {"calls": …, "cpu_s": …, "rss_mb": …, "errors": …}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import aiohttp
from floor import call, open_session
from machine import rss_mb
from yarl import URL


async def work(session: aiohttp.ClientSession, upstream: URL, requests: Iterator[tuple[str, str]]) -> int:
    """Call the upstream until `requests`, which several workers share, is empty; return the number of calls without text."""
    errors = 0
    for prompt, model in requests:
        errors += not (await call(session, upstream, model, prompt))["text"]
    return errors


async def main() -> None:
    upstream = URL(sys.argv[1])
    prompts, models, workers = map(int, sys.argv[2:5])
    requests = (
        (f"Prompt {prompt}: what is the capital of France?", f"m{model}")
        for prompt in range(prompts)
        for model in range(models)
    )
    async with open_session() as session:
        start_s = time.process_time()
        errors = sum(await asyncio.gather(*(work(session, upstream, requests) for _ in range(workers))))
        cpu_s = time.process_time() - start_s
    print(json.dumps({"calls": prompts * models, "cpu_s": cpu_s, "rss_mb": rss_mb("self"), "errors": errors}))


if __name__ == "__main__":
    asyncio.run(main())
