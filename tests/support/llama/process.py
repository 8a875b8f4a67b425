"""A real llama.cpp server with random weights: an upstream that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

KEY = "sk-llama-test"
START_S, STOP_S, PATIENCE_S = 30.0, 5.0, 30.0
LONG_TOKENS = 4000
"""Tokens that take seconds to generate."""
ENDLESS = {"2": -100}
"""A `logit_bias` that forbids the token that ends a text, which random weights sometimes choose."""
NEEDED = ("xllamacpp", "gguf", "numpy")


@dataclass(frozen=True, slots=True)
class Llama:
    """A running llama.cpp server."""

    origin: str
    key: str = KEY
    model: str = "tiny"

    @property
    def url(self) -> str:
        """The `base_url` of this provider, for the OpenAI format."""
        return f"{self.origin}/v1"

    async def count_busy_slots(self) -> int:
        """Return the number of its 4 slots that work on a call."""
        slots = await asyncio.to_thread(self.read_json, "/slots")
        return sum(slot["is_processing"] for slot in slots)

    async def wait_until_busy(self, slots: int = 1) -> None:
        """Wait until so many slots are busy.

        Raises:
            TimeoutError: fewer are.
        """
        async with asyncio.timeout(PATIENCE_S):
            while await self.count_busy_slots() < slots:
                await asyncio.sleep(0.01)

    async def wait_until_idle(self) -> None:
        """Wait until no slot is busy.

        Raises:
            TimeoutError: one still is.
        """
        async with asyncio.timeout(PATIENCE_S):
            while await self.count_busy_slots():
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def expect_release(self, tokens: int = LONG_TOKENS) -> AsyncIterator[None]:
        """Check that calls made within are aborted: the server stops before it has generated `tokens` more tokens."""
        before = await self.count_tokens()
        yield
        await self.wait_until_idle()
        assert await self.count_tokens() - before < tokens

    async def count_tokens(self) -> int:
        """Return the number of tokens generated since the server started."""
        found = re.search(
            r"^llamacpp:tokens_predicted_total (\S+)$", (await asyncio.to_thread(self.read, "/metrics")).decode(), re.M
        )
        assert found
        return int(float(found[1]))

    def read_json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def read(self, path: str) -> bytes:
        request = urllib.request.Request(self.origin + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            body: bytes = response.read()
            return body


@contextmanager
def run_llama(folder: Path) -> Iterator[Llama]:
    """Run a llama.cpp server in a process of its own; skip the test if packages are missing, or fail it under CI."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        reason = f"NO REAL UPSTREAM: {', '.join(missing)} not installed; `pip install -e .[test]` brings it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from tests.support.llama.tiny_model import write_model  # here, because it needs packages that may be missing

    model = write_model(folder / "tiny.gguf")
    command = [sys.executable, str(Path(__file__).with_name("server.py")), str(model), "0", KEY]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield _wait_for_start(process, folder / "log")
        finally:
            _stop(process)


def _wait_for_start(process: subprocess.Popen[str], log: Path) -> Llama:
    """Return the server at the address that it prints; if it has ended without one, fail with its log."""
    assert process.stdout
    impatience = threading.Timer(START_S, process.kill)
    impatience.start()
    try:
        word, _, origin = process.stdout.readline().strip().partition(" ")
        while word == "LISTENING" and process.poll() is None:
            with suppress(urllib.error.URLError, ConnectionError):  # 503 while it loads the model
                Llama(origin).read_json("/health")
                return Llama(origin)
            time.sleep(0.02)
    finally:
        impatience.cancel()
    pytest.fail(f"the llama.cpp server did not start: {log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
