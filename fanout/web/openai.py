"""What OpenAI's two dialects, text and chat, have in common: fields, entries, the envelope of answers and chunks.

Source: https://github.com/openai/openai-openapi; `repetition_penalty` and list-valued `model` are Konko's and Thiggle's.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json

from fanout.merge import merge
from fanout.plan import Entry, Request
from fanout.schema import Call, Choice, Completion, CompletionChoice, Delta, Failure, Outcome, Sampling, Totals
from fanout.web import keys
from fanout.web.answers import ended, place, sum_known
from fanout.web.body import INT64, Bias, ReturnWhen, Stop, check_request
from fanout.web.errors import all_failed
from fanout.web.sse import respond
from fanout.web.state import DISPATCHER, OUTCOMES

Dump = Callable[[Any], bytes]


class StreamOptions(BaseModel):
    """Source: `ChatCompletionStreamOptions`."""

    model_config = ConfigDict(extra="ignore", strict=True, use_attribute_docstrings=True)

    include_usage: bool | None = None
    """A last chunk without choices holds the totals."""
    include_obfuscation: bool | None = None


class OpenAiSampling(BaseModel):
    """The parameters that both dialects share. Fields not named here go on to OpenAI-compatible providers as they are."""

    model_config = ConfigDict(extra="allow", strict=True, use_attribute_docstrings=True)

    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    n: int | None = Field(None, ge=1, le=128)
    """Samples; one upstream call where the provider has `n`, else a call each."""
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: Stop | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=-2, le=2)
    """Multiplicative, 1 is neutral; for providers that have one. 0: not set."""
    logit_bias: dict[str, Bias] | None = None
    user: str | None = None

    def sampled(self) -> dict[str, Any]:
        """What was asked, by the names of `schema.Sampling`; a `null` that was written takes the request's value back."""
        given = {name: getattr(self, name) for name in self.model_fields_set & SHARED}
        if given.get("stop") is not None:
            given["stop"] = tuple(given["stop"])
        if given.get("repetition_penalty") == 0:
            given["repetition_penalty"] = None
        return given

    def passed_on(self) -> dict[str, Any]:
        """Fields that only some providers know."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}


SHARED = frozenset(OpenAiSampling.model_fields)


class OpenAiBody(BaseModel):
    """The fields of a request that are Fanout's or concern the answer as a whole. Mixed into each dialect's body."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    strict_parameters: bool | None = None
    """What a model cannot take fails its entry instead of being ignored."""
    timeout_s: float | None = Field(None, gt=0)
    """The deadline of it all."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled."""

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        return self


class Dialect(ABC):
    """The shape of one of the two dialects' answers."""

    answer_object: str
    chunk_object: str

    @abstractmethod
    def answer(self, choice: Choice | None, outcome: Outcome) -> dict[str, Any]:
        """A choice's own fields in a whole answer."""

    @abstractmethod
    def opening(self, call: Call) -> dict[str, Any] | None:
        """What a choice's first chunk says before its first piece."""

    @abstractmethod
    def piece(self, delta: Delta, offset: int) -> dict[str, Any] | None:
        """A piece's fields; `None` where there is nothing to say. `offset`: where its text stands in the answer."""

    @abstractmethod
    def closing(self) -> dict[str, Any]:
        """The fields of a choice's last chunk."""


async def answered(request: web.Request, asked: OpenAiBody, wanted: Request, dialect: Dialect) -> web.StreamResponse:
    """Plans, calls and answers, whole or streamed."""
    created, began = time.time(), time.monotonic()
    dispatcher = request.app[DISPATCHER]
    environment = dispatcher.settings.environment
    calls = dispatcher.plan(wanted)
    check_request(asked.timeout_s, asked.return_when, calls, environment.max_timeout_s)
    deadline_s = asked.timeout_s or environment.timeout_s
    labels = list(dict.fromkeys((call.entry, call.target.label) for call in calls))
    head = {"id": str(uuid.uuid4()), "created": int(created), "model": ",".join(label for _, label in labels)}
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        frames = Frames(dialect, {**head, "object": dialect.chunk_object}, calls, began, with_usage=usage)
        return await respond(request, frames, calls, deadline_s, asked.return_when)
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s, return_when=asked.return_when)
    request[OUTCOMES] = outcomes
    if all(isinstance(outcome.result, Failure) for outcome in outcomes):
        return all_failed(outcomes)
    comparison = merge(outcomes, created=created, total_s=time.monotonic() - began)
    whole = {
        **head,
        "object": dialect.answer_object,
        "choices": [_whole(choice, dialect) for choice in comparison.choices],
        "usage": _usage(comparison.totals, comparison.total_s),
        "system_fingerprint": _fingerprint(outcomes),
        "cost_usd": comparison.totals.cost_usd,
        "timing": {"total_ms": round(comparison.total_s * 1e3), "overhead_ms": round(comparison.overhead_s * 1e3)},
    }
    return web.Response(body=to_json(whole, inf_nan_mode="null"), content_type="application/json")


