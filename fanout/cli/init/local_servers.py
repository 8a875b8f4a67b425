"""Servers of models on this machine, looked for where they usually listen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import aiohttp

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.providers.model_listing import listed

# Sources: https://github.com/ollama/ollama/blob/main/docs/faq.md, https://lmstudio.ai/docs/app/api,
# https://github.com/ggml-org/llama.cpp/tree/master/tools/server, https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
USUAL: Mapping[str, str] = {
    "ollama": "http://127.0.0.1:11434",
    "lmstudio": "http://127.0.0.1:1234/v1",
    "llamacpp": "http://127.0.0.1:8080/v1",
    "vllm": "http://127.0.0.1:8000/v1",
}
OWNERS: Mapping[str, str] = {"llamacpp": "llamacpp", "vllm": "vllm"}
"""What `owned_by` says in their lists: other servers listen at these ports, too, Fanout for one."""
LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers."""

    address: str
    models: tuple[str, ...]


async def running(
    providers: Mapping[str, ProviderSettings], usual: Mapping[str, str] = USUAL, timeout_s: float = LOOK_S
) -> dict[str, Server]:
    """The servers that answer, by provider: at the address that is configured, else at the usual one."""
    looked = [name for name in usual if name in providers]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look(providers[name], usual[name], session, timeout_s)) for name in looked]
    return {name: server for name, task in zip(looked, tasks, strict=True) if (server := task.result())}


async def _look(provider: ProviderSettings, usual: str, session: aiohttp.ClientSession, timeout_s: float) -> Server | None:
    address = provider.base_url or usual
    # No key goes to whoever happens to listen at a usual port.
    asked = provider if provider.base_url else replace(provider, base_url=address, key=None, headers={})
    try:
        models = await listed(asked, session, timeout_s)
    except ProviderError:
        return None
    owner = OWNERS.get(provider.name)
    if provider.base_url is None and owner and not any(model.get("owned_by") == owner for model in models):
        return None
    return Server(address, tuple(model["id"] for model in models))
