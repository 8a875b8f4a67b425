"""A host's list of its models, in every shape, and malformed ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from fanout.config.settings import load_settings
from fanout.core.errors import ProviderError
from fanout.core.schema import Failure
from fanout.providers.model_listing import list_models
from tests.support.upstream.canned import answer_with, serve_answers

SECRET = "sk-secret-0123456789"
ROWS = load_settings(environ={}).providers


async def list_or_fail(body: Any, *, provider: str = "groq", **answer: Any) -> list[str] | Failure:
    """Return the ids that a host lists, or its failure."""
    async with serve_answers(answer_with(body, **answer)) as served, aiohttp.ClientSession() as session:
        row = replace(ROWS[provider], base_url=served.url, key=SecretStr(SECRET))
        try:
            return [model["id"] for model in await list_models(row, session, 20)]
        except ProviderError as error:
            return error.failure


@pytest.mark.parametrize(
    "body",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}],
        {"models": [{"name": "a"}, {"name": "b"}]},
        {"data": [{"id": "a"}, "x", {"id": 7}, {"id": "b"}]},
    ],
)
async def test_a_list_is_read_in_every_shape(body: Any) -> None:
    assert await list_or_fail(body) == ["a", "b"]


async def test_the_key_is_sent_to_the_formats_own_path() -> None:
    for provider, path in (("groq", "/models"), ("ollama", "/api/tags")):
        async with serve_answers(answer_with({"data": []})) as served, aiohttp.ClientSession() as session:
            assert await list_models(replace(ROWS[provider], base_url=served.url, key=SecretStr(SECRET)), session, 20) == []
        ((requested, headers, _),) = served.requests
        assert (requested, headers["Authorization"]) == (path, f"Bearer {SECRET}")


@pytest.mark.parametrize(
    ("body", "answer", "kind"),
    [
        (b"<html>", {"content_type": "text/html"}, "malformed"),
        ({"hello": "there"}, {}, "malformed"),
        ({"data": "none"}, {}, "malformed"),
        ({"error": {"message": f"no such key {SECRET}"}}, {"status": 401}, "auth"),
        ({"detail": f"Not Found {SECRET}"}, {"status": 404}, "not_found"),
        (b"", {"status": 302}, "server"),
    ],
)
async def test_a_malformed_list_is_a_failure_that_does_not_show_the_key(body: Any, answer: dict[str, Any], kind: str) -> None:
    failure = await list_or_fail(body, **answer)

    assert isinstance(failure, Failure)
    assert failure.kind == kind
    assert SECRET not in repr(failure)


async def test_an_endless_list_is_abandoned() -> None:
    failure = await list_or_fail(b" " * (8 * 2**20 + 1))

    assert isinstance(failure, Failure)
    assert failure.code == "answer_too_large"


async def test_a_format_without_a_list_is_reported() -> None:
    failure = await list_or_fail({}, provider="anthropic")

    assert isinstance(failure, Failure)
    assert failure.kind == "unsupported"
