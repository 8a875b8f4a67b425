"""All good keys of the store, in memory, so that no request waits for the database to be let in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from fanout.core.errors import StoreError
from fanout.core.lulls import LULLS
from fanout.observability.logs import log
from fanout.requests.keys import load_limits
from fanout.server.accounts.callers import Caller
from fanout.store.keys.key_store import KeyRow, KeyStore
from fanout.store.keys.secrets import SecretRow, is_secret_of, split_key

POLL_INTERVAL_S = 2.0
"""Time between looks for changes that other processes have made: so long may a key that is revoked elsewhere be good here."""


class KeyDirectory:
    """The keys of a store: which caller has which. Without a store there are none."""

    def __init__(self, keys: KeyStore | None = None) -> None:
        self.requires_keys = False
        """True once the store has ever held a key: the last one's end must not open the door to everybody."""
        self._keys = keys
        self._found: Mapping[str, tuple[SecretRow, KeyRow, Caller]] = {}
        self._by_id: Mapping[str, tuple[KeyRow, Caller]] = {}
        self._version = -1
        self._turn = asyncio.Lock()
        self._is_failing = False

    def find(self, key: str) -> Caller | None:
        """Return the caller who has a key, if it is good now."""
        parts = split_key(key)
        if parts is None:
            return None
        prefix, secret = parts
        row, owner, caller = self._found.get(prefix, (None, None, None))
        if not is_secret_of(row, secret) or row is None or owner is None:
            return None
        now = time.time()
        return caller if row.is_good(now) and owner.is_good(now) else None

    def find_by_id(self, key_id: str) -> Caller | None:
        """Return the caller with a key, by its id, if it is good now."""
        known = self._by_id.get(key_id)
        return known[1] if known and known[0].is_good(time.time()) else None

    async def refresh(self) -> None:
        """Read the keys again if anything has changed; raise `StoreError` if they cannot be read."""
        if self._keys is None:
            return
        async with self._turn:
            version = await self._keys.audit.find_newest()
            if version == self._version:
                return
            rows = await self._keys.list_good(time.time())
            self._found = {secret.prefix: (secret, key, _to_caller(key)) for secret, key in rows}
            self._by_id = {key.id: (key, caller) for _, key, caller in self._found.values()}
            self.requires_keys = self.requires_keys or bool(rows) or bool(await self._keys.list_keys(limit=1))
            self._version = version

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Read the keys, and look for changes until the end; raise `StoreError` if they cannot be read at first."""
        await self.refresh()
        task = asyncio.create_task(self._poll(), name="keys") if self._keys else None
        try:
            yield
        finally:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await LULLS.wait()
            try:
                await self.refresh()
            except StoreError as error:
                if not self._is_failing:  # once, not every two seconds for as long as it lasts
                    log.error("keys.read_failed", reason=str(error))
                self._is_failing = True
            else:
                self._is_failing = False


def _to_caller(key: KeyRow) -> Caller:
    return Caller(key.id, key.role, key.account_id, key.id, load_limits(key.limits))


KEY_DIRECTORY = web.AppKey("key_directory", KeyDirectory)
