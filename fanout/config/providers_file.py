"""The shape of `providers.json`: one frozen row for each thing that an operator writes there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

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
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from fanout.core.sampling import MEASURED
from fanout.core.schema import Kind

MAX_TIMEOUT_S = 600
ADDRESS = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"
NO_ADDRESS = "is not an address like `https://host/v1`, without user, password, query or fragment"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
KEY_VARIABLE = r"^[A-Z_][A-Z0-9_]*$"
"""Capitals alone: most keys have small letters, and a key taken for a variable's name would be shown as what is missing."""
NO_KEY_VARIABLE = "is not the name of a variable (capital letters, digits, `_`); put the key in a variable and name it here"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable within a header's value."""


@dataclass(frozen=True, slots=True)
class _Like:
    """A string of a pattern. A fault never shows what stands there instead: by mistake that is often a key."""

    pattern: str
    otherwise: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, make_json_schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(make_json_schema), "pattern": self.pattern}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.otherwise)
        return text


def _day(text: str) -> str:
    date.fromisoformat(text)  # says itself what is wrong: `month must be in 1..12`
    return text


def _header_value(text: str) -> str:
    if "${" in REFERENCE.sub("", text):
        raise ValueError("holds a `${` that names no variable; a variable is written `${NAME}`")
    if not text.isprintable():
        raise ValueError("holds a line break or another character that no header may have")
    return text


def _ordered(ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = ends
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lowest, {low:g}, is above the highest, {high:g}")
    return ends


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Address = Annotated[str, _Like(ADDRESS, NO_ADDRESS)]
Variable = Annotated[str, _Like(VARIABLE, "is not the name of an environment variable (letters, digits, `_`)")]
KeyVariable = Annotated[str, _Like(KEY_VARIABLE, NO_KEY_VARIABLE)]
KeyVariables = Annotated[
    tuple[KeyVariable, ...],
    BeforeValidator(_listed, json_schema_input_type=KeyVariable | tuple[KeyVariable, ...]),
]
# Source: token, https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
HeaderName = Annotated[str, _Like(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "is not the name of a header")]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Name = Annotated[str, _Like(r"^\S(.*\S)?$", "is no name: it is empty, or begins or ends with a space")]
ProviderName = Annotated[
    str, _Like(r"^[^\s/]+$", "a provider's name has no `/` or space: what stands before the first `/` names the provider")
]
Day = Annotated[str, _Like(r"^\d{4}-\d{2}-\d{2}$", "is not a day like `2026-12-31`"), AfterValidator(_day)]
Number = Annotated[str, GetPydanticSchema(lambda _source, _handler: core_schema.literal_schema(list(MEASURED)))]
"""The sampling parameters that have a size."""
Ends = Annotated[tuple[float | None, float | None], AfterValidator(_ordered)]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class LimitsRow(Row):
    """What the provider allows one account; a limit that is absent is not kept."""

    requests_per_minute: int | None = Field(None, ge=1)
    burst: int | None = Field(None, ge=1)
    """Most starts at once, in the share of a minute the rate gives them; absent: the whole minute's may start at once."""
    tokens_per_minute: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)
    """Calls in flight at once."""


class RetriesRow(Row):
    attempts: int = Field(3, ge=1, le=10)
    """Tries in all, the first included."""
    max_delay_s: float = Field(30, ge=0, le=MAX_TIMEOUT_S)
    """The longest wait between two tries where the provider names none."""


class ParametersRow(Row):
    """Differences between this host and its wire format, by Fanout's parameter names."""

    drop: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    clamp: dict[Number, Ends] = {}
    """Name → [lowest, highest]."""


class ProviderRow(Row):
    """A host of models, and the account used there."""

    adapter: str
    """A wire format of ours, or the dotted name of a module outside the package."""
    base_url: Address | None = None
    base_url_env: Variable | None = None
    """A variable that overrides `base_url`."""
    key_header: HeaderName | None = None
    """The request header in which a caller may bring his own key."""
    api_key_env: KeyVariables = ()
    """Where the key is: the first variable that is set; absent: no key needed."""
    key_optional: bool = False
    """The host also answers without a key."""
    headers: dict[HeaderName, HeaderValue] = Field({}, repr=False)
    """Extra headers; `${VAR}` is taken from the environment."""
    limits: LimitsRow = LimitsRow()
    timeout_s: float = Field(120, gt=0, le=MAX_TIMEOUT_S)
    """One attempt, from its start to its last byte."""
    connect_timeout_s: float = Field(10, gt=0, le=MAX_TIMEOUT_S)
    retries: RetriesRow = RetriesRow()
    default_kind: Kind = "chat"
    """What `<provider>/<any id>` is where the id has no entry among the models."""
    parameters: ParametersRow = ParametersRow()
    prices: str | None = None
    """The provider's name in genai-prices, where it differs from the name here; `""`: nothing there is this provider's."""


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
    """The name that the provider knows."""
    kind: Kind
    """What the model natively is."""
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
    """Where these facts come from."""
    price: PriceRow | None = None
    deprecated_on: Day | None = None
    """The day on which its vendor shuts it down; from then on it is not called."""
    successor: str | None = None
    """The model that its vendor names instead."""


class ProvidersFile(Row):
    """`providers.json`: an entry replaces the shipped entry of its name whole; `null` removes it."""

    schema_: str | None = Field(None, alias="$schema")
    extends: bool = True
    """`false`: nothing of the shipped file is kept."""
    providers: dict[ProviderName, ProviderRow | None] = {}
    models: dict[Name, ModelRow | None] = {}
    sets: dict[Name, tuple[str, ...] | None] = {}
    """Several models under one name."""
    default_provider: dict[Literal["scale"], str | None] = {}
    """Where a dialect sends the names it does not know."""


class _Closed(GenerateJsonSchema):
    """Where names have a pattern, pydantic lets others stand beside them."""

    def dict_schema(self, make_json_schema: core_schema.DictSchema) -> dict[str, Any]:
        made = super().dict_schema(make_json_schema)
        return {**made, "additionalProperties": False} if "patternProperties" in made else made


def make_json_schema() -> dict[str, Any]:
    """The JSON Schema of `providers.json`, for editors."""
    made = ProvidersFile.model_json_schema(by_alias=True, schema_generator=_Closed)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
