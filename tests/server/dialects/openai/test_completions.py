"""`POST /v1/completions`, field by field: ranges, defaults, nulls, what is sent upstream, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.dialects import COMPLETIONS, CannedUpstream, complete, post, serve_canned
from tests.support.server import Server
from tests.support.upstream.server import Upstream

LOCAL = "local/ngram-2"
INT64 = 2**63
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "max_tokens": ([0, 1, 1000], [-1, 1.5, "1", True]),
    "stream": ([False], ["yes", 1]),
    "stop": (["a", ["a"], ["a", "b", "c", "d"], []], [["a"] * 5, 1, [1]]),
    "temperature": ([0, 0.0, 1, 2], [-0.1, 2.1, "1", True]),
    "top_p": ([0, 0.5, 1], [-0.1, 1.1]),
    "top_k": ([-1, 0, 50], [-2, 1.5]),
    "frequency_penalty": ([-2, 0, 2], [-2.1, 2.1]),
    "presence_penalty": ([-2, 0, 2], [-2.1, 2.1]),
    "repetition_penalty": ([-2, 0, 1.1, 2], [-2.1, 2.1]),
    "logit_bias": ([{}, {"1": -100}, {"1": 100}], [{"1": 101}, {"1": -101}, {"1": "x"}, [1]]),
    "logprobs": ([0, 5], [-1, 6, True]),
    "n": ([1, 3.0], [0, 129, -1, 1.5]),
    "best_of": ([0, 1, 20], [-1, 21]),
    "echo": ([True, False], ["true", 1]),
    "seed": ([-INT64, INT64 - 1], [-INT64 - 1, INT64, 1.5, "1"]),
    "suffix": ([" end", ""], [1]),
    "user": (["me"], [1]),
    "strict_parameters": ([False, True], [1]),
    "timeout_s": ([1, 0.5, 600], [0, -1, 601, "1"]),
    "return_when": (["all", "first", 1], [0, 2, "some"]),
    "prompt": (["hi", "", ["a", "b"], None], [1, [], [[]], ["a", 1], [1.5], [-1], [True], {}]),
    "model": ([LOCAL, [LOCAL], {"model": LOCAL}], ["", [], None, 1, {}, "a" * 257, [LOCAL, 1]]),
}


async def test_every_field_has_its_range(dialect_server: Server) -> None:
    """A value outside is refused with 400 by the field's name; the ends are inside."""
    body = {"model": LOCAL, "prompt": "hi", "max_tokens": 1}
    wrong = []
    for field, (good, bad) in RANGES.items():
        for value in good:
            got = await post(dialect_server, COMPLETIONS, {**body, field: value})
            wrong += [] if got.status == 200 else [(field, value, got.body)]
        for value in bad:
            got = await post(dialect_server, COMPLETIONS, {**body, field: value})
            named = got.status == 400 and (got.error["param"] or "").split("[")[0].split(".")[0] == field
            wrong += [] if named and got.error["type"] == "invalid_request_error" else [(field, value, got.body)]
    assert wrong == []


async def test_null_is_as_if_absent(dialect_server: Server) -> None:
    """The clients send it for what their callers set to None."""
    nothing = dict.fromkeys(set(RANGES) - {"prompt", "model"} | {"stream_options"})

    got = await complete(dialect_server, "text/echo", **nothing)

    assert got.upstream_bodies == [{"model": "echo", "stream": False, "prompt": "hi", "max_tokens": 16}]
    assert got.choices[0]["ignored_parameters"] == []


@pytest.mark.parametrize("missing", ["model", "prompt"])
async def test_model_and_prompt_are_required(missing: str, dialect_server: Server) -> None:
    body = {"model": LOCAL, "prompt": "hi"}
    del body[missing]

    got = await post(dialect_server, COMPLETIONS, body)

    assert (got.status, got.error["param"], got.error["code"]) == (400, missing, "missing_required_parameter")


async def test_every_wrong_field_is_named_at_once(dialect_server: Server) -> None:
    got = await complete(dialect_server, LOCAL, temperature=3, n=0, max_tokens=5, max_completion_tokens=9)
    assert got.status == 400
    assert {detail["param"] for detail in got.error["details"]} == {"temperature", "n"}


async def test_all_parameters_are_sent_upstream_unchanged(dialect_server: Server) -> None:
    """Whole numbers stay whole: some servers refuse `50.0` for an integer."""
    fields = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "best_of": 3,
        "seed": -INT64,
        "stop": ["a", "b"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"50": 50, "51": -1.5},
        "logprobs": 5,
        "echo": True,
        "suffix": " end",
        "user": "me",
    }

    got = await complete(dialect_server, "text/echo", **fields)

    assert got.upstream_bodies == [{"model": "echo", "stream": False, "prompt": "hi", **fields}]
    assert type(got.upstream_bodies[0]["logit_bias"]["50"]) is int
    assert got.choices[0]["ignored_parameters"] == []


