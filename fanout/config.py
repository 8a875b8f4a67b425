"""What the operator set: `FANOUT_…` variables and `providers.json`, validated whole at start, typed and frozen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
)

from fanout.errors import ConfigError, Fault, did_you_mean, faults_of, json_path
from fanout.schema import Kind

SHIPPED = Path(__file__).with_name("providers.json")
HIGHEST_TIMEOUT_S = 600
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _variable(name: str) -> str:
    if not re.match(VARIABLE, name):
        # The text is not shown: what stands here by mistake is often the key itself.
        raise ValueError(
            "is not the name of an environment variable (letters, digits, `_`); put the key in a variable and name it here"
        )
    return name


Variable = Annotated[str, AfterValidator(_variable)]
Variables = Annotated[
    tuple[Variable, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "pattern": VARIABLE}),
]


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
    max_delay_s: float = Field(30, ge=0, le=HIGHEST_TIMEOUT_S)
    """The longest wait between two tries where the provider names none."""


class ParametersRow(Row):
    """Differences between this host and its wire format, by Fanout's parameter names."""

    drop: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    clamp: dict[str, tuple[float | None, float | None]] = {}
    """Name → [lowest, highest]."""


class ProviderRow(Row):
    """A host of models, and the account used there."""

    adapter: str
    """A wire format of ours, or the dotted name of a module outside the package."""
    base_url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$")
    base_url_env: Variable | None = None
    """A variable that overrides `base_url`."""
    key_header: str | None = None
    """The request header in which a caller may bring his own key."""
    api_key_env: Variables = ()
    """Where the key is: the first variable that is set; absent: no key needed."""
    key_optional: bool = False
    """The host also answers without a key."""
    headers: dict[str, str] = {}
    """Extra headers; `${VAR}` is taken from the environment."""
    limits: LimitsRow = LimitsRow()
    timeout_s: float = Field(120, gt=0, le=HIGHEST_TIMEOUT_S)
    """One attempt, from its start to its last byte."""
    connect_timeout_s: float = Field(10, gt=0, le=HIGHEST_TIMEOUT_S)
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
    id: str = Field(min_length=1)
    """The name that the provider knows."""
    kind: Kind
    """What the model natively is."""
    aliases: tuple[str, ...] = ()
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
    deprecated_on: str | None = Field(None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    successor: str | None = None


class ProvidersFile(Row):
    """`providers.json`: an entry replaces the shipped entry of its name whole; `null` removes it."""

    schema_: str | None = Field(None, alias="$schema")
    extends: bool = True
    """`false`: nothing of the shipped file is kept."""
    providers: dict[str, ProviderRow | None] = {}
    models: dict[str, ModelRow | None] = {}
    sets: dict[str, tuple[str, ...] | None] = {}
    """Several models under one name."""
    default_provider: dict[Literal["scale"], str | None] = {}
    """Where a dialect sends the names it does not know."""


def _comma_list(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Environment(Row):
    """The `FANOUT_…` variables."""

    config: Path | None = None
    """A providers.json of your own, laid over the shipped one"""
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_comma_list)] = ()
    """Keys that callers must show, separated by commas; none: only this machine may call"""
    api_keys_file: Path | None = None
    """The same, one on a line"""
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_comma_list)] = ()
    """Web origins whose pages may call, separated by commas; `*` for all"""
    timeout_s: float = Field(120, gt=0, le=HIGHEST_TIMEOUT_S)
    """Deadline of a request that names none"""
    max_timeout_s: float = Field(HIGHEST_TIMEOUT_S, gt=0, le=HIGHEST_TIMEOUT_S)
    """Longest deadline that a request may name"""
    max_calls: int = Field(256, ge=1, le=4096)
    """Most upstream calls of one request"""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """Largest request body"""
    max_answer_bytes: int = Field(16 * 2**20, ge=1024)
    """Largest answer taken from a provider"""
    max_in_flight: int | None = Field(None, ge=1)
    """Most upstream calls at once, over all providers; unset: what the limit on open files allows"""
    max_waiting: int = Field(20_000, ge=1)
    """Most calls that wait for one account's limits"""
    grace_s: float = Field(10, ge=0, le=HIGHEST_TIMEOUT_S)
    """How long running requests may finish after SIGTERM"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is logged"""
    log_format: Literal["json", "text"] | None = None
    """`json` or `text`; unset: text on a terminal"""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Environment:
        given = {name[7:].lower(): value for name, value in environ.items() if name.startswith("FANOUT_")}
        try:
            environment = cls.model_validate(given)
        except ValidationError as error:
            raise ConfigError("environment", [cls._named(fault) for fault in faults_of(error, cls)]) from None
        return environment.model_copy(update={"api_keys": environment.api_keys + tuple(environment._keys_in_file())})

    @classmethod
    def _named(cls, fault: Fault) -> Fault:
        """A fault by the variable's name instead of the field's."""
        variable = f"FANOUT_{fault.path.split('[')[0].upper()}"
        if fault.kind != "unknown_parameter":
            return Fault(variable, fault.message)
        known = [f"FANOUT_{name.upper()}" for name in cls.model_fields]
        return Fault(variable, f"no such variable{did_you_mean(variable, known) or '; known: ' + ', '.join(known)}")

    def _keys_in_file(self) -> Iterator[SecretStr]:
        if self.api_keys_file:
            try:
                lines = self.api_keys_file.read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError("environment", [Fault("FANOUT_API_KEYS_FILE", f"cannot be read: {error}")]) from error
            yield from (SecretStr(line.strip()) for line in lines if line.strip() and not line.startswith("#"))


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """A provider's row with what the environment adds to it."""

    name: str
    row: ProviderRow
    source: str
    """The file that the row stands in."""
    base_url: str | None
    key: SecretStr | None
    headers: Mapping[str, SecretStr]
    missing: tuple[str, ...]
    """Variables, the key's aside, that must be set before this provider can be called."""
    missing_key: str | None
    """The key's variable, where none of its names is set; alternatives joined by ` or `."""
    max_answer_bytes: int
    """The largest answer taken from it."""

    @property
    def adapter(self) -> str:
        return self.row.adapter

    def lacks(self, *, own_key: bool = False) -> tuple[str, ...]:
        """The variables to set before this provider can be called; a caller with a key of his own needs not ours."""
        return self.missing if own_key or not self.missing_key else (self.missing_key, *self.missing)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the operator set."""

    environment: Environment
    files: tuple[str, ...]
    providers: Mapping[str, ProviderSettings]
    models: Mapping[str, ModelRow]
    sets: Mapping[str, tuple[str, ...]]
    default_provider: Mapping[str, str | None]


def load(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment and lays the files over each other: shipped, then `config` or `FANOUT_CONFIG` or the user's own.

    The working directory is never searched: a stranger's folder must not redirect keys or bring code.

    Raises:
        ConfigError: with every fault of the first source that has any.
    """
    environ = os.environ if environ is None else environ
    environment = Environment.read(environ)
    own = config or environment.config or _user_file(environ)
    layers = [(str(path), _read(path)) for path in ([own] if own else [])]
    if not own or layers[0][1].extends:
        layers.insert(0, (str(SHIPPED), _read(SHIPPED)))
    origin: dict[tuple[str, str], str] = {}
    rows: dict[str, dict[str, Any]] = {"providers": {}, "models": {}, "sets": {}, "default_provider": {}}
    for source, layer in layers:
        for section, merged in rows.items():
            for name, row in getattr(layer, section).items():
                merged[name] = row
                origin[section, name] = source
    if own:
        _drop_orphans(rows, origin, str(SHIPPED))
    rows = {section: {name: row for name, row in merged.items() if row is not None} for section, merged in rows.items()}
    _check_references(rows, origin)
    return Settings(
        environment=environment,
        files=tuple(source for source, _ in layers),
        providers={
            name: _resolved(name, row, origin["providers", name], environ, environment.max_answer_bytes)
            for name, row in rows["providers"].items()
        },
        models=rows["models"],
        sets=rows["sets"],
        default_provider=rows["default_provider"],
    )


