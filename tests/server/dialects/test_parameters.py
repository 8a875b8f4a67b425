"""Parameters of `POST /v1/completion`: their ranges, where they are sent, and how those that cannot be sent are reported."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.dialects import chat
from tests.support.server import Server, serve
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

EVERYTHING: dict[str, Any] = {
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 10,
    "seed": 3,
    "stop": ["\n\n"],
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "repetition_penalty": 1.1,
    "logit_bias": {" the": -1},
    "logprobs": 2,
    "echo": True,
    "suffix": " the end",
    "best_of": 2,
}
"""What the embedded models take."""
RANGES: list[tuple[str, list[Any], list[Any]]] = [
    ("max_tokens", [0, 1, 2**63 - 1, None], [-1, 1.5, "1", True, 2**63, 10**30]),
    ("max_new_tokens", [0, 1, 2**63 - 1, None], [-1, 1.5, "1", 2**63]),
    ("temperature", [0, 0.0, 2, 0.5, None], [-0.01, 2.01, "0.5", True]),
    ("top_p", [0, 1, None], [-0.1, 1.1, []]),
    ("top_k", [-1, 0, 50, 2**63 - 1, None], [-2, 0.5, 2**63, 2**70, -(2**70), 10**30]),
    ("n", [1, 2.0, None], [0, 129, -1, 1.5]),
    ("best_of", [0, 1, 20, None], [-1, 21]),
    ("seed", [-(2**63), 2**63 - 1, 0, None], [2**63, -(2**63) - 1, 1.5]),
    ("stop", ["a", ["a"], ["a", "b", "c", "d"], [], ["a"] * 64, None], [["a"] * 65, 1, [1]]),
    ("presence_penalty", [-2, 2, None], [-2.1, 2.1]),
    ("frequency_penalty", [-2, 2, None], [-2.1, 2.1]),
    ("repetition_penalty", [-2, 2, None], [-2.1, 2.1]),
    ("logit_bias", [{}, {"1": -100, "2": 100}, None], [{"1": 101}, {"1": "x"}, [], {str(n): 1 for n in range(2049)}]),
    ("logprobs", [0, 20, None], [-1, 21, True]),
    ("echo", [True, False, None], [1, "true"]),
    ("suffix", ["", "x", None], [1]),
    ("user", ["", "u" * 256, None], ["u" * 257, 1]),
    ("prompt", ["", "x"], [None, 1, ["x"]]),
    ("system", ["", "x", None], [1]),
    ("strict_parameters", [True, False, None], [1]),
    ("timeout_s", [0.5, 600, None], [0, -1, 600.1, "1"]),
    ("return_when", ["all", "first", 1, 1.0, None], [0, 2, -1, "some", 1.5, True, []]),
    ("metadata", [{}, {"k": ""}, {"k" * 64: "v" * 512}, {str(n): "" for n in range(16)}, None], []),
    ("metadata", [], [{"": "v"}, {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, {str(n): "" for n in range(17)}, []]),
    ("stream", [False, None], ["yes", 1]),
    ("dry_run", [True], [1]),
]


@pytest.mark.parametrize(("name", "allowed", "wrong"), RANGES, ids=[f"{row[0]}-{number}" for number, row in enumerate(RANGES)])
async def test_every_parameter_has_its_range(embedded_client: Client, name: str, allowed: list[Any], wrong: list[Any]) -> None:
    """At the ends of each range, just past them, and of another type; `null` is as if absent."""
    for value in allowed:
        reply = await embedded_client.complete(**{"model": "local/ngram-2", "dry_run": True, name: value})
        assert reply.status == 200, (name, value, reply.body)
    for value in wrong:
        reply = await embedded_client.complete(**{"model": "local/ngram-2", "dry_run": True, name: value})
        assert reply.status == 400, (name, value, reply.body)
        (param,) = reply.params
        assert param is not None
        assert param.startswith(name), reply.body
        assert reply.error["code"] == "invalid_value"


async def test_every_parameter_reaches_its_model(embedded_client: Client) -> None:
    reply = await embedded_client.complete(model="local/ngram-3", prompt="The value", **EVERYTHING)

    choice = reply.choice
    assert (choice["ignored_parameters"], choice["adjusted_parameters"]) == ([], {})
    assert choice["text"].startswith("The value")
    assert len(choice["logprobs"]["top_logprobs"][-1]) == 2
    assert choice["usage"]["completion_tokens"] > 5, "best_of 2: both are counted"


async def test_every_parameter_is_sent_upstream_by_its_name(client: Client) -> None:
    parameters = {name: value for name, value in EVERYTHING.items() if name not in ("top_k", "repetition_penalty", "best_of")}
    chat = await client.complete(model="up/echo", **parameters, user="me")
    sent = json.loads(chat.choice["text"])

    assert {name: sent[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop", "logit_bias", "user")} == {
        **{name: parameters[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop", "logit_bias")},
        "user": "me",
    }
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    assert not {"echo", "suffix", "prompt", "model_parameters", "n"} & set(sent)
    assert sorted(chat.choice["ignored_parameters"]) == ["echo", "suffix"]


async def test_one_answer_names_every_wrong_field(embedded_client: Client) -> None:
    reply = await embedded_client.complete(
        model=["local/ngram-2", {"model": "local/ngram-3", "top_p": 2, "lable": "x"}, {"temperature": 1}, 7, ""],
        temperature=3,
        max_tokens=1,
        max_new_tokens=2,
        n=3,
        best_of=2,
        timeout_s=601,
        return_when=9_000,
        stop=["a"] * 65,
        tempature=1,
        metadata={"k": 1},
    )

    assert reply.status == 400
    assert set(reply.params) == {
        *("temperature", "max_new_tokens", "best_of", "timeout_s", "return_when", "stop", "tempature", "metadata.k"),
        *("model[1].top_p", "model[1].lable", "model[2].model", "model[3]", "model[4]"),
    }
    by_param = {detail["param"]: detail for detail in reply.error["details"]}
    assert "did you mean `temperature`" in by_param["tempature"]["message"]
    assert by_param["tempature"]["code"] == "unknown_parameter"
    assert "did you mean `label`" in by_param["model[1].lable"]["message"]
    assert by_param["model[2].model"]["code"] == "missing_required_parameter"
    assert "600" in by_param["timeout_s"]["message"]
    assert all(f"`{param}`" in reply.error["message"] for param in by_param)
    assert reply.error["param"] in by_param


async def test_a_missing_field_is_named(embedded_client: Client) -> None:
    reply = await embedded_client.send("POST", "/v1/completion", {})

    assert reply.params == ["prompt", "model"]
    assert reply.error["code"] == "missing_required_parameter"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true"])
async def test_a_body_that_is_no_object_is_refused(embedded_client: Client, body: bytes) -> None:
    reply = await embedded_client.send("POST", "/v1/completion", body)

    assert reply.status == 400
    assert reply.error["message"] == "must be a JSON object"


@pytest.mark.parametrize(
    ("model", "param"),
    [
        ("", "model"),
        (5, "model"),
        ({"model": ""}, "model.model"),
        ({}, "model.model"),
        ([{"n": 0, "model": "a"}], "model[0].n"),
    ],
)
async def test_a_wrong_entry_is_named_as_it_was_written(embedded_client: Client, model: Any, param: str) -> None:
    reply = await embedded_client.complete(model=model)

    assert (reply.status, reply.params) == (400, [param])


async def test_max_new_tokens_is_another_name_of_max_tokens(embedded_client: Client) -> None:
    for both in ({"max_new_tokens": 2}, {"max_new_tokens": 2, "max_tokens": 2}, {"max_new_tokens": 2, "max_tokens": None}):
        reply = await embedded_client.complete(model="local/ngram-2", seed=1, **both)
        assert reply.choice["usage"]["completion_tokens"] == 2

    differing = await embedded_client.complete(model="local/ngram-2", max_new_tokens=2, max_tokens=3)
    assert (differing.status, differing.params) == (400, ["max_new_tokens"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 3, "model": ["local/ngram-2", {"model": "local/ngram-2", "n": 4}]}, "model"),
        ({"n": 2, "model": {"model": "local/ngram-2", "best_of": 1}}, "model"),
        ({"best_of": 2, "stream": True}, "stream"),
        ({"stream": True, "model": {"model": "local/ngram-2", "best_of": 2}}, "stream"),
    ],
)
async def test_best_of_is_at_least_n_and_not_streamed(embedded_client: Client, body: dict[str, Any], param: str) -> None:
    reply = await embedded_client.complete(**{"model": "local/ngram-2", **body})

    assert (reply.status, reply.params) == (400, [param])


async def test_best_of_0_is_not_set(client: Client, upstream: Upstream) -> None:
    reply = await client.complete(
        model=["ok-text", {"model": "ok-text", "best_of": 2}, {"model": "ok-text", "best_of": 0}], best_of=0
    )

    assert reply.status == 200
    assert sorted(request.body.get("best_of", 0) for request in upstream.requests) == [0, 0, 2]


async def test_an_entry_that_takes_best_of_back_can_be_streamed(embedded_client: Client) -> None:
    for taken_back in (None, 0, 1):
        entry = {"model": "local/ngram-2", "best_of": taken_back}
        stream = await embedded_client.stream(model=entry, best_of=2, max_tokens=1)
        assert stream.ends[0]["error"] is None


async def test_a_set_counts_its_members_for_return_when(embedded_client: Client) -> None:
    good = await embedded_client.complete(model=["embedded", "local/ngram-2"], return_when=4, dry_run=True)
    beyond = await embedded_client.complete(model=["embedded", "local/ngram-2"], return_when=5, dry_run=True)

    assert good.status == 200
    assert (beyond.status, beyond.params) == (400, ["return_when"])
    assert "1 to 4" in beyond.error["message"]


async def test_the_server_sets_the_longest_deadline() -> None:
    async with serve(FANOUT_MAX_TIMEOUT_S="5") as server:
        client = Client(server)
        allowed = await client.complete(model="local/ngram-2", timeout_s=5, dry_run=True)
        longer = await client.complete(model="local/ngram-2", timeout_s=5.1, dry_run=True)

    assert allowed.status == 200
    assert (longer.status, longer.params) == (400, ["timeout_s"])
    assert "5.1 is not allowed: at most 5 here" in longer.error["message"]


@timed
async def test_a_body_of_countless_faults_does_not_stop_the_server(client: Client, upstream: Upstream) -> None:
    """Before there were bounds one of 4 MB held every other request up for 7 s."""
    many = b",".join(b'"k%d":1' % number for number in range(60_000))
    bodies = [
        b'{"prompt":"hi","model":[' + b"1," * 90_000 + b"1]}",
        b'{"prompt":"hi","model":"up/ok",' + many + b"}",
        b'{"prompt":"hi","model":"up/ok","logit_bias":{' + many.replace(b":1", b':"x"') + b"}}",
        json.dumps({"prompt": "hi", "model": [{"model": "up/ok", **{f"k{n}": 1 for n in range(60)}}] * 64}).encode(),
    ]
    slowest, messages = 0.0, []

    async def watch() -> None:
        nonlocal slowest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            slowest = max(slowest, time.monotonic() - began)

    watching = asyncio.create_task(watch())
    for body in bodies:
        reply = await client.send("POST", "/v1/completion", body)
        assert reply.status == 400
        assert len(reply.body) < 100_000
        messages.append(reply.error["message"])
    watching.cancel()
    assert slowest < 1.0
    for message, expected in zip(messages, ("90001 entries", "60002 fields", "60000 tokens", "and more"), strict=True):
        assert expected in message


async def test_marks_of_the_cache_are_reported_or_refused_where_a_model_has_none(dialect_server: Server) -> None:
    marked = [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]
    passed, reported = (await chat(dialect_server, ["up/ok", "local/ngram-2"], marked, max_tokens=1)).choices
    assert (passed["ignored_parameters"], reported["ignored_parameters"]) == ([], ["cache_control"])
    strict = await chat(dialect_server, "local/ngram-2", marked, max_tokens=1, strict_parameters=True)
    assert (strict.status, strict.error["param"], strict.error["code"]) == (400, "cache_control", "unsupported_parameter")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_stop_sequences_beyond_those_of_a_provider_are_cut_for_its_answers_alone(
    stream: bool, client: Client, upstream: Upstream
) -> None:
    stops = [f"<{number}>" for number in range(6)]
    body: dict[str, Any] = {
        "prompt": "hi",
        "model": ["up/ok", "local/ngram-2"],
        "stop": stops,
        "max_tokens": 2,
        "stream": stream,
    }
    if stream:
        chunks = [chunk["choices"][0] for chunk in (await client.stream(**body)).chunks if chunk["choices"]]
        ends = [next(choice for choice in chunks if choice["index"] == place and "provider" in choice) for place in (0, 1)]
    else:
        ends = (await client.complete(**body)).choices
    strict = (await client.complete(**{**body, "stream": False, "strict_parameters": True})).choices

    assert [end["adjusted_parameters"] for end in ends] == [{"stop": {"asked": stops, "sent": stops[:4]}}, {}]
    assert [request.body["stop"] for request in upstream.requests] == [stops[:4]]
    assert [choice["error"] and choice["error"]["param"] for choice in strict] == ["stop", None]


@pytest.mark.parametrize("value", [{}, 1, True])
async def test_a_stop_that_is_neither_text_nor_texts_is_told_what_it_may_be(value: object, client: Client) -> None:
    reply = await client.send("POST", "/v1/completion", {"prompt": "hi", "model": "up/ok", "stop": value})
    assert (reply.status, reply.params) == (400, ["stop"])
    assert "must be text, or a list of texts" in reply.body.decode()
