"""Images: fetched from the public internet alone, however a request tries to lead elsewhere."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, Message, TextPart
from fanout.core.schema import Failure
from fanout.providers.mapping.data_urls import MAX_IMAGE_BYTES, Image, decode_data_url
from fanout.providers.transport.image_download import fetch_image
from fanout.providers.transport.images import MAX_IMAGES, inline_images
from fanout.providers.transport.public_addresses import PublicSocketFactory, is_own, is_public
from tests.support.conversations import PNG
from tests.support.openai_format import CALL
from tests.support.upstream.canned import answer_with, serve_answers

HERE = (ip_network("127.0.0.1/32"),)
"""The one address that a test allows: 127.0.0.2 is this machine as well, and is not among them."""
NOT_PUBLIC = "an image of the request is at an address that is not public, where none is fetched from"


async def fetch_failure(url: str, **more: Any) -> Failure:
    """Return the failure of fetching; it is always of the same kind."""
    with pytest.raises(ProviderError) as caught:
        await fetch_image(url, **more)
    failure = caught.value.failure
    assert (failure.kind, failure.code, failure.param) == ("bad_request", "invalid_image", "images")
    return failure


def redirect_to(to: str, status: int = 302) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": to})

    return answer


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "jpeg"),
        (b"GIF89a\x01\x00", "gif"),
        (b"GIF87a\x01\x00", "gif"),
        (b"RIFF\x1a\x00\x00\x00WEBPVP8L", "webp"),
    ],
)
async def test_the_first_bytes_decide_the_kind_of_an_image(data: bytes, kind: str) -> None:
    """Not its sender, who may call everything `application/octet-stream`."""
    async with serve_answers(answer_with(data, content_type="application/octet-stream")) as served:
        assert await fetch_image(f"{served.url}/x", allowed=HERE) == Image(kind, data)
    ((_, headers, _),) = served.requests
    assert "authorization" not in headers
    assert "cookie" not in headers


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://127.1:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f000001:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://0.0.0.0:{port}/",
        "http://0:{port}/",
        "http://１２７.0.0.1:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://10.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1%25lo]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://[2002:7f00:1::]:{port}/",
    ],
)
async def test_no_spelling_of_a_local_address_is_reached(url: str) -> None:
    """Nothing reaches the server, whatever the name resolves to."""
    async with serve_answers(answer_with(PNG)) as served:
        await fetch_failure(url.format(port=served.url.rpartition(":")[2]), timeout_s=5)
    assert served.requests == []


async def test_a_name_that_resolves_to_this_machine_is_refused() -> None:
    """By what DNS answers, at the moment of connecting."""
    async with serve_answers(answer_with(PNG)) as served:
        failure = await fetch_failure(served.url.replace("127.0.0.1", "localhost"))
    assert failure.message == NOT_PUBLIC


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_address_of_a_redirect_is_checked_as_well(status: int) -> None:
    """The first server is allowed here; the second, on this machine as well, is not."""
    async with serve_answers(answer_with(PNG), "127.0.0.2") as inner, serve_answers(redirect_to(inner.url, status)) as outer:
        failure = await fetch_failure(outer.url, allowed=HERE)
    assert failure.message == NOT_PUBLIC
    assert (len(outer.requests), len(inner.requests)) == (1, 0)


@pytest.mark.parametrize(
    "to",
    ["file:///etc/passwd", "ftp://127.0.0.1/x.png", "gopher://127.0.0.1", "http://user:pw@127.0.0.1/", "data:,x"],
)
async def test_a_redirect_is_followed_to_http_only(to: str) -> None:
    async with serve_answers(redirect_to(to)) as served:
        failure = await fetch_failure(served.url, allowed=HERE)
    assert "pw" not in failure.message
    assert len(served.requests) == 1


async def test_three_redirects_are_followed_and_no_more() -> None:
    """Relative ones included."""

    async def answer(request: web.Request) -> web.StreamResponse:
        left = int(request.path[1:])
        return web.Response(body=PNG) if not left else web.Response(status=302, headers={"Location": f"/{left - 1}"})

    async with serve_answers(answer) as served:
        assert (await fetch_image(f"{served.url}/3", allowed=HERE)).kind == "png"
        assert "redirected more than 3 times" in (await fetch_failure(f"{served.url}/4", allowed=HERE)).message
    assert len(served.requests) == 8


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "//x/y", "/x.png", "", "http://", "http://[::1", "s3://b/k"]
)
async def test_an_address_that_is_not_http_is_refused(url: str) -> None:
    await fetch_failure(url)


async def test_an_address_with_a_user_is_refused() -> None:
    failure = await fetch_failure("http://me:secret@127.0.0.1/x.png")
    assert "secret" not in failure.message


@pytest.mark.parametrize("chunked", [True, False])
async def test_too_large_an_image_is_not_read_to_its_end(chunked: bool) -> None:
    """This holds with a stated length and without."""
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        if not chunked:
            response.content_length = 2**26
        await response.prepare(request)
        await response.write(PNG)
        while sent < 2**26:
            await response.write(bytes(2**16))
            sent += 2**16
        return response

    async with serve_answers(answer) as served:
        failure = await fetch_failure(served.url, allowed=HERE, max_bytes=2**18)
    assert failure.message == "an image of the request has over 262,144 bytes"
    assert sent < 2**25


async def test_a_slow_server_is_given_up() -> None:
    """The time is for all of it: a byte now and then buys none."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in PNG:
            await response.write(bytes([byte]))
            await asyncio.sleep(0.05)
        return response

    async with serve_answers(answer) as served:
        assert "within 0.3 s" in (await fetch_failure(served.url, allowed=HERE, timeout_s=0.3)).message


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500])
async def test_an_error_status_is_a_failure(status: int) -> None:
    async with serve_answers(answer_with(b"", status=status)) as served:
        assert f"HTTP {status}" in (await fetch_failure(served.url, allowed=HERE)).message


