"""Large bodies: bounded, and worked on beside the event loop."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import BaseModel, ValidationError

from fanout.core.errors import RequestError
from fanout.core.faults import to_faults
from fanout.core.json_values import MAX_VALUES, ValueCounter
from fanout.core.long_lists import MAX_FAULTS, STEP_ITEMS
from fanout.requests.bodies import validate_body
from fanout.requests.openai.chat import ChatBody
from fanout.server.endpoints import ENDPOINTS
from fanout.server.request_body import MAX_INLINE_BYTES, MAX_INLINE_VALUES, RAW_BODY, VALUES, work_on_body
from tests.support.client import Client
from tests.support.server import Server, serve
from tests.support.upstream.server import Upstream

BODIES = list(dict.fromkeys(endpoint.body for endpoint in ENDPOINTS if endpoint.body is not None))
MANY = 2_500
"""More wrong values than one answer may name, or one validation may collect."""
ITEMS: list[Any] = [1, "x", {}, [{}]]
WRONG: list[Any] = [*([item] * MANY for item in ITEMS), {f"k{number}": "x" for number in range(MANY)}]


def find_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from find_models(inner)


def list_wrong(model: type[BaseModel]) -> Iterator[Any]:
    """Yield bodies with one value, at any depth, that holds countless others."""
    yield from WRONG
    for name, field in model.model_fields.items():
        for wrong in WRONG:
            yield {name: wrong}
        for inner in find_models(field.annotation):
            for wrong in list_wrong(inner):
                yield {name: [wrong]}


@pytest.mark.parametrize("model", BODIES)
def test_a_validation_ends_after_enough_faults(model: type[BaseModel]) -> None:
    for wrong in list_wrong(model):
        raw = json.dumps(wrong).encode()
        try:
            model.model_validate_json(raw)
        except ValidationError as error:
            found = error
        else:
            continue  # a job's rows may be anything here
        assert found.error_count() <= STEP_ITEMS * (MAX_FAULTS + 1), raw[:200]
        assert len(to_faults(found, model)) <= MAX_FAULTS + 1, raw[:200]


def test_the_faults_of_a_long_list_have_their_places() -> None:
    good: dict[str, Any] = {"role": "user", "content": "x"}
    messages = [good] * 1_000 + [{"role": "user"}, {**good, "content": [{"type": "text", "text": "x"}] * 500 + [{"type": 1}]}]
    raw = json.dumps({"model": "a", "messages": messages, "logit_bias": {**dict.fromkeys(map(str, range(90)), 1), "b": "x"}})
    with pytest.raises(RequestError) as caught:
        validate_body(raw.encode(), ChatBody)
    assert [fault.path for fault in caught.value.faults] == [
        "logit_bias.b",
        "messages[1000]",
        "messages[1001].content[500].type",
    ]


def test_a_long_conversation_is_read_whole_and_in_order() -> None:
    messages = [{"role": "user", "content": f"text {number}", "name": f"n{number}"} for number in range(1_001)]
    body = validate_body(json.dumps({"model": "a", "messages": messages}).encode(), ChatBody)
    found = body.to_request().messages or ()
    assert [(message.content, message.extra) for message in found] == [
        (message["content"], {"name": message["name"]}) for message in messages
    ]


@pytest.mark.parametrize(
    ("size", "values", "in_thread"),
    [
        (MAX_INLINE_BYTES, MAX_INLINE_VALUES, False),
        (MAX_INLINE_BYTES + 1, 1, True),
        (1_000, MAX_INLINE_VALUES + 1, True),
    ],
    ids=["small", "long", "many values"],
)
async def test_large_bodies_alone_are_worked_on_in_threads(size: int, values: int, in_thread: bool) -> None:
    request, counter = make_mocked_request("POST", "/"), ValueCounter()
    counter.values = values
    request[RAW_BODY], request[VALUES] = b"x" * size, counter
    thread = await work_on_body(request, threading.current_thread)
    assert thread.name.startswith("bodies") == in_thread
    assert (thread is threading.current_thread()) != in_thread


@pytest.mark.parametrize("path", ["/v1/completion", "/v1/chat/completions", "/v1/jobs", "/v4/completions", "/v1/batches"])
async def test_a_body_of_too_many_values_is_refused_with_the_bound(path: str) -> None:
    async with serve(FANOUT_STORE=":memory:") as server:
        reply = await Client(server).send("POST", path, b'{"prompt":[' + b"1," * MAX_VALUES + b"1]}")
    assert reply.status == (422 if path.startswith("/v4") else 400)
    assert b"the body holds more than 100,000 values (texts, numbers, objects, lists)" in reply.body


async def test_a_request_of_many_values_is_answered() -> None:
    messages = [{"role": "user", "content": "a"}] * 5_000
    async with serve() as server:
        reply = await Client(server).send(
            "POST", "/v1/chat/completions", {"model": "local/ngram-2", "messages": messages, "max_tokens": 1}
        )
    assert reply.status == 200
    assert reply.json["usage"]["prompt_tokens"] == 9_999


@pytest.mark.parametrize("raw", [b'{"messages":[%b],"n":1}', b' {"n": 1, "model": 5, "messages": [%b]} \n'])
def test_the_fields_of_the_path_replace_those_of_the_body(raw: bytes) -> None:
    body = validate_body(raw % b'{"role":"user","content":"x"}', ChatBody, replaced={"model": "local/ngram-2"})
    assert [entry.model for entry in body.to_request().entries] == ["local/ngram-2"]


@pytest.mark.parametrize("raw", [b"", b"[1]", b"nonsense", b'"a"'])
def test_what_is_no_object_is_refused_whatever_the_path_replaces(raw: bytes) -> None:
    with pytest.raises(RequestError):
        validate_body(raw, ChatBody, replaced={"model": "m"})


@pytest.mark.parametrize("model", BODIES)
def test_a_body_is_judged_alike_parsed_by_the_model_or_before(model: type[BaseModel]) -> None:
    for wrong in [
        *islice(list_wrong(model), 12),
        {},
        [],
        1,
        {"model": ["a", {"model": 5}], "prompt": 1, "n": 1.0, "messages": "x"},
    ]:
        raw, found = json.dumps(wrong).encode(), list[Any]()
        try:
            model.model_validate_json(raw)
        except ValidationError as error:
            found = [(fault.path.partition("[")[0], fault.message) for fault in to_faults(error, model)]
        try:
            validate_body(raw, model)
            parsed_before = list[tuple[str, str]]()
        except RequestError as error:
            parsed_before = [(fault.path.partition("[")[0], fault.message) for fault in error.faults]
        assert parsed_before == found


@pytest.mark.parametrize("headers", [{}, {"Accept-Encoding": "gzip"}], ids=["plain", "gzip"])
@pytest.mark.parametrize("path", ["/v1/completion", "/v1/chat/completions", "/v1/responses", "/v4/chat-completions"])
async def test_a_large_question_and_its_large_answer_are_whole(
    server: Server, upstream: Upstream, path: str, headers: dict[str, str]
) -> None:
    """Both are worked on and sent in pieces."""
    text = 'a"é\n' * 100_000
    question = {"role": "user", "content": text}
    fields = {"/v1/completion": {"prompt": text}, "/v1/responses": {"input": text}}.get(path, {"messages": [question]})
    model = "up/mb-1" if path.startswith("/v4") else ["up/mb-1", "up/mb-1"]
    body = io.BytesIO(json.dumps({"model": model, **fields}).encode())
    async with server.session.post(path, data=body, headers={"Content-Type": "application/json", **headers}) as response:
        answer = await response.text()
    assert response.status == 200
    assert answer.count("a" * 10**6) >= (1 if path.startswith("/v4") else 2)
    assert json.loads(answer)
    assert upstream.requests[0].body["messages"][-1]["content"] == text


async def test_a_large_piece_of_a_stream_is_passed_on_in_shorter_ones(client: Client) -> None:
    reply = await client.complete(model=["up/mb-1-chunks-1", "up/mb-1-chunks-1"], stream=True)
    events = [json.loads(line[6:]) for line in reply.body.splitlines() if line.startswith(b"data: {")]
    pieces = [(choice["index"], choice["text"]) for event in events for choice in event["choices"] if choice.get("text")]
    assert max(len(text) for _, text in pieces) <= 2**16
    for index in (0, 1):
        assert sum(len(text) for number, text in pieces if number == index) == 10**6
