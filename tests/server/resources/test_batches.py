"""`/v1/batches`: from the input file to the result files, as OpenAI's clients expect it."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.rendering.batch import BatchJson
from tests.support.batches import (
    CHAT,
    TEXT,
    build_line,
    create_batch,
    encode_lines,
    read_answer,
    read_lines,
    upload_file,
    wait_for_state,
    write_config,
)
from tests.support.cli import start_server
from tests.support.server import Server, serve
from tests.support.shapes import check_shape
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


async def wait_for_end(session: aiohttp.ClientSession, made: dict[str, Any]) -> dict[str, Any]:
    """Wait for a batch to end, and check its fields against the document."""
    found = await wait_for_state(session, f"/v1/batches/{made['id']}")
    check_shape(found, BatchJson)
    return found


async def test_a_batch_is_answered_line_by_line(store_server: Server, upstream: Upstream) -> None:
    made = await create_batch(
        store_server.session, *(build_line(f"r{n}", "up/ok") for n in range(3)), metadata={"for": "a test"}
    )
    done = await wait_for_end(store_server.session, made)
    answers = await read_lines(store_server.session, done["output_file_id"])
    alone = await read_answer(store_server.session.post(CHAT, json=build_line("r0", "up/ok")["body"]))

    check_shape(made, BatchJson)
    assert (made["object"], made["status"], made["errors"], made["output_file_id"]) == ("batch", "validating", None, None)
    assert made["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert made["expires_at"] == made["created_at"] + 86_400
    assert (done["status"], done["metadata"], done["error_file_id"]) == ("completed", {"for": "a test"}, None)
    assert done["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert made["created_at"] <= done["in_progress_at"] <= done["finalizing_at"] <= done["completed_at"]
    assert [line["custom_id"] for line in answers] == ["r0", "r1", "r2"]
    assert len({line["id"] for line in answers}) == 3
    for line in answers:
        assert line["id"].startswith("batch_req_")
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        body = line["response"]["body"]
        assert body.keys() == alone[1].keys()
        assert body["choices"][0].keys() == alone[1]["choices"][0].keys()
        assert body["choices"][0]["message"]["content"] == "This is ok."
        assert (body["object"], body["model"]) == ("chat.completion", "up/ok")
    body = sorted(seen.body["messages"][0]["content"] for seen in upstream.requests_for("ok"))
    assert body == ["r0", "r0", "r1", "r2"]


async def test_result_files_are_listed_and_deleted_like_others(store_server: Server) -> None:
    made = await create_batch(store_server.session, build_line("good", "up/ok"), build_line("bad", "up/400"))
    done = await wait_for_end(store_server.session, made)

    for name in ("output_file_id", "error_file_id"):
        status, file = await read_answer(store_server.session.get(f"/v1/files/{done[name]}"))
        async with store_server.session.get(f"/v1/files/{done[name]}/content") as response:
            read = await response.read()
        async with store_server.session.get(f"/v1/files/{done[name]}/content") as response:
            assert await response.read() == read, "it is the same however often it is read"
        assert (status, file["purpose"], file["bytes"]) == (200, "batch_output", len(read))
        assert file["filename"].startswith(made["id"])
    _, page = await read_answer(store_server.session.get("/v1/files?purpose=batch_output"))
    assert {file["id"] for file in page["data"]} == {done["output_file_id"], done["error_file_id"]}


async def test_a_list_of_models_gives_a_line_for_each(any_store_server: Server) -> None:
    models = ["up/say-one", {"model": "up/say-two", "label": "second"}, "up/say-one", "up/500"]
    made = await create_batch(any_store_server.session, build_line("r", models), build_line("s", "up/ok"))
    done = await wait_for_end(any_store_server.session, made)
    good, bad = (
        await read_lines(any_store_server.session, done["output_file_id"]),
        await read_lines(any_store_server.session, done["error_file_id"]),
    )

    assert done["request_counts"] == {"total": 5, "completed": 4, "failed": 1}
    answered = [(line["custom_id"], line["entry"], line["response"]["body"]["model"]) for line in good]
    assert answered == [("r", 0, "up/say-one"), ("r", 1, "second"), ("r", 2, "up/say-one"), ("s", 0, "up/ok")]
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in good[:3]] == ["one", "two", "one"]
    assert all(line["response"]["body"]["choices"][0]["index"] == 0 for line in good), "each line is an answer of its own"
    assert [(line["custom_id"], line["entry"], line["model"]) for line in bad] == [("r", 3, "up/500")]


async def test_a_fusion_in_a_line_is_made_of_its_members_each_with_a_line_of_its_own(store_server: Server) -> None:
    fusion = {"fusion": {"of": ["up/say-one", {"model": "up/say-two", "temperature": 1}], "by": "up/echo"}, "label": "mix"}
    made = await create_batch(store_server.session, build_line("r", [fusion]), build_line("s", "fusion(up/ok*2 by up/echo)"))
    done = await wait_for_end(store_server.session, made)
    answers = await read_lines(store_server.session, done["output_file_id"])

    assert done["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    choices = [choice for line in answers for choice in line["response"]["body"]["choices"]]
    fused = [choice for choice in choices if choice.get("fusion")]
    assert [choice["label"] for choice in fused] == ["mix", "fusion(up/ok*2 by up/echo)"]
    texts = [choice["message"]["content"] for choice in fused]
    assert "one" in texts[0]
    assert "two" in texts[0]
    assert texts[1].count("This is ok.") == 2
    assert [(line["custom_id"], line["entry"]) for line in answers] == [(row, entry) for row in "rs" for entry in range(3)]


async def test_the_error_file_holds_failures_with_their_status(store_server: Server) -> None:
    models = {"up/400": 400, "up/402": 402, "up/500": 502, "up/401": 502}
    made = await create_batch(store_server.session, *(build_line(model, model) for model in models))
    done = await wait_for_end(store_server.session, made)

    assert done["output_file_id"] is None
    for line in await read_lines(store_server.session, done["error_file_id"]):
        if line["response"] is None:
            continue
        assert line["response"]["status_code"] == models[line["custom_id"]]
        assert line["response"]["body"]["error"]["message"]


async def test_a_text_completion_with_many_prompts_and_samples_is_one_line(store_server: Server) -> None:
    requests = [
        build_line("prompts", "local/ngram-5", TEXT, prompt=["The return", "A class"], max_tokens=3),
        build_line("samples", ["local/ngram-5", "local/ngram-2"], TEXT, n=3, max_tokens=3, seed=1),
    ]
    done = await wait_for_end(store_server.session, await create_batch(store_server.session, *requests, endpoint=TEXT))
    found = await read_lines(store_server.session, done["output_file_id"])

    assert done["status"] == "completed"
    assert [(line["custom_id"], line["entry"], len(line["response"]["body"]["choices"])) for line in found] == [
        ("prompts", 0, 2),
        ("samples", 0, 3),
        ("samples", 1, 3),
    ]
    for line in found:
        body = line["response"]["body"]
        assert (body["object"], [choice["index"] for choice in body["choices"]]) == (
            "text_completion",
            list(range(len(body["choices"]))),
        )
    _, alone = await read_answer(store_server.session.post(TEXT, json={**requests[1]["body"], "model": "local/ngram-5"}))
    assert [choice["text"] for choice in found[1]["response"]["body"]["choices"]] == [
        choice["text"] for choice in alone["choices"]
    ]


BAD = [
    (b'{"custom_id": "a"', 2, None),
    (b"[]", 2, None),
    (encode_lines({**build_line("a", "up/ok"), "method": "GET"}), 2, "method"),
    (encode_lines({**build_line("a", "up/ok"), "url": "/v1/embeddings"}), 2, "url"),
    (encode_lines({**build_line("a", "up/ok"), "extra": 1}), 2, "extra"),
    (encode_lines({key: value for key, value in build_line("a", "up/ok").items() if key != "custom_id"}), 2, "custom_id"),
    (encode_lines({**build_line("a", "up/ok"), "body": {"model": "up/ok"}}), 2, "body.messages"),
    (encode_lines(build_line("a", "up/ok", temperature=9)), 2, "body.temperature"),
    (encode_lines(build_line("a", ["up/ok", 3])), 2, "body.model[1]"),
    (encode_lines(build_line("a", "up/ok", stream=True)), 2, "body.stream"),
    (encode_lines(build_line("a", "up/ok", timeout_s=3)), 2, "body.timeout_s"),
    (encode_lines(build_line("a", "nobody/knows")), 2, "model"),
    (encode_lines(build_line("first", "up/ok")), 2, "custom_id"),
]


@pytest.mark.parametrize(("bad", "line", "param"), BAD)
async def test_a_bad_line_fails_the_batch_before_anything_is_sent(
    bad: bytes, line: int, param: str | None, store_server: Server, upstream: Upstream
) -> None:
    file = await upload_file(store_server.session, encode_lines(build_line("first", "up/ok")) + bad)
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    _, made = await read_answer(store_server.session.post("/v1/batches", json=body))
    failed = await wait_for_end(store_server.session, made)

    assert (failed["status"], failed["output_file_id"], failed["error_file_id"]) == ("failed", None, None)
    assert failed["failed_at"] >= failed["created_at"]
    found = [(error["line"], error["param"]) for error in failed["errors"]["data"]]
    assert found == [(line, param)], failed["errors"]
    assert all(error["code"] and error["message"] for error in failed["errors"]["data"])
    assert upstream.requests == []


async def test_every_bad_line_is_named(any_store_server: Server) -> None:
    bad = [build_line(f"r{n}", "up/ok", n=0 if n % 3 == 0 else 1) for n in range(10)]
    failed = await wait_for_end(any_store_server.session, await create_batch(any_store_server.session, *bad))

    assert [(error["line"], error["param"]) for error in failed["errors"]["data"]] == [
        (line, "body.n") for line in (1, 4, 7, 10)
    ]


@pytest.mark.parametrize("file", [b"", b"\n\n"])
async def test_an_empty_file_fails_the_batch(file: bytes, store_server: Server) -> None:
    body = {"input_file_id": await upload_file(store_server.session, file), "endpoint": CHAT, "completion_window": "24h"}
    failed = await wait_for_end(
        store_server.session, (await read_answer(store_server.session.post("/v1/batches", json=body)))[1]
    )

    assert (failed["status"], len(failed["errors"]["data"])) == ("failed", 1)


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"input_file_id": "file-nobody"}, 404, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "0h"}, 400, "completion_window"),
        ({"completion_window": None}, 400, "completion_window"),
        ({"metadata": {"a": 1}}, 400, "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after.seconds"),
        ({"windows": "24h"}, 400, "windows"),
    ],
)
async def test_an_invalid_request_creates_no_batch(
    change: dict[str, Any], status: int, param: str, store_server: Server
) -> None:
    body = {
        "input_file_id": await upload_file(store_server.session, b""),
        "endpoint": CHAT,
        "completion_window": "24h",
        **change,
    }

    found, answer = await read_answer(store_server.session.post("/v1/batches", json=body))

    assert (found, answer["error"]["param"]) == (status, param)
    assert (await read_answer(store_server.session.get("/v1/batches")))[1]["data"] == []


async def test_callers_own_keys_are_refused(upstream: Upstream, tmp_path: Path) -> None:
    config = write_config(upstream, tmp_path)
    given = json.loads(config.read_text())
    given["providers"]["up"]["key_header"] = "X-Up-Key"
    config.write_text(json.dumps(given))
    async with serve(config, FANOUT_STORE=":memory:") as server:
        batch_body = {"input_file_id": await upload_file(server.session, b""), "endpoint": CHAT, "completion_window": "24h"}
        for path, body in (("/v1/batches", batch_body), ("/v1/jobs", {"items": [{"prompt": "x"}], "models": "up/ok"})):
            status, answer = await read_answer(server.session.post(path, json=body, headers={"X-Up-Key": "sk-mine"}))
            assert (status, answer["error"]["param"]) == (400, "X-Up-Key")
            assert "sk-mine" not in json.dumps(answer)


async def test_a_cancelled_batch_keeps_its_answers(any_store_server: Server, upstream: Upstream) -> None:
    requests = [
        *(build_line(f"fast{n}", "up/ok") for n in range(2)),
        *(build_line(f"slow{n}", "up/sleep-1") for n in range(20)),
    ]
    made = await create_batch(any_store_server.session, *requests)
    await upstream.wait_for_requests(4)
    status, cancelling = await read_answer(any_store_server.session.post(f"/v1/batches/{made['id']}/cancel"))
    cancelled = await wait_for_end(any_store_server.session, made)
    good = await read_lines(any_store_server.session, cancelled["output_file_id"])
    bad = await read_lines(any_store_server.session, cancelled["error_file_id"])

    assert (status, cancelling["status"]) == (200, "cancelling")
    assert (cancelled["status"], cancelled["completed_at"]) == ("cancelled", None)
    assert cancelled["cancelling_at"] <= cancelled["cancelled_at"]
    assert {"fast0", "fast1"} <= {line["custom_id"] for line in good}
    assert {line["error"]["code"] for line in bad} == {"batch_cancelled"}
    assert len(good) + len(bad) == 22
    again, answer = await read_answer(any_store_server.session.post(f"/v1/batches/{made['id']}/cancel"))
    assert (again, answer["error"]["code"]) == (409, "wrong_state")


async def test_a_batch_can_be_cancelled_before_it_starts(store_server: Server, upstream: Upstream) -> None:
    made = await create_batch(store_server.session, *(build_line(f"r{n}", "up/sleep-0.5") for n in range(2_000)))
    status, cancelling = await read_answer(store_server.session.post(f"/v1/batches/{made['id']}/cancel"))
    cancelled = await wait_for_end(store_server.session, made)

    assert (status, cancelling["status"], cancelled["status"]) == (200, "cancelling", "cancelled")
    assert cancelled["cancelled_at"] >= cancelled["cancelling_at"]
    assert len(upstream.requests) < 100


@timed
async def test_a_batch_is_cancelled_while_its_file_is_read(store_server: Server, upstream: Upstream) -> None:
    """Its file is small, and unpacks to what takes a while to read."""
    session = store_server.session
    line = encode_lines(build_line("x", "up/ok"))
    content = gzip.compress(b"".join(line.replace(b'"x"', b'"%d"' % number, 1) for number in range(300_000)), 1)
    file = await upload_file(session, content, "in.jsonl.gz")
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    _, batch = await read_answer(session.post("/v1/batches", json=body))
    while (await read_answer(session.get(f"/v1/jobs/{batch['id']}")))[1].get("state") != "loading":
        await asyncio.sleep(0.01)
    await read_answer(session.post(f"/v1/batches/{batch['id']}/cancel"))
    began = time.monotonic()
    assert (await wait_for_state(session, f"/v1/batches/{batch['id']}"))["status"] == "cancelled"
    assert time.monotonic() - began < 5
    assert (await read_answer(session.get(f"/v1/jobs/{batch['id']}")))[0] == 404
    assert upstream.requests == []


async def test_an_interrupted_validation_is_repeated(upstream: Upstream, tmp_path: Path) -> None:
    config, store = write_config(upstream, tmp_path), str(tmp_path / "fanout.db")
    requests = [build_line(f"r{n}", "local/ngram-2", max_tokens=0) for n in range(3_000)]
    async with start_server(config, FANOUT_STORE=store) as first, aiohttp.ClientSession(first.url) as session:
        made = await create_batch(session, *requests)
        await wait_for_state(session, f"/v1/batches/{made['id']}", "validating")
        first.process.kill()
        await first.wait()
    async with start_server(config, FANOUT_STORE=store) as second, aiohttp.ClientSession(second.url) as session:
        done = await wait_for_end(session, made)

    assert (done["status"], done["request_counts"]["completed"]) == ("completed", 3_000)


async def test_unfinished_requests_expire_at_the_end_of_the_window(store_server: Server) -> None:
    requests = [build_line("fast", "up/ok"), *(build_line(f"slow{n}", "up/sleep-1.5") for n in range(60))]
    made = await create_batch(store_server.session, *requests, completion_window="2s")
    expired = await wait_for_end(store_server.session, made)
    bad = await read_lines(store_server.session, expired["error_file_id"])

    assert (expired["status"], expired["expires_at"]) == ("expired", made["created_at"] + 2)
    assert expired["expired_at"] >= expired["expires_at"]
    assert "fast" in [line["custom_id"] for line in await read_lines(store_server.session, expired["output_file_id"])]
    assert {(line["response"], line["error"]["code"]) for line in bad} == {(None, "batch_expired")}
    assert all(line["error"]["message"] and line["custom_id"].startswith("slow") for line in bad)


async def test_batches_are_listed_by_page_and_account(any_store_server: Server) -> None:
    ids = [(await create_batch(any_store_server.session, build_line("r", "up/ok")))["id"] for _ in range(3)]
    body = {"input_file_id": await upload_file(any_store_server.session, b""), "endpoint": CHAT, "completion_window": "24h"}
    headers = {"x-selected-account-id": "team-a"}
    _, mine = await read_answer(any_store_server.session.post("/v1/batches", json=body, headers=headers))

    _, first = await read_answer(any_store_server.session.get("/v1/batches?limit=2"))
    _, second = await read_answer(any_store_server.session.get(f"/v1/batches?limit=2&after={first['last_id']}"))
    _, own = await read_answer(any_store_server.session.get("/v1/batches?account_id=team-a"))

    assert [found["id"] for found in first["data"] + second["data"]] == [mine["id"], *ids[::-1]]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [found["id"] for found in own["data"]] == [mine["id"]]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/batches/b"), ("POST", "/v1/batches/b/cancel"), ("GET", "/v1/batches?after=b")]
)
async def test_an_unknown_batch_is_not_found(method: str, path: str, store_server: Server) -> None:
    status, answer = await read_answer(store_server.session.request(method, path))

    assert (status, answer["error"]["code"]) == (404, "batch_not_found")


async def test_result_files_expire_at_the_requested_time(store_server: Server) -> None:
    life = {"anchor": "created_at", "seconds": 7200}
    done = await wait_for_end(
        store_server.session, await create_batch(store_server.session, build_line("r", "up/ok"), output_expires_after=life)
    )

    _, file = await read_answer(store_server.session.get(f"/v1/files/{done['output_file_id']}"))

    assert file["expires_at"] - file["created_at"] in (7199, 7200, 7201)


async def test_a_store_in_memory_is_enough(upstream: Upstream, tmp_path: Path) -> None:
    async with serve(write_config(upstream, tmp_path), FANOUT_STORE=":memory:") as server:
        done = await wait_for_end(
            server.session, await create_batch(server.session, *(build_line(f"r{n}", "up/ok") for n in range(20)))
        )

        assert len(await read_lines(server.session, done["output_file_id"])) == 20


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_a_batch_continues_after_a_restart_and_repeats_no_call(
    end: signal.Signals, upstream: Upstream, tmp_path: Path
) -> None:
    config, store = write_config(upstream, tmp_path), str(tmp_path / "fanout.db")
    requests = [build_line(f"r{n}", "up/sleep-0.1") for n in range(60)]
    async with (
        start_server(config, FANOUT_STORE=store, FANOUT_GRACE_S="20") as first,
        aiohttp.ClientSession(first.url) as session,
    ):
        made = await create_batch(session, *requests)
        await upstream.wait_for_requests(12, 30)
        first.process.send_signal(end)
        assert await first.wait() == (0 if end == signal.SIGTERM else -9)
    before = len(upstream.requests)
    async with start_server(config, FANOUT_STORE=store) as second, aiohttp.ClientSession(second.url) as session:
        done = await wait_for_end(session, made)
        answers = await read_lines(session, done["output_file_id"])

    assert 12 <= before < 60
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 60, "completed": 60, "failed": 0})
    assert [line["custom_id"] for line in answers] == [f"r{n}" for n in range(60)]
    body = [seen.body["messages"][0]["content"] for seen in upstream.requests]
    assert set(body) == {f"r{n}" for n in range(60)}
    if end == signal.SIGTERM:
        assert len(body) == 60, "calls in flight were waited for"
