"""Env files: `NAME=value` lines, read so that every value means what it means to a shell, and never changed on the way.

`python-dotenv` was tried (1.2.4, 2026-11) and reads another language: it refuses quotes that touch (`'it'"'"'s'`, which is
how a shell and `quote` write an apostrophe), turns a backslash and `n` in double quotes into a line break, and skips a broken
line with a warning, so that a key in it is missing instead of a fault.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from fanout.config.environment import find_config_folder
from fanout.config.providers_file import VARIABLE
from fanout.config.trusted_files import explain_unreadable, read_trusted_file
from fanout.core.errors import ConfigError, Fault
from fanout.core.given_text import trim_value

KEYS_FILE_NAME = "keys.env"
"""The user's own env file, in their configuration folder."""


def add_env_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the variables of a file under it: a variable that is set already wins.

    A value may stand in quotes, or in several that touch; a comment begins with ` #`.

    Args:
        path: the file; without one, `keys.env` in the user's configuration folder, which must be theirs alone.
        environ: the variables that are set.

    Raises:
        ConfigError: the file cannot be read, is open to others, or has a line that is not `NAME=value`.
    """
    found = _read_own_file(environ) if path is None else read_env_file(path)
    # A variable that is set to nothing does not hide the file's: compose files leave such variables behind.
    return found | {name: trim_value(value) for name, value in environ.items() if value or name not in found}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file.

    Raises:
        ConfigError: it cannot be read, others may have written it, or it has a line that is not `NAME=value`.
    """
    try:
        return parse_env_file(str(path), read_trusted_file(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_own_file(environ: Mapping[str, str]) -> dict[str, str]:
    folder = find_config_folder(environ)
    if folder is None:
        return {}
    path = folder / KEYS_FILE_NAME
    try:
        with path.open("rb") as file:
            # The open file is checked, not its path, which may lead elsewhere a moment later.
            _check_private(path, os.fstat(file.fileno()))
            return parse_env_file(str(path), file.read())
    except (FileNotFoundError, NotADirectoryError):  # most users have no such file
        return {}
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_private(path: Path, status: os.stat_result) -> None:
    """Refuse a file that others can read or may have written: its keys are not the user's alone."""
    if status.st_uid != os.geteuid():
        sentence = "belongs to another user; to use it all the same, name it with `--env-file`"
        raise ConfigError(str(path), [Fault("", sentence)])
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise ConfigError(str(path), [Fault("", f"is open to others (mode {mode:o}): `chmod 600` makes it yours alone")])


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(str(path), [Fault("", explain_unreadable(error))])


def parse_env_file(source: str, content: bytes) -> dict[str, str]:
    """Return the variables of a file's content; `source` names it in errors.

    Raises:
        ConfigError: it is not UTF-8, or has a line that is not `NAME=value`.
    """
    try:
        # Editors on Windows put a byte order mark in front of the first name.
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
            # The line itself is not shown: it may be a key.
            faults.append(Fault(f"line {number}", "is not `NAME=value`"))
    if faults:
        raise ConfigError(source, faults)
    return found


def parse_line(line: str) -> tuple[str | None, str | None]:
    """Return the name and the value of a line; `None` where there is none, or a quote is not closed."""
    name, equals, rest = line.strip().removeprefix("export ").partition("=")
    name = name.strip()
    return (name, _parse_value(rest)) if equals and re.fullmatch(VARIABLE, name) else (None, None)


def _parse_value(text: str) -> str | None:
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
    """Return a value as it is written behind `NAME=`, for `parse_line` as for a shell.

    Raises:
        ValueError: it holds a line break, which no line can.
    """
    # `splitlines` breaks at more than line feeds, and so does `parse_env_file`.
    if len(value.splitlines()) > 1 or value.splitlines() != [value] * bool(value):
        raise ValueError("a value holds no line break")
    if re.fullmatch(r"[\w./:@%+=,-]*", value, re.ASCII):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"
