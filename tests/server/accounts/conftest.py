"""A server with stored keys, and an administrator of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import EMBEDDED, Client, Reply
from tests.support.server import serve

ADMIN = "operator-key-0123456789"
MODEL = "local/ngram-2"


@dataclass(frozen=True, slots=True)
class Team:
    """A server whose operator has a key of the environment, and makes the others."""

    client: Client

    async def send(self, key: str | None, method: str, path: str, body: object = None, **headers: str) -> Reply:
        return await self.client.send(method, path, body, {**({"x-api-key": key} if key else {}), **headers})

    async def make_key(self, **fields: Any) -> Mapping[str, Any]:
        """Return a new key of the account `team`, with its secret as `key`."""
        made = await self.send(ADMIN, "POST", "/v1/keys", {"name": "k", "account_id": "team", **fields})
        assert made.status == 201, made.body
        assert made.headers["Cache-Control"] == "no-store"
        return dict(made.json)

    async def complete(self, key: str | None, **fields: Any) -> Reply:
        return await self.send(
            key, "POST", "/v1/completion", {"model": MODEL, "prompt": "a", "max_tokens": 2, "seed": 1, **fields}
        )


PRICED = "local/ngram-3"
"""A model whose every token of an answer costs a tenth of a dollar."""


def write_config(folder: Path) -> Path:
    """Write a configuration of embedded models, one of which has a price and one of which has none that is known."""
    known: Any = EMBEDDED["models"]
    models: dict[str, Any] = {name: dict(model) for name, model in known.items()}
    models[PRICED]["price"] = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 100_000}
    del models["local/ngram-5"]["price"]
    config = folder / "embedded.json"
    config.write_text(json.dumps({**EMBEDDED, "models": models}))
    return config


@pytest.fixture
async def team(tmp_path: Path) -> AsyncIterator[Team]:
    store = str(tmp_path / "fanout.db")
    async with serve(write_config(tmp_path), FANOUT_API_KEYS=f"operator:{ADMIN}", FANOUT_STORE=store) as server:
        yield Team(Client(server))
