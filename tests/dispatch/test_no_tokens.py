"""`max_tokens: 0`: with `echo` the model scores its prompt; otherwise nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.dialects import get_text, post, serve_hosts
from tests.support.server import Server
from tests.support.upstream.canned import serve_answers

PROMPT = "The return statement"
TOKENS = ["The", " return", " statement"]
SCORED: dict[str, Any] = {"prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 0}
LM_EVAL: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
PATHS = ("/v1/completions", "/v1/completion")
KINDS = {
    "vllm": {},
    "paid": {"clamp": {"max_tokens": [1, None]}},
    "llamacpp": {"drop": ["echo"]},
    "scoreless": {"drop": ["logprobs"]},
}


class ScoringHost:
    """A host that scores prompts as vLLM does, and generates `" is"` if more than 0 tokens are requested."""

    def __init__(self, *, end: bool = False) -> None:
        self.bodies: list[Any] = []
        self._generated = "" if end else " is"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        tokens = TOKENS if body.get("echo") else []
        tokens = tokens if body["max_tokens"] == 0 else [*tokens, self._generated]
        scores = [None, *(-float(place) for place in range(1, len(tokens)))]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": scores,
            "top_logprobs": [None, *({token: -0.5} for token in tokens[1:])],
            "text_offset": [0] * len(tokens),
        }
        choice = {"index": 0, "text": "".join(tokens), "logprobs": logprobs if "logprobs" in body else None}
        # As vLLM, which generates a token even if none is requested.
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        return web.json_response({"model": "m", "choices": [{**choice, "finish_reason": "stop"}], "usage": usage})


@asynccontextmanager
async def serve_scoring(folder: Path, host: ScoringHost) -> AsyncIterator[Server]:
    async with serve_answers(host.answer) as canned:
        common = {"adapter": "openai", "base_url": f"{canned.url}/v1", "default_kind": "text"}
        rows = {name: {**common, "parameters": parameters} for name, parameters in KINDS.items()}
        async with serve_hosts(canned.url, folder, more={"providers": rows}) as server:
            yield server


async def read_choice(server: Server, path: str, stream: bool, **fields: Any) -> tuple[str, Any, dict[str, Any]]:
    """Return the text of the one answer, its log probabilities, and its end."""
    got = await post(server, path, stream=stream, **fields)
    assert got.status == 200, got.body
    if not stream:
        return got.choices[0]["text"], got.choices[0]["logprobs"], got.choices[0]
    pieces = got.choice_pieces(0)
    return get_text(pieces), next((piece["logprobs"] for piece in pieces if piece.get("logprobs")), None), pieces[-1]


@pytest.mark.parametrize("end", [False, True], ids=["word", "end"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("provider", "asked"), [("vllm", 0), ("paid", 1)])
async def test_a_prompt_is_scored_by_a_host_that_takes_no_tokens_and_by_one_that_does_not(
    provider: str, asked: int, path: str, stream: bool, end: bool, tmp_path: Path
) -> None:
    host = ScoringHost(end=end)
    async with serve_scoring(tmp_path, host) as server:
        text, logprobs, ended = await read_choice(server, path, stream, **SCORED, model=f"{provider}/m", strict_parameters=True)

    assert [(body["max_tokens"], body["echo"], body["logprobs"]) for body in host.bodies] == [(asked, True, 1)]
    assert (text, logprobs["tokens"]) == (PROMPT, TOKENS)
    assert logprobs["token_logprobs"] == [None, -1.0, -2.0]
    assert logprobs["top_logprobs"] == [None, {" return": -0.5}, {" statement": -0.5}]
    assert logprobs["text_offset"] == [0, 3, 10]
    assert (ended["ignored_parameters"], ended["adjusted_parameters"], ended["error"]) == ([], {}, None)
    assert ended["finish_reason"] == ("length" if asked else "stop")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("provider", ["llamacpp", "scoreless"])
async def test_a_host_that_cannot_score_prompts_is_not_asked_and_says_so(provider: str, path: str, tmp_path: Path) -> None:
    host = ScoringHost()
    async with serve_scoring(tmp_path, host) as server:
        text, logprobs, ended = await read_choice(server, path, False, **SCORED, model=f"{provider}/m")
        strict = await post(server, path, **SCORED, model=f"{provider}/m", strict_parameters=True)

    assert (text, logprobs, ended["ignored_parameters"], host.bodies) == (PROMPT, None, ["logprobs"], [])
    assert (strict.status, strict.error["code"]) == (400, "unsupported_parameter")
    assert "`logprobs`" in strict.error["message"]


@pytest.mark.parametrize(
    ("provider", "fields", "asked", "ignored"),
    [
        ("vllm", {}, [0], []),
        ("paid", {}, [], ["echo"]),
        ("paid", {"logprobs": 0}, [1], []),
        ("llamacpp", {}, [], ["echo"]),
        ("llamacpp", {"logprobs": 0}, [], ["echo", "logprobs"]),
    ],
)
async def test_token_ids_are_spelled_by_the_model_alone(
    provider: str, fields: dict[str, Any], asked: Sequence[int], ignored: list[str], tmp_path: Path
) -> None:
    host = ScoringHost()
    async with serve_scoring(tmp_path, host) as server:
        got = await post(server, "/v1/completions", model=f"{provider}/m", prompt=[1, 2, 3], echo=True, max_tokens=0, **fields)

    assert [body["max_tokens"] for body in host.bodies] == asked
    assert (got.choices[0]["text"], got.choices[0]["ignored_parameters"]) == (PROMPT if asked else "", ignored)


@pytest.mark.parametrize("fields", [{}, {"echo": True}, {"logprobs": 2}], ids=["alone", "echo", "logprobs"])
@pytest.mark.parametrize("provider", list(KINDS))
async def test_nothing_is_sent_where_the_answer_is_known(provider: str, fields: dict[str, Any], tmp_path: Path) -> None:
    host = ScoringHost()
    async with serve_scoring(tmp_path, host) as server:
        got = await post(server, "/v1/completions", model=f"{provider}/m", prompt=PROMPT, max_tokens=0, **fields)

    lost = ["logprobs"] if provider == "scoreless" and "logprobs" in fields else []
    assert (host.bodies, got.choices[0]["text"]) == ([], PROMPT if "echo" in fields else "")
    assert (got.choices[0]["ignored_parameters"], got.choices[0]["adjusted_parameters"]) == (lost, {})
    assert (got.choices[0]["logprobs"] is None) == ("logprobs" not in fields or bool(lost))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", PATHS)
async def test_the_embedded_models_score_prompts(path: str, stream: bool, tmp_path: Path) -> None:
    asked = {**SCORED, "model": "local/ngram-5"}
    async with serve_scoring(tmp_path, ScoringHost()) as server:
        text, logprobs, _ = await read_choice(server, path, stream, **asked)
        longer = await read_choice(server, path, False, **{**asked, "max_tokens": 2})

    assert (text, "".join(logprobs["tokens"])) == (PROMPT, PROMPT)
    assert logprobs["token_logprobs"][0] is None
    assert all(score < 0 for score in logprobs["token_logprobs"][1:])
    assert longer[1]["token_logprobs"][: len(logprobs["tokens"])] == logprobs["token_logprobs"]


async def test_the_requests_of_lm_eval_are_scored(tmp_path: Path) -> None:
    """Its `local-completions` sends token ids of several prompts, and drops the last token that it had to request."""
    async with serve_scoring(tmp_path, ScoringHost()) as server:
        spelled = await post(server, "/v1/completions", model="local/ngram-5", prompt=PROMPT, **LM_EVAL)
        body = {"model": "local/ngram-5", "prompt": [[5, 6, 7], [8, 9]], **LM_EVAL}
        got = await post(server, "/v1/completions", body)

    assert len(spelled.choices[0]["logprobs"]["tokens"]) == 4
    for choice, length in zip(sorted(got.choices, key=lambda choice: choice["index"]), (3, 2), strict=True):
        scores, tops = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
        assert sum(scores[1:-1]) < 0
        assert len(scores) == length + 1
        assert all(max(top.values()) >= score for score, top in zip(scores[1:-1], tops[1:-1], strict=True))
