"""The shape of `providers.json`: a frozen row for each kind of entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
)
from pydantic_core import core_schema

from fanout.core.attribute_docs import DescribedJsonSchema
from fanout.core.json_text import JsonObject
from fanout.core.sampling import MEASURED
from fanout.core.schema import Kind

MAX_TIMEOUT_S = 600
ADDRESS = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"
NO_ADDRESS = "is not an address like `https://host/v1`, without user, password, query or fragment"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
KEY_VARIABLE = r"^[A-Z_][A-Z0-9_]*$"
"""Capitals alone: most keys have small letters, and a key mistaken for a variable's name would be shown as missing."""
NO_KEY_VARIABLE = "is not the name of a variable (capital letters, digits, `_`); put the key in a variable and name it here"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable within a header's value."""


@dataclass(frozen=True, slots=True)
class _Like:
    """A string of a pattern. A fault never shows the value: by mistake that is often a key."""

    pattern: str
    otherwise: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        return {**handler(schema), "pattern": self.pattern}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.otherwise)
        return text


def _check_day(text: str) -> str:
    date.fromisoformat(text)  # its own message explains: `month must be in 1..12`
    return text


def _check_header_value(text: str) -> str:
    if "${" in REFERENCE.sub("", text):
        raise ValueError("holds a `${` that names no variable; a variable is written `${NAME}`")
    if not text.isprintable():
        raise ValueError("holds a line break or another character that no header may have")
    return text


