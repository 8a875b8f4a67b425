"""Requests on Scale's paths.

Source: `CompletionCreateParams` and `ChatCompletionCreateParams` of scale-gp 0.1.0a62.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WrapValidator,
    field_validator,
    model_validator,
)

from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS
from fanout.core.messages import Content, ImagePart, Message, TextPart, validate_content
from fanout.core.sampling import INT64, Sampling, at_most
from fanout.core.sampling_fields import SamplingFields
from fanout.core.schema import Credential
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request

DEFAULT_TEMPERATURE = 0.2


class ScaleModel(BaseModel):
    """Base of the bodies on Scale's paths, which ignore unknown fields."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class ModelParameters(
    ScaleModel,
    SamplingFields,
    takes=("temperature", "max_tokens", "topP", "topK", "top_p", "top_k", "frequency_penalty", "presence_penalty"),
    spellings={"topP": "top_p", "topK": "top_k"},
    ranges={"temperature": (0, 1), "frequency_penalty": (None, None), "presence_penalty": (None, None)},
):
    """Sampling parameters. Both spellings of `topP` and `topK` are accepted. The temperature's default is 0.2."""

    stop_sequences: Annotated[list[str], at_most(4, "sequences")] | None = Field(None, max_length=4)
    """Up to four sequences to stop before; none of them is in the answer."""
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    """How long a reasoning model thinks."""

    # Checked against the camel-case field, which is declared first and therefore validated first.
    @field_validator("top_p", "top_k")
    @classmethod
    def _check_one_spelling(cls, value: Any, info: ValidationInfo) -> Any:
        other = "topP" if info.field_name == "top_p" else "topK"
        if value is not None and info.data.get(other) not in (None, value):
            raise ValueError(f"is another spelling of `{other}`: give one of them, or both alike")
        return value

    def list_parameters(self) -> JsonObject:
        """Return the parameters that were given, as `Sampling` holds them."""
        stop = {"stop": tuple(self.stop_sequences)} if self.stop_sequences else {}
        return {name: value for name, value in {**self.to_parameters(), **stop}.items() if value is not None}


class ScaleBody(ScaleModel):
    """Fields of both endpoints."""

    model: str = Field(min_length=1, max_length=256)
    """One model: a published name, or any id if a default provider for those is configured."""
    account_id: str | None = Field(None, max_length=256)
    """The key's own account; without keys the one that the usage is counted for, before the header `x-selected-account-id`."""
    model_parameters: ModelParameters | None = None
    """Sampling parameters."""
    stream: bool | None = None
    """Answer in pieces, as server-sent events."""

    @abstractmethod
    def to_question(self) -> Mapping[str, Any]:
        """Return the prompt or the messages, by the fields of `plan.Request`."""

    def get_passthrough(self) -> JsonObject:
        """Return the fields that only some providers know."""
        effort = self.model_parameters.reasoning_effort if self.model_parameters else None
        return {"reasoning_effort": effort} if effort else {}

    def to_request(self, model: str, *, credentials: Mapping[str, Credential], account_id: str | None) -> Request:
        """Return the request as `plan` takes it, for a model by its name in the catalogue, and an account."""
        parameters = self.model_parameters.list_parameters() if self.model_parameters else {}
        # A default is dropped silently if the model takes no temperature, because the caller did not set it.
        defaults = {} if "temperature" in parameters else {"temperature": DEFAULT_TEMPERATURE}
        return Request(
            entries=(Entry(model),),
            sampling=Sampling(**{**defaults, **parameters}),
            passthrough=self.get_passthrough(),
            defaults=frozenset(defaults),
            credentials=credentials,
            account_id=account_id,
            **self.to_question(),
        )


Address = Annotated[str, Field(min_length=1)]


class ImageBody(ScaleModel):
    image_url: Address
    """Address of an image, http(s) or `data:`."""
    detail: str | None = "auto"
    """How closely to look at the image."""


