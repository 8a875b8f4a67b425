"""The chunks of a stream in OpenAI's two dialects, each of one choice, and what whole answers have in common with them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from fanout.core.choices import list_choices
from fanout.core.merge import merge
from fanout.core.schema import Call, Choice, Completion, Delta, Outcome
from fanout.core.units import to_ms
from fanout.core.usage import total_tokens
from fanout.rendering.choices import ended, place
from fanout.rendering.encoding import encode_json

DONE = b"data: [DONE]\n\n"


class Dialect(ABC):
    """The shape of one of the two dialects' answers."""

    answer_object: str
    chunk_object: str

    @abstractmethod
    def answer(self, call: Call, choice: Choice | None, partial: str | None) -> dict[str, Any]:
        """A choice's own fields in a whole answer; where it failed, with the text that had arrived until then."""

    @abstractmethod
    def opening(self, first: Delta | None) -> dict[str, Any] | None:
        """What a choice's first chunk says before its first piece."""

    @abstractmethod
    def piece(self, call: Call, delta: Delta, offset: int) -> dict[str, Any] | None:
        """A piece's fields; `None` where there is nothing to say. `offset`: where its first token stands in the answer."""

    @abstractmethod
    def closing(self) -> dict[str, Any]:
        """The fields of a choice's last chunk."""


class Frames:
    """A stream's chunks. A piece of text costs one small dump: the rest of its chunk is made once for each choice."""

    def __init__(
        self, dialect: Dialect, head: Mapping[str, Any], calls: Sequence[Call], began: float, *, with_usage: bool
    ) -> None:
        self._dialect, self._head, self._began = dialect, head, began
        self._usage = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._with_usage = with_usage
        self._calls = {call.index: call for call in calls}
        self._before: dict[tuple[int, int], bytes] = {}
        self._offsets: dict[tuple[int, int], int] = {}
        """Where the next token of a choice stands in it; absent where it has said nothing yet."""

    def delta(self, piece: Delta) -> bytes:
        call, key = self._calls[piece.call_index], (piece.call_index, piece.choice_index)
        if piece.choice_index and piece.choice_index >= (call.query.sampling.n or 1):
            return b""  # nobody asked for it, and its place is the next call's
        offset = self._offsets.get(key, 0)
        fields = self._dialect.piece(call, piece, offset)
        if fields is None:
            return b""
        self._offsets[key] = offset + sum(len(token.token) for token in piece.logprobs) if piece.logprobs else offset
        return self._opened(key, piece) + self._chunk(key, fields, b'"finish_reason":null')

    def outcome(self, outcome: Outcome) -> bytes:
        frames = []
        for number, choice in enumerate(list_choices(outcome)):
            key = (outcome.call.index, number)
            if choice and key not in self._offsets:  # an answer that came whole
                frames.append(self.delta(_as_piece(*key, choice)))
            rest = {"created": self._head["created"], **end_of(outcome, choice, first=number == 0)}
            frames += [self._opened(key, None), self._chunk(key, self._dialect.closing(), encode_json(rest)[1:-1])]
        return b"".join(frames)

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        if not self._with_usage:
            return DONE
        totals = totals_of(outcomes, time.monotonic() - self._began)
        return b"".join((b"data: ", encode_json({**self._head, "choices": [], **totals}), b"\n\n", DONE))

    def _opened(self, key: tuple[int, int], first: Delta | None) -> bytes:
        """The choice's opening chunk, once."""
        if key in self._before:
            return b""
        call = self._calls[key[0]]
        where = place_of(call, key[1])
        head = encode_json({**self._head, "model": call.target.label})
        self._before[key] = b"".join((b"data: ", head[:-1], b',"choices":[', encode_json(where)[:-1], b","))
        fields = self._dialect.opening(first)
        return b"" if fields is None else self._chunk(key, fields, b'"finish_reason":null')

    def _chunk(self, key: tuple[int, int], fields: Mapping[str, Any], rest: bytes) -> bytes:
        return b"".join((self._before[key], encode_json(fields)[1:-1], b",", rest, b"}]", self._usage))


def place_of(call: Call, number: int) -> dict[str, Any]:
    """The place of the call's answer `number`."""
    return {**place(call), "index": call.index + number, "sample": call.sample + number}


def end_of(outcome: Outcome, choice: Choice | None, *, first: bool) -> dict[str, Any]:
    """What is known of a choice at its end; where one call gave several, what it took stands on the first."""
    fields, result = ended(outcome, choice), outcome.result
    usage = fields["usage"] if first and fields["usage"]["total_tokens"] is not None else None
    reasoning = result.usage.reasoning_tokens if isinstance(result, Completion) and result.usage else None
    fields["usage"] = usage and {**usage, **_details(usage["cached_tokens"], reasoning)}
    if not first:
        fields["cost_usd"] = fields["cost_source"] = None
    return fields


def totals_of(outcomes: Sequence[Outcome], total_s: float) -> dict[str, Any]:
    """What is said of the whole. OpenAI's usage holds numbers alone: where they are not known there is none."""
    comparison = merge(outcomes, created=0, total_s=total_s)
    totals, total_ms = comparison.totals, to_ms(total_s)
    total = total_tokens(totals.input_tokens, totals.output_tokens)
    usage = {
        "prompt_tokens": totals.input_tokens,
        "completion_tokens": totals.output_tokens,
        "total_tokens": total,
        **_details(totals.cached_tokens, _reasoning_tokens(outcomes)),
        "prediction_time_ms": total_ms,
        "unknown": totals.unknown_usage,
    }
    return {
        "usage": None if total is None else usage,
        "cost_usd": totals.cost_usd,
        "cost_unknown": totals.cost_unknown,
        "timing": {"total_ms": total_ms, "overhead_ms": to_ms(comparison.overhead_s)},
    }


def _details(cached: int | None, reasoning: int | None) -> dict[str, Any]:
    given = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return given if reasoning is None else {**given, "completion_tokens_details": {"reasoning_tokens": reasoning}}


def _reasoning_tokens(outcomes: Sequence[Outcome]) -> int | None:
    usages = (outcome.result.usage for outcome in outcomes if isinstance(outcome.result, Completion))
    known = [usage.reasoning_tokens for usage in usages if usage and usage.reasoning_tokens is not None]
    return sum(known) if known else None


def _as_piece(call_index: int, number: int, choice: Choice) -> Delta:
    said = choice.message
    calls = tuple({"index": place, **call} for place, call in enumerate(said.tool_calls))
    return Delta(call_index, number, said.text, said.reasoning, said.refusal, calls, choice.logprobs, said.extra)
