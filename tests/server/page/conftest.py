"""Servers for all tests of the page, in the event loop of the one browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import Visit, visit
from tests.support.builders.settings import write_providers_file
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def page_upstream() -> AsyncGenerator[Upstream]:
    """A scripted upstream for all tests of the page."""
    async with Upstream() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def page_server(page_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Server]:
    """A server with scripted and embedded models, whose history keeps texts."""
    folder = tmp_path_factory.mktemp("page")
    locals_ = {name: {"provider": "local", "id": name.split("/")[1], "kind": "both"} for name in NAMES}
    lacking = {"absent": {"adapter": "openai", "base_url": page_upstream.url, "api_key_env": "ABSENT_API_KEY"}}
    more: dict[str, dict[str, Any]] = {
        "models": {**locals_, "needs-key": {"provider": "absent", "id": "x", "kind": "chat"}, **PRICED},
        "providers": lacking,
        "sets": {"embedded": list(NAMES)},
    }
    config = write_providers_file(page_upstream.url, folder, more=more, retries={"attempts": 1})
    async with serve(config, FANOUT_STORE=str(folder / "store.db"), FANOUT_HISTORY="full") as running:
        yield running


PRICED = {
    f"up/say-{word}-tokens-{tokens}": {
        "provider": "up",
        "id": f"say-{word}-tokens-{tokens}",
        "kind": "chat",
        "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": tokens},
    }
    for word, tokens in (("right", 9), ("wrong", 5))
}
NAMES = ("local/ngram-2", "local/ngram-3", "local/ngram-5")


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, page_server: Server) -> AsyncGenerator[Visit]:
    """A new visitor of the page, whose browser must not complain."""
    async with visit(browser, page_server.url) as opened:
        yield opened
