"""Failures of calls: kind, delay, code, and a message that gives nothing away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from fanout.core.schema import Failure
from fanout.dispatch.retries import is_transient
from fanout.providers.anthropic.blocks import BlockReader
from fanout.providers.gemini.candidates import CandidateReader
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.error_objects import find_error, parse_error_body
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.redact import MAX_MESSAGE_CHARS, redact

SECRET = "q7Zt-own-key-99"
UP = Origin("up", (SECRET,))


def parse_failure(body: bytes, status: int | None = 400, headers: Mapping[str, str] | None = None) -> Failure:
    return UP.with_response(headers or {}, status).upstream_error(find_error(parse_error_body(body))).failure


def fail_with(status: int | None = 400, error: Any = None, **headers: str) -> Failure:
    """The failure of a body with this `error` and these headers (`_` for `-`)."""
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    body = {"error": {"message": "no", **error} if isinstance(error, dict) else error or {}}
    return parse_failure(json.dumps(body).encode(), status, fields)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "decimal_below_min_value"}, "bad_request"),
        (400, {"code": "context_length_exceeded"}, "bad_request"),
        (400, {"code": "content_filter"}, "content_filter"),
        (400, {"code": 400, "type": "exceed_context_size_error"}, "bad_request"),
        (400, {"message": "Your credit balance is too low"}, "quota"),
        (401, {"code": "invalid_api_key"}, "auth"),
        (402, {"code": 402}, "quota"),
        (403, {}, "auth"),
        (403, {"code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "…"}}, "content_filter"),
        (404, {"code": "model_not_found"}, "not_found"),
        (404, {}, "not_found"),
        (405, {}, "bad_request"),
        (408, {}, "timeout"),
        (409, {}, "server"),
        (413, {}, "bad_request"),
        (422, {}, "bad_request"),
        (424, {}, "server"),
        (429, {"code": "rate_limit_exceeded"}, "rate_limit"),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, "quota"),
        (429, {"type": "insufficient_quota", "code": "project_spend_limit_exceeded"}, "quota"),
        (429, {"message": "You exceeded your current quota, please check your plan and billing details."}, "quota"),
        (429, {"message": "You exceeded your current quota, check billing details. Please retry in 46.2s."}, "rate_limit"),
        (498, {}, "server"),
        (500, {}, "server"),
        (503, {"type": "unavailable_error"}, "server"),
        (529, {}, "server"),
        (301, {}, "server"),
        (None, {"code": 502}, "server"),
        (None, {"code": "429"}, "rate_limit"),
        (None, {"status_code": 400, "code": "tool_use_failed"}, "bad_request"),
        (None, {"http_status_code": 422}, "bad_request"),
        (None, {"type": "invalid_request_error"}, "bad_request"),
        (None, {"type": "overloaded"}, "rate_limit"),
        (None, {}, "server"),
    ],
    ids=str,
)
def test_the_kind_follows_the_code_then_the_status_then_the_type(status: int | None, error: dict[str, Any], kind: str) -> None:
    """By the code where it says more than the status, else by the status, else by the broader type."""
    assert fail_with(status, error).kind == kind


def test_a_402_with_a_delay_is_a_rate_limit() -> None:
    """402 with `Retry-After` (OpenRouter) may be tried again, 402 alone may not."""
    assert fail_with(402, retry_after="3").kind == "rate_limit"


@pytest.mark.parametrize(
    ("headers", "message", "delay_s"),
    [
        ({"retry_after": "7"}, "", 7.0),
        ({"retry_after": "0.25"}, "", 0.25),
        ({"retry_after_ms": "250", "retry_after": "7"}, "", 0.25),
        ({"retry_after_ms": "-1", "retry_after": "7"}, "", 7.0),
        ({"retry_after": "Fri, 20 Nov 2026 10:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, "", 30.0),
        ({"retry_after": "Fri, 20 Nov 2026 09:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, "", None),
        ({"retry_after": "-5"}, "", None),
        ({"retry_after": "nan"}, "", None),
        ({"retry_after": "inf"}, "", None),
        ({"retry_after": "1e12"}, "", None),
        ({"retry_after": "soon"}, "", None),
        ({"retry_after": ""}, "", None),
        ({"retry_after": "Fri, 99 Nov 2026"}, "", None),
        ({"retry_after": "soon"}, "Please try again in 5.289s. Visit …", 5.289),
        ({"retry_after": "2"}, "Please try again in 5.289s.", 2.0),
        ({"retry_after_ms": "0", "retry_after": "1"}, "", 1.0),
        ({"retry_after_ms": "0", "retry_after": "0"}, "", 0.0),
        ({"retry_after_ms": "0"}, "", 0.0),
        ({"retry_after": "0"}, "", 0.0),
        ({"retry_after": "0"}, "Please try again in 5.289s.", 5.289),
        ({"retry_after_ms": "0", "retry_after": "soon"}, "", 0.0),
        ({}, "Rate limit reached. Please try again in 6m0s.", 360.0),
        ({}, "try again in 20ms", 0.02),
        ({}, "Please retry after 20 seconds.", 20.0),
        ({}, "Please retry in 1h2m3.5s", 3723.5),
        ({}, "try again later, in 3 models", None),
    ],
    ids=str,
)
def test_the_first_delay_that_makes_sense_is_taken(headers: dict[str, str], message: str, delay_s: float | None) -> None:
    """It may be milliseconds, seconds, a date or a sentence; one that makes no sense is skipped."""
    delay = fail_with(429, {"message": message}, **headers).retry_after_s
    assert delay == (None if delay_s is None else pytest.approx(delay_s))


def test_googles_retry_info_is_a_delay() -> None:
    """google.rpc.RetryInfo."""
    details = [{"@type": "type.googleapis.com/google.rpc.Help"}, {"@type": "…RetryInfo", "retryDelay": "46s"}]
    assert fail_with(429, {"details": details}).retry_after_s == 46.0


@pytest.mark.parametrize(("word", "meant"), [("true", True), ("False", False), ("maybe", None), ("", None)])
def test_the_header_x_should_retry_is_read(word: str, meant: bool | None) -> None:
    """`x-should-retry`."""
    assert fail_with(500, x_should_retry=word).should_retry is meant


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"error": {"message": "bad", "param": "top_p"}}, "bad", "top_p"),
        ({"error": "model 'x' not found"}, "model 'x' not found", None),
        ({"error": "Input too long", "error_type": "validation"}, "Input too long", None),
        ([{"error": {"code": 400, "message": "wrong", "status": "INVALID_ARGUMENT"}}], "wrong", None),
        ({"object": "error", "message": "flat", "type": "BadRequestError", "param": None, "code": 40303}, "flat", None),
        ({"detail": "no such model"}, "no such model", None),
        ({"detail": {"message": "inner"}}, "inner", None),
        (
            {"detail": [{"loc": ["body", "stop", 0], "msg": "too long", "type": "x"}, {"loc": ["body", "n"], "msg": "is 1"}]},
            "stop.0: too long; n: is 1",
            "stop.0",
        ),
        (
            {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}},
            "seed: Extra inputs",
            None,
        ),
        (
            {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": "too hot"}}},
            "Provider returned error: too hot",
            None,
        ),
        ("just a sentence", "just a sentence", None),
    ],
    ids=str,
)
def test_the_error_body_of_every_framework_is_read(body: Any, message: str, param: str | None) -> None:
    """All are read for the sentence and the field."""
    failure = parse_failure(json.dumps(body).encode())
    assert (failure.message, failure.param) == (message, param)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[]", b'{"error": null}', b'{"error": {"message": 5}}', b"<html>nginx", b"12"]
)
def test_a_body_without_a_message_gets_a_sentence_of_ours(body: bytes) -> None:
    """With the status, and never a web page."""
    assert parse_failure(body).message == "`up` refused the request (HTTP 400)"


def test_a_plain_sentence_is_read_as_the_message() -> None:
    """Proxies often answer with no JSON."""
    assert parse_failure(b" no healthy upstream\n").message == "no healthy upstream"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_reported_with_the_upstreams_own_sentence(status: int) -> None:
    """It may repeat the key, and so may its code; only what it says about it is shown."""
    failure = fail_with(status, {"message": f"Incorrect API key provided: {SECRET}", "code": SECRET, "param": SECRET})
    assert SECRET not in repr(failure)
    ours = "refused the API key (HTTP 401)" if status == 401 else "does not permit this call (HTTP 403)"
    assert failure.message == f"`up` {ours}: Incorrect API key provided: [key]"
    assert failure.code in ("invalid_api_key", "permission_denied")


def test_an_internal_error_is_reported_in_our_words() -> None:
    """A 5xx may hold a stack trace; its code is kept."""
    for status, message in ((500, "/srv/app.py, line 5"), (502, "/srv"), (503, "Traceback: /srv/app.py")):
        failure = fail_with(status, {"message": message, "type": "unavailable_error"})
        assert failure.message == f"`up` had an internal error (HTTP {status})"
        assert failure.code == "unavailable_error"


@pytest.mark.parametrize("status", [401, 403, 429, 503, 529])
def test_the_upstreams_sentence_stays_redacted(status: int) -> None:
    """It says what is missing; it does not say where, or to whom."""
    failure = fail_with(
        status, {"message": f"Out of capacity at https://10.0.0.1/x for {SECRET} and sk-abc****wxyz, key ab***yz"}
    )
    assert failure.message.endswith("Out of capacity at [address] for [key] and [key], key [key]")


def test_a_service_that_is_not_enabled_is_not_a_refused_key() -> None:
    """Google's 403: the key was taken, the project lacks the service."""
    message = "The service has not been used in project 12345 before or it is disabled. Enable it, then retry."
    failure = fail_with(403, {"code": 403, "message": message, "status": "PERMISSION_DENIED"})
    assert (failure.kind, failure.code) == ("auth", "permission_denied")
    assert failure.message == f"`up` does not permit this call (HTTP 403): {message}"


