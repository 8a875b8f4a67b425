"""The HTTP server: its routes, its start and its end."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext, suppress
from operator import attrgetter
from weakref import WeakValueDictionary

from aiohttp import web

from fanout.config.environment import DRAIN_S
from fanout.config.settings import Settings, load_settings
from fanout.core.errors import StoppingError
from fanout.core.sockets import raise_file_limit
from fanout.core.threads import run_in_thread
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.observability.account_health import RecentCalls
from fanout.observability.logs import log
from fanout.observability.metrics import Metrics
from fanout.providers import import_adapters
from fanout.requests.repeated_bodies import RepeatedBodies
from fanout.server.accounts import admission
from fanout.server.accounts.admission import KEY_LEDGER
from fanout.server.accounts.directory import KEY_DIRECTORY, KeyDirectory
from fanout.server.accounts.ledger import KeyLedger
from fanout.server.accounts.quotas import QUOTA_TURNS
from fanout.server.afterwork import AFTERWORK, Afterwork
from fanout.server.connections import WAIT_LIMITS, BoundedRunner, WaitLimits, count_connections, log_accept_errors
from fanout.server.dialects.thiggle import completion as thiggle
from fanout.server.job_running import ROLE, run_jobs
from fanout.server.lifecycle import (
    ACCOUNT_HEALTH,
    BATCH_WORKER,
    DISPATCHER,
    FORWARD,
    HOLD_TURN,
    JOB_MANAGER,
    LIFECYCLE,
    METRICS,
    PRESENCE,
    STORE,
    Lifecycle,
)
from fanout.server.listening import Site, listen, write_address
from fanout.server.live_comparisons import LIVE_COMPARISONS, LiveComparisons
from fanout.server.middleware import history, idempotency, request, request_log
from fanout.server.middleware.wrong_keys import WRONG_KEYS, WrongKeys
from fanout.server.openapi.endpoint import Endpoint, Handler
from fanout.server.reloading import RELOADER, Load, Reloader, check_access, handle_hangup
from fanout.server.request_body import REPEATED_BODIES
from fanout.server.resources import health
from fanout.server.resources.report_turns import REPORT_TURNS, ReportTurns
from fanout.server.role import SERVER, Role
from fanout.server.routes import ROUTES, Routes
from fanout.server.workers.peers import PEERS, Peers
from fanout.server.workers.seat import Orders, Seat
from fanout.server.workers.turns import hold_turn
from fanout.store.engine.database import CLOSE_TIMEOUT_S
from fanout.store.keys.counts import KeyCountStore
from fanout.store.opening import MEMORY, open_store

SETTINGS = web.AppKey("settings", Settings)
STOP = web.AppKey("stop", asyncio.Event)
"""Set by a signal. Absent where no signal is watched for."""
HOST = web.AppKey[str | None]("host", str)
FIRST_ENDPOINTS = (*thiggle.ENDPOINTS, *health.ENDPOINTS)
"""Comparisons, which are what a server is for, and its own state: no start waits for the others."""
LOOPBACK = "127.0.0.1"
SWITCH_INTERVAL_S = 0.0005
"""Time after which a thread that works gives way to the event loop: by default Python waits ten times as long."""
CANCELLED_GRACE_S = 2.0
"""Time in which cancelled requests may still be answered."""
CONNECTION_GRACE_S = 0.5
"""Time that aiohttp waits, twice, for connections whose clients have stopped reading."""


def create_app(
    settings: Settings,
    wait_limits: WaitLimits | None = None,
    *,
    host: str | None = None,
    load: Load = load_settings,
    role: Role = SERVER,
    seat: Seat | None = None,
) -> web.Application:
    """Return the application, which opens what it needs at startup and closes it at cleanup.

    Args:
        settings: the configuration at the start.
        wait_limits: bounds on waiting for clients.
        host: address that it will listen on; its startup raises `ConfigError` if it may not: see `check_access`.
        load: reads the configuration for a reload.
        role: what the process does for its store; a worker has the endpoints of its health alone.
        seat: its place among several workers.
    """
    app = web.Application(middlewares=[request.handle_request])
    app[SETTINGS], app[HOST], app[ROLE] = settings, host, role
    app[METRICS] = Metrics()
    app[ACCOUNT_HEALTH] = RecentCalls()
    app[LIFECYCLE] = Lifecycle()
    app[WAIT_LIMITS] = wait_limits or WaitLimits()
    app[AFTERWORK] = Afterwork()
    app[WRONG_KEYS] = WrongKeys()
    app[REPEATED_BODIES] = RepeatedBodies()
    app[QUOTA_TURNS] = WeakValueDictionary()
    app[REPORT_TURNS] = ReportTurns()
    app[RELOADER] = Reloader(app, load, host or LOOPBACK)
    wrap: Callable[[Endpoint], Handler] = attrgetter("handler")
    if seat:
        from fanout.server.workers.routing import send_to_owner as wrap

        app[PEERS] = peers = Peers(seat, app)
        app[FORWARD] = peers.forward_by_scope
        folder = seat.folder
        app[HOLD_TURN] = lambda name: hold_turn(folder, name)
    # The store opens first and closes last, so that it counts calls that end while the dispatcher closes.
    app.cleanup_ctx.extend([_run_store, _run_dispatcher, run_jobs, _run_live_comparisons, _run_peers])
    app.on_response_prepare.append(request.add_headers)
    first, import_all = (FIRST_ENDPOINTS, import_endpoints) if role.kind == "serve" else (health.ENDPOINTS, None)
    app[ROUTES] = Routes(app.router, first, import_all, wrap)
    return app


def import_endpoints() -> tuple[Endpoint, ...]:
    """Import and return all endpoints of a server."""
    from fanout.server.endpoints import ENDPOINTS

    return ENDPOINTS


async def _run_store(app: web.Application) -> AsyncIterator[None]:
    environment = app[SETTINGS].environment
    location = environment.store.get_secret_value() if environment.store else MEMORY
    peers = app.get(PEERS)
    async with open_store(
        location,
        history=environment.history,
        history_days=environment.history_days,
        usage_days=environment.usage_days,
        deletes_old=peers is None or peers.seat.is_leader,
        shares_limits=True if app[ROLE].shares_store else None,
        stop=app.get(STOP),
    ) as store:
        if store:
            app[STORE] = store
        requests = idempotency.IdempotentRequests(store.idempotency if store else None)
        app[idempotency.IDEMPOTENCY] = requests
        app[KEY_DIRECTORY] = directory = KeyDirectory(store.keys if store else None)
        if store:
            app[KEY_LEDGER] = KeyLedger(KeyCountStore(store.database), store.name)
        ledger = app[KEY_LEDGER].running() if store else nullcontext()
        async with requests.running(), directory.running(), ledger:
            # Before any job is run, and not before the keys are known.
            if (host := app[HOST]) is not None:
                check_access(app[SETTINGS], host, has_stored_keys=directory.requires_keys)
            yield


async def _run_dispatcher(app: web.Application) -> AsyncIterator[None]:
    metrics, afterwork = app[METRICS], app[AFTERWORK]
    stores = [app[STORE].observe] if STORE in app else []
    afterwork.observers = (metrics.observe, app[ACCOUNT_HEALTH].observe, *stores)
    observers = [history.collect_outcome, request_log.log_retry, admission.observe, afterwork.observe]
    sharing = app[STORE].limits if STORE in app else None
    async with open_dispatcher(app[SETTINGS], observers, is_serving=True, sharing=sharing) as dispatcher:
        app[DISPATCHER] = dispatcher
        metrics.expect(dispatcher.catalogue)
        metrics.limiters = lambda: ((limiter.name, limiter.snapshot()) for limiter in dispatcher.limiters)
        await dispatcher.prepare()
        app[LIFECYCLE].is_ready = True
        yield
        await app[RELOADER].close()
    afterwork.finish()


async def _run_live_comparisons(app: web.Application) -> AsyncIterator[None]:
    app[LIVE_COMPARISONS] = live = LiveComparisons()
    async with live.running():
        yield


async def _run_peers(app: web.Application) -> AsyncIterator[None]:
    async with app[PEERS].running() if PEERS in app else nullcontext():
        yield


def make_runner(app: web.Application, shutdown_timeout_s: float) -> web.AppRunner:
    """Return what runs the application, with our limits on connections."""
    max_connections = count_connections(app[SETTINGS].environment.max_connections)
    return BoundedRunner(app, max_connections, shutdown_timeout=shutdown_timeout_s)


async def serve(
    settings: Settings,
    host: str,
    port: int | None,
    on_started: Callable[[str], None],
    load: Load = load_settings,
    role: Role = SERVER,
    seat: Seat | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing new, and give running requests the grace period to finish.

    SIGHUP reloads the configuration, or ends a server whose terminal has gone.

    Args:
        settings: the configuration.
        host: address to listen on.
        port: port to listen on; 0 takes a free one, and with `None`, which a worker may have, there is none.
        on_started: called with the server's address once it accepts requests; empty if it listens nowhere.
        load: reads the configuration for a reload.
        role: what the process does for its store.
        seat: its place among several workers, whose supervisor has the port and receives the signals.

    Raises:
        ConfigError: see `check_access`.
        ListenError: the address cannot be listened on.
    """
    raise_file_limit()
    app = create_app(settings, host=None if port is None else host, load=load, role=role, seat=seat)
    runner = make_runner(app, CONNECTION_GRACE_S)
    app[STOP] = stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    log_accept_errors(loop)
    received: list[signal.Signals] = []

    def note(number: signal.Signals) -> None:
        received.append(number)
        stop.set()

    if seat:
        Orders(seat, note, app[RELOADER].reload_by_signal).listen()
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, note, number)
        handle_hangup(app[RELOADER], note)
    try:
        await runner.setup()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if seat:
            sites = await app[PEERS].open_sites(runner)
        else:
            sites = [] if port is None else [await listen(runner, host, port)]
        on_started(write_address(host, runner.addresses[0][1]) if sites else "")
        await _load_rest(app)
        gc.freeze()  # most present objects live until the process ends: looking through them costs 10 to 25 % CPU
        gc.enable()  # `fanout serve` has disabled it for its start
        await stop.wait()
        stop.clear()
        app[LIFECYCLE].is_draining = True
        if PRESENCE in app:
            app[PRESENCE].drain()
        if received[0] != signal.SIGINT:  # from a person at a terminal, who has no load balancer
            with suppress(TimeoutError):  # a second signal ends it
                await asyncio.wait_for(stop.wait(), _find_drain_s(app))
        await _wind_down(app, sites)
    except StoppingError:  # while it waited for its store
        log.info("server.stopping", requests=0)
    finally:
        await runner.cleanup()


