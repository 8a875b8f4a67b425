"""Fixtures for the tests of the resources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.batches import write_config
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream


@pytest.fixture
async def store_server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before the scripted upstream, with a store in a file."""
    async with serve(write_config(upstream, tmp_path), FANOUT_STORE=str(tmp_path / "fanout.db")) as running:
        yield running


@pytest.fixture
async def any_store_server(location: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before the scripted upstream, with a store on either kind of database."""
    async with serve(write_config(upstream, tmp_path), FANOUT_STORE=location) as running:
        yield running
