"""The vendors' own batch APIs: calls that may take a day, at part of the price.

In this package a *batch* is a vendor's; to the rest of Fanout it is an *economy batch*, because a job is a batch, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanout.core.errors import ConfigError, Fault

if TYPE_CHECKING:
    import aiohttp

    from fanout.config.settings import ProviderSettings
    from fanout.providers import Provider
    from fanout.providers.economy.api import EconomyApi


def open_economy_api(settings: ProviderSettings, session: aiohttp.ClientSession, provider: Provider) -> EconomyApi:
    """Return the batch API of a provider, by the `economy` of its row.

    Args:
        settings: of the provider.
        session: whose connections are used.
        provider: writes and reads what each call is.

    Raises:
        ConfigError: the format of the row is not one of the adapter's.
    """
    # Here, since only jobs need them.
    from fanout.providers.economy.file_batches import FILE_FORMATS, FileBatches
    from fanout.providers.economy.gemini import GeminiBatches
    from fanout.providers.economy.messages import MessageBatches
    from fanout.providers.transport.json_provider import JsonProvider

    economy = settings.row.economy
    assert economy is not None, "asked of a provider without a batch API"
    adapter = {"anthropic": "anthropic", "gemini": "gemini"}.get(economy.format, "openai")
    if settings.adapter != adapter or not isinstance(provider, JsonProvider):
        fault = Fault(f"providers.{settings.name}.economy.format", f"`{economy.format}` needs the adapter `{adapter}`")
        raise ConfigError(settings.source, [fault])
    if economy.format == "anthropic":
        return MessageBatches(settings, session, provider)
    if economy.format == "gemini":
        return GeminiBatches(settings, session, provider)
    return FileBatches(settings, session, provider, FILE_FORMATS[economy.format])
