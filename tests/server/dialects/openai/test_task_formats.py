"""Embeddings and tokens in the format of every provider that has them: what is sent, and what is made of the answers."""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.builders.settings import write_providers_file
from tests.support.client import Reply
from tests.support.dialects import HI, post
from tests.support.llama.process import Llama
from tests.support.server import UP_KEY, Server, serve
from tests.support.shapes import check_answer
from tests.support.upstream.canned import CannedServer, serve_answers

NUMBERS = [0.5, -2.0]
COHERE_USAGE = {"billed_units": {"input_tokens": 3}}
ANSWERS: Mapping[str, Any] = {
    "/openai/v1/embeddings": {"data": [{"embedding": NUMBERS}], "model": "m", "usage": {"prompt_tokens": 3}},
    "/azure/openai/deployments/m/embeddings": {
        "data": [{"index": 0, "embedding": b64encode(array("f", NUMBERS).tobytes()).decode()}],
        "usage": {"prompt_tokens": 3},
    },
    "/gemini/v1beta/models/m:batchEmbedContents": {"embeddings": [{"values": NUMBERS}]},
    "/vertex/models/m:predict": {
        "predictions": [{"embeddings": {"values": NUMBERS, "statistics": {"token_count": 3, "truncated": False}}}]
    },
    "/vertex/models/gemini-embedding-2:embedContent": {
        "embedding": {"values": NUMBERS},
        "usageMetadata": {"promptTokenCount": 3},
    },
    "/cohere/v2/embed": {"id": "e", "embeddings": {"float": [NUMBERS]}, "texts": ["hi"], "meta": COHERE_USAGE},
    "/bedrock/model/cohere.embed-v4%3A0/invoke": {"embeddings": {"float": [NUMBERS]}, "id": "e"},
    "/bedrock/model/amazon.titan-embed-text-v2%3A0/invoke": {"embedding": NUMBERS, "inputTextTokenCount": 3},
    "/ollama/api/embed": {"model": "m", "embeddings": [NUMBERS], "prompt_eval_count": 3},
    "/vllm/tokenize": {"count": 2, "max_model_len": 4096, "tokens": [7, 8], "token_strs": ["h", "i"]},
    "/llama/tokenize": {"tokens": [{"id": 7, "piece": "h"}, {"id": 8, "piece": [195]}]},
    "/llama/apply-template": {"prompt": "<user>hi"},
    "/tgi/tokenize": [{"id": 7, "text": "h", "start": 0, "stop": 1}, {"id": 8, "text": "i", "start": 1, "stop": 2}],
    "/tgi/chat_tokenize": {"tokenize_response": [{"id": 7, "text": "h", "start": 0, "stop": 1}], "templated_text": "h"},
    "/xai/v1/tokenize-text": {"token_ids": [{"token_id": 7, "string_token": "hi", "token_bytes": [104, 105]}]},
    "/openai/v1/responses/input_tokens": {"object": "response.input_tokens", "input_tokens": 9},
    "/anthropic/v1/messages/count_tokens": {"input_tokens": 9},
    "/gemini/v1beta/models/m:countTokens": {"totalTokens": 9},
    "/vertex/models/m:countTokens": {"totalTokens": 9},
    "/bedrock/model/m/count-tokens": {"inputTokens": 9},
    "/cohere/v1/tokenize": {"tokens": [7, 8], "token_strings": ["h", "i"], "meta": {}},
}
"""Path → answer, as each vendor documents it."""
ROWS: Mapping[str, Any] = {
    "openai": {"adapter": "openai", "base_url": "/v1", "tokenizer": "responses"},
    "azure": {"adapter": "azure"},
    "gemini": {"adapter": "gemini"},
    "vertex": {"adapter": "vertex"},
    "cohere": {"adapter": "cohere", "base_url": "/v2"},
    "bedrock": {"adapter": "bedrock"},
    "ollama": {"adapter": "ollama"},
    "anthropic": {"adapter": "anthropic"},
    "vllm": {"adapter": "openai", "base_url": "/v1", "tokenizer": "vllm"},
    "llama": {"adapter": "openai", "base_url": "/v1", "tokenizer": "llama.cpp"},
    "tgi": {"adapter": "openai", "base_url": "/v1", "tokenizer": "tgi"},
    "xai": {"adapter": "openai", "base_url": "/v1", "tokenizer": "xai"},
    "plain": {"adapter": "openai", "base_url": "/v1"},
}


async def answer(request: web.Request) -> web.Response:
    """Answer as the vendors do: a wrong path or key is an error."""
    found = ANSWERS.get(request.raw_path.partition("?")[0])
    if found is None or UP_KEY not in "".join(request.headers.values()):
        return web.json_response({"error": {"message": "no such path"}}, status=404)
    headers = {"x-amzn-bedrock-input-token-count": "3"} if "invoke" in request.path else {}
    return web.json_response(found, headers=headers)


