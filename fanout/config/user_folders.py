"""The user's own folders, by the XDG Base Directory Specification.

The environment is an argument here, and without a home there is no folder. `platformdirs` reads `os.environ` alone and asks the
password database for a home, so that a service without one would suddenly keep its store in `/root`.

Source: a path that is not absolute counts as unset, https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def find_config_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the user's configuration folder, which need not exist; `None` for a user without a home."""
    return _find_folder(environ, "XDG_CONFIG_HOME", ".config")


def find_data_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the user's data folder, which need not exist; `None` for a user without a home."""
    return _find_folder(environ, "XDG_DATA_HOME", ".local/share")


def _find_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    candidates = (Path(environ.get(variable, "")), Path(environ.get("HOME", "")) / below_home)
    return next((folder / "fanout" for folder in candidates if folder.is_absolute()), None)
