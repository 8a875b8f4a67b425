"""`/openapi.json` describes every behaviour of the server, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from fanout.server.endpoints import ENDPOINTS
from fanout.server.openapi.document import make_document
from fanout.server.openapi.endpoint import JSON, Endpoint
from tests.support.cli import serve_fanout as command
from tests.support.client import Reply
from tests.support.dialects import post
from tests.support.server import Server, serve
from tests.support.shapes import BY_ROUTE, check_answer, check_content

EMBEDDED = {
    "extends": False,
    "providers": {"local": {"adapter": "ngram", "default_kind": "both"}},
    "models": {f"local/ngram-{n}": {"provider": "local", "id": f"ngram-{n}", "kind": "both"} for n in (2, 3, 5)},
    "sets": {"embedded": ["local/ngram-2", "local/ngram-5"]},
}
CHECKS = (
    "status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,"
    "unsupported_method,allow_header_conformance"
)
PATIENCE_S = 400


on_one_loop = pytest.mark.asyncio(loop_scope="module")
"""For tests of a server that all of them share."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain_server() -> AsyncIterator[Server]:
    """A server as it is on a fresh machine."""
    async with serve(FANOUT_STORE=":memory:") as server:
        yield server


KEY = "key-one-abcdefghij"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def administered_server() -> AsyncIterator[Server]:
    """A server with a key, to which others can be added without an end of its being open."""
    async with serve(FANOUT_STORE=":memory:", FANOUT_API_KEYS=KEY) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow_server() -> AsyncIterator[Server]:
    """A server that takes small bodies alone, with a key."""
    async with serve(FANOUT_API_KEYS=KEY, FANOUT_MAX_BODY_BYTES="2000", FANOUT_STORE=":memory:") as server:
        yield server


async def fetch_document(server: Server) -> dict[str, Any]:
    async with server.session.get("/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        found: dict[str, Any] = await response.json()
        return found


EXAMPLES = [(endpoint.route, name) for endpoint in ENDPOINTS if endpoint.body for name in endpoint.examples]
POSTED = [endpoint.route for endpoint in ENDPOINTS if endpoint.body]
LOOKED_UP = [
    "/v1/comparisons",
    "/v1/models",
    "/v1/models/local/ngram-5",
    "/v1/usage",
    "/v1/files",
    "/v1/batches",
    "/v1/jobs",
    "/v1/votes",
    "/v1/providers",
    "/v4/models",
    "/user-info",
    "/livez",
    "/readyz",
]


@on_one_loop
async def test_the_document_is_valid(plain_server: Server) -> None:
    assert list(OpenAPIV31SpecValidator(await fetch_document(plain_server)).iter_errors()) == []


@on_one_loop
async def test_every_endpoint_is_described_and_served_and_nothing_else(plain_server: Server) -> None:
    paths = (await fetch_document(plain_server))["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    unserved = []
    for method, path in described:
        examples = {name: example for name, (_, example) in BY_ROUTE[method, path].path_parameters.items()}
        async with plain_server.session.request("PROPFIND", path.format(**examples)) as reply:
            unserved += [] if method in reply.headers.get("Allow", "").split(",") else [path]

    assert described == set(BY_ROUTE)
    assert unserved == []


def test_the_document_has_the_given_endpoints_and_only_their_schemas() -> None:
    made = make_document([BY_ROUTE["GET", "/livez"]], description="")

    assert list(made["paths"]) == ["/livez"]
    assert {"Status", "ErrorAnswer"} <= made["components"]["schemas"].keys()
    assert "Model" not in made["components"]["schemas"]


def test_every_endpoint_has_its_own_id_and_states_whether_it_needs_a_key() -> None:
    ids = [endpoint.id for endpoint in ENDPOINTS]
    public = {endpoint.path for endpoint in ENDPOINTS if endpoint.is_public}

    assert len(set(ids)) == len(ids)
    page = {"/", "/assets/{digest}/{name:.+}", "/favicon.ico"}
    assert public == {"/livez", "/health", "/readyz", "/docs", "/openapi.json", *page}
    assert all((401 in endpoint.answers) != endpoint.is_public for endpoint in ENDPOINTS)


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/operations.md"])
def test_the_documents_name_all_paths_that_are_open_without_a_key(document: str) -> None:
    text = (Path(__file__).parents[3] / document).read_text()
    sentence = next(line for line in text.splitlines() if "`/livez`, `/health`, `/readyz`" in line)

    assert [
        endpoint.template for endpoint in ENDPOINTS if endpoint.is_public and f"`{endpoint.template}`" not in sentence
    ] == []


@on_one_loop
async def test_every_field_of_a_request_has_a_description(plain_server: Server) -> None:
    schemas = (await fetch_document(plain_server))["components"]["schemas"]
    bodies = {endpoint.body.__name__ for endpoint in ENDPOINTS if endpoint.body}

    assert [
        f"{name}.{field}"
        for name in bodies
        for field, schema in schemas[name]["properties"].items()
        if "description" not in schema
    ] == []


@on_one_loop
@pytest.mark.parametrize(("route", "name"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else value[1])
async def test_every_example_works_and_has_a_documented_answer(
    route: tuple[str, str], name: str, administered_server: Server
) -> None:
    endpoint = BY_ROUTE[route]
    place = {parameter: example for parameter, (_, example) in endpoint.path_parameters.items()}
    got = await post(administered_server, route[1].format(**place), endpoint.examples[name], headers=AUTHORIZATION)

    assert got.status in (200, 201)
    check_answer(route, got)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.id)
def test_every_example_of_an_answer_has_the_documented_shape(endpoint: Endpoint) -> None:
    for answer in endpoint.answers.values():
        for example in answer.examples.values():
            check_content(example, answer.content[JSON])


@on_one_loop
@pytest.mark.parametrize("path", LOOKED_UP)
async def test_every_lookup_has_a_documented_answer(path: str, plain_server: Server) -> None:
    route = ("GET", "/v1/models/{model}" if path.startswith("/v1/models/") else path)
    async with plain_server.session.get(path) as response:
        check_answer(route, Reply(response.status, response.headers, await response.read()))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["/v1/completion", "/v1/completions", "/v1/chat/completions"])
async def test_answers_and_failures_of_other_providers_have_documented_shapes(
    path: str, stream: bool, dialect_server: Server
) -> None:
    models = ["up/ok", "up/cached-3", "up/no_usage", "up/429-s-0.2", "up/cut", "up/error-502", "nobody", "up/finish-odd"]
    question = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
    body = {"model": models, "stream": stream, "top_k": 3, "temperature": 0.5, **question}

    got = await post(dialect_server, path, body)

    assert got.status == 200
    check_answer(("POST", path), got)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["up/ok", "up/cut", "up/429-s-0.2", "up/402", "up/500", "nobody", "narrow/ok"])
