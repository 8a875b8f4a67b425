"""Batch jobs in the database: what they ask, every call made for them, and how each of their units ended."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Row, Select, bindparam, func, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import LeaseLostError, StoreError
from fanout.core.usage import WorkTotals
from fanout.store.engine.database import Database
from fanout.store.engine.group_commit import GroupCommit
from fanout.store.engine.tables import attempts, failures, items, job_counts, jobs, texts, units
from fanout.store.engine.text_columns import clean_name, clean_text
from fanout.store.engine.transactions import run_to_end, told
from fanout.store.usage.sums import ANSWERED

LEASE_S = 15.0
"""How long a job belongs to a process that has not said that it still lives."""
MAX_INLINE_CHARS = 1024
"""Characters. What is longer stands in `texts`, once."""
ROWS_AT_ONCE = 256
EPOCHS = (
    select(jobs.c.number, jobs.c.epoch)
    .where(jobs.c.number.in_(bindparam("numbers", expanding=True)))
    .with_for_update(read=True)  # until the records are written; SQLite has but one writer
)


class Unit(NamedTuple):
    """One question of a job to one model."""

    job: int
    item: int
    entry: int
    repeat: int


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """An attempt that is about to be made."""

    unit: Unit
    attempt: int
    epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt that failed, with more of them to come."""

    unit: Unit
    attempt: int
    epoch: int
    at: float
    kind: str
    failure: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class UnitEnded:
    """A unit's end: an answer, or the failure of its last attempt."""

    unit: Unit
    attempt: int
    epoch: int
    at: float
    model: str
    result: str
    """`answered`, or the failure's kind."""
    record: str
    """JSON."""
    totals: WorkTotals
    """Of this unit alone; its attempts are those made since it was last open."""
    failure: str | None = None
    """JSON; `None`: it was answered."""
    text: str | None = None
    cache_key: bytes | None = None
    cached_from: str | None = None
    again: bool = False
    """It may have been written already: the database could not say whether."""


JournalEntry = AttemptStarted | AttemptFailed | UnitEnded


@dataclass(frozen=True, slots=True)
class InputItem:
    """A row of a job's input."""

    item: int
    line: int
    custom_id: str | None
    body: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class InputChunk:
    """Some items, and what has been done of them."""

    items: Sequence[InputItem]
    closed: frozenset[tuple[int, int, int]]
    """Item, entry and repeat of the units that have ended."""
    attempts: Mapping[tuple[int, int, int], int]
    """The last attempt of those for which one was made."""
    reopened: Mapping[tuple[int, int, int], int]
    """The attempt that ended those which are open once more."""


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """Which results are asked for."""

    failed: bool | None = None
    model: str | None = None
    kind: str | None = None
    different: bool = False
    """Only of items that were answered differently."""


