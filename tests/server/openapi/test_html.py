"""`/docs`: the reference for people, whole on one page that needs nothing else."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import pytest

from fanout.server.endpoints import ENDPOINTS
from tests.support.server import Server, serve


@pytest.fixture
async def plain_server() -> AsyncIterator[Server]:
    """A server as it is on a fresh machine."""
    async with serve(FANOUT_STORE=":memory:") as server:
        yield server


async def fetch_page(server: Server, **headers: str) -> str:
    async with server.session.get("/docs", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
        return await response.text()


class Seen(HTMLParser):
    """The content of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given["href"])] if tag == "a" else []
        loads = tag in ("script", "link", "img", "iframe", "object", "embed") or "src" in given or "style" in given
        self.loaded += [tag] if loads or any(name.startswith("on") for name in given) else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_page_names_every_path_and_loads_nothing(plain_server: Server) -> None:
    text = await fetch_page(plain_server)
    seen = Seen(text)

    assert seen.open == []
    assert [endpoint.id for endpoint in ENDPOINTS if f"<code>{html.escape(endpoint.template)}</code>" not in text] == []
    assert seen.loaded == []
    assert not re.search(r"@import|url\(", text)
    assert len(set(seen.ids)) == len(seen.ids)
    assert [link for link in seen.links if link != "/openapi.json" and link.removeprefix("#") not in seen.ids] == []
    assert '<meta name="viewport" content="width=device-width">' in text
    assert "prefers-color-scheme: dark" in text


async def test_the_page_shows_type_range_default_and_meaning_of_every_field(plain_server: Server) -> None:
    text = await fetch_page(plain_server)

    for part in (
        '<code class="name">temperature</code><span class="type">number or null</span><span class="limits">0 to 2</span>',
        '<code class="name">prompt</code><span class="type">string</span><span class="needed">required</span>',
        "default <code>account,model</code>",
        "Maximum number of tokens to generate.",
        '<span class="type"><code>list</code></span>',
        "<summary>20 fields inside</summary>",
    ):
        assert part in text


async def test_the_examples_show_the_address_that_the_reader_used(plain_server: Server) -> None:
    assert f"curl {plain_server.url}/v1/completion " in await fetch_page(plain_server)
    assert "127.0.0.1:8080" not in await fetch_page(plain_server)


async def test_an_unsafe_host_name_is_not_repeated_in_the_page() -> None:
    async with serve(FANOUT_API_KEYS="key-one-abcdefghij", FANOUT_STORE=":memory:") as server:
        text = await fetch_page(server, Host="evil.example<b>/'$(rm)")

    assert "evil" not in text
    assert "curl http://127.0.0.1:8080/v1/completion" in text


async def test_every_command_of_the_page_works() -> None:
    if not shutil.which("curl"):
        pytest.fail("NO CURL") if os.environ.get("CI") else pytest.skip("NO CURL: the page's commands are not run")
    async with serve(FANOUT_API_KEYS="key-one-abcdefghij", FANOUT_STORE=":memory:") as server:
        shown = [html.unescape(line) for line in re.findall(r"<code>(curl .*?)</code>", await fetch_page(server), re.S)]
        lines = [
            line for line in shown if not re.search(r"/v1/(comparisons|files|batches|jobs|responses|keys)/", line)
        ]  # nobody knows such an id beforehand
        ended = await asyncio.gather(*(asyncio.to_thread(run_line, line) for line in lines))

    assert len(lines) > 15
    assert [(line, one.stderr, one.stdout[:300]) for line, one in zip(lines, ended, strict=True) if one.returncode] == []


def run_line(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the page; curl fails if the answer's status is an error."""
    line = line.replace("curl", "curl -sS --fail-with-body", 1)
    environ = {**os.environ, "FANOUT_KEY": "key-one-abcdefghij"}
    return subprocess.run(["sh", "-euc", line], env=environ, capture_output=True, text=True, timeout=60, check=False)
