"""Diagnosis of a provider from the outcomes of its trial calls, with advice. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fanout.config.settings import ProviderSettings
from fanout.core.schema import Completion, Failure, FailureKind, Outcome
from fanout.core.usage import sum_known

Evidence = tuple[bool | None, bool | None, bool | None]
"""Whether the host answered, accepted the key, knows the model; `None`: not known, because something before it failed."""
NO_EVIDENCE: Evidence = (None, None, None)

EVIDENCE_BY_KIND: Mapping[FailureKind, Evidence] = {
    "network": (False, None, None),
    "timeout": (False, None, None),
    "not_configured": (None, False, None),
    "auth": (True, False, None),
    "not_found": (True, None, False),
    "quota": (True, True, None),
    "content_filter": (True, True, True),
    "rate_limit": (True, None, None),
    "bad_request": (True, None, None),  # also how some hosts refuse a key
    "unsupported": (True, None, None),
    "server": (True, None, None),
    "malformed": (True, None, None),
}
"""Evidence in a failure, by its kind; other kinds are no evidence."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of trying one provider with one model. `None`: not known, because something before it failed."""

    provider: str
    model: str | None = None
    """The model as callers name it; `None` where none could be chosen."""
    reachable: bool | None = None
    """The host answered, be it with an error."""
    needs_key: bool = True
    key_accepted: bool | None = None
    model_known: bool | None = None
    streams: bool | None = None
    """At least one piece arrived, and then an end."""
    usage_whole: bool | None = None
    usage_streamed: bool | None = None
    total_s: float | None = None
    cost_usd: float | None = None
    next: str = ""
    """Advice; empty where nothing is to be done."""
    wants_model: bool = False
    """No model to try is known: one must be named."""
    tried: bool = True
    """`False`: it was not requested by name and cannot be tried, which is no fault of the configuration."""

    @property
    def is_well(self) -> bool:
        """True if it answers, whole and streamed. It may leave out its usage."""
        return bool(self.reachable and self.model_known and self.streams and (self.key_accepted or not self.needs_key))

    @property
    def reports_usage(self) -> bool | None:
        """True if whole answers and streams both report their usage."""
        known = (self.usage_whole, self.usage_streamed)
        return False if False in known else None if None in known else True


def read_outcome(outcome: Outcome) -> Evidence:
    """Return the evidence in an outcome."""
    result = outcome.result
    if isinstance(result, Completion):
        return (True, True, True)
    if not outcome.timing.attempts:  # refused here: nothing was sent
        return {"not_found": (None, None, False), "not_configured": (None, False, None)}.get(result.kind, NO_EVIDENCE)
    return read_failure(result)


def read_failure(failure: Failure) -> Evidence:
    """Return the evidence in an upstream's failure."""
    reachable, accepted, known = EVIDENCE_BY_KIND.get(failure.kind, NO_EVIDENCE)
    if failure.status is not None or failure.code == "answer_truncated":  # something came back, whatever the kind
        reachable = True
    if failure.kind == "not_found" and failure.code:  # a code of the API itself, which it gives to callers it has accepted
        accepted = True
    return reachable, accepted, known


def diagnose(
    provider: ProviderSettings, model: str, whole: Outcome, streamed: Outcome | None = None, *, pieces: int = 0
) -> Finding:
    """Return the finding from a whole call and, if that was answered, a streamed one; `pieces` of it held something."""
    first, second = whole.result, streamed.result if streamed else None
    reachable, accepted, known = read_outcome(whole)
    streams = None if second is None else isinstance(second, Completion) and bool(pieces) and _has_ended(second)
    return Finding(
        provider=provider.name,
        model=model,
        reachable=reachable,
        needs_key=needs_key(provider),
        key_accepted=accepted if needs_key(provider) or accepted is False else None,
        model_known=known,
        streams=streams,
        usage_whole=_reports_usage(first),
        usage_streamed=_reports_usage(second),
        total_s=whole.timing.total_s + (streamed.timing.total_s if streamed else 0),
        cost_usd=sum_known(outcome.cost.usd for outcome in (whole, streamed) if outcome and outcome.cost),
        next=_advise_on_results(provider, first, second, streams),
    )


def diagnose_listing(provider: ProviderSettings, failure: Failure) -> Finding:
    """Return the finding for a provider whose list of models could not be fetched, so that nothing was tried."""
    reachable, accepted, _ = read_failure(failure)
    return Finding(
        provider=provider.name,
        reachable=reachable,
        needs_key=needs_key(provider),
        key_accepted=accepted,
        next=advise(provider, failure),
    )


def diagnose_without_model(provider: ProviderSettings, failure: Failure, *, tried: bool) -> Finding:
    """Return the finding for a provider without a known model to try."""
    why = f"{failure.message}; " if failure.status == 200 else ""
    return Finding(
        provider=provider.name,
        reachable=True if failure.kind == "malformed" or failure.status else None,
        needs_key=needs_key(provider),
        next=f"{why}name a model to try: `--model {provider.name}/<id>`",
        wants_model=True,
        tried=tried,
    )


def needs_key(provider: ProviderSettings) -> bool:
    """Return whether there is a key that could be refused."""
    return provider.key is not None or bool(provider.missing_key)


def advise(provider: ProviderSettings, failure: Failure) -> str:
    """Return advice on a failure for the operator, in one line."""
    address = f" (`{provider.row.base_url_env}`)" if provider.row.base_url_env else ""
    keys = " or ".join(f"`{name}`" for name in provider.row.api_key_env) or "the credentials"
    another = f"try another model: `--model {provider.name}/<id>`"
    match failure.kind:
        case "network":
            return f"{failure.message}; check the network and the address{address}"
        case "timeout":
            return f"{failure.message}; try again, with a longer `--timeout`"
        case "auth" if failure.code == "permission_denied":
            return f"{failure.message}; check what the key may do and what its account has enabled, or {another}"
        case "auth":
            return f"the key was refused: set another one in {keys}"
        case "not_found" if failure.code in ("model_retired", "model_not_found"):
            return f"{failure.message}; {another}"
        case "not_found":
            return f"{failure.message}; {another}, or check the address{address}"
        case "not_configured":
            return failure.message
        case "quota":
            return f"{failure.message}; add credit there, or raise its limit"
        case "rate_limit":
            wait = f" in {failure.retry_after_s:.0f} s" if failure.retry_after_s else " later"
            return f"{failure.message}; check again{wait}"
        case "server":
            return f"{failure.message}; try again later"
        case "malformed":
            return f"{failure.message}; does the address{address} lead to its API?"
        case _:
            return f"{failure.message}; {another}"


def _advise_on_results(
    provider: ProviderSettings, whole: Completion | Failure, streamed: Completion | Failure | None, streams: bool | None
) -> str:
    if isinstance(whole, Failure):
        return advise(provider, whole)
    if isinstance(streamed, Failure):
        return f"whole answers come, streamed ones fail: {advise(provider, streamed)}"
    if streams is False:
        return "whole answers come, streams are empty: use it without `stream`"
    silent = [way for way, result in (("whole", whole), ("streamed", streamed)) if _reports_usage(result) is False]
    return f"reports no tokens ({' and '.join(silent)}): their number and cost stay unknown" if silent else ""


def _has_ended(completion: Completion) -> bool:
    return any(choice.finish_reason or choice.native_finish_reason for choice in completion.choices)


def _reports_usage(result: Completion | Failure | None) -> bool | None:
    if not isinstance(result, Completion):
        return None
    return bool(result.usage and (result.usage.output_tokens is not None or result.usage.input_tokens is not None))
