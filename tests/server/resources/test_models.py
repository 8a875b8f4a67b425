"""`GET /v1/models` and `GET /v1/models/{id}`: every field, ids with slashes in any case."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client, encode_request, parse_response
from tests.support.server import serve

KONKO = {
    *("id", "object", "created", "owned_by", "name", "description", "is_chat", "is_text", "creator", "creator_logo_url"),
    *("category", "censorship", "max_context_length", "license_name", "license_url", "public_endpoint_pricing"),
    *("private_endpoint_pricing", "docs_url", "prompt_guide_url"),
}
OURS = {"ready", "provider", "limits", "deprecated_on", "endpoints", "missing", "price", "aliases", "successor"}
FULL = {
    "provider": "needy",
    "id": "llama-70b",
    "kind": "text",
    "aliases": ["l70"],
    "name": "Llama 70B",
    "creator": "Meta",
    "creator_logo_url": "https://meta.example/logo.png",
    "category": "Large",
    "censorship": "some",
    "description": "A model.",
    "max_context_length": 4096,
    "license_name": "Llama",
    "license_url": "https://meta.example/license",
    "docs_url": "https://meta.example/docs",
    "prompt_guide_url": "https://meta.example/prompts",
    "public_endpoint_pricing": "$0.0003 / 1k tokens",
    "private_endpoint_pricing": "$2 / hour",
    "created": 1_690_000_000,
    "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2},
}
CONFIG = {
    "extends": False,
    "providers": {
        "local": {"adapter": "ngram"},
        "needy": {
            "adapter": "openai",
            "base_url": "https://needy.invalid/v1",
            "api_key_env": "NEEDY_KEY",
            "limits": {"requests_per_minute": 60, "concurrency": 4},
        },
    },
    "models": {
        "Meta/Llama-70b": FULL,
        "bare": {"provider": "local", "id": "ngram-2", "kind": "both"},
        "old": {"provider": "local", "id": "ngram-3", "kind": "chat", "deprecated_on": "2021-05-06", "successor": "bare"},
        "leaving": {"provider": "local", "id": "ngram-5", "kind": "chat", "deprecated_on": "2999-01-01"},
    },
}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    path = tmp_path / "providers.json"
    path.write_text(json.dumps(CONFIG))
    async with serve(path) as server:
        yield Client(server)


async def test_the_list_holds_every_model_with_every_field(client: Client) -> None:
    reply = await client.send("GET", "/v1/models")

    assert reply.json["object"] == "list"
    assert [model["id"] for model in reply.json["data"]] == ["Meta/Llama-70b", "bare", "old", "leaving"]
    for model in reply.json["data"]:
        assert set(model) >= KONKO | OURS
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert isinstance(model["owned_by"], str)


async def test_configured_facts_are_shown(client: Client) -> None:
    model = (await client.send("GET", "/v1/models/Meta/Llama-70b")).json

    for name in KONKO & set(FULL) - {"id"}:
        assert model[name] == FULL[name], name
    assert (model["is_chat"], model["is_text"], model["owned_by"]) == (False, True, "Meta")
    assert model["endpoints"] == ["/v1/completion", "/v1/completions"]
    unset = {"burst": None, "tokens_per_minute": None, "token_bucket": False, "ramp": None}
    assert model["limits"] == {"requests_per_minute": 60, **unset, "concurrency": 4}
    assert (model["price"]["input_usd_per_mtok"], model["price"]["output_usd_per_mtok"]) == (1, 2)
    assert (model["provider"], model["upstream_id"], model["aliases"]) == ("needy", "llama-70b", ["l70"])


async def test_unknown_facts_are_null(client: Client) -> None:
    model = (await client.send("GET", "/v1/models/bare")).json

    unknown = KONKO - {"id", "object", "created", "owned_by", "name", "is_chat", "is_text"}
    assert {name: model[name] for name in unknown} == dict.fromkeys(unknown)
    assert (model["name"], model["owned_by"], model["price"]) == ("bare", "local", None)
    assert (model["is_chat"], model["is_text"]) == (True, True)
    assert abs(model["created"] - time.time()) < 3600
    assert "/v1/chat/completions" in model["endpoints"]


async def test_a_model_is_ready_or_names_what_it_lacks(client: Client) -> None:
    models = {model["id"]: model for model in (await client.send("GET", "/v1/models")).json["data"]}

    assert {name: model["ready"] for name, model in models.items()} == {
        "Meta/Llama-70b": False,
        "bare": True,
        "old": False,
        "leaving": True,
    }
    assert models["Meta/Llama-70b"]["missing"] == ["NEEDY_KEY"]
    assert models["bare"]["missing"] == []
    assert (models["old"]["deprecated_on"], models["old"]["successor"]) == ("2021-05-06", "bare")


@pytest.mark.parametrize("path", ["Meta/Llama-70b", "Meta%2FLlama-70b", "meta/llama-70B", "META%2fLLAMA-70B", "l70", "L70"])
async def test_an_id_is_found_with_its_slash_raw_or_escaped_in_any_case_or_by_an_alias(client: Client, path: str) -> None:
    code, _, model = parse_response(await client.send_raw(encode_request(method="GET", path=f"/v1/models/{path}")))

    assert (code, model["id"]) == (200, "Meta/Llama-70b")


async def test_any_id_of_a_provider_is_a_callable_model(client: Client) -> None:
    model = (await client.send("GET", "/v1/models/needy/whatever%3Ffree")).json

    assert (model["id"], model["upstream_id"], model["provider"]) == ("needy/whatever?free", "whatever?free", "needy")
    assert (model["is_chat"], model["ready"]) == (True, False)


@pytest.mark.parametrize("name", ["bar", "nothing/here", "x" * 2000, "%ff"])
async def test_an_unknown_id_is_404_with_an_envelope(client: Client, name: str) -> None:
    code, _, body = parse_response(await client.send_raw(encode_request(method="GET", path=f"/v1/models/{name}")))

    assert code == 404
    assert (body["error"]["code"], body["error"]["param"]) == ("model_not_found", "model")
    assert len(body["error"]["message"]) < 500
    if name == "bar":
        assert "did you mean `bare`" in body["error"]["message"]


async def test_the_shipped_configuration_has_the_embedded_models_ready_and_names_what_others_lack() -> None:
    async with serve() as server:
        models = {model["id"]: model for model in (await Client(server).send("GET", "/v1/models")).json["data"]}

    assert {name for name, model in models.items() if model["ready"]} == {"local/ngram-2", "local/ngram-3", "local/ngram-5"}
    assert models["gpt-6-sol"]["missing"] == ["OPENAI_API_KEY"]
    assert all(model["missing"] or model["ready"] or model["deprecated_on"] for model in models.values())


async def test_the_list_can_be_of_ready_models_alone(client: Client) -> None:
    async def list_ids(query: str) -> list[str]:
        return [model["id"] for model in (await client.send("GET", f"/v1/models?{query}")).json["data"]]

    assert await list_ids("ready=true") == ["bare", "leaving"]
    assert await list_ids("ready=false") == ["Meta/Llama-70b", "old"]
    wrong = await client.send("GET", "/v1/models?ready=yes")
    assert (wrong.status, wrong.params) == (400, ["ready"])


async def test_an_id_that_its_provider_cannot_have_is_not_found(client: Client) -> None:
    """Of most providers the ids are not known, and any may be called."""
    reply = await client.send("GET", "/v1/models/local/nix")

    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert (await client.send("GET", "/v1/models/local/ngram-2")).status == 200
    assert (await client.send("GET", "/v1/models/needy/anything")).status == 200


async def test_the_operator_may_have_ready_models_listed_alone(tmp_path: Path) -> None:
    path = tmp_path / "providers.json"
    path.write_text(json.dumps(CONFIG))
    async with serve(path, FANOUT_LISTED_MODELS="ready") as server:
        client = Client(server)
        listed = {
            query: [model["id"] for model in (await client.send("GET", f"/v1/models{query}")).json["data"]]
            for query in ("", "?ready=true", "?ready=false")
        }
        hidden = await client.send("GET", "/v1/models/old")

    assert listed == {
        "": ["bare", "leaving"],
        "?ready=true": ["bare", "leaving"],
        "?ready=false": ["Meta/Llama-70b", "old"],
    }
    assert hidden.json["ready"] is False


async def test_azures_clients_find_the_models_too(client: Client) -> None:
    listed = await client.send("GET", "/openai/models?api-version=2024-10-21", headers={"api-key": "any"})
    one = await client.send("GET", "/openai/models/meta/llama-70b?api-version=2024-10-21")

    assert listed.json == (await client.send("GET", "/v1/models")).json
    assert one.json["id"] == "Meta/Llama-70b"


async def test_a_provider_whose_models_are_all_known_has_no_others(embedded_client: Client) -> None:
    for path in ("/v1/models/local/nix", "/openai/models/local/nix"):
        reply = await embedded_client.send("GET", path)
        assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