async def test_bytes_that_are_no_image_are_refused() -> None:
    """A secret that lies somewhere must not come back in a message either."""
    async with serve_answers(answer_with(b"root:x:0:0", content_type="image/png")) as served:
        failure = await fetch_failure(served.url, allowed=HERE)
    assert failure.message == "an image of the request is not a PNG, JPEG, GIF or WebP image"


async def test_a_server_that_is_not_there_is_not_named() -> None:
    async with serve_answers(answer_with(PNG)) as served:
        pass
    failure = await fetch_failure(served.url, allowed=HERE)
    assert "127" not in failure.message


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_not_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind it the address could not be looked at."""
    async with serve_answers(answer_with(PNG)) as served, serve_answers(answer_with(b"by proxy")) as other:
        monkeypatch.setenv(proxy, other.url)
        assert (await fetch_image(served.url, allowed=HERE)).kind == "png"
    assert other.requests == []


NAT64 = ip_network("64:ff9b::/96")


def find_own_addresses() -> list[str]:
    """Return the addresses from which this machine would send to the internet."""
    found = []
    for family, far in ((socket.AF_INET, "1.1.1.1"), (socket.AF_INET6, "2606:4700::1111")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            found.append(probe.getsockname()[0])
    return found


OWN = find_own_addresses()
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1", "168.63.129.17"]
SPECIAL = """
    0.0.0.0 0.255.255.255 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 169.254.169.254 172.16.0.1 192.0.0.1 192.0.0.9
    192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.88.99.2 192.168.0.1 192.175.48.1 198.18.0.1 198.19.255.255
    198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::7f00:1 ::1.1.1.1 ::ffff:10.0.0.1 ::ffff:0:1.1.1.1 ::ffff:168.63.129.16 64:ff9b::a00:1 64:ff9b::a9fe:a9fe
    64:ff9b:1::1 64:ff9b:1::101:101 100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:1::1 2001:2::1
    2001:3::1 2001:4:112::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff::1 2001:db8::1 2002:a00:1:: 2002:101:101:: 2620:4f:8000::1
    3fff::1 3fff:fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1
    2606:4700::1111%eth0
"""
"""One of every row of IANA's registries of special-purpose addresses, the clouds' metadata services, and unallocated ones."""


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", SPECIAL.split())
def test_other_addresses_are_not_public(text: str) -> None:
    """Those that carry an IPv4 address inside are what that one is."""
    assert not is_public(ip_address(text))


@given(st.ip_addresses())
def test_no_address_is_public_that_python_knows_as_special(address: Any) -> None:
    """Our list holds at least what Python's does."""
    if is_public(address) and address not in NAT64:
        address = getattr(address, "ipv4_mapped", None) or address
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private, address.is_link_local))


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", *OWN])
def test_this_machines_addresses_are_its_own(text: str) -> None:
    assert is_own(ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "2606:4700::1111", "192.0.2.77"])
def test_others_addresses_are_not_this_machines(text: str) -> None:
    assert not is_own(ip_address(text))