class JobStore:
    """The jobs of a database. What is written while they run goes through group commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journal: GroupCommit[JournalEntry] = GroupCommit(database, self._write)
        # Made once: making a statement costs more than carrying it out.
        self._add_counts = database.add(job_counts)
        self._add_text = database.add_missing(texts)
        # As the driver takes it: it is written for every call, and has nothing that must be made fit.
        self._add_attempt = database.written_out(database.add_missing(attempts))
        self._add_failure = database.add_missing(failures)
        self._end = database.replace(units, where=units.c.state == "open")
        self.put = self._journal.put
        self.writing = self._journal.writing

    # A job and its input

    @run_to_end
    async def create(self, job: Mapping[str, Any]) -> int:
        """A new job, and its number. `job` has the columns of the table."""
        async with self._writing() as connection:
            statement = jobs.insert().values(items=0, units=0, epoch=0, **job).returning(jobs.c.number)
            number: int = (await connection.execute(statement)).scalar_one()
            return number

    @run_to_end
    async def add_items(self, number: int, rows: Sequence[InputItem], epoch: int) -> None:
        """Takes in a part of a job's input.

        Raises:
            LeaseLostError: the job is another's by now, or forgotten.
        """
        inserted: list[dict[str, Any]] = []
        long: dict[bytes, str] = {}
        for row in rows:
            body, digest = _placed(row.body, long)
            custom_id = None if row.custom_id is None else clean_text(row.custom_id)
            inserted.append(
                {"job": number, "item": row.item, "line": row.line, "custom_id": custom_id, "body": body, "digest": digest}
            )
        async with self._writing() as connection:
            found = {row[0]: row[1] for row in await connection.execute(EPOCHS, {"numbers": [number]})}
            if found.get(number) != epoch:
                raise LeaseLostError
            await self._add_texts(connection, long)
            for start in range(0, len(inserted), ROWS_AT_ONCE):
                await connection.execute(items.insert(), inserted[start : start + ROWS_AT_ONCE])

    @run_to_end
    async def copy_items(self, source: int, number: int, first: int, past: int) -> None:
        """Gives a job a part of the input of another one: its items from `first` on, without `past`."""
        columns = ["item", "line", "custom_id", "body", "digest"]
        asked = select(literal(number, BigInteger), *(items.c[name] for name in columns)).where(
            items.c.job == source, items.c.item >= first, items.c.item < past
        )
        async with self._writing() as connection:
            await connection.execute(items.insert().from_select(["job", *columns], asked))

    async def repeated_ids(self, number: int, most: int = 100) -> list[tuple[str, int]]:
        """Custom ids that stand in the input more than once, each with the line of a second one."""
        asked = (
            select(items.c.custom_id, func.max(items.c.line))
            .where(items.c.job == number, items.c.custom_id.is_not(None))
            .group_by(items.c.custom_id)
            .having(func.count() > 1)
            .limit(most)
        )
        return [(custom_id, line) for custom_id, line in await self._rows(asked)]

    @run_to_end
    async def discard(self, number: int) -> None:
        """Forgets a job that was never whole."""
        async with self._writing() as connection:
            done = await connection.execute(jobs.delete().where(jobs.c.number == number, jobs.c.state == "loading"))
            if done.rowcount:
                await connection.execute(items.delete().where(items.c.job == number))

    async def job(self, id: str) -> Row[Any] | None:
        """The row of a job."""
        rows = await self._rows(select(jobs, self._alive().label("alive")).where(jobs.c.id == id))
        return rows[0] if rows else None

    async def listed(
        self,
        *,
        most: int,
        before: float | None = None,
        account_id: str | None = None,
        prefix: str = "",
        states: Sequence[str] = (),
    ) -> Sequence[Row[Any]]:
        """The newest jobs first.

        Args:
            before: Unix seconds; only jobs made earlier.
            prefix: what their ids begin with.
            states: only jobs in one of these.
        """
        asked = select(jobs, self._alive().label("alive")).order_by(jobs.c.created.desc(), jobs.c.number.desc()).limit(most)
        if before is not None:
            asked = asked.where(jobs.c.created < before)
        if account_id is not None:
            asked = asked.where(jobs.c.account_id == account_id)
        if prefix:
            asked = asked.where(jobs.c.id.startswith(prefix, autoescape=True))
        if states:
            asked = asked.where(jobs.c.state.in_(states))
        return await self._rows(asked)

    @run_to_end
    async def change(
        self,
        number: int,
        *,
        states: Sequence[str] = (),
        epoch: int | None = None,
        gone: Iterable[str] | None = None,
        **values: Any,
    ) -> bool:
        """Changes a job's row; false where it is in none of `states`, or is another's.

        Args:
            epoch: whose it must be.
            gone: it must be nobody's; owners known to be dead do not count.
        """
        asked = update(jobs).where(jobs.c.number == number).values(**values)
        if gone is not None:
            asked = asked.where(self._free(gone))
        if states:
            asked = asked.where(jobs.c.state.in_(states))
        if epoch is not None:
            asked = asked.where(jobs.c.epoch == epoch)
        async with self._writing() as connection:
            return (await connection.execute(asked)).rowcount == 1

    # Who runs it

    @run_to_end
    async def take(self, number: int, owner: str, *, gone: Iterable[str] = ()) -> int | None:
        """Takes a job over, for `LEASE_S`.

        Args:
            owner: who takes it.
            gone: owners known to be dead, whose lease need not be waited for.

        Returns:
            The job's epoch, which is to be shown with everything that is written for it; `None`: it is another's.
        """
        asked = (
            update(jobs)
            .where(jobs.c.number == number, self._free([owner, *gone]))
            .values(owner=owner, epoch=jobs.c.epoch + 1, lease_until=self._database.now() + LEASE_S)
            .returning(jobs.c.epoch)
        )
        async with self._writing() as connection:
            epoch: int | None = (await connection.execute(asked)).scalar_one_or_none()
            return epoch

    @run_to_end
    async def renew(self, number: int, epoch: int, rate: float | None) -> str | None:
        """Says that the job's process still lives; the job's state, or `None` where it is another's by now."""
        asked = (
            update(jobs)
            .where(jobs.c.number == number, jobs.c.epoch == epoch)
            .values(lease_until=self._database.now() + LEASE_S, rate=rate)
            .returning(jobs.c.state)
        )
        async with self._writing() as connection:
            state: str | None = (await connection.execute(asked)).scalar_one_or_none()
            return state

    # What is written while it runs

    async def _write(self, connection: AsyncConnection, records: Sequence[JournalEntry]) -> Sequence[StoreError | None]:
        """Writes what belongs to jobs that are still the writer's own."""
        numbers = {record.unit.job for record in records}
        epochs = {row[0]: row[1] for row in await connection.execute(EPOCHS, {"numbers": list(numbers)})}
        own = [record for record in records if epochs.get(record.unit.job) == record.epoch]
        own = [
            record
            for record in own
            if not (isinstance(record, UnitEnded) and record.again and await _is_closed(connection, record.unit))
        ]
        await self._insert(connection, own)
        return [None if epochs.get(record.unit.job) == record.epoch else LeaseLostError() for record in records]

    async def _insert(self, connection: AsyncConnection, records: Sequence[JournalEntry]) -> None:
        started = [
            (*record.unit, record.attempt, record.epoch, record.at) for record in records if isinstance(record, AttemptStarted)
        ]
        failed = [
            {
                **record.unit._asdict(),
                "attempt": record.attempt,
                "ended": record.at,
                "kind": record.kind if isinstance(record, AttemptFailed) else record.result,
                "failure": record.failure,
            }
            for record in records
            if not isinstance(record, AttemptStarted) and record.failure is not None
        ]
        long: dict[bytes, str] = {}
        sums: dict[tuple[int, str, str], WorkTotals] = {}
        ended = []
        for record in records:
            if isinstance(record, UnitEnded):
                ended.append(_row(record, long))
                sums.setdefault((record.unit.job, clean_name(record.model), record.result), WorkTotals()).add(record.totals)
        if started:
            await connection.exec_driver_sql(self._add_attempt, started)
        if failed:
            await connection.execute(self._add_failure, failed)
        await self._add_texts(connection, long)
        if ended:
            await connection.execute(self._end, ended)
            # In order: two processes must not wait for each other's rows.
            counted = [dict(zip(("job", "model", "result"), key, strict=True)) | sums[key].as_columns() for key in sorted(sums)]
            await connection.execute(self._add_counts, counted)

    async def _add_texts(self, connection: AsyncConnection, long: Mapping[bytes, str]) -> None:
        if long:
            rows = [{"digest": digest, "text": long[digest]} for digest in sorted(long)]
            await connection.execute(self._add_text, rows)

    @run_to_end
    async def reopen(self, number: int, kinds: Sequence[str] = (), *, states: Sequence[str]) -> int | None:
        """Opens failed units once more, of these kinds alone if any are given; how many, or `None`: it is in none of `states`.

        Their failures stay written, and so does the number of their attempts.
        """
        held = select(jobs.c.number).where(jobs.c.number == number, jobs.c.state.in_(states)).with_for_update()
        which = [units.c.job == number, units.c.state == "failed", *([units.c.result.in_(kinds)] if kinds else [])]
        asked = select(units.c.model, units.c.result, func.count(), func.sum(units.c.total_ms)).where(*which)
        async with self._writing() as connection:
            if await connection.scalar(held) is None:
                return None
            found = (await connection.execute(asked.group_by(units.c.model, units.c.result))).all()
            for model, result, count, total_ms in found:
                less = WorkTotals(calls=-count, total_ms=-int(total_ms))
                row = {"job": number, "model": model, "result": result, **less.as_columns()}
                await connection.execute(self._add_counts, [row])
            await connection.execute(update(units).where(*which).values(state="open"))
        return sum(int(row[2]) for row in found)

    # What has come of it

    @run_to_end
    async def chunk(self, number: int, after: int, most: int = ROWS_AT_ONCE) -> InputChunk:
        """The items behind number `after`, in order, and what has been done of them."""
        body = func.coalesce(items.c.body, texts.c.text)
        asked = (
            select(items.c.item, items.c.line, items.c.custom_id, body)
            .select_from(items.outerjoin(texts, items.c.digest == texts.c.digest))
            .where(items.c.job == number, items.c.item > after)
            .order_by(items.c.item)
            .limit(most)
        )
        async with self._reading() as connection:
            found = [InputItem(*row) for row in await connection.execute(asked)]
            if not found:
                return InputChunk([], frozenset(), {}, {})
            asked_units = select(*(units.c[name] for name in ("item", "entry", "repeat", "state", "attempt")))
            those = (units.c.job == number, units.c.item.between(found[0].item, found[-1].item))
            ended = (await connection.execute(asked_units.where(*those))).all()
            closed = frozenset((row[0], row[1], row[2]) for row in ended if row[3] != "open")
            reopened = {(row[0], row[1], row[2]): row[4] for row in ended if row[3] == "open"}
            tried = (attempts.c.item, attempts.c.entry, attempts.c.repeat)
            asked_attempts = (
                select(*tried, func.max(attempts.c.attempt))
                .where(attempts.c.job == number, attempts.c.item.between(found[0].item, found[-1].item))
                .group_by(*tried)
            )
            made = {(row[0], row[1], row[2]): row[3] for row in await connection.execute(asked_attempts)}
        return InputChunk(found, closed, made, reopened)

    @run_to_end
    async def page(self, number: int, after: int, most: int) -> Sequence[tuple[InputItem, Mapping[tuple[int, int], Row[Any]]]]:
        """The items behind number `after`, in order, each with those of its units that have ended, by entry and repeat."""
        body = func.coalesce(items.c.body, texts.c.text)
        asked = (
            select(items.c.item, items.c.line, items.c.custom_id, body)
            .select_from(items.outerjoin(texts, items.c.digest == texts.c.digest))
            .where(items.c.job == number, items.c.item > after)
            .order_by(items.c.item)
            .limit(most)
        )
        async with self._reading() as connection:
            found = [InputItem(*row) for row in await connection.execute(asked)]
            if not found:
                return []
            asked_units = (
                select(
                    *(units.c[name] for name in ("item", "entry", "repeat", "ended")),
                    func.coalesce(units.c.record, texts.c.text).label("record"),
                )
                .select_from(units.outerjoin(texts, units.c.digest == texts.c.digest))
                .where(units.c.job == number, units.c.item.between(found[0].item, found[-1].item), units.c.state != "open")
            )
            rows: Sequence[Any] = (await connection.execute(asked_units)).all()
        ended: dict[int, dict[tuple[int, int], Row[Any]]] = {}
        for row in rows:
            ended.setdefault(row.item, {})[row.entry, row.repeat] = row
        return [(item, ended.get(item.item, {})) for item in found]

    async def counts(self, number: int) -> Sequence[Row[Any]]:
        """The sums of a job by model and result."""
        asked = select(job_counts).where(job_counts.c.job == number, job_counts.c.calls > 0)
        return await self._rows(asked.order_by(job_counts.c.model, job_counts.c.result))

    async def results(
        self,
        number: int,
        *,
        after: tuple[int, int, int] | None = None,
        most: int = ROWS_AT_ONCE,
        which: ResultFilter | None = None,
    ) -> Sequence[Row[Any]]:
        """Units that have ended, in the order of the input, each with its item: a page of them.

        Args:
            after: item, entry and repeat of the last one of the page before.
        """
        which = which or ResultFilter()
        record, body = func.coalesce(units.c.record, texts.c.text).label("record"), items.c.body
        joined = units.join(items, (items.c.job == units.c.job) & (items.c.item == units.c.item))
        long_body = texts.alias("long_body")
        asked: Select[Any] = (
            select(
                *(units.c[name] for name in ("item", "entry", "repeat", "state", "attempt", "ended", "model", "result")),
                *(units.c[name] for name in ("cost_usd", "total_ms", "cached_from")),
                record,
                items.c.line,
                items.c.custom_id,
                func.coalesce(body, long_body.c.text).label("body"),
            )
            .select_from(
                joined.outerjoin(texts, units.c.digest == texts.c.digest).outerjoin(
                    long_body, items.c.digest == long_body.c.digest
                )
            )
            .where(units.c.job == number, *_conditions(number, which))
            .order_by(units.c.item, units.c.entry, units.c.repeat)
            .limit(most)
        )
        if after is not None:
            asked = asked.where(tuple_(units.c.item, units.c.entry, units.c.repeat) > tuple_(*after))
        return await self._rows(asked)

    async def attempts_of(self, unit: Unit) -> Sequence[Row[Any]]:
        """Every attempt of a unit, with its failure where it has one."""
        keys = ("job", "item", "entry", "repeat", "attempt")
        same = [attempts.c[name] == failures.c[name] for name in keys]
        joined = attempts.outerjoin(failures, same[0] & same[1] & same[2] & same[3] & same[4])
        asked = select(attempts.c.attempt, attempts.c.started, failures.c.ended, failures.c.kind, failures.c.failure)
        those = [attempts.c[name] == value for name, value in unit._asdict().items()]
        return await self._rows(asked.select_from(joined).where(*those).order_by(attempts.c.attempt))

    async def cached(self, key: bytes) -> Row[Any] | None:
        """An answer that was given to the same question before: its record, and the job that it belongs to."""
        record = func.coalesce(units.c.record, texts.c.text).label("record")
        asked = (
            select(record, jobs.c.id, units.c.cached_from)
            .select_from(units.join(jobs, jobs.c.number == units.c.job).outerjoin(texts, units.c.digest == texts.c.digest))
            .where(units.c.cache_key == key, units.c.state == "done")
            .limit(1)
        )
        rows = await self._rows(asked)
        return rows[0] if rows else None

    # Transactions whose failures are StoreErrors

    def _free(self, gone: Iterable[str]) -> ColumnElement[Any]:
        return jobs.c.owner.is_(None) | (jobs.c.lease_until < self._database.now()) | jobs.c.owner.in_([*gone])

    def _alive(self) -> ColumnElement[Any]:
        return jobs.c.owner.is_not(None) & (jobs.c.lease_until >= self._database.now())

    @run_to_end
    async def _rows(self, asked: Select[Any]) -> Sequence[Any]:
        async with self._reading() as connection:
            rows: Sequence[Any] = (await connection.execute(asked)).all()
            return rows

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return told(self._database.reading)

    def _writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return told(self._database.writing)


