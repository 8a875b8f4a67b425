"""A network that falls silent: a proxy that stops forwarding, and resets or closes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


class SilentNetwork:
    """A TCP proxy. While `is_silent` it accepts connections and bytes as before, and passes on none."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.is_silent = False
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._writers.append(writer)
        self._start(self._connect(reader, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.is_silent:
            await asyncio.sleep(0.05)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.append(there_writer)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            self._start(self._forward(source, sink))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                while self.is_silent:  # held, not lost: TCP would send it again
                    await asyncio.sleep(0.05)
                sink.write(data)
                await sink.drain()
            while self.is_silent:
                await asyncio.sleep(0.05)
        sink.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def open_silent_network(target_port: int) -> AsyncGenerator[SilentNetwork]:
    """Open a proxy to a port of this machine."""
    network = SilentNetwork(target_port)
    server = await asyncio.start_server(network.serve, "127.0.0.1", 0)
    network.port = server.sockets[0].getsockname()[1]
    try:
        yield network
    finally:
        server.close()
        network.close()
