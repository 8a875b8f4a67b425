"""`/v1/files`: uploads in parts, lists by pages, contents unchanged."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.store.files import PART_BYTES
from tests.support.batches import build_form, read_answer, upload_file, write_config
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

BOUNDARY = "frontier"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def make_multipart(*parts: tuple[str, bytes]) -> bytes:
    """Return a multipart body of these parts."""
    encoded = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts
    )
    return b"".join(encoded) + f"--{BOUNDARY}--\r\n".encode()


def count_parts(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "fanout.db")) as database:
        return int(database.execute("SELECT count(*) FROM file_parts").fetchone()[0])


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 17])
async def test_a_file_is_returned_unchanged(size: int, store_server: Server) -> None:
    sent = os.urandom(size)

    status, file = await read_answer(store_server.session.post("/v1/files", data=build_form(sent, "a «b».jsonl")))

    assert (status, file["bytes"], file["filename"]) == (200, size, "a «b».jsonl")
    assert (file["object"], file["purpose"], file["status"], file["expires_at"]) == ("file", "batch", "processed", None)
    assert await read_answer(store_server.session.get(f"/v1/files/{file['id']}")) == (200, file)
    async with store_server.session.get(f"/v1/files/{file['id']}/content") as response:
        assert (response.status, response.content_length) == (200, size)
        assert await response.read() == sent


async def test_the_order_of_the_fields_does_not_matter(store_server: Server) -> None:
    body = make_multipart(('name="file"; filename="x.jsonl"', b"{}"), ('name="purpose"', b"batch"))

    assert (await read_answer(store_server.session.post("/v1/files", data=body, headers=MULTIPART)))[0] == 200


async def test_files_are_listed_by_page_in_either_order(any_store_server: Server) -> None:
    ids = [await upload_file(any_store_server.session, b"{}") for _ in range(5)]

    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        found: list[str] = []
        while True:
            after = {"after": found[-1]} if found else {}
            status, page = await read_answer(
                any_store_server.session.get("/v1/files", params={"limit": 2, "order": order, **after})
            )
            assert (status, page["object"]) == (200, "list")
            found += [file["id"] for file in page["data"]]
            assert (page["first_id"], page["last_id"]) == (found[-len(page["data"])], found[-1])
            if not page["has_more"]:
                break
        assert found == expected
    _, made = await read_answer(any_store_server.session.get("/v1/files", params={"purpose": "batch_output"}))
    assert (made["data"], made["first_id"], made["has_more"]) == ([], None, False)


async def test_files_are_listed_by_account(store_server: Server) -> None:
    async with store_server.session.post(
        "/v1/files", data=build_form(b"{}"), headers={"x-selected-account-id": "team-a"}
    ) as response:
        mine = (await response.json())["id"]
    other = await upload_file(store_server.session, b"{}")

    async def list_ids(headers: dict[str, str] | None = None, **query: str) -> list[str]:
        _, page = await read_answer(store_server.session.get("/v1/files", params={"order": "asc", **query}, headers=headers))
        return [file["id"] for file in page["data"]]

    assert await list_ids() == [mine, other]
    assert await list_ids(account_id="team-a") == [mine]
    assert await list_ids({"x-selected-account-id": "team-a"}) == [mine]
    assert await list_ids({"x-selected-account-id": "team-a"}, account_id="") == [other]


async def test_a_deleted_file_is_gone_with_its_parts(store_server: Server, tmp_path: Path) -> None:
    file_id = await upload_file(store_server.session, b"x" * (PART_BYTES + 1))
    assert count_parts(tmp_path) == 2

    assert await read_answer(store_server.session.delete(f"/v1/files/{file_id}")) == (
        200,
        {"id": file_id, "object": "file", "deleted": True},
    )

    assert count_parts(tmp_path) == 0
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        status, answer = await read_answer(store_server.session.get(path))
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "file_not_found", "file_id")
    assert (await read_answer(store_server.session.delete(f"/v1/files/{file_id}")))[0] == 404


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "streamed"])
async def test_a_file_can_be_larger_than_other_bodies_but_not_than_its_own_limit(
    announced: bool, upstream: Upstream, tmp_path: Path
) -> None:
    store = str(tmp_path / "fanout.db")
    limits = {"FANOUT_MAX_BODY_BYTES": "2000", "FANOUT_MAX_FILE_BYTES": "600000"}
    async with serve(write_config(upstream, tmp_path), FANOUT_STORE=store, **limits) as server:
        await upload_file(server.session, b"x" * 600_000)
        before = count_parts(tmp_path)
        body: Any = make_multipart(('name="purpose"', b"batch"), ('name="file"; filename="x"', b"x" * 1_000_000))

        async def stream_parts() -> Any:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]

        sent = body if announced else stream_parts()
        status, answer = await read_answer(server.session.post("/v1/files", data=sent, headers=MULTIPART))

        assert (status, answer["error"]["code"]) == (413, "file_too_large")
        assert "FANOUT_MAX_FILE_BYTES" in answer["error"]["message"]
        assert len((await read_answer(server.session.get("/v1/files")))[1]["data"]) == 1
        assert count_parts(tmp_path) == before


async def test_a_large_file_is_never_held_in_memory_whole(store_server: Server) -> None:
    size, piece = 24 * 2**20, b"y" * 65_536
    head, tail = make_multipart(('name="purpose"', b"batch"), ('name="file"; filename="x"', b"|")).split(b"|")

    async def stream_body() -> Any:
        yield head
        for _ in range(size // len(piece)):
            yield piece
        yield tail

    tracemalloc.start()
    try:
        status, file = await read_answer(store_server.session.post("/v1/files", data=stream_body(), headers=MULTIPART))
        async with store_server.session.get(f"/v1/files/{file['id']}/content") as response:
            read = 0
            async for chunk in response.content.iter_chunked(65_536):
                read += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (status, file["bytes"], read) == (200, size, size)
    assert peak < size / 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (make_multipart(('name="purpose"', b"batch")), "file"),
        (make_multipart(('name="file"; filename="x"', b"x")), "purpose"),
        (make_multipart(('name="purpose"', b"fine-tune"), ('name="file"; filename="x"', b"x")), "purpose"),
        (make_multipart(('name="purpose"', b"batch"), ('name="file"', b"x")), "file"),
        (make_multipart(('name="purpose"', b"batch"), *[('name="file"; filename="x"', b"x")] * 2), "file"),
        (make_multipart(('name="purpose"', b"batch"), ('name="flie"; filename="x"', b"x")), "flie"),
        (
            make_multipart(
                ('name="purpose"', b"batch"),
                ('name="expires_after[anchor]"', b"created_at"),
                ('name="expires_after[seconds]"', b"10"),
                ('name="file"; filename="x"', b"x"),
            ),
            "expires_after[seconds]",
        ),
        (make_multipart(('name="purpose"', b"batch"), ('name="file"; filename="x"\r\nContent-Encoding: gzip', b"x")), "file"),
        (make_multipart(('name="file"; filename="x"', b"x" * 99))[:-40], None),
        (make_multipart(('name="\x7f"', b"")), None),
        (b"no frame", None),
        (b"", None),
    ],
)
async def test_an_invalid_upload_leaves_nothing_behind(
    body: bytes, param: str | None, store_server: Server, tmp_path: Path
) -> None:
    status, answer = await read_answer(store_server.session.post("/v1/files", data=body, headers=MULTIPART))

    assert (status, answer["error"]["param"]) == (400, param), answer
    assert (await read_answer(store_server.session.get("/v1/files")))[1]["data"] == []
    assert count_parts(tmp_path) == 0


async def test_empty_lines_without_end_before_a_form_are_refused(store_server: Server) -> None:
    form = make_multipart(('name="purpose"', b"batch"), ('name="file"; filename="x"', b"x"))
    for lines, wanted in ((50, 200), (65, 400)):
        status, answer = await read_answer(
            store_server.session.post("/v1/files", data=b"\r\n" * lines + form, headers=MULTIPART)
        )
        assert status == wanted, answer
    assert "over 64 lines stand outside of its parts" in answer["error"]["message"]


async def test_an_interrupted_upload_leaves_nothing_behind(store_server: Server, tmp_path: Path) -> None:
    head = make_multipart(('name="purpose"', b"batch"), ('name="file"; filename="x"', b"|")).split(b"|")[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(store_server.url.rsplit(":", 1)[1]))
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {MULTIPART['Content-Type']}\r\n".encode()
        + f"Content-Length: {10 * PART_BYTES}\r\n\r\n".encode()
        + head
        + b"x" * 3 * PART_BYTES
    )
    await writer.drain()
    while not count_parts(tmp_path):
        await asyncio.sleep(0.02)
    writer.close()

    async with asyncio.timeout(10):
        while count_parts(tmp_path):
            await asyncio.sleep(0.02)
    assert (await read_answer(store_server.session.get("/v1/files")))[1]["data"] == []
    del reader


async def test_a_file_expires_at_the_requested_time(store_server: Server, tmp_path: Path) -> None:
    life = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    _, file = await read_answer(store_server.session.post("/v1/files", data=build_form(b"{}", **life)))
    assert file["expires_at"] == file["created_at"] + 3600

    with closing(sqlite3.connect(tmp_path / "fanout.db")) as database, database:
        database.execute("UPDATE files SET expires = 1")

    assert (await read_answer(store_server.session.get(f"/v1/files/{file['id']}")))[0] == 404
    assert (await read_answer(store_server.session.get("/v1/files")))[1]["data"] == []


async def test_a_foreign_web_page_cannot_upload(store_server: Server) -> None:
    evil = {"Origin": "https://evil.example"}
    own = {"Origin": store_server.url}

    assert (await read_answer(store_server.session.post("/v1/files", data=build_form(b"{}"), headers=evil)))[0] == 403
    assert (await read_answer(store_server.session.post("/v1/files", data=build_form(b"{}"), headers=own)))[0] == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1&limit=2", "order=up", "purpose=all", "befor=x", "limit=1e2"])
async def test_wrong_parameters_are_named(query: str, store_server: Server) -> None:
    status, answer = await read_answer(store_server.session.get(f"/v1/files?{query}"))

    assert (status, answer["error"]["param"]) == (400, query.partition("=")[0])


async def test_without_a_store_files_batches_and_jobs_answer_503_store_off(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path), FANOUT_STORE="off") as server:
        session: aiohttp.ClientSession = server.session
        requests = [session.get(path) for path in ("/v1/files", "/v1/batches", "/v1/jobs", "/v1/jobs/job_1/events")]
        requests += [session.post(path, json={}) for path in ("/v1/jobs", "/v1/batches")]
        requests += [session.post("/v1/files", data=build_form(b"{}"))]
        for request in requests:
            status, answer = await read_answer(request)
            assert (status, answer["error"]["code"]) == (503, "store_off")
            assert "FANOUT_STORE" in answer["error"]["message"]
