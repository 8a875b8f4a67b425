"""What entries of `model` may ask on OpenAI's paths, and what becomes of fields that only some providers know."""

from __future__ import annotations

from pathlib import Path

from tests.support.dialects import complete, house
from tests.support.server import Server
from tests.support.upstreams import Upstream

LOCAL = "local/ngram-2"


class TestUnknownFields:
    async def test_unknown_fields_go_to_hosts_of_this_format_and_are_ignored_elsewhere(self, served: Server) -> None:
        fields = {"guided_regex": "[a-z]+", "min_p": 0.1, "metadata": {"a": ["b"]}}

        got = await complete(served, ["text/echo", "up/echo"], **fields)
        embedded = await complete(served, LOCAL, **fields)

        assert [{name: body[name] for name in fields} for body in got.sent] == [fields, fields]
        assert [choice["ignored_parameters"] for choice in got.choices] == [[], []]
        assert sorted(embedded.choices[0]["ignored_parameters"]) == sorted(fields)

    async def test_unknown_fields_fail_a_strict_entry_that_cannot_take_them(self, served: Server) -> None:
        got = await complete(served, ["text/ok", LOCAL], min_p=0.1, strict_parameters=True)
        assert got.status == 200
        assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error"]
        assert (got.choices[1]["error"]["code"], got.choices[1]["error"]["param"]) == ("unsupported_parameter", "min_p")

    async def test_unknown_fields_that_are_null_are_not_sent(self, served: Server) -> None:
        got = await complete(served, [LOCAL, "text/ok"], min_p=None, strict_parameters=True)
        assert [choice["error"] for choice in got.choices] == [None, None]

    async def test_unknown_fields_cannot_change_the_model_or_the_prompt(self, served: Server) -> None:
        got = await complete(served, LOCAL, messages=[])
        assert (got.status, got.error["param"]) == (400, "messages")

    async def test_the_number_of_unknown_fields_is_limited(self, served: Server) -> None:
        got = await complete(served, LOCAL, **{f"field_{number}": 1 for number in range(100)})
        assert got.status == 400


class TestEntries:
    async def test_entries_may_override_the_requests_parameters(self, served: Server) -> None:
        mine = {"model": "text/echo", "temperature": 0, "stop": None, "min_p": 0.2, "label": "cold"}

        got = await complete(served, [mine, "text/echo"], temperature=1, stop="x", min_p=0.1)

        assert [(body["temperature"], body.get("stop"), body["min_p"]) for body in got.sent] == [
            (0, None, 0.2),
            (1, ["x"], 0.1),
        ]
        assert [choice["label"] for choice in got.choices] == ["cold", "text/echo"]
        assert [choice["model"] for choice in got.choices] == ["text/echo"] * 2

    async def test_entries_may_take_back_a_passed_on_field(self, served: Server) -> None:
        got = await complete(served, [{"model": "text/echo", "min_p": None}, "text/echo"], min_p=0.1)
        assert [body.get("min_p") for body in got.sent] == [None, 0.1]

    async def test_entries_cannot_hold_fields_of_the_whole_request(self, served: Server) -> None:
        for field in ("stream", "stream_options", "strict_parameters", "timeout_s", "return_when", "prompt", "messages"):
            got = await complete(served, [LOCAL, {"model": LOCAL, field: None}])
            assert (got.status, got.error["param"]) == (400, f"model[1].{field}")

    async def test_entries_of_the_same_model_are_distinct(self, served: Server) -> None:
        got = await complete(served, ["text/ok", "text/ok"])
        assert [(choice["index"], choice["entry"]) for choice in got.choices] == [(0, 0), (1, 1)]
        assert got.json["model"] == "text/ok,text/ok"

    async def test_an_entry_may_be_a_set(self, upstream: Upstream, tmp_path: Path) -> None:
        more = {"sets": {"both": ["text/ok", "up/ok"]}}
        async with house(upstream.url, tmp_path, more=more) as server:
            got = await complete(server, ["Both", "local/ngram-2"], max_tokens=1)
        assert [choice["model"] for choice in got.choices] == ["text/ok", "up/ok", "local/ngram-2"]
        assert [choice["entry"] for choice in got.choices] == [0, 1, 2]


async def test_names_are_echoed_as_the_caller_wrote_them(served: Server) -> None:
    """By them the caller finds the answers again."""
    got = await complete(served, ["OK-Text", {"model": "oK", "label": "mine"}])
    assert [choice["model"] for choice in got.choices] == ["OK-Text", "oK"]
    assert got.json["model"] == "OK-Text,mine"
    assert (await complete(served, "OK-Text")).json["model"] == "OK-Text"
