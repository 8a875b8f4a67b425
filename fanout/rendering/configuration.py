"""The configuration after a reload, as `POST /v1/config/reload` answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.config.changes import Changes
from fanout.config.settings import Settings


class ConfigurationChangesJson(TypedDict):
    """Names of what was added, changed or removed; no values."""

    variables: Annotated[Sequence[str], Doc("Variables of Fanout.")]
    providers: Annotated[Sequence[str], Doc("Providers: their rows, addresses or keys.")]
    models: Annotated[Sequence[str], Doc("Models.")]
    sets: Annotated[Sequence[str], Doc("Sets of models.")]


class ConfigurationJson(TypedDict):
    """A configuration that has been read."""

    object: Literal["configuration"]
    files: Annotated[Sequence[str], Doc("Files that it was read from, a later one over an earlier one.")]
    changed: Annotated[ConfigurationChangesJson, Doc("Differences from the configuration before.")]
    notices: Annotated[Sequence[str], Doc("Shipped names that gave way to your own.")]


def render_configuration(settings: Settings, changes: Changes) -> ConfigurationJson:
    """Return a configuration that has replaced another."""
    return {
        "object": "configuration",
        "files": settings.files,
        "changed": {
            "variables": changes.variables,
            "providers": changes.providers,
            "models": changes.models,
            "sets": changes.sets,
        },
        "notices": settings.notices,
    }