@pytest.mark.parametrize("path", ["/v1/completion", "/v1/chat/completions", "/v4/completions", "/v4/chat-completions"])
async def test_every_status_of_a_single_call_is_documented(path: str, model: str, stream: bool, dialect_server: Server) -> None:
    question = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}

    check_answer(("POST", path), await post(dialect_server, path, {"model": model, "stream": stream, **question}))


async def test_a_missed_deadline_has_a_documented_answer(dialect_server: Server) -> None:
    got = await post(dialect_server, "/v1/completion", {"model": ["up/hang", "up/first-5"], "prompt": "hi", "timeout_s": 0.2})

    assert got.status == 504
    check_answer(("POST", "/v1/completion"), got)


@on_one_loop
@pytest.mark.parametrize("route", POSTED, ids=lambda route: route[1])
async def test_every_refusal_is_documented(route: tuple[str, str], narrow_server: Server) -> None:
    path = re.sub(r"\{\w+\}", "some", route[1])
    invalid = 422 if 422 in BY_ROUTE[route].answers else 400
    key = AUTHORIZATION
    sent: list[tuple[int, dict[str, Any]]] = [
        (401, {"json": {}}),
        (invalid, {"data": b"{", "headers": {**key, "Content-Type": JSON}}),
        (invalid, {"json": {"model": 3, "temperature": 9}, "headers": key}),
        (413, {"json": {"model": "m" * 3000}, "headers": key}),
        (415, {"data": b"{}", "headers": {**key, "Content-Type": "text/plain"}}),
    ]
    for status, request in sent:
        async with narrow_server.session.request(route[0], path, **request) as response:
            assert response.status == status
            check_answer(route, Reply(response.status, response.headers, await response.read()))


async def test_generated_requests_have_documented_answers(tmp_path: Path) -> None:
    """Schemathesis against the real command: no undocumented status, type or shape, and no 500."""
    config = tmp_path / "embedded.json"
    config.write_text(json.dumps(EMBEDDED))
    # With a key, or the first one that is created would close the door to all requests behind it.
    async with command("--config", str(config), FANOUT_LOG_LEVEL="error", FANOUT_API_KEYS=KEY) as address:
        run = await asyncio.to_thread(run_schemathesis, address, tmp_path)

    assert run.returncode == 0, run.stdout[-6000:]
    assert re.search(r"(\d+) generated, \1 passed", run.stdout), run.stdout[-2000:]


def run_schemathesis(address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with a document without status 500, which is then always a fault."""
    read = subprocess.run(["curl", "-sf", f"{address}/openapi.json"], capture_output=True, check=True)
    known = json.loads(read.stdout)
    for methods in known["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("500", None)
    (folder / "openapi.json").write_text(json.dumps(known))
    run = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", address, "--checks", CHECKS, "--seed", "1"]
    bounds = ["--phases", "examples,coverage,fuzzing", "--max-examples", "4", "--continue-on-failure", "--warnings", "off"]
    # Paths of the same handler and body as another one.
    twins = ("/v2/completions", "/v3/completions", "/tokenize", "/openai/deployments/{model}/embeddings")
    aside = [
        "--header",
        f"Authorization: Bearer {KEY}",
        *(word for path in twins for word in ("--exclude-path", path)),
        "--generation-database",
        "none",
    ]
    return subprocess.run(
        [*run, *bounds, *aside, "--no-color"], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
