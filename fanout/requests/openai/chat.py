"""Requests of `POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from fanout.core.errors import Fault
from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS
from fanout.core.messages import MessageBody
from fanout.requests.bodies import IN_PATH, EntryCount, entries_schema, to_entry_list
from fanout.requests.fusions import MEMBERS_SCHEMA, FusionFields, MemberCount, ToMemberList
from fanout.requests.openai.bodies import OpenAiBody, OpenAiEntry, OpenAiSampling, Parameters


class ChatSampling(OpenAiSampling, takes=("max_completion_tokens",), spellings={"max_completion_tokens": "max_tokens"}):
    """Parameters of a chat completion."""

    logprobs: bool | None = None
    """Report how likely the tokens are."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Alternatives to report beside each token; needs `logprobs`."""

    def own_parameters(self) -> JsonObject:
        """Return the parameters that this object sets."""
        own = super().own_parameters()
        own |= {name: getattr(self, name) for name in self.model_fields_set & {"logprobs", "top_logprobs"}}
        if "logprobs" in own and not own["logprobs"]:
            own.setdefault("top_logprobs")  # an entry that wants none wants none of the request's alternatives
        return own

    @classmethod
    def resolve(cls, own: Parameters, request: Parameters) -> JsonObject:
        """Return `own` with `logprobs` and `top_logprobs` as the one number that they are to Fanout."""
        # An entry may set one of the two and inherit the other.
        both, resolved = {**request, **own}, dict(own)
        if resolved.keys() & {"logprobs", "top_logprobs"}:
            resolved.pop("top_logprobs", None)
            resolved["logprobs"] = (both.get("top_logprobs") or 0) if both.get("logprobs") else None
        return resolved


class ChatFusion(FusionFields):
    """One answer made of the answers of several models."""

    of: Annotated[list[ChatEntry], IN_STEPS, ToMemberList, MemberCount, MEMBERS_SCHEMA]
    """Members: 2 to 16 models with sets written out. An object gives one parameters of its own."""


class ChatEntry(OpenAiEntry, ChatSampling):
    """One entry of `model` written out: a model with parameters of its own, or a fusion, whose own call they are for."""

    fusion: ChatFusion | None = None
    """One answer made of the answers of several models; instead of `model`."""


ChatEntry.model_rebuild()


class ChatBody(OpenAiBody, ChatSampling):
    """A request for chat completions."""

    model: Annotated[list[ChatEntry], IN_STEPS, to_entry_list(ChatEntry), EntryCount, entries_schema("ChatEntry")]
    """A model, an object with a model and parameters of its own, or a list of either."""
    messages: Annotated[list[MessageBody], Field(min_length=1), IN_STEPS]
    """The conversation so far."""

    @property
    def entry_bodies(self) -> Sequence[OpenAiEntry]:
        """The entries of `model`."""
        return self.model

    def find_clashes(self, parameters: Parameters) -> Iterator[Fault]:
        """Yield what is wrong between the parameters of one entry."""
        if parameters.get("top_logprobs") is not None and not parameters.get("logprobs"):
            yield Fault("top_logprobs", "needs `logprobs: true`")

    def to_question(self) -> Mapping[str, Any]:
        """Return the messages."""
        return {"messages": tuple(message.to_message() for message in self.messages)}


class DeploymentChatBody(ChatBody):
    """A request for chat completions of the path's model."""

    model: Annotated[list[ChatEntry], IN_STEPS, to_entry_list(ChatEntry), EntryCount, IN_PATH] = Field(default_factory=list)
    """Ignored: the path names the model."""
