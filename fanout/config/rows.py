"""The entries of all files, merged."""

from __future__ import annotations

from dataclasses import dataclass, field

from fanout.config.providers_file import ModelRow, ProviderRow
from fanout.core.errors import Fault


@dataclass(slots=True)
class Rows:
    """All entries, the file that each comes from, and the faults found while merging."""

    providers: dict[str, ProviderRow] = field(default_factory=dict)
    models: dict[str, ModelRow] = field(default_factory=dict)
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    default_provider: dict[str, str | None] = field(default_factory=dict)
    origin: dict[tuple[str, str], str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """Shipped names that gave way to the user's own."""
