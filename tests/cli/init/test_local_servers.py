"""Model servers on this machine, and other programs at their default addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from fanout.cli.init.local_servers import DEFAULT_ADDRESSES, EXPECTED_OWNERS, find_local_servers
from fanout.config.settings import ProviderSettings, load_settings
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.probe.probe import Trial, run_trials
from fanout.providers.model_listing import list_models
from tests.support.builders.settings import load_own_settings
from tests.support.llama.process import Llama
from tests.support.upstream.model_host import KEY, MODELS, serve_model_host
from tests.support.upstream.server import reserve_refusing_url

SHIPPED = load_settings(environ={}).providers
PATIENCE_S = 20


def test_default_addresses_belong_to_built_in_providers_without_an_address() -> None:
    assert all(SHIPPED[name].base_url is None for name in DEFAULT_ADDRESSES)


async def test_a_server_at_its_default_address_is_found_with_its_models() -> None:
    async with serve_model_host() as host:
        found = await find_local_servers(SHIPPED, {"ollama": host.url}, PATIENCE_S)

    assert (found["ollama"].address, found["ollama"].models) == (host.url, MODELS)


async def test_another_program_at_a_default_address_is_not_taken_for_a_model_server() -> None:
    async with serve_model_host() as host:
        with reserve_refusing_url() as nobody:
            usual = {"llamacpp": f"{host.url}/v1", "vllm": nobody, "lmstudio": f"{host.url}/elsewhere"}
            assert await find_local_servers(SHIPPED, usual, PATIENCE_S) == {}


async def test_no_key_is_sent_to_a_default_address(tmp_path: Path) -> None:
    """The host would show its list to this key."""
    async with serve_model_host(owner="vllm") as host:
        keyed = load_own_settings(tmp_path, {}, VLLM_API_KEY=KEY).providers
        configured = load_own_settings(tmp_path, {}, VLLM_API_KEY=KEY, VLLM_BASE_URL=f"{host.url}/v1").providers
        usual = {"vllm": f"{host.url}/v1"}

        assert await find_local_servers(keyed, usual, PATIENCE_S) == {}
        assert (await find_local_servers(configured, usual, PATIENCE_S))["vllm"].models == MODELS


async def test_a_real_llama_cpp_is_found_and_works(llama: Llama, tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, {}, LLAMA_BASE_URL=llama.url, LLAMA_API_KEY=llama.key)
    (described,) = await _list_models(settings.providers["llamacpp"])
    async with open_dispatcher(settings) as dispatcher:
        (finding,) = await run_trials(dispatcher, [Trial("llamacpp")], PATIENCE_S)

    assert described["owned_by"] == EXPECTED_OWNERS["llamacpp"]
    assert (await find_local_servers(settings.providers, {"llamacpp": ""}, PATIENCE_S))["llamacpp"].models == (llama.model,)
    assert (finding.model, finding.is_well, finding.reports_usage, finding.key_accepted) == (
        f"llamacpp/{llama.model}",
        True,
        True,
        True,
    )


async def _list_models(provider: ProviderSettings) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        return await list_models(provider, session, PATIENCE_S)
