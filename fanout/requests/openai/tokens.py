"""Requests of `POST /v1/tokenize`.

Source: vLLM, `entrypoints/serve/tokenize/protocol.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field

from fanout.core.errors import Fault, RequestError
from fanout.core.long_lists import IN_STEPS, BoundedObject
from fanout.core.messages import MessageBody
from fanout.core.schema import Credential
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request
from fanout.requests.bodies import EntryCount, ReturnWhen, entries_schema, to_entry_list


class TokenizeEntry(BoundedObject):
    """One entry of `model` written out."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(min_length=1, max_length=256)
    """Name of a model, an alias, or `<provider>/<id>`."""
    label: str | None = Field(None, min_length=1, max_length=256)
    """Your name for this entry; by default the model's."""

    def to_entry(self) -> Entry:
        """Return the entry as `plan` takes it."""
        return Entry(self.model, self.label, passthrough=self.model_extra or {})


class TokenizeBody(BoundedObject):
    """A request for the tokens of a prompt. Fields not named here go on to vLLM and llama.cpp as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[list[TokenizeEntry], IN_STEPS, to_entry_list(TokenizeEntry), EntryCount, entries_schema("TokenizeEntry")]
    """A model, an object with a model and a label, or a list of either."""
    prompt: str | None = None
    """A text; or `messages`."""
    messages: Annotated[list[MessageBody] | None, Field(min_length=1), IN_STEPS] = None
    """A conversation; or `prompt`."""
    add_special_tokens: bool | None = None
    """Whether the tokens that mark the beginning of a text count; by default as the provider does it."""
    return_token_strs: bool | None = None
    """Return the text of each token, too, where the provider knows it."""
    strict_parameters: bool | None = None
    """Fail an entry whose model cannot take a parameter, instead of ignoring the parameter."""
    timeout_s: float | None = Field(None, gt=0)
    """Deadline of the whole request, in seconds."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled: `all`, `first`, or a number."""

    def to_request(self, credentials: Mapping[str, Credential], account_id: str | None) -> Request:
        """Return the request as `plan` takes it.

        Raises:
            RequestError: there is not exactly one of `prompt` and `messages`.
        """
        if (self.prompt is None) == (self.messages is None):
            raise RequestError([Fault("prompt", "or `messages` is required, and only one of them")])
        own = {"add_special_tokens": self.add_special_tokens, "return_token_strs": self.return_token_strs}
        return Request(
            entries=tuple(entry.to_entry() for entry in self.model),
            prompts=() if self.prompt is None else (self.prompt,),
            messages=None if self.messages is None else tuple(message.to_message() for message in self.messages),
            task="tokenize",
            passthrough={**(self.model_extra or {}), **{name: value for name, value in own.items() if value is not None}},
            strict=bool(self.strict_parameters),
            credentials=credentials,
            account_id=account_id,
        )
