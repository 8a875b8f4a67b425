"""Jobs at a running server, asked over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import click

from fanout.cli.batch.backend import PREFIXES, Asked, Job, Seen, Which
from fanout.cli.batch.input import Input
from fanout.cli.client import Client, open_client
from fanout.core.errors import RequestError, ServerError
from fanout.core.faults import Fault
from fanout.jobs import output_files
from fanout.jobs.job import ENDED_STATES

PATIENCE_S = 60.0
"""How long a server that is gone may take to come back."""
TRY_AGAIN_S = 1.0
LOOK_S = 0.3
PAGE = 100
MOST_LOOKED_AT = 1_000
"""Jobs among which the one is looked for whose id begins so."""
ASKS = ("models", "repeats", "template", "system", "parameters", "strict_parameters", "cache", "name", "metadata")
"""Fields of a job that say what it asks."""
LINES_ALONE = "a server runs lines of OpenAI's batches through POST /v1/batches, which has no"


class ServerJobs:
    """Open them with `open_jobs`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._running: Job | None = None
        self._left = asyncio.Event()
        """The server is left alone with the job."""

    async def estimate(self, asked: Asked, source: Input) -> dict[str, Any]:
        if asked.endpoint:
            raise click.UsageError(f"{LINES_ALONE} --dry-run")
        body = {**_body(asked), "input_file_id": await self._upload(source), "dry_run": True}
        try:
            return await self._client.post("/v1/jobs", body)
        finally:
            await self._delete(body["input_file_id"])

    async def create(self, asked: Asked, source: Input) -> Job:
        body = _line_body(asked) if asked.endpoint else _body(asked)
        file = await self._upload(source)
        if asked.endpoint:
            return await self._batch({**body, "input_file_id": file})
        try:
            return await self._client.post("/v1/jobs", {**body, "input_file_id": file})
        except RequestError:
            await self._delete(file)
            raise

    async def _upload(self, source: Input) -> str:
        source.stream.seek(0)
        return await self._client.upload(source.stream, source.filename)

    async def _delete(self, file: str) -> None:
        await self._client.delete(f"/v1/files/{file}")

    async def _batch(self, body: Mapping[str, Any]) -> Job:
        """The job of a new batch, once its lines were found good.

        Raises:
            RequestError: with every line that was not.
        """
        made = await self._client.post("/v1/batches", body)
        while made["status"] == "validating":
            await asyncio.sleep(LOOK_S)
            made = await self._client.get(f"/v1/batches/{made['id']}")
        if job := await self.job(made["id"]):
            return job
        found = [
            Fault(": ".join(filter(None, (f"line {error['line']}" if error["line"] else "", error["param"]))), error["message"])
            for error in (made["errors"] or {"data": []})["data"]
        ]
        raise RequestError(found or [Fault("input", f"the batch is {made['status']}")])

    async def job(self, id: str) -> Job | None:
        try:
            return await self._client.get(f"/v1/jobs/{id}")
        except RequestError as error:
            if error.faults[0].kind == "job_not_found":
                return None
            raise

    async def begun(self, name: str) -> list[Job]:
        begins = tuple(prefix + name for prefix in PREFIXES)
        return [job for job in await self.listed(MOST_LOOKED_AT) if job["id"].startswith(begins)]

    async def listed(self, most: int, state: str | None = None) -> list[Job]:
        found: list[Job] = []
        more = True
        while more and len(found) < most:
            asked: dict[str, Any] = {"limit": min(most - len(found), PAGE)}
            asked |= {"state": state} if state else {}
            page = await self._client.get("/v1/jobs", **asked, **({"after": found[-1]["id"]} if found else {}))
            found += page["data"]
            more = page["has_more"]
        return found

    async def resume(self, job: Job, changes: Mapping[str, Any], source: Input | None, *, fork: bool) -> Job:
        """Raises:
        RequestError: its models or its input have changed: with every difference.
        """
        changed = await self._changed(job, source) if source else None
        if changed and source and fork:
            body = {name: job[name] for name in ASKS if job[name] not in (None, {})}
            file = await self._upload(source)
            return await self._client.post("/v1/jobs", {**body, **_written(changes), "input_file_id": file})
        if changed:
            raise RequestError([changed])
        return await self._client.post(f"/v1/jobs/{job['id']}/resume", {**_written(changes), "fork": fork})

    async def _changed(self, job: Job, source: Input) -> Fault | None:
        digest, file = hashlib.sha256(), job["input"].get("file")
        if file is None:
            raise RequestError([Fault("input", "the job's rows came in its request: leave INPUT out")])
        async for piece in self._client.download(f"/v1/files/{file}/content"):
            digest.update(piece)
        if digest.hexdigest() == source.sha256:
            return None
        was = f"`{job['input']['name']}` (sha256 {digest.hexdigest()[:12]}…)"
        return Fault("input", f"was {was}, is `{source.name}` (sha256 {source.sha256[:12]}…)", "changed")

    async def retry(self, job: Job, kinds: Sequence[str], changes: Mapping[str, Any]) -> Job:
        body = {**_written(changes), **({"kinds": list(kinds)} if kinds else {})}
        return await self._client.post(f"/v1/jobs/{job['id']}/retry", body)

    async def cancel(self, job: Job) -> Job:
        return await self._client.post(f"/v1/jobs/{job['id']}/cancel", {})

    async def labels(self, job: Job) -> Sequence[str]:
        return ()

    async def run(self, job: Job) -> AsyncGenerator[Seen]:
        """Raises:
        ServerError: the server has been gone for too long; the job goes on when it is back.
        """
        self._running = job
        async with aclosing(self.watch(job)) as moments:
            async for seen in moments:
                yield seen

    async def watch(self, job: Job) -> AsyncGenerator[Seen]:
        """As the server tells it; where that breaks off, it is asked again."""
        gone: float | None = None
        while not self._left.is_set():
            try:
                async for told in self._told(job["id"]):
                    job, gone = told, None
                    yield Seen(job)
                    if job["state"] in ENDED_STATES:
                        return
            except (aiohttp.ClientError, ServerError, TimeoutError) as error:
                gone = gone or time.monotonic()
                if time.monotonic() - gone > PATIENCE_S:
                    raise ServerError(f"the server is gone ({error}); the job goes on when it is back") from error
                yield Seen(job, [f"the server does not answer; it is asked again: {error}"])
            if not self._left.is_set():
                await asyncio.sleep(TRY_AGAIN_S)

    async def _told(self, id: str) -> AsyncGenerator[Job]:
        """The events, until the job is left."""
        async with aclosing(self._client.events(f"/v1/jobs/{id}/events")) as events:
            while True:
                coming = asyncio.ensure_future(anext(events, None))
                leaving = asyncio.ensure_future(self._left.wait())
                try:
                    await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    leaving.cancel()
                    if not coming.done():
                        coming.cancel()
                        await asyncio.gather(coming, return_exceptions=True)
                if coming.cancelled() or (job := coming.result()) is None:
                    return
                yield job

    async def stop(self) -> None:
        """What the server sends no more can be resumed."""
        if self._running:
            with suppress(RequestError):  # it has ended meanwhile
                await self.cancel(self._running)

    def cut(self) -> None:
        self._left.set()

    async def export(self, job: Job, output: str, format: str | None, which: Which) -> None:
        kind = output_files.choose_format(output, format)
        asked = {"failed": which.failed, "model": which.model, "kind": which.kind, "different": which.different or None}
        query = {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in asked.items() if value is not None
        }
        pieces = self._client.download(f"/v1/jobs/{job['id']}/results.{kind}", **query)
        async with aclosing(pieces):
            if output == "-":
                async for piece in pieces:
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                return
            with output_files.replace_file(Path(output)) as stream:
                async for piece in pieces:
                    stream.write(piece)