async def _is_closed(connection: AsyncConnection, unit: Unit) -> bool:
    those = [units.c[name] == value for name, value in unit._asdict().items()]
    return await connection.scalar(select(units.c.state).where(*those, units.c.state != "open")) is not None


def _conditions(number: int, which: ResultFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [units.c.state != "open"]
    if which.failed is not None:
        found.append(units.c.state == ("failed" if which.failed else "done"))
    if which.model is not None:
        found.append(units.c.model == clean_name(which.model))
    if which.kind is not None:
        found.append(units.c.result == which.kind)
    if which.different:
        # Item by item: sums over the whole job would be made anew for every page.
        same = units.alias("same")
        its = (same.c.job == number, same.c.item == units.c.item, same.c.state == "done")
        found.append(select(func.count(same.c.answer.distinct())).where(*its).scalar_subquery() > 1)
    return found


def _row(record: UnitEnded, long: dict[bytes, str]) -> dict[str, Any]:
    inline, digest = _placed(record.record, long)
    totals = record.totals
    return {
        **record.unit._asdict(),
        "state": "done" if record.result == ANSWERED else "failed",
        "attempt": record.attempt,
        "ended": record.at,
        "model": clean_name(record.model),
        "result": record.result,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cached_tokens": totals.cached_tokens,
        "cost_usd": totals.cost_usd,
        "total_ms": totals.total_ms,
        "answer": None if record.text is None else hashlib.sha256(record.text.encode(errors="replace")).digest()[:16],
        "record": inline,
        "digest": digest,
        "cache_key": record.cache_key,
        "cached_from": record.cached_from,
    }


def _placed(text: str, long: dict[bytes, str]) -> tuple[str | None, bytes | None]:
    """A text itself, or the digest under which it is put into `long`."""
    if len(text) <= MAX_INLINE_CHARS:
        return text, None
    text = clean_text(text)
    digest = hashlib.sha256(text.encode()).digest()
    long[digest] = text
    return None, digest
