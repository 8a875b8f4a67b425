"""Rows as requests: what the row sets, what the job sets, and what storage between them keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fanout.core.errors import RequestError
from fanout.core.messages import ImagePart, Message, TextPart
from fanout.core.sampling import Sampling
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request
from fanout.jobs.job import JobSpec, RequestBuilder
from fanout.jobs.row_request import RowRequestBuilder, is_request_line

MODELS = ({"model": "a"}, {"model": "b", "temperature": 0.1})
ENTRIES = (Entry("a"), Entry("b", overrides={"temperature": 0.1}))
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def build(values: Mapping[str, Any], account_id: str = "", **spec: Any) -> Request:
    """Return the request of a row that was stored as JSON in between."""
    builder = RowRequestBuilder(JobSpec(models=MODELS, **spec), account_id)
    return builder.build_request(builder.parse_row(values)[1])


def test_settings_of_a_row_take_precedence_over_those_of_its_job() -> None:
    request = build(
        {"prompt": "Hi", "system": "Own", "temperature": 0.5, "stop": ["x"]},
        system="Job",
        parameters={"temperature": 1.0, "max_tokens": 5},
        strict=True,
        account_id="me",
    )
    assert request == Request(
        entries=ENTRIES,
        prompts=("Hi",),
        system="Own",
        sampling=Sampling(temperature=0.5, max_tokens=5, stop=("x",)),
        strict=True,
        account_id="me",
    )


def test_the_system_message_and_repeats_of_a_job_apply_to_every_row() -> None:
    request = build({"prompt": "Hi"}, system="Job", repeats=3)
    assert (request.system, request.sampling, request.native_n) == ("Job", Sampling(n=3), False)
    assert build({"prompt": "Hi"}).sampling == Sampling()


def test_messages_of_a_row_become_messages_of_the_request() -> None:
    messages = [{"role": "user", "name": "Al", "content": [{"type": "text", "text": "What?"}, IMAGE]}]
    request = build({"messages": messages}, system="Job")
    parts = (TextPart("What?"), ImagePart("https://example.org/a.png"))
    assert (request.prompts, request.messages) == ((), (Message("user", parts, {"name": "Al"}),))
    assert request.system == "Job"


def test_a_system_message_in_the_row_replaces_that_of_the_job() -> None:
    request = build({"messages": [{"role": "system", "content": "Own"}, {"role": "user", "content": "Hi"}]}, system="Job")
    assert request.system is None


def test_a_row_survives_storage_between_parsing_and_sending() -> None:
    """As the worker drives it: from a row to JSON, and from that to a request."""
    spec = JobSpec(models=MODELS, template="Say {{word}}", parameters={"seed": 1}, repeats=2, typed=False)
    builder: RequestBuilder = RowRequestBuilder(spec, "")
    custom_id, body = builder.parse_row({"word": "hi", "custom_id": "1", "temperature": "0.5"})
    assert custom_id == "1"
    request = builder.build_request(body)
    assert request.prompts == ("Say hi",)
    assert request.sampling == Sampling(seed=1, temperature=0.5, n=2)
    with pytest.raises(RequestError, match="word: is a variable"):
        builder.parse_row({})


def test_a_line_of_openais_batches_is_known_as_such() -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}
    assert is_request_line(line)
    assert not is_request_line({"custom_id": "1", "prompt": "x", "url": "y"})
