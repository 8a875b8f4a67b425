"""Edits of an env file and a providers.json that leave everything else as it is. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from fanout.config.env_file import parse_line, quote
from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject


def set_variables(content: str, values: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the text of an env file with these variables, and its changes in words that show no value."""
    lines, changes = content.splitlines(), []
    for name, value in values.items():
        line = f"{name}={quote(value)}"
        places = [number for number, old in enumerate(lines) if parse_line(old)[0] == name]
        if not places:
            lines.append(line)
            changes.append(f"+ {name}")
        elif parse_line(lines[places[-1]])[1] != value:  # of several lines the last one counts
            lines[places[-1]] = line
            changes.append(f"~ {name}, with a new value")
    return "".join(f"{line}\n" for line in lines), changes


def add_entries(
    file: Mapping[str, object], providers: Mapping[str, JsonObject], sets: Mapping[str, Sequence[str]]
) -> tuple[JsonObject, list[str]]:
    """Return a providers.json with these entries, and its changes in words."""
    edited, changes = dict(file), []
    new_sections: dict[str, dict[str, tuple[object, str]]] = {
        "providers": {name: (row, str(row.get("base_url"))) for name, row in providers.items()},
        "sets": {name: (list(members), ", ".join(members)) for name, members in sets.items()},
    }
    for section, entries in new_sections.items():
        old = dict(edited.get(section) or {})  # type: ignore[call-overload]
        for name, (entry, text) in entries.items():
            if old.get(name) != entry:
                changes.append(f"{'~' if name in old else '+'} {section}.{name}: {text}")
                old[name] = entry
        if old:
            edited[section] = old
    return edited, changes


def build_row(provider: ProviderSettings, address: str) -> JsonObject:
    """Return a provider's row of providers.json with an address."""
    row: JsonObject = provider.row.model_dump(mode="json", exclude_unset=True)
    return {**row, "base_url": address}


def format_file(file: Mapping[str, object]) -> bytes:
    """Return the text of a providers.json."""
    return (json.dumps(file, indent=2, ensure_ascii=False) + "\n").encode()
