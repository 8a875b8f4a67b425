"""`POST /v1/completion`: one prompt, many models. Thiggle's dialect, and what Fanout adds to it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import Field, ValidationInfo, field_validator

from fanout.config.catalogue import Catalogue
from fanout.core.choices import list_choices
from fanout.core.merge import merge
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Comparison, CompletionChoice, Delta, Failure, Outcome
from fanout.core.units import to_ms, to_rfc3339
from fanout.core.usage import UsageTotals, total_tokens
from fanout.dispatch.plan import Request
from fanout.rendering.choices import adjusted, ended, legacy_logprobs, place
from fanout.rendering.encoding import encode_json
from fanout.rendering.errors import all_failed_reply, render_failure
from fanout.server import request_body
from fanout.server.event_stream import respond
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth, history
from fanout.server.request_body import EntryBody, Metadata, Models, ReturnWhen, SamplingBody
from fanout.server.responses import error_response, json_response


class CompletionBody(SamplingBody):
    """A request for one completion by each of several models."""

    prompt: str
    model: Models
    """A model, an object with a model and parameters of its own, or a list of either."""
    system: str | None = None
    """A system message, for chat models."""
    stream: bool | None = None
    strict_parameters: bool | None = None
    """What a model cannot take fails its entry instead of being ignored or adjusted."""
    timeout_s: float | None = Field(None, gt=0)
    """The deadline of it all."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours, returned and recorded."""
    dry_run: bool | None = None
    """Answers with what would be called, and calls nothing."""

    @field_validator("model")
    @classmethod
    def _best_of_all_entries(cls, value: list[EntryBody], info: ValidationInfo) -> list[EntryBody]:
        for number, entry in enumerate(value):
            n, best_of = _of_entry(entry, "n", info), _of_entry(entry, "best_of", info)
            if best_of and best_of < (n or 1):
                raise ValueError(f"entry {number}: its `best_of`, {best_of}, must not be below its `n`, {n}")
        return value

    @field_validator("stream")
    @classmethod
    def _streamable(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and any((_of_entry(entry, "best_of", info) or 0) > 1 for entry in info.data.get("model", ())):
            raise ValueError("`best_of` above 1 cannot be streamed: the best is known only at the end")
        return value

    @field_validator("timeout_s")
    @classmethod
    def _within_maximum(cls, value: float | None, info: ValidationInfo) -> float | None:
        if info.context and (problem := request_body.explain_timeout(value, info.context["max_timeout_s"])):
            raise ValueError(problem)
        return value

    @field_validator("return_when")
    @classmethod
    def _within_entries(cls, value: int | None, info: ValidationInfo) -> int | None:
        entries = request_body.MAX_ENTRIES
        if info.context and "model" in info.data:
            entries = _count(info.data["model"], info.context["catalogue"])
        if problem := request_body.explain_return_when(value, entries):
            raise ValueError(problem)
        return value


def _of_entry(entry: EntryBody, name: str, info: ValidationInfo) -> int | None:
    """What an entry asks, its own word first: a `null` of its own takes the body's back."""
    value: int | None = getattr(entry, name) if name in entry.model_fields_set else info.data.get(name)
    return value


def _count(entries: Sequence[EntryBody], catalogue: Catalogue) -> int:
    """The entries that the names stand for, sets written out."""
    sets = [catalogue.find_set(entry.model) for entry in entries if not catalogue.find(entry.model)]
    return len(entries) + sum(len(members) - 1 for members in sets if members)


async def completion(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/completion`."""
    created, began = time.time(), time.monotonic()
    dispatcher = request.app[DISPATCHER]
    asked = await request_body.read_body(request, CompletionBody)
    calls = dispatcher.plan(_request_of(asked, request))
    head = _head(created)
    if asked.dry_run:
        return json_response({**head, "calls": [_dry(call) for call in calls]})
    history.begin_comparison(request, head["id"], created, stream=asked.stream, metadata=asked.metadata)
    deadline_s = asked.timeout_s or dispatcher.settings.environment.timeout_s
    if asked.stream:
        writer = _Frames(head, calls, int(created), asked.metadata or {}, began)
        return await respond(request, writer, calls, deadline_s, asked.return_when)
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s, return_when=asked.return_when)
    if all(isinstance(outcome.result, Failure) for outcome in outcomes):
        return error_response(request, all_failed_reply(outcomes))
    comparison = merge(outcomes, created=created, total_s=time.monotonic() - began, metadata=asked.metadata)
    return json_response(comparison_json(comparison, head))


def comparison_json(comparison: Comparison, head: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The answer of `POST /v1/completion`."""
    choices = [choice_json(choice) for choice in comparison.choices]
    return {**(head or _head(comparison.created)), "choices": choices, **_end_json(comparison)}


def _head(created: float) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "object": "text_completion", "created": to_rfc3339(created)}


def _request_of(asked: CompletionBody, request: web.Request) -> Request:
    return Request(
        entries=tuple(entry.to_entry() for entry in asked.model),
        prompts=(asked.prompt,),
        system=asked.system,
        sampling=Sampling(**asked.to_parameters()),
        strict=bool(asked.strict_parameters),
        credentials=auth.caller_credentials(request),
        account_id=auth.account_id(request),
    )


def choice_json(choice: CompletionChoice) -> dict[str, Any]:
    """One answer, whole."""
    outcome, call = choice.outcome, choice.outcome.call
    result = outcome.result
    text = choice.choice.message.text if choice.choice else (result.partial or "" if isinstance(result, Failure) else "")
    return {
        "index": choice.index,
        "entry": call.entry,
        "sample": call.sample,
        "model": call.target.name,
        "label": call.target.label,
        "text": text,
        "created": choice.created,
        "logprobs": legacy_logprobs(choice.choice.logprobs, 0) if choice.choice and choice.choice.logprobs else None,
        **ended(outcome, choice.choice),
    }


def _end_json(comparison: Comparison) -> dict[str, Any]:
    """What is said of the whole."""
    totals: UsageTotals = comparison.totals
    return {
        "usage": {
            "prompt_tokens": totals.input_tokens,
            "completion_tokens": totals.output_tokens,
            "total_tokens": total_tokens(totals.input_tokens, totals.output_tokens),
            "cached_tokens": totals.cached_tokens,
            "prediction_time_ms": to_ms(comparison.total_s),
            "unknown": totals.unknown_usage,
        },
        "cost_usd": totals.cost_usd,
        "cost_unknown": totals.cost_unknown,
        "timing": {"total_ms": to_ms(comparison.total_s), "overhead_ms": to_ms(comparison.overhead_s)},
        "metadata": comparison.metadata,
    }


class _Frames:
    """The chunks of a streamed comparison. A piece of text costs one small dump: the rest of its chunk is made once a call."""

    def __init__(
        self, head: Mapping[str, Any], calls: Sequence[Call], created: int, metadata: Mapping[str, str], began: float
    ) -> None:
        self._head = encode_json(head)[:-1]
        self._created, self._metadata, self._began = created, metadata, began
        self._before = [self._head + b',"choices":[' + encode_json(place(call))[:-1] for call in calls]
        self._offsets: dict[int, int] = {}
        """Where the next token of a call's text stands in it; absent where it has said nothing yet."""

    def delta(self, piece: Delta) -> bytes:
        if piece.choice_index or (not piece.text and not piece.logprobs):
            return b""  # of a second choice nobody asked for: samples are calls of their own
        logprobs, offset = b"null", self._offsets.get(piece.call_index, 0)
        if piece.logprobs:
            logprobs = encode_json(legacy_logprobs(piece.logprobs, offset))
        self._offsets[piece.call_index] = offset + sum(len(item.token) for item in piece.logprobs or ())
        return b"".join(
            (
                b"data: ",
                self._before[piece.call_index],
                b',"text":',
                encode_json(piece.text),
                b',"logprobs":',
                logprobs,
                b',"finish_reason":null}]}\n\n',
            )
        )

    def outcome(self, outcome: Outcome) -> bytes:
        call, (choice,) = outcome.call, list_choices(outcome)
        whole = b""
        if choice and call.index not in self._offsets:  # it came whole, as the answer to `max_tokens: 0` does
            whole = self.delta(Delta(call.index, text=choice.message.text, logprobs=choice.logprobs))
        rest = encode_json({"text": "", "created": self._created, "logprobs": None, **ended(outcome, choice)})
        return b"".join((whole, b"data: ", self._before[call.index], b",", rest[1:], b"]}\n\n"))

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        comparison = merge(outcomes, created=self._created, total_s=time.monotonic() - self._began, metadata=self._metadata)
        return b"".join(
            (b"data: ", self._head, b',"choices":[],', encode_json(_end_json(comparison))[1:], b"\n\ndata: [DONE]\n\n")
        )


def _dry(call: Call) -> dict[str, Any]:
    """A call that would be made."""
    query = call.query
    messages = [asdict(message) for message in query.messages] if query.messages is not None else None
    return {
        **place(call),
        "provider": call.target.provider,
        "upstream_model": call.target.model,
        "kind": call.target.kind,
        "messages": [{"role": message["role"], "content": message["content"]} for message in messages or ()] or None,
        "prompt": query.prompt,
        "parameters": call.fitted.sent,
        "ignored_parameters": call.fitted.ignored,
        "adjusted_parameters": adjusted(call),
        "error": render_failure(call.refusal) if call.refusal else None,
    }
