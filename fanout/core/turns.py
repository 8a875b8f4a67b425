"""Turns of the event loop between the steps in which aiohttp parses what a connection has brought.

Its parser takes whatever the socket gave, up to 256 KiB. Of a body in chunks of a byte each, all of that in one step would hold
the event loop for 30 ms. It stops by itself once as many chunks wait as `READ_BYTES` allows, but goes on within the very read
that makes room, so that a reader in a loop gives nobody else a turn.
"""

from __future__ import annotations

from aiohttp.base_protocol import BaseProtocol

READ_BYTES = 8 * 1024
"""aiohttp's `read_bufsize` of every connection: the parser stops at a sixteenth of it in chunks, some 0.4 ms of work."""


class TurnTaking(BaseProtocol):
    """A protocol of aiohttp's that parses the rest of what it has received in a step of its own."""

    __slots__ = ()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on parsing in the loop's next round, and receiving after that."""
        # aiohttp calls this for each chunk that is read while few are left, whether or not reading is paused.
        if not self._reading_paused:
            return
        if not resume_parser:
            super().resume_reading(resume_parser=False)
            return
        self._reading_paused = False
        self._loop.call_soon(self._parse_rest)

    def _parse_rest(self) -> None:
        if self.transport is not None and not self._reading_paused:
            super().resume_reading()
