"""Wrong keys: answers to an address that sends many are held back, so that keys cannot be tried quickly."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

FREE_TRIES = 5
"""Wrong keys of an address that are answered at once: people mistype."""
FORGET_S = 60.0
"""Time without a wrong key after which an address is as if new."""
DELAY_S = 1.0
MAX_HELD = 4
"""Answers held back for one address at once; what it sends beyond them is refused."""
MAX_ADDRESSES = 4096
"""Addresses that are remembered; the one that has been silent longest goes first."""


@dataclass(slots=True)
class _Address:
    wrong: int = 0
    last_at: float = field(default_factory=time.monotonic)
    held: int = 0


class WrongKeys:
    """Addresses that have sent wrong keys lately. Right keys are never slowed: others may share the address, behind a proxy."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._addresses)

    async def slow(self, remote: str | None) -> None:
        """Count a wrong key, and hold its answer back if its address has sent many; raise `HTTPTooManyRequests` beyond that."""
        address = self._find(_group(remote or ""))
        address.wrong += 1
        if address.wrong <= FREE_TRIES:
            return
        if address.held >= MAX_HELD:
            # Closed, so that a guesser pays for a new connection with each try.
            headers = {"Retry-After": f"{FORGET_S:.0f}", "Connection": "close"}
            raise web.HTTPTooManyRequests(text="too many wrong keys have come from this address", headers=headers)
        address.held += 1
        try:
            # Held in memory, so it must be bounded: above are those that are refused instead.
            await asyncio.sleep(DELAY_S)
        finally:
            address.held -= 1

    def _find(self, group: str) -> _Address:
        now = time.monotonic()
        found = self._addresses.pop(group, None)
        # One with held answers is kept: a new entry would count them from 0 and let as many more in.
        if found is None or (now - found.last_at > FORGET_S and not found.held):
            found = _Address()
        found.last_at = now
        self._addresses[group] = found
        if len(self._addresses) > MAX_ADDRESSES:
            # Bounded: a sender who changes addresses would otherwise fill the memory with them.
            self._addresses.popitem(last=False)
        return found


def _group(remote: str) -> str:
    # A network of IPv6 has more addresses than any table: its /64 counts as one.
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    return remote if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


WRONG_KEYS = web.AppKey("wrong_keys", WrongKeys)
