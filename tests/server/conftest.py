"""Fixtures for the tests of the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dialects import house
from tests.support.http_client import EMBEDDED, Client
from tests.support.server import Server, serving
from tests.support.upstreams import Upstream


@pytest.fixture
def client(server: Server) -> Client:
    """A client of the server before the scripted upstream."""
    return Client(server)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a server with only the embedded models, which starts in a third of the time."""
    config = tmp_path / "embedded.json"
    config.write_text(json.dumps(EMBEDDED))
    async with serving(config) as running:
        yield Client(running)


@pytest.fixture
async def served(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server with several kinds of hosts, all of them the scripted upstream."""
    async with house(upstream.url, tmp_path) as running:
        yield running
