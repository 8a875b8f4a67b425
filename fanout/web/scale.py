"""Scale GenAI Platform's dialect: `POST /v4/completions` (also `/v3`, `/v2`), `POST /v4/chat-completions`, models, user.

One model, one answer: a list of models cannot be said in this shape. Its clients read for 60 s and want no `[DONE]`.
Source: the request and response types of scale-gp 0.1.0a62 and scale-egp 1.1.15.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import to_json

from fanout.catalogue import Catalogue, Model
from fanout.errors import Fault, RequestError
from fanout.plan import Entry, Request
from fanout.schema import Call, Content, Delta, Failure, ImagePart, Message, Outcome, Sampling, TextPart, Usage
from fanout.web import body, keys
from fanout.web.answers import sum_known
from fanout.web.errors import all_failed, failure_error
from fanout.web.models import STARTED
from fanout.web.sse import respond
from fanout.web.state import DISPATCHER, OUTCOMES

DEADLINE_S = 55.0
"""Below the 60 s after which Scale's clients give up."""
DEFAULT_TEMPERATURE = 0.2
DEFAULT_ACCOUNT = "default"
VENDORS = {"OpenAI": "OPENAI", "Google": "GOOGLE", "Anthropic": "ANTHROPIC", "Cohere": "COHERE"}


class ScaleModel(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, use_attribute_docstrings=True, populate_by_name=True)


class ModelParameters(ScaleModel):
    """Both spellings of `topP` and `topK` are taken."""

    temperature: float | None = Field(None, ge=0, le=1)
    """Default 0.2."""
    max_tokens: int | None = Field(None, ge=0)
    stop_sequences: list[str] | None = Field(None, max_length=4)
    topP: float | None = Field(None, ge=0, le=1)  # the wire's name
    topK: int | None = Field(None, ge=-1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        for one, other in (("topP", "top_p"), ("topK", "top_k")):
            given = {getattr(self, one), getattr(self, other)} - {None}
            if len(given) > 1:
                raise ValueError(f"`{one}` and `{other}` are two spellings of one parameter: give one, or both alike")
        return self

    def sampling(self) -> dict[str, Any]:
        """By the names of `schema.Sampling`."""
        named = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": tuple(self.stop_sequences) if self.stop_sequences else None,
            "top_p": self.topP if self.top_p is None else self.top_p,
            "top_k": self.topK if self.top_k is None else self.top_k,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
        }
        return {name: value for name, value in named.items() if value is not None}


class ImageBody(ScaleModel):
    image_url: str = Field(min_length=1)
    detail: str = "auto"


