"""Jobs kept and run by a server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import cast

import aiohttp
import click

from fanout.cli.batch.backend import ID_PREFIXES, JobSnapshot
from fanout.cli.batch.input import JobInput
from fanout.cli.batch.results_output import find_results_output
from fanout.cli.client import ServerClient, open_client
from fanout.cli.evaluation.remote_evaluation import RemoteEvaluation
from fanout.cli.model_choice import expand_models, has_pattern, list_remote_models, split_words
from fanout.core.errors import Fault, RequestError, ServerError
from fanout.core.json_text import JsonObject
from fanout.core.threads import run_in_thread
from fanout.dispatch.default_models import EMBEDDED_SET
from fanout.jobs import output_files
from fanout.jobs.job import JobSpec
from fanout.rendering.job import JobEstimateJson, JobJson
from fanout.store.jobs.records import ENDED_STATES, ResultFilter

MAX_ABSENCE_S = 60.0
"""How long a server may be unreachable while a job is followed."""
RECONNECT_INTERVAL_S = 1.0
VALIDATION_POLL_INTERVAL_S = 0.3
PAGE_SIZE = 100
MAX_SEARCHED_JOBS = 1_000
"""The newest jobs, searched for an id by its beginning."""
REPEATABLE_FIELDS = (
    *("models", "repeats", "template", "system", "parameters", "strict_parameters", "cache"),
    *("scorers", "failed", "name", "metadata"),
)
"""Fields of a job that a fork takes over."""
NO_OPTION = "a server runs OpenAI batch files through POST /v1/batches, which has no"


class RemoteJobs:
    """The jobs of a server; opened by `open_remote_jobs`."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._running: JobJson | None = None
        self._aborted = asyncio.Event()
        """The command leaves; the server goes on by itself."""

    async def choose_models(self, words: Sequence[str]) -> Sequence[str]:
        if not words or not has_pattern(words):
            return split_words(words) or (EMBEDDED_SET,)
        models = await list_remote_models(self._client)
        return expand_models(words, lambda: models)

    async def estimate(self, spec: JobSpec, source: JobInput) -> JobEstimateJson:
        """Estimate a job from an uploaded file, which is deleted again."""
        if spec.endpoint:
            raise click.UsageError(f"{NO_OPTION} --dry-run")
        file = await self._upload(source)
        try:
            body = {**_to_job_body(spec), "input_file_id": file, "dry_run": True}
            return cast(JobEstimateJson, await self._client.post("/v1/jobs", body))
        finally:
            await self._delete(file)

    async def create(self, spec: JobSpec, source: JobInput) -> JobJson:
        """Upload the rows and create a job or, of an OpenAI batch file, a batch."""
        body = _to_batch_body(spec) if spec.endpoint else _to_job_body(spec)
        file = await self._upload(source)
        if spec.endpoint:
            return await self._create_batch({**body, "input_file_id": file})
        try:
            return await self._post_job("/v1/jobs", {**body, "input_file_id": file})
        except RequestError:
            await self._delete(file)  # nothing refers to it, and it counts towards the account's storage
            raise

    async def _post_job(self, path: str, body: Mapping[str, object]) -> JobJson:
        return cast(JobJson, await self._client.post(path, body))

    async def _upload(self, source: JobInput) -> str:
        source.stream.seek(0)  # hashing has read it to its end
        return await self._client.upload(source.stream, source.filename)

    async def _delete(self, file: str) -> None:
        await self._client.delete(f"/v1/files/{file}")

    async def _create_batch(self, body: Mapping[str, object]) -> JobJson:
        """Create a batch and wait until its lines are validated; raise RequestError with every invalid one."""
        batch = await self._client.post("/v1/batches", body)
        while batch["status"] == "validating":
            await asyncio.sleep(VALIDATION_POLL_INTERVAL_S)
            batch = await self._client.get(f"/v1/batches/{batch['id']}")
        if job := await self.get(batch["id"]):  # a batch and its job share the id
            return job
        faults = [
            Fault(": ".join(filter(None, (f"line {error['line']}" if error["line"] else "", error["param"]))), error["message"])
            for error in (batch["errors"] or {"data": []})["data"]
        ]
        raise RequestError(faults or [Fault("input", f"the batch is {batch['status']}")])

    async def get(self, job_id: str) -> JobJson | None:
        try:
            return cast(JobJson, await self._client.get(f"/v1/jobs/{job_id}"))
        except RequestError as error:
            if error.faults[0].kind == "job_not_found":
                return None
            raise

    async def find_by_prefix(self, prefix: str) -> list[JobJson]:
        # The server has no query by prefix, so the newest jobs are searched here.
        prefixes = tuple(start + prefix for start in ID_PREFIXES)
        return [job for job in await self.list_jobs(MAX_SEARCHED_JOBS) if job["id"].startswith(prefixes)]

    async def list_jobs(self, limit: int, state: str | None = None) -> list[JobJson]:
        jobs: list[JobJson] = []
        has_more = True
        while has_more and len(jobs) < limit:
            query: dict[str, str | int] = {"limit": min(limit - len(jobs), PAGE_SIZE)}
            query |= {"state": state} if state else {}
            query |= {"after": jobs[-1]["id"]} if jobs else {}
            page = await self._client.get("/v1/jobs", **query)
            jobs += page["data"]
            has_more = page["has_more"]
        return jobs

    async def resume(self, job: JobJson, limits: JsonObject, source: JobInput | None, *, fork: bool) -> JobJson:
        change = await self._find_change(job, source) if source else None
        if change and source and fork:
            body = {name: value for name, value in job.items() if name in REPEATABLE_FIELDS and value not in (None, {}, [])}
            file = await self._upload(source)
            return await self._post_job("/v1/jobs", {**body, **_to_limit_fields(limits), "input_file_id": file})
        if change:
            raise RequestError([change])
        return await self._post_job(f"/v1/jobs/{job['id']}/resume", {**_to_limit_fields(limits), "fork": fork})

    async def _find_change(self, job: JobJson, source: JobInput) -> Fault | None:
        digest, file = hashlib.sha256(), job["input"].get("file")
        if file is None:
            raise RequestError([Fault("input", "the job's rows came in its request: leave INPUT out")])
        async for block in self._client.download(f"/v1/files/{file}/content"):
            digest.update(block)
        if digest.hexdigest() == source.sha256:
            return None
        old = f"`{job['input']['name']}` (sha256 {digest.hexdigest()[:12]}…)"
        return Fault("input", f"was {old}, is `{source.name}` (sha256 {source.sha256[:12]}…)", "changed")

    async def retry(self, job: JobJson, kinds: Sequence[str], limits: JsonObject) -> JobJson:
        body = {**_to_limit_fields(limits), **({"kinds": list(kinds)} if kinds else {})}
        return await self._post_job(f"/v1/jobs/{job['id']}/retry", body)

    async def cancel(self, job: JobJson) -> JobJson:
        return await self._post_job(f"/v1/jobs/{job['id']}/cancel", {})

    async def list_labels(self, job: JobJson) -> Sequence[str]:
        return ()  # the server reports labels only with results

    def run(self, job: JobJson) -> AsyncGenerator[JobSnapshot]:
        """Follow a job that the server runs."""
        self._running = job  # the job that a signal cancels
        return self.watch(job)

    async def watch(self, job: JobJson) -> AsyncGenerator[JobSnapshot]:
        """Follow a job's events, and reconnect whenever they break off.

        Raises:
            ServerError: the server was unreachable for too long.
        """
        absent_since: float | None = None
        while not self._aborted.is_set():
            try:
                async for update in self._stream_updates(job["id"]):
                    job, absent_since = update, None
                    yield JobSnapshot(job)
                    if job["state"] in ENDED_STATES:
                        return
            except (aiohttp.ClientError, ServerError, TimeoutError) as error:
                absent_since = absent_since or time.monotonic()
                if time.monotonic() - absent_since > MAX_ABSENCE_S:
                    raise ServerError(f"the server is gone ({error}); the job goes on when it is back") from error
                yield JobSnapshot(job, [f"the server does not answer; trying again: {error}"])
            if not self._aborted.is_set():
                await asyncio.sleep(RECONNECT_INTERVAL_S)

    async def _stream_updates(self, job_id: str) -> AsyncGenerator[JobJson]:
        async with aclosing(self._client.stream_events(f"/v1/jobs/{job_id}/events")) as events:
            while True:
                # A job may send no event for a long time; waiting for both makes Ctrl-C leave at once.
                event = asyncio.ensure_future(anext(events, None))
                aborted = asyncio.ensure_future(self._aborted.wait())
                try:
                    await asyncio.wait({event, aborted}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    aborted.cancel()
                    if not event.done():
                        event.cancel()
                        await asyncio.gather(event, return_exceptions=True)
                if event.cancelled() or (job := event.result()) is None:
                    return
                yield cast(JobJson, job)

    async def stop(self) -> None:
        """Cancel the job that is followed; a cancelled job can be resumed."""
        if self._running:
            with suppress(RequestError):  # the job may have ended in the meantime
                await self.cancel(self._running)

    def abort(self) -> None:
        self._aborted.set()

    async def export(
        self, job: JobJson, output: str, format_: str | None, chosen: ResultFilter, *, quote_formulas: bool = False
    ) -> None:
        kind = output_files.choose_format(output, format_)
        failed = None if chosen.failed is None else str(chosen.failed).lower()
        different = "true" if chosen.different else None
        fields = {"failed": failed, "model": chosen.model, "kind": chosen.kind, "different": different}
        fields["quote_formulas"] = "true" if quote_formulas else None
        query = {name: value for name, value in fields.items() if value is not None}
        async with aclosing(self._client.download(f"/v1/jobs/{job['id']}/results.{kind}", **query)) as blocks:
            with output_files.open_output(find_results_output(output, kind)) as write:
                async for block in blocks:
                    await run_in_thread("exports", write, block)  # a pipe may be full

    @property
    def evaluation(self) -> RemoteEvaluation:
        return RemoteEvaluation(self._client)


def _to_job_body(spec: JobSpec) -> JsonObject:
    """Return the body of `POST /v1/jobs` without its rows."""
    names = (
        *("repeats", "template", "system", "parameters", "stream", "via", "live_rest", "cache", "self_fusions"),
        *("scorers", "failed", "name", "metadata"),
    )
    body = {name: value for name in names if (value := getattr(spec, name)) not in (None, {}, ())}
    models = [row["model"] for row in spec.models]
    if spec.until_decided:  # the server draws an order of its own
        body["until_decided"] = {
            name: value for name, value in spec.until_decided.items() if value is not None and name != "seed"
        }
    return {**body, "models": models, "strict_parameters": spec.strict, **_to_limit_fields(_list_limits(spec))}


def _to_batch_body(spec: JobSpec) -> JsonObject:
    """Return the body of `POST /v1/batches` without its file; refuse options that have no place in it."""
    # An option that has no effect could cost money: refuse it rather than ignore it.
    others = [name for name in _list_limits(spec) if name != "deadline"]
    others += [name for name in ("cache", "scorers", "name") if getattr(spec, name)]
    if others:
        options = ", ".join(f"--{'max-cost' if name == 'max_cost_usd' else name}" for name in others)
        raise click.UsageError(f"{NO_OPTION} {options}")
    window = "24h" if spec.deadline is None else f"{max(round(spec.deadline - time.time()), 1)}s"
    return {"endpoint": spec.endpoint, "completion_window": window, "metadata": dict(spec.metadata)}


def _list_limits(spec: JobSpec) -> JsonObject:
    names = ("max_cost_usd", "deadline", "attempts", "concurrency")
    return {name: value for name in names if (value := getattr(spec, name)) is not None}


def _to_limit_fields(limits: JsonObject) -> JsonObject:
    """Return limits as the server takes them: the deadline as a time in ISO 8601."""
    if "deadline" not in limits:
        return limits
    return {**limits, "deadline": datetime.fromtimestamp(limits["deadline"], UTC).isoformat()}


@asynccontextmanager
async def open_remote_jobs(address: str, key: str | None) -> AsyncGenerator[RemoteJobs]:
    """Open the jobs of the server at an address; raises ServerError like `open_client`."""
    async with open_client(address, key) as client:
        yield RemoteJobs(client)