def _user_file(environ: Mapping[str, str]) -> Path | None:
    folder = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config")
    path = folder / "fanout" / "providers.json"
    return path if path.is_file() else None


def _read(path: Path) -> ProvidersFile:
    try:
        return ProvidersFile.model_validate(json.loads(path.read_bytes(), object_pairs_hook=_once_each))
    except OSError as error:
        raise ConfigError(str(path), [Fault("", f"cannot be read: {error.strerror}")]) from error
    except ValidationError as error:
        raise ConfigError(str(path), faults_of(error, ProvidersFile)) from None
    except ValueError as error:  # JSON's own complaint names line and column
        raise ConfigError(str(path), [Fault("", f"is not valid JSON: {error}")]) from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names stand once: JSON parsers keep the last of two silently."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"the name `{next(name for name in names if names.count(name) > 1)}` stands twice in one object")
    return dict(pairs)


def _drop_orphans(rows: dict[str, dict[str, Any]], origin: Mapping[tuple[str, str], str], shipped: str) -> None:
    """Whoever removes a provider need not also remove every shipped model of it, nor their places in shipped sets."""

    def gone(section: str, name: str) -> bool:
        return name in rows[section] and rows[section][name] is None

    for name, model in rows["models"].items():
        if model and origin["models", name] == shipped and gone("providers", model.provider):
            rows["models"][name] = None
    for name, members in rows["sets"].items():
        if members and origin["sets", name] == shipped:
            left = tuple(
                member for member in members if not gone("models", member) and not gone("providers", member.split("/")[0])
            )
            rows["sets"][name] = left or None


