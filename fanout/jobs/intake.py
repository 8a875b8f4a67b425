"""A job's input, checked whole while it is taken in: every bad row is told with its line, and then nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.schema import Call
from fanout.core.usage import Usage
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs import config_fingerprint
from fanout.jobs.estimate import Estimate
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import Fingerprint, JobSpec, RequestBuilder
from fanout.store.jobs.records import InputItem

MAX_FAULTS = 1_000
"""That are told of an input."""
MAX_BAD_ROWS = 100_000
"""After so many the rest is not looked at."""
ROWS_AT_ONCE = 256
MAX_MODELS = 1_000
"""Different models that the requests of one job may name."""


class Intake:
    """The input of a job while it is read. `take` runs in a thread, one at a time."""

    def __init__(self, spec: JobSpec, builder: RequestBuilder, dispatcher: Dispatcher, meant: Fingerprint) -> None:
        self._spec, self._builder, self._dispatcher = spec, builder, dispatcher
        self.meant: dict[str, Mapping[str, Any]] = dict(meant)
        self.items = self.units = self.bad = 0
        self.faults: list[Fault] = []
        self._known: set[str] = set()
        """Models whose price is known."""
        self.estimate: Estimate | None = None
        """What it all would be; counted only where it is asked for."""

    def take(self, rows: Iterator[InputRow | BadRow]) -> list[InputItem] | None:
        """What is to be kept of the next rows; `None` at the end."""
        found: list[InputItem] = []
        read = 0
        for row in islice(rows, ROWS_AT_ONCE):
            read += 1
            faults = [Fault("", row.reason)] if isinstance(row, BadRow) else self._faults_of(row, found)
            if faults:
                self.bad += 1
                self.faults += [Fault(_path(row.line, fault.path), fault.message, fault.kind) for fault in faults]
        del self.faults[MAX_FAULTS:]
        return found if read and self.bad < MAX_BAD_ROWS else None

    def _faults_of(self, row: InputRow, found: list[InputItem]) -> Sequence[Fault]:
        """Takes in a row that is as it must be; else says what is not."""
        try:
            custom_id, body = self._builder.parse_row(row.values)
            calls = self._dispatcher.plan(self._builder.build_request(body))
        except RequestError as error:
            return error.faults
        refused = {call.target.label: call.refusal for call in calls if call.refusal}
        if refused:
            return [Fault(refusal.param or "model", f"{label}: {refusal.message}") for label, refusal in refused.items()]
        if self._spec.kind == "requests":
            for call in calls:
                if call.target.name not in self.meant:
                    self.meant |= config_fingerprint.fingerprint_names([call], self._dispatcher.settings.providers)
            if len(self.meant) > MAX_MODELS:
                return [Fault("model", f"more than {MAX_MODELS} different models are not allowed in one job")]
        self._priced(calls)
        if self.estimate:
            self.estimate.add(calls, self._dispatcher.compute_cost)
        found.append(InputItem(self.items, row.line, custom_id, body))
        self.items += 1
        self.units += len(calls)
        return []

    def _priced(self, calls: Sequence[Call]) -> None:
        if self._spec.max_cost_usd is None:
            return
        fresh = [call for call in calls if call.target.name not in self._known]
        unknown = {call.target.label for call in fresh if self._dispatcher.compute_cost(call, Usage(1, 1)) is None}
        if not unknown and len(self._known) < MAX_MODELS:
            self._known.update(call.target.name for call in fresh)
        if unknown:
            names = ", ".join(f"`{name}`" for name in sorted(unknown))
            sentence = f"cannot be kept: what {names} costs is not known; give it a `price` in providers.json"
            raise RequestError([Fault("max_cost_usd", sentence)])

    def check(self) -> None:
        """Raises:
        RequestError: something is wrong with the input.
        """
        if self.bad > len(self.faults):
            self.faults.append(Fault("", f"{self.bad} rows are bad; not all are listed", "too_many_faults"))
        if not self.items and not self.faults:
            self.faults.append(Fault("input", "holds no row"))
        if self.faults:
            raise RequestError(self.faults)


def _path(line: int, path: str) -> str:
    return f"line {line}: {path}" if path else f"line {line}"
