"""Detection of model servers on this machine, at the addresses they use by default."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fanout.core.errors import ProviderError

if TYPE_CHECKING:  # a command's help needs none of them
    import aiohttp

    from fanout.config.settings import ProviderSettings

# Sources: https://github.com/ollama/ollama/blob/main/docs/faq.md, https://lmstudio.ai/docs/app/api,
# https://github.com/ggml-org/llama.cpp/tree/master/tools/server, https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
DEFAULT_ADDRESSES: Mapping[str, str] = {
    "ollama": "http://127.0.0.1:11434",
    "lmstudio": "http://127.0.0.1:1234/v1",
    "llamacpp": "http://127.0.0.1:8080/v1",
    "vllm": "http://127.0.0.1:8000/v1",
}
EXPECTED_OWNERS: Mapping[str, str] = {"llamacpp": "llamacpp", "vllm": "vllm"}
"""`owned_by` in their model lists. Other servers use these ports too, among them Fanout itself."""
PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A model server that answers."""

    address: str
    models: tuple[str, ...]


async def find_local_servers(
    providers: Mapping[str, ProviderSettings],
    addresses: Mapping[str, str] = DEFAULT_ADDRESSES,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> dict[str, LocalServer]:
    """Return the servers that answer, by provider: at the configured address, else at the default one."""
    import aiohttp

    names = [name for name in addresses if name in providers]
    # No cookies: a server must not learn what another one on this machine has set.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_probe(providers[name], addresses[name], session, timeout_s)) for name in names]
    return {name: server for name, task in zip(names, tasks, strict=True) if (server := task.result())}


async def _probe(
    provider: ProviderSettings, default_address: str, session: aiohttp.ClientSession, timeout_s: float
) -> LocalServer | None:
    from fanout.providers.model_listing import list_models

    address = provider.base_url or default_address
    # No key is sent to a default port: any program may listen there.
    target = provider if provider.base_url else replace(provider, base_url=address, key=None, headers={})
    try:
        models = await list_models(target, session, timeout_s)
    except ProviderError:
        return None
    owner = EXPECTED_OWNERS.get(provider.name)
    if provider.base_url is None and owner and not any(model.get("owned_by") == owner for model in models):
        return None
    return LocalServer(address, tuple(model["id"] for model in models))
