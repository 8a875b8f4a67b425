"""Scale's paths: one model, one answer, a body that every one of its clients reads, a stream without `[DONE]`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fanout.server.dialects.scale.completions import DEADLINE_S
from tests.support.client import Reply
from tests.support.dialects import SCALE, CannedUpstream, build_delta, complete_scale, post, serve_canned, serve_hosts
from tests.support.server import Server
from tests.support.upstream.server import Upstream

LOCAL = "local/ngram-2"
CHAT = "/v4/chat-completions"
HI = [{"role": "user", "content": "hi"}]


def read_text(got: Reply) -> str:
    """Return the text of a whole answer."""
    assert got.status == 200, got.body
    return str(got.json["completion"]["text"])


async def read_upstream_request(server: Server, upstream: Upstream, model: str = "up/echo", **fields: Any) -> Any:
    """Send a request and return the body that arrives upstream."""
    got = await complete_scale(server, model, **fields)
    assert got.status == 200, got.body
    return upstream.requests[-1].body


@pytest.mark.parametrize("version", ["v2", "v3", "v4"])
async def test_all_versions_of_the_path_give_the_same_answer(version: str, dialect_server: Server) -> None:
    got = await complete_scale(dialect_server, "up/ok", path=f"/{version}/completions")
    assert got.status == 200
    assert got.json == {
        "completion": {"text": "This is ok.", "finish_reason": "stop", "response_metadata": None},
        "token_usage": {"prompt": 10, "completion": 4, "total": 14},
    }


class TestParameters:
    async def test_parameters_reach_the_provider_under_its_own_names(self, dialect_server: Server, upstream: Upstream) -> None:
        parameters = {
            "temperature": 0.5,
            "max_tokens": 10,
            "stop_sequences": ["\n", "x"],
            "topP": 0.9,
            "topK": 5,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "reasoning_effort": "low",
            "unheard_of": 1,
        }
        body = await read_upstream_request(dialect_server, upstream, "wide/echo", model_parameters=parameters, something_else=1)
        assert body == {
            "model": "echo",
            "stream": False,
            "prompt": "hi",
            "temperature": 0.5,
            "max_tokens": 10,
            "stop": ["\n", "x"],
            "top_p": 0.9,
            "top_k": 5,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "reasoning_effort": "low",
        }

    async def test_parameters_are_accepted_in_both_spellings(self, dialect_server: Server, upstream: Upstream) -> None:
        spellings = [
            {"top_p": 0.9, "top_k": 5},
            {"top_p": 0.9, "topP": 0.9, "topK": 5},
            {"topP": None, "top_p": 0.9, "top_k": 5},
        ]
        for parameters in spellings:
            body = await read_upstream_request(dialect_server, upstream, "wide/echo", model_parameters=parameters)
            assert (body["top_p"], body["top_k"]) == (0.9, 5)
        for clashing, field in (({"topP": 0.1, "top_p": 0.9}, "top_p"), ({"topK": 1, "top_k": 5}, "top_k")):
            got = await complete_scale(dialect_server, "up/ok", model_parameters=clashing)
            assert (got.status, got.error["param"]) == (422, f"model_parameters.{field}")

    async def test_null_parameters_are_not_sent(self, dialect_server: Server, upstream: Upstream) -> None:
        """scale-egp sends all its fields."""
        nothing = {"images": None, "model_parameters": None, "account_id": None, "stream": False}
        assert await read_upstream_request(dialect_server, upstream, "text/echo", **nothing) == {
            "model": "echo",
            "stream": False,
            "prompt": "hi",
            "temperature": 0.2,
        }
        nulls = dict.fromkeys(("temperature", "max_tokens", "stop_sequences", "topP", "topK", "frequency_penalty"))
        body = await read_upstream_request(dialect_server, upstream, "text/echo", model_parameters=nulls)
        assert body == {"model": "echo", "stream": False, "prompt": "hi", "temperature": 0.2}

    async def test_the_default_temperature_is_dropped_if_the_model_cannot_take_it(self, dialect_server: Server) -> None:
        """Silently: the caller did not set it."""
        got = await complete_scale(dialect_server, "poor/echo")
        assert "temperature" not in read_text(got)
        assert got.json["completion"]["response_metadata"] is None

    async def test_unsupported_parameters_are_named_in_the_metadata(self, dialect_server: Server) -> None:
        got = await complete_scale(dialect_server, LOCAL, model_parameters={"reasoning_effort": "low", "max_tokens": 3})
        assert got.json["completion"]["response_metadata"]["ignored_parameters"] == ["reasoning_effort"]

    async def test_every_parameter_has_its_range(self, dialect_server: Server) -> None:
        """0 to 1 for the temperature, as Scale has it."""
        wrong = []
        ranges: tuple[tuple[str, list[Any], list[Any]], ...] = (
            ("temperature", [0, 1, 0.5], [-0.1, 1.1, "1"]),
            ("max_tokens", [0, 1], [-1, 1.5]),
            ("stop_sequences", [[], ["a"], ["a"] * 4], ["a", ["a"] * 5, [1]]),
            ("topP", [0, 1], [-0.1, 1.1]),
            ("topK", [-1, 5], [-2, 1.5]),
            ("reasoning_effort", ["low", "high"], ["much", 1]),
            ("frequency_penalty", [5], ["much"]),
        )
        for field, good, bad in ranges:
            for value in good:
                got = await complete_scale(dialect_server, LOCAL, model_parameters={"max_tokens": 1, field: value})
                wrong += [] if got.status == 200 else [(field, value, got.body)]
            for value in bad:
                got = await complete_scale(dialect_server, LOCAL, model_parameters={field: value})
                named = got.status == 422 and str(got.error["param"]).startswith(f"model_parameters.{field}")
                wrong += [] if named else [(field, value, got.body)]
        assert wrong == []


class TestErrors:
    """`detail` for Scale's own clients, `error` for all others."""

    def check(self, got: Reply, status: int, param: str | None = None) -> None:
        assert got.status == status, got.body
        assert isinstance(got.json["detail"], str)
        assert got.json["detail"] == got.error["message"]
        assert set(got.error) >= {"message", "type", "param", "code"}
        assert param is None or got.error["param"] == param

    async def test_wrong_fields_are_422(self, dialect_server: Server) -> None:
        good = {"model": LOCAL, "prompt": "hi"}
        for param, fields in (
            ("model", {"model": ["a", "b"]}),
            ("model", {"model": ""}),
            ("model", {"model": None}),
            ("prompt", {"prompt": None}),
            ("prompt", {"prompt": ["hi"]}),
            ("account_id", {"account_id": 5}),
            ("images", {"images": "https://example.com/a.png"}),
            ("images[0].image_url", {"images": [{}]}),
            ("stream", {"stream": "yes"}),
            ("model_parameters", {"model_parameters": []}),
        ):
            self.check(await post(dialect_server, SCALE, {**good, **fields}), 422, param)
        for missing in good:
            body = {name: value for name, value in good.items() if name != missing}
            self.check(await post(dialect_server, SCALE, body), 422, missing)

    async def test_failures_of_models_have_a_status_by_kind(self, dialect_server: Server) -> None:
        self.check(await complete_scale(dialect_server, "nobody"), 404, "model")
        self.check(await complete_scale(dialect_server, "up/400"), 400)
        self.check(await complete_scale(dialect_server, "up/500"), 502)
        self.check(await complete_scale(dialect_server, "up/429-s-57"), 429)
        self.check(await complete_scale(dialect_server, "nobody", stream=True), 404, "model")

    async def test_errors_of_the_request_have_the_same_body(self, upstream: Upstream, tmp_path: Path) -> None:
        async with serve_hosts(
            upstream.url, tmp_path, FANOUT_API_KEYS="key-one-abcdefghij", FANOUT_MAX_BODY_BYTES="2000"
        ) as server:
            key = {"x-api-key": "key-one-abcdefghij"}
            fields = {"model": "up/ok", "prompt": "hi"}
            self.check(await post(server, SCALE, fields), 401)
            self.check(await post(server, SCALE, fields, {**key, "Authorization": "Bearer other"}), 401)
            self.check(await post(server, SCALE, {**fields, "prompt": "x" * 3000}, key), 413)
            self.check(await post(server, "/v4/nowhere", fields, key), 404)
            async with server.session.get(SCALE, headers=key) as response:
                self.check(Reply(response.status, response.headers, await response.read()), 405)
            async with server.session.post(SCALE, data="model=x", headers={**key, "Content-Type": "text/plain"}) as response:
                self.check(Reply(response.status, response.headers, await response.read()), 415)
            assert (await post(server, SCALE, fields, key)).status == 200

    async def test_clients_do_not_retry_what_was_paid_for(self, dialect_server: Server) -> None:
        assert (await complete_scale(dialect_server, "up/500")).headers["x-should-retry"] == "false"


