"""The start of a server of several workers."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress

from fanout.config.settings import Settings
from fanout.core.authorities import load_authorities
from fanout.core.errors import ConfigError, Fault
from fanout.dispatch import pricing
from fanout.observability import logs
from fanout.providers import import_adapters
from fanout.server.app import import_endpoints
from fanout.server.listening import bind, write_address
from fanout.server.workers.seat import Seat
from fanout.server.workers.supervisor import Supervisor
from fanout.store.opening import MEMORY, OFF


def supervise(settings: Settings, host: str, port: int, on_started: Callable[[str], None]) -> Seat:
    """Bind the port, and start workers and replace them until a signal ends the server: see `Supervisor.run`.

    Args:
        settings: the configuration.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        on_started: called with the server's address, in the supervisor, once all workers serve.

    Raises:
        ConfigError: the store cannot be shared.
        ListenError: the address cannot be listened on.
    """
    environment = settings.environment
    check_store(settings)
    logs.configure(environment.log_level, environment.log_format, is_supervisor=True)
    listeners = bind(host, port, environment.workers)
    address = write_address(host, listeners[0][0].getsockname()[1])
    # What every worker needs is imported once, and is not looked through again, which would write to the shared memory.
    import_endpoints()
    import_adapters()
    pricing.load_prices()
    with suppress(OSError):  # then each worker reads them by itself
        load_authorities()
    gc.freeze()
    gc.enable()
    return Supervisor(settings, listeners, lambda: on_started(address)).run()


def check_store(settings: Settings) -> None:
    """Refuse a store that several processes cannot share; raise `ConfigError`."""
    environment = settings.environment
    location = environment.store.get_secret_value() if environment.store else MEMORY
    if location in (OFF, MEMORY):
        is_unset = "is not set, and there is no folder for it" if environment.store is None else f"is `{location}`"
        sentence = f"{is_unset}: {environment.workers} workers share a store; name a file or a PostgreSQL database"
        raise ConfigError("environment", [Fault("FANOUT_STORE", sentence)])
