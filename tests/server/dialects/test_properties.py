"""Whatever the request: a documented status, never a 500; choices that match the request; the whole is the sum of its parts.

The server, the embedded models and the loop live as long as a test, so that hypothesis can ask thousands of times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanout.core.merge import merge
from fanout.core.sampling import Sampling
from fanout.core.schema import Answer, Call, Choice, Completion, Failure, Outcome, Query, Target, Timing
from fanout.core.usage import Cost, Usage
from tests.support.client import EMBEDDED, Client, Reply, Stream
from tests.support.server import serve

DOCUMENTED = {200, 400, 404, 413, 415, 503, 504}
"""What `/v1/completion` may answer where every model is an embedded one: none of them is refused, over quota or unreachable.
Beside these 502, where calls failed in several ways."""
MODELS = ("local/ngram-2", "local/ngram-3", "LOCAL/NGRAM-5", "embedded", "nobody", "local/nothing")

Run = Callable[[Callable[[Client], Coroutine[Any, Any, Any]]], Any]
patiently = settings(
    max_examples=100, deadline=timedelta(seconds=30), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A function that runs a coroutine with a client of one server for all examples."""
    config = tmp_path / "embedded.json"
    config.write_text(json.dumps(EMBEDDED))
    with asyncio.Runner() as runner:
        server = serve(config, FANOUT_MAX_CALLS="40")
        client = Client(runner.run(server.__aenter__()))
        yield lambda work: runner.run(work(client))
        runner.run(server.__aexit__(None, None, None))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
sampling = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.none() | st.integers(0, 6),
        "max_new_tokens": st.none() | st.integers(0, 6),
        "temperature": st.none() | st.floats(0, 1),
        "top_p": st.none() | st.floats(0, 1),
        "top_k": st.none() | st.integers(-1, 9),
        "n": st.none() | st.integers(1, 4),
        "best_of": st.none() | st.integers(0, 5),
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "stop": st.none() | st.text() | st.lists(st.text(), min_size=1, max_size=4),
        "presence_penalty": st.none() | st.floats(-2, 2),
        "frequency_penalty": st.none() | st.floats(-2, 2),
        "repetition_penalty": st.none() | st.floats(-2, 2),
        "logit_bias": st.none() | st.dictionaries(st.integers(0, 99).map(str) | st.text(), st.floats(-100, 100), max_size=3),
        "logprobs": st.none() | st.integers(0, 3),
        "echo": st.none() | st.booleans(),
        "suffix": st.none() | st.text(),
        "user": st.none() | st.text(max_size=9),
    },
)
entries = st.builds(lambda model, own: {"model": model, **own}, st.sampled_from(MODELS), sampling)
bodies = st.builds(
    lambda known, rest: {"max_tokens": 5, **known, **rest},
    st.fixed_dictionaries(
        {
            "prompt": st.text(),
            "model": st.sampled_from(MODELS) | entries | st.lists(st.sampled_from(MODELS) | entries, min_size=1, max_size=5),
        },
        optional={
            "system": st.none() | st.text(),
            "strict_parameters": st.none() | st.booleans(),
            "timeout_s": st.none() | st.floats(0.5, 20),
            "return_when": st.none() | st.sampled_from(["all", "first", 1, 2]),
            "metadata": st.none() | st.dictionaries(st.text(min_size=1, max_size=9), st.text(), max_size=3),
            "dry_run": st.none() | st.booleans(),
        },
    ),
    sampling,
)
mutated = st.builds(
    lambda body, name, value: {**body, name: value},
    bodies,
    st.sampled_from(sorted({"prompt", "model", "stream", "timeout_s", "return_when", "metadata", "n", "seed", "stop"}))
    | st.text(),
    anything,
)


def check_documented(reply: Reply) -> None:
    """Check for a documented status, an id, and an envelope of an error."""
    assert reply.status in DOCUMENTED or (reply.status, reply.error["code"]) == (502, "all_failed"), (reply.status, reply.body)
    assert reply.headers["x-request-id"]
    if reply.status != 200:
        assert reply.error["message"]


