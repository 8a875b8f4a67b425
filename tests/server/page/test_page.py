"""The page as the server sends it: to whom, with which headers, how much of it; and keys."""

from __future__ import annotations

import gzip
import re
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser

from fanout.server.connections import WaitLimits
from fanout.server.page.assets import load_assets
from tests.support.browser import visit
from tests.support.builders.settings import write_providers_file
from tests.support.client import Client
from tests.support.server import Server, serve, serve_with_limits
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")
HTML = {"Accept": "text/html,application/xhtml+xml"}
KEY = "key-of-somebody-1234"


async def test_browsers_get_the_page_and_programs_addresses(page_server: Server) -> None:
    client = Client(page_server)
    page = await client.send("GET", "/", headers=HTML)
    home = await client.send("GET", "/")

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert home.json["page"] == "/"
    for path in ("docs", "openapi", "models"):
        assert (await client.send("GET", home.json[path])).status == 200
    assert (await client.send("GET", "/favicon.ico")).headers["Content-Type"].startswith("image/svg+xml")


async def test_files_are_immutable_and_a_strict_policy_forbids_everything_else(page_server: Server) -> None:
    client = Client(page_server)
    page = await client.send("GET", "/", headers=HTML)
    policy = page.headers["Content-Security-Policy"]
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "trusted-types 'none'",
        "frame-ancestors 'none'",
    ):
        assert part in policy
    assert "unsafe" not in policy
    paths = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.body.decode())
    assert len(paths) > 10
    for path in paths:
        file = await client.send("GET", path)
        assert (file.status, "immutable" in file.headers["Cache-Control"]) == (200, True)
    old = await client.send("GET", paths[0].replace(load_assets().base, "/assets/0123456789abcdef"))
    assert (old.status, "load the page again" in old.error["message"]) == (404, True)
    assert (await client.send("GET", f"{load_assets().base}/../routes.py")).status == 404


async def test_everything_that_the_page_loads_at_first_is_small() -> None:
    """Of the 150 KB that the page may have without markdown."""
    assets = load_assets()
    size = sum(len(asset.compressed) for name, asset in assets.files.items() if "marked" not in name and name[-4:] != ".txt")
    assert size + len(gzip.compress(assets.index.body)) < 150_000


async def test_a_foreign_page_cannot_send_what_changes_anything(page_server: Server) -> None:
    """What needs no preflight is a form's type, which is not JSON; and each request bears the page's origin."""
    client = Client(page_server)
    assert (await client.send("POST", "/v1/completion", b"{}", {"Content-Type": "text/plain"})).status == 415
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        for path in ("/v1/completion", "/v1/jobs", "/v1/jobs/x/cancel", "/v1/files", "/v1/comparisons/x/cancel"):
            reply = await client.send("POST", path, b"{}", {"Origin": origin})
            assert reply.status == 403, (path, origin, reply.body)


async def test_a_key_is_asked_for_kept_for_the_tab_and_never_put_into_an_address(
    browser: Browser, page_upstream: Upstream, tmp_path: Path
) -> None:
    config = write_providers_file(page_upstream.url, tmp_path)
    async with serve(config, FANOUT_API_KEYS=KEY) as server, visit(browser, server.url) as visitor:
        page = visitor.page
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        await visitor.go()
        await page.fill("#key", "wrong-key-of-nobody")
        await page.press("#key", "Enter")
        await page.wait_for_selector("text=does not know this key")
        await page.fill("#key", KEY)
        await page.press("#key", "Enter")
        await page.wait_for_selector("#key", state="detached")
        await page.wait_for_selector(".entry")
        await page.reload()
        await visitor.page.wait_for_selector(".entry")
        assert await page.locator("#key").count() == 0

        assert not any(KEY in address for address in addresses)
        assert await page.evaluate("JSON.stringify(localStorage) + document.cookie") == await page.evaluate(
            f"(JSON.stringify(localStorage) + document.cookie).replaceAll('{KEY}', '')"
        )
        other = await page.context.new_page()
        await other.goto(server.url)
        await other.wait_for_selector("#key")
        await page.click("text=Forget key")
        await page.wait_for_selector("#key")


