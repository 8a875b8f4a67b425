"""An independent mock of many providers, over real sockets; its answers are in fixtures.json.

It reads only the last user message of a request, and its errors have OpenAI's or Anthropic's shape
whatever the format: good for transport, streams and faults, not for shapes.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.providers import ADAPTERS
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.gemini.vertex import Vertex
from fanout.providers.ollama import Ollama
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.openai.azure import Azure
from fanout.providers.transport.http import HttpProvider
from tests.support.provider_calls import build_adapter

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".venv-clients" / "aimock"
FORMATS: Mapping[str, tuple[type[HttpProvider], str]] = {
    "openai": (OpenAi, "/v1"),
    "azure": (Azure, ""),
    "anthropic": (Anthropic, ""),
    "gemini": (Gemini, "/v1beta"),
    "vertex": (Vertex, "/v1/projects/p/locations/global/publishers/google"),
    "cohere": (Cohere, ""),
    "bedrock": (Bedrock, ""),
    "ollama": (Ollama, ""),
    "openrouter": (OpenAi, "/api/v1"),
}
"""Its formats: our adapter, and the path of the format at the mock."""
PATIENCE_S = 20.0
"""Longest fault, even on a busy machine."""
KEY = "sk-aimock-0123456789"


@dataclass(frozen=True, slots=True)
class Aimock:
    """A running server."""

    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def build_adapter(self, name: str, session: aiohttp.ClientSession, **headers: str) -> HttpProvider:
        """Return the adapter of a format, pointed at the mock; a header may request a fault."""
        make, path = FORMATS[name]
        named = {header.replace("_", "-"): value for header, value in headers.items()}
        return build_adapter(make, self.url + path, session=session, key=KEY, headers=named)

    def build_row(self, name: str, **headers: str) -> dict[str, Any]:
        """Return the same as a row of providers.json."""
        make, path = FORMATS[name]
        adapter = next(name for name, module in ADAPTERS.items() if module == f"{make.__module__}:{make.__name__}")
        return {"adapter": adapter, "base_url": self.url + path, "api_key_env": "MOCK_KEY", "headers": headers}

    async def wait_for_sockets(self, sockets: int) -> None:
        """Wait until this process has so many sockets to the mock, including idle ones; a loop closes them a moment later.

        Raises:
            TimeoutError: there are others.
        """
        async with asyncio.timeout(PATIENCE_S):
            while self._count_sockets() != sockets:
                await asyncio.sleep(0.01)

    def _count_sockets(self) -> int:
        ours = set()
        for fd in os.listdir("/proc/self/fd"):
            try:
                ours.add(os.readlink(f"/proc/self/fd/{fd}"))
            except FileNotFoundError:  # the listing's own
                continue
        found = 0
        for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            found += fields[2].endswith(f":{self.port:04X}") and f"socket:[{fields[9]}]" in ours
        return found


@contextmanager
def run_aimock() -> Iterator[Aimock]:
    """Run the mock in a process of its own; skip the test if it is not installed, or fail it under CI."""
    program = HOME / "node_modules" / ".bin" / "llmock"
    if not program.exists():
        reason = "NO MOCK OF THE PROVIDERS: aimock is not installed; run scripts/clients aimock"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    command = [str(HOME / "node"), str(program), "--port", "0", "--fixtures", str(HERE / "fixtures.json")]
    with subprocess.Popen(
        [*command, "--log-level", "info"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield Aimock(_read_address(server))
        finally:
            server.kill()


def _read_address(server: subprocess.Popen[str]) -> str:
    assert server.stdout
    output = ""
    for line in server.stdout:
        output += line
        if found := re.search(r"listening on (http://\S+)", line):
            return found[1]
    raise AssertionError(f"aimock did not start: {output}")
