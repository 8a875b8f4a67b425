"""Bodies that repeat an earlier one in all but the prompt are read and planned as if they were the first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import RequestError
from fanout.core.schema import Call
from fanout.dispatch.plan import plan
from fanout.requests import repeated_bodies
from fanout.requests.bodies import validate_body
from fanout.requests.repeated_bodies import RepeatedBodies
from fanout.requests.thiggle import CompletionBody
from tests.support.builders.plans import TODAY, build_catalogue, fit_parameters

CATALOGUE = build_catalogue()
CONTEXT = {"max_timeout_s": 600.0, "catalogue": CATALOGUE}
NAMES = st.sampled_from(["chat", "text", "both", "keyed", "gone", "nobody", "trio", "fusion(chat, text; by chat)"])
ENTRIES = st.one_of(
    NAMES, st.fixed_dictionaries({"model": NAMES}, optional={"temperature": st.floats(0, 3), "n": st.integers(0, 3)})
)
RESTS = st.fixed_dictionaries(
    {"model": st.lists(ENTRIES, min_size=1, max_size=4)},
    optional={
        "temperature": st.floats(-1, 3) | st.integers(0, 2),
        "max_tokens": st.integers(0, 9) | st.just(5.0),
        "system": st.text(max_size=3),
        "messages": st.just([{"role": "user", "content": "before"}]),
        "metadata": st.dictionaries(st.text(min_size=1, max_size=3), st.text(max_size=3), max_size=2),
        "return_when": st.sampled_from(["all", "first", 2, 99]),
        "timeout_s": st.sampled_from([1, 601]),
        "strict_parameters": st.booleans(),
        "colour": st.just("red"),
    },
)


def read(bodies: RepeatedBodies | None, raw: bytes) -> Any:
    """Return a body without its prompt, its calls; if it is refused, the faults."""
    try:
        if bodies:
            body, prompt = bodies.validate(raw, CONTEXT)
        else:
            body = validate_body(raw, CompletionBody, CONTEXT)
            prompt = body.prompt
    except RequestError as error:
        return error.faults
    try:
        return list_fields(body), plan_body(body, prompt)
    except RequestError as error:
        return error.faults


def list_fields(body: CompletionBody) -> dict[str, tuple[object, bool]]:
    return {
        name: (getattr(body, name), name in body.model_fields_set) for name in CompletionBody.model_fields if name != "prompt"
    }


def plan_body(body: CompletionBody, prompt: str = "hi") -> list[Call]:
    return plan(body.to_request(prompt, {}, "account"), CATALOGUE, fit_parameters, 100, TODAY)


@given(rest=RESTS, prompts=st.lists(st.text() | st.none() | st.just(["a"]), min_size=2, max_size=3))
def test_a_body_is_read_and_planned_alike_whatever_was_read_before(rest: dict[str, Any], prompts: list[Any]) -> None:
    bodies = RepeatedBodies()
    for prompt in (*prompts, prompts[0]):
        raw = json.dumps({"prompt": prompt, **rest}).encode()

        assert read(bodies, raw) == read(None, raw)


@given(
    value=st.sampled_from(["1", "1.0", "true", "null", '"1"', "[1]", "1e0"]), other=st.sampled_from(["1", "1.0", "true", "[1]"])
)
def test_values_that_are_nearly_equal_are_not_taken_for_one_another(value: str, other: str) -> None:
    bodies = RepeatedBodies()
    for written in (value, other):
        raw = f'{{"model": "chat", "prompt": "hi", "temperature": {written}, "stop": {written}}}'.encode()

        assert read(bodies, raw) == read(None, raw)


def test_of_repeated_bodies_one_is_kept_and_nothing_of_their_prompts() -> None:
    bodies = RepeatedBodies()
    first, second = (bodies.validate(encode(prompt=prompt), CONTEXT) for prompt in ("secret", "other"))

    assert second[0] is first[0]
    assert (first[1], second[1]) == ("secret", "other")
    assert "secret" not in repr(vars(bodies))
    assert plan_body(*first)[0].target is plan_body(*second)[0].target


def test_after_a_reload_a_body_is_validated_and_planned_anew() -> None:
    bodies, raw = RepeatedBodies(), encode(timeout_s=500)
    body, _ = bodies.validate(raw, CONTEXT)
    before = plan_body(body)

    reloaded = build_catalogue.__wrapped__()
    with pytest.raises(RequestError, match="500 is not allowed"):
        bodies.validate(raw, {"max_timeout_s": 100.0, "catalogue": reloaded})
    after = plan(body.to_request("hi", {}, None), reloaded, fit_parameters, 100, TODAY)
    assert after[0].target is not before[0].target


def test_few_bodies_and_no_long_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_bodies, "MAX_KEPT_BODIES", 3)
    bodies = RepeatedBodies()
    long = [bodies.validate(encode(system="x" * repeated_bodies.MAX_REST_BYTES), CONTEXT)[0] for _ in range(2)]
    many = [bodies.validate(encode(seed=seed), CONTEXT)[0] for seed in (0, 1, 2, 3, 0)]

    assert long[0] is not long[1]
    assert many[0] is not many[-1]
    assert bodies.validate(encode(seed=3), CONTEXT)[0] is many[3]


def encode(**fields: object) -> bytes:
    return json.dumps({"model": ["chat", "text"], "prompt": "hi", **fields}).encode()
