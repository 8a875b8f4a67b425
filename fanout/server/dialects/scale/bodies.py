"""What may be asked on Scale's paths, and the shape of what is answered.

Source: `CompletionCreateParams`, `ChatCompletionCreateParams` and their responses in scale-gp 0.1.0a62.
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

from fanout.core.messages import Content, ImagePart, Message, TextPart, validate_content
from fanout.core.sampling import SamplingFields


class ScaleModel(BaseModel):
    """Fields that are not named are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ModelParameters(
    ScaleModel,
    SamplingFields,
    takes=("temperature", "max_tokens", "topP", "topK", "top_p", "top_k", "frequency_penalty", "presence_penalty"),
    spellings={"topP": "top_p", "topK": "top_k"},
    ranges={"temperature": (0, 1), "frequency_penalty": (None, None), "presence_penalty": (None, None)},
):
    """Both spellings of `topP` and `topK` are taken. The temperature's default is 0.2."""

    stop_sequences: list[str] | None = Field(None, max_length=4)
    reasoning_effort: Literal["low", "medium", "high"] | None = None

    @field_validator("top_p", "top_k")
    @classmethod
    def _one_spelling(cls, value: Any, info: ValidationInfo) -> Any:
        other = "topP" if info.field_name == "top_p" else "topK"
        if value is not None and info.data.get(other) not in (None, value):
            raise ValueError(f"is another spelling of `{other}`: give one of them, or both alike")
        return value

    def sampling(self) -> dict[str, Any]:
        """What was asked, by the names of `schema.Sampling`."""
        stop = {"stop": tuple(self.stop_sequences)} if self.stop_sequences else {}
        return {name: value for name, value in {**self.to_parameters(), **stop}.items() if value is not None}


class ScaleBody(ScaleModel):
    """What both endpoints take."""

    model: str = Field(min_length=1, max_length=256)
    """One model: a published name, or any id where a default provider for those is configured."""
    account_id: str | None = Field(None, max_length=256)
    """Whom the usage is counted for; before the header `x-selected-account-id`."""
    model_parameters: ModelParameters | None = None
    stream: bool | None = None

    @abstractmethod
    def question(self) -> Mapping[str, Any]:
        """What is asked, by the fields of `plan.Request`."""

    def passed_on(self) -> dict[str, Any]:
        """Fields that only some providers know."""
        effort = self.model_parameters.reasoning_effort if self.model_parameters else None
        return {"reasoning_effort": effort} if effort else {}

    @staticmethod
    @abstractmethod
    def shape(text: str, end: Mapping[str, Any]) -> dict[str, Any]:
        """An answer, or a piece of one; `end` is what only an answer's end tells."""


class ImageBody(ScaleModel):
    image_url: str = Field(min_length=1)
    detail: str | None = "auto"


def _images(value: Any) -> Any:
    return [{"image_url": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


class ScaleCompletionBody(ScaleBody):
    """A request for one completion."""

    prompt: str
    images: Annotated[list[ImageBody] | None, BeforeValidator(_images, json_schema_input_type=list[ImageBody | str] | None)] = (
        None
    )
    """Objects with `image_url`, or addresses alone."""

    def question(self) -> Mapping[str, Any]:
        if not self.images:
            return {"prompts": (self.prompt,)}
        images = (ImagePart(image.image_url, image.detail) for image in self.images)
        return {"messages": (Message("user", (TextPart(self.prompt), *images)),)}

    @staticmethod
    def shape(text: str, end: Mapping[str, Any]) -> dict[str, Any]:
        return {"completion": {"text": text, **end}}


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

    def to_part(self) -> TextPart | ImagePart:
        if self.image_url:
            return ImagePart(self.image_url.url, self.image_url.detail)
        if self.image_data:
            return ImagePart(f"data:{self.image_data.media_type};base64,{self.image_data.data}", self.image_data.detail)
        return TextPart(self.text or "")


class ScaleMessage(ScaleModel):
    role: Literal["user", "assistant", "system"] = "user"
    content: Annotated[list[ScalePart], WrapValidator(validate_content, json_schema_input_type=str | list[ScalePart])]

    def to_message(self) -> Message:
        said: Any = self.content
        content: Content = tuple(part.to_part() for part in said) if isinstance(said, list) else said
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

    def question(self) -> Mapping[str, Any]:
        kept = self.messages[-self.memory_strategy.params.k :] if self.memory_strategy else self.messages
        return {"messages": tuple(message.to_message() for message in kept), "system": self.instructions}

    def passed_on(self) -> dict[str, Any]:
        return super().passed_on() | ({"chat_template": self.chat_template} if self.chat_template else {})

    @staticmethod
    def shape(text: str, end: Mapping[str, Any]) -> dict[str, Any]:
        return {"chat_completion": {"message": {"role": "assistant", "content": text}, **end}}
