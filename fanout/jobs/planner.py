"""Planner of jobs: what their rows and models stand for by the current configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fanout.core.errors import Fault, RequestError
from fanout.core.schema import Call
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.plan import Entry, Request
from fanout.jobs.config_fingerprint import find_differences, fingerprint_entries, fingerprint_names
from fanout.jobs.job import Fingerprint, Job, JobKind, JobSpec, RequestBuilder
from fanout.jobs.row_request import make_row_request_builder

EMPTY_ROW = '{"prompt":""}'
"""A row without a prompt: what the models of a job stand for does not depend on it."""

RequestBuilderFactory = Callable[[JobSpec, str], RequestBuilder]
"""Makes the request builder for jobs of one kind, from a job's specification and its account."""


class JobPlanner:
    """Request builders of all kinds of jobs, and the fingerprints of their models."""

    def __init__(self, dispatcher: Dispatcher, builders: Mapping[JobKind, RequestBuilderFactory] | None = None) -> None:
        self.dispatcher = dispatcher
        self._builders: Mapping[JobKind, RequestBuilderFactory] = {"rows": make_row_request_builder, **(builders or {})}

    def make_builder(self, spec: JobSpec, account_id: str) -> RequestBuilder:
        """Return the request builder of a job.

        Raises:
            RequestError: its models, parameters or template cannot be used.
        """
        return self._builders[spec.kind](spec, account_id)

    def plan_item(self, job: Job, body: str) -> list[Call]:
        """Return the calls of one item of a job."""
        return self.dispatcher.plan(self.make_builder(job.spec, job.account_id).build_request(body))

    def fingerprint_spec(self, spec: JobSpec, builder: RequestBuilder) -> Fingerprint:
        """Return the fingerprint of a new job; empty where its requests name their own models.

        Raises:
            RequestError: some models cannot be called.
        """
        if spec.kind != "rows":
            return {}
        calls = self.dispatcher.plan(builder.build_request(EMPTY_ROW))
        _check_refusals((f"models[{call.entry}]", call) for call in calls)
        return fingerprint_entries((call for call in calls if not call.sample), self.dispatcher.settings.providers)

    def fingerprint_job(self, job: Job) -> Fingerprint:
        """Return the fingerprint that a job would have if it were made now.

        Raises:
            RequestError: some models can no longer be called.
        """
        if job.spec.kind == "rows":
            return self.fingerprint_spec(job.spec, self.make_builder(job.spec, job.account_id))
        # Requests name their own models, but a million of them are not planned anew: the first of each name stands for all.
        calls = [self.dispatcher.plan(Request(entries=(Entry(name),), prompts=("",)))[0] for name in job.fingerprint]
        _check_refusals((call.target.name, call) for call in calls)
        return fingerprint_names(calls, self.dispatcher.settings.providers)

    def require_unchanged(self, job: Job) -> Fingerprint:
        """Return the fingerprint of a job whose models still stand for the same.

        Raises:
            RequestError: with every difference.
        """
        fingerprint = self.fingerprint_job(job)
        if differences := find_differences(job.fingerprint, fingerprint):
            raise RequestError(differences)
        return fingerprint

    def count_units(self, job: Job) -> int:
        """Return the number of a job's units if it were made now: its model sets may have other members by then."""
        return job.items * len(self.plan_item(job, EMPTY_ROW)) if job.spec.kind == "rows" else job.units


def _check_refusals(calls: Iterable[tuple[str, Call]]) -> None:
    refused = {path: call.refusal.message for path, call in calls if call.refusal}
    if refused:
        raise RequestError([Fault(path, message) for path, message in refused.items()])
