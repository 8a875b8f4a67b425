"""The `FANOUT_…` variables, and files of variables."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from fanout.config.providers_file import MAX_TIMEOUT_S, VARIABLE
from fanout.core.errors import ConfigError
from fanout.core.faults import Fault, to_faults
from fanout.core.suggestions import did_you_mean

PREFIX = "FANOUT_"
KEYS_FILE_NAME = "keys.env"
"""The user's own file of variables, in his configuration folder."""
KUBERNETES = re.compile(r"FANOUT_(\w+_)?(SERVICE_(HOST|PORT)|PORT_\d+_)\w*")
"""What Kubernetes sets in every pod once a service is called `fanout…`.

Source: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
"""


def _comma_list(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _some(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not keys:
        raise ValueError("holds no key: to let this machine call without one, leave it unset")
    return keys


def _keys_in(path: Path) -> tuple[SecretStr, ...]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    return _some(tuple(SecretStr(line) for line in lines if line and not line.startswith("#")))


def _key_file(path: Path) -> Path:
    _keys_in(path)
    return path


def _origin(origin: str) -> str:
    if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
        raise ValueError("an origin is `*` or like `https://dashboard.example:8443`, without a path")
    return origin


class Environment(BaseModel):
    """The `FANOUT_…` variables; one that is set to nothing is as if unset."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    config: Path | None = None
    """A providers.json of your own, laid over the shipped one"""
    api_keys: Annotated[tuple[SecretStr, ...], AfterValidator(_some), BeforeValidator(_comma_list)] = ()
    """Keys that callers must show, separated by commas; none: only this machine may call"""
    api_keys_file: Annotated[Path, AfterValidator(_key_file)] | None = None
    """The same, one on a line"""
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_comma_list)] = ()
    """Web origins whose pages may call, separated by commas; `*` for all"""
    timeout_s: float = Field(120, gt=0, le=MAX_TIMEOUT_S)
    """Deadline of a request that names none; never above `FANOUT_MAX_TIMEOUT_S`"""
    max_timeout_s: float = Field(MAX_TIMEOUT_S, gt=0, le=MAX_TIMEOUT_S)
    """Longest deadline that a request may name"""
    max_calls: int = Field(256, ge=1, le=4096)
    """Most upstream calls of one request"""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """Largest request body"""
    max_file_bytes: int = Field(200 * 10**6, ge=1024)
    """Largest file that may be uploaded as a job's input"""
    max_answer_bytes: int = Field(16 * 2**20, ge=1024)
    """Largest answer taken from a provider"""
    max_in_flight: int | None = Field(None, ge=1)
    """Most upstream calls at once, over all providers; unset: what the limit on open files allows"""
    max_waiting: int = Field(20_000, ge=1)
    """Most calls that wait for one account's limits"""
    grace_s: float = Field(10, ge=0, le=MAX_TIMEOUT_S)
    """How long running requests may finish after SIGTERM"""
    store: SecretStr | None = None  # a URL may hold a password
    """What is kept is here: a file, a database's URL, `:memory:` or `off`; unset: `fanout/fanout.db` in the data folder"""
    history: Literal["off", "usage", "full"] = "usage"
    """What is kept of each comparison: `usage` (who was asked, tokens, cost, times), `full` (its texts, too), or `off`"""
    history_days: float = Field(30, ge=0, le=36_500)
    """How many days it is kept; 0: for ever"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is logged"""
    log_format: Literal["json", "text"] | None = None
    """`json` or `text`; unset: text on a terminal"""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Environment:
        """The variables, whole.

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
        given = _own_store(environ) | {fields[name]: value for name, value in named.items() if name in fields and value.strip()}
        try:
            environment = cls.model_validate(given)
        except ValidationError as error:
            faults += [Fault(_variable(fault.path), fault.message) for fault in to_faults(error, cls)]
        if faults:
            raise ConfigError("environment", list(dict.fromkeys(faults)))
        return environment._whole()

    def _whole(self) -> Environment:
        """With the keys of the file, and a default deadline that is allowed."""
        keys = _keys_in(self.api_keys_file) if self.api_keys_file else ()
        timeout_s = min(self.timeout_s, self.max_timeout_s)
        return self.model_copy(update={"api_keys": self.api_keys + keys, "timeout_s": timeout_s})


def _own_store(environ: Mapping[str, str]) -> dict[str, str]:
    """The store in the user's data folder; none where he has no such folder.

    Source: a path that is not absolute is as if unset, https://specifications.freedesktop.org/basedir-spec/latest/
    """
    homes = (Path(environ.get("XDG_DATA_HOME", "")), Path(environ.get("HOME", "")) / ".local" / "share")
    return next(({"store": str(home / "fanout" / "fanout.db")} for home in homes if home.is_absolute()), {})


def _is_foreign(name: str, value: str) -> bool:
    return bool(KUBERNETES.fullmatch(name)) or ("_PORT" in name and "://" in value)


def _variable(path: str) -> str:
    """The variable of a field, `cors_origins[1]`."""
    return PREFIX + path.partition("[")[0].upper()


def find_config_folder(environ: Mapping[str, str]) -> Path | None:
    """Where the user's own configuration stands, whether or not it is there; `None` where he has no home.

    Source: a path that is not absolute is as if unset, https://specifications.freedesktop.org/basedir-spec/latest/
    """
    homes = (Path(environ.get("XDG_CONFIG_HOME", "")), Path(environ.get("HOME", "")) / ".config")
    return next((home / "fanout" for home in homes if home.is_absolute()), None)


def add_env_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with the `NAME=value` lines of a file under it: what is set already wins.

    A value may stand in quotes, or in several that touch; what follows ` #` is a comment.

    Args:
        path: without one, `keys.env` in the user's configuration folder, if he has one, which must be his alone.

    Raises:
        ConfigError: the file cannot be read, or is open to others, or a line is none.
    """
    found = _own_variables(environ) if path is None else read_env_file(path)
    return found | {name: value for name, value in environ.items() if value or name not in found}


def read_env_file(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a file.

    Raises:
        ConfigError: it cannot be read, or a line is none.
    """
    try:
        return parse_env_file(str(path), path.read_bytes())
    except OSError as error:
        raise ConfigError(str(path), [Fault("", f"cannot be read: {error}")]) from error


def _own_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's own file. What others could have written, or can read, is not taken: its keys are not his alone."""
    folder = find_config_folder(environ)
    if folder is None:
        return {}
    path = folder / KEYS_FILE_NAME
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid():
                sentence = "belongs to another user; name it with `--env-file` if it shall be used all the same"
                raise ConfigError(str(path), [Fault("", sentence)])
            mode = stat.S_IMODE(about.st_mode)
            if mode & 0o077:
                sentence = f"is open to others (mode {mode:o}): `chmod 600` makes it yours alone"
                raise ConfigError(str(path), [Fault("", sentence)])
            return parse_env_file(str(path), file.read())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(str(path), [Fault("", f"cannot be read: {error}")]) from error


def parse_env_file(source: str, content: bytes) -> dict[str, str]:
    """The variables of a file's content.

    Raises:
        ConfigError: it is not UTF-8, or a line is not `NAME=value`.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(source, [Fault("", f"cannot be read: {error.reason}, byte {error.start}")]) from None
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for number, line in enumerate(lines, 1):
        name, value = parse_line(line)
        if name and value is not None:
            found[name] = value
        elif line.strip() and not line.strip().startswith("#"):
            faults.append(Fault(f"line {number}", "is not `NAME=value`"))  # its text may be a key
    if faults:
        raise ConfigError(source, faults)
    return found


def parse_line(line: str) -> tuple[str | None, str | None]:
    """The name and the value of a line; `None` where there is none, or a quote is not closed."""
    name, equals, rest = line.strip().removeprefix("export ").partition("=")
    name = name.strip()
    return (name, _value(rest)) if equals and re.fullmatch(VARIABLE, name) else (None, None)


def _value(text: str) -> str | None:
    """What stands behind `=`; `None` where a quote is not closed."""
    if text.strip()[:1] not in ("'", '"'):
        return re.split(r"\s#", text, maxsplit=1)[0].strip()
    value, rest = "", text.strip()
    while rest[:1] in ("'", '"'):
        part, closed, rest = rest[1:].partition(rest[0])
        if not closed:
            return None
        value += part
    return value if rest.strip()[:1] in ("", "#") else None


def quote(value: str) -> str:
    """A value as it is written behind `NAME=`, for this file's reader as for a shell.

    Raises:
        ValueError: it holds a line break, which no line can.
    """
    if len(value.splitlines()) > 1 or value.splitlines() != [value] * bool(value):
        raise ValueError("a value holds no line break")
    if re.fullmatch(r"[\w./:@%+=,-]*", value, re.ASCII):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"
