"""Requests of `POST /v1/embeddings`.

Source: openai 3.51.0, `types/embedding_create_params.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS, BoundedObject
from fanout.core.sampling import INT64, Sampling
from fanout.core.schema import Credential
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Prompt, Request
from fanout.requests.bodies import IN_PATH, EntryCount, ReturnWhen, entries_schema, to_entry_list
from fanout.requests.openai.text import Inputs

Dimensions = Annotated[int | None, Field(ge=1, lt=INT64)]


class EmbeddingsEntry(BoundedObject):
    """One entry of `model` written out."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(min_length=1, max_length=256)
    """Name of a model, an alias, or `<provider>/<id>`."""
    label: str | None = Field(None, min_length=1, max_length=256)
    """Your name for this entry; by default the model's."""
    dimensions: Dimensions = None
    """Length of the vectors, where the model can shorten them."""

    def to_entry(self) -> Entry:
        """Return the entry as `plan` takes it."""
        return Entry(self.model, self.label, passthrough=_collect(self.dimensions, self.model_extra))


class EmbeddingsBody(BoundedObject):
    """A request for embeddings. Fields not named here go on to the providers as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[
        list[EmbeddingsEntry], IN_STEPS, to_entry_list(EmbeddingsEntry), EntryCount, entries_schema("EmbeddingsEntry")
    ]
    """A model, an object with a model and `dimensions` of its own, or a list of either."""
    input: Inputs
    """A text, a list of texts, a list of token ids, or a list of such lists."""
    encoding_format: Literal["float", "base64"] | None = None
    """Form of the vectors: numbers, or base64 of 32-bit floats."""
    dimensions: Dimensions = None
    """Length of the vectors, where the model can shorten them."""
    user: str | None = Field(None, max_length=256)
    """Your own user, passed on to the provider."""
    strict_parameters: bool | None = None
    """Fail an entry whose model cannot take a parameter, instead of ignoring the parameter."""
    timeout_s: float | None = Field(None, gt=0)
    """Deadline of the whole request, in seconds."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled: `all`, `first`, or a number."""

    def to_request(self, credentials: Mapping[str, Credential], account_id: str | None) -> Request:
        """Return the request as `plan` takes it."""
        return Request(
            entries=tuple(entry.to_entry() for entry in self.model),
            inputs=self._list_inputs(),
            task="embed",
            sampling=Sampling(user=self.user),
            passthrough=_collect(self.dimensions, self.model_extra),
            strict=bool(self.strict_parameters),
            credentials=credentials,
            account_id=account_id,
        )

    def _list_inputs(self) -> tuple[Prompt, ...]:
        given = self.input
        if isinstance(given, str):
            return (given,)
        # A list of numbers is one text as token ids, not many texts. It is never empty.
        if isinstance(given[0], int):
            return (tuple(given),)
        return tuple(text if isinstance(text, str) else tuple(text) for text in given)


class DeploymentEmbeddingsBody(EmbeddingsBody):
    """A request for embeddings by the path's model."""

    model: Annotated[list[EmbeddingsEntry], IN_STEPS, to_entry_list(EmbeddingsEntry), EntryCount, IN_PATH] = Field(
        default_factory=list
    )
    """Ignored: the path names the model."""


def _collect(dimensions: int | None, extra: Mapping[str, Any] | None) -> JsonObject:
    # Left out, not null: hosts that cannot shorten vectors refuse the field as such.
    return {**(extra or {}), **({} if dimensions is None else {"dimensions": dimensions})}
