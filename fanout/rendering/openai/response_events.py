"""Events of a streamed response, by their published names.

Every answer has items of its own, so the items of several models grow at the same time; `output_index` tells them apart.

Source: openai 3.51.0, `types/responses/response_stream_event.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, NotRequired

from typing_extensions import Doc, TypedDict

from fanout.core.json_text import encode_json
from fanout.core.merge import find_failure, get_finish_reason, has_answer, list_choices
from fanout.core.schema import Call, Choice, Delta, Outcome
from fanout.rendering.errors import ErrorJson, render_all_failed
from fanout.rendering.openai.answers import render_openai_totals
from fanout.rendering.openai.chat import RankedLogprobJson
from fanout.rendering.openai.growing_items import Event, OpenAnswer
from fanout.rendering.openai.output_items import OutputItemJson, OutputTextJson
from fanout.rendering.openai.responses import (
    ResponseChoiceJson,
    ResponseHeadJson,
    ResponseJson,
    assemble_response,
    render_response_choice,
)


class ResponseEventJson(TypedDict):
    """An event: a response's beginning or end, an item or a part of one, or a piece of its text."""

    type: Annotated[str, Doc("Name of the event, which stands in its `event` line too.")]
    sequence_number: Annotated[int, Doc("Running number.")]
    response: Annotated[NotRequired[ResponseJson], Doc("The response so far; at the end, all of it.")]
    output_index: Annotated[NotRequired[int], Doc("Position of the item in `output`.")]
    item: Annotated[NotRequired[OutputItemJson], Doc("The item.")]
    choice: Annotated[NotRequired[ResponseChoiceJson], Doc("With an answer's last item: the facts about that answer.")]
    item_id: Annotated[NotRequired[str], Doc("Id of the item.")]
    content_index: Annotated[NotRequired[int], Doc("Position of the part in the item.")]
    part: Annotated[NotRequired[OutputTextJson], Doc("The part.")]
    delta: Annotated[NotRequired[str], Doc("A piece of text.")]
    text: Annotated[NotRequired[str], Doc("The whole text.")]
    refusal: Annotated[NotRequired[str], Doc("The whole refusal.")]
    arguments: Annotated[NotRequired[str], Doc("The whole arguments.")]
    input: Annotated[NotRequired[str], Doc("The whole text for a tool that is no function.")]
    logprobs: Annotated[NotRequired[Sequence[RankedLogprobJson]], Doc("How likely the tokens are.")]


class ResponseEventEncoder:
    """Events as bytes."""

    def __init__(self, head: ResponseHeadJson, calls: Sequence[Call], began: float) -> None:
        self._head, self._began = head, began
        self._calls = {call.index: call for call in calls}
        self._output: list[OutputItemJson] = []
        self._answers: dict[tuple[int, int], OpenAnswer] = {}
        self._choices: dict[int, ResponseChoiceJson] = {}
        self._sent = 0

    def encode_delta(self, piece: Delta) -> bytes:
        """Return the events of a piece."""
        call = self._calls[piece.call_index]
        if piece.choice_index and piece.choice_index >= (call.query.sampling.n or 1):
            return b""  # beyond the samples that were requested, and its place is the next call's
        return self._begin() + self._encode(self._find_answer(piece.call_index, piece.choice_index).add(piece))

    def encode_outcome(self, outcome: Outcome) -> bytes:
        """Return the last events of a call's answers."""
        return self._begin() + b"".join(
            self._encode(self._end_answer(outcome, choice, number)) for number, choice in enumerate(list_choices(outcome))
        )

    def encode_end(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the end of the stream."""
        error: ErrorJson | None = None if has_answer(outcomes) else render_all_failed(outcomes).error
        # They were recorded in the order of their ends.
        choices = [self._choices[index] for index in sorted(self._choices)]
        totals = render_openai_totals(outcomes, time.monotonic() - self._began)
        response = assemble_response(self._head, self._output, choices, totals, error)
        return self._encode([(f"response.{response['status']}", {"response": {**response, "choices": choices}})])

    def _end_answer(self, outcome: Outcome, choice: Choice | None, number: int) -> Iterator[Event]:
        index = outcome.call.index
        if choice and (index, number) not in self._answers:  # an answer that came whole
            yield from self._find_answer(index, number).add(choice.to_delta(index, number))
        end = render_response_choice(outcome, choice, number, self._head["created_at"])
        self._choices[index + number] = end
        reason = get_finish_reason(choice, find_failure(outcome, choice))
        yield from self._find_answer(index, number).close(reason, end)

    def _find_answer(self, index: int, number: int) -> OpenAnswer:
        key = (index, number)
        if key not in self._answers:
            self._answers[key] = OpenAnswer(self._head["id"], index + number, self._output)
        return self._answers[key]

    def _begin(self) -> bytes:
        """Return the first events, once."""
        if self._sent:
            return b""
        response = {**assemble_response(self._head, [], [], None), "choices": []}
        return self._encode((name, {"response": response}) for name in ("response.created", "response.in_progress"))

    def _encode(self, events: Iterator[Event] | Sequence[Event]) -> bytes:
        frames = []
        for name, fields in events:
            data = encode_json({"type": name, "sequence_number": self._sent, **fields})
            self._sent += 1
            frames.append(b"".join((b"event: ", name.encode(), b"\ndata: ", data, b"\n\n")))
        return b"".join(frames)
