"""Content beside the text: carried where the format has a place for it, else named, in whole answers and streams."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fanout.jobs.result_records import JobResultJson
from fanout.rendering.comparison import ComparisonJson
from fanout.rendering.history import PastComparisonWholeJson
from fanout.rendering.openai.text import TextCompletionJson
from fanout.rendering.scale import ScaleCompletionJson
from tests.support.batches import build_line, create_batch, create_job, read_answer, read_lines, wait_for_state
from tests.support.dialects import (
    CannedUpstream,
    build_delta,
    chat,
    complete,
    complete_scale,
    get_text,
    post,
    serve_hosts,
)
from tests.support.server import Server
from tests.support.shapes import check_shape
from tests.support.upstream.canned import serve_answers

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
DETAILS = [{"type": "reasoning.encrypted", "data": "x"}]
CONTENT: dict[str, Any] = {"images": [IMAGE], "reasoning_details": DETAILS, "citations": ["https://e.org"]}
NAMES = ["reasoning", "image", "reasoning_details", "citations"]
MESSAGE: dict[str, Any] = {"content": "It", "refusal": "I must not.", "reasoning": "hm", **CONTENT}
UPSTREAM = CannedUpstream(
    whole={"choices": [{"message": {"role": "assistant", **MESSAGE}, "finish_reason": "stop"}]},
    chunks=[
        build_delta(role="assistant", content="It"),
        build_delta(reasoning="hm", **CONTENT),
        build_delta(refusal="I must "),
        build_delta(refusal="not."),
        build_delta("stop"),
    ],
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with (
        serve_answers(UPSTREAM.answer) as canned,
        serve_hosts(f"{canned.url}/v1", tmp_path, FANOUT_STORE=str(tmp_path / "fanout.db"), FANOUT_HISTORY="full") as running,
    ):
        yield running


async def test_chat_completions_carry_it(server: Server) -> None:
    message = (await chat(server, "up/m")).choice["message"]
    assert message == {
        "role": "assistant",
        "content": "It",
        "refusal": "I must not.",
        "reasoning_content": "hm",
        **CONTENT,
    }


async def test_chat_streams_carry_it(server: Server) -> None:
    deltas = [piece["delta"] for piece in (await chat(server, "up/m", stream=True)).choice_pieces(0)]
    assert {name: value for delta in deltas for name, value in delta.items() if name in CONTENT} == CONTENT
    assert "".join(delta.get("refusal") or "" for delta in deltas) == "I must not."
    assert "".join(delta.get("content") or "" for delta in deltas) == "It"


@pytest.mark.parametrize("path", ["/v1/completion", "/v1/completions"])
async def test_formats_of_text_name_it(path: str, server: Server) -> None:
    """A refusal stands beside the text, never in it where there is any."""
    whole = await post(server, path, model="up/m", prompt="hi")
    check_shape(whole.json, ComparisonJson if path == "/v1/completion" else TextCompletionJson)
    pieces = (await post(server, path, model="up/m", prompt="hi", stream=True)).choice_pieces(0)
    for choice in (whole.choice, pieces[-1]):
        assert (choice["refusal"], choice["other_content"], choice["finish_reason"]) == ("I must not.", NAMES, "stop")
        assert choice["error"] is None
    assert whole.choice["text"] == get_text(pieces) == "It"


async def test_responses_carry_it(server: Server) -> None:
    """In the item of the message; the parts of one field that come in several pieces are put together."""
    whole = (await post(server, "/v1/responses", model="up/m", input="hi")).json["output"]
    events = (await post(server, "/v1/responses", model="up/m", input="hi", stream=True)).events
    streamed = next(
        event["response"]["output"] for event in events if "output" in event.get("response", {}) and event["response"]["output"]
    )
    for output in (whole, streamed):
        message = next(item for item in output if item["type"] == "message" and "images" in item)
        assert {name: message[name] for name in CONTENT} == CONTENT
    assert [part["type"] for part in whole[-1]["content"]] == ["output_text", "refusal"]


async def test_scale_names_it(server: Server) -> None:
    whole = (await complete_scale(server, "up/m")).json
    check_shape(whole, ScaleCompletionJson)
    last = (await complete_scale(server, "up/m", stream=True)).events[-1]
    for answer in (whole, last):
        metadata = answer["completion"]["response_metadata"]
        assert (metadata["refusal"], metadata["other_content"]) == ("I must not.", NAMES)


async def test_nothing_is_named_where_there_is_nothing(dialect_server: Server) -> None:
    for path in ("/v1/completion", "/v1/completions"):
        assert not {"refusal", "other_content"} & (await post(dialect_server, path, model="up/ok", prompt="hi")).choice.keys()


async def test_images_beside_calls_are_carried(tmp_path: Path) -> None:
    """An item of their own where there is no text, and all of them where they come in several pieces."""
    calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls, "images": [IMAGE, IMAGE]}
    upstream = CannedUpstream(
        whole={"choices": [{"message": message, "finish_reason": "tool_calls"}]},
        chunks=[
            build_delta(images=[IMAGE]),
            build_delta(images=[IMAGE]),
            build_delta(tool_calls=calls),
            build_delta("tool_calls"),
        ],
    )
    async with serve_answers(upstream.answer) as canned, serve_hosts(f"{canned.url}/v1", tmp_path) as running:
        whole = (await post(running, "/v1/responses", model="up/m", input="hi")).json["output"]
        streamed = (await post(running, "/v1/responses", model="up/m", input="hi", stream=True)).events[-1]["response"][
            "output"
        ]
    for output in (whole, streamed):
        assert [item["type"] for item in output] == ["message", "function_call"]
        assert output[0]["images"] == [IMAGE, IMAGE]


async def test_an_image_alone_is_an_answer(tmp_path: Path) -> None:
    """Not an error, and named on the paths of text."""
    message = {"role": "assistant", "content": "", "images": [IMAGE]}
    canned_answer = CannedUpstream(whole={"choices": [{"message": message, "finish_reason": "stop"}]})
    async with serve_answers(canned_answer.answer) as canned, serve_hosts(f"{canned.url}/v1", tmp_path) as running:
        for reply in (await post(running, "/v1/completion", model="up/m", prompt="hi"), await complete(running, "up/m")):
            choice = reply.choice
            assert (choice["text"], choice["other_content"], choice["error"]) == ("", ["image"], None)
        assert (await chat(running, "up/m")).choice["message"]["images"] == [IMAGE]


async def test_results_of_jobs_name_it(server: Server) -> None:
    """In pages and files alike."""
    made = await create_job(server.session, ["hi"], "up/m")
    await wait_for_state(server.session, f"/v1/jobs/{made['id']}", "done")
    (record,) = (await read_answer(server.session.get(f"/v1/jobs/{made['id']}/results")))[1]["data"]
    check_shape(record, JobResultJson)
    assert (record["text"], record["refusal"], record["reasoning"], record["other_content"]) == (
        "It",
        "I must not.",
        "hm",
        ["image", "reasoning_details", "citations"],
    )
    async with server.session.get(f"/v1/jobs/{made['id']}/results.csv") as response:
        (row,) = csv.DictReader(io.StringIO(await response.text()))
    assert (row["refusal"], row["other_content"]) == ("I must not.", '["image","reasoning_details","citations"]')


async def test_results_of_batches_carry_it(server: Server) -> None:
    """They are chat completions."""
    made = await create_batch(server.session, build_line("a", "up/m"))
    done = await wait_for_state(server.session, f"/v1/batches/{made['id']}", "completed")
    (line,) = await read_lines(server.session, done["output_file_id"])
    message = line["response"]["body"]["choices"][0]["message"]
    assert ({name: message[name] for name in CONTENT}, message["refusal"]) == (CONTENT, "I must not.")


async def test_the_history_names_it(server: Server) -> None:
    """It keeps no images."""
    reply = await post(server, "/v1/completion", model="up/m", prompt="hi")
    status, past = await read_answer(server.session.get(f"/v1/comparisons/{reply.json['id']}"))
    assert status == 200, past
    check_shape(past, PastComparisonWholeJson)
    (choice,) = past["choices"]
    assert (choice["refusal"], choice["other_content"]) == ("I must not.", ["image", "reasoning_details", "citations"])
