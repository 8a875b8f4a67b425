"""Entries of `model` on OpenAI's paths, and fields that only some providers know."""

from __future__ import annotations

from pathlib import Path

from tests.support.dialects import complete, serve_hosts
from tests.support.server import Server
from tests.support.upstream.server import Upstream

LOCAL = "local/ngram-2"


class TestUnknownFields:
    async def test_unknown_fields_go_to_hosts_of_this_format_and_are_ignored_elsewhere(self, dialect_server: Server) -> None:
        fields = {"guided_regex": "[a-z]+", "min_p": 0.1, "metadata": {"a": ["b"]}}

        got = await complete(dialect_server, ["text/echo", "up/echo"], **fields)
        embedded = await complete(dialect_server, LOCAL, **fields)

        assert [{name: body[name] for name in fields} for body in got.upstream_bodies] == [fields, fields]
        assert [choice["ignored_parameters"] for choice in got.choices] == [[], []]
        assert sorted(embedded.choices[0]["ignored_parameters"]) == sorted(fields)

    async def test_unknown_fields_fail_a_strict_entry_that_cannot_take_them(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, ["text/ok", LOCAL], min_p=0.1, strict_parameters=True)
        assert got.status == 200
        assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error"]
        assert (got.choices[1]["error"]["code"], got.choices[1]["error"]["param"]) == ("unsupported_parameter", "min_p")

    async def test_unknown_fields_that_are_null_are_not_sent(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, [LOCAL, "text/ok"], min_p=None, strict_parameters=True)
        assert [choice["error"] for choice in got.choices] == [None, None]

    async def test_unknown_fields_cannot_change_the_model_or_the_prompt(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, LOCAL, messages=[])
        assert (got.status, got.error["param"]) == (400, "messages")

    async def test_the_number_of_unknown_fields_is_limited(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, LOCAL, **{f"field_{number}": 1 for number in range(100)})
        assert got.status == 400


class TestEntries:
    async def test_entries_may_override_the_requests_parameters(self, dialect_server: Server) -> None:
        mine = {"model": "text/echo", "temperature": 0, "stop": None, "min_p": 0.2, "label": "cold"}

        got = await complete(dialect_server, [mine, "text/echo"], temperature=1, stop="x", min_p=0.1)

        assert [(body["temperature"], body.get("stop"), body["min_p"]) for body in got.upstream_bodies] == [
            (0, None, 0.2),
            (1, ["x"], 0.1),
        ]
        assert [choice["label"] for choice in got.choices] == ["cold", "text/echo"]
        assert [choice["model"] for choice in got.choices] == ["text/echo"] * 2

    async def test_entries_may_take_back_a_passed_on_field(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, [{"model": "text/echo", "min_p": None}, "text/echo"], min_p=0.1)
        assert [body.get("min_p") for body in got.upstream_bodies] == [None, 0.1]

    async def test_entries_cannot_hold_fields_of_the_whole_request(self, dialect_server: Server) -> None:
        for field in ("stream", "stream_options", "strict_parameters", "timeout_s", "return_when", "prompt", "messages"):
            got = await complete(dialect_server, [LOCAL, {"model": LOCAL, field: None}])
            assert (got.status, got.error["param"]) == (400, f"model[1].{field}")

    async def test_entries_of_the_same_model_are_distinct(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, ["text/ok", "text/ok"])
        assert [(choice["index"], choice["entry"]) for choice in got.choices] == [(0, 0), (1, 1)]
        assert got.json["model"] == "text/ok,text/ok"

    async def test_an_entry_may_be_a_set(self, upstream: Upstream, tmp_path: Path) -> None:
        more = {"sets": {"both": ["text/ok", "up/ok"]}}
        async with serve_hosts(upstream.url, tmp_path, more=more) as server:
            got = await complete(server, ["Both", "local/ngram-2"], max_tokens=1)
        assert [choice["model"] for choice in got.choices] == ["text/ok", "up/ok", "local/ngram-2"]
        assert [choice["entry"] for choice in got.choices] == [0, 1, 2]


async def test_names_are_echoed_as_the_caller_wrote_them(dialect_server: Server) -> None:
    """By them the caller finds the answers again."""
    got = await complete(dialect_server, ["OK-Text", {"model": "oK", "label": "mine"}])
    assert [choice["model"] for choice in got.choices] == ["OK-Text", "oK"]
    assert got.json["model"] == "OK-Text,mine"
    assert (await complete(dialect_server, "OK-Text")).json["model"] == "OK-Text"
