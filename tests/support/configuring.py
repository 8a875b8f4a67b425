"""A providers.json of one's own, loaded; nothing of the machine's environment or home is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.config.overlay import SHIPPED
from fanout.config.settings import Settings, load_settings
from fanout.core.errors import ConfigError

Rows = Mapping[str, Any]


def own_file(folder: Path, rows: Rows | str) -> Path:
    path = folder / "own.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def configured(folder: Path, rows: Rows | str, **environ: str) -> Settings:
    """The settings under a file of one's own and these variables alone."""
    return load_settings(own_file(folder, rows), environ)


def faults(folder: Path, rows: Rows | str, **environ: str) -> list[str]:
    """What is wrong with them: a line a fault, its file named `own` or `shipped`."""
    with pytest.raises(ConfigError) as caught:
        configured(folder, rows, **environ)
    return str(caught.value).replace(str(folder / "own.json"), "own").replace(str(SHIPPED), "shipped").splitlines()
