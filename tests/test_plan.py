"""A request → its calls: every place fixed before anything is sent."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from fanout.catalogue import Catalogue
from fanout.errors import RequestError
from fanout.plan import Entry, Request, plan
from fanout.schema import Call, Credential, Fitted, Message, Query, Sampling, Target
from tests.configuring import configured

TODAY = date(2026, 6, 1)
HIGHEST_SEED = 2**63 - 1


def row(provider: str, kind: str = "chat", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "id": "up", "kind": kind, **more}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    at = {"adapter": "openai", "base_url": "https://p.example/v1"}
    rows = {
        "extends": False,
        "providers": {
            "p": {**at, "default_kind": "both"},
            "keyed": {**at, "api_key_env": "A_KEY"},
            "other": {"adapter": "ngram"},
        },
        "models": {
            "chat": row("p", aliases=["talker"], limit_group="g"),
            "text": row("p", "text"),
            "both": row("p", "both"),
            "keyed": row("keyed"),
            "gone": row("keyed", deprecated_on="2026-01-01"),
            "other": row("other", "both"),
        },
        "sets": {"trio": ["chat", "text", "p/any"]},
    }
    return Catalogue(configured(tmp_path_factory.mktemp("plan"), rows))


def fit(target: Target, query: Query) -> Fitted:
    """A host that has no `top_k`, no temperature above 1, and `n` up to 4."""
    asked = query.sampling.asked()
    ignored = tuple(name for name in asked if name == "top_k")
    adjusted = {name: (value, 1) for name, value in asked.items() if name == "temperature" and value > 1}
    adjusted |= {"n": (asked["n"], 4)} if asked.get("n", 0) > 4 else {}
    return Fitted({name: value for name, value in asked.items() if name not in ignored}, ignored, adjusted)


def calls_of(catalogue: Catalogue, *entries: Entry | str, max_calls: int = 256, **request: Any) -> list[Call]:
    made = tuple(Entry(entry) if isinstance(entry, str) else entry for entry in entries)
    request = {"prompts": ("Hello",), **request} if "messages" not in request else request
    return plan(Request(entries=made, **request), catalogue, fit, max_calls, TODAY)


def only(catalogue: Catalogue, entry: Entry | str, **request: Any) -> Call:
    (call,) = calls_of(catalogue, entry, **request)
    return call


# Places


def test_calls_stand_in_the_order_prompts_entries_samples(catalogue: Catalogue) -> None:
    found = calls_of(
        catalogue,
        "chat",
        Entry("text", overrides={"n": 2}),
        prompts=("one", "two"),
        many_prompts=True,
    )
    assert [(call.index, call.prompt_index, call.entry, call.sample) for call in found] == [
        (0, 0, 0, 0),
        (1, 0, 1, 0),
        (2, 0, 1, 1),
        (3, 1, 0, 0),
        (4, 1, 1, 0),
        (5, 1, 1, 1),
    ]
    assert [call.query.prompt for call in found] == [None, "one", "one", None, "two", "two"]


def test_one_prompt_has_no_number(catalogue: Catalogue) -> None:
    assert only(catalogue, "text").prompt_index is None
    assert only(catalogue, "text", many_prompts=True).prompt_index == 0


def test_the_same_model_twice_is_two_answers(catalogue: Catalogue) -> None:
    found = calls_of(catalogue, "chat", "chat")
    assert [(call.entry, call.target.label, call.target.model) for call in found] == [(0, "chat", "up"), (1, "chat", "up")]


names = st.sampled_from(["chat", "text", "both", "keyed", "gone", "p/x", "nobody", "trio", "TALKER"])
entries = st.builds(
    Entry,
    names,
    st.none() | st.just("label"),
    st.fixed_dictionaries({}, optional={"n": st.none() | st.integers(1, 4), "seed": st.none() | st.integers(-5, 5)}),
)


@given(
    asked=st.lists(entries, min_size=1, max_size=5),
    prompts=st.lists(st.text(), min_size=1, max_size=3),
    sampling=st.builds(Sampling, n=st.none() | st.integers(1, 5), seed=st.none() | st.integers(), top_k=st.none() | st.just(3)),
    strict=st.booleans(),
    native_n=st.booleans(),
)
def test_positions_are_dense_and_every_prompt_entry_and_sample_has_exactly_one(
    catalogue: Catalogue, asked: list[Entry], prompts: list[str], sampling: Sampling, strict: bool, native_n: bool
) -> None:
    """A call with `n` of its own takes as many places."""
    found = calls_of(
        catalogue,
        *asked,
        prompts=tuple(prompts),
        many_prompts=True,
        sampling=sampling,
        strict=strict,
        native_n=native_n,
        max_calls=10_000,
    )
    members = [entry for entry in asked for _ in range(3 if entry.model == "trio" else 1)]
    wanted = [entry.overrides.get("n", sampling.n) or 1 for entry in members]
    places = [
        (call.prompt_index, call.entry, call.sample + number) for call in found for number in range(call.query.sampling.n or 1)
    ]
    assert places == [(p, e, s) for p in range(len(prompts)) for e, n in enumerate(wanted) for s in range(n)]
    assert [call.index for call in found] == [
        sum(call.query.sampling.n or 1 for call in found[:number]) for number in range(len(found))
    ]
    assert native_n or all(call.query.sampling.n is None for call in found)


# What is asked


def test_an_entrys_own_parameters_stand_for_the_requests_and_null_takes_one_back(catalogue: Catalogue) -> None:
    common = Sampling(temperature=0.5, max_tokens=9, stop=("a",))
    own = Entry("chat", overrides={"temperature": None, "max_tokens": 5, "top_p": 0.1}, passthrough={"tools": 2})
    found = calls_of(
        catalogue, own, "chat", sampling=common, passthrough={"tools": 1, "format": 0}, defaults=frozenset({"seed"})
    )
    assert [call.query.sampling for call in found] == [Sampling(max_tokens=5, top_p=0.1, stop=("a",)), common]
    assert [dict(call.query.passthrough) for call in found] == [{"tools": 2, "format": 0}, {"tools": 1, "format": 0}]
    assert found[0].query.defaults == {"seed"}
    assert found[0].fitted.sent == {"max_tokens": 5, "top_p": 0.1, "stop": ("a",)}


def test_a_set_is_its_members_each_an_entry_with_the_sets_parameters(catalogue: Catalogue) -> None:
    found = calls_of(catalogue, Entry("TRIO", "t", {"top_p": 0.5}), "trio", "chat")
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


def test_a_target_says_what_was_asked_and_what_it_stands_for(catalogue: Catalogue) -> None:
    assert only(catalogue, Entry("Talker", "mine")).target == Target("mine", "Talker", "p", "up", "chat", "g")
    assert only(catalogue, "p/some/id").target == Target("p/some/id", "p/some/id", "p", "some/id", "both", None)


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
    catalogue: Catalogue,
    model: str,
    system: str | None,
    messages: list[tuple[str, str]] | None,
    prompt: str | None,
    ignored: tuple[str, ...],
) -> None:
    call = only(catalogue, model, system=system)
    assert call.query.messages == (messages and tuple(Message(role, text) for role, text in messages))
    assert call.query.prompt == prompt
    assert call.fitted.ignored == ignored


def test_messages_go_as_they_are_and_not_to_a_model_that_completes_text(catalogue: Catalogue) -> None:
    messages = (Message("user", "Hi", {"name": "x"}), Message("assistant", None))
    chat, text, both = calls_of(catalogue, "chat", "text", "both", messages=messages)
    assert chat.query.messages == both.query.messages == messages
    assert (chat.refusal, both.refusal) == (None, None)
    assert text.refusal is not None
    assert (text.refusal.kind, text.refusal.code) == ("unsupported", "unsupported_endpoint")
    assert "`text` completes text and takes no messages" in text.refusal.message


def test_token_ids_go_only_to_text_models_of_a_format_that_has_them(catalogue: Catalogue) -> None:
    found = calls_of(catalogue, "text", "both", "chat", "other", prompts=((1, 2),))
    assert [call.query.prompt_tokens for call in found[:2]] == [(1, 2), (1, 2)]
    assert [call.refusal and call.refusal.code for call in found] == [None, None, "unsupported_prompt", "unsupported_prompt"]


def test_entries_that_ask_the_same_share_one_query(catalogue: Catalogue) -> None:
    """It is made, and its body written, once."""
    one, other, own = calls_of(catalogue, "chat", "chat", Entry("chat", overrides={"top_p": 1}), sampling=Sampling(top_p=0.5))
    assert one.query is other.query
    assert own.query is not one.query


# Samples


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        (None, [None, None, None]),
        (7, [7, 8, 9]),
        (-1, [-1, 0, 1]),
        (HIGHEST_SEED - 1, [HIGHEST_SEED - 1, HIGHEST_SEED, -HIGHEST_SEED - 1]),
    ],
)
def test_sample_k_is_sent_seed_plus_k(catalogue: Catalogue, seed: int | None, seeds: list[int | None]) -> None:
    """With one seed for all, every sample would be the same text; past the highest it begins at the lowest."""
    found = calls_of(catalogue, "chat", sampling=Sampling(n=3, seed=seed))
    assert [call.query.sampling.seed for call in found] == seeds
    assert [call.fitted.sent.get("seed") for call in found] == seeds


@pytest.mark.parametrize(
    ("model", "n", "native", "sent"),
    [("chat", 4, True, [4]), ("chat", 1, True, [None]), ("chat", 3, False, [None] * 3), ("chat", 5, True, [None] * 5)],
)
def test_n_goes_upstream_only_where_asked_and_where_it_fits(
    catalogue: Catalogue, model: str, n: int, native: bool, sent: list[int | None]
) -> None:
    found = calls_of(catalogue, model, sampling=Sampling(n=n, seed=1), native_n=native)
    assert [call.query.sampling.n for call in found] == sent
    assert [call.fitted.sent.get("n") for call in found] == sent


@pytest.mark.parametrize("n", [0, -1])
def test_no_samples_at_all_are_refused(catalogue: Catalogue, n: int) -> None:
    with pytest.raises(RequestError, match="n: is at least 1"):
        calls_of(catalogue, "chat", Entry("chat", overrides={"n": n}))


def test_as_many_calls_as_are_allowed_and_no_more(catalogue: Catalogue) -> None:
    more: dict[str, Any] = {"prompts": ("a", "b"), "sampling": Sampling(n=64)}
    assert len(calls_of(catalogue, "chat", "text", **more)) == 256
    sentence = r"model: the request makes 258 calls \(prompts × models × n\); at most 256 are allowed"
    with pytest.raises(RequestError, match=sentence) as caught:
        calls_of(catalogue, "chat", Entry("text", overrides={"n": 65}), **more)
    assert caught.value.faults[0].kind == "too_many_calls"
    with pytest.raises(RequestError, match="makes 3 calls"):
        calls_of(catalogue, "trio", max_calls=2)


# What cannot be called


def test_what_cannot_be_called_is_refused_in_its_own_place(catalogue: Catalogue) -> None:
    found = calls_of(catalogue, "nobody", "keyed", "gone", "chat", sampling=Sampling(n=2, seed=1), system="s")
    codes = [call.refusal and call.refusal.code for call in found]
    assert codes == [
        *("model_not_found", "model_not_found"),
        *("provider_not_configured", "provider_not_configured"),
        *("model_retired", "model_retired"),
        *(None, None),
    ]
    assert found[0].target == Target("nobody", "nobody", None, None)
    assert [dict(call.fitted.sent) for call in found[:6]] == [{}] * 6


def test_a_callers_own_key_makes_its_provider_ready_and_goes_with_its_calls_alone(catalogue: Catalogue) -> None:
    credential = Credential(SecretStr("sk-mine"), "digest")
    keyed, gone, chat = calls_of(catalogue, "keyed", "gone", "chat", credentials={"keyed": credential}, account_id="a")
    assert (keyed.refusal, keyed.credential, keyed.account_id) == (None, credential, "a")
    assert gone.refusal is not None
    assert gone.refusal.code == "model_retired"
    assert chat.credential is None


def test_strict_refuses_what_would_be_ignored_or_adjusted(catalogue: Catalogue) -> None:
    asked = [Entry("chat", overrides=own) for own in ({"top_k": 3}, {"temperature": 1.5}, {"temperature": 0.5})]
    for call in calls_of(catalogue, *asked):
        assert call.refusal is None
    ignored, adjusted, taken = (call.refusal for call in calls_of(catalogue, *asked, strict=True))
    assert ignored is not None
    assert adjusted is not None
    assert (ignored.kind, ignored.code, ignored.param) == ("unsupported", "unsupported_parameter", "top_k")
    assert ignored.message.startswith("`chat` cannot take `top_k`; leave it out")
    assert (adjusted.param, adjusted.message) == (
        "temperature",
        "`chat` cannot take `temperature` 1.5; the nearest it takes is 1",
    )
    assert taken is None


def test_strict_refuses_a_system_message_that_a_model_cannot_be_given(catalogue: Catalogue) -> None:
    refusal = only(catalogue, "text", system="Be brief", strict=True).refusal
    assert refusal is not None
    assert refusal.param == "system"


def test_a_plan_depends_on_nothing_and_changes_nothing(catalogue: Catalogue) -> None:
    request = Request(
        entries=(Entry("trio", "l", {"n": 2}), Entry("nobody")), prompts=("a", "b"), sampling=Sampling(seed=3, top_k=1)
    )
    before = copy.deepcopy(request)
    first = plan(request, catalogue, fit, 256, TODAY)
    assert plan(request, catalogue, fit, 256, TODAY) == first
    assert request == before
    assert plan(replace(request), catalogue, fit, 256, TODAY) == first