def _check_references(rows: Mapping[str, Mapping[str, Any]], origin: Mapping[tuple[str, str], str]) -> None:
    faults: dict[str, list[Fault]] = {}

    def fault(section: str, name: str, below: tuple[str | int, ...], message: str) -> None:
        faults.setdefault(origin[section, name], []).append(Fault(json_path((section, name, *below)), message))

    providers, models, sets = rows["providers"], rows["models"], rows["sets"]
    for name, provider in providers.items():
        if "/" in name:
            fault("providers", name, (), "a provider's name has no `/`: what stands before the first one names the provider")
        if provider.base_url is None and provider.base_url_env is None and provider.adapter == "openai":
            fault("providers", name, ("base_url",), "is required: the address of the API, as `https://host/v1`")
    names: dict[str, str] = {}
    for name, model in models.items():
        if model.provider not in providers:
            hint = did_you_mean(model.provider, providers) or f"; known: {', '.join(providers)}"
            fault("models", name, ("provider",), f"unknown provider `{model.provider}`{hint}")
        for number, spelling in enumerate((name, *model.aliases)):
            below = ("aliases", number - 1) if number else ()
            literal = spelling.split("/", 1)
            if len(literal) == 2 and literal[0] in providers and literal != [model.provider, model.id]:
                fault("models", name, below, f"`{spelling}` always means the model `{literal[1]}` of provider `{literal[0]}`")
            taken = names.setdefault(spelling.lower(), name)
            if taken != name:
                fault("models", name, below, f"`{spelling}` is already a name of model `{taken}`")
    for name, members in sets.items():
        if name.lower() in names:
            fault("sets", name, (), f"`{name}` is already a name of model `{names[name.lower()]}`")
        if not members:
            fault("sets", name, (), "is empty: a set names at least one model")
        for number, member in enumerate(members):
            if member.lower() not in names and member.split("/", 1)[0] not in providers:
                fault("sets", name, (number,), f"unknown model `{member}`{did_you_mean(member, models)}")
    for dialect, default in rows["default_provider"].items():
        if default not in providers:
            fault("default_provider", dialect, (), f"unknown provider `{default}`{did_you_mean(default, providers)}")
    if faults:
        raise ConfigError(", ".join(faults), [item for found in faults.values() for item in found])


def _resolved(name: str, row: ProviderRow, source: str, environ: Mapping[str, str], max_answer_bytes: int) -> ProviderSettings:
    variables = row.api_key_env
    key = next((SecretStr(environ[variable]) for variable in variables if environ.get(variable)), None)
    missing: list[str] = []
    needs_key = bool(variables) and key is None and not row.key_optional
    base_url = environ.get(row.base_url_env or "") or row.base_url
    if base_url is None and row.base_url_env:
        missing.append(row.base_url_env)
    headers = {header: _expanded(text, environ, missing.append) for header, text in row.headers.items()}
    if base_url and not re.match(r"^https?://[^\s?#]+$", base_url):
        raise ConfigError(
            "environment", [Fault(str(row.base_url_env), "is not an http or https address, as `https://host/v1`")]
        )
    return ProviderSettings(
        name=name,
        row=row,
        source=source,
        base_url=base_url.rstrip("/") if base_url else None,
        key=key,
        headers=headers,
        missing=tuple(missing),
        missing_key=" or ".join(variables) if needs_key else None,
        max_answer_bytes=max_answer_bytes,
    )


def _expanded(text: str, environ: Mapping[str, str], missing: Callable[[str], None]) -> SecretStr:
    def value(match: re.Match[str]) -> str:
        if not environ.get(match[1]):
            missing(match[1])
        return environ.get(match[1], "")

    return SecretStr(re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, text))


def with_env_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with the `NAME=value` lines of a file under it: what is set already wins.

    Raises:
        ConfigError: the file cannot be read, or a line is none.
    """
    if path is None:
        return dict(environ)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Fault("", f"cannot be read: {error}")]) from error
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and re.match(VARIABLE, name.strip()):
            found[name.strip()] = value.strip().strip("\"'")
        elif line.strip() and not line.strip().startswith("#"):
            faults.append(Fault(f"line {number}", "is not `NAME=value`"))  # its text may be a key
    if faults:
        raise ConfigError(str(path), faults)
    return found | dict(environ)


def schema() -> dict[str, Any]:
    """The JSON Schema of `providers.json`, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ProvidersFile.model_json_schema(by_alias=True)}