def _body(asked: Asked) -> dict[str, Any]:
    """What `POST /v1/jobs` takes, without its rows."""
    body = {
        "models": list(asked.models),
        "repeats": asked.repeats,
        "template": asked.template,
        "system": asked.system,
        "parameters": {**asked.parameters} or None,
        "strict_parameters": asked.strict,
        "cache": asked.cache,
        "name": asked.name,
        "metadata": {**asked.metadata} or None,
        **_written(asked.changes),
    }
    return {name: value for name, value in body.items() if value is not None}


def _line_body(asked: Asked) -> dict[str, Any]:
    """What `POST /v1/batches` takes, without its file.

    Raises:
        UsageError: something that it cannot say.
    """
    others = {name: value for name, value in asked.changes.items() if name != "deadline"}
    others |= {name: value for name, value in (("cache", asked.cache), ("name", asked.name)) if value}
    if others:
        options = {"max_cost_usd": "max-cost"}
        named = ", ".join(f"--{options.get(name, name)}" for name in others)
        raise click.UsageError(f"{LINES_ALONE} {named}")
    deadline = asked.changes.get("deadline")
    window = "24h" if deadline is None else f"{max(round(deadline - time.time()), 1)}s"
    return {"endpoint": asked.endpoint, "completion_window": window, "metadata": dict(asked.metadata)}


def _written(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as the server takes them."""
    found = dict(changes)
    if "deadline" in found:
        found["deadline"] = datetime.fromtimestamp(found["deadline"], UTC).isoformat()
    return found


@asynccontextmanager
async def open_jobs(address: str, key: str | None) -> AsyncGenerator[ServerJobs]:
    """The jobs of the server at an address.

    Raises:
        ServerError: see `open_client`.
    """
    async with open_client(address, key) as client:
        yield ServerJobs(client)
