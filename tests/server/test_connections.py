"""Connections: how long each may keep us waiting, how many there are, and what is not HTTP. All on raw sockets."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import resource
import socket
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.server.connections import RESERVED_FILES, WaitLimits, count_connections
from fanout.server.endpoints import ENDPOINTS
from fanout.server.page.assets import load_assets
from fanout.server.request_body import MIN_BYTES_PER_S
from tests.support.builders.settings import write_providers_file
from tests.support.cli import start_server
from tests.support.client import EMBEDDED, Client, encode_request, parse_response
from tests.support.server import Server, serve, serve_with_limits
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

KEY = "key-one-abcdefghij"
GOOD = json.dumps({"prompt": "hi", "model": "local/ngram-2", "max_tokens": 1}).encode()
SHORT = WaitLimits(idle_s=0.6, head_s=0.3, body_s=0.3, reader_s=0.5, close_s=0.5)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "embedded.json"
    path.write_text(json.dumps(EMBEDDED))
    return path


@pytest.fixture
async def impatient(config: Path) -> AsyncIterator[Client]:
    """A server that waits for nobody."""
    async with serve_with_limits(SHORT, config, FANOUT_STORE=":memory:") as server:
        yield Client(server)


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def send_until_cut_off(writer: asyncio.StreamWriter, piece: bytes) -> None:
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
    writer.close()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431, "head_too_large"),
        (b"NONSENSE\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nx-api-key: \x01secret-secret\r\n\r\n", 400, "malformed_request"),
        (b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "http_version_not_supported"),
        (b"GET /livez\r\n\r\n", 505, "http_version_not_supported"),
        (b"GET /x HTTP/1.2\r\nHost: localhost\r\n\r\n", 505, "http_version_not_supported"),
        (b"GET /x HTTP/3.0\r\nHost: localhost\r\n\r\n", 505, "http_version_not_supported"),
        (b"GET /x HTTP/x\r\nHost: localhost\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
    ],
    ids=range(14),
)
async def test_what_is_not_http_is_answered_in_the_envelope_and_logged_once(
    data: bytes, status: int, code: str, impatient: Client, log_lines: list[str]
) -> None:
    answer = await impatient.send_raw(data)
    got, headers, body = parse_response(answer)

    assert (got, body["error"]["code"], body["error"]["type"]) == (status, code, "invalid_request_error")
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"]
    assert headers["server"] == "fanout"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["connection"] == "close"
    (line,) = [json.loads(line) for line in log_lines]
    assert (line["event"], line["level"], line["status"]) == ("request.malformed", "warning", status)
    assert line["request_id"] == headers["x-request-id"]
    assert not re.search(b"aiohttp|python|secret", answer + str(line).encode(), re.IGNORECASE)


@timed
@pytest.mark.parametrize(
    ("sent", "limit_s"),
    [
        (b"", SHORT.idle_s),
        (b"GET /livez HT", SHORT.head_s),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", SHORT.head_s),
    ],
)
async def test_a_silent_or_half_headed_connection_is_closed(sent: bytes, limit_s: float, impatient: Client) -> None:
    reader, writer = await connect(impatient.server)
    began = time.monotonic()
    writer.write(sent)
    try:
        async with asyncio.timeout(5):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()

    assert answer == b""
    assert limit_s * 0.9 < time.monotonic() - began < limit_s + 1


@timed
async def test_a_head_that_comes_byte_by_byte_does_not_extend_its_time(impatient: Client) -> None:
    _, writer = await connect(impatient.server)
    began = time.monotonic()

    async def drip() -> None:
        for byte in b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    with pytest.raises(ConnectionError):
        await drip()
    assert time.monotonic() - began < SHORT.head_s + 1


async def test_an_idle_connection_is_kept_for_the_next_request_and_then_closed(impatient: Client) -> None:
    reader, writer = await connect(impatient.server)
    async with asyncio.timeout(5):
        for _ in range(2):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in (await reader.readuntil(b'"ok"}'))
            await asyncio.sleep(SHORT.idle_s / 2)
        assert await reader.read() == b""
    writer.close()


@timed
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_half_a_body_is_408(framing: str, impatient: Client) -> None:
    head = f"POST /v1/completion HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    began = time.monotonic()
    piece = b'{"a' if "Length" in framing else b'3\r\n{"a\r\n'
    status, headers, body = parse_response(await impatient.send_raw(head.encode() + piece))

    assert (status, body["error"]["code"], headers["connection"]) == (408, "request_timeout", "close")
    assert time.monotonic() - began < SHORT.body_s + 1


async def test_half_an_upload_is_408_and_leaves_nothing(impatient: Client) -> None:
    head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"a'
    status, _, body = parse_response(await impatient.send_raw((head + part).encode()))

    assert (status, body["error"]["code"]) == (408, "request_timeout")
    assert (await impatient.send("GET", "/v1/files")).json["data"] == []


async def test_a_slow_but_steady_body_is_accepted(impatient: Client) -> None:
    body = json.dumps({**json.loads(GOOD), "prompt": "x " * MIN_BYTES_PER_S}).encode()
    reader, writer = await connect(impatient.server)
    writer.write(encode_request().replace(b"Content-Length: 0", b"Content-Length: %d" % len(body)))
    for start in range(0, len(body), 1024):
        writer.write(body[start : start + 1024])
        await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_client_that_stops_reading_is_cut_off(config: Path) -> None:
    async with serve_with_limits(SHORT, config, FANOUT_STORE=":memory:") as server:
        form = b"".join(
            [
                b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
                b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n',
                b"x" * 30_000_000,
                b"\r\n--b--\r\n",
            ]
        )
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        async with server.session.post("/v1/files", data=io.BytesIO(form), headers=headers) as response:
            file = (await response.json())["id"]
        reader, writer = await connect(server)
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # a client that does not read
        writer.write(f"GET /v1/files/{file}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(5):
            while not writer.transport.is_closing():
                await asyncio.sleep(0.05)
                writer.write(b" ")
        writer.close()


async def test_connections_beyond_the_bound_are_refused_and_later_ones_served(config: Path, log_lines: list[str]) -> None:
    async with serve(config, FANOUT_MAX_CONNECTIONS="3") as server:
        held = [await connect(server) for _ in range(3)]
        await asyncio.sleep(0.1)
        refused = [await Client(server).send_raw(b"") for _ in range(5)]
        held.pop()[1].close()
        await asyncio.sleep(0.1)
        status, _, _ = parse_response(await Client(server).send_raw(encode_request(GOOD)))
        for _, writer in held:
            writer.close()

    for answer in refused:
        got, headers, body = parse_response(answer)
        assert (got, body["error"]["code"], headers["retry-after"]) == (503, "too_many_connections", "1")
        assert headers["x-request-id"]
    assert status == 200
    assert len([line for line in log_lines if "server.connections_exhausted" in line]) == 1


async def test_of_connections_that_come_all_at_once_no_more_are_kept_than_may_be(config: Path) -> None:
    async with serve(config, FANOUT_MAX_CONNECTIONS="3") as server:
        # Without a pause: the server, which runs in this loop, finds all of them waiting.
        burst = [socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) for _ in range(20)]
        await asyncio.sleep(0.1)
        for one in burst:
            one.setblocking(False)
        refused = 0
        for one in burst:
            with suppress(BlockingIOError):
                refused += b"too_many_connections" in one.recv(4096)
            one.close()

    assert refused == 17


@pytest.mark.parametrize("limit", [40, 64, 128, 256, 1024])
def test_connections_calls_and_other_files_fit_within_the_limit_on_open_files(limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        connections = count_connections(None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < connections + limit // 2 <= limit - min(limit // 4, RESERVED_FILES)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
async def test_packed_bodies_are_unpacked(encoding: str, config: Path) -> None:
    raw = zlib.compressobj(wbits=-15)
    packed = {"gzip": gzip.compress(GOOD), "deflate": zlib.compress(GOOD), "raw deflate": raw.compress(GOOD) + raw.flush()}
    async with serve(config) as server:
        data = encode_request(packed[encoding], headers=f"Content-Encoding: {encoding.split()[-1]}\r\n")
        for head in (data, data.replace(b"Content-Encoding", b"content-encoding")):
            assert parse_response(await Client(server).send_raw(head))[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (gzip.compress(GOOD)[:-1], 400, "invalid_body"),
        (gzip.compress(GOOD) + gzip.compress(b"") * 1000, 400, "invalid_body"),
        (b"nonsense", 400, "invalid_body"),
        (gzip.compress(b" " * 40 * 2**20), 413, "body_too_large"),
        (gzip.compress(b"{" * 90_000), 400, "invalid_json"),
        (gzip.compress(b"{" * 30_000_000), 400, "too_many_values"),
    ],
    ids=range(6),
)
async def test_a_packed_body_is_bounded_by_what_it_unpacks_to(body: bytes, status: int, code: str, config: Path) -> None:
    async with serve(config) as server:
        data = encode_request(body, headers="Content-Encoding: gzip\r\n")
        got, _, answer = parse_response(await Client(server).send_raw(data))
    assert (got, answer["error"]["code"]) == (status, code)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "\xff", "nonsense" * 100])
@pytest.mark.parametrize("path", ["/v1/completion", "/v4/completions", "/v1/files", "idempotent"])
async def test_an_unknown_encoding_is_415_in_the_envelope(encoding: str, path: str, config: Path) -> None:
    kind = "multipart/form-data; boundary=b" if path == "/v1/files" else "application/json"
    more = "Idempotency-Key: k\r\n" if path == "idempotent" else ""
    async with serve(config, FANOUT_STORE=":memory:") as server:
        data = encode_request(
            GOOD,
            path="/v1/completion" if path == "idempotent" else path,
            headers=f"Content-Encoding: {encoding}\r\nContent-Type: {kind}\r\n{more}",
        )
        status, headers, body = parse_response(await Client(server).send_raw(data))
    assert status == 415
    assert headers["accept-encoding"] == ("identity" if path == "/v1/files" else "gzip, x-gzip, deflate")
    assert "Content-Encoding" in json.dumps(body)


@timed
async def test_a_body_without_a_key_is_neither_unpacked_nor_waited_for(config: Path) -> None:
    bomb = gzip.compress(b" " * 300_000_000)
    async with serve(config, FANOUT_API_KEYS=KEY) as server:
        began, cpu = time.monotonic(), time.process_time()
        for announced in (len(bomb), 10**9):
            head = encode_request(headers="Content-Encoding: gzip\r\n")
            data = head.replace(b"Content-Length: 0", b"Content-Length: %d" % announced).replace(b"Connection: close\r\n", b"")
            status, headers, _ = parse_response(await Client(server).send_raw(data + bomb[: len(bomb) // 2]))
            assert (status, headers["connection"]) == (401, "close")
        assert time.monotonic() - began < 1
        assert time.process_time() - cpu < 0.5


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/completion", "malformed"])
async def test_a_refusal_reaches_a_client_that_first_sends_all_of_its_body(path: str, config: Path) -> None:
    async with serve(config, FANOUT_API_KEYS=KEY) as server:
        reader, writer = await connect(server)
        lines = "no header\r\n" if path == "malformed" else "Host: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"POST {path} HTTP/1.1\r\n{lines}Content-Length: 8000000\r\n\r\n".encode())
        for _ in range(8):
            writer.write(b"w" * 10**6)
            await writer.drain()
        async with asyncio.timeout(5):
            status, headers, body = parse_response(await reader.read())
        writer.close()
    assert (status, headers["connection"]) == ({"malformed": 400}.get(path, 401), "close")
    assert body["error"]["type"]


async def test_a_refused_client_that_sends_on_is_cut_off(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.server.connections.MAX_DROPPED_BYTES", 2 * 10**6)
    async with serve(config, FANOUT_API_KEYS=KEY) as server:
        reader, writer = await connect(server)
        writer.write(b"POST /v1/completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401")
        await send_until_cut_off(writer, b"w" * 10**6)


async def test_a_refused_client_that_keeps_its_connection_is_cut_off(impatient: Client) -> None:
    reader, writer = await connect(impatient.server)
    writer.write(b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 404")
    await send_until_cut_off(writer, b"w")


async def test_a_large_body_is_accepted_up_to_its_bound(config: Path) -> None:
    async with serve(config) as server:
        client = Client(server)
        big = {"prompt": "x" * (31 * 2**20), "model": "local/ngram-2", "max_tokens": 0}
        assert (await client.send("POST", "/v1/completion", big)).status == 200
        reply = await client.send("POST", "/v1/completion", {**big, "prompt": "x" * (32 * 2**20)})
        assert (reply.status, reply.error["code"]) == (413, "body_too_large")


async def send_head_then_get(server: Server, path: str) -> tuple[bytes, bytes]:
    """Send HEAD and then `GET /livez` on one connection; return the head of the first answer and all that follows it."""
    reader, writer = await connect(server)
    key = f"x-api-key: {KEY}\r\n"
    writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n".encode())
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        rest = await reader.read()
    writer.close()
    return head, rest


async def test_no_head_has_a_body_and_its_length_is_that_of_get(config: Path) -> None:
    async with serve(config, FANOUT_API_KEYS=KEY, FANOUT_STORE=":memory:") as server:
        client, key = Client(server), {"x-api-key": KEY}
        digest = load_assets().base.rpartition("/")[2]
        ids: dict[str, Any] = {
            "model": "local/ngram-2",
            "format": "csv",
            "digest": digest,
            "name": "page.css",
            "key_id": "none",
        }
        line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": json.loads(GOOD)}
        form = (
            b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: form-data; '
            b'name="file"; filename="a.jsonl"\r\n\r\n' + json.dumps(line).encode() + b"\r\n--b--\r\n"
        )
        kind = {**key, "Content-Type": "multipart/form-data; boundary=b"}
        ids["file_id"] = (await client.send("POST", "/v1/files", form, kind)).json["id"]
        batch = {"input_file_id": ids["file_id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        ids["batch_id"] = (await client.send("POST", "/v1/batches", batch, key)).json["id"]
        job = {"items": [{"prompt": "a"}], "models": ["local/ngram-2"]}
        ids["job_id"] = (await client.send("POST", "/v1/jobs", job, key)).json["id"]
        ids["id"] = (await client.send("POST", "/v1/completion", GOOD, key)).headers["x-comparison-id"]
        async with asyncio.timeout(20):
            # The batch too, whose file of results stands in a list.
            for path, field, end in (
                ("jobs/" + ids["job_id"], "state", "done"),
                ("batches/" + ids["batch_id"], "status", "completed"),
            ):
                while (await client.send("GET", f"/v1/{path}", headers=key)).json[field] != end:
                    await asyncio.sleep(0.05)

        templates = [endpoint.template for endpoint in ENDPOINTS if endpoint.method == "GET"]
        for template in [*templates, "/nowhere", "/v1/files/none"]:
            path = re.sub(r"\{(\w+)\}", lambda match: str(ids[match[1]]), template)
            head, rest = await send_head_then_get(server, path)
            assert rest.startswith(b"HTTP/1.1 200 OK\r\n"), (path, rest[:200])
            host = {**key, "Host": "localhost"}
            got = await client.send("GET", path, headers=host)
            assert int(head.split()[1]) == got.status, path
            found = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
            if found and template not in ("/metrics", "/v1/providers"):  # whose figures move
                assert int(found[1]) == len(got.body), path
            assert b"transfer-encoding" not in head.lower()
            assert b"\r\nX-Content-Type-Options: nosniff" in head
            assert re.search(rb"\r\nContent-Type: " + re.escape(got.headers["Content-Type"].encode()), head), path


class TestHalfClosedConnections:
    """A client may send no more and still read: `nc -N`, and many scripts."""

    async def exchange(self, server: Server, sent: bytes) -> bytes:
        reader, writer = await connect(server)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    async def test_requests_are_answered_and_the_connection_is_closed(self, stream: bool, config: Path) -> None:
        body = json.dumps({**json.loads(GOOD), "stream": stream}).encode()
        async with serve(config) as server:
            answers = [
                await self.exchange(server, encode_request(method="GET", path="/livez")),
                await self.exchange(server, encode_request(body)),
                await self.exchange(server, encode_request(body).replace(b"Connection: close\r\n", b"") * 3),
            ]

        assert [answer.count(b"HTTP/1.1 200 OK") for answer in answers] == [1, 1, 3]
        assert answers[1].count(b"[DONE]") == stream

    async def test_a_slow_answer_is_sent_too(self, upstream: Upstream, tmp_path: Path) -> None:
        body = {"prompt": "hi", "model": "up/sleep-0.3"}
        async with serve(write_providers_file(upstream.url, tmp_path, api_key_env="UP_KEY"), UP_KEY="k") as server:
            answer = await self.exchange(server, encode_request(json.dumps(body).encode()))

        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert b"This is sleep-0.3." in answer

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    async def test_a_client_that_has_left_is_told_apart(self, version: bytes, upstream: Upstream, tmp_path: Path) -> None:
        sent = encode_request(json.dumps({"prompt": "hi", "model": "up/hang"}).encode())
        sent = sent.replace(b"HTTP/1.1", b"HTTP/" + version, 1)
        async with serve(write_providers_file(upstream.url, tmp_path, api_key_env="UP_KEY"), UP_KEY="k") as server:
            _, writer = await connect(server)
            writer.write(sent)
            await upstream.wait_for_requests(1)
            writer.close()
            await upstream.wait_until_idle()

        assert len(upstream.abandoned) == 1

    async def test_half_a_request_is_not_waited_for(self, config: Path) -> None:
        async with serve(config) as server:
            for sent in (b"", b"GET /livez HT", encode_request(GOOD)[:-5]):
                assert await self.exchange(server, sent) == b""


async def test_a_probe_without_a_host_is_answered(config: Path) -> None:
    async with serve(config) as server:
        for version in ("1.0", "1.1"):
            for path in ("/livez", "/readyz", "/health/", "/livez?verbose"):
                answer = await Client(server).send_raw(f"GET {path} HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
                assert parse_response(answer)[0] == 200
            answer = await Client(server).send_raw(f"GET /v1/models HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
            assert parse_response(answer)[0] == (403 if version == "1.0" else 400)


async def wait_until_idle(pid: int) -> None:
    """Wait until a process has computed nothing for a while: its start is over, and its files are those that stay open."""
    before = None
    while (now := Path(f"/proc/{pid}/stat").read_text().split()[13:15]) != before:
        before = now
        await asyncio.sleep(0.3)


def leave_files(pid: int, number: int) -> None:
    """Let a process open so many more files."""
    taken = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    soft = next(islice((at for at in count() if at not in taken), number, None))  # numbers between those in use count too
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


async def test_out_of_files_is_fanouts_own_failure_and_logged_once(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 1})
    body = {"model": ["up/sleep-0.5"] * 20, "prompt": "a"}
    async with start_server(config, FANOUT_STORE="off") as program, aiohttp.ClientSession(program.url) as session:
        async with session.get("/livez") as response:
            assert response.status == 200
        await wait_until_idle(program.process.pid)
        leave_files(program.process.pid, 0)
        async with session.post("/v1/completion", json={**body, "model": ["up/ok"] * 2}) as response:
            alone = response.status, response.headers.get("Retry-After"), await response.json()
        leave_files(program.process.pid, 8)
        async with session.post("/v1/completion", json=body) as response:
            failed = [choice["error"] for choice in (await response.json())["choices"] if choice["error"]]
            assert response.status == 200
        leave_files(program.process.pid, 2)
        held = [await asyncio.open_connection("127.0.0.1", program.port) for _ in range(12)]  # most in the kernel's queue
        await asyncio.sleep(2.5)  # asyncio tries to accept again every second
        for _, writer in held:
            writer.close()
        await asyncio.sleep(1.2)
        async with session.post("/v1/completion", json={**body, "model": "up/ok"}) as response:
            assert response.status == 200, "it recovers"
        assert await program.stop() == 0

    assert {error["code"] for error in failed} == {"too_many_open_files"}
    assert {error["kind"] for error in failed} == {"internal"}
    assert alone[:2] == (503, "1")
    assert alone[2]["error"]["code"] == "too_many_open_files"
    events = [line["event"] for line in program.log_lines()]
    assert events.count("server.out_of_files") == 1
    assert events.count("server.accept_failed") == 1
    assert len(events) < 20
