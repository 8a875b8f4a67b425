"""Comparisons as `POST /v1/completion` answers them, whole, streamed and as a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired

from typing_extensions import Doc, TypedDict

from fanout.core.comparison import Comparison, CompletionChoice
from fanout.core.ids import create_uuid
from fanout.core.json_text import JsonObject
from fanout.core.sampling import AdjustmentJson, render_adjustments
from fanout.core.schema import Call, Choice, Kind, Outcome
from fanout.core.units import to_ms, to_rfc3339
from fanout.dispatch.fusing import preview
from fanout.rendering.choices import (
    BesideTextJson,
    ChoiceEndJson,
    LegacyLogprobsJson,
    PlaceJson,
    render_beside_text,
    render_end,
    render_legacy_logprobs,
    render_place,
    render_usage,
)
from fanout.rendering.errors import ChoiceErrorJson, render_failure
from fanout.rendering.shared import CostTotalsJson, TokenCountsJson, TotalTimingJson, render_token_counts


class TextJson(PlaceJson):
    text: Annotated[str, Doc("The answer; if it failed, what had arrived of it.")]
    logprobs: Annotated[LegacyLogprobsJson | None, Doc("How likely the tokens are.")]


class ComparisonChoiceJson(TextJson, BesideTextJson, ChoiceEndJson):
    """One model's answer, or why there is none."""

    created: Annotated[int, Doc("Unix seconds.")]


class PieceJson(TextJson):
    """A piece of one answer's text, as it came."""

    finish_reason: Annotated[None, Doc("null: more follows.")]


class TotalUsageJson(TokenCountsJson):
    """Sums over what is known; null if nothing is."""

    prediction_time_ms: Annotated[int, Doc("Time from the request's arrival to this answer.")]
    unknown: Annotated[int, Doc("Answers whose usage the provider did not report.")]


class ComparisonHeadJson(TypedDict):
    id: Annotated[str, Doc("A UUID.")]
    object: Literal["text_completion"]
    created: Annotated[str, Doc("RFC 3339, UTC.")]


class ComparisonTotalsJson(CostTotalsJson):
    usage: Annotated[TotalUsageJson, Doc("Tokens of all answers.")]
    timing: Annotated[TotalTimingJson, Doc("Milliseconds that the request took.")]
    metadata: Annotated[Mapping[str, str], Doc("Your metadata, returned.")]


class ComparisonJson(ComparisonHeadJson, ComparisonTotalsJson):
    """The answers side by side, in the order of the request, failures in their places."""

    choices: Annotated[Sequence[ComparisonChoiceJson], Doc("One for every model and sample.")]


class DryCallJson(PlaceJson):
    """A call that would be made."""

    provider: Annotated[str | None, Doc("Provider that would be called; null: no model has that name.")]
    upstream_model: Annotated[str | None, Doc("Name that the provider knows.")]
    kind: Annotated[Kind, Doc("What the model natively is.")]
    messages: Annotated[Sequence[JsonObject] | None, Doc("The conversation that would be sent.")]
    prompt: Annotated[str | None, Doc("The text that would be sent.")]
    parameters: Annotated[Mapping[str, object], Doc("Parameters by the provider's own names.")]
    ignored_parameters: Annotated[Sequence[str], Doc("Parameters of the request that this model cannot take.")]
    adjusted_parameters: Annotated[
        Mapping[str, AdjustmentJson], Doc("Parameters that would be sent with another value than requested.")
    ]
    error: Annotated[ChoiceErrorJson | None, Doc("Why it would not be made.")]


class DryRunJson(ComparisonHeadJson):
    """Answer to `dry_run`."""

    calls: Annotated[Sequence[DryCallJson], Doc("The calls that would be made.")]