@patiently
@given(body=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_get_a_documented_answer(run: Run, body: bytes) -> None:
    check_documented(run(lambda client: client.send("POST", "/v1/completion", body)))


@patiently
@given(body=mutated)
def test_any_change_to_a_good_request_gets_a_documented_answer(run: Run, body: dict[str, Any]) -> None:
    data = json.dumps({**body, "max_tokens": 3, "max_new_tokens": None}).encode()
    reply = run(lambda client: client.send("POST", "/v1/completion", data))

    if reply.headers["Content-Type"] != "text/event-stream":
        check_documented(reply)


def expect_places(body: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Return the index, entry, sample and model of each answer, worked out from the request alone."""
    listed = body["model"] if isinstance(body["model"], list) else [body["model"]]
    named: list[tuple[str, int]] = []
    for entry in listed:
        model, own = (entry, {}) if isinstance(entry, str) else (entry["model"], entry)
        samples = own.get("n", body.get("n")) or 1
        names = ["local/ngram-2", "local/ngram-3", "local/ngram-5"] if model == "embedded" else [model]
        named += [(name, samples) for name in names]
    places = [(entry, sample, name) for entry, (name, samples) in enumerate(named) for sample in range(samples)]
    return [(index, *place) for index, place in enumerate(places)]


def list_places(choices: list[Any]) -> list[tuple[int, int, int, str]]:
    return [(choice["index"], choice["entry"], choice["sample"], choice["model"]) for choice in choices]


@patiently
@given(body=bodies)
def test_choices_match_the_request(run: Run, body: dict[str, Any]) -> None:
    reply = run(lambda client: client.complete(**body))

    check_documented(reply)
    if reply.status == 200:
        choices = reply.json["calls" if body.get("dry_run") else "choices"]
        assert list_places(choices) == expect_places(body)
        if not body.get("dry_run"):
            answered = [choice for choice in choices if not choice["error"]]
            assert reply.json["usage"]["completion_tokens"] == sum(c["usage"]["completion_tokens"] for c in answered)
            assert reply.json["metadata"] == (body.get("metadata") or {})
    elif reply.status != 400 or "index" in reply.error["details"][0]:
        assert [detail["index"] for detail in reply.error["details"]] == [place[0] for place in expect_places(body)]


@patiently
@given(
    # Without a deadline: of two runs on a busy machine one may end under it, the other not.
    body=bodies.map(
        lambda body: {
            **body,
            "best_of": None,
            "dry_run": False,
            "seed": 7,
            "return_when": None,
            "timeout_s": None,
            "stream": True,
        }
    )
)
def test_a_stream_holds_the_same_as_the_whole_answer(run: Run, body: dict[str, Any]) -> None:
    body = {**body, "model": [entry for entry in _to_list(body["model"]) if isinstance(entry, str)] or "embedded"}
    whole: Reply = run(lambda client: client.complete(**{**body, "stream": False}))
    if whole.status != 200:
        assert run(lambda client: client.complete(**body)).status == whole.status
        return
    stream: Stream = run(lambda client: client.stream(**body))

    assert list_places(stream.ends) == list_places(whole.choices)
    assert [stream.text(choice["index"]) for choice in whole.choices] == whole.texts
    assert [end["finish_reason"] for end in stream.ends] == [choice["finish_reason"] for choice in whole.choices]


def _to_list(model: Any) -> list[Any]:
    return model if isinstance(model, list) else [model]


counts = st.none() | st.integers(0, 10**6)
usages = st.none() | st.builds(Usage, input_tokens=counts, output_tokens=counts, cached_input_tokens=counts)
failures = st.builds(Failure, kind=st.sampled_from(["server", "timeout", "cancelled"]), message=st.text())


@st.composite
def outcomes(draw: st.DrawFn) -> list[Outcome]:
    """Of calls as `plan` makes them: each begins where the one before it ends."""
    made: list[Outcome] = []
    index = 0
    for entry in range(draw(st.integers(1, 6))):
        places = draw(st.integers(1, 3))
        query = Query(prompt="hi", sampling=Sampling(n=places if places > 1 else None))
        call = Call(index, entry, 0, Target("a", "a", "up", "a"), query)
        answers = tuple(Choice(Answer(str(number)), "stop") for number in range(draw(st.integers(1, 5))))
        result = draw(st.builds(Completion, choices=st.just(answers), usage=usages) | failures)
        cost = draw(st.none() | st.floats(0, 9).map(lambda usd: Cost(usd, "x"))) if isinstance(result, Completion) else None
        made.append(Outcome(call, result, Timing(total_s=draw(st.floats(0, 99))), cost))
        index += places
    return made


@given(outcomes=outcomes(), total_s=st.floats(0, 200))
def test_merging_keeps_every_answer_in_its_place_and_sums_what_is_known(outcomes: list[Outcome], total_s: float) -> None:
    merged = merge(outcomes, created=1.5, total_s=total_s)

    indices = [choice.index for choice in merged.choices]
    assert indices == sorted(set(indices)), "no two answers in one place"
    for choice in merged.choices:
        call = choice.outcome.call
        assert call.index <= choice.index < call.index + (call.query.sampling.n or 1)
        result = choice.outcome.result
        given = () if isinstance(result, Failure) else result.choices
        assert choice.choice == (given[choice.choice_index] if choice.choice_index < len(given) else None)
    answered = [outcome for outcome in outcomes if isinstance(outcome.result, Completion)]
    known = [outcome.result.usage for outcome in answered if isinstance(outcome.result, Completion) and outcome.result.usage]
    for total, name in ((merged.totals.input_tokens, "input_tokens"), (merged.totals.output_tokens, "output_tokens")):
        values = [getattr(usage, name) for usage in known if getattr(usage, name) is not None]
        assert total == (sum(values) if values else None)
    costs = [outcome.cost.usd for outcome in answered if outcome.cost]
    assert merged.totals.cost_usd == (pytest.approx(sum(costs)) if costs else None)
    assert merged.totals.cost_unknown == len(answered) - len(costs)
    assert 0 <= merged.overhead_s <= total_s