@pytest.fixture
async def hosts() -> AsyncIterator[CannedServer]:
    """One server that plays all hosts, each below a path of its own."""
    async with serve_answers(answer) as canned:
        yield canned


@pytest.fixture
async def hosts_server(hosts: CannedServer, tmp_path: Path) -> AsyncIterator[Server]:
    """Fanout before all hosts."""
    common = {"api_key_env": "UP_KEY", "retries": {"attempts": 1}}
    rows = {name: {**row, **common, "base_url": f"{hosts.url}/{name}{row.get('base_url', '')}"} for name, row in ROWS.items()}
    models = {"published": {"provider": "anthropic", "id": "m", "kind": "chat", "max_context_length": 1000}}
    config = write_providers_file(hosts.url, tmp_path, more={"providers": rows, "models": models})
    async with serve(config, UP_KEY=UP_KEY) as server:
        yield server


async def ask(server: Server, path: str, **fields: Any) -> Reply:
    got = await post(server, path, **fields)
    check_answer(("POST", path), got)
    return got


def read_bodies(hosts: CannedServer) -> dict[str, Any]:
    """Return what was sent, by path."""
    return {path.partition("?")[0]: json.loads(body) for path, _, body in hosts.requests}


EMBEDDERS = [
    *("openai/m", "azure/m", "gemini/m", "vertex/m", "vertex/gemini-embedding-2", "cohere/m", "bedrock/cohere.embed-v4:0"),
    *("bedrock/amazon.titan-embed-text-v2:0", "ollama/m"),
]


async def test_every_format_embeds_with_its_own_fields(hosts_server: Server, hosts: CannedServer) -> None:
    got = await ask(hosts_server, "/v1/embeddings", model=EMBEDDERS, input="hi", dimensions=2)
    assert [choice["error"] for choice in got.json["choices"]] == [None] * len(EMBEDDERS)
    assert [vector["embedding"] for vector in got.json["data"]] == [NUMBERS] * len(EMBEDDERS)
    tokens = {choice["label"]: choice["usage"] and choice["usage"]["prompt_tokens"] for choice in got.json["choices"]}
    # Of the Gemini API nothing is known: null, not 0.
    assert tokens == {name: None if name == "gemini/m" else 3 for name in EMBEDDERS}
    bodies = read_bodies(hosts)
    content = {"parts": [{"text": "hi"}]}
    assert bodies["/openai/v1/embeddings"] == {"model": "m", "input": ["hi"], "dimensions": 2, "encoding_format": "base64"}
    assert bodies["/gemini/v1beta/models/m:batchEmbedContents"] == {
        "requests": [{"model": "models/m", "content": content, "outputDimensionality": 2}]
    }
    assert bodies["/vertex/models/m:predict"] == {
        "instances": [{"content": "hi"}],
        "parameters": {"outputDimensionality": 2},
    }
    assert bodies["/vertex/models/gemini-embedding-2:embedContent"] == {
        "content": content,
        "embedContentConfig": {"outputDimensionality": 2},
    }
    cohere = {"texts": ["hi"], "embedding_types": ["float"], "input_type": "search_document", "output_dimension": 2}
    assert bodies["/cohere/v2/embed"] == {"model": "m", **cohere}
    assert bodies["/bedrock/model/cohere.embed-v4%3A0/invoke"] == cohere
    assert bodies["/bedrock/model/amazon.titan-embed-text-v2%3A0/invoke"] == {"inputText": "hi", "dimensions": 2}
    assert bodies["/ollama/api/embed"] == {"model": "m", "input": ["hi"], "dimensions": 2}


async def test_a_field_of_one_format_is_reported_where_it_is_ignored(hosts_server: Server, hosts: CannedServer) -> None:
    got = await ask(hosts_server, "/v1/embeddings", model=["cohere/m", "vertex/m"], input="hi", input_type="classification")
    cohere, vertex = got.json["choices"]
    assert (cohere["ignored_parameters"], cohere["adjusted_parameters"]) == ([], {})
    assert vertex["ignored_parameters"] == ["input_type"]
    assert read_bodies(hosts)["/cohere/v2/embed"]["input_type"] == "classification"
    got = await ask(hosts_server, "/v1/embeddings", model=["cohere/m", "vertex/m"], input="hi", task_type="CLUSTERING")
    cohere, vertex = got.json["choices"]
    assert cohere["adjusted_parameters"] == {"input_type": {"asked": None, "sent": "search_document"}}
    assert read_bodies(hosts)["/vertex/models/m:predict"]["instances"] == [{"content": "hi", "task_type": "CLUSTERING"}]


