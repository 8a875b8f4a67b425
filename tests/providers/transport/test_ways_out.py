"""The way of a request to its provider: through a proxy, and past certificates of one's own authority."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

import fanout
from fanout.core.comparison import Comparison
from tests.support.builders.settings import collect_faults, load_own_settings
from tests.support.cli import run_fanout, serve_fanout
from tests.support.upstream.server import Upstream

ROOT = Path(__file__).parents[3]
LOOKING_UP = """
import os, aiohttp, fanout
class Hook(fanout.Hook):
    async def before(self, call):
        async with aiohttp.ClientSession() as session, session.get(os.environ["LOOKED_UP"]) as found:
            assert found.status == 404
create = Hook
"""


def make_rows(base_url: str, **row: object) -> dict[str, Any]:
    fields = {"adapter": "openai", "base_url": base_url, "prices": "", "retries": {"attempts": 1}, **row}
    return {"extends": False, "providers": {"up": fields}}


def read_failure(comparison: Comparison) -> str | None:
    return comparison[0].failure.code if comparison[0].failure else None


async def test_requests_go_through_the_proxy_of_the_environment_or_of_the_row(upstream: Upstream, tmp_path: Path) -> None:
    """The upstream itself stands for the proxy: it answers whatever host is asked for."""
    rows = make_rows("http://models.example/v1")
    settings = load_own_settings(tmp_path, rows, HTTP_PROXY=upstream.origin)
    assert (await fanout.ask("Hello", "up/say-one", settings=settings))[0].text == "one"

    rows = make_rows("http://models.example/v1", proxy=upstream.origin)
    settings = load_own_settings(tmp_path, rows, HTTP_PROXY="http://127.0.0.1:9")
    assert (await fanout.ask("Hello", "up/say-two", settings=settings))[0].text == "two"
    assert [request.headers["host"] for request in upstream.requests] == ["models.example"] * 2


async def test_this_machine_is_called_without_the_proxy(upstream: Upstream, tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, make_rows(upstream.url), HTTP_PROXY="http://127.0.0.1:9")
    assert (await fanout.ask("Hello", "up/say-one", settings=settings))[0].text == "one"


async def test_a_proxy_that_refuses_or_is_absent_is_named(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = load_own_settings(tmp_path, make_rows("https://models.example/v1"), HTTPS_PROXY=address)
        refused = await fanout.ask("Hello", "up/m", settings=settings)
    absent = await fanout.ask("Hello", "up/m", settings=settings)

    assert str(refused[0]) == "the proxy for `up` refused the connection: status 407"
    assert str(absent[0]) == "cannot connect to the proxy for `up`: Connection refused"


@asynccontextmanager
async def serve_safely(authority: trustme.CA) -> AsyncGenerator[dict[str, Any]]:
    """Run an upstream whose certificate is signed by an authority; yield the rows of a provider there."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def answer(request: web.Request) -> web.Response:
        choice = {"message": {"role": "assistant", "content": "safe"}, "finish_reason": "stop", "index": 0}
        return web.json_response({"choices": [choice]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield make_rows(f"https://localhost:{runner.addresses[0][1]}/v1")
    await runner.cleanup()


async def test_certificates_of_an_authority_of_ones_own_are_trusted_if_it_is_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with serve_safely(authority) as rows:
        trusted = load_own_settings(tmp_path, rows, FANOUT_CA_FILE=str(tmp_path / "ca.pem"))
        good = await fanout.ask("Hello", "up/m", settings=trusted)
        bad = await fanout.ask("Hello", "up/m", settings=load_own_settings(tmp_path, rows))

    assert good[0].text == "safe", str(good[0])
    assert read_failure(bad) == "tls_error"


async def test_a_hook_of_a_server_trusts_the_authorities_of_its_system(tmp_path: Path) -> None:
    """It has a client of its own, before any call of the server's is encrypted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "looking_up.py").write_text(LOOKING_UP)
    command = (sys.executable, "-m", "fanout")
    variables = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "PYTHONPATH": f"{tmp_path}:{ROOT}", "FANOUT_HOOKS": "looking_up"}
    async with serve_safely(authority) as rows, aiohttp.ClientSession() as client:
        base_url = rows["providers"]["up"]["base_url"]
        async with serve_fanout(command=command, LOOKED_UP=base_url, FANOUT_STORE="off", **variables) as url:
            body = {"model": "local/ngram-2", "prompt": "The return statement", "max_tokens": 2}
            async with client.post(f"{url}/v1/completion", json=body) as response:
                answer = await response.json()

    assert response.status == 200, answer


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "two workers"])
async def test_a_server_trusts_the_authorities_of_its_system_and_no_others(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It imports aiohttp without them, so it is not forked from a process that has imported it as a whole."""
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    command = (sys.executable, "-P", "-m", "fanout")
    variables = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "FANOUT_STORE": str(tmp_path / "s.db")}
    found = []
    async with serve_safely(authority) as rows, serve_safely(stranger) as strange, aiohttp.ClientSession() as client:
        rows["providers"] |= {"other": strange["providers"]["up"]}
        (tmp_path / "own.json").write_text(json.dumps(rows))
        config = ("--config", str(tmp_path / "own.json"))
        async with serve_fanout(*config, *arguments, command=command, **variables) as url:
            for _ in range(2):  # the first connection reads them
                body = {"model": ["up/m", "other/m"], "prompt": "Hello"}
                async with client.post(f"{url}/v1/completion", json=body) as response:
                    choices = (await response.json())["choices"]
                found.append([choice.get("text") or choice["error"]["code"] for choice in choices])

    assert found == [["safe", "tls_error"]] * 2


def test_a_file_without_certificates_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    (fault,) = collect_faults(tmp_path, {}, FANOUT_CA_FILE=str(tmp_path / "empty.pem"))
    assert fault.startswith("environment: FANOUT_CA_FILE: ")
    assert "holds no certificate in PEM form" in fault


async def test_check_shows_proxies_certificates_and_names_that_gave_way(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "own.json").write_text(
        '{"models": {"embedded": {"provider": "openai", "id": "x", "kind": "chat", "aliases": ["groq/own"]}}}'
    )
    proxy, ca_file = "http://user:secret@p.example:1", str(tmp_path / "ca.pem")
    result = await run_fanout("check", "--config", str(tmp_path / "own.json"), HTTPS_PROXY=proxy, FANOUT_CA_FILE=ca_file)

    assert result.code == 0
    lines = result.out.splitlines()
    assert "the shipped set `embedded` gives way to your model `embedded`" in lines
    assert "`own` of the shipped provider `groq` gives way to your model `embedded`" in lines
    assert any(line.startswith("proxy http://p.example:1: ") for line in lines)
    assert f"certificates of your own: {ca_file}" in lines
    assert "secret" not in result.out + result.err
