"""Changes from one configuration to the next: what they are, and which of them need a new process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fanout.config.environment import PREFIX
from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, Fault

FIXED = (
    *("store", "history", "history_days", "usage_days", "ca_file", "http_client", "log_level", "log_format", "traces"),
    *("max_connections", "max_in_flight", "max_waiting", "max_held_bytes", "work", "workers"),
)
"""Variables whose values belong to what is open for as long as a process runs: the store, connections, logs and bounds."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of what differs between two configurations."""

    variables: tuple[str, ...]
    providers: tuple[str, ...]
    models: tuple[str, ...]
    sets: tuple[str, ...]

    @classmethod
    def between(cls, old: Settings, new: Settings) -> Changes:
        """Compare two configurations."""
        before, after = old.environment.model_dump(), new.environment.model_dump()
        return cls(
            variables=tuple(f"{PREFIX}{name.upper()}" for name in _compare(before, after)),
            # Also by their keys and addresses, which come from the environment.
            providers=_compare(old.providers, new.providers),
            models=_compare(old.models, new.models),
            sets=_compare(old.sets, new.sets),
        )

    def check(self) -> None:
        """Refuse changes that need a new process.

        Raises:
            ConfigError: names every variable, and no value.
        """
        fixed = {f"{PREFIX}{name.upper()}" for name in FIXED}
        sentence = "has changed, which a running server cannot take over: restart it, or set the old value again"
        if faults := [Fault(name, sentence) for name in self.variables if name in fixed]:
            raise ConfigError("environment", faults)


def _compare(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names that only one of the mappings has, or whose values differ."""
    return tuple(name for name in {**before, **after} if name not in before or name not in after or before[name] != after[name])
