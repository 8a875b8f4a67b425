"""Reading a request's body: what a caller may ask, validated whole before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from fanout.errors import Fault, RequestError, faults_of
from fanout.plan import Entry
from fanout.schema import SAMPLING_NAMES, Call, Sampling

INT64 = 2**63
MOST_ENTRIES = 64
Body = TypeVar("Body", bound=BaseModel)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _entries(value: Any) -> Any:
    """A name, an object or a list of either, as a list of objects."""
    entries = value if isinstance(value, list) else [value]
    return [{"model": entry} if isinstance(entry, str) else entry for entry in entries]


Stop = Annotated[
    list[str],
    BeforeValidator(_listed),
    Field(min_length=1, max_length=4),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4}]}
    ),
]
Bias = Annotated[float, Field(ge=-100, le=100)]


class SamplingBody(BaseModel):
    """The sampling parameters of `/v1/completion`; `null` is as if absent."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

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
    logit_bias: dict[str, Bias] | None = None
    """Token id → bias."""
    logprobs: int | None = Field(None, ge=0, le=20)
    """How many alternatives to report beside each token."""
    echo: bool | None = None
    """The prompt stands before the answer."""
    suffix: str | None = None
    """What comes after the answer."""
    user: str | None = Field(None, max_length=256)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if None not in (self.max_tokens, self.max_new_tokens) and self.max_tokens != self.max_new_tokens:
            raise ValueError("`max_tokens` and `max_new_tokens` are two names of one parameter: give one, or both alike")
        if self.best_of and self.best_of < (self.n or 1):
            raise ValueError(f"`best_of` ({self.best_of}) must not be below `n` ({self.n})")
        return self

    def asked(self) -> dict[str, Any]:
        """The parameters that were given, by the names of `schema.Sampling`; `null` takes one back."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set if name in SAMPLING_NAMES}
        if self.max_new_tokens is not None:
            given["max_tokens"] = self.max_new_tokens
        if given.get("stop") is not None:
            given["stop"] = tuple(given["stop"])
        if given.get("best_of") == 0:
            given["best_of"] = None
        return given


class EntryBody(SamplingBody):
    """One entry of `model` written out: a model with parameters of its own."""

    model: str = Field(min_length=1, max_length=256)
    label: str | None = Field(None, min_length=1, max_length=256)
    """Your name for this entry; by default the model's."""

    def entry(self) -> Entry:
        return Entry(model=self.model, label=self.label, overrides=self.asked())


def entries_schema(entry: str) -> WithJsonSchema:
    """A name, an object or a list of either, as OpenAPI says it; `entry` is the object's name there."""
    one: list[dict[str, Any]] = [{"type": "string"}, {"$ref": f"#/components/schemas/{entry}"}]
    several = {"type": "array", "minItems": 1, "maxItems": MOST_ENTRIES, "items": {"anyOf": one}}
    return WithJsonSchema({"anyOf": [*one, several]})


Listed = BeforeValidator(_entries)
"""Makes a list of entries of a name, an object or a list of either."""
Few = Field(min_length=1, max_length=MOST_ENTRIES)
Models = Annotated[list[EntryBody], Listed, Few, entries_schema("EntryBody")]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


def _return_when(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("all", "first"):
            raise ValueError(f"`{value[:80]}` is not allowed: `all`, `first`, or the number of entries to wait for")
        return 1 if value == "first" else None
    return value


ReturnWhen = Annotated[
    int | None,
    BeforeValidator(_return_when),
    WithJsonSchema({"anyOf": [{"enum": ["all", "first"]}, {"type": "integer", "minimum": 1}]}),
]


async def read(request: web.Request, model: type[Body]) -> Body:
    """The validated body of a request.

    Raises:
        RequestError: with every wrong field.
        HTTPUnsupportedMediaType: the body is not declared as JSON.
        HTTPRequestEntityTooLarge: it is larger than the server takes.
    """
    if request.content_type != "application/json":
        # Also what keeps a stranger's web page from calling: without this a form could.
        raise web.HTTPUnsupportedMediaType(text=f"send `Content-Type: application/json`, not `{request.content_type}`")
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        raise RequestError(_without_wrapping(faults_of(error, model))) from None


def check_request(timeout_s: float | None, return_when: int | None, calls: Sequence[Call], max_timeout_s: float) -> None:
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


def sampling(given: Mapping[str, Any]) -> Sampling:
    return Sampling(**given)


def _without_wrapping(faults: list[Fault]) -> list[Fault]:
    """`model[0].model` is `model` to a caller who wrote a name and not an object."""
    return [Fault(fault.path.removesuffix(".model"), fault.message, fault.kind) for fault in faults]
