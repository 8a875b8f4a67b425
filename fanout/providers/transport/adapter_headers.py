"""A row's headers that are meant for the adapter, not for the provider: a row has no other place where `${VAR}` may stand."""

from __future__ import annotations

from dataclasses import replace

from fanout.config.settings import ProviderSettings


def take_header(settings: ProviderSettings, header: str) -> tuple[str | None, ProviderSettings]:
    """The value of `header`, `None` where it is absent or empty, and the settings without it."""
    others = {name: value for name, value in settings.headers.items() if name.lower() != header}
    values = (value.get_secret_value().strip() for name, value in settings.headers.items() if name.lower() == header)
    return next(filter(None, values), None), replace(settings, headers=others)