def _images(value: Any) -> Any:
    return [{"image_url": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


class ScaleBody(ScaleModel):
    """What both endpoints take; fields that are not named here are ignored."""

    model: str = Field(min_length=1, max_length=256)
    """One model: a published name, or any id where a default provider for those is configured."""
    account_id: str | None = Field(None, max_length=256)
    """Whom the usage is counted for; before the header `x-selected-account-id`."""
    model_parameters: ModelParameters | None = None
    stream: bool | None = None


class ScaleCompletionBody(ScaleBody):
    """A request for one completion."""

    prompt: str
    images: Annotated[list[ImageBody] | None, BeforeValidator(_images)] = None
    """Objects with `image_url`, or addresses alone."""

    def messages(self) -> tuple[Message, ...] | None:
        if not self.images:
            return None
        images = (ImagePart(image.image_url, image.detail) for image in self.images)
        return (Message("user", (TextPart(self.prompt), *images)),)


class ScaleImageUrl(ScaleModel):
    url: str = Field(min_length=1)
    detail: str | None = None


class ScaleImageData(ScaleModel):
    data: str
    media_type: str
    detail: str | None = None


class ScalePart(ScaleModel):
    text: str | None = None
    image_url: ScaleImageUrl | None = None
    image_data: ScaleImageData | None = None

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if sum(item is not None for item in (self.text, self.image_url, self.image_data)) != 1:
            raise ValueError("a part holds one of `text`, `image_url` and `image_data`")
        return self

    def part(self) -> TextPart | ImagePart:
        if self.image_url:
            return ImagePart(self.image_url.url, self.image_url.detail)
        if self.image_data:
            return ImagePart(f"data:{self.image_data.media_type};base64,{self.image_data.data}", self.image_data.detail)
        return TextPart(self.text or "")


class ScaleMessage(ScaleModel):
    role: Literal["user", "assistant", "system"] = "user"
    content: str | list[ScalePart]

    def message(self) -> Message:
        content: Content = self.content if isinstance(self.content, str) else tuple(part.part() for part in self.content)
        return Message(self.role, content)


class LastK(ScaleModel):
    k: int = Field(ge=1)


class MemoryStrategy(ScaleModel):
    """Only the last k messages are sent."""

    name: Literal["last_k"] = "last_k"
    params: LastK


class ScaleChatBody(ScaleBody):
    """A request for the next message of a conversation."""

    messages: list[ScaleMessage] = Field(min_length=1)
    instructions: str | None = None
    """A system message before the others."""
    memory_strategy: MemoryStrategy | None = None
    chat_template: str | None = None

    def conversation(self) -> tuple[Message, ...]:
        kept = self.messages[-self.memory_strategy.params.k :] if self.memory_strategy else self.messages
        return tuple(message.message() for message in kept)


async def completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v4/completions`, `/v3/completions` and `/v2/completions`."""
    asked = await body.read(request, ScaleCompletionBody)
    messages = asked.messages()
    question: dict[str, Any] = {"messages": messages} if messages else {"prompts": (asked.prompt,)}
    return await _answered(request, asked, _completion_json, **question)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v4/chat-completions`."""
    asked = await body.read(request, ScaleChatBody)
    passthrough = {"chat_template": asked.chat_template} if asked.chat_template else {}
    question = {"messages": asked.conversation(), "system": asked.instructions}
    return await _answered(request, asked, _chat_json, passthrough, **question)


async def _answered(
    request: web.Request, asked: ScaleBody, shape: Any, passthrough: Mapping[str, Any] | None = None, **question: Any
) -> web.StreamResponse:
    dispatcher = request.app[DISPATCHER]
    parameters = asked.model_parameters or ModelParameters()
    sampling = parameters.sampling()
    defaults = {} if "temperature" in sampling else {"temperature": DEFAULT_TEMPERATURE}
    effort = {"reasoning_effort": parameters.reasoning_effort} if parameters.reasoning_effort else {}
    wanted = Request(
        entries=(Entry(_name(asked.model, dispatcher.catalogue, dispatcher.settings.default_provider.get("scale"))),),
        sampling=Sampling(**{**defaults, **sampling}),
        passthrough={**(passthrough or {}), **effort},
        defaults=frozenset(defaults),
        credentials=keys.own_credentials(request),
        account_id=asked.account_id or keys.account(request),
        **question,
    )
    calls = dispatcher.plan(wanted)
    _check(calls)
    if asked.stream:
        return await respond(request, _Frames(shape), calls, DEADLINE_S, None)
    outcomes = await dispatcher.run(calls, deadline_s=DEADLINE_S)
    request[OUTCOMES] = outcomes
    result = outcomes[0].result
    if isinstance(result, Failure):
        return all_failed(outcomes)
    choice = result.choices[0]
    answer = shape(choice.message.text, choice.finish_reason or choice.native_finish_reason, _tokens(result.usage))
    return web.Response(body=to_json(answer), content_type="application/json")


def _name(asked: str, catalogue: Catalogue, default: str | None) -> str:
    """A custom id goes to the provider that is configured for those."""
    known = catalogue.find(asked) is not None or catalogue.members(asked) is not None
    return asked if known or default is None else f"{default}/{asked}"


def _check(calls: Sequence[Call]) -> None:
    """What this shape cannot say, and what would be lost without a word."""
    if len(calls) > 1:
        raise RequestError([Fault("model", "names a set; this endpoint answers for one model: ask `/v1/completion`")])
    if "images" in calls[0].fitted.ignored:
        raise RequestError([Fault("images", f"`{calls[0].target.name}` takes no images")])


class _Frames:
    """Unnamed events, each of the shape of a whole answer; the body's end is the end."""

    def __init__(self, shape: Any) -> None:
        self._shape = shape

    def delta(self, piece: Delta) -> bytes:
        return self._event(self._shape(piece.text, None, None)) if piece.text and piece.choice_index == 0 else b""

    def outcome(self, outcome: Outcome) -> bytes:
        result = outcome.result
        if isinstance(result, Failure):
            error = to_json({"detail": result.message, "error": failure_error(result)})
            return b"event: error\ndata: " + error + b"\n\n"
        choice = result.choices[0]
        return self._event(self._shape("", choice.finish_reason or choice.native_finish_reason, _tokens(result.usage)))

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        return b""

    @staticmethod
    def _event(fields: Mapping[str, Any]) -> bytes:
        return b"data: " + to_json(fields) + b"\n\n"


def _completion_json(text: str, finish_reason: str | None, tokens: dict[str, Any] | None) -> dict[str, Any]:
    completion = {"text": text, "finish_reason": finish_reason, "response_metadata": None}
    return {"completion": completion, "token_usage": tokens}


def _chat_json(text: str, finish_reason: str | None, tokens: dict[str, Any] | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"chat_completion": {"message": message, "finish_reason": finish_reason}, "token_usage": tokens}


def _tokens(usage: Usage | None) -> dict[str, Any] | None:
    total = sum_known(usage.input_tokens, usage.output_tokens) if usage else None
    if usage is None or total is None:
        return None
    return {"prompt": usage.input_tokens, "completion": usage.output_tokens, "total": total}


async def list_models(request: web.Request) -> web.Response:
    """Serves `GET /v4/models`, in pages."""
    page, limit = _positive(request, "page", 1, 10**6), _positive(request, "limit", 100, 10_000)
    catalogue = request.app[DISPATCHER].catalogue
    models = list(catalogue)
    shown = models[(page - 1) * limit : page * limit]
    account = keys.account(request) or DEFAULT_ACCOUNT
    answer = {
        "items": [_model_json(model, account) for model in shown],
        "current_page": page,
        "items_per_page": limit,
        "total_item_count": len(models),
    }
    return web.Response(body=to_json(answer), content_type="application/json")


async def user_info(request: web.Request) -> web.Response:
    """Serves `GET /user-info`, which scale-egp asks when it was given no account."""
    account = keys.account(request) or DEFAULT_ACCOUNT
    profile = {"role": "admin", "account": {"id": account, "name": account}}
    person = {"id": account, "email": f"{account}@fanout.invalid", "first_name": account, "last_name": ""}
    return web.json_response({**person, "access_profiles": [profile]})


def _positive(request: web.Request, name: str, default: int, highest: int) -> int:
    given = request.query.get(name, str(default))
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= highest):
        raise RequestError([Fault(name, f"`{given[:40]}` is not allowed: a whole number from 1 to {highest}")])
    return int(given)


def _model_json(model: Model, account: str) -> dict[str, Any]:
    row = model.row
    created = row.created if row and row.created is not None else STARTED
    return {
        "id": model.name,
        "account_id": account,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"),
        "created_by_identity_type": "service_account",
        "created_by_user_id": "fanout",
        "deployment_count": 1,
        "model_type": "COMPLETION" if model.kind == "text" else "CHAT_COMPLETION",
        "name": model.name,
        "display_name": row.name if row and row.name else model.name,
        "description": row.description if row else None,
        "base_model_metadata": {"modelDetails": {"token_context_window": row.max_context_length if row else None}},
        "model_vendor": VENDORS.get(row.creator or "" if row else "", "OTHER"),
        "request_schema": {},
        "response_schema": {},
        "supports_multi_turn": model.kind != "text",
    }
