"""Entries that cannot be called: each is refused in its place, before anything is sent."""

from __future__ import annotations

from pydantic import SecretStr

from fanout.core.sampling import Sampling
from fanout.core.schema import Credential, Target
from fanout.dispatch.entries import Entry
from tests.support.builders.plans import plan_call, plan_calls


def test_what_cannot_be_called_is_refused_in_its_own_place() -> None:
    found = plan_calls("nobody", "keyed", "gone", "chat", sampling=Sampling(n=2, seed=1), system="s")
    codes = [call.refusal and call.refusal.code for call in found]
    assert codes == [
        *("model_not_found", "model_not_found"),
        *("provider_not_configured", "provider_not_configured"),
        *("model_retired", "model_retired"),
        *(None, None),
    ]
    assert found[0].target == Target("nobody", "nobody", None, None)
    assert [dict(call.fitted.sent) for call in found[:6]] == [{}] * 6


def test_a_callers_own_key_makes_its_provider_ready_and_goes_with_its_calls_alone() -> None:
    credential = Credential(SecretStr("sk-mine"), "digest")
    keyed, gone, chat = plan_calls("keyed", "gone", "chat", credentials={"keyed": credential}, account_id="a")
    assert (keyed.refusal, keyed.credential, keyed.account_id) == (None, credential, "a")
    assert gone.refusal is not None
    assert gone.refusal.code == "model_retired"
    assert chat.credential is None


def test_strict_refuses_what_would_be_ignored_or_adjusted() -> None:
    written = [Entry("chat", overrides=own) for own in ({"top_k": 3}, {"temperature": 1.5}, {"temperature": 0.5})]
    for call in plan_calls(*written):
        assert call.refusal is None
    ignored, adjusted, taken = (call.refusal for call in plan_calls(*written, strict=True))
    assert ignored is not None
    assert adjusted is not None
    assert (ignored.kind, ignored.code, ignored.param) == ("unsupported", "unsupported_parameter", "top_k")
    assert ignored.message.startswith("`chat` cannot take `top_k`; leave it out")
    assert (adjusted.param, adjusted.message) == (
        "temperature",
        "`chat` cannot take `temperature` 1.5; the nearest it takes is 1",
    )
    assert taken is None


def test_strict_refuses_a_system_message_that_a_model_cannot_be_given() -> None:
    refusal = plan_call("text", system="Be brief", strict=True).refusal
    assert refusal is not None
    assert refusal.param == "system"