async def test_what_a_format_cannot_embed_fails_apart_before_it_is_sent(hosts_server: Server, hosts: CannedServer) -> None:
    one_at_a_time = ["vertex/gemini-embedding-2", "bedrock/amazon.titan-embed-text-v2:0"]
    got = await ask(hosts_server, "/v1/embeddings", model=[*one_at_a_time, "local/ngram-2"], input=["hi", "ho"])
    errors = [choice["error"] and choice["error"]["message"] for choice in got.json["choices"]]
    assert "one text at a time" in errors[0]
    assert "one text at a time" in errors[1]
    assert errors[2] is None
    ids = ["gemini/m", "cohere/m", "ollama/m", "local/ngram-2"]
    got = await ask(hosts_server, "/v1/embeddings", model=ids, input=[[1, 2]])
    params = [choice["error"] and choice["error"]["param"] for choice in got.json["choices"]]
    assert params == ["input", "input", "input", None]
    assert hosts.requests == []


async def test_another_number_of_vectors_than_texts_is_no_answer(hosts_server: Server) -> None:
    models = ["openai/m", "gemini/m", "vertex/m", "cohere/m", "ollama/m", "bedrock/cohere.embed-v4:0"]
    got = await ask(hosts_server, "/v1/embeddings", model=[*models, "local/ngram-2"], input=["hi", "ho"])
    codes = [choice["error"] and choice["error"]["code"] for choice in got.json["choices"]]
    assert codes == ["unexpected_shape"] * len(models) + [None]


TOKENIZERS = {
    "vllm/m": ([7, 8], ["h", "i"]),
    "llama/m": ([7, 8], ["h", "�"]),
    "tgi/m": ([7, 8], ["h", "i"]),
    "xai/m": ([7], ["hi"]),
    "cohere/m": ([7, 8], ["h", "i"]),
}
COUNTERS = ("openai/m", "anthropic/m", "gemini/m", "vertex/m", "bedrock/m")


async def test_every_format_tells_the_tokens_of_a_prompt(hosts_server: Server, hosts: CannedServer) -> None:
    got = await ask(
        hosts_server, "/v1/tokenize", model=[*TOKENIZERS, *COUNTERS, "plain/m"], prompt="hi", return_token_strs=True
    )
    by_label = {choice["label"]: choice for choice in got.json["choices"]}
    assert {label: (by_label[label]["tokens"], by_label[label]["token_strs"]) for label in TOKENIZERS} == TOKENIZERS
    assert [by_label[label]["count"] for label in TOKENIZERS] == [len(ids) for ids, _ in TOKENIZERS.values()]
    assert [(by_label[label]["count"], by_label[label]["tokens"]) for label in COUNTERS] == [(9, None)] * len(COUNTERS)
    assert {by_label[label]["ignored_parameters"][0] for label in COUNTERS} == {"return_token_strs"}
    assert by_label["vllm/m"]["max_model_len"] == 4096
    assert by_label["plain/m"]["error"]["code"] == "unsupported_endpoint"
    # With several models the fields of one stand in `choices` alone.
    assert (got.json["count"], got.json["tokens"]) == (None, None)
    bodies = read_bodies(hosts)
    assert bodies["/vllm/tokenize"] == {"model": "m", "prompt": "hi", "return_token_strs": True}
    assert bodies["/llama/tokenize"] == {"content": "hi", "add_special": True, "with_pieces": True}
    assert bodies["/tgi/tokenize"] == {"inputs": "hi"}
    assert bodies["/xai/v1/tokenize-text"] == bodies["/cohere/v1/tokenize"] == {"model": "m", "text": "hi"}
    message = [{"role": "user", "content": "hi"}]
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    assert bodies["/anthropic/v1/messages/count_tokens"] == {"model": "m", "messages": message}
    assert bodies["/openai/v1/responses/input_tokens"] == {"model": "m", "input": message}
    assert bodies["/gemini/v1beta/models/m:countTokens"] == {
        "generateContentRequest": {"model": "models/m", "contents": contents}
    }
    assert bodies["/vertex/models/m:countTokens"] == {"contents": contents}
    converse = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    assert bodies["/bedrock/model/m/count-tokens"] == {"input": {"converse": converse}}