async def test_a_prompt_is_text_or_token_ids_one_or_several(dialect_server: Server) -> None:
    one = [("hi", "hi"), (None, ""), ([1, 2, 3], [1, 2, 3])]
    several = [["a", "", "b"], [[1, 2], [3]]]

    for prompt, sent in one:
        got = await complete(dialect_server, "text/echo", prompt)
        assert [body["prompt"] for body in got.upstream_bodies] == [sent]
        assert "prompt_index" not in got.choices[0]
    for prompts in several:
        got = await complete(dialect_server, "text/echo", prompts)
        assert [body["prompt"] for body in got.upstream_bodies] == prompts
        assert [choice["prompt_index"] for choice in got.choices] == list(range(len(prompts)))


async def test_a_chat_model_gets_the_prompt_as_one_user_message(dialect_server: Server) -> None:
    got = await complete(dialect_server, "up/echo", None)
    assert [body["messages"] for body in got.upstream_bodies] == [[{"role": "user", "content": ""}]]


async def test_token_ids_are_refused_in_the_entry_that_cannot_take_them(dialect_server: Server) -> None:
    """They mean something to one tokenizer only."""
    got = await complete(dialect_server, ["text/echo", "up/echo"], [1, 2])

    assert got.status == 200
    assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error"]
    assert [choice["error"] and choice["error"]["code"] for choice in got.choices] == [None, "unsupported_prompt"]


class TestSixteenTokens:
    """The contract's own default of `max_tokens`."""

    async def test_sixteen_tokens_are_requested_if_the_caller_sets_no_length(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, ["text/echo", "up/echo"])
        assert [body["max_tokens"] for body in got.upstream_bodies] == [16, 16]

    async def test_the_default_length_is_dropped_silently_if_the_model_cannot_take_it(self, dialect_server: Server) -> None:
        """The caller did not set them, so nothing is reported, and `strict_parameters` allows it."""
        got = await complete(dialect_server, "poor/echo", strict_parameters=True)

        assert got.status == 200
        assert "max_tokens" not in got.upstream_bodies[0]
        assert got.choices[0]["ignored_parameters"] == []

    async def test_the_callers_length_replaces_the_default(self, dialect_server: Server) -> None:
        """A length of 16 that the caller sets is reported."""
        assert (await complete(dialect_server, "poor/echo", max_tokens=16)).choices[0]["ignored_parameters"] == ["max_tokens"]

    async def test_an_entrys_length_replaces_the_default(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, [{"model": "poor/ok", "max_tokens": 50}, {"model": "poor/ok", "temperature": 1}])
        assert [choice["ignored_parameters"] for choice in got.choices] == [["max_tokens"], ["temperature"]]

    async def test_the_default_length_holds_for_an_entry_that_takes_the_requests_back(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, [{"model": "text/echo", "max_tokens": None}, "text/echo"], max_tokens=99)
        assert [body["max_tokens"] for body in got.upstream_bodies] == [16, 99]
        got = await complete(dialect_server, [{"model": "text/echo", "max_tokens": None, "seed": 1}, {"model": "text/echo"}])
        assert [body["max_tokens"] for body in got.upstream_bodies] == [16, 16]


async def test_max_tokens_0_makes_no_upstream_call(dialect_server: Server, upstream: Upstream) -> None:
    got = await complete(dialect_server, ["text/echo", {"model": "text/echo", "echo": True}], "Once", max_tokens=0)

    assert [(choice["text"], choice["finish_reason"]) for choice in got.choices] == [("", "length"), ("Once", "length")]
    assert upstream.requests == []


