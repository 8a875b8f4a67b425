"""Rows of a job's input as requests: the prompt or its template, the row's own parameters before the job's. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import from_json

from fanout.core.errors import Fault, RequestError
from fanout.core.sampling import Sampling
from fanout.core.sampling_fields import validate_sampling
from fanout.dispatch.entries import parse_entries
from fanout.dispatch.request import Request
from fanout.jobs.job import JobSpec
from fanout.jobs.row_parser import MESSAGES, SYSTEM_ROLES, RowItem, parse_row
from fanout.jobs.template import PromptTemplate

REQUEST_LINE_FIELDS = frozenset({"custom_id", "method", "url", "body"})


class RowRequestBuilder:
    """The `RequestBuilder` of jobs whose input is rows of prompts."""

    def __init__(self, spec: JobSpec, account_id: str) -> None:
        """Keep what all rows have in common, or raise `RequestError` where models, parameters or template cannot be used."""
        faults: list[Fault] = []
        self._entries = parse_entries(spec.models, faults)
        self._sampling = validate_sampling(spec.parameters, "parameters.", faults)
        if "n" in self._sampling or any("n" in entry.overrides for entry in self._entries):
            faults.append(Fault("n", "is not a parameter of jobs: use `repeats`"))
        if spec.repeats < 1:
            faults.append(Fault("repeats", f"{spec.repeats} is not allowed: at least 1"))
        if faults:
            raise RequestError(faults)
        self._template = None if spec.template is None else PromptTemplate(spec.template)
        self._spec, self._account_id = spec, account_id or None

    def parse_row(self, values: Mapping[str, object]) -> tuple[str | None, str]:
        """Return the custom id of a row, and its body as JSON, or raise `RequestError` with every fault of the row."""
        item = parse_row(values, self._template, typed=self._spec.typed)
        if isinstance(item, RowItem):
            return item.custom_id, item.to_json()
        raise RequestError(item)

    def build_request(self, body: str) -> Request:
        """Return the request of a stored row: an entry's own parameters before the row's, the row's before the job's."""
        item = from_json(body)
        parameters = {**self._sampling, **item.get("parameters", {})}
        if parameters.get("stop") is not None:
            # JSON has made a list of it; parameters are hashed and shared, so they must not change. An empty one is none.
            parameters["stop"] = tuple(parameters["stop"]) or None
        if self._spec.repeats > 1:
            parameters["n"] = self._spec.repeats  # planned as calls of their own, whatever the provider makes of `n`
        messages = None
        if "messages" in item:
            messages = tuple(message.to_message() for message in MESSAGES.validate_python(item["messages"], strict=True))
        # The job's system message gives way: two of them would be a prompt that nobody has written.
        has_own_system = any(message.role in SYSTEM_ROLES for message in messages or ())
        return Request(
            entries=self._entries,
            prompts=(item["prompt"],) if messages is None else (),
            messages=messages,
            system=item.get("system", None if has_own_system else self._spec.system),
            sampling=Sampling(**parameters),
            strict=self._spec.strict,
            account_id=self._account_id,
        )


def is_request_line(values: Mapping[str, object]) -> bool:
    """Return whether a row is a line of OpenAI's batches.

    Source: `BatchRequestInput`, https://github.com/openai/openai-openapi
    """
    return values.keys() >= REQUEST_LINE_FIELDS
