"""The plan of a request: the place of every call is fixed before anything is sent."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import RequestError
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Target
from fanout.dispatch.entries import Entry
from fanout.dispatch.plan import plan
from fanout.dispatch.request import Request
from fanout.dispatch.resolution import MAX_SEED
from tests.support.builders.plans import TODAY, build_catalogue, fit_parameters, plan_call, plan_calls

# Places


def test_calls_are_ordered_by_prompt_then_entry_then_sample() -> None:
    found = plan_calls("chat", Entry("text", overrides={"n": 2}), prompts=("one", "two"), many_prompts=True)
    assert [(call.index, call.prompt_index, call.entry, call.sample) for call in found] == [
        (0, 0, 0, 0),
        (1, 0, 1, 0),
        (2, 0, 1, 1),
        (3, 1, 0, 0),
        (4, 1, 1, 0),
        (5, 1, 1, 1),
    ]
    assert [call.query.prompt for call in found] == [None, "one", "one", None, "two", "two"]


def test_a_single_prompt_has_no_number() -> None:
    assert plan_call("text").prompt_index is None
    assert plan_call("text", many_prompts=True).prompt_index == 0


def test_the_same_model_twice_is_two_answers() -> None:
    found = plan_calls("chat", "chat")
    assert [(call.entry, call.target.label, call.target.model) for call in found] == [(0, "chat", "up"), (1, "chat", "up")]


names = st.sampled_from(["chat", "text", "both", "keyed", "gone", "p/x", "nobody", "trio", "TALKER"])
entries = st.builds(
    Entry,
    names,
    st.none() | st.just("label"),
    st.fixed_dictionaries({}, optional={"n": st.none() | st.integers(1, 4), "seed": st.none() | st.integers(-5, 5)}),
)


@given(
    written=st.lists(entries, min_size=1, max_size=5),
    prompts=st.lists(st.text(), min_size=1, max_size=3),
    sampling=st.builds(Sampling, n=st.none() | st.integers(1, 5), seed=st.none() | st.integers(), top_k=st.none() | st.just(3)),
    strict=st.booleans(),
    native_n=st.booleans(),
)
def test_indexes_are_dense_and_every_prompt_entry_and_sample_has_exactly_one(
    written: list[Entry], prompts: list[str], sampling: Sampling, strict: bool, native_n: bool
) -> None:
    """A call that is sent with `n` takes as many places."""
    found = plan_calls(
        *written,
        prompts=tuple(prompts),
        many_prompts=True,
        sampling=sampling,
        strict=strict,
        native_n=native_n,
        max_calls=10_000,
    )
    members = [entry for entry in written for _ in range(3 if entry.model == "trio" else 1)]
    wanted = [entry.overrides.get("n", sampling.n) or 1 for entry in members]
    places = [
        (call.prompt_index, call.entry, call.sample + number) for call in found for number in range(call.query.sampling.n or 1)
    ]
    assert places == [(p, e, s) for p in range(len(prompts)) for e, n in enumerate(wanted) for s in range(n)]
    assert [call.index for call in found] == [
        sum(call.query.sampling.n or 1 for call in found[:number]) for number in range(len(found))
    ]
    assert native_n or all(call.query.sampling.n is None for call in found)


# Prompts and messages


def test_an_entrys_parameters_override_the_requests_and_null_removes_one() -> None:
    common = Sampling(temperature=0.5, max_tokens=9, stop=("a",))
    own = Entry("chat", overrides={"temperature": None, "max_tokens": 5, "top_p": 0.1}, passthrough={"tools": 2})
    found = plan_calls(own, "chat", sampling=common, passthrough={"tools": 1, "format": 0}, defaults=frozenset({"seed"}))
    assert [call.query.sampling for call in found] == [Sampling(max_tokens=5, top_p=0.1, stop=("a",)), common]
    assert [dict(call.query.passthrough) for call in found] == [{"tools": 2, "format": 0}, {"tools": 1, "format": 0}]
    assert found[0].query.defaults == {"seed"}
    assert found[0].fitted.sent == {"max_tokens": 5, "top_p": 0.1, "stop": ("a",)}


def test_a_set_becomes_its_members_with_the_sets_parameters() -> None:
    found = plan_calls(Entry("TRIO", "t", {"top_p": 0.5}), "trio", "chat")
    assert [(call.entry, call.target.name, call.target.label) for call in found] == [
        (0, "chat", "t: chat"),
        (1, "text", "t: text"),
        (2, "p/any", "t: p/any"),
        (3, "chat", "chat"),
        (4, "text", "text"),
        (5, "p/any", "p/any"),
        (6, "chat", "chat"),
    ]
    assert [call.query.sampling.top_p for call in found] == [0.5, 0.5, 0.5, None, None, None, None]


def test_a_target_holds_the_name_that_was_written_and_what_it_resolves_to() -> None:
    assert plan_call(Entry("Talker", "mine")).target == Target("mine", "Talker", "p", "up", "chat", "g", "talker")
    assert plan_call("p/some/id").target == Target("p/some/id", "p/some/id", "p", "some/id", "both", None)


@pytest.mark.parametrize(
    ("model", "system", "messages", "prompt", "ignored"),
    [
        ("chat", None, [("user", "Hello")], None, ()),
        ("chat", "Be brief", [("system", "Be brief"), ("user", "Hello")], None, ()),
        ("text", None, None, "Hello", ()),
        ("text", "Be brief", None, "Hello", ("system",)),
        ("both", None, None, "Hello", ()),
        ("both", "Be brief", [("system", "Be brief"), ("user", "Hello")], None, ()),
    ],
)
def test_a_prompt_goes_to_each_kind_of_model_in_its_own_form(
    model: str, system: str | None, messages: list[tuple[str, str]] | None, prompt: str | None, ignored: tuple[str, ...]
) -> None:
    call = plan_call(model, system=system)
    assert call.query.messages == (messages and tuple(Message(role, text) for role, text in messages))
    assert call.query.prompt == prompt
    assert call.fitted.ignored == ignored


def test_messages_are_sent_unchanged_but_not_to_a_text_model() -> None:
    messages = (Message("user", "Hi", {"name": "x"}), Message("assistant", None))
    chat, text, both = plan_calls("chat", "text", "both", messages=messages)
    assert chat.query.messages == both.query.messages == messages
    assert (chat.refusal, both.refusal) == (None, None)
    assert text.refusal is not None
    assert (text.refusal.kind, text.refusal.code) == ("unsupported", "unsupported_endpoint")
    assert "`text` completes text and takes no messages" in text.refusal.message


def test_token_ids_go_only_to_text_models_of_a_format_that_takes_them() -> None:
    found = plan_calls("text", "both", "chat", "other", prompts=((1, 2),))
    assert [call.query.prompt_tokens for call in found[:2]] == [(1, 2), (1, 2)]
    assert [call.refusal and call.refusal.code for call in found] == [None, None, "unsupported_prompt", "unsupported_prompt"]


def test_equal_entries_share_one_query() -> None:
    """The query is built, and its body encoded, once."""
    one, other, own = plan_calls("chat", "chat", Entry("chat", overrides={"top_p": 1}), sampling=Sampling(top_p=0.5))
    assert one.query is other.query
    assert own.query is not one.query


# Samples


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [(None, [None, None, None]), (7, [7, 8, 9]), (-1, [-1, 0, 1]), (MAX_SEED - 1, [MAX_SEED - 1, MAX_SEED, -MAX_SEED - 1])],
)
def test_sample_k_is_sent_seed_plus_k(seed: int | None, seeds: list[int | None]) -> None:
    """With one seed for all, every sample would be the same text; past the highest seed it wraps around."""
    found = plan_calls("chat", sampling=Sampling(n=3, seed=seed))
    assert [call.query.sampling.seed for call in found] == seeds
    assert [call.fitted.sent.get("seed") for call in found] == seeds


@pytest.mark.parametrize(
    ("model", "n", "native", "sent"),
    [("chat", 4, True, [4]), ("chat", 1, True, [None]), ("chat", 3, False, [None] * 3), ("chat", 5, True, [None] * 5)],
)
def test_n_goes_upstream_only_where_allowed_and_where_it_fits(model: str, n: int, native: bool, sent: list[int | None]) -> None:
    found = plan_calls(model, sampling=Sampling(n=n, seed=1), native_n=native)
    assert [call.query.sampling.n for call in found] == sent
    assert [call.fitted.sent.get("n") for call in found] == sent


@pytest.mark.parametrize("n", [0, -1])
def test_an_n_of_zero_is_refused(n: int) -> None:
    with pytest.raises(RequestError, match="n: is at least 1"):
        plan_calls("chat", Entry("chat", overrides={"n": n}))


def test_more_calls_than_allowed_are_refused() -> None:
    more: dict[str, Any] = {"prompts": ("a", "b"), "sampling": Sampling(n=64)}
    assert len(plan_calls("chat", "text", **more)) == 256
    sentence = (
        r"model: makes 258 calls \(prompts × models × n\); at most 256 are allowed for a request or a row \(FANOUT_MAX_CALLS\)"
    )
    with pytest.raises(RequestError, match=sentence) as caught:
        plan_calls("chat", Entry("text", overrides={"n": 65}), **more)
    assert caught.value.faults[0].kind == "too_many_calls"
    with pytest.raises(RequestError, match="makes 3 calls"):
        plan_calls("trio", max_calls=2)


def test_a_plan_depends_on_nothing_and_changes_nothing() -> None:
    request = Request(
        entries=(Entry("trio", "l", {"n": 2}), Entry("nobody")), prompts=("a", "b"), sampling=Sampling(seed=3, top_k=1)
    )
    before = copy.deepcopy(request)
    first = plan(request, build_catalogue(), fit_parameters, 256, TODAY)
    assert plan(request, build_catalogue(), fit_parameters, 256, TODAY) == first
    assert request == before
    assert plan(replace(request), build_catalogue(), fit_parameters, 256, TODAY) == first
