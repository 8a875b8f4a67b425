"""`POST /v1/completion`, the main endpoint: one prompt to many models, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from aiohttp import web

from fanout.core.json_text import encode_json
from fanout.core.merge import has_answer, list_choices, merge
from fanout.core.schema import Call, Delta, Outcome
from fanout.rendering.choices import render_legacy_logprobs, render_place
from fanout.rendering.comparison import (
    ComparisonChunkJson,
    ComparisonHeadJson,
    ComparisonJson,
    DryRunJson,
    render_choice_end,
    render_comparison,
    render_dry_run,
    render_head,
    render_totals,
)
from fanout.rendering.errors import render_all_failed
from fanout.requests.thiggle import CompletionBody
from fanout.server.accounts.admission import admit, restrict
from fanout.server.accounts.callers import find_caller
from fanout.server.dialects.thiggle import examples
from fanout.server.event_stream import respond
from fanout.server.lifecycle import DISPATCHER
from fanout.server.live_comparisons import LIVE_COMPARISONS, LiveComparison, follow
from fanout.server.middleware import auth, history
from fanout.server.openapi.endpoint import Endpoint, Events, list_call_answers
from fanout.server.request_body import read_completion_body, work_on_body
from fanout.server.responses import answer_response, error_response, json_response


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/completion`."""
    created, began = time.time(), time.monotonic()
    dispatcher = request.app[DISPATCHER]
    body, prompt = await read_completion_body(request)
    credentials, account_id = auth.find_caller_credentials(request), auth.choose_account(request)
    calls: Sequence[Call] = await work_on_body(
        request, lambda: dispatcher.plan(body.to_request(prompt, credentials, account_id))
    )
    head = render_head(created)
    if body.dry_run:
        calls = await restrict(find_caller(request), dispatcher, calls)
        return json_response(render_dry_run(calls, head))
    calls = await admit(request, calls)
    # Before any call, so that the history also has a request whose client disconnects.
    history.begin_comparison(request, head["id"], created, stream=body.stream, metadata=body.metadata)
    deadline_s = body.timeout_s or dispatcher.settings.environment.timeout_s
    if body.stream:
        encoder = ComparisonEncoder(head, calls, int(created), body.metadata or {}, began)
        if body.resumable:
            live = LiveComparison(head["id"], auth.find_account(request), calls)
            request.app[LIVE_COMPARISONS].start(request, encoder, live, deadline_s, body.return_when)
            return await follow(request, live, 0)
        return await respond(request, encoder, calls, deadline_s, body.return_when)
    outcomes = await dispatcher.run(calls, deadline_s=deadline_s, return_when=body.return_when)
    if not has_answer(outcomes):
        return error_response(request, render_all_failed(outcomes))
    total_s = time.monotonic() - began

    def render() -> ComparisonJson:
        return render_comparison(merge(outcomes, created=created, total_s=total_s, metadata=body.metadata), head)

    return await answer_response(outcomes, render)


class ComparisonEncoder:
    """Chunks of a stream. A piece of text costs one small dump: the rest of its chunk is made once for each call."""

    def __init__(
        self, head: ComparisonHeadJson, calls: Sequence[Call], created: int, metadata: Mapping[str, str], began: float
    ) -> None:
        self._head = encode_json(head)[:-1]
        self._created, self._metadata, self._began = created, metadata, began
        self._before = [self._head + b',"choices":[' + encode_json(render_place(call))[:-1] for call in calls]
        self._offsets: dict[int, int] = {}
        """Offset of a call's next token in its text; absent before its first text."""

    def encode_delta(self, piece: Delta) -> bytes:
        """Return the chunk of a piece."""
        if piece.choice_index or (not piece.text and not piece.logprobs):
            return b""  # a second choice was not requested: samples are calls of their own
        logprobs, offset = b"null", self._offsets.get(piece.call_index, 0)
        if piece.logprobs:
            logprobs = encode_json(render_legacy_logprobs(piece.logprobs, offset))
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

    def encode_outcome(self, outcome: Outcome) -> bytes:
        """Return the last chunk of a call."""
        call, (choice,) = outcome.call, list_choices(outcome)
        whole = b""
        if choice and call.index not in self._offsets:  # the answer arrived whole, as that to `max_tokens: 0` does
            whole = self.encode_delta(choice.to_delta(call.index, 0))
        end = render_choice_end(outcome, choice, self._created)
        return b"".join((whole, b"data: ", self._before[call.index], b",", encode_json(end)[1:], b"]}\n\n"))

    def encode_end(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the chunk of the totals, and the end of the stream."""
        comparison = merge(outcomes, created=self._created, total_s=time.monotonic() - self._began, metadata=self._metadata)
        totals = encode_json(render_totals(comparison))
        return b"".join((b"data: ", self._head, b',"choices":[],', totals[1:], b"\n\ndata: [DONE]\n\n"))


ENDPOINTS = (
    Endpoint(
        "POST /v1/completion",
        create_completion,
        id="completion",
        tag="Compare",
        summary="One prompt to many models",
        description="Sends one prompt to every model in `model` at once and answers with all of them side by side, each with "
        "its text, tokens, time and cost, or with why it failed. The status is 200 if at least one answered.\n\n"
        "With `stream`, pieces come as server-sent events as the models write them, each marked with its answer's `index`. "
        "This is Thiggle's endpoint; whatever is not in Thiggle's contract is an addition of Fanout's.",
        body=CompletionBody,
        examples=examples.REQUESTS,
        headers=("Idempotency-Key", "x-selected-account-id", "X-OpenAI-Api-Key"),
        answers=list_call_answers(
            (ComparisonJson, DryRunJson),
            Events(ComparisonChunkJson),
            "Every model's answer or failure; with `dry_run`, what would be called.",
            {"one answered, one failed": examples.ANSWER},
        ),
    ),
)
