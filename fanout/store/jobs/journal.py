"""The journal of running jobs: every attempt before it is sent, every failure, and how each unit ended.

A unit has exactly one row, written when it ends. An attempt that neither failed nor ended its unit was cut off, and may have
been paid for. Entries go through group commit, and count only for the process that has the lease of
their job or chunk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from functools import cached_property

from sqlalchemy import Connection, func, literal_column, select, update

from fanout.core.errors import LeaseLostError, StoreError
from fanout.core.usage import WorkTotals
from fanout.core.value_type import value_type
from fanout.store.engine.bulk_insert import insert_rows
from fanout.store.engine.database import Database, run_to_end
from fanout.store.engine.text_columns import clean_name, clean_text, place_text
from fanout.store.engine.writers import GroupCommit
from fanout.store.jobs.inputs import add_texts
from fanout.store.jobs.leases import lock_epochs
from fanout.store.jobs.money import MoneyChange, apply_changes
from fanout.store.jobs.records import JobState, Unit, UnitScore
from fanout.store.jobs.scores import add_scores, compile_add
from fanout.store.tables import attempts, failures, job_counts, jobs, texts, units
from fanout.store.usage import ANSWERED


@value_type(frozen=True, slots=True)
class JournalEntry:
    """An event of an attempt, whose number counts from 1, with the epoch of the writer's lease."""

    unit: Unit
    attempt: int
    epoch: int
    at: float
    chunk: int | None = field(default=None, kw_only=True)
    """The chunk whose lease it is; `None`: the job's."""
    money: MoneyChange | None = field(default=None, kw_only=True)
    """Where several processes share the job's money."""
    again: bool = field(default=False, kw_only=True)
    """It may have been written before: the database failed without saying whether it had committed."""

    @property
    def lease(self) -> tuple[int, int | None]:
        return self.unit.job, self.chunk


@value_type(frozen=True, slots=True)
class AttemptStarted(JournalEntry):
    """An attempt that is about to be made."""


@value_type(frozen=True, slots=True)
class AttemptFailed(JournalEntry):
    """An attempt that failed, with its failure as JSON; its unit stays open."""

    kind: str
    failure: str


@value_type(frozen=True, slots=True)
class UnitEnded(JournalEntry):
    """A unit that ended: with an answer, or with the failure of its last attempt. Its record and failure are JSON."""

    model: str
    result: str
    """`answered`, or the failure's kind."""
    record: str
    totals: WorkTotals
    """The sums of this unit alone; its attempts are those made since it was last open."""
    failure: str | None = None
    text: str | None = None
    """The answer's text, to find answers that differ."""
    cache_key: bytes | None = None
    cached_from: str | None = None
    scores: Sequence[UnitScore] = ()


COUNTED = [column.name for column in job_counts.columns][3:]
"""Columns of `job_counts` behind its key."""


class _JournalStatements:
    """Statements of a journal."""

    def __init__(self, database: Database) -> None:
        self.add_text = database.insert_or_ignore(texts)
        self.add_score = compile_add(database)
        # Compiled, and handed to the driver as text: they run for every call, and SQLAlchemy's work on each row takes longer
        # than the database's (128 ends: 24 µs each, and 15 so; 2026-11-27).
        self.add_attempt = database.compile_insert(database.insert_or_ignore(attempts))
        is_open = units.c.state == literal_column("'open'")
        self.end_unit = database.compile_insert(database.insert_or_replace(units, where=is_open))
        self.add_counts = database.compile_insert(database.insert_or_add(job_counts))
        self.add_failure = database.insert_or_ignore(failures)