async def test_messages_and_tools_are_counted_where_the_host_reads_them(hosts_server: Server, hosts: CannedServer) -> None:
    messages = [{"role": "system", "content": "Be brief"}, *HI]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    models = ["vllm/m", "llama/m", "tgi/m", "anthropic/m", "xai/m", "cohere/m"]
    got = await ask(hosts_server, "/v1/tokenize", model=models, messages=messages, tools=[tool])
    by_label = {choice["label"]: choice for choice in got.json["choices"]}
    assert [by_label[label]["error"] and by_label[label]["error"]["param"] for label in models] == [
        *(None, None, None, None),
        *("messages", "messages"),
    ]
    bodies = read_bodies(hosts)
    assert bodies["/vllm/tokenize"] == {"model": "m", "messages": messages, "tools": [tool]}
    assert bodies["/llama/apply-template"] == {"messages": messages, "tools": [tool]}
    assert bodies["/llama/tokenize"]["content"] == "<user>hi"
    counted = bodies["/anthropic/v1/messages/count_tokens"]
    assert (counted["system"], counted["tools"][0]["name"], "max_tokens" in counted) == ("Be brief", "weather", False)
    assert by_label["tgi/m"]["ignored_parameters"] == ["tools"]


async def test_one_model_answers_as_vllm_does_and_nothing_is_charged(hosts_server: Server) -> None:
    got = await post(hosts_server, "/tokenize", model="vllm/m", prompt="hi")
    check_answer(("POST", "/tokenize"), got)
    assert (got.json["count"], got.json["tokens"], got.json["max_model_len"]) == (2, [7, 8], 4096)
    (choice,) = got.json["choices"]
    assert choice["usage"]["total_tokens"] == 0
    published = (await ask(hosts_server, "/v1/tokenize", model="published", prompt="hi")).json
    assert (published["count"], published["max_model_len"]) == (9, 1000)


async def test_the_embedded_models_tell_their_own_tokens_and_null_for_a_word_they_never_read(hosts_server: Server) -> None:
    got = await ask(hosts_server, "/v1/tokenize", model="local/ngram-2", prompt="The xyzzyq statement", return_token_strs=True)
    assert got.json["token_strs"] == ["The", " xyzzyq", " statement"]
    first, unknown, last = got.json["tokens"]
    assert (type(first), unknown, type(last), got.json["count"]) == (int, None, int, 3)
    # The ids are those that `/v1/completions` takes as a prompt.
    echoed = await post(
        hosts_server, "/v1/completions", model="local/ngram-2", prompt=[first, last], echo=True, logprobs=0, max_tokens=0
    )
    assert echoed.json["choices"][0]["text"] == "The statement"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": HI}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "return_token_strs": "yes"}, "return_token_strs"),
        ({"prompt": "a", "model": []}, "model"),
        ({"prompt": "a", "model": "plain/m"}, "model"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(hosts_server: Server, fields: dict[str, Any], param: str) -> None:
    got = await ask(hosts_server, "/v1/tokenize", **{"model": "local/ngram-2", **fields})
    assert (got.status, got.error["param"]) == (400, param), got.body[:300]


async def test_an_upstream_that_tells_nothing_readable_fails_apart(tmp_path: Path) -> None:
    async def answer_oddly(request: web.Request) -> web.Response:
        return web.json_response({"tokens": ["a", None], "token_ids": 3, "input_tokens": "many", "tokenize_response": 1})

    async with serve_answers(answer_oddly) as canned:
        rows = {name: {**ROWS[name], "base_url": f"{canned.url}/v1"} for name in ("vllm", "llama", "tgi", "xai", "cohere")}
        rows["anthropic"] = {"adapter": "anthropic", "base_url": canned.url}
        config = write_providers_file(canned.url, tmp_path, more={"providers": rows})
        async with serve(config, UP_KEY=UP_KEY) as server:
            models = [f"{name}/m" for name in rows]
            got = await ask(server, "/v1/tokenize", model=[*models, "local/ngram-2"], prompt="hi")
    codes = [choice["error"] and choice["error"]["code"] for choice in got.json["choices"]]
    assert codes == ["unexpected_shape"] * len(models) + [None]


async def test_a_real_llama_cpp_server_tells_its_tokens(llama: Llama, tmp_path: Path) -> None:
    config = write_providers_file(llama.url, tmp_path, api_key_env="UP_KEY", tokenizer="llama.cpp")
    async with serve(config, UP_KEY=llama.key) as server:
        told = (await ask(server, "/v1/tokenize", model="up/tiny", prompt="The dog", return_token_strs=True)).json
        chat = (await ask(server, "/v1/tokenize", model="up/tiny", messages=HI)).json
        body = {"model": "up/tiny", "messages": HI, "max_tokens": 1}
        answered = (await post(server, "/v1/chat/completions", body)).json
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"]) > 1
    assert "dog" in "".join(told["token_strs"])
    assert chat["count"] == answered["usage"]["prompt_tokens"]
