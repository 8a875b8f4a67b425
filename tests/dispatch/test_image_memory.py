"""Images and large requests through the Dispatcher: fetched once, within bounds, and without holding up anything else."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fanout.api import build_request
from fanout.config.settings import load_settings
from fanout.core.messages import ImagePart, Message
from fanout.core.schema import Call, Completion, Failure, Outcome
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.limits.shared_capacity import SharedCapacity
from fanout.providers.transport import http, images
from fanout.providers.transport.json_provider import InliningProvider
from fanout.providers.transport.request import BODIES
from fanout.providers.transport.resolver import DedicatedResolver
from tests.support.builders.dispatcher import open_observed_dispatcher
from tests.support.builders.settings import write_providers_file
from tests.support.timing import timed
from tests.support.upstream.canned import CannedServer, serve_answers

PNG = b"\x89PNG\r\n\x1a\n"
ANSWER = {"model": "m", "message": {"role": "assistant", "content": "A cat"}, "done": True, "done_reason": "stop"}


@asynccontextmanager
async def open_seeing_dispatcher(folder: Path, **environ: str) -> AsyncGenerator[tuple[Dispatcher, CannedServer]]:
    """Open a dispatcher whose provider takes only the bytes of images, and their server: `/300000` has so many bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.json_response(ANSWER)
        await asyncio.sleep(0.05)
        return web.Response(body=PNG + bytes(int(request.path.rpartition("/")[2])))

    async with serve_answers(answer) as served:
        row: Any = {"adapter": "ollama", "limits": {"concurrency": 64}, "retries": {"attempts": 2, "max_delay_s": 0.02}}
        settings = load_settings(write_providers_file(served.url, folder, **row), environ)
        async with open_dispatcher(settings) as dispatcher:
            provider = dispatcher.upstreams.find_provider(dispatcher.plan(build_request("Hi", "up/m"))[0].target)
            assert isinstance(provider, InliningProvider)
            provider.allowed_networks = [ip_network("127.0.0.1/32")]
            yield dispatcher, served


@pytest.fixture(autouse=True)
def nothing_is_held_in_the_end() -> Iterator[None]:
    gc.collect()
    held, sent = images.HELD_BYTES.used, BODIES.used  # of other tests in this process whose calls are still referenced
    yield
    gc.collect()
    assert images.HELD_BYTES.used <= held
    assert BODIES.used <= sent


def plan(dispatcher: Dispatcher, models: Any, *urls: str, **sampling: Any) -> list[Call]:
    """Return the calls of a request that shows images to models."""
    messages = (Message("user", tuple(ImagePart(url) for url in urls)),)
    request = build_request("", models, **sampling)
    return dispatcher.plan(replace(request, prompts=(), messages=messages))


def list_fetched(served: CannedServer) -> list[str]:
    return [path for path, headers, _ in served.requests if "Content-Type" not in headers]


def list_failures(outcomes: list[Outcome]) -> list[Failure]:
    return [outcome.result for outcome in outcomes if isinstance(outcome.result, Failure)]


async def test_an_image_is_fetched_once_for_all_calls_of_a_request(tmp_path: Path) -> None:
    """Samples, entries with parameters of their own, whole or streamed, at once or one after another."""
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        models = ["up/m", {"model": "up/n", "temperature": 0.5}, {"model": "up/o", "max_tokens": 9}]
        calls = plan(dispatcher, models, f"{served.url}/1", f"{served.url}/2", n=5)
        outcomes = await dispatcher.run(calls[:10], deadline_s=10)
        streamed = [piece async for piece in dispatcher.stream(calls[10:], deadline_s=10)]
        assert len(calls) == 15
        assert not list_failures(outcomes)
        assert [piece for piece in streamed if isinstance(piece, Outcome) and isinstance(piece.result, Completion)]
        assert sorted(list_fetched(served)) == ["/1", "/2"]
        sent = [json.loads(body)["messages"][0]["images"] for _, _, body in served.requests if body]
        assert len(sent) == 15
        assert all(images == sent[0] for images in sent)
        # Another request fetches again: what a caller may see is not another's business.
        await dispatcher.run(plan(dispatcher, "up/m", f"{served.url}/1"), deadline_s=10)
        assert sorted(list_fetched(served)) == ["/1", "/1", "/2"]


async def test_an_image_that_cannot_be_had_is_asked_for_once(tmp_path: Path) -> None:
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        outcomes = await dispatcher.run(plan(dispatcher, "up/m", f"{served.url}/none", n=6), deadline_s=10)
    assert [failure.code for failure in list_failures(outcomes)] == ["invalid_image"] * 6
    assert list_fetched(served) == ["/none"]