async def _load_rest(app: web.Application) -> None:
    """Load what no server needs in order to listen; a request that needs it sooner waits for it."""
    app[DISPATCHER].upstreams.load_prices()
    # Perhaps no file may be opened just now: the first request that needs what is missing tries again.
    try:
        await app[ROUTES].complete()
    except OSError as error:
        log.warning("endpoints.import_failed", error=str(error))
    # Batches, and their jobs, need what has been imported.
    if BATCH_WORKER in app:
        app[BATCH_WORKER].notify()
        app[JOB_MANAGER].supervisor.notify()
    try:
        await run_in_thread("setup", import_adapters)
    except (OSError, ImportError) as error:
        log.warning("adapters.import_failed", error=str(error))


def _find_drain_s(app: web.Application) -> float:
    if app[ROLE].kind == "worker":  # no load balancer sends it anything, and others may have its work at once
        return 0.0
    drain_s = app[DISPATCHER].settings.environment.drain_s
    # With keys others call, perhaps through a load balancer: see FANOUT_DRAIN_S.
    return (DRAIN_S if app[KEY_DIRECTORY].requires_keys else 0.0) if drain_s is None else drain_s


async def _wind_down(app: web.Application, sites: Sequence[Site]) -> None:
    lifecycle, dispatcher = app[LIFECYCLE], app[DISPATCHER]
    lifecycle.is_stopping = True
    app[AFTERWORK].finish()  # lines of requests that were answered before stand before it
    log.info("server.stopping", requests=lifecycle.running_requests)
    manager = app.get(JOB_MANAGER)
    if manager:
        manager.stop_loading()
        manager.executor.leave()
    # No new connections from here on; requests that run keep theirs.
    for site in sites:
        await site.stop()
    with suppress(TimeoutError):
        async with asyncio.timeout(dispatcher.settings.environment.grace_s):
            await lifecycle.wait_until_idle()
            if manager:
                await manager.supervisor.wait_until_idle()
    dispatcher.stop()
    if STORE in app:  # a database that does not answer must not keep the process from ending
        app[STORE].database.give_up_after(CANCELLED_GRACE_S + CLOSE_TIMEOUT_S)
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCELLED_GRACE_S):
            await lifecycle.wait_until_idle()