class ComparisonChunkJson(ComparisonHeadJson):
    """Data of one event. It holds one choice, or in the last chunk the totals; `data: [DONE]` ends the stream."""

    choices: Annotated[
        Sequence[ComparisonChoiceJson | PieceJson],
        Doc("A piece; or, at an answer's end, all that is known of it, without text."),
    ]
    usage: Annotated[NotRequired[TotalUsageJson | None], Doc("Only in the last chunk, like all that follows.")]
    cost_usd: Annotated[NotRequired[float | None], Doc("US dollars; null: no price or no usage is known.")]
    cost_unknown: Annotated[NotRequired[int | None], Doc("Answers with no known price.")]
    timing: Annotated[NotRequired[TotalTimingJson | None], Doc("Milliseconds that the request took.")]
    metadata: Annotated[NotRequired[Mapping[str, str] | None], Doc("Your metadata, returned.")]


def render_head(created: float) -> ComparisonHeadJson:
    """Return the beginning of a new answer."""
    # Unlike OpenAI's heads, which have a prefixed id and Unix seconds: clients of this path parse a UUID and RFC 3339.
    return {"id": create_uuid(), "object": "text_completion", "created": to_rfc3339(created)}


def render_comparison(comparison: Comparison, head: ComparisonHeadJson | None = None) -> ComparisonJson:
    """Return a comparison as `POST /v1/completion` answers it."""
    choices = [render_choice(choice) for choice in comparison.choices]
    # The head comes from the handler, which has recorded its id in the history before any call.
    return {**(head or render_head(comparison.created)), "choices": choices, **render_totals(comparison)}


def render_choice(choice: CompletionChoice) -> ComparisonChoiceJson:
    """Return one answer of a comparison."""
    outcome, call = choice.outcome, choice.outcome.call
    logprobs = choice.choice.logprobs if choice.choice else None
    # The place is written out, because merging one more dict takes a sixth of the time; a comparison has one prompt.
    rendered: ComparisonChoiceJson = {
        "index": choice.index,
        "entry": call.entry,
        "sample": call.sample + choice.choice_index,
        "model": call.target.name,
        "label": call.target.label,
        "text": choice.text,
        "created": choice.created,
        "logprobs": render_legacy_logprobs(logprobs, 0) if logprobs else None,
        **render_beside_text(choice.choice),
        **render_end(outcome, choice.choice, render_usage(outcome)),  # type: ignore[typeddict-item]  # mypy: it could have a `prompt_index`
    }
    if call.is_member:
        rendered["is_member"] = True
    return rendered


def render_choice_end(outcome: Outcome, choice: Choice | None, created: int) -> JsonObject:
    """Return the fields of a streamed answer that its last chunk adds to its place; the text has been sent before."""
    end = render_end(outcome, choice, render_usage(outcome))
    # Without the pieces' log probabilities, which were sent with them.
    return {"text": "", "created": created, "logprobs": None, **render_beside_text(choice), **end}


def render_totals(comparison: Comparison) -> ComparisonTotalsJson:
    """Return the sums over all answers of a comparison."""
    totals, total_ms = comparison.totals, to_ms(comparison.total_s)
    return {
        "usage": {**render_token_counts(totals), "prediction_time_ms": total_ms, "unknown": totals.unknown_usage},
        "cost_usd": totals.cost_usd,
        "cost_unknown": totals.cost_unknown,
        "timing": render_total_timing(comparison),
        "metadata": comparison.metadata,
    }


def render_total_timing(comparison: Comparison) -> TotalTimingJson:
    """Return the time that a comparison took."""
    return {"total_ms": to_ms(comparison.total_s), "overhead_ms": to_ms(comparison.overhead_s)}


def render_dry_run(calls: Sequence[Call], head: ComparisonHeadJson) -> DryRunJson:
    """Return the calls that would be made."""
    return {**head, "calls": [_render_dry_call(call) for call in calls]}


def _render_dry_call(call: Call) -> DryCallJson:
    query = preview(call) if call.fusion else call.query
    messages = query.messages or ()
    # `parameters` are those after fitting: a dry run exists to show what the provider would really receive.
    return {
        **render_place(call),
        "provider": call.target.provider,
        "upstream_model": call.target.model,
        "kind": call.target.kind,
        "messages": [{"role": message.role, "content": message.content} for message in messages] or None,
        "prompt": query.prompt,
        "parameters": call.fitted.sent,
        "ignored_parameters": call.fitted.ignored,
        "adjusted_parameters": render_adjustments(call.fitted.adjusted),
        "error": render_failure(call.refusal) if call.refusal else None,
    }
