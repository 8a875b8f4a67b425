"""The load: wrk, the bodies it posts, and a check of the answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import Any

from machine import BenchError, get_cores, pin_to

POST_LUA = Path(__file__).with_name("post.lua")
PROMPT = "What is the capital of France, which river does it lie on, and how many people live there?"
TOKEN = b" token"  # the text of every piece of a streamed answer, in upstream.c
NO_WRK = "needs wrk, the load generator: `apt-get install wrk`, or https://github.com/wg/wrk"


def find_wrk() -> str:
    path = shutil.which("wrk")
    if not path:
        raise BenchError(NO_WRK)
    return path


def build_comparison(models: int, *, stream: bool = False) -> bytes:
    """Return the body of a request to Fanout."""
    body: dict[str, Any] = {"model": [f"m{n}" for n in range(models)], "prompt": PROMPT, "max_tokens": 50, "temperature": 0.7}
    return json.dumps(body | ({"stream": True} if stream else {})).encode()


def build_chat(model: str, *, stream: bool = False) -> bytes:
    """Return the body of a request in OpenAI's format, to the upstream or to a peer."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 50,
        "temperature": 0.7,
    }
    return json.dumps(body | ({"stream": True} if stream else {})).encode()


def post(port: int, path: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> tuple[int, Any]:
    """Post a request; return the status and the JSON of its answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text)
    except OSError as error:
        raise BenchError(f"`{path}` on port {port} gave no answer: {error}") from error
    except ValueError as error:
        raise BenchError(f"`{path}` on port {port} gave {response.status} without JSON: {text[:300]!r}") from error
    finally:
        connection.close()


def count_answers(port: int, models: int) -> int:
    """Return how many of `models` give text in one comparison: an answer of status 200 may hold failures."""
    status, answer = post(port, "/v1/completion", build_comparison(models))
    if status != 200 or len(answer["choices"]) != models:
        raise BenchError(f"expected 200 with {models} choices, not {status}: {json.dumps(answer)[:300]}")
    return sum(bool(choice.get("text")) for choice in answer["choices"])


@dataclass(frozen=True, slots=True)
class Load:
    """Figures reported by wrk."""

    requests: int
    duration_s: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.duration_s


def run_wrk(
    url: str, body: bytes, *, connections: int, seconds: float, headers: Mapping[str, str] = MappingProxyType({})
) -> Load:
    """Post `body` as fast as answers arrive, from the core of the load; only answers complete by the end count."""
    with NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        setting = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        command = [find_wrk(), *setting, "-s", str(POST_LUA), url, "--", file.name, *map(": ".join, headers.items())]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=pin_to(get_cores()[1]), check=False
        )
    if run.returncode or "@@" not in run.stdout:
        raise BenchError(f"wrk failed: {(run.stderr or run.stdout).strip()[-300:]}")
    reported = json.loads(run.stdout.rpartition("@@")[2])
    return Load(
        requests=reported["requests"],
        duration_s=reported["duration_us"] / 1e6,
        errors=sum(reported[kind] for kind in ("connect", "read", "write", "status", "timeout")),
        p50_ms=reported["p50_us"] / 1e3,
        p99_ms=reported["p99_us"] / 1e3,
    )
