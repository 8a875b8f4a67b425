"""Scale's paths, described."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from fanout.rendering.errors import ChoiceErrorJson
from fanout.rendering.scale import ScaleErrorJson
from fanout.server.dialects.scale.bodies import ScaleChatBody, ScaleCompletionBody
from fanout.server.openapi.endpoint import Events
from fanout.server.openapi.operations.answers import Adjustment, Said
from fanout.server.openapi.operations.legacy import Operation, Operations
from fanout.server.openapi.operations.shared import calling, failing, reading

ACCOUNT = ("x-selected-account-id",)
UNDER_A_MINUTE = "One model, one answer, in less than the 60 s after which Scale's clients give up."


class ScaleUsage(Said):
    prompt: int | None
    completion: int | None
    total: int


class ScaleMetadata(Said):
    ignored_parameters: list[str]
    adjusted_parameters: dict[str, Adjustment]


class ScaleEnd(Said):
    finish_reason: str | None
    """null: more is to come, or the provider said nothing."""
    response_metadata: ScaleMetadata | None = None
    """At the end: what the model could not take, or took otherwise. null: all was taken as asked."""


class ScaleText(ScaleEnd):
    text: str


class ScaleCompletion(Said):
    """One answer, or a piece of it: then `token_usage` is null until the last one. No `[DONE]` ends a stream."""

    completion: ScaleText
    token_usage: ScaleUsage | None


class ScaleReply(Said):
    role: Literal["assistant"]
    content: str


class ScaleTurn(ScaleEnd):
    message: ScaleReply


class ScaleChatCompletion(Said):
    """One answer, or a piece of it: then `token_usage` is null until the last one. No `[DONE]` ends a stream."""

    chat_completion: ScaleTurn
    token_usage: ScaleUsage | None


class ScaleStreamError(Said):
    """The data of the event `error`: the stream broke."""

    detail: str
    error: ChoiceErrorJson


class ScaleModelCard(Said):
    id: str
    account_id: str
    created_at: str
    created_by_identity_type: Literal["service_account"]
    created_by_user_id: str
    deployment_count: int
    model_type: Literal["COMPLETION", "CHAT_COMPLETION"]
    name: str
    display_name: str
    description: str | None
    base_model_metadata: dict[str, Any]
    model_vendor: str
    request_schema: dict[str, Any]
    response_schema: dict[str, Any]
    supports_multi_turn: bool


class ScaleModels(Said):
    items: list[ScaleModelCard]
    current_page: int
    items_per_page: int
    total_item_count: int


class ScalePage(BaseModel):
    account_id: str | None = None
    page: int = Field(1, ge=1, le=10**6)
    limit: int = Field(100, ge=1, le=10_000)


class ScaleAccount(Said):
    id: str
    name: str


class ScaleProfile(Said):
    role: str
    account: ScaleAccount


class ScaleUser(Said):
    id: str
    email: str
    first_name: str
    last_name: str
    access_profiles: list[ScaleProfile]


INVALID = failing(422, "Broken JSON, or wrong fields, all of them named in `error.details`.", error=ScaleErrorJson)
TEXT = Operation(
    id="scale_completions",
    tag="Scale",
    summary="One completion",
    description=f"Scale GenAI Platform's completions: scale-gp and scale-egp work unmodified. {UNDER_A_MINUTE}",
    body=ScaleCompletionBody,
    examples={
        "one model": {
            "model": "local/ngram-5",
            "prompt": "The return statement",
            "model_parameters": {"temperature": 0.5, "max_tokens": 20, "stop_sequences": ["."]},
            "account_id": "team-a",
        }
    },
    headers=(*ACCOUNT, "Idempotency-Key"),
    answers={
        **calling(
            ScaleCompletion, Events((ScaleCompletion, ScaleStreamError), done=False), "The answer.", error=ScaleErrorJson
        ),
        **INVALID,
    },
)
CHAT = Operation(
    id="scale_chat_completions",
    tag="Scale",
    summary="The next message of a conversation",
    description=UNDER_A_MINUTE,
    body=ScaleChatBody,
    examples={
        "one model": {
            "model": "local/ngram-5",
            "messages": [{"role": "user", "content": "What does the return statement do?"}],
            "instructions": "Answer briefly.",
            "model_parameters": {"max_tokens": 20},
        }
    },
    headers=(*ACCOUNT, "Idempotency-Key"),
    answers={
        **calling(
            ScaleChatCompletion,
            Events((ScaleChatCompletion, ScaleStreamError), done=False),
            "The answer.",
            error=ScaleErrorJson,
        ),
        **INVALID,
    },
)
MODELS = Operation(
    id="scale_models",
    tag="Scale",
    summary="The models, in pages",
    query=ScalePage,
    headers=ACCOUNT,
    answers={**reading(ScaleModels, "One page.", error=ScaleErrorJson), **INVALID},
)
USER = Operation(
    id="scale_user",
    tag="Scale",
    summary="Who asks",
    description="scale-egp asks this when it was given no account. Fanout knows no users: the account is the header's.",
    headers=ACCOUNT,
    answers=reading(ScaleUser, "A user made of the account's id.", error=ScaleErrorJson),
)
OPERATIONS: Operations = {
    ("POST", "/v4/completions"): TEXT,
    ("POST", "/v3/completions"): replace(TEXT, id="scale_completions_v3", summary="The same as `/v4/completions`"),
    ("POST", "/v2/completions"): replace(TEXT, id="scale_completions_v2", summary="The same as `/v4/completions`"),
    ("POST", "/v4/chat-completions"): CHAT,
    ("GET", "/v4/models"): MODELS,
    ("GET", "/user-info"): USER,
}