def _check_order(ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = ends
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lowest, {low:g}, is above the highest, {high:g}")
    return ends


def _to_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


ProxyAddress = Annotated[str, _Like(r"^(https?://[^\s/?#@]+/?)?$", "is not the address of an HTTP proxy without a password")]
Address = Annotated[str, _Like(ADDRESS, NO_ADDRESS)]
Variable = Annotated[str, _Like(VARIABLE, "is not the name of an environment variable (letters, digits, `_`)")]
KeyVariable = Annotated[str, _Like(KEY_VARIABLE, NO_KEY_VARIABLE)]
KeyVariables = Annotated[
    tuple[KeyVariable, ...], BeforeValidator(_to_tuple, json_schema_input_type=KeyVariable | tuple[KeyVariable, ...])
]
# Source: token, https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
HeaderName = Annotated[str, _Like(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "is not the name of a header")]
HeaderValue = Annotated[str, AfterValidator(_check_header_value)]
Name = Annotated[str, _Like(r"^\S(.*\S)?$", "is not a name: it is empty, or begins or ends with a space")]
ProviderName = Annotated[
    str, _Like(r"^[^\s/]+$", "a provider's name has no `/` or space: what stands before the first `/` names the provider")
]
Day = Annotated[str, _Like(r"^\d{4}-\d{2}-\d{2}$", "is not a day like `2026-12-31`"), AfterValidator(_check_day)]
ClampableName = Annotated[str, GetPydanticSchema(lambda _source, _handler: core_schema.literal_schema(list(MEASURED)))]
"""Name of a sampling parameter that can be clamped."""
Tokenizer = Literal["responses", "vllm", "llama.cpp", "tgi", "xai"]
Ends = Annotated[tuple[float | None, float | None], AfterValidator(_check_order)]


class Row(BaseModel):
    """Base of the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CircuitRow(Row):
    """The circuit breaker of an account: where its calls keep failing with 5xx or without a connection, they are held."""

    failures: int = Field(5, ge=0)
    """Failed attempts in a row that open it; 0: it never opens."""
    sustained_s: float = Field(10, ge=0, le=MAX_TIMEOUT_S)
    """Shortest time from the first to the last of them."""
    probe_after_s: float = Field(15, gt=0, le=MAX_TIMEOUT_S)
    """Time after which one call is sent as a probe, again and again until one is answered."""


class RampRow(Row):
    """The slope of an account's starts: from a few, when it is cold, to at most twice as many in each period."""

    starts: int = Field(ge=1)
    """Starts in a period before which there were none."""
    period_s: float = Field(10, ge=0.01, le=MAX_TIMEOUT_S)


class LimitsRow(Row):
    """Limits of one account. A limit that is absent does not apply."""

    requests_per_minute: int | None = Field(None, ge=1)
    burst: int | None = Field(None, ge=1)
    """Most starts at once, in their share of a minute; absent: a whole minute's requests may start at once."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """In any minute, unless `token_bucket` is set."""
    token_bucket: bool = False
    """The provider documents a bucket that refills evenly: after a pause up to twice the limit may pass within a minute."""
    concurrency: int | None = Field(None, ge=1)
    """Calls in flight at once."""
    ramp: RampRow | None = None
    """For a provider that refuses sudden rises."""
    circuit: CircuitRow = CircuitRow()


class RetriesRow(Row):
    """Retries of a failed call."""

    attempts: int = Field(3, ge=1, le=10)
    """Attempts in all, the first included."""
    max_delay_s: float = Field(30, ge=0, le=MAX_TIMEOUT_S)
    """Longest wait between two attempts where the provider names none."""


class ParametersRow(Row):
    """Differences between this host and its wire format, by Fanout's parameter names."""

    drop: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    clamp: dict[ClampableName, Ends] = {}
    """Name → [lowest, highest]."""
    max_stops: int | None = Field(None, ge=1)
    """Stop sequences that the host takes, where not as many as its format: those beyond are cut, and reported."""


class EconomyRow(Row):
    """A host's own batch API, which answers within a day and costs less."""

    format: Literal["openai", "groq", "together", "mistral", "anthropic", "gemini"]
    """Whose batch API it is."""
    price_ratio: float = Field(0.5, gt=0, le=1)
    """Part of the ordinary price that a call in a batch costs."""
    max_requests: int = Field(10_000, ge=1, le=100_000)
    """Most requests in one batch."""
    max_bytes: int = Field(50 * 2**20, ge=1024, le=500 * 2**20)
    """Most bytes of the requests in one batch."""
    max_result_bytes: int = Field(256 * 2**20, ge=1024, le=2**31)
    """Most bytes of a batch's answers where they come at once (Gemini)."""
    poll_s: float = Field(30, gt=0, le=3600)
    """Time between two looks at a batch."""


class ProviderRow(Row):
    """A host of models, and the account used there."""

    adapter: str
    """A built-in wire format, or the dotted name of a module outside the package."""
    base_url: Address | None = None
    base_url_env: Variable | None = None
    """Variable that overrides `base_url`."""
    key_header: HeaderName | None = None
    """Request header in which callers may send a key of their own."""
    api_key_env: KeyVariables = ()
    """Variables of the key, of which the first that is set is taken; absent: no key needed."""
    key_optional: bool = False
    """Whether the host also answers without a key."""
    key_page: str | None = None
    """Page on which the host's customers make a key; `fanout init` shows it."""
    headers: dict[HeaderName, HeaderValue] = Field({}, repr=False)
    """Extra headers; `${VAR}` is taken from the environment."""
    limits: LimitsRow = LimitsRow()
    trace_context: bool = False
    """Whether its requests carry the trace context (`traceparent`, `tracestate`) while traces are on."""
    proxy: ProxyAddress | None = None
    """Proxy of its requests, instead of that of the environment; `""`: none."""
    timeout_s: float = Field(120, gt=0, le=MAX_TIMEOUT_S)
    """One attempt, from its start to its last byte."""
    connect_timeout_s: float = Field(10, gt=0, le=MAX_TIMEOUT_S)
    retries: RetriesRow = RetriesRow()
    default_kind: Kind = "chat"
    """Kind of `<provider>/<any id>` where the id has no entry among the models."""
    parameters: ParametersRow = ParametersRow()
    tokenizer: Tokenizer | None = None
    """The host's way of telling tokens, where its adapter is `openai`: that format has none of its own."""
    economy: EconomyRow | None = None
    """The host's own batch API, which jobs use that are run `via` it; absent: none."""
    prices: str | None = None
    """The provider's name in genai-prices, where it differs from the name here; `""`: it has no prices there."""


class PriceRow(Row):
    """US dollars per million tokens."""

    input_usd_per_mtok: float = Field(ge=0)
    output_usd_per_mtok: float = Field(ge=0)
    cached_usd_per_mtok: float | None = Field(None, ge=0)
    """Input read from the provider's cache; absent: as other input."""
    cache_write_usd_per_mtok: float | None = Field(None, ge=0)


class ModelRow(Row):
    """A model by the name callers use, where it is served, and what is published about it."""

    provider: str
    id: Name
    """Name that the provider knows."""
    kind: Kind
    """Native kind of the model."""
    aliases: tuple[Name, ...] = ()
    limit_group: str | None = None
    name: str | None = None
    description: str | None = None
    creator: str | None = None
    creator_logo_url: str | None = None
    category: str | None = None
    censorship: str | None = None
    max_context_length: int | None = Field(None, ge=1)
    license_name: str | None = None
    license_url: str | None = None
    docs_url: str | None = None
    prompt_guide_url: str | None = None
    public_endpoint_pricing: str | None = None
    private_endpoint_pricing: str | None = None
    created: int | None = None
    """Unix seconds."""
    source: str | None = None
    """Source of these facts."""
    price: PriceRow | None = None
    deprecated_on: Day | None = None
    """Day on which its vendor shuts it down; from then on it is not called."""
    successor: str | None = None
    """Model that its vendor names instead."""


class ProvidersFile(Row):
    """`providers.json`: an entry replaces the shipped entry of its name whole; `null` removes it."""

    schema_: str | None = Field(None, alias="$schema")
    extends: bool = True
    """Whether the shipped file is kept under this one."""
    providers: dict[ProviderName, ProviderRow | None] = {}
    models: dict[Name, ModelRow | None] = {}
    sets: dict[Name, tuple[str, ...] | None] = {}
    """Several models under one name."""
    default_provider: dict[Literal["scale"], str | None] = {}
    """Provider that a dialect sends unknown names to."""


class _ClosedJsonSchema(DescribedJsonSchema):
    """A schema that refuses names which do not match the pattern; pydantic's own lets them stand beside the others."""

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonObject:
        made = super().dict_schema(schema)
        return {**made, "additionalProperties": False} if "patternProperties" in made else made


def make_json_schema() -> JsonObject:
    """Return the JSON Schema of `providers.json`, for editors."""
    made = ProvidersFile.model_json_schema(by_alias=True, schema_generator=_ClosedJsonSchema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
