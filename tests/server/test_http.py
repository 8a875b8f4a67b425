"""Statuses, the error envelope, headers and request ids, also for requests that no well-behaved client sends."""

from __future__ import annotations

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.client import Client, encode_request, parse_response
from tests.support.server import serve
from tests.support.upstream.server import Upstream

SERVED = ("completion", "models", "jobs", "files", "usage")
GOOD = json.dumps({"prompt": "hi", "model": "local/ngram-2", "max_tokens": 1}).encode()


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "line 1 column 0"),
        (b"{", "line 1 column 1"),
        (b'{"prompt": "a",\n "model" "b"}', "line 2 column 10"),
        (b'{"prompt": "\xff", "model": "b"}', "line 1 column 13"),
        (b'{"prompt": "\\ud800", "model": "b"}', "line 1 column"),
        (b"[" * 50_000, "line 1 column"),
    ],
    ids=range(6),
)
async def test_invalid_json_is_400_with_the_position(embedded_client: Client, body: bytes, place: str) -> None:
    reply = await embedded_client.send("POST", "/v1/completion", body)

    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == ("invalid_json", None)
    assert place in reply.error["message"]


async def test_a_byte_order_mark_before_the_body_is_ignored(embedded_client: Client) -> None:
    body = {"model": "local/ngram-3", "prompt": "hi", "max_tokens": 1}
    for path in ("/v1/completion", "/v1/completions", "/openai/deployments/local/ngram-3/completions"):
        raw = encode_request(b"\xef\xbb\xbf" + json.dumps(body).encode(), path=path)
        assert parse_response(await embedded_client.send_raw(raw))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        b"\xef\xbb\xbf" + GOOD,
        b"{",
        GOOD[:-1] + b', "temperature": NaN}',
        GOOD[:-1] + b', "temperature": 1e999}',
        GOOD[:-1] + b', "temperature": "hot"}',
        GOOD[:-1] + b', "metadata": {"a": "' + b"x" * 20_000 + b'"}}',
    ],
    ids=range(7),
)
async def test_a_body_that_comes_with_its_head_is_read_like_one_that_comes_later(embedded_client: Client, body: bytes) -> None:
    with_head = parse_response(await embedded_client.send_raw(encode_request(body)))
    head = encode_request(body, headers="Expect: 100-continue\r\n").removesuffix(body)
    later = parse_response(await embedded_client.send_raw(head, then=body))

    assert with_head[0] == later[0]
    assert with_head[2].get("error") == later[2].get("error")
    assert len(with_head[2].get("choices", ())) == len(later[2].get("choices", ())) == (with_head[0] == 200)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("\xff/\xfe", 415),
    ],
)
async def test_only_a_body_declared_as_json_is_accepted(embedded_client: Client, kind: str, status: int) -> None:
    """A foreign web page can make a browser send a form or plain text without a preflight."""
    code, _, body = parse_response(await embedded_client.send_raw(encode_request(GOOD, headers=f"Content-Type: {kind}\r\n")))

    assert code == status
    if status == 415:
        assert body["error"]["code"] == "unsupported_media_type"
        assert "application/json" in body["error"]["message"]


async def test_a_body_without_a_type_is_415(embedded_client: Client) -> None:
    code, _, _ = parse_response(
        await embedded_client.send_raw(b"POST /v1/completion HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    )

    assert code == 415


async def test_a_body_over_the_limit_is_413(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_providers_file(upstream.url, tmp_path), FANOUT_MAX_BODY_BYTES="2000") as server:
        client = Client(server)
        fits = await client.complete(model="up/ok", prompt="a" * 1900)
        for size in (2001, 500_000):
            reply = await client.complete(model="up/ok", prompt="a" * size)
            assert reply.status == 413
            assert reply.error["code"] == "body_too_large"
            assert "2000" in reply.error["message"]
        packed = gzip.compress(json.dumps({"prompt": "a" * 5_000_000, "model": "up/ok"}).encode())
        bomb = await client.send("POST", "/v1/completion", packed[:], {"Content-Encoding": "gzip"})

    assert fits.status == 200
    assert bomb.status in (400, 413)
    assert len(upstream.requests) == 1


async def test_a_compressed_body_is_read(embedded_client: Client) -> None:
    reply = await embedded_client.send("POST", "/v1/completion", gzip.compress(GOOD), {"Content-Encoding": "gzip"})

    assert reply.status == 200


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"not gzip", "Content-Encoding: gzip\r\n"),
        (gzip.compress(GOOD)[:-30], "Content-Encoding: gzip\r\n"),
        (gzip.compress(GOOD), "Content-Encoding: deflate\r\n"),
    ],
    ids=["junk", "cut", "other"],
)
async def test_a_body_that_cannot_be_unpacked_is_the_callers_fault(
    embedded_client: Client, log_lines: list[str], data: bytes, headers: str
) -> None:
    code = int((await embedded_client.send_raw(encode_request(data, headers=headers))).split(b" ")[1])

    assert code == 400
    assert not any("crashed" in line for line in log_lines)


