"""Files `providers.json` for tests, and the settings they give; nothing of the machine's environment or home is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.config.overlay import SHIPPED
from fanout.config.settings import Settings, load_settings
from fanout.core.errors import ConfigError
from tests.support.upstream.script import FAULT_SCRIPTS

Rows = Mapping[str, Any]


def write_providers_file(
    upstream_url: str, folder: Path, *, more: Mapping[str, Mapping[str, Any]] | None = None, **provider_row: Any
) -> Path:
    """Write a providers.json with provider `up` at `upstream_url` (its row as given), `local`, and a model for every fault.

    `up/<script>` calls any script; the names in `FAULT_SCRIPTS` are also models of their own: `<script>` as a chat model,
    `<script>-text` as a text model. `more` adds to the sections: `{"models": {…}, "sets": {…}, "providers": {…}}`.
    """
    sections: dict[str, dict[str, Any]] = {
        "providers": {
            "up": {"adapter": "openai", "base_url": upstream_url, **provider_row},
            "local": {"adapter": "ngram", "default_kind": "both"},
        },
        "models": {name: {"provider": "up", "id": name, "kind": "chat"} for name in FAULT_SCRIPTS}
        | {f"{name}-text": {"provider": "up", "id": name, "kind": "text"} for name in FAULT_SCRIPTS},
    }
    for section, rows in (more or {}).items():
        sections.setdefault(section, {}).update(rows)
    path = folder / "providers.json"
    path.write_text(json.dumps({"extends": False, **sections}, indent=2))
    return path


def write_own_file(folder: Path, rows: Rows | str) -> Path:
    """Write a user's own providers file with exactly this content."""
    path = folder / "own.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def load_own_settings(folder: Path, rows: Rows | str, **environ: str) -> Settings:
    """Return the settings under a user's own file and these variables alone."""
    return load_settings(write_own_file(folder, rows), environ)


def collect_faults(folder: Path, rows: Rows | str, **environ: str) -> list[str]:
    """Return the faults of such settings, one line each; their files are called `own` and `shipped`."""
    with pytest.raises(ConfigError) as caught:
        load_own_settings(folder, rows, **environ)
    return str(caught.value).replace(str(folder / "own.json"), "own").replace(str(SHIPPED), "shipped").splitlines()