class Journal:
    """The journal of a database's jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commit: GroupCommit[JournalEntry] = GroupCommit(database, self._write)

    @cached_property
    def _statements(self) -> _JournalStatements:
        # Built once, as building a statement takes longer than executing it; at the first write, as no start need wait for it.
        return _JournalStatements(self._database)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Write in the background; entries put before the end are written before the end."""
        return self._commit.run()

    def put(self, entry: JournalEntry) -> asyncio.Future[None]:
        """Return what ends once an entry is on disk. It is written even if who awaits it is cancelled.

        Raises:
            LeaseLostError: another process has the job.
            StoreError: it is not written, or it is not known whether it was.
        """
        return self._commit.put(entry)

    def _write(self, connection: Connection, entries: Sequence[JournalEntry]) -> Sequence[StoreError | None]:
        # Only by leases that the writer still has: another process may have sent the same units again meanwhile.
        epochs = lock_epochs(connection, sorted({entry.lease for entry in entries}, key=str))
        own = [entry for entry in entries if epochs.get(entry.lease) == entry.epoch]
        # What is written a second time must not be counted a second time.
        new = [entry for entry in own if not (entry.again and _is_written(connection, entry))]
        unpaid = apply_changes(connection, _sum_changes(new))
        if unpaid:
            new = [entry for entry in new if _find_purse(entry) not in unpaid]
        self._insert_attempts(connection, new)
        self._insert_ends(connection, [entry for entry in new if isinstance(entry, UnitEnded)])
        return [
            LeaseLostError() if epochs.get(entry.lease) != entry.epoch or (unpaid and _find_purse(entry) in unpaid) else None
            for entry in entries
        ]

    def _insert_attempts(self, connection: Connection, entries: Sequence[JournalEntry]) -> None:
        started = [(*each.unit, each.attempt, each.epoch, each.at) for each in entries if isinstance(each, AttemptStarted)]
        insert_rows(connection, self._statements.add_attempt, started)
        failed = [
            {
                **entry.unit._asdict(),
                "attempt": entry.attempt,
                "ended": entry.at,
                "kind": entry.kind if isinstance(entry, AttemptFailed) else entry.result,
                "failure": entry.failure,
            }
            for entry in entries
            if isinstance(entry, AttemptFailed | UnitEnded) and entry.failure is not None
        ]
        if failed:
            connection.execute(self._statements.add_failure, failed)

    def _insert_ends(self, connection: Connection, entries: Sequence[UnitEnded]) -> None:
        if not entries:
            return
        long: dict[bytes, str] = {}
        sums: dict[tuple[int, str, str], WorkTotals] = {}
        rows = []
        for entry in entries:
            rows.append(_to_row(entry, long))
            sums.setdefault((entry.unit.job, clean_name(entry.model), entry.result), WorkTotals()).add(entry.totals)
        add_texts(connection, self._statements.add_text, long)
        insert_rows(connection, self._statements.end_unit, rows)
        add_scores(connection, self._statements.add_score, [(entry.unit, entry.scores) for entry in entries if entry.scores])
        # Sorted, so that two processes never wait for each other's rows.
        insert_rows(connection, self._statements.add_counts, [_to_counts_row(*key, sums[key]) for key in sorted(sums)])

    @run_to_end
    async def reopen(self, number: int, kinds: Sequence[str] = (), *, states: Sequence[JobState]) -> int | None:
        """Open failed units once more, of some kinds or all; return their number, or `None` if the job is in another state.

        Their failures stay written, and so do the numbers of their attempts.
        """
        # Locked, so that no process takes the job up while its counts and units disagree.
        lock = select(jobs.c.number).where(jobs.c.number == number, jobs.c.state.in_(states)).with_for_update()
        are_failed = [units.c.job == number, units.c.state == "failed", *([units.c.result.in_(kinds)] if kinds else [])]
        query = select(units.c.model, units.c.result, func.count(), func.sum(units.c.total_ms)).where(*are_failed)
        async with self._database.write_transaction() as connection:
            if await connection.scalar(lock) is None:
                return None
            found = (await connection.execute(query.group_by(units.c.model, units.c.result))).all()
            for model, result, count, total_ms in found:
                # Subtracted, so that progress needs no scan of the units. Their tokens and cost stay: they were paid for.
                less = WorkTotals(calls=-count, total_ms=-int(total_ms))
                rows = [_to_counts_row(number, model, result, less)]
                await connection.run_sync(insert_rows, self._statements.add_counts, rows)
            await connection.execute(update(units).where(*are_failed).values(state="open"))
        return sum(int(row[2]) for row in found)


def _is_written(connection: Connection, entry: JournalEntry) -> bool:
    table = units if isinstance(entry, UnitEnded) else attempts if isinstance(entry, AttemptStarted) else failures
    is_it = [table.c[name] == value for name, value in entry.unit._asdict().items()]
    is_it.append(units.c.state != "open" if table is units else table.c.attempt == entry.attempt)
    return connection.scalar(select(table.c.job).where(*is_it)) is not None


def _find_purse(entry: JournalEntry) -> tuple[int, str] | None:
    """Return the job and the holder whose money an entry changes."""
    return (entry.unit.job, entry.money.holder) if entry.money else None


def _sum_changes(entries: Sequence[JournalEntry]) -> Mapping[tuple[int, str], tuple[float, float]]:
    sums: dict[tuple[int, str], tuple[float, float]] = {}
    for entry in entries:
        if entry.money:
            key = (entry.unit.job, entry.money.holder)
            open_usd, recorded_usd = sums.get(key, (0.0, 0.0))
            sums[key] = (open_usd + entry.money.open_usd, recorded_usd + entry.money.recorded_usd)
    return sums


def _to_row(entry: UnitEnded, long: dict[bytes, str]) -> tuple[object, ...]:
    """Return the row of `units`, its texts as the database can hold them."""
    record, digest = place_text(entry.record, long)
    totals = entry.totals
    return (
        *entry.unit,
        "done" if entry.result == ANSWERED else "failed",
        entry.attempt,
        entry.at,
        clean_name(entry.model),
        clean_text(entry.result),
        totals.input_tokens,
        totals.output_tokens,
        totals.cached_tokens,
        totals.cost_usd,
        totals.total_ms,
        None if entry.text is None else hashlib.sha256(entry.text.encode(errors="replace")).digest()[:16],
        None if record is None else clean_text(record),
        digest,
        entry.cache_key,
        None if entry.cached_from is None else clean_text(entry.cached_from),
    )


def _to_counts_row(job: int, model: str, result: str, totals: WorkTotals) -> tuple[object, ...]:
    columns = totals.as_columns()
    return (job, model, result, *[columns[name] for name in COUNTED])