class TestBestOf:
    async def test_best_of_zero_and_one_are_as_if_unset(self, dialect_server: Server) -> None:
        """Zero is not sent, and takes the request's back; neither keeps anything from being streamed."""
        got = await complete(dialect_server, ["text/echo", {"model": "text/echo", "best_of": 3}], best_of=0)
        assert [body.get("best_of") for body in got.upstream_bodies] == [None, 3]
        got = await complete(dialect_server, [{"model": "text/echo", "best_of": 0}], best_of=3)
        assert "best_of" not in got.upstream_bodies[0]
        got = await complete(dialect_server, [LOCAL, "up/ok"], best_of=0, strict_parameters=True)
        assert [choice["error"] for choice in got.choices] == [None, None]
        assert (await complete(dialect_server, LOCAL, best_of=0, n=2)).status == 200
        assert (await complete(dialect_server, LOCAL, best_of=1, stream=True)).status == 200

    async def test_best_of_is_at_least_n_and_not_streamed(self, dialect_server: Server) -> None:
        """Whichever of the two stands in the entry, and whichever beside it."""
        for param, fields in (
            ("best_of", {"best_of": 2, "n": 3}),
            ("best_of", {"best_of": 2, "model": [{"model": LOCAL, "n": 3}]}),
            ("model[1].best_of", {"n": 3, "model": [LOCAL, {"model": LOCAL, "best_of": 2}]}),
            ("stream", {"best_of": 2, "stream": True}),
            ("stream", {"stream": True, "model": [{"model": LOCAL, "best_of": 2}]}),
        ):
            got = await post(dialect_server, COMPLETIONS, {"model": LOCAL, "prompt": "hi", **fields})
            assert (got.status, got.error["param"]) == (400, param)

    async def test_an_entry_may_correct_best_of(self, dialect_server: Server) -> None:
        got = await complete(
            dialect_server, [{"model": LOCAL, "n": 2}, {"model": LOCAL, "best_of": None}], n=3, best_of=2, max_tokens=1
        )
        assert got.status == 200
        assert [choice["entry"] for choice in got.choices] == [0, 0, 1, 1, 1]


class TestN:
    async def test_n_is_one_call_if_the_provider_has_it(self, dialect_server: Server, upstream: Upstream) -> None:
        """The usage of the call stands on its first answer."""
        got = await complete(dialect_server, "text/ok", n=3)

        assert [request.body["n"] for request in upstream.requests] == [3]
        assert [(choice["index"], choice["sample"], choice["entry"]) for choice in got.choices] == [
            (0, 0, 0),
            (1, 1, 0),
            (2, 2, 0),
        ]
        assert [choice["text"] for choice in got.choices] == ["This is ok."] * 3
        assert [choice["usage"] and choice["usage"]["total_tokens"] for choice in got.choices] == [14, None, None]
        assert got.json["usage"]["total_tokens"] == 14

    async def test_n_is_so_many_calls_elsewhere_each_with_its_own_usage(
        self, dialect_server: Server, upstream: Upstream
    ) -> None:
        """And its own seed, or all would be alike."""
        got = await complete(dialect_server, "narrow/ok", n=3, seed=7)

        assert sorted(request.body["seed"] for request in upstream.requests) == [7, 8, 9]
        assert all("n" not in request.body for request in upstream.requests)
        assert [choice["usage"]["total_tokens"] for choice in got.choices] == [14] * 3
        assert got.json["usage"]["total_tokens"] == 42

    async def test_the_index_is_dense_over_prompts_entries_and_samples(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, ["text/echo", {"model": "narrow/echo", "n": 1}], ["a", "b"], n=2)

        places = [(choice["prompt_index"], choice["entry"], choice["sample"]) for choice in got.choices]
        assert [choice["index"] for choice in got.choices] == list(range(6))
        assert places == [(p, *rest) for p in (0, 1) for rest in ((0, 0), (0, 1), (1, 0))]
        assert [body.get("prompt") or body["messages"][0]["content"] for body in got.upstream_bodies] == list("aaabbb")

    async def test_missing_samples_are_filled_up(self, tmp_path: Path) -> None:
        """Some hosts take `n` and do not heed it; its places are not the next entry's."""
        one = {"model": "m", "choices": [{"index": 0, "text": "one", "finish_reason": "stop"}]}
        async with serve_canned(tmp_path, CannedUpstream(whole=one)) as server:
            got = await complete(server, ["text/a", "text/b"], n=2)

        assert [choice["text"] for choice in got.choices] == ["one", "", "one", ""]
        assert [choice["index"] for choice in got.choices] == [0, 1, 2, 3]
        assert [choice["finish_reason"] for choice in got.choices] == ["stop", "error"] * 2
        assert got.choices[1]["error"]["code"] == "missing_choice"

    async def test_surplus_samples_are_dropped(self, tmp_path: Path) -> None:
        many = {"choices": [{"index": number, "text": str(number), "finish_reason": "stop"} for number in range(3)]}
        async with serve_canned(tmp_path, CannedUpstream(whole=many)) as server:
            got = await complete(server, ["text/a", "text/b"])
        assert [(choice["index"], choice["text"]) for choice in got.choices] == [(0, "0"), (1, "0")]

    async def test_the_number_of_calls_of_a_request_is_limited(self, dialect_server: Server, upstream: Upstream) -> None:
        got = await complete(dialect_server, ["text/ok"] * 3, n=128)
        assert (got.status, got.error["code"], upstream.requests) == (400, "too_many_calls", [])


