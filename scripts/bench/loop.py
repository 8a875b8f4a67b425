"""The event loop under large bodies, files and exports: how late a timer of 1 ms comes, and the longest single step.

python scripts/bench/loop.py [MIB [REQUEST …]]   # bodies of so many MiB, files of 100 MB, a job of 50,000 units

The server runs in this process, its client and its upstream in two others. A step is one callback, or one run of a task up
to its next wait, in CPU time of the loop's thread. Lateness also counts what this process's other threads take, but not the
time in which other programs have the processor.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import sys
import time
from asyncio.events import Handle
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp import web

from fanout.config.settings import load_settings
from fanout.observability import logs
from fanout.server.app import SWITCH_INTERVAL_S, create_app, make_runner

TICK_S = 0.001
MODELS = 4
FILE_BYTES = 100 * 10**6
JOB_ROWS = 50_000
MULTIPART = {"Content-Type": "multipart/form-data; boundary=frame"}
CHUNKED = {"Transfer-Encoding": "chunked"}


class Steps:
    """CPU times of the loop's steps, and the lateness of a timer."""

    def __init__(self) -> None:
        self.longest_s = self.latest_s = self.cpu_s = self.queued_s = 0.0
        self.name = ""
        run: Callable[[Any], None] = Handle._run

        def measure(handle: Any) -> None:
            began = time.thread_time()
            run(handle)
            taken = time.thread_time() - began
            self.cpu_s += taken
            if taken > self.longest_s:
                self.longest_s, self.name = taken, describe(handle._callback)

        Handle._run = measure  # type: ignore[method-assign,assignment]

    async def tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            queued = read_queued_s()
            late = time.monotonic() - due - (queued - self.queued_s)
            self.queued_s = queued
            self.latest_s = max(self.latest_s, late)

    def reset(self) -> None:
        self.longest_s = self.latest_s = self.cpu_s = 0.0
        self.queued_s, self.name = read_queued_s(), ""


def read_queued_s() -> float:
    """Return how long this process's threads have waited for a processor that another program had."""
    return sum(int(path.read_text().split()[1]) for path in Path("/proc/self/task").glob("*/schedstat")) / 1e9