def _to_image_list(value: Any) -> Any:
    return [{"image_url": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


Images = Annotated[
    Annotated[list[ImageBody], IN_STEPS] | None,
    BeforeValidator(_to_image_list, json_schema_input_type=list[ImageBody | Address] | None),
]


class ScaleCompletionBody(ScaleBody):
    """A request for one completion."""

    prompt: str
    """The text to complete."""
    images: Images = None
    """Objects with `image_url`, or addresses alone."""

    def to_question(self) -> Mapping[str, Any]:
        """Return the prompt; with images, as a message."""
        if not self.images:
            return {"prompts": (self.prompt,)}
        # No completion format takes images, so the prompt becomes a user's message.
        images = (ImagePart(image.image_url, image.detail) for image in self.images)
        return {"messages": (Message("user", (TextPart(self.prompt), *images)),)}


class ScaleImageUrl(ScaleModel):
    url: str = Field(min_length=1)
    """Address of an image, http(s) or `data:`."""
    detail: str | None = None
    """How closely to look at the image."""


class ScaleImageData(ScaleModel):
    data: str
    """The image in base64."""
    media_type: str
    """`image/png`, `image/jpeg`, …"""
    detail: str | None = None
    """How closely to look at the image."""


class ScalePart(ScaleModel):
    """Part of a message: a text or an image."""

    text: str | None = None
    """A text."""
    image_url: ScaleImageUrl | None = None
    """An image by its address."""
    image_data: ScaleImageData | None = None
    """An image itself."""

    @model_validator(mode="after")
    def _check_one_content(self) -> Self:
        if sum(item is not None for item in (self.text, self.image_url, self.image_data)) != 1:
            raise ValueError("a part holds one of `text`, `image_url` and `image_data`")
        return self

    def to_part(self) -> TextPart | ImagePart:
        """Return the part in Fanout's own type."""
        if self.image_url:
            return ImagePart(self.image_url.url, self.image_url.detail)
        if self.image_data:
            # As a `data:` address, because every adapter can send those.
            return ImagePart(f"data:{self.image_data.media_type};base64,{self.image_data.data}", self.image_data.detail)
        return TextPart(self.text or "")


class ScaleMessage(ScaleModel):
    role: Literal["user", "assistant", "system"] = "user"
    """Role of the message's author."""
    content: Annotated[list[ScalePart], IN_STEPS, WrapValidator(validate_content, json_schema_input_type=str | list[ScalePart])]
    """The message: a text, or a list of texts and images."""

    def to_message(self) -> Message:
        """Return the message in Fanout's own type."""
        given: Any = self.content
        content: Content = tuple(part.to_part() for part in given) if isinstance(given, list) else given
        return Message(self.role, content)


class LastK(ScaleModel):
    k: int = Field(ge=1, lt=INT64)
    """How many messages."""


class MemoryStrategy(ScaleModel):
    """Only the last k messages are sent."""

    name: Literal["last_k"] = "last_k"
    """Always `last_k`."""
    params: LastK
    """How many."""


class ScaleChatBody(ScaleBody):
    """A request for the next message of a conversation."""

    messages: Annotated[list[ScaleMessage], IN_STEPS] = Field(min_length=1)
    """The conversation so far."""
    instructions: str | None = None
    """A system message before the others."""
    memory_strategy: MemoryStrategy | None = None
    """How much of the conversation is sent; absent: all of it."""
    chat_template: str | None = None
    """A template of your own, for a provider that takes one."""

    def to_question(self) -> Mapping[str, Any]:
        """Return the messages that are sent."""
        # The instructions are not counted among the k: they must hold however long the conversation grows.
        kept = self.messages[-self.memory_strategy.params.k :] if self.memory_strategy else self.messages
        return {"messages": tuple(message.to_message() for message in kept), "system": self.instructions}

    def get_passthrough(self) -> JsonObject:
        """Return the fields that only some providers know."""
        return super().get_passthrough() | ({"chat_template": self.chat_template} if self.chat_template else {})
