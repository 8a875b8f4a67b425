"""Requests of `POST /v1/completion`: Thiggle's contract, and what Fanout adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from fanout.config.catalogue import Catalogue
from fanout.core.long_lists import IN_STEPS
from fanout.core.messages import MessageBody
from fanout.core.sampling import Sampling
from fanout.core.schema import Credential
from fanout.dispatch.request import Request, Shape
from fanout.requests.bodies import (
    MAX_ENTRIES,
    EntryBody,
    Metadata,
    Models,
    ReturnWhen,
    SamplingBody,
    explain_return_when,
    explain_timeout,
    to_messages,
)


class CompletionBody(SamplingBody):
    """A request for one completion by each of several models."""

    prompt: str
    """The text to complete."""
    model: Models
    """A model, an object with a model and parameters of its own, or a list of either."""
    system: str | None = None
    """A system message, for chat models."""
    messages: Annotated[list[MessageBody], IN_STEPS] | None = None
    """Earlier messages of a conversation with chat models, to which `prompt` is the next one of the user's."""
    stream: bool | None = None
    """Answer in pieces, as server-sent events."""
    resumable: bool | None = None
    """With `stream`: the calls go on if the connection breaks, and the stream can be taken up again."""
    strict_parameters: bool | None = None
    """Fail an entry whose model cannot take a parameter, instead of ignoring or adjusting the parameter."""
    timeout_s: float | None = Field(None, gt=0)
    """Deadline of the whole request, in seconds."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled: `all`, `first`, or a number."""
    metadata: Metadata | None = None
    """Up to 16 strings of yours, returned and recorded."""
    dry_run: bool | None = None
    """Answer with the calls that would be made, without making them."""

    # The entries' own validator cannot see the body's `n`, which an entry inherits.
    @field_validator("model")
    @classmethod
    def _check_best_of_entries(cls, value: list[EntryBody], info: ValidationInfo) -> list[EntryBody]:
        for number, entry in enumerate(value):
            best_of = _get_parameter(entry, "best_of", info)
            if best_of and best_of < ((n := _get_parameter(entry, "n", info)) or 1):
                raise ValueError(f"entry {number}: its `best_of`, {best_of}, must not be below its `n`, {n}")
        return value

    @field_validator("stream")
    @classmethod
    def _check_streamable(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and any((_get_parameter(entry, "best_of", info) or 0) > 1 for entry in info.data.get("model", ())):
            raise ValueError("`best_of` above 1 cannot be streamed: the best is known only at the end")
        return value

    @field_validator("resumable")
    @classmethod
    def _check_resumable(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        # Absent where `stream` itself is wrong, which is reported already.
        if value and "stream" in info.data and not info.data["stream"]:
            raise ValueError("needs `stream: true`: a whole answer can be had again with an `Idempotency-Key`")
        return value

    @field_validator("timeout_s")
    @classmethod
    def _check_timeout(cls, value: float | None, info: ValidationInfo) -> float | None:
        if info.context and (problem := explain_timeout(value, info.context["max_timeout_s"])):
            raise ValueError(problem)
        return value

    @field_validator("return_when")
    @classmethod
    def _check_return_when(cls, value: int | None, info: ValidationInfo) -> int | None:
        # If `model` is wrong, that fault is reported already: no second one that depends on its length.
        entries = MAX_ENTRIES
        if info.context and "model" in info.data:
            entries = _count_entries(info.data["model"], info.context["catalogue"])
        if problem := explain_return_when(value, entries):
            raise ValueError(problem)
        return value

    @cached_property
    def shape(self) -> Shape:
        """The part of it that does not depend on its prompt."""
        entries = tuple(entry.to_entry() for entry in self.model)
        return Shape(entries, to_messages(self.messages), Sampling(**self.to_parameters()))

    def to_request(self, prompt: str, credentials: Mapping[str, Credential], account_id: str | None) -> Request:
        """Return the request as `plan` takes it; the prompt is that of this body, or of another with the same rest."""
        shape = self.shape
        return Request(
            entries=shape.entries,
            prompts=(prompt,),
            earlier=shape.earlier,
            system=self.system,
            sampling=shape.sampling,
            strict=bool(self.strict_parameters),
            credentials=credentials,
            account_id=account_id,
            shape=shape,
        )


def _get_parameter(entry: EntryBody, name: str, info: ValidationInfo) -> int | None:
    """Return a parameter of an entry: its own, be it null, or else the body's."""
    value: int | None = getattr(entry, name) if name in entry.model_fields_set else info.data.get(name)
    return value


def _count_entries(entries: Sequence[EntryBody], catalogue: Catalogue) -> int:
    """Return the number of entries, sets written out; a fusion counts as one, whatever its members."""
    names = [entry.model for entry in entries if entry.model]
    sets = [catalogue.find_set(name) for name in names if not catalogue.find(name)]
    return len(entries) + sum(len(members) - 1 for members in sets if members)
