"""What a request leaves behind when it has been answered and recorded."""

from __future__ import annotations

import gc
from pathlib import Path

import aiohttp

from fanout.core.schema import Outcome
from fanout.server.afterwork import AFTERWORK
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import serve
from tests.support.upstream.server import Upstream


async def test_an_open_connection_to_a_provider_keeps_no_answer_of_the_request_that_opened_it(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path)) as server:
        client, models = Client(server), ["up/ok", "up/say-again"]
        await client.complete(model=models)
        server.app[AFTERWORK].finish()
        gc.collect()
        kept = [value.call.target.name for value in gc.get_objects() if isinstance(value, Outcome)]
        assert [name for name in kept if name in models] == []


async def test_an_open_connection_of_a_client_keeps_no_answer_of_its_last_request(upstream: Upstream, tmp_path: Path) -> None:
    config, store, models = write_providers_file(upstream.url, tmp_path), str(tmp_path / "fanout.db"), ["up/ok", "up/say-kept"]
    async with serve(config, FANOUT_STORE=store) as server, aiohttp.ClientSession(server.url) as session:
        for stream in (False, True):
            async with session.post("/v1/completion", json={"prompt": "hi", "model": models, "stream": stream}) as response:
                assert response.headers["x-comparison-id"]
                await response.read()
            server.app[AFTERWORK].finish()
            gc.collect()
            assert not [value for value in gc.get_objects() if isinstance(value, Outcome) and value.call.target.name in models]
