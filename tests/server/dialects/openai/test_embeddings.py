"""`/v1/embeddings`: vectors of one model or several, of texts and token ids, as numbers and base64."""

from __future__ import annotations

import json
import math
from array import array
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.builders.settings import write_providers_file
from tests.support.client import Reply
from tests.support.dialects import post
from tests.support.server import UP_KEY, Server, serve
from tests.support.shapes import check_answer
from tests.support.upstream.canned import serve_answers

PATH = "/v1/embeddings"
LOCAL = "local/ngram-2"


class Embedder:
    """An upstream that gives each text the vector [length, 0.5], in the form that the test sets."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.in_base64 = True
        self.missing = 0

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.requests.append((request.path, body))
        vectors = [[float(len(text)), 0.5] for text in body["input"]]
        shown: list[Any] = (
            [b64encode(array("f", vector).tobytes()).decode() for vector in vectors] if self.in_base64 else vectors
        )
        data = [{"object": "embedding", "index": number, "embedding": value} for number, value in enumerate(shown)]
        # In reverse: nothing promises an order.
        answer = {
            "object": "list",
            "model": "m",
            "data": data[::-1][self.missing :],
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }
        return web.json_response(answer)


@pytest.fixture
async def embedder() -> Embedder:
    """An upstream for one test."""
    return Embedder()


@pytest.fixture
async def embedding_server(embedder: Embedder, tmp_path: Path) -> AsyncIterator[Server]:
    """A server before that upstream, and before one of a format without embeddings."""
    async with serve_answers(embedder.answer) as canned:
        more = {"providers": {"claude": {"adapter": "anthropic", "base_url": canned.url}}}
        config = write_providers_file(f"{canned.url}/v1", tmp_path, more=more, retries={"attempts": 1})
        async with serve(config, UP_KEY=UP_KEY) as server:
            yield server


async def embed(server: Server, model: Any = LOCAL, texts: Any = "hi", **fields: Any) -> Reply:
    got = await post(server, PATH, model=model, input=texts, **fields)
    check_answer(("POST", PATH), got)
    return got


@pytest.mark.parametrize("in_base64", [True, False], ids=["base64", "numbers"])
async def test_a_provider_is_called_once_for_all_texts(in_base64: bool, embedding_server: Server, embedder: Embedder) -> None:
    embedder.in_base64 = in_base64
    got = await embed(embedding_server, "up/m", ["a", "abc"], dimensions=2, user="me")
    assert [vector["embedding"] for vector in got.json["data"]] == [[1.0, 0.5], [3.0, 0.5]]
    assert got.json["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    sent = {"model": "m", "input": ["a", "abc"], "dimensions": 2, "user": "me", "encoding_format": "base64"}
    assert embedder.requests == [("/v1/embeddings", sent)]


async def test_every_model_has_its_vectors_and_a_failure_only_facts(embedding_server: Server) -> None:
    short = {"model": LOCAL, "label": "short", "dimensions": 8}
    got = await embed(embedding_server, [LOCAL, "nobody", short, "claude/m", "up/m"], ["The return statement", "a b"])
    assert [(v["index"], v["entry"], v["input_index"], v["label"]) for v in got.json["data"]] == [
        *((0, 0, 0, LOCAL), (1, 0, 1, LOCAL)),
        *((4, 2, 0, "short"), (5, 2, 1, "short")),
        *((8, 4, 0, "up/m"), (9, 4, 1, "up/m")),
    ]
    errors = [choice["error"] and choice["error"]["code"] for choice in got.json["choices"]]
    assert errors == [None, "model_not_found", None, "unsupported_endpoint", None]
    assert [len(vector["embedding"]) for vector in got.json["data"]] == [64, 64, 8, 8, 2, 2]


async def test_the_embedded_models_give_equal_texts_equal_vectors_of_length_one(embedding_server: Server) -> None:
    texts = ["The return statement", "the  RETURN statement", "a dog", ""]
    vectors = [vector["embedding"] for vector in (await embed(embedding_server, LOCAL, texts)).json["data"]]
    assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-6) for vector in vectors)
    assert vectors[0] == (await embed(embedding_server, LOCAL, texts[0])).json["data"][0]["embedding"]

    def cosine(one: int, other: int) -> float:
        return math.fsum(a * b for a, b in zip(vectors[one], vectors[other], strict=True))

    assert cosine(0, 1) > 0.8 > cosine(0, 2)


async def test_token_ids_are_embedded_as_their_texts(embedding_server: Server) -> None:
    one, both = await embed(embedding_server, LOCAL, [5, 6]), await embed(embedding_server, LOCAL, [[5, 6], [7]])
    assert len(one.json["data"]) == 1
    assert both.json["data"][0]["embedding"] == one.json["data"][0]["embedding"]


async def test_base64_holds_the_same_numbers(embedding_server: Server) -> None:
    numbers = (await embed(embedding_server)).json["data"][0]["embedding"]
    text = (await embed(embedding_server, encoding_format="base64")).json["data"][0]["embedding"]
    assert array("f", b64decode(text)).tolist() == numbers


async def test_too_few_vectors_are_no_answer(embedding_server: Server, embedder: Embedder) -> None:
    embedder.missing = 1
    got = await embed(embedding_server, "up/m", ["a", "b"])
    assert (got.status, got.error["code"]) == (502, "unexpected_shape")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"texts": ""}, "input"),
        ({"texts": None}, "input"),
        ({"texts": []}, "input"),
        ({"texts": ["a"] * 2049}, "input"),
        ({"texts": [["a"]]}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 65}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"texts": "a " * 140_000}, "input"),
        ({"model": "claude/m"}, "model"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(embedding_server: Server, fields: dict[str, Any], param: str) -> None:
    got = await embed(embedding_server, **fields)
    assert (got.status, got.error["param"]) == (400, param), got.body[:300]
