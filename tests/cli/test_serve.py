"""The message that `fanout serve` prints once it listens."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from fanout.cli.serve import compose_greeting
from fanout.config.settings import load_settings
from fanout.providers import ADAPTERS, EMBEDDERS, TOKENIZERS
from tests.support.cli import run_command

ADDRESS = "http://127.0.0.1:1234"


def test_the_message_has_at_most_six_lines_and_its_last_can_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(None, {"FANOUT_API_KEYS": "key-one-abcdefghij", "HOME": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))

    greeting = compose_greeting(ADDRESS, settings).splitlines()

    assert len(greeting) <= 6
    assert greeting[0].endswith(f"listens on {ADDRESS}; open it in a browser")
    assert "ready: local/ngram-2, local/ngram-3, local/ngram-5" in greeting
    waiting = sum(bool(provider.lacks()) for provider in settings.providers.values())
    assert f"{waiting} providers wait for a key: `fanout models` shows the variables, `fanout init` sets them" in greeting
    command = shlex.split(greeting[-1].removeprefix("try: "))
    assert command[:4] == ["curl", f"{ADDRESS}/v1/completion", "-H", "Authorization: Bearer <key>"]
    assert json.loads(command[-1])["model"] == ["local/ngram-2", "local/ngram-3", "local/ngram-5"]


def test_the_message_tells_how_the_command_is_found_only_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(None, {"HOME": str(tmp_path)})
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("activate", "fanout"):
        (tmp_path / ".venv" / "bin" / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`. .venv/bin/activate` lets any other shell find `fanout`" in compose_greeting(ADDRESS, settings)
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    assert "activate" not in compose_greeting(ADDRESS, settings)


def test_the_message_does_not_offer_a_retired_model(tmp_path: Path) -> None:
    config = tmp_path / "providers.json"
    rows = '"old": {"provider": "local", "id": "ngram-2", "kind": "both", "deprecated_on": "2020-01-01"}'
    config.write_text(f'{{"models": {{{rows}}}}}')

    greeting = compose_greeting(ADDRESS, load_settings(config, {}))

    assert "ready: local/ngram-2, local/ngram-3, local/ngram-5\n" in greeting


PRINT_MODULES = """
import asyncio, json, os, signal, sys
from fanout.cli.options import load_settings
from fanout.server import app

def print_modules(address):
    print(json.dumps(list(sys.modules)))
    os.kill(os.getpid(), signal.SIGINT)

asyncio.run(app.serve(load_settings(None, None), "127.0.0.1", 0, print_modules))
print(json.dumps(list(sys.modules)))
"""
"""A server that writes the modules it has imported by the time it listens, ends, and writes them again."""


async def test_a_server_listens_before_it_has_imported_what_only_some_requests_need() -> None:
    """Prices are loaded after that, in a thread; each of the others costs a tenth of a second, too."""
    result = await run_command([sys.executable, "-c", PRINT_MODULES], FANOUT_STORE="off")

    imported = set(json.loads(result.out.splitlines()[0]))
    assert "fanout.server.app" in imported
    assert imported & {"fanout.server.endpoints", "fanout.requests.openai.chat", "fanout.requests.openai.batch_lines"} == set()
    assert imported & {"alembic", "genai_prices", "jsonschema", "numpy", "pyarrow", "scipy", "yaml"} == set()


async def test_a_running_server_has_imported_every_endpoint_and_format_before_a_request_needs_it() -> None:
    """Providers without a key are made at their first call, by a caller's own: no import then holds up other calls."""
    result = await run_command([sys.executable, "-c", PRINT_MODULES], FANOUT_STORE="off")

    imported = set(json.loads(result.out.splitlines()[-1]))
    assert "fanout.server.endpoints" in imported
    places = (*ADAPTERS.values(), *EMBEDDERS.values(), *TOKENIZERS.values())
    assert {place.partition(":")[0] for place in places} - imported == set()


OPEN_NO_MORE = """
import asyncio, os, resource, signal
from fanout.config.settings import load_settings
from fanout.server import app

def open_no_more(address):
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.kill(os.getpid(), signal.SIGINT)

asyncio.run(app.serve(load_settings(None, None), "127.0.0.1", 0, open_no_more))
"""
"""A server that may open no file from the moment it listens, and ends."""


async def test_a_server_that_may_open_no_file_says_so_and_ends_well() -> None:
    result = await run_command([sys.executable, "-c", OPEN_NO_MORE], FANOUT_STORE="off")

    assert result.code == 0, result.err
    assert "endpoints.import_failed" in result.out
    assert "adapters.import_failed" in result.out


BROKEN = """
import asyncio, sys
from fanout.config.settings import load_settings
from fanout.server import app

sys.modules["fanout.server.endpoints"] = None  # as Python has it for what must not be imported
asyncio.run(app.serve(load_settings(None, None), "127.0.0.1", 0, print))
"""
"""A server that lacks a part of Fanout."""


async def test_a_server_that_lacks_an_endpoint_ends_instead_of_serving_the_rest() -> None:
    result = await run_command([sys.executable, "-c", BROKEN], FANOUT_STORE="off")

    assert result.code == 1
    assert "fanout.server.endpoints" in result.err