async def test_a_malformed_chunked_body_is_the_callers_fault(embedded_client: Client, log_lines: list[str]) -> None:
    head = encode_request(headers="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    answer = await embedded_client.send_raw(head + b'5\r\n{"pro\r\nzz\r\n')

    assert answer.split(b" ")[1] == b"400"
    assert not any("crashed" in line for line in log_lines)


@pytest.mark.parametrize("path", ["/v1", "/v1/completion/x", "/v1/compeltion", "/%ff", "/v1/completion%00"])
async def test_an_unknown_path_is_404_and_suggests_a_known_one(embedded_client: Client, path: str) -> None:
    code, headers, body = parse_response(await embedded_client.send_raw(encode_request(method="GET", path=path)))

    assert code == 404
    assert body["error"]["code"] == "unknown_path"
    assert any(f"`/v1/{name}" in body["error"]["message"] or f" /v1/{name}" in body["error"]["message"] for name in SERVED)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/completion", "POST"), ("DELETE", "/v1/models", "GET,HEAD"), ("PATCH", "/livez", "GET,HEAD")],
)
async def test_a_wrong_method_is_405_and_names_the_allowed_ones(
    embedded_client: Client, method: str, path: str, allowed: str
) -> None:
    reply = await embedded_client.send(method, path)

    assert reply.status == 405
    assert reply.headers["Allow"] == allowed
    assert reply.error["code"] == "method_not_allowed"


async def test_head_answers_like_get_without_the_body(embedded_client: Client) -> None:
    whole = {"Accept-Encoding": "identity"}
    get, head = [await embedded_client.send(method, "/v1/models", headers=whole) for method in ("GET", "HEAD")]

    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body))


@pytest.mark.parametrize("given", ["abc-123", "A" * 128, "req_1.2:3/4+5=6@7"])
async def test_a_request_id_is_accepted_and_returned(client: Client, log_lines: list[str], given: str) -> None:
    headers = {"X-Request-Id": given}
    answers: list[Any] = [
        await client.complete(headers, model="up/ok"),
        await client.stream(headers, model="up/ok"),
        await client.complete(headers, model="nobody"),
        await client.complete(headers, model="up/ok", temperature=9),
        await client.send("GET", "/nowhere", headers=headers),
        await client.send("GET", "/livez", headers=headers),
    ]

    assert [answer.headers["x-request-id"] for answer in answers] == [given] * 6
    assert all(json.loads(line)["request_id"] == given for line in log_lines)


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "a\tb", "é", "{}", '"'])
async def test_a_malformed_request_id_is_replaced(client: Client, given: str) -> None:
    _, headers, _ = parse_response(await client.send_raw(encode_request(GOOD, headers=f"X-Request-Id: {given}\r\n")))

    assert uuid.UUID(headers["x-request-id"]).version == 4


async def test_each_request_has_an_id_of_its_own(client: Client) -> None:
    one, other = await client.complete(model="up/ok"), await client.stream(model="up/ok")

    assert one.headers["x-request-id"] != other.headers["x-request-id"]


async def test_the_server_header_reveals_no_version(client: Client) -> None:
    answers: list[Any] = [
        await client.complete(model="up/ok"),
        await client.stream(model="up/ok"),
        await client.complete(model=""),
    ]
    answers += [await client.send("GET", path) for path in ("/nowhere", "/livez", "/metrics", "/v1/models")]

    assert {answer.headers["Server"] for answer in answers} == {"fanout"}


@pytest.mark.parametrize("name", ["Authorization: Bearer ", "x-api-key: ", "X-OpenAI-Api-Key: ", "X-Request-Id: ", "Origin: "])
async def test_headers_that_are_not_utf_8_do_not_crash_the_server(
    embedded_client: Client, log_lines: list[str], name: str
) -> None:
    code, _, _ = parse_response(await embedded_client.send_raw(encode_request(GOOD, headers=f"{name}\xff\xfe\r\n")))

    assert code == (403 if name == "Origin: " else 200), "no page of ours has such an origin"
    assert not any("crashed" in line for line in log_lines)


async def test_a_host_that_is_not_utf_8_is_refused_with_an_envelope(embedded_client: Client) -> None:
    code, _, body = parse_response(await embedded_client.send_raw(encode_request(GOOD, headers="Host: \xff\xfe\r\n")))

    assert (code, body["error"]["code"]) == (403, "forbidden")


async def test_100_continue_is_sent_and_other_expectations_are_ignored(embedded_client: Client) -> None:
    head = encode_request(b"", headers="Expect: 100-continue\r\n").replace(
        b"Content-Length: 0", b"Content-Length: %d" % len(GOOD)
    )
    continued = await embedded_client.send_raw(head + GOOD)
    odd = await embedded_client.send_raw(encode_request(GOOD, headers="Expect: \xff\r\n"))

    assert continued.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert odd.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer: sk-secret-1234\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nx-api-key: sk-secret-1234\x01\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
    ids=range(4),
)
async def test_bytes_that_are_not_http_harm_nobody(embedded_client: Client, data: bytes) -> None:
    answer = await embedded_client.send_raw(data)
    reply = await embedded_client.complete(model="local/ngram-2", max_tokens=1)

    assert answer.split(b" ")[1] == b"400"
    assert reply.status == 200


async def test_the_health_probes_answer(embedded_client: Client) -> None:
    live, ready = await embedded_client.send("GET", "/livez"), await embedded_client.send("GET", "/readyz")

    assert (live.status, live.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json) == (200, {"status": "ready"})
