"""`fanout serve` with its arguments, whose history and usage the signal SIGUSR1 switches off, and on again.

Two processes of the same program differ by more than a history costs, so one of both states is measured: see `whole.py`.
"""

from __future__ import annotations

import signal
from typing import Any

from aiohttp import web

from fanout.__main__ import main
from fanout.server import app as server_app
from fanout.server.afterwork import AFTERWORK
from fanout.server.lifecycle import STORE

create_app = server_app.create_app


def create_switched_app(*args: Any, **kwargs: Any) -> web.Application:
    """Create the server's app, and listen to the signal."""
    app = create_app(*args, **kwargs)
    signal.signal(signal.SIGUSR1, lambda *_: switch(app))
    return app


def switch(app: web.Application) -> None:
    """Have nothing of requests and calls kept from now on, or again all."""
    store, afterwork = app[STORE], app[AFTERWORK]
    others = tuple(observer for observer in afterwork.observers if observer != store.observe)
    is_off = store.history.mode == "off"
    store.history.mode = "usage" if is_off else "off"
    afterwork.observers = (*others, store.observe) if is_off else others


if __name__ == "__main__":
    server_app.create_app = create_switched_app
    main()
