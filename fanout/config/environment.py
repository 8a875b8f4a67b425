"""The environment: the `FANOUT_…` variables, and the folders of the user's own files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from fanout.config.api_keys import ApiKey, check_key_file, read_keys, split_keys
from fanout.config.ca_file import check_ca_file
from fanout.config.providers_file import MAX_TIMEOUT_S
from fanout.core.errors import ConfigError, Fault
from fanout.core.faults import to_faults
from fanout.core.suggestions import did_you_mean

PREFIX = "FANOUT_"
DRAIN_S = 5.0
"""Default of `drain_s`: in this time, Kubernetes and proxies notice a server that is leaving."""
DEFAULT_HELD_BYTES = 512 * 2**20
MAX_WORKERS = 64
"""Most processes of one server: more than a machine's cores only take memory."""
KUBERNETES = re.compile(r"FANOUT_(\w+_)?(SERVICE_(HOST|PORT)|PORT_\d+_)\w*")
"""Variables that Kubernetes sets in every pod once a service is called `fanout…`.

Source: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
"""


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _check_origin(origin: str) -> str:
    if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
        raise ValueError("an origin is `*` or like `https://dashboard.example:8443`, without a path")
    return origin


def _check_hook(text: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:(open|closed))?", text):
        raise ValueError("a hook is the dotted name of a module, perhaps with `:open` or `:closed`, like `company.redact:open`")
    return text