def describe(callback: Any) -> str:
    """Return where a step ended."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return getattr(callback, "__qualname__", type(callback).__name__)
    inner: Any = task.get_coro()
    names = list[str]()
    while hasattr(inner, "cr_await"):
        names.append(inner.__qualname__)
        inner = inner.cr_await
    return " > ".join(names[-2:])


def to_tiny_chunks(body: bytes) -> bytes:
    """Return a body as HTTP sends it in chunks of a byte."""
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


def build_bodies(mib: int) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Return requests by name: a path, a body, headers."""
    size = mib * 2**20 - 1000
    models = [f"up/m{number}" for number in range(MODELS)]

    def prompt(text: str, **fields: object) -> bytes:
        return json.dumps({"model": models, "prompt": text, **fields}, ensure_ascii=False).encode()

    def ask(model: str = "large", **fields: object) -> bytes:
        return json.dumps({"model": ["up/" + model], "prompt": "x", **fields}).encode()

    chat = json.dumps({"model": "up/m0", "messages": [{"role": "user", "content": "ab " * (size // 3)}]}).encode()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * (size // 11)}}
    picture = json.dumps({"model": "up/m0", "messages": [{"role": "user", "content": [image]}]}).encode()
    plain: dict[str, str] = {}
    completion = "/v1/completion"
    packed = {"Content-Encoding": "gzip"}
    keys = json.dumps({"model": "up/m0", "messages": [], "tools": [{f"k{n}": 1 for n in range(99_000)}]}).encode()
    return {
        "one prompt": (completion, prompt("word " * (size // 5)), plain),
        "one prompt, escapes": (completion, prompt('a"\n' * (size // 5)), plain),
        "one prompt, not ASCII": (completion, prompt("aé€😀" * (size // 10)), plain),
        "one prompt, gzip": (completion, gzip.compress(prompt("word " * (size // 5)), 1), packed),
        "one prompt, refused": (completion, prompt("word " * (size // 5), typo=1), plain),
        "one prompt, idempotent": (completion, prompt("word " * (size // 5)), {"Idempotency-Key": str(os.getpid())}),
        "chat": ("/v1/chat/completions", chat, plain),
        "chat, image": ("/v1/chat/completions", picture, plain),
        "responses": ("/v1/responses", json.dumps({"model": "up/m0", "input": "ab " * (size // 3)}).encode(), plain),
        "not JSON": (completion, prompt("word " * (size // 5))[:-1], plain),
        "99,000 names": ("/v1/chat/completions", keys, plain),
        "chunks of a byte": (completion, to_tiny_chunks(prompt("w" * min(size, 2**20))), CHUNKED),
        "chunks of a byte, gzip": (completion, to_tiny_chunks(gzip.compress(os.urandom(2**19))), {**CHUNKED, **packed}),
        "chunks of a byte, unknown path": ("/v1/nothing", to_tiny_chunks(b"w" * min(size, 2**20)), CHUNKED),
        "chunks of a byte, upload": ("/v1/files", to_tiny_chunks(build_file(40, min(size, 2**20))), {**MULTIPART, **CHUNKED}),
        "answer in chunks of a byte": (completion, ask("tiny"), plain),
        "stream in chunks of a byte": (completion, ask("tiny", stream=True), plain),
        "answer of 12 MiB": (completion, ask(), plain),
        "answer of 12 MiB, gzip": (completion, ask(), {"Accept-Encoding": "gzip"}),
        "answer of 12 MiB, one event": (completion, ask(stream=True), plain),
    }


def build_file(row_chars: int, file_bytes: int = FILE_BYTES) -> bytes:
    """Return an upload whose rows have prompts of so many characters."""
    row = json.dumps({"prompt": "w" * row_chars}).encode() + b"\n"
    fields = b'--frame\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    named = b'--frame\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
    return fields + named + row * (file_bytes // len(row)) + b"\r\n--frame--\r\n"


class Jobs:
    """Requests with files and jobs by name; each is built when it is its turn, from what the ones before it brought."""

    def __init__(self) -> None:
        self._ids = {"file": "", "job": ""}
        results = "/v1/jobs/{job}/results"

        def ask(**fields: object) -> bytes:
            return json.dumps({"models": ["up/m0"], "input_file_id": self._ids["file"], **fields}).encode()

        self.requests: dict[str, tuple[str, str, Callable[[], bytes], dict[str, str]]] = {
            "file of 100 MB, short rows": ("POST", "/v1/files", lambda: build_file(40), MULTIPART),
            "dry run of its rows": ("POST", "/v1/jobs", lambda: ask(dry_run=True), {}),
            "download of it": ("GET", "/v1/files/{file}/content", bytes, {}),
            "file of 100 MB, long rows": ("POST", "/v1/files", lambda: build_file(900_000), MULTIPART),
            "dry run of its long rows": ("POST", "/v1/jobs", lambda: ask(dry_run=True), {}),
            "file of 50,000 rows": ("POST", "/v1/files", lambda: build_file(100, 115 * JOB_ROWS), MULTIPART),
            "job of these rows": ("POST", "/v1/jobs", ask, {}),
            "its end": ("GET", "/v1/jobs/{job}", bytes, {}),
            "its report": ("GET", "/v1/jobs/{job}/report", bytes, {}),
            "its results, JSONL": ("GET", results + ".jsonl", bytes, {}),
            "its results, CSV": ("GET", results + ".csv", bytes, {}),
            "its results, Parquet": ("GET", results + ".parquet", bytes, {}),
            "1,000 of its results": ("GET", results + "?limit=1000", bytes, {}),
        }

    async def send(self, session: aiohttp.ClientSession, name: str, address: str) -> tuple[int, bytes]:
        """Send a request; of `its end`, until the job has ended."""
        method, path, build, headers = self.requests[name]
        while True:
            options: dict[str, Any] = {
                "data": build(),
                "headers": {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
            }
            async with session.request(method, address + path.format_map(self._ids), **options) as response:
                answer = await response.read()
            if name != "its end" or b'"state":"done"' in answer:
                break
            await asyncio.sleep(0.5)
        if method == "POST" and response.status < 300:
            found = json.loads(answer).get("id")
            self._ids["file" if path == "/v1/files" else "job"] = found or self._ids["job"]
        return response.status, answer


async def run_upstream() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if b'"model":"tiny"' in body[:200]:
            return await answer_in_chunks(request, is_stream=b'"stream":true' in body)
        size = 12 * 2**20 if b'"model":"large"' in body[:200] else 2
        message = {"role": "assistant", "content": "word\n" * (size // 5) or "ok"}
        if size > 2 and b'"stream":true' in body:
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await stream.prepare(request)
            for piece in ({"delta": message, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}):
                await stream.write(b"data: " + json.dumps({"id": "x", "choices": [{"index": 0, **piece}]}).encode() + b"\n\n")
            await stream.write(b"data: [DONE]\n\n")
            return stream
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return web.json_response({"id": "x", "model": "m", "choices": [choice], "usage": usage})

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/v1/chat/completions", answer)
    await _serve(web.AppRunner(app, access_log=None))


async def answer_in_chunks(request: web.Request, *, is_stream: bool) -> web.StreamResponse:
    """Answer with 1 MiB in chunks of a byte."""
    message = {"role": "assistant", "content": "word\n" * (2**20 // 5)}
    choice = {"index": 0, "delta" if is_stream else "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "x", "choices": [choice]}).encode()
    kind = "text/event-stream" if is_stream else "application/json"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert request.transport
    request.transport.write(head + to_tiny_chunks(b"data: %b\n\ndata: [DONE]\n\n" % body if is_stream else body))
    await asyncio.sleep(3600)
    raise AssertionError


async def _serve(runner: web.AppRunner) -> None:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    while os.getppid() != 1:
        await asyncio.sleep(1)


async def run_client() -> None:
    """Send the requests that standard input names, one line each."""
    bodies, jobs = build_bodies(int(sys.argv[2])), Jobs()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for line in sys.stdin:
            name, port = json.loads(line)
            address, began = f"http://127.0.0.1:{port}", time.monotonic()
            if name in jobs.requests:
                status, answer = await jobs.send(session, name, address)
            else:
                path, body, headers = bodies[name]
                if "Transfer-Encoding" in headers:
                    status, answer = await send_raw(port, path, body, headers)
                    print(json.dumps([status, len(answer), time.monotonic() - began]), flush=True)
                    continue
                headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"} | headers
                async with session.post(address + path, data=body, headers=headers) as response:
                    status, answer = response.status, await response.read()
            print(json.dumps([status, len(answer), time.monotonic() - began]), flush=True)


async def send_raw(port: int, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send a body that is framed already, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = {"Host": "localhost", "Content-Type": "application/json", "Connection": "close"} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
    writer.write(body)
    answer = await reader.read()
    writer.close()
    return int(answer.split(maxsplit=2)[1]), answer


async def start(role: str, mib: int, script: str = __file__) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, script, role, str(mib), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**26
    )


async def read_line(program: asyncio.subprocess.Process) -> Any:
    assert program.stdout
    return json.loads(await program.stdout.readline())


async def measure(mib: int, names: Iterable[str], steps: Steps) -> None:
    upstream, client = await start("upstream", mib), await start("client", mib)
    try:
        with TemporaryDirectory() as folder:
            config = Path(folder, "providers.json")
            base = f"http://127.0.0.1:{await read_line(upstream)}/v1"
            provider = {"adapter": "openai", "base_url": base, "api_key_env": "UP_KEY"}
            config.write_text(json.dumps({"providers": {"up": provider}}))
            environ = {"HOME": folder, "FANOUT_STORE": f"sqlite:///{folder}/store.db", "UP_KEY": "k" * 20}
            runner = make_runner(create_app(load_settings(config, environ)), 1.0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            gc.freeze()
            port = runner.addresses[0][1]
            await asyncio.sleep(1)
            ticking = asyncio.create_task(steps.tick())
            print("| request | status | longest step, ms | where it ended | timer late, ms | loop's CPU, ms | s | bytes |")
            for name in names:
                await asyncio.sleep(0.3)
                steps.reset()
                assert client.stdin
                client.stdin.write((json.dumps([name, port]) + "\n").encode())
                status, length, took_s = await read_line(client)
                await asyncio.sleep(0.5)
                print(
                    f"| {name} | {status} | {steps.longest_s * 1e3:.2f} | {steps.name} | {steps.latest_s * 1e3:.1f} "
                    f"| {steps.cpu_s * 1e3:.0f} | {took_s:.1f} | {length:,} |"
                )
            ticking.cancel()
            await runner.cleanup()
    finally:
        for program in (client, upstream):
            with suppress(ProcessLookupError):
                program.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["upstream"]:
        asyncio.run(run_upstream())
    elif sys.argv[1:2] == ["client"]:
        asyncio.run(run_client())
    else:
        logs.configure("error", "json")
        gc.set_threshold(10_000, 10, 100)  # as `fanout` does
        size = int(sys.argv[1]) if len(sys.argv) > 1 else 32
        found = Steps()
        asyncio.run(measure(size, sys.argv[2:] or [*build_bodies(1), *Jobs().requests], found))
