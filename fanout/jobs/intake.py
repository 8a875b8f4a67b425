"""Intake of a job's input: every row is validated before anything is sent, and every bad one reported with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from fanout.core.errors import Fault, RequestError
from fanout.core.schema import Call
from fanout.core.usage import Usage
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.config_fingerprint import fingerprint_names
from fanout.jobs.estimate import JobEstimate
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import Fingerprint, JobSpec, RequestBuilder
from fanout.store.jobs.records import InputItem

MAX_FAULTS = 1_000
"""Faults of an input that are reported."""
MAX_BAD_ROWS = 100_000
"""Bad rows after which the rest is not read."""
CHUNK_ROWS = 256
MAX_MODELS = 1_000
"""Different models that the requests of one job may name."""


class Intake:
    """The input of a job while it is read. `read_chunk` runs in a thread, one at a time."""

    def __init__(
        self,
        spec: JobSpec,
        builder: RequestBuilder,
        dispatcher: Dispatcher,
        fingerprint: Fingerprint,
        estimate: JobEstimate | None = None,
    ) -> None:
        """Start with the fingerprint of the job's own models; an `estimate` takes the calls of every row."""
        self._spec, self._builder, self._dispatcher, self._estimate = spec, builder, dispatcher, estimate
        self.fingerprint: dict[str, Mapping[str, object]] = dict(fingerprint)
        self.items = self.units = self._bad_rows = 0
        self.faults: list[Fault] = []
        self._priced: set[str] = set()
        """Models whose price is known."""

    def read_chunk(self, rows: Iterator[InputRow | BadRow]) -> list[InputItem] | None:
        """Return the items of the next rows; `None` at the end."""
        items: list[InputItem] = []
        read = 0
        for row in islice(rows, CHUNK_ROWS):
            read += 1
            faults = [Fault("", row.reason)] if isinstance(row, BadRow) else self._add_row(row, items)
            if faults:
                self._bad_rows += 1
                self.faults += [Fault(_join(row.line, fault.path), fault.message, fault.kind) for fault in faults]
        del self.faults[MAX_FAULTS:]  # an answer with a fault for each of a million rows helps nobody
        return items if read and self._bad_rows < MAX_BAD_ROWS else None

    def check(self) -> None:
        """Check the whole input.

        Raises:
            RequestError: something is wrong with it.
        """
        if self._bad_rows > len(self.faults):
            self.faults.append(Fault("", f"{self._bad_rows} rows are bad; not all are listed", "too_many_faults"))
        if not self.items and not self.faults:
            self.faults.append(Fault("input", "holds no row"))
        if self.faults:
            raise RequestError(self.faults)

    def _add_row(self, row: InputRow, items: list[InputItem]) -> Sequence[Fault]:
        """Add the item of a row, or return what is wrong with it."""
        try:
            custom_id, body = self._builder.parse_row(row.values)
            calls = self._dispatcher.plan(self._builder.build_request(body))
        except RequestError as error:
            return error.faults
        refused = {call.target.label: call.refusal for call in calls if call.refusal}
        if refused:
            return [Fault(refusal.param or "model", f"{label}: {refusal.message}") for label, refusal in refused.items()]
        if self._spec.kind == "requests":
            fresh = [call for call in calls if call.target.name not in self.fingerprint]
            self.fingerprint |= fingerprint_names(fresh, self._dispatcher.settings.providers)
            if len(self.fingerprint) > MAX_MODELS:
                return [Fault("model", f"more than {MAX_MODELS} different models are not allowed in one job")]
        self._require_prices(calls)
        if self._estimate:
            self._estimate.add(calls, self._dispatcher.compute_cost)
        items.append(InputItem(self.items, row.line, custom_id, body))
        self.items += 1
        self.units += len(calls)
        return []

    def _require_prices(self, calls: Sequence[Call]) -> None:
        """Check that a cost limit can be kept.

        Raises:
            RequestError: the job has one, and the price of a model is not known.
        """
        if self._spec.max_cost_usd is None:
            return
        # Once for each model, not for every row.
        fresh = [call for call in calls if call.target.name not in self._priced]
        unknown = {call.target.label for call in fresh if self._dispatcher.compute_cost(call, Usage(1, 1)) is None}
        if not unknown and len(self._priced) < MAX_MODELS:
            self._priced.update(call.target.name for call in fresh)
        if unknown:
            names = ", ".join(f"`{name}`" for name in sorted(unknown))
            sentence = f"cannot be kept: what {names} costs is not known; give it a `price` in providers.json"
            raise RequestError([Fault("max_cost_usd", sentence)])


def _join(line: int, path: str) -> str:
    return f"line {line}: {path}" if path else f"line {line}"
