"""Filters of comparisons, for those in memory and those in the database. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, literal_column, select

from fanout.store.engine.database import Query
from fanout.store.history.records import MAX_NUMBER, ComparisonRows
from fanout.store.history.tables import answers, comparison_metadata, comparisons


@dataclass(frozen=True, slots=True)
class ComparisonFilter:
    """The comparisons to list, newest first. `None`: any."""

    since: int = 0
    """The lowest number."""
    until: int = MAX_NUMBER
    """The number after the highest one."""
    account_id: str | None = None
    """Empty: comparisons without an account."""
    model: str | None = None
    """The model of an answer, as the caller wrote it."""
    label: str | None = None
    """The label of an answer; of the same one, if a model is given too."""
    metadata: Mapping[str, str] | None = None
    status: int | None = None
    failed: bool | None = None
    """Comparisons with a failed call, or those without one."""
    limit: int = 20

    def matches(self, rows: ComparisonRows) -> bool:
        """Return whether a comparison that is not written yet is to be listed."""
        comparison = rows.comparison
        return (
            self.since <= comparison.number < self.until
            and self.account_id in (None, comparison.account_id)
            and self.status in (None, comparison.status)
            and self.failed in (None, comparison.failed > 0)
            and (self.metadata or {}).items() <= rows.metadata.items()
            and any(self.model in (None, answer.model) and self.label in (None, answer.label) for answer in rows.answers)
        )

    def select(self) -> Query:
        """Return a query that walks the most selective index from its newest end, and checks the rest row by row."""
        columns, metadata = comparisons.c, [*(self.metadata or {}).items()]
        if metadata:
            (name, value), *metadata = metadata
            number: ColumnElement[int] = comparison_metadata.c.comparison
            conditions = [comparison_metadata.c.name == name, comparison_metadata.c.value == value]
            if self.model is not None or self.label is not None:
                conditions.append(exists().where(answers.c.comparison == number, *self._answer_conditions()))
        elif self.model is not None or self.label is not None:
            number, conditions = answers.c.comparison, self._answer_conditions()
        else:
            number, conditions = columns.number, []
        for name, value in metadata:
            other = comparison_metadata.alias()
            conditions.append(exists().where(other.c.comparison == number, other.c.name == name, other.c.value == value))
        conditions += [number >= self.since, number < self.until]
        if number is columns.number:
            conditions += self._comparison_conditions()
            return select(comparisons).where(*conditions).order_by(number.desc()).limit(self.limit)
        if of_comparison := self._comparison_conditions():
            conditions.append(exists().where(columns.number == number, *of_comparison))
        numbers = select(number).where(*conditions).distinct().order_by(number.desc()).limit(self.limit)
        return select(comparisons).where(columns.number.in_(numbers)).order_by(columns.number.desc())

    def _answer_conditions(self) -> list[ColumnElement[bool]]:
        values = {answers.c.model: self.model, answers.c.label: self.label}
        return [column == value for column, value in values.items() if value is not None]

    def _comparison_conditions(self) -> list[ColumnElement[bool]]:
        columns = comparisons.c
        values = {columns.account_id: self.account_id, columns.status: self.status}
        conditions = [column == value for column, value in values.items() if value is not None]
        if self.failed is not None:
            zero: ColumnElement[int] = literal_column("0")  # literal, as in the partial index, or SQLite does not use that
            conditions.append(columns.failed > zero if self.failed else columns.failed == zero)
        return conditions
