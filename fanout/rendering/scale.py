"""Scale's answers: completions, the next message of a conversation, models, users and errors.

Source: the response types of scale-gp 0.1.0a62 and scale-egp 1.1.15.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NotRequired

from typing_extensions import Doc, TypedDict

from fanout.config.catalogue import Catalogue, Model
from fanout.core.json_text import JsonObject
from fanout.core.sampling import AdjustmentJson, render_adjustments
from fanout.core.schema import Call, Choice, Completion, Failure
from fanout.core.units import to_rfc3339
from fanout.core.usage import Usage, total_tokens
from fanout.rendering.choices import BesideTextJson, render_beside_text
from fanout.rendering.errors import ChoiceErrorJson, ErrorJson, render_failure
from fanout.rendering.model import STARTED_AT

VENDORS = {"OpenAI": "OPENAI", "Google": "GOOGLE", "Anthropic": "ANTHROPIC", "Cohere": "COHERE"}
"""Creator → Scale's name; all others are `OTHER`."""


class ScaleErrorJson(TypedDict):
    """Scale's error, with OpenAI's envelope beside it."""

    detail: Annotated[str, Doc("What is wrong, for people.")]
    error: Annotated[ErrorJson, Doc("The same as OpenAI writes it.")]


class ScaleUsageJson(TypedDict):
    prompt: Annotated[int | None, Doc("Tokens of the prompt.")]
    completion: Annotated[int | None, Doc("Tokens of the answer.")]
    total: Annotated[int, Doc("Both together.")]


class ScaleMetadataJson(BesideTextJson):
    ignored_parameters: Annotated[Sequence[str], Doc("Parameters of the request that this model cannot take.")]
    adjusted_parameters: Annotated[
        Mapping[str, AdjustmentJson], Doc("Parameters that were sent with another value than requested.")
    ]


class ScaleEndJson(TypedDict):
    finish_reason: Annotated[str | None, Doc("Why the model stopped; null: more follows, or the provider gave no reason.")]
    response_metadata: Annotated[
        NotRequired[ScaleMetadataJson | None],
        Doc("At the end: parameters that the model could not take as requested, and what else it answered; null: nothing."),
    ]


class ScaleTextJson(ScaleEndJson):
    text: Annotated[str, Doc("The answer.")]


class ScaleReplyJson(TypedDict):
    role: Annotated[Literal["assistant"], Doc("Role of the message's author.")]
    content: Annotated[str, Doc("The answer.")]


class ScaleTurnJson(ScaleEndJson):
    message: Annotated[ScaleReplyJson, Doc("The next message.")]


class ScaleUsageFieldJson(TypedDict):
    token_usage: Annotated[ScaleUsageJson | None, Doc("Tokens; null: until the end, or if the provider reports none.")]


class ScaleCompletionJson(ScaleUsageFieldJson):
    """One answer, or a piece of it: then `token_usage` is null until the last one. No `[DONE]` ends a stream."""

    completion: Annotated[ScaleTextJson, Doc("The answer and its end.")]


class ScaleChatCompletionJson(ScaleUsageFieldJson):
    """One answer, or a piece of it: then `token_usage` is null until the last one. No `[DONE]` ends a stream."""

    chat_completion: Annotated[ScaleTurnJson, Doc("The answer and its end.")]


class ScaleStreamErrorJson(TypedDict):
    """Data of the event `error`: the stream broke."""

    detail: Annotated[str, Doc("What went wrong, for people.")]
    error: Annotated[ChoiceErrorJson, Doc("The same, for programs.")]


class ScaleModelCardJson(TypedDict):
    id: Annotated[str, Doc("Name to use in `model`.")]
    account_id: Annotated[str, Doc("The account of the request.")]
    created_at: Annotated[str, Doc("RFC 3339; the server's start if no date is published.")]
    created_by_identity_type: Literal["service_account"]
    created_by_user_id: Annotated[str, Doc("Always `fanout`.")]
    deployment_count: Annotated[int, Doc("1: can be called now; 0: something is missing.")]
    model_type: Annotated[Literal["COMPLETION", "CHAT_COMPLETION"], Doc("Whether it completes text or takes messages.")]
    name: Annotated[str, Doc("The same as `id`.")]
    display_name: Annotated[str, Doc("Name for people.")]
    description: Annotated[str | None, Doc("What the model is for.")]
    base_model_metadata: Annotated[JsonObject, Doc("Its context window.")]
    model_vendor: Annotated[str, Doc("Scale's name of its creator, or `OTHER`.")]
    request_schema: Annotated[JsonObject, Doc("Always empty.")]
    response_schema: Annotated[JsonObject, Doc("Always empty.")]
    supports_multi_turn: Annotated[bool, Doc("Takes conversations.")]


class ScaleModelsJson(TypedDict):
    items: Annotated[list[ScaleModelCardJson], Doc("The models of the page.")]
    current_page: Annotated[int, Doc("Number of the page, from 1.")]
    items_per_page: Annotated[int, Doc("Most models on a page.")]
    total_item_count: Annotated[int, Doc("Models on all pages.")]