async def test_a_set_is_refused_because_one_model_answers(upstream: Upstream, tmp_path: Path) -> None:
    """This shape has no place for its answers."""
    async with serve_hosts(upstream.url, tmp_path, more={"sets": {"both": ["ok", "ok-text"], "one": ["ok"]}}) as server:
        got = await complete_scale(server, "both")
        assert (got.status, got.error["param"], upstream.requests) == (422, "model", [])
        assert read_text(await complete_scale(server, "one")) == "This is ok."


async def test_an_unknown_id_goes_to_the_provider_for_those(upstream: Upstream, tmp_path: Path) -> None:
    """Scale's custom models; names that are known stay what they are."""
    async with serve_hosts(upstream.url, tmp_path, more={"default_provider": {"scale": "text"}}) as server:
        assert read_text(await complete_scale(server, "say-mine")) == "mine"
        assert read_text(await complete_scale(server, "OK")) == "This is ok."
        assert read_text(await complete_scale(server, "up/say-yours")) == "yours"
    paths = [request.path for request in upstream.requests]
    assert paths == ["/v1/completions", "/v1/chat/completions", "/v1/chat/completions"]


class TestImages:
    async def test_images_become_parts_of_one_message(self, dialect_server: Server, upstream: Upstream) -> None:
        """Objects, as the clients send them, or addresses alone, as the page says."""
        images = [
            {"image_url": "https://example.com/a.png", "detail": "low"},
            "https://example.com/b.png",
            {"image_url": "c", "detail": None},
        ]
        body = await read_upstream_request(dialect_server, upstream, prompt="What?", images=images)
        assert body["messages"] == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/b.png", "detail": "auto"}},
                    {"type": "image_url", "image_url": {"url": "c"}},
                ],
            }
        ]

    async def test_images_are_refused_by_a_model_that_takes_none(self, dialect_server: Server, upstream: Upstream) -> None:
        for model in (LOCAL, "text/ok"):
            got = await complete_scale(dialect_server, model, images=["https://example.com/a.png"])
            assert (got.status, got.error["param"]) == (422, "images")
        assert upstream.requests == []
        assert (await complete_scale(dialect_server, "text/ok", images=[])).status == 200


