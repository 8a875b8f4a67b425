"""Images whose addresses stand in a request, fetched for providers that take only their bytes.

A caller chooses their number and size, so their memory has bounds: each image is fetched once for all calls of a request, and
what a request and the process hold of them is counted as it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from weakref import WeakKeyDictionary, WeakValueDictionary

from fanout.core.errors import ProviderError
from fanout.core.messages import Content, ImagePart
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Failure, RequestScope
from fanout.core.threads import run_in_thread
from fanout.limits.shared_capacity import SharedCapacity
from fanout.providers.mapping.data_urls import image_error, images_error, is_data_url
from fanout.providers.transport.image_download import fetch_image
from fanout.providers.transport.public_addresses import Network
from fanout.providers.transport.resolver import Places

MAX_IMAGES = 20
"""In one call. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ImageBlock.html"""
MAX_REQUEST_BYTES = 32 * 2**20
"""Of all images that are fetched for one request: as many as a request may hold itself."""
HELD_BYTES = SharedCapacity(256 * 2**20)
"""Of the images that are fetched for all running requests of the process."""
MAX_REQUEST_LOOKUPS = 4
MAX_ACCOUNT_LOOKUPS = 16
"""Look-ups at once for the images of one account, which alone waits where its names do not resolve."""
MAX_SHARED_LOOKUPS = 64
"""For all accounts; a look-up of a name whose servers are silent keeps its place until the system gives it up."""
OWN_LOOKUPS = 4
"""That an account has even while others' names keep all shared places."""
MAX_LOOKUPS = 512
"""Shared ones and own ones together, each of them a thread: callers without keys may name any number of accounts."""
NO_ROOM = Failure("rate_limit", "no memory is free for images of requests now; try again later", code="images_busy")


class AccountPlaces:
    """Places for look-ups of one account: shared ones while some are free, else its own, of which no other account takes one.

    Args:
        shared: the places of all accounts.
    """

    def __init__(self, shared: SharedCapacity) -> None:
        self._all, self._own, self._shared = SharedCapacity(MAX_ACCOUNT_LOOKUPS), SharedCapacity(OWN_LOOKUPS), shared

    async def take(self, units: int) -> None:
        """Take places once they are free; only for its own ones does an account wait."""
        await self._all.take(units)
        if not self._shared.take_now(units):
            try:
                await self._own.take(units)
            except asyncio.CancelledError:
                self._all.give_back(units)
                raise

    def give_back(self, units: int) -> None:
        """Give places back, its own ones first: it may be waiting for these."""
        (self._own if self._own.used else self._shared).give_back(units)
        self._all.give_back(units)


class LookupPlaces:
    """Places for look-ups of images' hosts, of one event loop: a look-up that outlasts its loop never gives its place back."""

    def __init__(self) -> None:
        self._shared, self._all = SharedCapacity(MAX_SHARED_LOOKUPS), SharedCapacity(MAX_LOOKUPS)
        self._by_account: WeakValueDictionary[str | None, AccountPlaces] = WeakValueDictionary()

    def list_for_request(self, account_id: str | None) -> tuple[Places, ...]:
        """Return what each look-up for a request takes a place of: the request, its account, all."""
        of_account = self._by_account.setdefault(account_id, AccountPlaces(self._shared))
        return SharedCapacity(MAX_REQUEST_LOOKUPS), of_account, self._all


_LOOKUP_PLACES: WeakKeyDictionary[asyncio.AbstractEventLoop, LookupPlaces] = WeakKeyDictionary()
_IMAGES: WeakKeyDictionary[RequestScope, RequestImages] = WeakKeyDictionary()
"""The images of each running request; they go when its last call does."""


async def inline_images(call: Call, *, is_allowed: bool = True, allowed: Collection[Network] = ()) -> Call:
    """Return the call with data: URLs in the place of all its images' addresses.

    Args:
        call: whose messages may hold images.
        is_allowed: whether images may be fetched at all.
        allowed: networks that may be fetched from although they are not public. For tests.

    Raises:
        ProviderError: `bad_request`, `param` being `images`; `rate_limit` where the process holds too many.
    """
    if not measure_query(call.query).images:
        return call
    messages = call.query.messages or ()
    urls = dict.fromkeys(part.url for message in messages for part in _list_images(message.content))
    if len(urls) > MAX_IMAGES:
        raise images_error(f"the request has {len(urls)} images; at most {MAX_IMAGES} are allowed")
    to_fetch = [url for url in urls if not is_data_url(url)]
    if not to_fetch:
        return call
    if not is_allowed:
        raise image_error("is an address, and none is fetched here (FANOUT_FETCH_IMAGES=off); send it as a data: URL")
    images = _IMAGES.setdefault(call.scope, RequestImages(call.account_id))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {url: group.create_task(images.get(url, allowed)) for url in to_fetch}
    except BaseExceptionGroup as failures:  # the first that failed ended the others
        raise failures.exceptions[0] from None
    data_urls = {url: task.result() for url, task in tasks.items()}
    messages = tuple(replace(message, content=_replace_urls(message.content, data_urls)) for message in messages)
    return replace(call, query=replace(call.query, messages=messages, size=None))


class RequestImages:
    """The images of one request, each fetched once, for all of its calls."""

    def __init__(self, account_id: str | None) -> None:
        places = _LOOKUP_PLACES.setdefault(asyncio.get_running_loop(), LookupPlaces())
        self._lookups = places.list_for_request(account_id)
        self._capacity = HELD_BYTES
        self._held = 0
        self._fetches: dict[str, asyncio.Task[str]] = {}
        self._waiting: dict[asyncio.Task[str], int] = {}

    def __del__(self) -> None:
        self._capacity.give_back(self._held)

    async def get(self, url: str, allowed: Collection[Network]) -> str:
        """Return an image as a data: URL; raise `ProviderError` if it cannot be had, as for every call that wants it."""
        task = self._fetches.get(url)
        if task is None:
            task = self._fetches[url] = asyncio.create_task(self._fetch(url, allowed), name="image")
        self._waiting[task] = self._waiting.get(task, 0) + 1
        try:
            return await asyncio.shield(task)
        except ProviderError as error:
            raise ProviderError(error.failure) from None  # one of its own for each call: they are raised side by side
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]
                if not task.done():  # nobody wants it any more
                    task.cancel()
                    del self._fetches[url]

    async def _fetch(self, url: str, allowed: Collection[Network]) -> str:
        took = 0

        def take(size: int) -> None:
            nonlocal took
            if self._held + size > MAX_REQUEST_BYTES:
                raise images_error(f"the images of the request have over {MAX_REQUEST_BYTES:,} bytes together")
            if not self._capacity.take_now(size):
                del self._fetches[url]  # another attempt may find room
                raise ProviderError(NO_ROOM)
            self._held += size
            took += size

        try:
            image = await fetch_image(url, allowed=allowed, on_bytes=take, lookups=self._lookups)
            return await run_in_thread("calls", lambda: image.url)  # base64 of some megabytes takes some milliseconds
        except BaseException:
            self._held -= took
            self._capacity.give_back(took)
            raise


def _list_images(content: Content | None) -> list[ImagePart]:
    return [part for part in content if isinstance(part, ImagePart)] if isinstance(content, tuple) else []


def _replace_urls(content: Content | None, data_urls: dict[str, str]) -> Content | None:
    if not isinstance(content, tuple):
        return content
    return tuple(
        replace(part, url=data_urls.get(part.url, part.url)) if isinstance(part, ImagePart) else part for part in content
    )
