"""The lines of OpenAI's batches: those of the input as requests, and those of the output and error files made of the results.

Each line of the input is what the body of its endpoint would be, validated by the same model; each line of the output is that
endpoint's whole answer for one entry of `model`.
Source: `BatchRequestInput` and `BatchRequestOutput`, https://github.com/openai/openai-openapi
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from fanout.core.errors import RequestError
from fanout.core.faults import Fault, to_faults
from fanout.core.schema import Call, Failure, Outcome
from fanout.dispatch.plan import Request
from fanout.jobs.job import Job, JobSpec, place_calls
from fanout.jobs.manager import JobManager
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.rendering.encoding import encode_json
from fanout.rendering.errors import all_failed_reply
from fanout.server.dialects.openai import respond
from fanout.server.dialects.openai.bodies import OpenAiBody
from fanout.server.dialects.openai.chat import CHAT, ChatBody
from fanout.server.dialects.openai.completions import TEXT, CompletionsBody
from fanout.server.dialects.openai.stream import Dialect
from fanout.server.request_body import validate_body
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import EndedUnit, InputItem
from fanout.store.jobs.results import ItemResults

ENDPOINTS: Mapping[str, tuple[type[OpenAiBody], Dialect]] = {
    "/v1/chat/completions": (ChatBody, CHAT),
    "/v1/completions": (CompletionsBody, TEXT),
}
NOT_HERE = {
    "stream": "is not allowed: the answers of a batch come whole",
    "stream_options": "is not allowed: the answers of a batch come whole",
    "timeout_s": "is not allowed: the batch's `completion_window` is the deadline",
    "return_when": "is not allowed: a batch asks every entry",
}
ITEMS_AT_ONCE = 32
OUTPUT, ERRORS = "-output", "-error"
"""Ends of the ids of a batch's files."""
UNFINISHED: Mapping[str, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
"""State of the job → code and sentence of what was not asked."""


class Line(BaseModel):
    """A line of a batch's input."""

    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class LineRequestBuilder:
    """How a job understands such lines: see `job.RequestBuilder`."""

    def __init__(self, spec: JobSpec, account_id: str) -> None:
        self._url = spec.endpoint or ""
        self._model, _ = ENDPOINTS[self._url]
        self._account_id = account_id or None

    def parse_row(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        """The custom id of a line, and its body as JSON.

        Raises:
            RequestError: with every fault of the line.
        """
        try:
            line = Line.model_validate(dict(values))
        except ValidationError as error:
            raise RequestError(to_faults(error, Line)) from None
        faults = []
        if line.url != self._url:
            faults.append(Fault("url", f"`{line.url[:100]}` is not the batch's endpoint, `{self._url}`", "mismatched_endpoint"))
        faults += [Fault(f"body.{name}", why) for name, why in NOT_HERE.items() if line.body.get(name) not in (None, False)]
        raw = to_json(line.body)
        try:
            between = list(dict.fromkeys(validate_body(raw, self._model).faults()))
        except RequestError as error:
            between = list(error.faults)
        faults += [replace(fault, path=f"body.{fault.path}" if fault.path else "body") for fault in between]
        if faults:
            raise RequestError(faults)
        return line.custom_id, raw.decode()

    def build_request(self, body: str) -> Request:
        """What such a line asks."""
        return respond.request_of(self._model.model_validate_json(body), account_id=self._account_id)


def output_id(batch: str) -> str:
    """The file of a batch's answers."""
    return f"file-{batch.removeprefix('batch_')}{OUTPUT}"


def error_id(batch: str) -> str:
    """The file of what a batch could not answer."""
    return f"file-{batch.removeprefix('batch_')}{ERRORS}"


def is_output(file: str) -> bool:
    return file.endswith(OUTPUT)


@dataclass(slots=True)
class Sizes:
    """Bytes of a batch's two files."""

    output: int = 0
    errors: int = 0


async def sizes(manager: JobManager, store: JobStore, job: Job) -> Sizes:
    """How large the files of a job are."""
    found = Sizes()
    async for written in _pages(manager, store, job):
        for good, line in written:
            if good:
                found.output += len(line)
            else:
                found.errors += len(line)
    return found


async def results(manager: JobManager, store: JobStore, job: Job, *, good: bool) -> AsyncIterator[bytes]:
    """One of the two files, piece by piece, in the order of the input.

    Args:
        good: the answers; else what could not be answered.
    """
    async for written in _pages(manager, store, job):
        yield b"".join(line for is_good, line in written if is_good is good)


async def _pages(manager: JobManager, store: JobStore, job: Job) -> AsyncIterator[list[tuple[bool, bytes]]]:
    after = -1
    while page := await store.results.list_items(job.number, after, ITEMS_AT_ONCE):
        after = page[-1][0].item
        yield await asyncio.to_thread(_written, manager, job, page)


def _written(manager: JobManager, job: Job, page: Sequence[ItemResults]) -> list[tuple[bool, bytes]]:
    found: list[tuple[bool, bytes]] = []
    for item, units in page:
        calls = sorted(place_calls(manager.plan_item(job, item.body)), key=lambda placed: placed[0])
        for entry, placed in groupby(calls, key=lambda placed: placed[0][0]):
            found.append(_line(job, item, entry, [(call, units.get(place)) for place, call in placed]))
    return found


def _line(job: Job, item: InputItem, entry: int, asked: Sequence[tuple[Call, EndedUnit | None]]) -> tuple[bool, bytes]:
    """Whether an entry was answered, and its line."""
    key = uuid.uuid5(uuid.NAMESPACE_OID, f"{job.id} {item.item} {entry}")  # the same however often it is read
    label = asked[0][0].target.label
    head = {"id": f"batch_req_{key.hex}", "custom_id": item.custom_id, "entry": entry, "model": label}
    outcomes = list(_outcomes(asked))
    if len(outcomes) < len(asked):
        code, sentence = UNFINISHED.get(job.state, ("batch_stopped", job.reason or "The batch has stopped."))
        return False, _json({**head, "response": None, "error": {"code": code, "message": sentence}})
    good = not all(isinstance(outcome.result, Failure) for outcome in outcomes)
    if good:
        _, dialect = ENDPOINTS[job.spec.endpoint or ""]
        created = int(max(row.ended for _, row in asked if row is not None))
        total_s = max(outcome.timing.total_s for outcome in outcomes)
        status, body = 200, respond.whole(outcomes, dialect, {"id": str(key), "created": created, "model": label}, total_s)
    else:
        failed = all_failed_reply(outcomes)
        status, body = failed.status, {"error": failed.error}
    response = {"status_code": status, "request_id": _request_id(outcomes) or str(key), "body": body}
    return good, _json({**head, "response": response, "error": None})


def _outcomes(asked: Sequence[tuple[Call, EndedUnit | None]]) -> Iterator[Outcome]:
    """The outcomes of those that have ended, numbered as if their entry had been asked alone."""
    index = 0
    for call, row in asked:
        if row is not None:
            yield StoredOutcome.from_json(row.record).to_outcome(replace(call, index=index))
        index += call.query.sampling.n or 1


def _request_id(outcomes: Sequence[Outcome]) -> str | None:
    """The provider's, of the first call that has one."""
    return next((outcome.result.request_id for outcome in outcomes if outcome.result.request_id), None)


def _json(value: Mapping[str, Any]) -> bytes:
    return encode_json(value) + b"\n"