async def test_the_account_in_the_body_takes_precedence_over_the_one_in_the_header(upstream: Upstream, tmp_path: Path) -> None:
    accounts = {"adapter": "tests.support.adapters.account"}
    header = {"x-selected-account-id": "header"}
    async with serve_hosts(upstream.url, tmp_path, more={"providers": {"accounts": accounts}}) as server:
        for account, fields, headers in (
            ("body", {"account_id": "body"}, header),
            ("header", {"account_id": None}, header),
            ("None", {}, None),
        ):
            body = {"model": "accounts/any", "prompt": "hi", **fields}
            assert read_text(await post(server, SCALE, body, headers)) == account
            streamed = await post(server, SCALE, {**body, "stream": True}, headers)
            assert "".join(event["completion"]["text"] for event in streamed.events) == account
        got = await post(server, "/v1/completions", {"model": "accounts/any", "prompt": "hi"}, header)
    assert got.choices[0]["text"] == "header"


class TestDeadline:
    def test_the_deadline_is_below_that_of_the_clients(self) -> None:
        assert DEADLINE_S == 55

    async def test_no_retry_is_waited_for_past_the_deadline(self, dialect_server: Server, upstream: Upstream) -> None:
        """The provider asks for 57 s."""
        got = await complete_scale(dialect_server, "up/429-s-57-then-ok")
        assert (got.status, len(upstream.requests)) == (429, 1)
        assert 55 <= int(got.headers["Retry-After"]) <= 57