class Environment(BaseModel):
    """The `FANOUT_…` variables; one that is set to nothing is as if unset."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    config: Path | None = None
    """A providers.json of your own, merged over the shipped one"""
    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(split_keys)] = ()
    """Keys of which callers must present one, `account:key` or `key`, separated by commas; unset: only this machine may call"""
    api_keys_file: Annotated[Path, AfterValidator(check_key_file)] | None = None
    """A file of such keys, one on each line"""
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], BeforeValidator(_split_commas)] = ()
    """Web origins whose pages may call, separated by commas; `*` for all"""
    timeout_s: float = Field(120, gt=0, le=MAX_TIMEOUT_S)
    """Deadline of requests without `timeout_s`, in seconds; at most `FANOUT_MAX_TIMEOUT_S`"""
    max_timeout_s: float = Field(MAX_TIMEOUT_S, gt=0, le=MAX_TIMEOUT_S)
    """Longest `timeout_s` of a request"""
    max_calls: int = Field(256, ge=1, le=4096)
    """Maximum number of upstream calls of a request"""
    max_body_bytes: int = Field(32 * 2**20, ge=1024)
    """Largest request body, unpacked"""
    max_file_bytes: int = Field(200 * 10**6, ge=1024)
    """Largest file that may be uploaded as the input of a job"""
    max_job_bytes: int = Field(4 * 2**30, ge=1024)
    """Most bytes of a job's input: unpacked, and as its prompts and columns are stored"""
    max_unpack_ratio: int = Field(100, ge=1)
    """Most bytes that a byte of a job's input may unpack to, each row counted as 64 more; 64 MiB are always allowed"""
    max_answer_bytes: int = Field(16 * 2**20, ge=1024)
    """Largest answer accepted from a provider"""
    max_held_bytes: int | None = Field(None, ge=4096)
    """Bytes of answers that all running requests may hold together; unset: 512 MiB, or four of the largest answers"""
    embedded_models: Literal["on", "off"] = "on"
    """`off`: the models that need no key and no network, and take this process's own time, are not there"""
    ca_file: Annotated[Path, AfterValidator(check_ca_file)] | None = None
    """Certificates (PEM) of authorities of your own, trusted for providers beside the system's"""
    fetch_images: Literal["on", "off"] = "on"
    """`off`: no image is fetched from its address for a provider that takes only bytes; callers send them as data: URLs"""
    hooks: Annotated[tuple[Annotated[str, AfterValidator(_check_hook)], ...], BeforeValidator(_split_commas)] = ()
    """Python modules that see calls before and after, separated by commas; `module:open`: calls go on where that one fails"""
    hook_timeout_s: float = Field(5, gt=0, le=MAX_TIMEOUT_S)
    """Seconds that a hook may take before a call, and after it"""
    http_client: Literal["own", "aiohttp"] = "own"
    """`aiohttp`: providers are called through aiohttp's client alone; `own` writes requests itself, for half the CPU time"""
    workers: int = Field(1, ge=1, le=MAX_WORKERS)
    """Number of processes that serve, for `fanout serve` without `--workers`"""
    max_in_flight: int | None = Field(None, ge=1)
    """Maximum number of simultaneous upstream calls to all providers; unset: as the limit on open files allows"""
    max_connections: int | None = Field(None, ge=1)
    """Maximum number of simultaneous connections of callers; unset: as the limit on open files allows"""
    max_waiting: int = Field(20_000, ge=1)
    """Maximum number of calls that wait for the limits of an account"""
    grace_s: float = Field(10, ge=0, le=MAX_TIMEOUT_S)
    """Seconds that running requests have to finish after SIGTERM"""
    drain_s: float | None = Field(None, ge=0, le=MAX_TIMEOUT_S)
    """Seconds after SIGTERM in which `/readyz` is 503 but requests are still accepted; unset: 5 if there are keys, else 0"""
    store: SecretStr | None = None  # a URL may hold a password, which must not reach a log
    """Where records are kept: a file, a database's URL, `:memory:` or `off`; unset: `fanout/fanout.db` in the data folder"""
    work: Literal["on", "off"] = "on"
    """`off`: `fanout serve` takes and shows jobs but runs none; others on the store do, such as `fanout worker`"""
    listed_models: Literal["all", "ready"] = "all"
    """`ready`: `GET /v1/models` lists only models that can be called now, unless the request has `?ready=`"""
    history: Literal["off", "usage", "full"] = "usage"
    """Record of each comparison: `usage` (models, tokens, cost, times), `full` (texts as well) or `off`"""
    history_days: float = Field(30, ge=0, le=36_500)
    """Number of days for which a comparison is kept; 0: for ever"""
    usage_days: float = Field(400, ge=0, le=36_500)
    """Number of days for which usage is kept; 0: for ever"""
    traces: Literal["off", "on"] = "off"
    """`on`: a span of each request and each call goes to OpenTelemetry's collector, by the variables `OTEL_…`"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged"""
    log_format: Literal["json", "text"] | None = None
    """`json` or `text`; unset: text on a terminal"""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Environment:
        """Return the validated variables.

        Raises:
            ConfigError: with every fault.
        """
        fields = {f"{PREFIX}{name.upper()}": name for name in cls.model_fields}
        named = {name: value for name, value in environ.items() if name.startswith(PREFIX) and not _is_foreign(name, value)}
        known = f"; known: {', '.join(fields)}"
        faults = [
            Fault(name, f"no such variable{did_you_mean(name, fields, prefix=PREFIX) or known}")
            for name in named
            if name not in fields
        ]
        # Set to nothing is as if unset: compose files leave such variables behind.
        given = _find_default_store(environ) | {
            fields[name]: value for name, value in named.items() if name in fields and value.strip()
        }
        try:
            environment = cls.model_validate(given)
        except ValidationError as error:
            faults += [Fault(_name_variable(fault.path), fault.message) for fault in to_faults(error, cls)]
        if faults:
            # Items of one list share their variable, and often the sentence.
            raise ConfigError("environment", list(dict.fromkeys(faults)))
        return environment._complete()

    @property
    def held_bytes(self) -> int:
        """Bytes of answers that all running requests may hold together."""
        return self.max_held_bytes or max(DEFAULT_HELD_BYTES, 4 * self.max_answer_bytes)

    def divide(self) -> Environment:
        """Return the environment of one of its `workers`: what bounds the whole server bounds each by its part.

        Raises:
            ConfigError: the part of the memory for answers is too small.
        """
        if self.workers == 1:
            return self
        counts = {name: getattr(self, name) for name in ("max_in_flight", "max_connections", "max_waiting")}
        parts = {name: max(count // self.workers, 1) for name, count in counts.items() if count is not None}
        least = 2 * self.max_answer_bytes
        if self.max_held_bytes is not None and self.max_held_bytes // self.workers < least:
            sentence = (
                f"is {self.max_held_bytes}; {self.workers} workers share it, and each requires twice FANOUT_MAX_ANSWER_BYTES: "
                f"{least * self.workers} in all"
            )
            raise ConfigError("environment", [Fault("FANOUT_MAX_HELD_BYTES", sentence)])
        return self.model_copy(update={**parts, "max_held_bytes": max(self.held_bytes // self.workers, least)})

    def _complete(self) -> Environment:
        """Add the keys of the file, and keep the default deadline within the longest one; raise `ConfigError` as `read`."""
        # Both count, so that a key can be exchanged while the old one still works.
        keys = read_keys(self.api_keys_file) if self.api_keys_file else ()
        owners = {key.secret: key.account for key in self.api_keys}
        for key in keys:
            if owners.get(key.secret, key.account) != key.account:
                sentence = f"the key of `{key.account}` belongs to `{owners[key.secret]}` in FANOUT_API_KEYS"
                raise ConfigError("environment", [Fault("FANOUT_API_KEYS_FILE", sentence)])
        all_keys = self.api_keys + keys
        # Without keys, nothing but this machine may call, and so no load balancer.
        drain_s = DRAIN_S if self.drain_s is None and all_keys else self.drain_s
        if self.held_bytes < 2 * self.max_answer_bytes:
            sentence = f"is {self.held_bytes}; at least twice FANOUT_MAX_ANSWER_BYTES is required ({2 * self.max_answer_bytes})"
            raise ConfigError("environment", [Fault("FANOUT_MAX_HELD_BYTES", sentence)])
        timeout_s = min(self.timeout_s, self.max_timeout_s)
        return self.model_copy(update={"api_keys": all_keys, "timeout_s": timeout_s, "drain_s": drain_s})


def _find_default_store(environ: Mapping[str, str]) -> dict[str, str]:
    folder = find_data_folder(environ)
    return {"store": str(folder / "fanout.db")} if folder else {}


def _is_foreign(name: str, value: str) -> bool:
    """Tell whether Kubernetes or Docker links set a variable, which is then no misspelling of ours."""
    return bool(KUBERNETES.fullmatch(name)) or ("_PORT" in name and "://" in value)


def _name_variable(path: str) -> str:
    """Return the variable of a field's path, such as `cors_origins[1]`."""
    return PREFIX + path.partition("[")[0].upper()


def find_config_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the user's configuration folder, which need not exist; `None` for a user without a home."""
    return _find_folder(environ, "XDG_CONFIG_HOME", ".config")


def find_data_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the user's data folder, which need not exist; `None` for a user without a home."""
    return _find_folder(environ, "XDG_DATA_HOME", ".local/share")


def _find_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    # `platformdirs` asks the password database for a home, so that a service without one would keep its store in `/root`.
    # Source: a path that is not absolute counts as unset, https://specifications.freedesktop.org/basedir-spec/latest/
    candidates = (Path(environ.get(variable, "")), Path(environ.get("HOME", "")) / below_home)
    return next((folder / "fanout" for folder in candidates if folder.is_absolute()), None)
