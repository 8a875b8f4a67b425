"""Requests of `POST /v1/responses`.

Source: openai 3.51.0, `types/responses/response_create_params.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from fanout.core.errors import Fault
from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS
from fanout.core.messages import Message
from fanout.requests.bodies import EntryCount, entries_schema, to_entry_list
from fanout.requests.fusions import MEMBERS_SCHEMA, FusionFields, MemberCount, ToMemberList
from fanout.requests.openai.bodies import OpenAiBody, OpenAiEntry, OpenAiSampling
from fanout.requests.openai.response_items import Items, to_messages

LOGPROBS = "message.output_text.logprobs"
"""What `include` names to have log probabilities."""
UNSUPPORTED = {
    "background": "answers are not made in the background here: submit a job to `/v1/jobs` instead",
    "conversation": "conversations are not kept here: send `previous_response_id`, or the items themselves",
    "prompt": "prompts are not kept here: send `instructions` and `input`",
}
"""Fields of OpenAI's that nothing here can serve."""


class TextOptions(BaseModel):
    """Form of the answer's text."""

    model_config = ConfigDict(extra="allow", strict=True)

    format: JsonObject | None = None
    """`{"type": "text"}`, `{"type": "json_object"}`, or `{"type": "json_schema", "name": …, "schema": …}`."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """How much the model writes, where it can tell."""


class ReasoningOptions(BaseModel):
    """Options of the model's reasoning."""

    model_config = ConfigDict(extra="allow", strict=True)

    effort: str | None = None
    """How much, where the model can tell: `low`, `medium`, `high`, …"""


