"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings
from pydantic_core import to_json

from fanout.observability.logs import log
from fanout.providers.transport import own_client
from tests.support.builders.settings import write_providers_file
from tests.support.databases import SYSTEMS, create_location
from tests.support.llama.process import Llama, run_llama
from tests.support.postgres import Postgres, run_postgres
from tests.support.server import UP_KEY, Server, serve
from tests.support.upstream.client import UpstreamClient
from tests.support.upstream.server import Upstream

if TYPE_CHECKING:
    from playwright.async_api import Browser

# The duration of an example depends on the machine, which others use as well. The same examples in every run, so that a change
# is judged by what it changes; `--hypothesis-profile=search` looks for new ones.
settings.register_profile("search", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", parent=settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("steady")

# Whatever the user has set: compiling the tests anew is half of what collecting them takes, in every worker.
sys.dont_write_bytecode = False
# A shell that starts the tests in the background ignores SIGINT for them, and so for every program they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# So does `nohup` with SIGHUP.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# All tests by aiohttp's client, as with a version of it that has not been tested.
if os.environ.get("FANOUT_HTTP_CLIENT") == "aiohttp":
    own_client.TESTED_VERSIONS = ()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium: one for all tests."""
    from tests.support.browser import CHROMIUM, open_browser  # playwright takes long to load, and few tests need it

    if not CHROMIUM.exists():
        reason = f"NO BROWSER: {CHROMIUM} is missing; apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    async with open_browser() as running:
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A scripted upstream for one test."""
    async with Upstream() as running:
        yield running


@pytest.fixture
async def upstream_client(upstream: Upstream) -> AsyncIterator[UpstreamClient]:
    """A plain client of the scripted upstream."""
    async with aiohttp.ClientSession() as session:
        yield UpstreamClient(upstream, session)


@pytest.fixture
def providers_json(upstream: Upstream, tmp_path: Path) -> str:
    """The path of a providers.json whose models are scripts."""
    return str(write_providers_file(upstream.url, tmp_path, retries={"attempts": 2, "max_delay_s": 0.02}))


@pytest.fixture
async def server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before the scripted upstream; its attempts last at most 10 s, the waits between them at most 20 ms."""
    retries = {"attempts": 3, "max_delay_s": 0.02}
    config = write_providers_file(upstream.url, tmp_path, api_key_env="UP_KEY", timeout_s=10, retries=retries)
    async with serve(config, UP_KEY=UP_KEY) as running:
        yield running


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """The lines that are logged during the test, as the JSON that an operator sees, including tracebacks."""
    lines: list[str] = []

    class Collector:
        def msg(self, line: str) -> None:
            lines.append(line)

        debug = info = warning = error = critical = exception = msg

    vars(log).pop("bind", None)  # `logs.configure` makes the logger keep the output it first wrote to
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: to_json(event, fallback=str).decode()),
        ],
        logger_factory=lambda *_: Collector(),
        cache_logger_on_first_use=False,
    )
    yield lines
    structlog.reset_defaults()


@pytest.fixture(params=SYSTEMS)
def location(request: pytest.FixtureRequest) -> Iterator[str]:
    """The location of an empty database: first a SQLite file, then a PostgreSQL database."""
    with create_location(request) as found:
        yield found


@pytest.fixture(params=SYSTEMS)
def bare_location(request: pytest.FixtureRequest) -> Iterator[str]:
    """The location of a database without tables, on either system."""
    with create_location(request, template="template1") as found:
        yield found


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session."""
    with run_postgres() as server:
        yield server


@pytest.fixture
def restartable_postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """The PostgreSQL server, for a test that stops it; it is started again afterwards."""
    yield postgres_server
    if not postgres_server.is_running:
        postgres_server.start()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    """A llama.cpp server for the whole session."""
    with run_llama(tmp_path_factory.mktemp("llama")) as running:
        yield running
