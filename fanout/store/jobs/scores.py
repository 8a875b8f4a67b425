"""Scores of jobs' answers: written once each, by the number of their scorer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property

from sqlalchemy import Connection, delete, func, select, update

from fanout.store.engine.bulk_insert import insert_rows
from fanout.store.engine.database import Database, run_to_end
from fanout.store.engine.text_columns import clean_name, clean_text
from fanout.store.jobs.records import LabelledScore, NewScorer, Place, ScorerRow, Unit, UnitScore
from fanout.store.tables import jobs, scorers, scores

MAX_EXPLANATION_CHARS = 1_000
ROWS_AT_ONCE = 1_000


class Scores:
    """The scores of a database's jobs, and their scorers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @cached_property
    def _add(self) -> str:
        return compile_add(self._database)  # at the first score, as no start need wait for it

    @run_to_end
    async def declare(self, number: int, declared: Sequence[NewScorer]) -> Sequence[int]:
        """Make these the scorers of their labels, and return their numbers. Scores of the same version keep theirs."""
        async with self._database.write_transaction() as connection:
            # Locked, so that two processes never give one number to two scorers.
            await connection.execute(select(jobs.c.number).where(jobs.c.number == number).with_for_update())
            query = select(scorers.c.label, scorers.c.version, scorers.c.scorer).where(scorers.c.job == number)
            known = {(label, version): scorer for label, version, scorer in await connection.execute(query)}
            numbers = []
            for one in declared:
                key = clean_name(one.label), one.version
                if key in known:
                    is_it = (scorers.c.job == number, scorers.c.scorer == known[key])
                    await connection.execute(update(scorers).where(*is_it).values(declared=time.time()))
                else:
                    known[key] = max(known.values(), default=0) + 1
                    values = {**one._asdict(), "label": key[0], "job": number, "scorer": known[key], "declared": time.time()}
                    await connection.execute(scorers.insert().values(values))
                numbers.append(known[key])
            return numbers

    async def list_scorers(self, number: int) -> Sequence[ScorerRow]:
        """Return the scorers of a job, of each label the version that was declared last, by label."""
        columns = [scorers.c[name] for name in ScorerRow._fields]
        query = select(*columns).where(scorers.c.job == number).order_by(scorers.c.declared, scorers.c.scorer)
        latest = {row.label: ScorerRow(*row) for row in await self._database.fetch_all(query)}
        return [latest[label] for label in sorted(latest)]

    @run_to_end
    async def add(self, number: int, found: Sequence[tuple[Place, UnitScore]]) -> None:
        """Add scores of a job's answers; those that exist stay as they are."""
        rows = [_to_row(Unit(number, *place), score) for place, score in found]
        for start in range(0, len(rows), ROWS_AT_ONCE):  # others want to write, too
            async with self._database.write_transaction() as connection:
                await connection.exec_driver_sql(self._add, rows[start : start + ROWS_AT_ONCE])

    @run_to_end
    async def forget_unknown(self, number: int, scorer: int) -> None:
        """Remove the scores of a scorer that have no value."""
        is_one = (scores.c.job == number, scores.c.scorer == scorer, scores.c.value.is_(None))
        async with self._database.write_transaction() as connection:
            await connection.execute(delete(scores).where(*is_one))

    async def count(self, number: int) -> Mapping[int, tuple[int, int]]:
        """Return how many answers each scorer of a job has looked at, and how many got a value, by the scorer's number."""
        query = select(scores.c.scorer, func.count(), func.count(scores.c.value)).where(scores.c.job == number)
        return {row[0]: (row[1], row[2]) for row in await self._database.fetch_all(query.group_by(scores.c.scorer))}

    async def list_values(self, number: int, first: int, past: int) -> Sequence[tuple[int, int, int, int, float | None]]:
        """Return item, entry, repeat, scorer and value of every score of the items from `first` on, and below `past`."""
        columns = (scores.c.item, scores.c.entry, scores.c.repeat, scores.c.scorer, scores.c.value)
        query = select(*columns).where(scores.c.job == number, scores.c.item >= first, scores.c.item < past)
        return await self._database.fetch_as(lambda *row: row, query)

    async def read(self, number: int, first: int, last: int) -> Mapping[Place, Sequence[LabelledScore]]:
        """Return the scores of the answers to the items `first` to `last`, by the scorers that count."""
        labels = {row.scorer: (row.label, row.version) for row in await self.list_scorers(number)}
        if not labels:
            return {}
        key = (scores.c.item, scores.c.entry, scores.c.repeat, scores.c.scorer)
        query = select(*key, scores.c.value, scores.c.explanation).order_by(*key)
        is_one = (scores.c.job == number, scores.c.item.between(first, last), scores.c.scorer.in_(list(labels)))
        found: dict[Place, list[LabelledScore]] = {}
        for item, entry, repeat, scorer, value, explanation in await self._database.fetch_all(query.where(*is_one)):
            score = LabelledScore(*labels[scorer], value, explanation)
            found.setdefault((item, entry, repeat), []).append(score)
        return found


def compile_add(database: Database) -> str:
    """Return the insert of whole rows that leaves existing scores as they are."""
    # Handed to the driver as text: it runs for every answer, and only the explanation needs to be made fit for the database.
    return database.compile_insert(database.insert_or_ignore(scores))


def add_scores(connection: Connection, statement: str, found: Sequence[tuple[Unit, Sequence[UnitScore]]]) -> None:
    """Add the scores of units that end, with the statement of `compile_add`, in the open transaction."""
    insert_rows(connection, statement, [_to_row(unit, score) for unit, of_unit in found for score in of_unit])


def _to_row(unit: Unit, score: UnitScore) -> tuple[object, ...]:
    explanation = clean_text(score.explanation[:MAX_EXPLANATION_CHARS]) if score.explanation else None
    return (*unit, score.scorer, score.value, explanation)