def request_of(
    request: web.Request,
    asked: OpenAiBody,
    *,
    entries: Sequence[Entry],
    given: Mapping[str, Any],
    passthrough: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    **question: Any,
) -> Request:
    """What is asked; `defaults` are the contract's own, which hold where the caller says nothing."""
    missing = {name: value for name, value in (defaults or {}).items() if given.get(name) is None}
    return Request(
        entries=tuple(entries),
        sampling=Sampling(**{**given, **missing}),
        passthrough=passthrough,
        defaults=frozenset(missing),
        strict=bool(asked.strict_parameters),
        native_n=True,
        credentials=keys.own_credentials(request),
        account_id=keys.account(request),
        **question,
    )


class Frames:
    """The chunks of a stream, each of one choice."""

    def __init__(
        self, dialect: Dialect, head: Mapping[str, Any], calls: Sequence[Call], began: float, *, with_usage: bool
    ) -> None:
        self._dialect, self._calls, self._began = dialect, calls, began
        self._usage = b',"usage":null' if with_usage else b""
        self._with_usage = with_usage
        self._head = b"data: " + to_json(head)[:-1]
        self._before: dict[tuple[int, int], bytes] = {}
        self._offsets: dict[tuple[int, int], int] = {}
        self._place = {call.index: number for number, call in enumerate(calls)}

    def delta(self, piece: Delta) -> bytes:
        key = (piece.call_index, piece.choice_index)
        offset = self._offsets.get(key, 0)
        fields = self._dialect.piece(piece, offset)
        if fields is None:
            return b""
        self._offsets[key] = offset + len(piece.text)
        return self._opened(key) + self._chunk(key, fields, b'"finish_reason":null')

    def outcome(self, outcome: Outcome) -> bytes:
        call, result = outcome.call, outcome.result
        choices = result.choices if isinstance(result, Completion) else (None,) * (call.query.sampling.n or 1)
        frames = []
        for number, choice in enumerate(choices):
            key = (call.index, number)
            rest = to_json(_ended(outcome, choice, first=number == 0), inf_nan_mode="null")[1:-1]
            frames += [self._opened(key), self._chunk(key, self._dialect.closing(), rest)]
        return b"".join(frames)

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        if not self._with_usage:
            return b"data: [DONE]\n\n"
        total_s = time.monotonic() - self._began
        comparison = merge(outcomes, created=0, total_s=total_s)
        usage = to_json(_usage(comparison.totals, total_s))
        return b"".join((self._head, b',"choices":[],"usage":', usage, b"}\n\ndata: [DONE]\n\n"))

    def _opened(self, key: tuple[int, int]) -> bytes:
        """The choice's opening chunk, once."""
        if key in self._before:
            return b""
        call = self._calls[self._place[key[0]]]
        where = {**place(call), "index": key[0] + key[1], "sample": call.sample + key[1]}
        self._before[key] = self._head + b',"choices":[' + to_json(where)[:-1] + b","
        fields = self._dialect.opening(call)
        return b"" if fields is None else self._chunk(key, fields, b'"finish_reason":null')

    def _chunk(self, key: tuple[int, int], fields: Mapping[str, Any], rest: bytes) -> bytes:
        dumped = to_json(fields, inf_nan_mode="null")[1:-1]
        return b"".join((self._before[key], dumped, b",", rest, b"}]", self._usage, b"}\n\n"))


def _whole(choice: CompletionChoice, dialect: Dialect) -> dict[str, Any]:
    outcome = choice.outcome
    return {
        **place(outcome.call),
        "index": choice.index,
        "sample": outcome.call.sample + choice.choice_index,
        **dialect.answer(choice.choice, outcome),
        **_ended(outcome, choice.choice, first=choice.choice_index == 0),
    }


def _ended(outcome: Outcome, choice: Choice | None, *, first: bool) -> dict[str, Any]:
    """What is known of a choice at its end; where one call gave several, its usage stands on the first."""
    fields = ended(outcome, choice)
    if not first or fields["usage"]["prompt_tokens"] is None:
        fields["usage"] = None
    if not first:
        fields["cost_usd"] = None
    return fields


def _usage(totals: Totals, total_s: float) -> dict[str, Any] | None:
    """OpenAI's usage, whose counts are numbers: where they are not known there is none."""
    if totals.input_tokens is None or totals.output_tokens is None:
        return None
    return {
        "prompt_tokens": totals.input_tokens,
        "completion_tokens": totals.output_tokens,
        "total_tokens": sum_known(totals.input_tokens, totals.output_tokens),
        "prompt_tokens_details": {"cached_tokens": totals.cached_input_tokens},
        "prediction_time_ms": round(total_s * 1e3),
        "unknown": totals.unknown,
    }


def _fingerprint(outcomes: Sequence[Outcome]) -> str | None:
    """The backend's fingerprint, where one alone answered."""
    found = {outcome.result.system_fingerprint for outcome in outcomes if isinstance(outcome.result, Completion)}
    return found.pop() if len(found) == 1 else None
