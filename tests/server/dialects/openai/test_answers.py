"""Answers on OpenAI's paths: their fields, figures and failures, and the keys of their callers."""

from __future__ import annotations

from pathlib import Path

from tests.support.dialects import COMPLETIONS, CannedUpstream, complete, post, serve_canned, serve_hosts
from tests.support.server import Server
from tests.support.upstream.server import Upstream


class TestTheAnswer:
    async def test_an_answer_has_the_fields_of_both_contracts(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, "text/ok")
        answer = got.json

        assert got.headers["Content-Type"].startswith("application/json")
        assert answer["object"] == "text_completion"
        assert type(answer["created"]) is int
        assert len(answer["id"]) == 36
        (choice,) = answer["choices"]
        wanted = {
            "text": "This is ok.",
            "index": 0,
            "logprobs": None,
            "finish_reason": "stop",
            "model": "text/ok",
            "error": None,
        }
        assert {name: choice[name] for name in wanted} == wanted
        assert choice["created"] == answer["created"]
        counts = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
        assert choice["usage"] == answer["usage"] == counts, "OpenAI's fields alone: clients add up whatever stands here"
        assert type(choice["prediction_time_ms"]) is int

    async def test_totals_sum_what_is_known(self, dialect_server: Server) -> None:
        """Nothing unknown is 0."""
        got = await complete(dialect_server, ["text/ok", "text/no_usage", "text/500"])

        assert got.choices[0]["usage"]["total_tokens"] == 14
        assert [choice["usage"] for choice in got.choices[1:]] == [None, None]
        assert (got.json["usage"]["total_tokens"], got.json["unknown_usage"]) == (14, 1)
        assert (await complete(dialect_server, "text/no_usage")).json["usage"] is None

    async def test_cached_and_reasoning_tokens_are_counted_if_reported(self, tmp_path: Path) -> None:
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 8,
            "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
        choices = [{"index": 0, "text": "hm", "finish_reason": "stop"}]
        async with serve_canned(tmp_path, CannedUpstream(whole={"choices": choices, "usage": usage})) as server:
            got = await complete(server, ["text/a", "text/b"])
        for counted, times in ((got.choices[0]["usage"], 1), (got.json["usage"], 2)):
            assert counted["prompt_tokens_details"] == {"cached_tokens": 4 * times}
            assert counted["completion_tokens_details"] == {"reasoning_tokens": 5 * times}

    async def test_a_refusal_stands_in_the_text(self, tmp_path: Path) -> None:
        message = {"role": "assistant", "content": None, "refusal": "I will not."}
        async with serve_canned(
            tmp_path, CannedUpstream(whole={"choices": [{"message": message, "finish_reason": "stop"}]})
        ) as server:
            assert (await complete(server, "up/m")).choices[0]["text"] == "I will not."

    async def test_no_finish_reason_is_invented(self, dialect_server: Server) -> None:
        (choice,) = (await complete(dialect_server, "text/finish-abort")).choices
        assert (choice["finish_reason"], choice["native_finish_reason"]) == (None, "abort")


