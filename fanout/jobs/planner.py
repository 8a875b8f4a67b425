"""Planner of jobs: what their rows and models stand for by the current configuration, and whether that has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from fanout.config.settings import ProviderSettings
from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.core.schema import Call
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.entries import Entry, add_self_fusions, parse_entries
from fanout.dispatch.request import Request
from fanout.jobs.copies import list_copies
from fanout.jobs.job import FINGERPRINT_JSON, Fingerprint, Job, JobKind, JobSpec, RequestBuilder, RequestBuilderFactory
from fanout.jobs.row_request import RowRequestBuilder

EMPTY_ROW = '{"prompt":""}'
"""A row without a prompt: what the models of a job stand for does not depend on it."""


class JobPlanner:
    """Request builders of all kinds of jobs, and the fingerprints of their models."""

    def __init__(self, dispatcher: Dispatcher, builders: Mapping[JobKind, RequestBuilderFactory] | None = None) -> None:
        self.dispatcher = dispatcher
        self._builders: Mapping[JobKind, RequestBuilderFactory] = {"rows": RowRequestBuilder, **(builders or {})}

    def make_builder(self, spec: JobSpec, account_id: str) -> RequestBuilder:
        """Return the request builder of a job, or raise `RequestError` where its models or template cannot be used."""
        return self._builders[spec.kind](spec, account_id)

    def write_out(self, spec: JobSpec) -> JobSpec:
        """Return a specification with the fusions that it asks for without naming them."""
        if not spec.self_fusions:
            return spec
        faults: list[Fault] = []
        entries = parse_entries(spec.models, faults)
        if faults:
            raise RequestError(faults)
        models = [entry.to_mapping() for entry in add_self_fusions(entries, self.dispatcher.catalogue)]
        return replace(spec, models=tuple(models))

    def plan_item(self, job: Job, body: str) -> list[Call]:
        """Return the calls of one item of a job."""
        return self.dispatcher.plan(self.make_builder(job.spec, job.account_id).build_request(body))

    def fingerprint_spec(self, spec: JobSpec, builder: RequestBuilder, *, is_estimate: bool = False) -> Fingerprint:
        """Return the fingerprint of a new job, or raise `RequestError` where some of its models cannot be called."""
        if spec.kind != "rows":
            return {}  # requests name their own models: see `Intake`
        calls = self.dispatcher.plan(builder.build_request(EMPTY_ROW))
        _check_refusals((f"models[{call.entry}]", call) for call in calls if is_refused(call, is_estimate=is_estimate))
        providers = self.dispatcher.settings.providers
        _check_way(spec, calls, providers, has_hooks=self.dispatcher.upstreams.has_hooks)
        # All repeats send the same, so one is enough.
        first = (call for call in calls if not call.sample)
        found = {f"{call.entry}: {call.target.label}": _describe_call(call, providers, parameters=True) for call in first}
        # Here, where sets are written out: as a stored job it would be refused by its first run, after it was accepted.
        if spec.until_decided and len(found) - len(list_copies(found)) < 2:
            raise RequestError([Fault("until_decided", f"needs two models to compare; the job has {len(found)}")])
        return found

    def fingerprint_job(self, job: Job) -> Fingerprint:
        """Return the fingerprint that a job would have if it were made now."""
        if job.spec.kind == "rows":
            return self.fingerprint_spec(job.spec, self.make_builder(job.spec, job.account_id))
        # Requests name their own models, but a million of them are not planned anew: the first of each name stands for all.
        calls = [self.dispatcher.plan(Request(entries=(Entry(name),), prompts=("",)))[0] for name in job.fingerprint]
        _check_refusals((call.target.name, call) for call in calls)
        return fingerprint_names(calls, self.dispatcher.settings.providers)

    def require_unchanged_models(self, job: Job) -> Fingerprint:
        """Return the fingerprint of a job whose models still stand for the same, or raise every difference."""
        fingerprint = self.fingerprint_job(job)
        if differences := _find_differences(job.fingerprint, fingerprint):
            raise RequestError(differences)
        return fingerprint

    def count_units(self, job: Job) -> int:
        """Return the number of a job's units if it were made now: its model sets may have other members by then."""
        return job.items * len(self.plan_item(job, EMPTY_ROW)) if job.spec.kind == "rows" else job.units


