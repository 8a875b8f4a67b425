"""Rows of a job's input as requests: the prompt or its template, the row's own parameters before the job's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_core import from_json

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.sampling_fields import validate_sampling
from fanout.dispatch.plan import Entry, Request, parse_entries
from fanout.jobs.job import JobSpec
from fanout.jobs.row_parser import MESSAGES, SYSTEM_ROLES, RowItem, parse_row
from fanout.jobs.template import PromptTemplate

REQUEST_LINE_FIELDS = frozenset({"custom_id", "method", "url", "body"})


class RowRequestBuilder:
    """The `RequestBuilder` of jobs whose input is rows of prompts."""

    def __init__(
        self,
        entries: tuple[Entry, ...],
        *,
        template: str | None = None,
        system: str | None = None,
        sampling: Mapping[str, object] | None = None,
        strict: bool = False,
        repeats: int = 1,
        account_id: str | None = None,
        typed: bool = True,
    ) -> None:
        """Keep what all rows have in common. `sampling` holds the job's validated parameters.

        Raises:
            RequestError: the template cannot be used.
        """
        self._template = None if template is None else PromptTemplate(template)
        self._typed = typed
        self._entries, self._system, self._sampling = entries, system, sampling
        self._strict, self._repeats, self._account_id = strict, repeats, account_id

    def parse_row(self, values: Mapping[str, object]) -> tuple[str | None, str]:
        """Return the custom id of a row, and its body as JSON.

        Raises:
            RequestError: with every fault of the row.
        """
        item = parse_row(values, self._template, typed=self._typed)
        if isinstance(item, RowItem):
            return item.custom_id, item.to_json()
        raise RequestError(item)

    def build_request(self, body: str) -> Request:
        """Return the request of a stored row."""
        return build_request(
            from_json(body),
            entries=self._entries,
            system=self._system,
            sampling=self._sampling,
            strict=self._strict,
            repeats=self._repeats,
            account_id=self._account_id,
        )


def make_row_request_builder(spec: JobSpec, account_id: str) -> RowRequestBuilder:
    """Return the builder for a job of rows.

    Raises:
        RequestError: its models, parameters or template cannot be used.
    """
    faults: list[Fault] = []
    entries = parse_entries(spec.models, faults)
    sampling = validate_sampling(spec.parameters, "parameters.", faults)
    if "n" in sampling or any("n" in entry.overrides for entry in entries):
        faults.append(Fault("n", "is not a parameter of jobs: use `repeats`"))
    if spec.repeats < 1:
        faults.append(Fault("repeats", f"{spec.repeats} is not allowed: at least 1"))
    if faults:
        raise RequestError(faults)
    return RowRequestBuilder(
        entries,
        template=spec.template,
        system=spec.system,
        sampling=sampling,
        strict=spec.strict,
        repeats=spec.repeats,
        account_id=account_id or None,
        typed=spec.typed,
    )


def is_request_line(values: Mapping[str, object]) -> bool:
    """Return whether a row is a line of OpenAI's batches.

    Source: `BatchRequestInput`, https://github.com/openai/openai-openapi
    """
    return values.keys() >= REQUEST_LINE_FIELDS


def build_request(
    item: JsonObject,
    *,
    entries: tuple[Entry, ...],
    system: str | None = None,
    sampling: Mapping[str, object] | None = None,
    strict: bool = False,
    repeats: int = 1,
    account_id: str | None = None,
) -> Request:
    """Return the request of an item: an entry's own parameters before the row's, the row's before the job's.

    The item is `RowItem.body()`, also after a round trip through JSON; all else is the job's. A row that has a system message
    of its own does not get the job's.
    """
    parameters = {**(sampling or {}), **item.get("parameters", {})}
    if parameters.get("stop") is not None:
        parameters["stop"] = tuple(parameters["stop"])
    if repeats > 1:
        parameters["n"] = repeats  # planned as calls of their own, whatever the provider makes of `n`
    messages = _to_messages(item["messages"]) if "messages" in item else None
    if any(message.role in SYSTEM_ROLES for message in messages or ()):
        system = None
    return Request(
        entries=entries,
        prompts=(item["prompt"],) if messages is None else (),
        messages=messages,
        system=item.get("system", system),
        sampling=Sampling(**parameters),
        strict=strict,
        account_id=account_id,
    )


def _to_messages(messages: Sequence[JsonObject]) -> tuple[Message, ...]:
    return tuple(message.to_message() for message in MESSAGES.validate_python(messages, strict=True))
