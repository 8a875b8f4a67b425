"""`FANOUT_EMBEDDED_MODELS=off`: the models that take the process's own time are not there, and nothing says they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fanout.cli.main import cli
from fanout.cli.serve import compose_greeting
from fanout.dispatch.default_models import choose_default_models
from tests.support.builders.settings import load_own_settings
from tests.support.client import Client
from tests.support.server import serve

OWN: dict[str, Any] = {
    "providers": {"mine": {"adapter": "openai", "base_url": "https://mine.example"}},
    "models": {
        "small": {"provider": "local", "id": "ngram-2", "kind": "both"},
        "large": {"provider": "mine", "id": "large", "kind": "chat"},
    },
    "sets": {"some": ["small", "large"], "toys": ["small", "local/ngram-3"]},
    "default_provider": {"scale": "local"},
}


def test_the_embedded_models_go_with_all_that_refers_to_them(tmp_path: Path) -> None:
    on, off = load_own_settings(tmp_path, OWN), load_own_settings(tmp_path, OWN, FANOUT_EMBEDDED_MODELS="off")
    assert on.providers.keys() - off.providers.keys() == {"local"}
    assert on.models.keys() - off.models.keys() == {"small", "local/ngram-2", "local/ngram-3", "local/ngram-5"}
    assert on.sets.keys() - off.sets.keys() == {"embedded", "toys"}
    assert (off.sets["some"], off.default_provider.get("scale")) == (("large",), None)
    assert not on.switched_off
    assert not any("ngram" in row.adapter for row in off.providers.values())


def test_no_message_offers_them(tmp_path: Path) -> None:
    off = load_own_settings(tmp_path, {}, FANOUT_EMBEDDED_MODELS="off")
    greeting = compose_greeting("http://127.0.0.1:8080", off)
    assert "ngram" not in greeting
    assert choose_default_models(off).names == ()


@pytest.mark.parametrize("command", [["models"], ["models", "--json"], ["models", "--ready"]])
def test_the_command_does_not_list_them(command: list[str]) -> None:
    environ = {"FANOUT_EMBEDDED_MODELS": "off", "HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null"}
    result = CliRunner(env=environ).invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "ngram" not in result.output


async def test_the_server_neither_lists_nor_calls_them() -> None:
    async with serve(FANOUT_EMBEDDED_MODELS="off") as server:
        client = Client(server)
        listed = await client.send("GET", "/v1/models")
        asked = {
            name: await client.send("POST", "/v1/completion", {"model": name, "prompt": "a"})
            for name in ("embedded", "local/ngram-3", "local/other")
        }
    assert b"ngram" not in listed.body
    for name, reply in asked.items():
        assert reply.status == 404
        assert f"`{name}` is switched off here (FANOUT_EMBEDDED_MODELS=off)" in reply.error["message"]
