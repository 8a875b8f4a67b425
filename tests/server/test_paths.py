"""Paths and codings as real clients send them: slashes too many, Azure's paths, compressed answers."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.support.client import Client, encode_request, parse_response

LOCAL = "local/ngram-3"


@pytest.mark.parametrize("path", ["/v1/completion/", "//v1/completion", "/v1//completion", "//v1///completion//"])
async def test_slashes_too_many_name_the_same_path(embedded_client: Client, path: str) -> None:
    body = {"prompt": "The return", "model": "local/ngram-3", "max_tokens": 2, "seed": 1}
    raw = encode_request(json.dumps(body).encode(), path=path)
    code, _, answer = parse_response(await embedded_client.send_raw(raw))

    assert (code, answer["choices"][0]["finish_reason"]) == (200, "length")


async def test_slashes_too_many_change_neither_status_nor_query_nor_names(embedded_client: Client) -> None:
    assert (await embedded_client.send("GET", "/health")).json == {"status": "ok"}
    assert (await embedded_client.send("DELETE", "/health/")).status == 405
    assert (await embedded_client.send("GET", "/nowhere//")).status == 404
    for path in ("/v1/models/local%2Fngram-2/", "/v1//models/local/ngram-2"):
        assert (await embedded_client.send("GET", path)).json["id"] == "local/ngram-2"
    wrong = await embedded_client.send("GET", "/v1//models/?ready=maybe")
    assert wrong.params == ["ready"]


@pytest.mark.parametrize("model", ["local/ngram-3", "local%2Fngram-3"])
async def test_azures_clients_find_the_model_of_the_path(embedded_client: Client, model: str) -> None:
    place = f"/openai/deployments/{model}"
    headers = {"api-key": "any"}
    chat = {"messages": [{"role": "user", "content": "The return"}], "max_tokens": 2, "model": "gpt-6-luna"}
    text = {"prompt": "The return", "max_tokens": 2}
    for path, body in ((f"{place}/chat/completions", chat), (f"{place}/completions", text)):
        reply = await embedded_client.send("POST", f"{path}?api-version=2024-10-21", body, headers=headers)
        assert (reply.status, reply.choice["model"]) == (200, "local/ngram-3"), reply.body
    assert (await embedded_client.send("POST", f"{place}/completions", {})).params == ["prompt"]
    assert (await embedded_client.send("POST", f"{place}/completions", [])).status == 400


@pytest.mark.parametrize("begin", ["/openai", "/openai/v1", "/openai//v1"])
async def test_azures_paths_without_a_model_are_those_of_the_server(embedded_client: Client, begin: str) -> None:
    """As its clients send them: `responses.create`, `models.list`, and all of its newer API."""
    response = await embedded_client.send("POST", f"{begin}/responses?api-version=preview", {"model": LOCAL, "input": "hi"})
    chat = {"model": LOCAL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert (response.status, response.json["object"]) == (200, "response")
    assert (await embedded_client.send("POST", f"{begin}/chat/completions", chat)).status == 200
    assert (await embedded_client.send("GET", f"{begin}/models/{LOCAL}")).json["id"] == LOCAL
    assert (await embedded_client.send("GET", f"{begin}/nowhere")).status == 404
    assert (await embedded_client.send("POST", "/openai/deployments/nix/responses", {})).status == 404


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
async def test_numbers_that_json_lacks_are_refused_wherever_they_stand(embedded_client: Client, number: str) -> None:
    for field in ("temperature", "response_format", "nobody_knows"):
        raw = f'{{"model": "local/ngram-3", "prompt": "hi", "{field}": {number}}}'.encode()
        code, _, body = parse_response(await embedded_client.send_raw(encode_request(raw, path="/v1/completions")))
        assert (code, body["error"]["code"]) == (400, "invalid_json")
    spoken = {"model": "local/ngram-3", "prompt": "NaN, 1e999 and Infinity", "max_tokens": 1}
    assert (await embedded_client.send("POST", "/v1/completions", spoken)).status == 200


@pytest.mark.parametrize("number", ["1e999", "-1E+400", "1" + "0" * 400 + ".0"])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "hi", "nobody_knows": {"deep": [1, "NUMBER"]}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi", "x": {"deep": [1, "NUMBER"]}}]}),
        ("/v1/responses", {"input": "hi", "metadata": {"deep": [1, "NUMBER"]}}),
    ],
)
async def test_a_number_that_would_be_null_upstream_is_a_fault_of_its_field(
    embedded_client: Client, number: str, path: str, fields: dict[str, Any]
) -> None:
    raw = json.dumps({"model": "local/ngram-3", **fields}).replace('"NUMBER"', number).encode()
    code, _, body = parse_response(await embedded_client.send_raw(encode_request(raw, path=path)))
    assert (code, body["error"]["code"]) == (400, "invalid_value")
    assert body["error"]["param"].endswith(".deep[1]")
    assert "too large: at most" in body["error"]["message"]


class TestCompression:
    async def fetch(self, client: Client, path: str, accepted: str) -> tuple[dict[str, str], bytes]:
        request = encode_request(method="GET", path=path, headers=f"Accept-Encoding: {accepted}\r\nConnection: close\r\n")
        head, _, body = (await client.send_raw(request)).partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
        return {name.lower(): value for name, value in lines}, body

    async def test_a_large_answer_is_compressed_where_the_caller_accepts_it(self, embedded_client: Client) -> None:
        for accepted in ("gzip", "deflate, gzip;q=1.0, *;q=0.5", "*"):
            headers, body = await self.fetch(embedded_client, "/openapi.json", accepted)
            assert headers["content-encoding"] == "gzip"
            assert headers["vary"] == "Accept-Encoding"
            assert json.loads(gzip.decompress(body))["openapi"]

    async def test_it_is_sent_as_it_is_otherwise(self, embedded_client: Client) -> None:
        for accepted in ("", "identity", "br", "gzip;q=0", "xgzip"):
            headers, body = await self.fetch(embedded_client, "/openapi.json", accepted)
            assert "content-encoding" not in headers
            assert json.loads(body)["openapi"]
        headers, _ = await self.fetch(embedded_client, "/livez", "gzip")
        assert "content-encoding" not in headers
