"""Fixtures for the tests of the resources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.batching import config_of
from tests.support.server import Server, serving
from tests.support.upstreams import Upstream


@pytest.fixture
async def desk(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before the scripted upstream, with a store in a file."""
    async with serving(config_of(upstream, tmp_path), FANOUT_STORE=str(tmp_path / "fanout.db")) as running:
        yield running


@pytest.fixture
async def anywhere(location: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before the scripted upstream, with a store on either kind of database."""
    async with serving(config_of(upstream, tmp_path), FANOUT_STORE=location) as running:
        yield running