class TestFailures:
    async def test_failures_stand_beside_successes(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, ["text/ok", "nobody", "text/500", "text/hang"], timeout_s=0.3)

        assert got.status == 200
        assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error", "error", "timeout"]
        assert [choice["error"] and choice["error"]["code"] for choice in got.choices][1] == "model_not_found"
        assert all(set(choice["error"]) >= {"message", "type", "param", "code"} for choice in got.choices[1:])
        assert "error" not in got.json

    async def test_failures_of_all_calls_have_a_status_by_kind(self, dialect_server: Server) -> None:
        for model, status in (
            ("nobody", 404),
            (["nobody", "nothing"], 404),
            ("text/400", 400),
            ("text/429-s-9", 429),
            ("text/429-code-insufficient_quota", 402),
            ("text/500", 502),
            ("text/401", 502),
            ("text/hang", 504),
            (["nobody", "text/400"], 502),
        ):
            got = await complete(dialect_server, model, timeout_s=0.3)
            assert (got.status, model) == (status, model)
            assert set(got.error) == {"message", "type", "param", "code", "details"}
            assert len(got.error["details"]) == (len(model) if isinstance(model, list) else 1)

    async def test_an_unknown_name_is_reported(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, "nobody")
        assert (got.error["type"], got.error["param"], got.error["code"]) == (
            "invalid_request_error",
            "model",
            "model_not_found",
        )

    async def test_failures_keep_the_text_that_had_arrived(self, upstream: Upstream, tmp_path: Path) -> None:
        """It is the first sample's; of the others nothing is known."""
        odd = {"adapter": "tests.support.adapters.account", "retries": {"attempts": 1}}
        async with serve_hosts(upstream.url, tmp_path, more={"providers": {"odd": odd}}) as server:
            got = await complete(server, ["odd/half", "text/ok"], n=2)
        assert [choice["text"] for choice in got.choices] == ["half an ans", "", "This is ok.", "This is ok."]
        assert [choice["finish_reason"] for choice in got.choices] == ["error", "error", "stop", "stop"]

    async def test_only_failures_that_cost_nothing_may_be_retried(self, dialect_server: Server) -> None:
        """The clients would otherwise pay for a whole fan-out twice."""
        assert (await complete(dialect_server, "text/500")).headers["x-should-retry"] == "false"
        limited = await complete(dialect_server, "text/429-s-9", timeout_s=2)
        assert "x-should-retry" not in limited.headers
        assert limited.headers["Retry-After"] in ("8", "9")


async def test_the_first_answer_can_be_enough(dialect_server: Server) -> None:
    got = await complete(dialect_server, ["text/hang", "text/ok"], return_when="first")
    assert [choice["finish_reason"] for choice in got.choices] == ["error", "stop"]
    assert got.choices[0]["error"]["code"] == "cancelled"


class TestKeys:
    async def test_keys_in_both_headers_must_agree(self, upstream: Upstream, tmp_path: Path) -> None:
        """Konko's and OpenAI's clients send one, Scale's the other."""
        async with serve_hosts(upstream.url, tmp_path, FANOUT_API_KEYS="key-one-abcdefghij,key-two-0123456789") as server:
            bearer, plain = {"Authorization": "Bearer key-one-abcdefghij"}, {"x-api-key": "key-one-abcdefghij"}
            bad = [{}, {"Authorization": "Bearer no"}, {"x-api-key": "no"}, {**bearer, "x-api-key": "key-two-0123456789"}]
            fields = {"model": "text/ok", "prompt": "hi"}
            good = [await post(server, COMPLETIONS, fields, headers) for headers in (bearer, plain, {**bearer, **plain})]
            refused = [await post(server, COMPLETIONS, fields, headers) for headers in bad]

        assert [got.status for got in good] == [200] * 3
        assert [(got.status, got.error["code"]) for got in refused] == [(401, "invalid_api_key")] * 4

    async def test_a_callers_key_goes_to_the_provider_of_its_header(self, upstream: Upstream, tmp_path: Path) -> None:
        """And to no other; nor does it count as a key of this service."""
        own = {"adapter": "openai", "base_url": upstream.url, "key_header": "X-OpenAI-Api-Key", "api_key_env": "ABSENT"}
        async with serve_hosts(
            upstream.url, tmp_path, more={"providers": {"openai": {**own, "default_kind": "text"}}}
        ) as server:
            fields = {"model": ["openai/ok", "up/ok"], "prompt": "hi"}
            got = await post(server, COMPLETIONS, fields, {"X-OpenAI-Api-Key": "sk-mine"})
            without = await post(server, COMPLETIONS, fields)

        assert [choice["finish_reason"] for choice in got.choices] == ["stop", "stop"]
        sent = {request.path: request.headers["authorization"] for request in upstream.requests}
        assert sent["/v1/completions"] == "Bearer sk-mine"
        assert "sk-mine" not in sent["/v1/chat/completions"]
        assert without.choices[0]["error"]["code"] == "provider_not_configured"
