"""A network between workers and their database that can be cut, and can be narrow: a TCP proxy, without `tc`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

PIECE_BYTES = 16_384


class Network:
    """A TCP proxy to a port of this machine.

    While `is_cut` it holds all bytes back and resets nothing, as a cable that was pulled does. `bytes_per_s` is the rate of
    each direction, over all connections; None has no bound.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.is_cut = False
        self.bytes_per_s: float | None = None
        self.passed_bytes = [0, 0]
        """To the target and back."""
        self._target_port = target_port
        self._free_at = [0.0, 0.0]
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._connect(reader, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._wait_while_cut()
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there_writer}
        self._start(self._forward(reader, there_writer, 0))
        self._start(self._forward(there_reader, writer, 1))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: int) -> None:
        with suppress(OSError):
            while data := await source.read(PIECE_BYTES):
                await self._take_turn(len(data), direction)
                await self._wait_while_cut()
                self.passed_bytes[direction] += len(data)
                sink.write(data)
                await sink.drain()
            await self._wait_while_cut()
        sink.close()
        self._writers.discard(sink)

    async def _wait_while_cut(self) -> None:
        while self.is_cut:
            await asyncio.sleep(0.02)

    async def _take_turn(self, size: int, direction: int) -> None:
        if self.bytes_per_s:
            now = asyncio.get_running_loop().time()
            self._free_at[direction] = max(self._free_at[direction], now) + size / self.bytes_per_s
            await asyncio.sleep(self._free_at[direction] - now)

    def reset(self) -> None:
        """Break every connection off; what was on its way is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def open_network(target_port: int) -> AsyncGenerator[Network]:
    network = Network(target_port)
    server = await asyncio.start_server(network.serve, "127.0.0.1", 0)
    network.port = server.sockets[0].getsockname()[1]
    try:
        yield network
    finally:
        server.close()
        network.close()