class TestLogprobs:
    async def test_logprobs_are_four_parallel_arrays(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, LOCAL, "the", logprobs=2, max_tokens=5, seed=1)
        (choice,) = got.choices
        logprobs = choice["logprobs"]

        assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
        assert {len(array) for array in logprobs.values()} == {len(logprobs["tokens"])}
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert logprobs["text_offset"] == [len("".join(logprobs["tokens"][:at])) for at in range(len(logprobs["tokens"]))]
        assert all(len(top) == 2 for top in logprobs["top_logprobs"])

    async def test_logprobs_of_zero_report_the_tokens_alone(self, dialect_server: Server) -> None:
        logprobs = (await complete(dialect_server, LOCAL, "the", logprobs=0, max_tokens=3, seed=1)).choices[0]["logprobs"]
        assert logprobs["tokens"]
        assert set(map(len, logprobs["top_logprobs"])) == {0}

    async def test_logprobs_are_null_if_not_requested(self, dialect_server: Server) -> None:
        assert (await complete(dialect_server, LOCAL)).choices[0]["logprobs"] is None

    async def test_logprobs_with_echo_begin_with_the_prompt_whose_first_token_nothing_predicts(
        self, dialect_server: Server
    ) -> None:
        (choice,) = (await complete(dialect_server, LOCAL, "the name", logprobs=1, echo=True, max_tokens=1)).choices
        assert choice["text"].startswith("the name")
        assert choice["logprobs"]["tokens"][:2] == ["the", " name"]
        assert choice["logprobs"]["token_logprobs"][0] is None
        assert choice["logprobs"]["top_logprobs"][0] is None
        assert choice["logprobs"]["token_logprobs"][1] < 0

    async def test_logprobs_of_a_chat_model_have_the_same_shape(self, tmp_path: Path) -> None:
        tokens = [
            {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -2}]},
            {"token": "c", "logprob": -1},
        ]
        choice = {"message": {"role": "assistant", "content": "ac"}, "logprobs": {"content": tokens}, "finish_reason": "stop"}
        upstream = CannedUpstream(whole={"choices": [choice]})
        async with serve_canned(tmp_path, upstream) as server:
            got = await complete(server, "up/m", logprobs=1)
        assert (upstream.requests[0]["logprobs"], upstream.requests[0]["top_logprobs"]) == (True, 1)
        assert got.choices[0]["logprobs"] == {
            "tokens": ["a", "c"],
            "token_logprobs": [-0.1, -1],
            "top_logprobs": [{"b": -2}, {}],
            "text_offset": [0, 1],
        }


async def test_echo_stands_before_the_answer_and_stop_is_not_in_it(dialect_server: Server) -> None:
    whole = (await complete(dialect_server, LOCAL, "the", seed=3, max_tokens=12)).choices[0]["text"]
    word = whole.split()[3]

    got = await complete(dialect_server, LOCAL, "the", seed=3, max_tokens=12, echo=True, stop=word)

    assert got.choices[0]["text"] == "the" + whole[: whole.index(word)]
    assert got.choices[0]["finish_reason"] == "stop"


class TestRepetitionPenalty:
    """Konko's -2..2 with 0 for none, on hosts whose own is multiplicative with 1 for none."""

    async def test_a_repetition_penalty_of_zero_is_not_sent(self, dialect_server: Server) -> None:
        for nothing in (None, 0, 0.0):
            got = await complete(dialect_server, ["wide/echo", "text/echo"], repetition_penalty=nothing, strict_parameters=True)
            assert ["repetition_penalty" in body for body in got.upstream_bodies] == [False, False]

    async def test_a_repetition_penalty_above_zero_is_sent_unchanged(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, ["wide/echo", "text/echo"], repetition_penalty=1.1)
        assert [body.get("repetition_penalty") for body in got.upstream_bodies] == [1.1, None]
        assert [choice["ignored_parameters"] for choice in got.choices] == [[], ["repetition_penalty"]]

    async def test_a_repetition_penalty_below_zero_is_ignored_or_refused(self, dialect_server: Server) -> None:
        got = await complete(dialect_server, LOCAL, repetition_penalty=-1)
        assert got.choices[0]["ignored_parameters"] == ["repetition_penalty"]
        got = await complete(dialect_server, LOCAL, repetition_penalty=-1, strict_parameters=True)
        assert (got.status, got.error["code"]) == (400, "unsupported_parameter")


async def test_top_k_goes_where_the_host_takes_it(dialect_server: Server) -> None:
    got = await complete(dialect_server, ["wide/echo", "text/echo"], top_k=5)
    assert [body.get("top_k") for body in got.upstream_bodies] == [5, None]
    assert [choice["ignored_parameters"] for choice in got.choices] == [[], ["top_k"]]
