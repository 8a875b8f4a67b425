"""Reloading the configuration: all of it or nothing, without touching what runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from aiohttp import web

from fanout.config.changes import Changes
from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, Fault, StoreError
from fanout.core.threads import run_in_thread
from fanout.observability.logs import log
from fanout.rendering.configuration import ConfigurationJson, render_configuration
from fanout.server.accounts import changes
from fanout.server.accounts.directory import KEY_DIRECTORY
from fanout.server.lifecycle import DISPATCHER, METRICS
from fanout.server.middleware import auth

Load = Callable[[], Settings]
"""Reads the configuration as it was read at the start; raises `ConfigError`."""


def check_access(settings: Settings, host: str, *, has_stored_keys: bool = False) -> None:
    """Refuse to serve other machines, or every web page, while there are no keys.

    Raises:
        ConfigError: there is no key, and `host` is not loopback or every origin may call.
    """
    if settings.environment.api_keys or has_stored_keys:
        return
    if "*" in settings.environment.cors_origins:
        sentence = "is `*` without FANOUT_API_KEYS: any web page could spend your keys; set keys, or name the origins"
        raise ConfigError("environment", [Fault("FANOUT_CORS_ORIGINS", sentence)])
    if not auth.is_loopback(host):
        sentence = f"is not set: on `{host}` other machines could spend your keys; set it, or listen on 127.0.0.1"
        raise ConfigError("environment", [Fault("FANOUT_API_KEYS", sentence)])


class Reloader:
    """Reloads of one server's configuration, one after another."""

    def __init__(self, app: web.Application, load: Load, host: str) -> None:
        self._app, self._load, self._host = app, load, host
        self._reloading = asyncio.Lock()
        self._by_signal: set[asyncio.Task[None]] = set()
        self.spread: Callable[[Settings], Awaitable[None]] | None = None
        """Gives a configuration that was taken over to the other processes of this server."""

    async def reload(self, actor: str) -> ConfigurationJson:
        """Read the configuration and make new calls by it; those that are planned or run end under the old one.

        Args:
            actor: whoever wants it, for the audit table.

        Raises:
            ConfigError: with every fault; nothing has changed.
        """
        async with self._reloading:
            try:
                settings = await run_in_thread("setup", self._load)
                changed = await self._take(settings)
            except ConfigError as error:
                log.error("config.reload_failed", actor=actor, faults=str(error).splitlines())
                raise
            if self.spread:
                await self.spread(settings)
            answer = render_configuration(settings, changed)
            log.info("config.reloaded", actor=actor, **answer["changed"])
            try:
                await changes.record(self._app, "configuration.reloaded", actor, "configuration", {**answer["changed"]})
            except StoreError as error:  # a key that must be exchanged cannot wait for a database; the log has the change
                log.warning("config.record_failed", actor=actor, reason=str(error))
            return answer

    async def take(self, settings: Settings) -> None:
        """Take over a configuration that another process of this server has read; raise `ConfigError` if that fails."""
        async with self._reloading:
            await self._take(settings)

    async def _take(self, settings: Settings) -> Changes:
        dispatcher = self._app[DISPATCHER]
        check_access(settings, self._host, has_stored_keys=self._app[KEY_DIRECTORY].requires_keys)
        changed = Changes.between(dispatcher.settings, settings)
        changed.check()
        await dispatcher.reload(settings)
        self._app[METRICS].expect(dispatcher.catalogue)
        return changed

    def reload_by_signal(self) -> None:
        """Begin a reload, whose end is in the log."""
        task = asyncio.get_running_loop().create_task(self._reload_by_signal())
        self._by_signal.add(task)
        task.add_done_callback(self._by_signal.discard)

    async def _reload_by_signal(self) -> None:
        try:
            await self.reload("signal")
        except ConfigError:
            pass  # is in the log
        except Exception:
            log.exception("config.reload_crashed")

    async def close(self) -> None:
        """Give up what signals have begun."""
        for task in self._by_signal:
            task.cancel()
        await asyncio.gather(*self._by_signal, return_exceptions=True)


RELOADER = web.AppKey("reloader", Reloader)


def has_terminal() -> bool:
    """Return whether this process has a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def handle_hangup(reloader: Reloader, stop: Callable[[signal.Signals], None]) -> None:
    """Let SIGHUP reload the configuration, or end a server whose terminal has gone.

    Where SIGHUP is ignored, as `nohup` leaves it, it stays so.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    had_terminal = has_terminal()

    def receive() -> None:
        # The system sends it, too, when a window is closed: a server that went on would be found by nobody.
        if had_terminal and not has_terminal():
            stop(signal.SIGHUP)
        else:
            reloader.reload_by_signal()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, receive)
