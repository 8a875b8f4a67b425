"""What must be known of a provider before it can be called, and what is to be written down of it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fanout.config.environment import line_of, quoted
from fanout.config.providers_file import REFERENCE
from fanout.config.settings import ProviderSettings

Group = Literal["key", "account", "server"]
TITLES: Mapping[Group, str] = {
    "key": "With a key",
    "account": "Cloud accounts",
    "server": "Servers of your own",
}
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
HEADER_VALUE = re.compile(r"[\x21-\x7e]+(?: +[\x21-\x7e]+)*")


@dataclass(frozen=True, slots=True)
class Need:
    """A value that a provider wants."""

    variable: str
    others: tuple[str, ...] = ()
    """Further variables that it may stand in."""
    secret: bool = False
    optional: bool = False
    is_address: bool = False

    def wrong(self, value: str) -> str | None:
        """Why this cannot be the value."""
        if self.is_address and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            return "not an address like `https://host/v1`"
        if not HEADER_VALUE.fullmatch(value):
            return "it holds a character that is not printable ASCII; was it pasted whole, and nothing else?"
        return None


def needs(provider: ProviderSettings) -> tuple[Need, ...]:
    """What a provider wants, in the order in which one asks."""
    return tuple(_needs(provider))


def _needs(provider: ProviderSettings) -> Iterator[Need]:
    row = provider.row
    if row.base_url_env and (not row.base_url or _is_server(provider)):
        yield Need(row.base_url_env, is_address=True)
    if row.api_key_env:
        yield Need(row.api_key_env[0], row.api_key_env[1:], secret=True, optional=row.key_optional)
    for name in _referred(provider):
        if name not in row.api_key_env:
            yield Need(name, secret=bool(SECRET.search(name)))


def _referred(provider: ProviderSettings) -> list[str]:
    """The variables that stand in its headers."""
    found = (match[1] for text in provider.row.headers.values() for match in REFERENCE.finditer(text))
    return list(dict.fromkeys(found))


def _is_server(provider: ProviderSettings) -> bool:
    return provider.row.key_optional and not _referred(provider)


def group(provider: ProviderSettings) -> Group | None:
    """Under which title it is listed; `None` where nothing need be known."""
    wanted = needs(provider)
    if not wanted:
        return None
    if _is_server(provider):
        return "server"
    return "key" if len(wanted) == 1 and wanted[0].secret else "account"


def set_in(need: Need, environ: Mapping[str, str]) -> str | None:
    """Which of a value's variables is set."""
    return next((name for name in (need.variable, *need.others) if environ.get(name, "").strip()), None)


def with_variables(content: str, values: Mapping[str, str]) -> tuple[str, list[str]]:
    """An env file's text with these variables, and what changes, in words without values. Every other line stays as it is."""
    lines, told = content.splitlines(), []
    for name, value in values.items():
        line = f"{name}={quoted(value)}"
        places = [number for number, old in enumerate(lines) if line_of(old)[0] == name]
        if not places:
            lines.append(line)
            told.append(f"+ {name}")
        elif line_of(lines[places[-1]])[1] != value:  # the last one counts
            lines[places[-1]] = line
            told.append(f"~ {name}, another value than now")
    return "".join(f"{line}\n" for line in lines), told


def with_rows(
    file: Mapping[str, Any], providers: Mapping[str, Mapping[str, Any]], sets: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], list[str]]:
    """A providers.json with these entries, and what changes, in words. Every other entry stays as it is."""
    made, told = dict(file), []
    for section, rows in (("providers", providers), ("sets", sets)):
        old = dict(made.get(section) or {})
        for name, row in rows.items():
            shown = row.get("base_url") if isinstance(row, Mapping) else ", ".join(row)
            entry = row if isinstance(row, Mapping) else list(row)
            if old.get(name) != entry:
                told.append(f"{'~' if name in old else '+'} {section}.{name}: {shown}")
                old[name] = entry
        if old:
            made[section] = old
    return made, told


def row_with(provider: ProviderSettings, address: str) -> dict[str, Any]:
    """A provider's row, as it is written, with an address."""
    row: dict[str, Any] = provider.row.model_dump(mode="json", exclude_unset=True)
    return {**row, "base_url": address}


def written(file: Mapping[str, Any]) -> bytes:
    """A providers.json as a person reads it."""
    return (json.dumps(file, indent=2, ensure_ascii=False) + "\n").encode()