BREAK = """const send = window.fetch; let count = 0;
window.isRevoked = false;
window.fetch = async (path, options) => {
  if (window.isRevoked && options.headers.Authorization) options.headers.Authorization = 'Bearer of-nobody';
  const response = await send(path, options);
  if (path !== '/v1/completion') return response;
  const reader = response.body.getReader();
  return new Response(new ReadableStream({ async pull(to) {
    const { value, done } = await reader.read();
    if (!done && ++count <= 8) return to.enqueue(value);
    window.isRevoked = true; reader.cancel(); to.error(new TypeError('network error'));
  } }), response);
};"""
"""Breaks a stream off after a few pieces; from then on the server gets a key that it does not know, until told otherwise."""


@pytest.mark.parametrize("is_given", [True, False])
async def test_a_key_that_is_refused_in_mid_run_is_asked_for_and_the_run_is_taken_up_again(
    is_given: bool, browser: Browser, page_upstream: Upstream, tmp_path: Path
) -> None:
    """Or ends with what had come, if the question is closed."""
    config = write_providers_file(page_upstream.url, tmp_path)
    async with serve(config, FANOUT_API_KEYS=KEY) as server, visit(browser, server.url) as visitor:
        page, asked = visitor.page, len(page_upstream.requests)
        await page.goto(f"{server.url}/livez")
        await page.evaluate(f"sessionStorage.setItem('fanout-key', '{KEY}')")
        await page.add_init_script(BREAK)
        await visitor.run("up/chunks-40-gap-0.05")
        await page.wait_for_selector("dialog >> text=does not know this key")
        assert "go on once you give another one" in await page.inner_text(".answers > .notice")
        assert "go on once" in await page.inner_text("#announcer")
        await visitor.wait_for_states("answering")
        assert (await visitor.texts())[0].startswith("w0 "), "what had come stays"

        if is_given:
            await page.evaluate("window.isRevoked = false")
            await page.fill("#key", KEY)
            await page.press("#key", "Enter")
            await visitor.wait_for_states("done")
            await visitor.wait_for_texts(["".join(f"w{number} " for number in range(40))])
            assert await page.locator(".answers > .notice").count() == 0
        else:
            await page.keyboard.press("Escape")
            await visitor.wait_for_states("failed")
            assert (await visitor.texts())[0].startswith("w0 ")
        assert len(page_upstream.requests) == asked + 1, "no call was made a second time"


def find_port() -> int:
    """Return a port for servers that follow each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_a_server_that_is_restarted_under_an_open_page_is_recognized(
    is_revoked: bool, browser: Browser, page_upstream: Upstream, tmp_path: Path
) -> None:
    """The answer that went with it is said to be lost, and the next one comes; a key that was revoked is asked for again."""
    config, port = write_providers_file(page_upstream.url, tmp_path), find_port()
    keys = [KEY, "key-of-somebody-else"] if is_revoked else [KEY, KEY]
    async with AsyncExitStack() as stack:
        async with serve_with_limits(WaitLimits(), config, port, FANOUT_API_KEYS=keys[0]) as server:
            visitor = await stack.enter_async_context(visit(browser, server.url))
            page = visitor.page
            await page.goto(f"{server.url}/livez")
            await page.evaluate(f"sessionStorage.setItem('fanout-key', '{KEY}')")
            await visitor.run("up/chunks-400-gap-0.05")
            await visitor.wait_for_states("answering")
        async with serve_with_limits(WaitLimits(), config, port, FANOUT_API_KEYS=keys[1]):
            if is_revoked:
                await page.wait_for_selector("dialog >> text=does not know this key")
                assert (await visitor.texts())[0].startswith("w0 "), "what had come stays"
                await page.fill("#key", keys[1])
                await page.press("#key", "Enter")
            await visitor.wait_for_states("failed")
            assert (await visitor.texts())[0].startswith("w0 "), "what had come stays"
            assert "restarted" in await page.inner_text(".column .failure")
            if not is_revoked:
                await page.click("#run")
                await visitor.wait_for_states("answering")
            await stack.aclose()
