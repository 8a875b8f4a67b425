"""Input lines of OpenAI's batches: each is a request to an endpoint, validated as that endpoint validates its body.

Source: `BatchRequestInput`, https://github.com/openai/openai-openapi
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import to_json

from fanout.core.errors import Fault, RequestError
from fanout.core.faults import to_faults
from fanout.core.json_text import JsonObject
from fanout.core.long_lists import BoundedObject
from fanout.dispatch.request import Request
from fanout.jobs.job import JobSpec
from fanout.requests.bodies import validate_body
from fanout.requests.openai.bodies import OpenAiBody
from fanout.requests.openai.chat import ChatBody
from fanout.requests.openai.text import CompletionsBody

BODIES: Mapping[str, type[OpenAiBody]] = {"/v1/chat/completions": ChatBody, "/v1/completions": CompletionsBody}
"""Endpoint → its body."""
FORBIDDEN_FIELDS = {
    "stream": "is not allowed: the answers of a batch come whole",
    "stream_options": "is not allowed: the answers of a batch come whole",
    "timeout_s": "is not allowed: the batch's `completion_window` is the deadline",
    "return_when": "is not allowed: a batch asks every entry",
}


class BatchLine(BoundedObject):
    """A line of a batch's input."""

    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: JsonObject


class LineRequestBuilder:
    """Builder of requests from such lines: see `jobs.job.RequestBuilder`."""

    def __init__(self, spec: JobSpec, account_id: str) -> None:
        self._url = spec.endpoint or ""
        self._model = BODIES[self._url]
        self._account_id = account_id or None

    def parse_row(self, values: Mapping[str, object]) -> tuple[str | None, str]:
        """Return the custom id of a line, and its body as JSON.

        Raises:
            RequestError: with every fault of the line.
        """
        try:
            line = BatchLine.model_validate(dict(values))
        except ValidationError as error:
            raise RequestError(to_faults(error, BatchLine)) from None
        faults = []
        # Every line has its own `url`, but a batch is planned and priced as one endpoint's.
        if line.url != self._url:
            faults.append(Fault("url", f"`{line.url[:100]}` is not the batch's endpoint, `{self._url}`", "mismatched_endpoint"))
        faults += [
            Fault(f"body.{name}", why) for name, why in FORBIDDEN_FIELDS.items() if line.body.get(name) not in (None, False)
        ]
        # Validated as bytes, like a body that comes over HTTP: strict parsing differs between JSON and Python values.
        raw = to_json(line.body)
        try:
            wrong = list(dict.fromkeys(validate_body(raw, self._model).find_faults()))
        except RequestError as error:
            wrong = list(error.faults)
        faults += [replace(fault, path=f"body.{fault.path}" if fault.path else "body") for fault in wrong]
        if faults:
            raise RequestError(faults)
        return line.custom_id, raw.decode()

    def build_request(self, body: str) -> Request:
        """Return the request of a line's body."""
        # Validated already when the batch was created; once more is cheaper than storing a second form.
        return self._model.model_validate_json(body).to_request(account_id=self._account_id)
