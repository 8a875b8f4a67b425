"""A real server on this machine that plays the batch APIs of six vendors, by their documents.

The last word of a prompt says what becomes of it: `expire` (the batch never comes to it), `fail` (an error of the call
alone), `overload` (an error that passes). A model named `refused` is not taken in batches. A batch ends at its `looks`th look.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
FORMATS = ("openai", "groq", "together", "mistral", "anthropic", "gemini")
ADAPTERS = {"anthropic": "anthropic", "gemini": "gemini"}
KEY = "vendor-key-0123456789"
STATUS_WORDS = {
    "openai": ("in_progress", "completed", "cancelled", "failed"),
    "groq": ("in_progress", "completed", "cancelled", "failed"),
    "together": ("IN_PROGRESS", "COMPLETED", "CANCELLED", "FAILED"),
    "mistral": ("RUNNING", "SUCCESS", "CANCELLED", "FAILED"),
    "anthropic": ("in_progress", "ended", "ended", "ended"),
    "gemini": ("BATCH_STATE_RUNNING", "BATCH_STATE_SUCCEEDED", "BATCH_STATE_CANCELLED", "BATCH_STATE_FAILED"),
}


@dataclass
class Batch:
    id: str
    requests: list[tuple[str, Json]]
    mark: str | None = None
    file: str | None = None
    looks: int = 0
    is_cancelled: bool = False
    error: str | None = None


@dataclass
class BatchApis:
    """All six, each below its own path; `url(format)` is the `base_url` of its row."""

    port: int = 0
    looks: int = 2
    batches: dict[str, Batch] = field(default_factory=dict)
    live: list[Json] = field(default_factory=list)
    """Calls that came alone."""
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    bodies: list[tuple[str, Json]] = field(default_factory=list)
    """Everything that was answered about batches, by vendor, for the vendors' own types."""
    keys: set[str] = field(default_factory=set)
    ids: str | None = None
    """Ids of batches and files, instead of good ones."""
    is_endless: bool = False
    """Files of results do not end."""
    paths: list[str] = field(default_factory=list)
    """Of all requests."""
    failing_lists: int = 0
    """So many lists of batches are answered by an error."""
    hides_creation: bool = False
    """Batches are made, and the answer to their creation is lost."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}" + {"anthropic": "", "gemini": "/v1beta"}.get(name, "/v1")

    def row(self, name: str, **economy: Any) -> Json:
        return {
            "adapter": ADAPTERS.get(name, "openai"),
            "base_url": self.url(name),
            "api_key_env": "VENDOR_KEY",
            "retries": {"attempts": 3, "max_delay_s": 0.02},
            "economy": {"format": name, "poll_s": 0.02, **economy},
        }

    # What the models answer.

    def answer(self, name: str, body: Json, *, in_batch: bool) -> tuple[int | None, Json]:
        """Return the status and the body of an answer; no status: the batch never came to it."""
        prompt = _find_prompt(name, body)
        word = prompt.rpartition(" ")[2]
        if word == "expire" and in_batch:
            return None, {}
        if word == "fail":
            return 400, _build_error(name, "invalid_request_error", f"no, not with {KEY}")
        if word == "overload" and in_batch:
            return 529 if name == "anthropic" else 503, _build_error(name, "overloaded_error", "overloaded")
        return 200, _build_answer(name, body, f"{prompt}!")

    def end(self, name: str, batch: Batch) -> list[tuple[str, int | None, Json]]:
        if batch.is_cancelled:  # half of it had been answered
            half = len(batch.requests) // 2
            found = [(each, *self.answer(name, body, in_batch=True)) for each, body in batch.requests[:half]]
            return [*found, *((each, None, {}) for each, _ in batch.requests[half:])]
        return [(each, *self.answer(name, body, in_batch=True)) for each, body in batch.requests]

    def add(self, name: str, requests: list[tuple[str, Json]], mark: str | None, file: str | None = None) -> Batch:
        number = len(self.batches)
        own = self.ids if self.ids is not None else f"b{number}" if name == "gemini" else f"batch_{number}"
        batch = Batch(f"batches/{own}" if name == "gemini" else own, requests, mark, file)
        self.batches[batch.id] = batch
        return batch

    def look(self, name: str, batch: Batch) -> str:
        """Return the vendor's word for the state of a batch at this look."""
        running, done, cancelled, failed = STATUS_WORDS[name]
        batch.looks += 1
        if batch.error:
            return failed
        if batch.is_cancelled:
            return cancelled
        return done if batch.looks >= self.looks else running