class ResponsesSampling(OpenAiSampling, takes=("max_output_tokens",), spellings={"max_output_tokens": "max_tokens"}):
    """Parameters of a response."""

    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Alternatives to report beside each token."""
    tools: list[JsonObject] | None = Field(None, max_length=128)
    """Functions that the model may call. Tools of other types go to the provider as they are."""
    tool_choice: str | JsonObject | None = None
    """`auto`, `none`, `required`, or the function to call."""
    text: TextOptions | None = None
    """Form of the text."""
    reasoning: ReasoningOptions | None = None
    """How the model thinks."""

    def own_parameters(self) -> JsonObject:
        """Return the parameters that this object sets."""
        own = super().own_parameters()
        # Given, be it null: an entry's null takes the request's value back.
        return own | ({"logprobs": self.top_logprobs} if "top_logprobs" in self.model_fields_set else {})

    def get_passthrough(self) -> dict[str, Any]:
        """Return the fields that only some providers know, as chat completions write them."""
        fields = super().get_passthrough() | {name: getattr(self, name) for name in self.model_fields_set & {"tools"}}
        if self.tools:
            fields["tools"] = [_nest_tool(tool) for tool in self.tools]
        if "tool_choice" in self.model_fields_set:
            fields["tool_choice"] = _nest_choice(self.tool_choice)
        if self.text:
            fields |= {} if self.text.format is None else {"response_format": _nest_format(self.text.format)}
            fields |= {} if self.text.verbosity is None else {"verbosity": self.text.verbosity}
        if self.reasoning and self.reasoning.effort is not None:
            fields["reasoning_effort"] = self.reasoning.effort
        return fields


class ResponsesFusion(FusionFields):
    """One answer made of the answers of several models."""

    of: Annotated[list[ResponsesEntry], IN_STEPS, ToMemberList, MemberCount, MEMBERS_SCHEMA]
    """Members: 2 to 16 models with sets written out. An object gives one parameters of its own."""


class ResponsesEntry(OpenAiEntry, ResponsesSampling):
    """One entry of `model` written out: a model with parameters of its own, or a fusion, whose own call they are for."""

    fusion: ResponsesFusion | None = None
    """One answer made of the answers of several models; instead of `model`."""


ResponsesEntry.model_rebuild()


class ResponsesBody(OpenAiBody, ResponsesSampling):
    """A request for responses."""

    model: Annotated[
        list[ResponsesEntry], IN_STEPS, to_entry_list(ResponsesEntry), EntryCount, entries_schema("ResponsesEntry")
    ]
    """A model, an object with a model and parameters of its own, or a list of either."""
    input: Items
    """A question, or the items of a conversation."""
    instructions: str | None = None
    """What the model is to heed; stands before the conversation."""
    previous_response_id: str | None = Field(None, max_length=256)
    """Response to go on from; needs FANOUT_HISTORY=full."""
    store: bool | None = None
    """Keep the texts, to fetch them or to go on from them; needs FANOUT_HISTORY=full."""
    include: list[str] | None = Field(None, max_length=32)
    """`message.output_text.logprobs`: log probabilities. Others have no effect."""
    truncation: Literal["disabled"] | None = None
    """Only `disabled`: a conversation that is too long for a model is refused by its provider."""
    max_tool_calls: int | None = Field(None, ge=1)
    """Accepted, without effect: the caller runs all tools."""
    _earlier: tuple[Message, ...] = PrivateAttr(())

    question_fields: ClassVar = frozenset({"messages"}) | UNSUPPORTED.keys()

    @property
    def entry_bodies(self) -> Sequence[OpenAiEntry]:
        """The entries of `model`."""
        return self.model

    def own_parameters(self) -> JsonObject:
        """Return the parameters that this object sets."""
        own = super().own_parameters()
        if LOGPROBS in (self.include or ()) and own.get("logprobs") is None:
            # The chosen tokens alone: `include` asks for no alternatives.
            own["logprobs"] = 0
        return own

    def get_passthrough(self) -> dict[str, Any]:
        """See `ResponsesSampling.get_passthrough`; a null in place of what is not served means nothing."""
        return {name: value for name, value in super().get_passthrough().items() if name not in UNSUPPORTED}

    def find_faults(self) -> Iterator[Fault]:
        """Yield what is wrong between fields."""
        for name, sentence in UNSUPPORTED.items():
            if (self.model_extra or {}).get(name):
                yield Fault(name, sentence, "unsupported_parameter")
        yield from super().find_faults()

    def go_on_from(self, earlier: Sequence[Message]) -> None:
        """Put the messages of an earlier conversation before the input."""
        self._earlier = tuple(earlier)

    def to_own_messages(self) -> tuple[Message, ...]:
        """Return the messages of the input alone."""
        return to_messages(self.input)

    def to_question(self) -> Mapping[str, Any]:
        """Return the messages."""
        # Not part of the stored conversation: by the contract `instructions` hold for one response only.
        before = () if self.instructions is None else (Message("system", self.instructions),)
        return {"messages": (*before, *self._earlier, *self.to_own_messages())}


def _nest_tool(tool: JsonObject) -> JsonObject:
    """Return a tool as chat completions write it: the fields of a function stand in an object of their own."""
    kind = tool.get("type")
    # Clients of chat completions send the nested form here as well.
    if kind not in ("function", "custom") or kind in tool:
        return tool
    fields = {name: value for name, value in tool.items() if name != "type" and value is not None}
    grammar = fields.get("format")
    if kind == "custom" and isinstance(grammar, dict) and grammar.get("type") == "grammar" and "grammar" not in grammar:
        inner = {name: value for name, value in grammar.items() if name != "type"}
        fields["format"] = {"type": "grammar", "grammar": inner}
    return {"type": kind, kind: fields}


def _nest_choice(choice: str | JsonObject | None) -> str | JsonObject | None:
    """Return the choice of a tool as chat completions write it."""
    if not isinstance(choice, dict):
        return choice
    if (kind := choice.get("type")) in ("function", "custom") and "name" in choice:
        return {"type": kind, kind: {"name": choice["name"]}}
    if choice.get("type") == "allowed_tools" and isinstance(tools := choice.get("tools"), list):
        nested = [_nest_tool(tool) if isinstance(tool, dict) else tool for tool in tools]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": nested}}
    return choice


def _nest_format(format_: JsonObject) -> JsonObject:
    """Return the form of the text as chat completions write it."""
    if format_.get("type") != "json_schema" or "json_schema" in format_:
        return format_
    fields = {name: value for name, value in format_.items() if name != "type" and value is not None}
    return {"type": "json_schema", "json_schema": fields}
