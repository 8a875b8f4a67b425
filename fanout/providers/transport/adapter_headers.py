"""Headers of a row that are meant for the adapter, not for the provider: only headers may contain `${VAR}`."""

from __future__ import annotations

from dataclasses import replace

from fanout.config.settings import ProviderSettings


def take_header(settings: ProviderSettings, header: str) -> tuple[str | None, ProviderSettings]:
    """Return the value of `header`, `None` where it is absent or empty, and the settings without it."""
    others = {name: value for name, value in settings.headers.items() if name.lower() != header}
    values = (value.get_secret_value().strip() for name, value in settings.headers.items() if name.lower() == header)
    return next(filter(None, values), None), replace(settings, headers=others)
