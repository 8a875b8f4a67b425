"""What answers questions: this process by a configuration, or a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AskLocation:
    """The options that name what answers."""

    config_file: Path | None
    env_file: Path | None
    server: str | None