async def test_this_machines_public_address_is_refused() -> None:
    """In a network of its own that has one, since few machines of a test do."""
    script = """
import asyncio, sys
from fanout.core.errors import ProviderError
from fanout.providers.transport.image_download import fetch_image
async def main():
    seen = []
    async def serve(reader, writer):
        seen.append(await reader.readline())
        writer.close()
    server = await asyncio.start_server(serve, "93.184.216.34", 8000)
    try:
        await fetch_image("http://93.184.216.34:8000/")
    except ProviderError as error:
        print(seen, error)
asyncio.run(main())
"""
    set_up = "ip link set lo up && ip addr add 93.184.216.34/32 dev lo && exec"
    command = ["unshare", "-rn", "sh", "-c", f'{set_up} "$0" -c "$1"', sys.executable, script]
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        pytest.skip("no `unshare`")
    out, err = await process.communicate()
    if b"unshare" in err or b"ip: not found" in err:
        pytest.skip("no network namespaces here")
    assert out.decode() == f"[] {NOT_PUBLIC}\n", err


@pytest.mark.parametrize("text", ["127.1", "localhost", "", "0x7f.1", "1.1.1.1.1"])
def test_a_name_opens_no_socket(text: str) -> None:
    gate = PublicSocketFactory(())
    with pytest.raises(PermissionError):
        gate((2, 1, 6, "", (text, 80)))
    assert gate.has_refused


def test_a_data_url_is_decoded() -> None:
    """With or without base64, percent signs, or white space."""
    text = base64.b64encode(PNG).decode()
    assert decode_data_url(f"data:image/png;base64,{text}") == Image("png", PNG)
    assert decode_data_url(f"DATA:;BASE64,{text[:40]}\n{text[40:]}").data == PNG
    assert decode_data_url("data:image/jpeg;charset=x;base64," + text.replace("+", "%2B")).kind == "png"
    assert decode_data_url("data:,GIF89a").kind == "gif"
    assert Image("png", PNG).url == f"data:image/png;base64,{text}"


@pytest.mark.parametrize(
    "url",
    ["data:", "data:image/png", "data:image/png;base64,", "data:image/png;base64,!!!", "data:image/png;base64,é", "data:,x"],
)
def test_a_broken_data_url_is_refused(url: str) -> None:
    with pytest.raises(ProviderError):
        decode_data_url(url)


@given(st.text().map("data:".__add__) | st.text().map("data:image/png;base64,".__add__) | st.text())
def test_any_text_is_an_image_or_a_failure(url: str) -> None:
    with suppress(ProviderError):
        assert decode_data_url(url).kind in ("png", "jpeg", "gif", "webp")


def test_a_huge_data_url_is_not_decoded() -> None:
    with pytest.raises(ProviderError, match="has over"):
        decode_data_url("data:image/png;base64," + "A" * (2 * MAX_IMAGE_BYTES + 1))


async def test_the_addresses_of_a_call_become_data_urls() -> None:
    """Each is fetched once; what is data already, and all else, stays as it was."""
    async with serve_answers(answer_with(PNG)) as served:
        data = ImagePart("data:,GIF89a")
        parts = (TextPart("What?"), ImagePart(f"{served.url}/a", "low"), ImagePart(f"{served.url}/a"), data)
        messages = (Message("system", "Be brief"), Message("user", parts), Message("assistant", None))
        query = replace(CALL.query, messages=messages)
        made = await inline_images(replace(CALL, query=query), allowed=HERE)
    assert len(served.requests) == 1
    assert made.query.messages
    assert made.query.messages[0] == messages[0]
    url = Image("png", PNG).url
    assert made.query.messages[1].content == (TextPart("What?"), ImagePart(url, "low"), ImagePart(url), data)


async def test_a_call_without_addresses_is_unchanged() -> None:
    assert await inline_images(CALL) is CALL


async def test_one_image_that_fails_cancels_the_others() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/slow":
            await asyncio.sleep(30)
        return web.Response(status=404)

    async with serve_answers(answer) as served:
        parts = tuple(ImagePart(f"{served.url}/{name}") for name in ("slow", "gone"))
        call = replace(CALL, query=replace(CALL.query, messages=(Message("user", parts),)))
        async with asyncio.timeout(5):
            with pytest.raises(ProviderError, match="HTTP 404"):
                await inline_images(call, allowed=HERE)


async def test_more_images_than_allowed_are_refused() -> None:
    parts = tuple(ImagePart(f"http://127.0.0.1/{number}") for number in range(MAX_IMAGES + 1))
    call = replace(CALL, query=replace(CALL.query, messages=(Message("user", parts),)))
    with pytest.raises(ProviderError, match="the request has 21 images; at most 20"):
        await inline_images(call)
