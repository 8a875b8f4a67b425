"""Reading a request's body: what a caller may ask, validated whole before anything is done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, from_json

from fanout.core.errors import RequestError
from fanout.core.faults import Fault, to_faults
from fanout.core.sampling import INT64, Biases, Stop, at_most
from fanout.core.schema import SAMPLING_NAMES, Call
from fanout.dispatch.plan import Entry
from fanout.server.lifecycle import DISPATCHER

MAX_ENTRIES = 64
MAX_FIELDS = 64
"""Of one object. A thousand wrong ones would take the event loop for a second to complain about."""
MAX_FAULTS = 100
Body = TypeVar("Body", bound=BaseModel)
RAW_BODY = web.RequestKey("raw", bytes)
"""The body as it came, once it was read."""


def _entries(value: Any) -> Any:
    """A name, an object or a list of either, as a list of objects."""
    entries = value if isinstance(value, list) else [value]
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise ValueError(f"{len(entries)} entries are not allowed: 1 to {MAX_ENTRIES}")
    return [{"model": entry} if isinstance(entry, str) else entry for entry in entries]


def _return_when(value: Any) -> Any:
    """`all` as `None`, `first` as 1."""
    if value == "all" or value is None:
        return None
    if value == "first":
        return 1
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    shown = f"`{value[:80]}`" if isinstance(value, str) else "this"
    raise ValueError(f"{shown} is not allowed: `all`, `first`, or the number of entries to wait for")


class SamplingBody(BaseModel):
    """The sampling parameters of `/v1/completion`; `null` is as if absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
    expected: ClassVar = "a JSON object"

    max_tokens: int | None = Field(None, ge=0)
    """Most tokens to generate; absent: the provider's default."""
    max_new_tokens: int | None = Field(None, ge=0)
    """Another name of `max_tokens`."""
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    n: int | None = Field(None, ge=1, le=128)
    """Independent samples, each a call of its own."""
    best_of: int | None = Field(None, ge=0, le=20)
    """How many the provider generates to give back the best; 0: not set."""
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    """Sample k is sent seed + k."""
    stop: Stop | None = None
    """Up to four sequences, none of which is in the answer."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Biases | None = None
    """Token id → bias."""
    logprobs: int | None = Field(None, ge=0, le=20)
    """How many alternatives to report beside each token."""
    echo: bool | None = None
    """The prompt stands before the answer."""
    suffix: str | None = None
    """What comes after the answer."""
    user: str | None = Field(None, max_length=256)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be {cls.expected}")  # noqa: TRY004 - only this one is a wrong field to pydantic
        if len(value) > MAX_FIELDS:
            raise ValueError(f"{len(value)} fields are not allowed: at most {MAX_FIELDS}; known: {', '.join(cls.model_fields)}")
        return value

    # Fields are checked against each other one by one, in the order above: so what is wrong between two of them stands in
    # the same answer as what is wrong with a third.

    @field_validator("max_new_tokens")
    @classmethod
    def _one_length(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_tokens") not in (None, value):
            raise ValueError("is another name of `max_tokens`: give one of them, or both alike")
        return value

    @field_validator("best_of")
    @classmethod
    def _best_of_all(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and value < (info.data.get("n") or 1):
            raise ValueError(f"{value} is not allowed: must not be below `n`, which is {info.data['n']}")
        return value

    def to_parameters(self) -> dict[str, Any]:
        """The parameters that were given, by the names of `schema.Sampling`; `null` takes one back."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set if name in SAMPLING_NAMES}
        if "max_new_tokens" in self.model_fields_set and given.get("max_tokens") is None:
            given["max_tokens"] = self.max_new_tokens
        if given.get("stop") is not None:
            given["stop"] = tuple(given["stop"])
        return given


class EntryBody(SamplingBody):
    """One entry of `model` written out: a model with parameters of its own."""

    expected: ClassVar = "a model's name, or a JSON object with `model` and parameters of its own"

    model: str = Field(min_length=1, max_length=256)
    label: str | None = Field(None, min_length=1, max_length=256)
    """Your name for this entry; by default the model's."""

    def to_entry(self) -> Entry:
        return Entry(model=self.model, label=self.label, overrides=self.to_parameters())


def entries_schema(entry: str) -> WithJsonSchema:
    """A name, an object or a list of either, as OpenAPI says it; `entry` is the object's name there."""
    one: list[dict[str, Any]] = [{"type": "string"}, {"$ref": f"#/components/schemas/{entry}"}]
    several = {"type": "array", "minItems": 1, "maxItems": MAX_ENTRIES, "items": {"anyOf": one}}
    return WithJsonSchema({"anyOf": [*one, several]})