def _find_prompt(name: str, body: Json) -> str:
    if name == "gemini":
        return str(body["contents"][-1]["parts"][-1]["text"])
    if "messages" not in body:
        return str(body["prompt"])
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def _build_answer(name: str, body: Json, text: str) -> Json:
    if name == "anthropic":
        usage = {"input_tokens": 10, "output_tokens": 4, "service_tier": "batch"}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "stop_reason": "end_turn",
            "content": [{"type": "text", "text": text}],
            "stop_sequence": None,
            "usage": usage,
        }
    if name == "gemini":
        part = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 14}
        return {"candidates": [part], "usageMetadata": usage, "modelVersion": "m"}
    message = {"role": "assistant", "content": text}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }


def _build_error(name: str, type_: str, message: str) -> Json:
    if name == "anthropic":
        return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "r1"}
    if name == "gemini":
        code = 3 if type_ == "invalid_request_error" else 14
        return {"code": code, "message": message}
    return {"error": {"type": type_, "message": message, "param": None, "code": None}}


@asynccontextmanager
async def open_batch_apis(**options: Any) -> AsyncGenerator[BatchApis]:
    """Open the server."""
    apis = BatchApis(**options)
    app = web.Application(client_max_size=2**26, middlewares=[_make_door(apis)])
    for name in FORMATS:
        {"anthropic": _add_anthropic, "gemini": _add_gemini}.get(name, _add_files)(app, apis, name)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    apis.port = runner.addresses[0][1]
    try:
        yield apis
    finally:
        await runner.cleanup()