def is_refused(call: Call, *, is_estimate: bool) -> bool:
    """Return whether a call can never be made; an estimate needs no key yet."""
    return call.refusal is not None and not (is_estimate and call.refusal.kind == "not_configured")


def fingerprint_names(calls: Iterable[Call], providers: Mapping[str, ProviderSettings]) -> Fingerprint:
    """Return the fingerprint of requests that name their own models, by name."""
    return {call.target.name: _describe_call(call, providers, parameters=False) for call in calls}


def _check_refusals(calls: Iterable[tuple[str, Call]]) -> None:
    refused = {path: call.refusal.message for path, call in calls if call.refusal}
    if refused:
        raise RequestError([Fault(path, message) for path, message in refused.items()])


def _check_way(spec: JobSpec, calls: Iterable[Call], providers: Mapping[str, ProviderSettings], *, has_hooks: bool) -> None:
    """Raise `RequestError` with what contradicts the way in which the calls are to be sent."""
    faults = []
    if spec.via == "live":
        if spec.live_rest:
            raise RequestError([Fault("live_rest", "is for jobs whose `via` is `batch`")])
        return
    if spec.stream:
        faults.append(Fault("stream", "is not possible with `via: batch`: the answers of a batch come whole"))
    if spec.until_decided:
        sentence = "is not possible with `via: batch`: all of a batch is sent, and charged, before its first answer is seen"
        faults.append(Fault("until_decided", sentence))
    if not spec.live_rest and has_hooks:
        faults.append(Fault("via", "`batch` is not possible with FANOUT_HOOKS: what a batch holds passes no hook"))
    elif not spec.live_rest:
        faults += _list_without_batches(calls, providers)
    if faults:
        raise RequestError(faults)


def _list_without_batches(calls: Iterable[Call], providers: Mapping[str, ProviderSettings]) -> Iterator[Fault]:
    for label, name in {call.target.label: call.target.provider or "" for call in calls if not call.fusion}.items():
        if name in providers and providers[name].row.economy is None:
            having = ", ".join(f"`{other}`" for other, row in providers.items() if row.row.economy) or "none"
            sentence = f"`batch` is not possible for `{label}`: no batch API of `{name}` is known (of these it is: {having}); "
            yield Fault("via", sentence + "leave the model out, or set `live_rest` to have its calls sent at once")


def _find_differences(before: Fingerprint, now: Fingerprint) -> list[Fault]:
    faults = []
    now = FINGERPRINT_JSON.validate_json(FINGERPRINT_JSON.dump_json(now))  # tuples as lists, as in the stored one
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            faults.append(Fault(name, "is new" if old is None else "is gone", "changed"))
            continue
        faults += [
            Fault(f"{name}.{key}", f"was `{old.get(key)}`, is `{new.get(key)}`", "changed")
            for key in {**old, **new}
            # The limit group decides when a call is sent, not what is sent.
            if key != "limit_group" and old.get(key) != new.get(key)
        ]
    return faults


def _describe_call(call: Call, providers: Mapping[str, ProviderSettings], *, parameters: bool) -> JsonObject:
    """Return where a call goes; with `parameters` also what is sent beside the prompt."""
    target = call.target
    row = providers.get(target.provider or "")
    # Stored and shown: no secret may be in it.
    described: JsonObject = {
        "model": target.name,
        "provider": target.provider,
        "adapter": row.adapter if row else None,
        "base_url": row.base_url if row else None,
        "upstream_model": target.model,
        "kind": target.kind,
        "limit_group": target.limit_group,
    }
    if call.is_member and parameters:
        described["is_member"] = True
    if call.fusion and parameters:
        described["fusion"] = {"of": list(call.fusion.of), "prompt": call.fusion.prompt_version}
    return described | {"sent": dict(call.fitted.sent), "ignored": list(call.fitted.ignored)} if parameters else described
