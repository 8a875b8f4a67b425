"""A port for a server that cannot choose one itself."""

from __future__ import annotations

import random
import socket
from contextlib import closing, suppress


def find_free_port() -> int:
    """Return a free port, below those that systems assign themselves, so that no other test's server gets it meanwhile."""
    while True:
        port = random.randrange(10_000, 30_000)
        with closing(socket.socket()) as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port