class ScaleAccountJson(TypedDict):
    id: Annotated[str, Doc("Id of the account.")]
    name: Annotated[str, Doc("Name of the account.")]


class ScaleProfileJson(TypedDict):
    role: Annotated[str, Doc("What the user may do there.")]
    account: Annotated[ScaleAccountJson, Doc("An account of the user.")]


class ScaleUserJson(TypedDict):
    id: Annotated[str, Doc("Id of the account.")]
    email: Annotated[str, Doc("An address made of the account's id.")]
    first_name: Annotated[str, Doc("Id of the account.")]
    last_name: Annotated[str, Doc("Always empty.")]
    access_profiles: Annotated[list[ScaleProfileJson], Doc("The one account.")]


ScaleAnswerJson = ScaleCompletionJson | ScaleChatCompletionJson
Shape = Callable[[str, ScaleEndJson, ScaleUsageJson | None], ScaleAnswerJson]
"""Builds the answer of one of the two endpoints, or a piece of the answer."""


def shape_completion(text: str, end: ScaleEndJson, usage: ScaleUsageJson | None) -> ScaleCompletionJson:
    """Return the answer of `/v4/completions`."""
    return {"completion": {"text": text, **end}, "token_usage": usage}


def shape_chat_completion(text: str, end: ScaleEndJson, usage: ScaleUsageJson | None) -> ScaleChatCompletionJson:
    """Return the answer of `/v4/chat-completions`."""
    return {"chat_completion": {"message": {"role": "assistant", "content": text}, **end}, "token_usage": usage}


def render_scale_answer(shape: Shape, call: Call, completion: Completion, text: str | None = None) -> ScaleAnswerJson:
    """Return the answer to a call; `text` replaces the answer's text, whose pieces a stream has already sent."""
    # Scale's contract has one answer for each request, and no `n`.
    choice = completion.choices[0]
    return shape(
        choice.message.shown_text if text is None else text, _render_end(call, choice), _render_usage(completion.usage)
    )


def render_scale_failure(failure: Failure) -> ScaleStreamErrorJson:
    """Return the failure of a stream."""
    return {"detail": failure.message, "error": render_failure(failure)}


def render_scale_error(error: ErrorJson) -> ScaleErrorJson:
    """Return an error as Scale's clients read it."""
    return {"detail": error["message"], "error": error}


def render_scale_models(
    models: Sequence[Model], catalogue: Catalogue, account_id: str, page: int, limit: int
) -> ScaleModelsJson:
    """Return a page of models; pages are numbered from 1."""
    return {
        "items": [_render_card(model, account_id, catalogue) for model in models[(page - 1) * limit : page * limit]],
        "current_page": page,
        "items_per_page": limit,
        "total_item_count": len(models),
    }


def render_scale_user(account_id: str) -> ScaleUserJson:
    """Return a user derived from an account's id, because Fanout has no users."""
    # Scale's clients require every field; `.invalid` is a domain that can receive no mail (RFC 2606).
    return {
        "id": account_id,
        "email": f"{account_id}@fanout.invalid",
        "first_name": account_id,
        "last_name": "",
        "access_profiles": [{"role": "admin", "account": {"id": account_id, "name": account_id}}],
    }


def _render_end(call: Call, choice: Choice) -> ScaleEndJson:
    ignored, adjusted = call.fitted.ignored, render_adjustments(call.fitted.adjusted)
    beside = render_beside_text(choice)
    metadata: ScaleMetadataJson = {"ignored_parameters": ignored, "adjusted_parameters": adjusted, **beside}
    # The type of Scale's clients is an open string, so the provider's own reason is better than null.
    return {
        "finish_reason": choice.finish_reason or choice.native_finish_reason,
        "response_metadata": metadata if ignored or adjusted or beside else None,
    }


def _render_usage(usage: Usage | None) -> ScaleUsageJson | None:
    # Scale's clients require a number in `total`, so an incomplete usage is shown as null.
    total = total_tokens(usage.input_tokens, usage.output_tokens) if usage else None
    if usage is None or total is None:
        return None
    return {"prompt": usage.input_tokens, "completion": usage.output_tokens, "total": total}


def _render_card(model: Model, account_id: str, catalogue: Catalogue) -> ScaleModelCardJson:
    row = model.row
    created = row.created if row and row.created is not None else STARTED_AT
    return {
        "id": model.name,
        "account_id": account_id,
        "created_at": to_rfc3339(created, "auto"),
        "created_by_identity_type": "service_account",
        "created_by_user_id": "fanout",
        "deployment_count": int(not catalogue.lacks(model)),
        "model_type": "COMPLETION" if model.kind == "text" else "CHAT_COMPLETION",
        "name": model.name,
        "display_name": row.name if row and row.name else model.name,
        "description": row.description if row else None,
        "base_model_metadata": {"modelDetails": {"token_context_window": row.max_context_length if row else None}},
        "model_vendor": VENDORS.get(row.creator or "" if row else "", "OTHER"),
        # Only kept because Scale's contract has these fields; Fanout publishes its schemas at /openapi.json.
        "request_schema": {},
        "response_schema": {},
        "supports_multi_turn": model.kind != "text",
    }