ToEntryList = BeforeValidator(_entries)
"""Makes a list of entries of a name, an object or a list of either."""
EntryCount = Field(min_length=1, max_length=MAX_ENTRIES)
Models = Annotated[list[EntryBody], ToEntryList, EntryCount, entries_schema("EntryBody")]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
    at_most(16, "entries"),
]
ReturnWhen = Annotated[
    int | None,
    BeforeValidator(_return_when),
    WithJsonSchema({"anyOf": [{"enum": ["all", "first"]}, {"type": "integer", "minimum": 1}]}),
]


async def read_body(request: web.Request, model: type[Body]) -> Body:
    """The validated body of a request. The validators of `model` find in their context what they need to know of the server.

    Raises:
        RequestError: with every wrong field.
        HTTPBadRequest: the body cannot be unpacked.
        HTTPUnsupportedMediaType: the body is not declared as JSON.
        HTTPRequestEntityTooLarge: it is larger than the server takes.
    """
    if request.content_type != "application/json":
        # Also what keeps a stranger's web page from calling: without this a form could.
        raise web.HTTPUnsupportedMediaType(text=f"send `Content-Type: application/json`, not {request.content_type!a:.100}")
    raw = await read_raw_body(request)
    dispatcher = request.app[DISPATCHER]
    context = {"max_timeout_s": dispatcher.settings.environment.max_timeout_s, "catalogue": dispatcher.catalogue}
    return validate_body(raw, model, context)


def validate_body(raw: bytes, model: type[Body], context: Mapping[str, Any] | None = None) -> Body:
    """A body of JSON, validated whole.

    Raises:
        RequestError: with every wrong field.
    """
    try:
        return model.model_validate_json(raw, context=context)
    except ValidationError as error:
        raise RequestError(list(_as_written(_faults(error, model), raw))) from None


async def read_raw_body(request: web.Request) -> bytes:
    """The body as it came.

    Raises:
        HTTPBadRequest: it cannot be unpacked.
        HTTPRequestEntityTooLarge: it is larger than the server takes.
    """
    try:
        raw = await request.read()
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="the body cannot be unpacked: it is not what its headers say") from None
    request[RAW_BODY] = raw
    return raw


def check_limits(timeout_s: float | None, return_when: int | None, calls: Sequence[Call], max_timeout_s: float) -> None:
    """What only the server's settings or the resolved calls can tell.

    Raises:
        RequestError: a field is beyond what is allowed here.
    """
    faults = []
    if timeout_s and timeout_s > max_timeout_s:
        faults.append(Fault("timeout_s", f"{timeout_s:g} is not allowed: at most {max_timeout_s:g} here"))
    entries = calls[-1].entry + 1
    if return_when is not None and not 1 <= return_when <= entries:
        allowed = f"`all`, `first`, or 1 to {entries}, the number of entries"
        faults.append(Fault("return_when", f"{return_when} is not allowed: {allowed}"))
    if faults:
        raise RequestError(faults)


def _faults(error: ValidationError, model: type[BaseModel]) -> Sequence[Fault]:
    """Every fault, up to more than anyone reads."""
    more = error.error_count() - MAX_FAULTS
    if more <= 0:
        return to_faults(error, model)
    details = [
        InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))
        for detail in error.errors(include_url=False)[:MAX_FAULTS]
    ]
    first = ValidationError.from_exception_data(error.title, details, "json")
    return [*to_faults(first, model), Fault("", f"and {more} more", "too_many_faults")]


def _as_written(faults: Sequence[Fault], raw: bytes) -> Iterator[Fault]:
    """Paths as the caller would write them: `model` where he wrote one name, `model[1]` where a list of names."""
    body = from_json(raw) if any(fault.path.startswith("model[") for fault in faults) else None
    for fault in faults:
        found = re.match(r"model\[(\d+)\](\.model$)?(.*)", fault.path)
        if found is None or not isinstance(body, dict):
            yield fault
            continue
        listed = isinstance(body["model"], list)
        entry = body["model"][int(found[1])] if listed else body["model"]
        place = f"model[{found[1]}]" if listed else "model"
        below = (found[2] or "") if isinstance(entry, dict) else ""
        yield Fault(f"{place}{below}{found[3]}", fault.message, fault.kind)