def _make_door(apis: BatchApis) -> Any:
    @web.middleware
    async def door(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        headers = request.headers
        apis.paths.append(request.rel_url.raw_path)
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        apis.keys.add(bearer or headers.get("x-api-key", "") or headers.get("x-goog-api-key", ""))
        response: web.StreamResponse = await handler(request)
        return response

    return door


def _describe_file_batch(name: str, batch: Batch, word: str, apis: BatchApis) -> Json:
    is_ended = word in STATUS_WORDS[name][1:3]
    output, errors = (f"out-{batch.id}", f"err-{batch.id}") if is_ended else (None, None)
    now = int(time.time())
    if name == "mistral":
        numbers = ("total_requests", "completed_requests", "succeeded_requests", "failed_requests")
        problem = [{"message": batch.error, "count": 1}] if batch.error else []
        return {
            "id": batch.id,
            "object": "batch",
            "input_files": [batch.file],
            "endpoint": "/v1/chat/completions",
            "errors": problem,
            "status": word,
            "created_at": now,
            **dict.fromkeys(numbers, 0),
            "output_file": output,
            "error_file": errors,
            "metadata": {"fanout": batch.mark},
        }
    common = {"id": batch.id, "status": word, "endpoint": "/v1/chat/completions", "input_file_id": batch.file}
    common |= {"output_file_id": output, "error_file_id": errors}
    if name == "together":
        return {**common, "user_id": "u", "progress": 0, "error": batch.error}
    listed = {"object": "list", "data": [{"code": "model_not_supported", "message": batch.error}]} if batch.error else None
    counts = {"total": len(batch.requests), "completed": 0, "failed": 0}
    return {
        **common,
        "object": "batch",
        "completion_window": "24h",
        "created_at": now,
        "errors": listed,
        "request_counts": counts,
        "metadata": {"fanout": batch.mark},
    }


def _add_files(app: web.Application, apis: BatchApis, name: str) -> None:
    prefix, place = f"/{name}/v1", "/batch/jobs" if name == "mistral" else "/batches"

    async def upload(request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == ("batch-api" if name == "together" else "batch")
        sent = form["file"]
        assert isinstance(sent, web.FileField)
        file_id = f"file-{len(apis.files)}"
        apis.files[file_id] = (str(form.get("file_name") or sent.filename), sent.file.read())
        return web.json_response({"id": file_id, "object": "file", "filename": sent.filename, "purpose": form["purpose"]})

    async def create(request: web.Request) -> web.Response:
        body = await request.json()
        file_id = body["input_files"][0] if name == "mistral" else body["input_file_id"]
        lines = [json.loads(line) for line in apis.files[file_id][1].splitlines()]
        assert {line["url"] for line in lines} == {body["endpoint"]} == {"/v1/chat/completions"}
        assert ("completion_window" in body) is (name in ("openai", "groq"))
        mark = body.get("metadata", {}).get("fanout")
        assert (mark is None) is (name == "together")
        batch = apis.add(name, [(line["custom_id"], line["body"]) for line in lines], mark, file_id)
        models = {line["body"]["model"] for line in lines}
        assert name != "mistral" or {body["model"]} == models
        if models == {"refused"}:
            batch.error = "this model is not taken in batches"
        if apis.hides_creation:
            assert request.transport
            request.transport.abort()
            await asyncio.sleep(0)
        described = _describe_file_batch(name, batch, STATUS_WORDS[name][0], apis)
        return _reply(apis, name, {"job": described, "warning": ""} if name == "together" else described)

    async def read(request: web.Request) -> web.Response:
        batch = apis.batches[request.match_info["id"]]
        return _reply(apis, name, _describe_file_batch(name, batch, apis.look(name, batch), apis))

    async def list_(_: web.Request) -> web.Response:
        if apis.failing_lists:
            apis.failing_lists -= 1
            return web.json_response({"error": {"message": "no list now"}}, status=503)
        found = [_describe_file_batch(name, batch, STATUS_WORDS[name][0], apis) for batch in apis.batches.values()]
        return web.json_response({"object": "list", "data": found, "total": len(found)})

    async def list_files(_: web.Request) -> web.Response:
        found = [{"id": key, "filename": filename} for key, (filename, _) in apis.files.items()]
        return web.json_response({"data": found})

    async def cancel(request: web.Request) -> web.Response:
        batch = apis.batches[request.match_info["id"]]
        batch.is_cancelled = True
        return _reply(apis, name, _describe_file_batch(name, batch, STATUS_WORDS[name][0], apis))

    async def content(request: web.Request) -> web.StreamResponse:
        if apis.is_endless:
            stream = web.StreamResponse()
            await stream.prepare(request)
            with suppress(ConnectionError):
                while True:
                    await stream.write(b"\n" * 2**16)
            return stream
        kind, _, batch_id = request.match_info["id"].partition("-")
        lines = []
        for custom_id, status, body in apis.end(name, apis.batches[batch_id]):
            line: Json = {"id": f"r-{custom_id}", "custom_id": custom_id, "response": None, "error": None}
            if status is None:
                line["error"] = {"code": "batch_expired", "message": "not executed within the window"}
            else:
                line["response"] = {"status_code": status, "request_id": "r1", "body": body}
            if (status == 200) is (kind == "out"):
                lines.append(json.dumps(line))
        noise = ["", "not JSON", "[]", '{"custom_id": 7}', '{"custom_id": "99-0-0-1", "response": {"status_code": 200}}']
        return web.Response(text="\n".join([*lines, *noise, *lines]))

    async def complete(request: web.Request) -> web.Response:
        return _complete_alone(apis, name, await request.json())

    app.router.add_post(prefix + ("/files/upload" if name == "together" else "/files"), upload)
    app.router.add_get(prefix + "/files", list_files)
    app.router.add_get(prefix + "/files/{id}/content", content)
    app.router.add_post(prefix + place, create)
    app.router.add_get(prefix + place, list_)
    app.router.add_get(prefix + place + "/{id}", read)
    app.router.add_post(prefix + place + "/{id}/cancel", cancel)
    app.router.add_post(prefix + "/chat/completions", complete)


def _add_anthropic(app: web.Application, apis: BatchApis, name: str) -> None:
    prefix = f"/{name}/v1/messages"

    def describe(batch: Batch, word: str) -> Json:
        at = "2026-11-20T10:00:00Z"
        url = f"http://127.0.0.1:9/elsewhere/{batch.id}" if word == "ended" else None  # must not be called
        counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": word,
            "request_counts": counts,
            "created_at": at,
            "expires_at": at,
            "ended_at": None,
            "cancel_initiated_at": None,
            "results_url": url,
        }

    async def create(request: web.Request) -> web.Response:
        assert request.headers["anthropic-version"]
        requests = [(each["custom_id"], each["params"]) for each in (await request.json())["requests"]]
        if requests[0][1]["model"] == "refused":
            return web.json_response(_build_error(name, "invalid_request_error", "not taken in batches"), status=400)
        return _reply(apis, name, describe(apis.add(name, requests, None), "in_progress"))

    async def read(request: web.Request) -> web.Response:
        batch = apis.batches[request.match_info["id"]]
        return _reply(apis, name, describe(batch, apis.look(name, batch)))

    async def cancel(request: web.Request) -> web.Response:
        batch = apis.batches[request.match_info["id"]]
        batch.is_cancelled = True
        return _reply(apis, name, describe(batch, "canceling"))

    async def results(request: web.Request) -> web.Response:
        lines = []
        for custom_id, status, body in apis.end(name, apis.batches[request.match_info["id"]]):
            result: Json = {"type": "expired"}
            if status is not None:
                result = {"type": "succeeded", "message": body} if status == 200 else {"type": "errored", "error": body}
            lines.append(json.dumps({"custom_id": custom_id, "result": result}))
        return web.Response(text="\n".join(lines))

    async def complete(request: web.Request) -> web.Response:
        return _complete_alone(apis, name, await request.json())

    app.router.add_post(f"{prefix}/batches", create)
    app.router.add_get(f"{prefix}/batches/{{id}}", read)
    app.router.add_post(f"{prefix}/batches/{{id}}/cancel", cancel)
    app.router.add_get(f"{prefix}/batches/{{id}}/results", results)
    app.router.add_post(prefix, complete)


def _add_gemini(app: web.Application, apis: BatchApis, name: str) -> None:
    prefix = f"/{name}/v1beta"

    def describe(batch: Batch, word: str) -> Json:
        found: Json = {"name": batch.id, "metadata": {"state": word, "displayName": batch.mark, "model": "models/m"}}
        if word == "BATCH_STATE_FAILED":
            return {**found, "done": True, "error": {"code": 3, "message": batch.error}}
        if word not in ("BATCH_STATE_SUCCEEDED", "BATCH_STATE_CANCELLED"):
            return found
        answers = []
        for key, status, body in apis.end(name, batch):
            answer: Json = {"metadata": {"key": key}}
            if status is None:
                answer["error"] = {"code": 4, "message": "deadline"}
            else:
                answer["response" if status == 200 else "error"] = body
            answers.append(answer)
        output = {"inlinedResponses": {"inlinedResponses": answers}}
        return {**found, "done": True, "response": output} | {"metadata": {**found["metadata"], "output": output}}

    async def act(request: web.Request) -> web.Response:
        model, _, method = request.match_info["what"].partition(":")
        body = await request.json()
        if method == "generateContent":
            return _complete_alone(apis, name, body)
        assert method == "batchGenerateContent"
        batch = body["batch"]
        requests = [(each["metadata"]["key"], each["request"]) for each in batch["inputConfig"]["requests"]["requests"]]
        made = apis.add(name, requests, batch["displayName"])
        if model == "refused":
            made.error = "this model is not taken in batches"
        return _reply(apis, name, describe(made, "BATCH_STATE_PENDING"))

    async def read(request: web.Request) -> web.Response:
        batch = apis.batches[f"batches/{request.match_info['id']}"]
        if "fields" in request.query:
            batch.looks += 1
        word = STATUS_WORDS[name][3 if batch.error else 2 if batch.is_cancelled else 1 if batch.looks >= apis.looks else 0]
        described = describe(batch, word)
        if "fields" in request.query:
            metadata = {key: described["metadata"][key] for key in ("state", "displayName")}
            described = {key: described[key] for key in ("name", "done", "error") if key in described} | {"metadata": metadata}
        return _reply(apis, name, described)

    async def list_(_: web.Request) -> web.Response:
        return web.json_response({"operations": [describe(batch, "BATCH_STATE_RUNNING") for batch in apis.batches.values()]})

    async def cancel(request: web.Request) -> web.Response:
        apis.batches[f"batches/{request.match_info['id']}"].is_cancelled = True
        return web.json_response({})

    app.router.add_post(prefix + "/models/{what}", act)
    app.router.add_get(prefix + "/batches", list_)
    app.router.add_get(prefix + "/batches/{id}", read)
    app.router.add_post(prefix + "/batches/{id:[^:]+}:cancel", cancel)


def _complete_alone(apis: BatchApis, name: str, body: Json) -> web.Response:
    apis.live.append(body)
    status, answer = apis.answer(name, body, in_batch=False)
    if name == "gemini" and status != 200:
        answer = {"error": answer | {"code": status}}
    return web.json_response(answer, status=status or 500)


def _reply(apis: BatchApis, name: str, body: Json) -> web.Response:
    apis.bodies.append((name, body))
    return web.json_response(body)
