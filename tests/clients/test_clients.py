"""The real client packages, unmodified, each in an environment of its own, against a running `fanout serve`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import run_command, serve_fanout
from tests.support.upstream.server import Upstream

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv-clients"
KEY = "a-key-of-ours-0123"
LOCAL = {  # published names → embedded models
    "llama-2-70b": ("ngram-3", "text"),
    "llama-2-7b": ("ngram-2", "text"),
    "llama-2-7b-chat": ("ngram-2", "chat"),
    "meta-llama/llama-2-13b": ("ngram-5", "text"),
    "codellama/codellama-13b-instruct": ("ngram-3", "chat"),
}
SCRIPTED = {  # names → scripts of tests/support/upstream/script.py
    "gpt-6-sol": "ok",
    "gpt-6-luna": "ok",
    "nousresearch/nous-hermes-llama2-13b": "ok",
    "echo": "echo",
    "cut": "cut",
    "slow": "sleep-1.5",
    "always-404": "404",
    "always-429": "429-s-1",
    "always-500": "500",
    "structured": 'say-{"steps":[{"explanation":"subtract 31","output":"8x = 8"}],"final_answer":"x = 1"}',
}


def write_providers_json(upstream: Upstream, folder: Path) -> Path:
    models: dict[str, Any] = {name: {"provider": "local", "id": id_, "kind": kind} for name, (id_, kind) in LOCAL.items()}
    models |= {name: {"provider": "up", "id": script, "kind": "chat"} for name, script in SCRIPTED.items()}
    models["codellama/codellama-13b-instruct"] |= {
        "creator": "Meta",
        "max_context_length": 16384,
        "license_name": "Llama 2",
        "public_endpoint_pricing": "$0.0003 / 1k tokens",
    }
    up = {"adapter": "openai", "base_url": upstream.url, "retries": {"attempts": 1}}
    providers = {"local": {"adapter": "ngram", "default_kind": "both"}, "up": up}
    path = folder / "providers.json"
    path.write_text(
        json.dumps({"extends": False, "providers": providers, "models": models, "default_provider": {"scale": "up"}})
    )
    return path


def has_answer(choice: dict[str, Any]) -> bool:
    """Return whether there is a text, or the model ended before its first word, as an unseeded embedded one may."""
    return bool(choice["text"]) or choice["finish_reason"] == "stop"


async def run_example(client: str, upstream: Upstream, folder: Path, example: str = "", **environ: str) -> dict[str, Any]:
    """Run an example of a client, by default the one of its name, and return its report."""
    python = ENVIRONMENTS / client / "bin" / "python"
    if not python.exists():
        reason = f"the environment of `{client}` is missing: run scripts/clients"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    config = write_providers_json(upstream, folder)
    async with serve_fanout("--config", str(config), FANOUT_API_KEYS=f"acct:{KEY}", **environ) as url:
        script = HERE / "examples" / f"{example or client}_client.py"
        done = await run_command([str(python), str(script)], FANOUT_URL=url, FANOUT_KEY=KEY, HOME=str(folder))
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


async def test_the_thiggle_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("thiggle", upstream, tmp_path)
    example = report["example"]
    assert [choice["model"] for choice in example["choices"]] == ["gpt-6-sol", "llama-2-70b"]
    assert all(
        isinstance(choice["text"], str) and choice["usage"]["completion_tokens"] is not None for choice in example["choices"]
    )
    assert "." not in example["choices"][1]["text"]
    assert example["created"].endswith("Z")
    assert report["one"]["usage"]["completion_tokens"] in range(4)
    assert has_answer(report["partial"]["choices"][0])
    assert report["partial"]["choices"][1]["finish_reason"] == "error"
    assert report["errors"] == {"400": 400, "401": 401, "404": 404, "429": 429, "502": 502}


async def test_the_konko_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("konko", upstream, tmp_path)
    assert has_answer(report["completion"]["choices"][0])
    assert report["completion"]["model"] == "meta-llama/llama-2-13b"
    assert report["chat"]["choices"][0]["message"]["role"] == "assistant"
    assert [(index, model) for index, model, _ in report["several"]] == [(0, "meta-llama/llama-2-13b"), (1, "gpt-6-sol")]
    assert len("".join(report["stream"])) >= 1
    assert report["repetition_penalty"] == []
    assert "codellama/codellama-13b-instruct" in report["models"]
    model = report["model"]
    assert (model["id"], model["is_chat"], model["is_text"]) == ("codellama/codellama-13b-instruct", True, False)
    assert (model["creator"], model["max_context_length"], model["license_name"]) == ("Meta", 16384, "Llama 2")
    assert report["async"]
    assert {status: error[0] for status, error in report["errors"].items()} == {
        "400": "BadRequestError",
        "401": "AuthenticationError",
        "404": "NotFoundError",
        "429": "RateLimitError",
        "502": "InternalServerError",
        "model": "NotFoundError",
    }
    assert report["errors"]["400"][2] == "temperature"
    assert report["errors"]["404"][1] == "model_not_found"


async def test_the_legacy_konko_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("konko_legacy", upstream, tmp_path)
    assert has_answer(report["completion"]["choices"][0])
    assert report["chat"]["choices"][0]["message"]["content"] == "This is ok."
    assert report["stream"]
    assert "meta-llama/llama-2-13b" in report["models"]
    assert report["errors"] == {
        "400": "InvalidRequestError",
        "401": "AuthenticationError",
        "404": "InvalidRequestError",
        "429": "RateLimitError",
        "502": "APIError",
    }


async def test_the_openai_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("openai", upstream, tmp_path)
    assert report["chat"]["choices"][0]["message"]["content"] == "This is ok."
    completion = report["completion"]["choices"][0]
    assert completion["text"].startswith("Say this is")
    assert completion["logprobs"]["token_logprobs"][0] is None
    text, logprobs, generated = report["scored"]
    assert (text, logprobs[0], len(logprobs), generated) == ("Say this is", None, 3, 0)
    assert all(logprob < 0 for logprob in logprobs[1:])
    assert (report["strict_chat"], report["strict_text"]) == (2, 4)
    assert report["strict_models"] == report["azure"]["models"] == len(LOCAL) + len(SCRIPTED)
    assert (report["azure"]["chat"], report["azure"]["bound"]) == (["gpt-6-luna", "This is ok."], "gpt-6-sol")
    assert (report["azure"]["streamed"] > 2, report["azure"]["model"]) == (True, "gpt-6-luna")
    assert report["azure"]["text"].startswith("Say this is")
    assert report["azure"]["vectors"] == 64
    assert report["strict_stream"] > 2
    assert report["stream"]["texts"] == {"0": "This is ok.", "1": "This is ok."}
    assert report["stream"]["tokens"] == 28
    assert report["passed_on"]["tools"][0]["function"]["name"] == "weather"
    assert report["passed_on"]["response_format"] == {"type": "json_object"}
    assert report["response"] == ["completed", "This is ok.", 14]
    assert (report["strict_response"], report["response_streamed"]) == ([2, 0], "This is ok.")
    assert report["unknown_parts"] == [None, None]
    assert report["response_passed_on"]["tools"][0]["function"]["name"] == "weather"
    assert {"response.created", "response.output_text.delta", "response.completed"} <= {*report["response_events"]}
    assert report["embeddings"] == [64, 64]
    assert report["raw"][0] == 200
    assert report["raw"][1]
    assert report["async"]
    assert {status: error[0] for status, error in report["errors"].items()} == {
        "400": "BadRequestError",
        "401": "AuthenticationError",
        "404": "NotFoundError",
        "429": "RateLimitError",
        "502": "InternalServerError",
    }
    assert all(error[3] for error in report["errors"].values())
    assert report["partial"] == [["stop", None], ["error", "server_error"]]
    # The client retries by itself: a header forbids it after a failure upstream, and allows it if nothing was paid.
    assert len(upstream.requests_for("500")) == 2  # one for the error, one beside a healthy model
    assert len(upstream.requests_for("429-s-1")) == 3


async def test_the_openai_clients_examples_of_responses_work(upstream: Upstream, tmp_path: Path) -> None:
    kept = {"FANOUT_HISTORY": "full", "FANOUT_STORE": str(tmp_path / "fanout.db")}
    report = await run_example("openai", upstream, tmp_path, "openai_responses", **kept)
    assert report["text"] == ["This is ok.", "completed", None]
    assert [part["type"] for part in report["image"]] == ["text", "image_url"]
    assert (report["stream"][0], report["stream"][-1]) == ("response.created", "response.completed")
    assert report["stream"].count("response.output_text.delta") == 4
    assert report["async"] == report["request_id"] == "This is ok."
    assert report["parsed"]["steps"] == [{"explanation": "subtract 31", "output": "8x = 8"}]
    assert report["parsed"]["final_answer"] == report["parsed_event"] == report["parsed_stream"] == "x = 1"
    assert report["format_sent"]["response_format"] == {"type": "text"}
    assert report["tools"] == "GetWeather"
    assert report["went_on"] == ["user", "assistant", "user"]
    assert report["retrieved"] == [True, report["first"]]
    assert report["missing"] == "not_found"


async def test_batches_of_the_openai_client_work(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("openai", upstream, tmp_path, "openai_batch")
    assert (report["file"]["purpose"], report["file"]["status"]) == ("batch", "processed")
    assert report["created"]["status"] == "validating"
    assert (report["done"]["status"], report["done"]["metadata"]) == ("completed", {"description": "nightly eval job"})
    assert report["done"]["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
    answered = [(line["custom_id"], line["entry"], line["response"]["body"]["model"]) for line in report["output"]]
    assert answered == [("request-1", 0, "gpt-6-luna"), ("request-2", 0, "gpt-6-luna"), ("request-2", 1, "gpt-6-sol")]
    assert {line["response"]["body"]["choices"][0]["message"]["content"] for line in report["output"]} == {"This is ok."}
    assert [(line["custom_id"], line["response"]["status_code"]) for line in report["errors"]] == [("request-3", 502)]
    assert report["failed"]["status"] == "failed"
    assert [(error["line"], error["param"]) for error in report["failed"]["errors"]["data"]] == [(1, "model")]
    assert report["cancelled"] == ["cancelled", ["batch_cancelled"]]
    assert report["expired"] == ["expired", ["batch_expired"]]
    assert len(report["listed"]) == 4
    assert (report["files"], report["deleted"], report["gone"]) == (4, True, "file_not_found")


async def test_the_scale_gp_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("scale_gp", upstream, tmp_path)
    assert report["completion"]["token_usage"]["completion"] in range(9)
    assert report["strict"]["completion"]["text"] == "This is ok."
    assert '"image_url"' in report["full"]["completion"]["text"]
    assert '"temperature":0.2' in report["full"]["completion"]["text"].replace(" ", "")
    assert "".join(report["stream"]) == "This is ok."
    assert report["chat"]["chat_completion"]["message"]["role"] == "assistant"
    assert len(report["models"]) == 3
    assert {status: error[0] for status, error in report["errors"].items()} == {
        "422": "UnprocessableEntityError",
        "list": "UnprocessableEntityError",
        "404": "NotFoundError",
        "429": "RateLimitError",
        "502": "InternalServerError",
        "401": "AuthenticationError",
    }
    assert report["custom"]["completion"]["text"] == "mine"
    assert "before the answer was whole" in report["cut"]


async def test_the_scale_egp_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("scale_egp", upstream, tmp_path)
    assert report["completion"] == ["This is ok.", "stop", 14]
    assert "".join(report["stream"]) == "This is ok."
    assert report["no_account"] == "acct"
    assert {status: error[1] for status, error in report["errors"].items()} == {
        "422": 422,
        "404": 404,
        "429": 429,
        "502": 502,
        "401": 401,
    }


async def test_the_langchain_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("langchain", upstream, tmp_path)
    assert report["chat"] == ["This is ok.", 14, "stop"]
    assert "".join(report["stream"]) == "This is ok."
    assert report["batch"] == ["This is ok."] * 3
    assert report["text"] == "This is ok."
    assert "".join(report["text_stream"]) == "This is ok."
    assert report["responses"] == ["This is ok.", 14]
    assert report["responses_stream"] == "This is ok."


async def test_an_evaluation_of_inspect_runs_with_its_default_provider(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("inspect", upstream, tmp_path)
    assert (report["default"]["status"], report["default"]["error"], report["default"]["score"]) == ("success", None, 1.0)
    assert report["default"]["texts"] == ["This is ok."] * 3
    # Of the reasoning nothing is known, of the embedded models that there is none.
    assert report["default"]["tokens"] == [30, 12, None]
    responses = report["responses"]
    assert (responses["status"], responses["tokens"][2], len(responses["stops"])) == ("success", 0, 3)
    assert set(responses["stops"]) <= {"stop", "max_tokens"}


async def test_the_pydantic_ai_client_works(upstream: Upstream, tmp_path: Path) -> None:
    report = await run_example("pydantic_ai", upstream, tmp_path)
    for model in ("chat", "responses"):
        assert report[model] == ["This is ok.", 10, 4]
        assert report[f"{model}_again"] == report[f"{model}_stream"] == "This is ok."