class TestStreams:
    async def test_a_stream_has_unnamed_events_and_ends_with_the_body(self, dialect_server: Server) -> None:
        got = await complete_scale(dialect_server, "up/chunks-3", stream=True)

        assert got.headers["Content-Type"].startswith("text/event-stream")
        assert b"[DONE]" not in got.body
        assert b"event:" not in got.body
        *pieces, last = got.events
        assert [piece["completion"]["text"] for piece in pieces] == ["w0 ", "w1 ", "w2 "]
        assert {piece["token_usage"] for piece in pieces} == {None}
        assert {piece["completion"]["finish_reason"] for piece in pieces} == {None}
        assert last == {
            "completion": {"text": "", "finish_reason": "stop", "response_metadata": None},
            "token_usage": {"prompt": 10, "completion": 4, "total": 14},
        }

    async def test_a_broken_stream_ends_with_an_error_event(self, dialect_server: Server) -> None:
        """scale-gp raises for it; what had arrived stays."""
        got = await complete_scale(dialect_server, "up/chunks-4-cut", stream=True)
        *pieces, last, rest = got.body.decode().split("\n\n")
        assert rest == ""
        assert [piece.count("completion") for piece in pieces] == [1, 1]
        assert last.startswith("event: error\ndata: ")
        failure = got.events[-1]
        assert failure["detail"] == failure["error"]["message"]
        assert failure["error"]["kind"] == "network"

    async def test_a_stream_without_reported_usage_has_none(self, dialect_server: Server) -> None:
        assert (await complete_scale(dialect_server, "up/no_usage", stream=True)).events[-1]["token_usage"] is None
        assert (await complete_scale(dialect_server, "up/no_usage")).json["token_usage"] is None

    async def test_a_refusal_is_streamed_as_text(self, tmp_path: Path) -> None:
        whole = {"choices": [{"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}]}
        chunks = [build_delta(refusal="I will not."), build_delta("stop")]
        async with serve_canned(tmp_path, CannedUpstream(whole=whole, chunks=chunks)) as server:
            assert read_text(await complete_scale(server, "up/m")) == "I will not."
            streamed = (await complete_scale(server, "up/m", stream=True)).events
        assert "".join(event["completion"]["text"] for event in streamed) == "I will not."

    async def test_an_unknown_finish_reason_is_given_as_it_is(self, dialect_server: Server) -> None:
        assert (await complete_scale(dialect_server, "up/finish-abort")).json["completion"]["finish_reason"] == "abort"
        assert (await complete_scale(dialect_server, "up/finish-abort", stream=True)).events[-1]["completion"][
            "finish_reason"
        ] == "abort"


class TestChatCompletions:
    async def test_a_chat_completion_is_a_message(self, dialect_server: Server) -> None:
        got = await post(dialect_server, CHAT, model="up/ok", messages=HI)
        assert got.json == {
            "chat_completion": {
                "message": {"role": "assistant", "content": "This is ok."},
                "finish_reason": "stop",
                "response_metadata": None,
            },
            "token_usage": {"prompt": 10, "completion": 4, "total": 14},
        }

    async def test_chat_completions_are_streamed_as_messages(self, dialect_server: Server) -> None:
        got = await post(dialect_server, CHAT, model="up/chunks-2", messages=HI, stream=True)
        *pieces, last = (event["chat_completion"] for event in got.events)
        assert [piece["message"]["content"] for piece in pieces] == ["w0 ", "w1 "]
        assert (last["message"]["content"], last["finish_reason"]) == ("", "stop")

    async def test_instructions_and_the_last_k_messages_are_sent(self, dialect_server: Server, upstream: Upstream) -> None:
        messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"content": "three"}]
        memory = {"name": "last_k", "params": {"k": 2}}
        fields: dict[str, Any] = {"instructions": "Be brief.", "memory_strategy": memory, "chat_template": "{{ messages }}"}
        got = await post(dialect_server, CHAT, model="up/echo", messages=messages, **fields)
        assert got.status == 200
        assert upstream.requests[0].body == {
            "model": "echo",
            "stream": False,
            "temperature": 0.2,
            "chat_template": "{{ messages }}",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"},
            ],
        }

    async def test_images_are_accepted_by_address_or_as_data(self, dialect_server: Server, upstream: Upstream) -> None:
        parts = [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
            {"type": "image_data", "image_data": {"data": "AA==", "media_type": "image/png", "type": "base64"}},
        ]
        messages = [{"role": "user", "content": parts}]
        assert (await post(dialect_server, CHAT, model="up/echo", messages=messages)).status == 200
        assert upstream.requests[0].body["messages"][0]["content"] == [
            parts[0],
            parts[1],
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        ]
        got = await post(dialect_server, CHAT, model=LOCAL, messages=messages)
        assert (got.status, got.error["param"]) == (422, "images")

    async def test_malformed_messages_are_422(self, dialect_server: Server) -> None:
        for param, fields in (
            ("messages", {"messages": []}),
            ("messages[0].role", {"messages": [{"role": "tool", "content": "x"}]}),
            ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
            ("messages[0].content", {"messages": [{"role": "user", "content": None}]}),
            ("messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            ("memory_strategy.params.k", {"memory_strategy": {"params": {"k": 0}}}),
        ):
            got = await post(dialect_server, CHAT, {"model": LOCAL, "messages": HI, **fields})
            assert (got.status, got.error["param"]) == (422, param)
            assert got.json["detail"]

    async def test_a_model_without_chat_is_refused(self, dialect_server: Server) -> None:
        got = await post(dialect_server, CHAT, model="ok-text", messages=HI)
        assert (got.status, got.error["code"]) == (400, "unsupported_endpoint")


class TestLookingUp:
    async def test_models_come_in_pages(self, dialect_server: Server) -> None:
        async with dialect_server.session.get("/v4/models", params={"limit": 10, "page": 2, "account_id": "acct"}) as response:
            page = await response.json()
        async with dialect_server.session.get("/v4/models", params={"limit": 10_000}) as response:
            everything = await response.json()
        async with dialect_server.session.get("/v4/models", params={"page": 99}) as response:
            beyond = await response.json()

        assert page["items"] == [{**item, "account_id": "acct"} for item in everything["items"][10:20]]
        assert (page["current_page"], page["items_per_page"]) == (2, 10)
        assert page["total_item_count"] == len(everything["items"]) > 60
        assert beyond["items"] == []
        one = everything["items"][0]
        assert {one["id"], one["name"], one["display_name"]} == {"ok"}
        assert datetime.fromisoformat(one["created_at"]).tzinfo
        kinds = {item["id"]: item["model_type"] for item in everything["items"]}
        assert (kinds["ok"], kinds["ok-text"]) == ("CHAT_COMPLETION", "COMPLETION")

    async def test_an_invalid_page_is_refused(self, dialect_server: Server) -> None:
        for params in ({"page": "0"}, {"page": "x"}, {"limit": "10001"}, {"limit": "-1"}, {"page": "9" * 30}):
            async with dialect_server.session.get("/v4/models", params=params) as response:
                body = await response.json()
                assert (response.status, body["error"]["param"]) == (422, next(iter(params)))
                assert isinstance(body["detail"], str)

    async def test_the_user_is_the_account(self, dialect_server: Server) -> None:
        """scale-egp asks for it where it was given no account, and needs all of these."""
        async with dialect_server.session.get("/user-info", headers={"x-selected-account-id": "acct"}) as response:
            named = await response.json()
        async with dialect_server.session.get("/user-info") as response:
            unnamed = await response.json()

        assert set(named) == {"id", "email", "first_name", "last_name", "access_profiles"}
        assert named["access_profiles"] == [{"role": "admin", "account": {"id": "acct", "name": "acct"}}]
        assert unnamed["access_profiles"][0]["account"]["id"] == "default"