async def test_the_images_of_a_request_have_a_bound_together(tmp_path: Path) -> None:
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        urls = [f"{served.url}/{number}/9000000" for number in range(4)]
        outcomes = await dispatcher.run(plan(dispatcher, "up/m", *urls, n=3), deadline_s=20)
        assert {failure.message for failure in list_failures(outcomes)} == {
            "the images of the request have over 33,554,432 bytes together"
        }
        assert len(list_failures(outcomes)) == 3


async def test_the_images_of_all_requests_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that finds no room fails in words of ours and may be tried again; when the others are gone it is answered."""
    monkeypatch.setattr(images, "HELD_BYTES", SharedCapacity(400_000))
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        first = plan(dispatcher, "up/m", f"{served.url}/300000")
        assert not list_failures(await dispatcher.run(first, deadline_s=10))
        second = plan(dispatcher, "up/m", f"{served.url}/200000")
        (failure,) = list_failures(await dispatcher.run(second, deadline_s=10))
        assert (failure.kind, failure.code) == ("rate_limit", "images_busy")
        del first
        gc.collect()
        assert not list_failures(await dispatcher.run(second, deadline_s=10))
        del second, failure


async def test_a_caller_that_leaves_ends_the_fetching(tmp_path: Path) -> None:
    started = asyncio.Event()
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            gone.set()
        return web.Response()

    async with open_seeing_dispatcher(tmp_path) as (dispatcher, _), serve_slowly(answer) as url:
        task = asyncio.create_task(dispatcher.run(plan(dispatcher, "up/m", url, n=4), deadline_s=30))
        await asyncio.wait_for(started.wait(), 5)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 5)


@asynccontextmanager
async def serve_slowly(answer: Any) -> AsyncGenerator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/1"
    finally:
        await runner.cleanup()


async def test_fetching_can_be_switched_off(tmp_path: Path) -> None:
    """The sentence says by what, and what to do; images in the request itself are sent all the same."""
    async with open_seeing_dispatcher(tmp_path, FANOUT_FETCH_IMAGES="off") as (dispatcher, served):
        (failure,) = list_failures(await dispatcher.run(plan(dispatcher, "up/m", f"{served.url}/1"), deadline_s=10))
        assert "FANOUT_FETCH_IMAGES=off" in failure.message
        assert "data: URL" in failure.message
        assert served.requests == []
        data = "data:image/png;base64,iVBORw0KGgo="
        assert not list_failures(await dispatcher.run(plan(dispatcher, "up/m", data), deadline_s=10))


class SilentNames:
    """Look-ups under `slow.example`, whose servers do not answer before `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release, self.running, self.most = threading.Event(), 0, 0
        self._lock, self._getaddrinfo = threading.Lock(), socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, *more: Any, **options: Any) -> Any:
        if not str(host).endswith(".slow.example"):
            return self._getaddrinfo(host, *more, **options)
        self._count(1)
        self.release.wait(30)
        self._count(-1)
        raise socket.gaierror(-2, "no such name")

    def _count(self, change: int) -> None:
        with self._lock:
            self.running += change
            self.most = max(self.most, self.running)

    async def wait_for(self, number: int) -> None:
        """Wait until so many look-ups run."""
        async with asyncio.timeout(20):
            while self.running < number:
                await asyncio.sleep(0.01)


def name_silently(request: int) -> list[str]:
    return [f"http://name-{request}-{number}.slow.example/x" for number in range(20)]


@timed
async def test_names_that_do_not_resolve_hold_up_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the threads that read files, nor the look-ups of the providers' own names."""
    silent = SilentNames(monkeypatch)
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        plans = [plan(dispatcher, "up/m", *name_silently(request)) for request in range(4)]
        stuck = [asyncio.create_task(dispatcher.run(calls, deadline_s=30)) for calls in plans]
        try:
            await silent.wait_for(images.MAX_ACCOUNT_LOOKUPS)
            began = time.monotonic()
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40)))
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            named = served.url.replace("127.0.0.1", "localhost")
            async with open_observed_dispatcher(named, tmp_path, adapter="ollama") as other:
                assert not list_failures(await other.run("up/m"))
            assert time.monotonic() - began < 3
        finally:
            silent.release.set()
            await asyncio.gather(*stuck)
    assert silent.most == images.MAX_ACCOUNT_LOOKUPS


async def test_names_that_do_not_resolve_hold_up_only_whose_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's own images wait; another request's are found, and another account's whatever the requests of one do."""
    silent = SilentNames(monkeypatch)
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        image = served.url.replace("127.0.0.1", "localhost") + "/1000"

        def plan_for(account: str, *urls: str) -> list[Call]:
            return [replace(call, account_id=account) for call in plan(dispatcher, "up/m", *urls)]

        stuck = [asyncio.create_task(dispatcher.run(plan_for("one", *name_silently(0)), deadline_s=30))]
        try:
            await silent.wait_for(images.MAX_REQUEST_LOOKUPS)
            assert not list_failures(await dispatcher.run(plan_for("one", image), deadline_s=30))
            assert silent.running == images.MAX_REQUEST_LOOKUPS
            plans = [plan_for("one", *name_silently(request)) for request in range(1, 10)]
            stuck += [asyncio.create_task(dispatcher.run(calls, deadline_s=30)) for calls in plans]
            await silent.wait_for(images.MAX_ACCOUNT_LOOKUPS)
            assert not list_failures(await dispatcher.run(plan_for("two", image), deadline_s=30))
            assert silent.running == images.MAX_ACCOUNT_LOOKUPS
        finally:
            silent.release.set()
            await asyncio.gather(*stuck)


async def test_the_names_of_many_accounts_hold_up_no_other_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of them keeps every shared place: an account has some of its own."""
    silent = SilentNames(monkeypatch)
    async with open_seeing_dispatcher(tmp_path) as (dispatcher, served):
        image = served.url.replace("127.0.0.1", "localhost") + "/1000"

        def start(account: str, *urls: str) -> asyncio.Task[Any]:
            calls = [replace(call, account_id=account) for call in plan(dispatcher, "up/m", *urls)]
            return asyncio.create_task(dispatcher.run(calls, deadline_s=30))

        stuck = [start(f"bad-{number % 5}", *name_silently(number)) for number in range(20)]
        try:
            await silent.wait_for(5 * images.MAX_ACCOUNT_LOOKUPS)  # all shared places, and some of their own
            outcomes = await asyncio.gather(*(start("good", image) for _ in range(2 * images.OWN_LOOKUPS)))
            assert not [failure for outcome in outcomes for failure in list_failures(outcome)]
            assert silent.running == 5 * images.MAX_ACCOUNT_LOOKUPS > images.MAX_SHARED_LOOKUPS
        finally:
            silent.release.set()
            await asyncio.gather(*stuck)
        assert not list_failures(await start("bad-0", image))


def test_look_ups_that_outlast_their_loop_take_no_place_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may call `asyncio.run` many times."""
    silent = SilentNames(monkeypatch)

    async def leave(count: int) -> None:
        async with open_seeing_dispatcher(tmp_path) as (dispatcher, _):
            calls = plan(dispatcher, "up/m", *name_silently(0))
            leaving = asyncio.create_task(dispatcher.run(calls, deadline_s=30))
            await silent.wait_for(count)
            leaving.cancel()
            await asyncio.wait([leaving])

    try:
        for number in range(1, images.MAX_SHARED_LOOKUPS // images.MAX_REQUEST_LOOKUPS + 2):
            asyncio.run(leave(number * images.MAX_REQUEST_LOOKUPS))
    finally:
        silent.release.set()


async def test_a_look_up_without_a_thread_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    places = SharedCapacity(1)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OSError, match="new thread"):
            await DedicatedResolver([places]).resolve("localhost")
    assert places.used == 0
    assert await DedicatedResolver([places]).resolve("localhost")


async def test_large_requests_take_turns_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt to many models is encoded for each; all of them are answered."""
    monkeypatch.setattr(http, "BODIES", SharedCapacity(3_100_000))
    now, most = 0, 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await request.read()
        await asyncio.sleep(0.02)
        now -= 1
        return web.json_response(ANSWER)

    async with serve_answers(answer) as served, open_observed_dispatcher(served.url, tmp_path, adapter="ollama") as opened:
        calls = opened.dispatcher.plan(build_request("x" * 1_000_000, "up/m", n=9))
        assert not list_failures(await opened.dispatcher.run(calls, deadline_s=30))
        small = opened.dispatcher.plan(build_request("x" * 1_000, "up/m", n=9))
        assert (most, len(served.requests)) == (3, 9)
        assert not list_failures(await opened.dispatcher.run(small, deadline_s=30))
    assert most == 9
