"""Fixtures for the tests of the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import EMBEDDED, Client
from tests.support.dialects import serve_hosts
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream


@pytest.fixture
def client(server: Server) -> Client:
    """A client of the server before the scripted upstream."""
    return Client(server)


@pytest.fixture
async def embedded_client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a server with only the embedded models, which starts in a third of the time."""
    config = tmp_path / "embedded.json"
    config.write_text(json.dumps(EMBEDDED))
    async with serve(config) as running:
        yield Client(running)


@pytest.fixture
async def dialect_server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server with several kinds of hosts, all of them the scripted upstream."""
    async with serve_hosts(upstream.url, tmp_path) as running:
        yield running