@pytest.mark.parametrize(
    ("reader", "error"), [(BlockReader, {"type": "permission_error"}), (CandidateReader, {"status": "PERMISSION_DENIED"})]
)
def test_a_permission_is_told_from_a_key_where_no_status_does(reader: type[AnswerReader], error: dict[str, Any]) -> None:
    """In streams of Anthropic and Google."""
    failure = reader.parse_error(Origin("up"), {"error": {**error, "message": "Not yours."}}).failure
    assert (failure.kind, failure.code, failure.message) == (
        "auth",
        "permission_denied",
        "`up` does not permit this call: Not yours.",
    )


def test_a_call_that_was_given_up_on_the_way_is_cancelled() -> None:
    """499; nobody tries it again on their own."""
    failure = fail_with(499, {"message": "The operation was cancelled."})
    assert (failure.kind, failure.message, is_transient(failure)) == ("cancelled", "The operation was cancelled.", False)
    assert fail_with(499).message == "`up` cancelled the call (HTTP 499)"


def test_a_redirect_is_a_failure_that_names_the_setting() -> None:
    """It is not followed: the key would go elsewhere."""
    failure = fail_with(302)
    assert (failure.kind, failure.code) == ("server", "redirect")
    assert "base_url" in failure.message


def test_a_callers_key_is_hidden_like_the_configured_one() -> None:
    """Whoever's key it was."""
    origin = UP.with_secret("abc-def-ghi").with_response({}, 400)
    failure = origin.upstream_error({"message": f"you sent abc-def-ghi, not {SECRET}"}).failure
    assert failure.message == "you sent [key], not [key]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk-proj-abc_DEF-123 is wrong", "key [key] is wrong"),
        ("Incorrect key sk-ab***********yz.", "Incorrect key [key]"),
        ("got 'Bearer abc.def' from you", "got '[key]' from you"),
        ("gsk_0123456789abcdefgh", "[key]"),
        ("AIzaSyA0123456789abcdef failed", "[key] failed"),
        ("see https://internal.example.com:8443/v1?x=1 for more", "see [address] for more"),
        ("upstream vllm-0.vllm.default.svc.cluster.local:8000 died", "upstream [host] died"),
        ("connect to api.internal-host.com failed", "connect to [host] failed"),
        ("no route to 10.0.0.7:8000, sorry", "no route to [address], sorry"),
        ("bound to 192.168.1.1.", "bound to [address]."),
        ("at [::1]:8080 and fe80::1ff:fe23:4567:890a", "at [address] and [address]"),
        ("2001:db8:85a3:0:0:8a2e:370:7334 refused", "[address] refused"),
        ("HTTPConnectionPool(host='db-1', port=80)", "HTTPConnectionPool(host=[host], port=80)"),
        ("ask localhost:11434", "ask [host]"),
        ("two\n lines\tand  spaces", "two lines and spaces"),
    ],
)
def test_keys_hosts_and_addresses_are_redacted(text: str, shown: str) -> None:
    """Keys, host names, addresses."""
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "'temperature' must be <= 2, got 2.5",
        "The model `meta-llama/Llama-3.1-8B-Instruct` does not exist",
        "messages.0.content: skip_special_tokens is not allowed; max_tokens:16",
        "This model's maximum context length is 8192 tokens, e.g. for gpt-3.5-turbo v1.2.3.",
        "task-force sk is fine; std::vector at 12:30:45",
    ],
)
def test_numbers_parameters_and_models_are_not_redacted(text: str) -> None:
    """Numbers, parameters, models and versions are no secrets."""
    assert redact(text) == text


def test_a_long_message_is_cut_without_half_a_key() -> None:
    """And what is cut leaves no half of a key behind."""
    text = "word " * 399 + "sk-" + "a" * 10_000
    assert len(redact(text)) <= MAX_MESSAGE_CHARS
    assert "aaa" not in redact("https://a.example/x " * 99 + "sk-" + "a" * 10_000)


@given(st.text(max_size=300), st.text(max_size=50))
def test_a_secret_never_shows_wherever_it_stands(before: str, after: str) -> None:
    """Wherever it stands."""
    assert SECRET not in redact(before + SECRET + after, (SECRET,))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "code", "type", "param", "metadata", "raw", "details", "loc", "msg", "status"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(JSON, st.sampled_from([None, 200, 302, 400, 401, 402, 429, 500]), st.text(max_size=20))
def test_any_body_and_header_become_some_failure(body: Any, status: int | None, header: str) -> None:
    """Any JSON is some failure."""
    headers = {"retry-after": header, "retry-after-ms": header, "x-should-retry": header, "date": header}
    failure = parse_failure(json.dumps(body).encode(), status, headers)
    assert 0 < len(failure.message) <= MAX_MESSAGE_CHARS
