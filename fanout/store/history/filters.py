"""Which comparisons are asked for, in memory and in the database. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, literal_column, select

from fanout.store.engine.tables import answers, comparison_metadata, comparisons
from fanout.store.history.records import MAX_NUMBER, ComparisonRows


@dataclass(frozen=True, slots=True)
class ComparisonFilter:
    """Which comparisons are asked for, newest first. `None`: whichever."""

    since: int = 0
    """The first number that may be."""
    until: int = MAX_NUMBER
    """The first that may not."""
    account_id: str | None = None
    """Empty: those without an account."""
    model: str | None = None
    """Of an answer, as the caller wrote it."""
    label: str | None = None
    """Of an answer, the same one where both are asked for."""
    metadata: Mapping[str, str] | None = None
    status: int | None = None
    failed: bool | None = None
    """Whether any of its calls failed."""
    most: int = 20

    def takes(self, rows: ComparisonRows) -> bool:
        """Whether a comparison that is not written yet is asked for."""
        comparison = rows.comparison
        return (
            self.since <= comparison.number < self.until
            and self.account_id in (None, comparison.account_id)
            and self.status in (None, comparison.status)
            and self.failed in (None, comparison.failed > 0)
            and (self.metadata or {}).items() <= rows.metadata.items()
            and any(self.model in (None, answer.model) and self.label in (None, answer.label) for answer in rows.answers)
        )

    def select(self) -> Select[Any]:
        """Walks the index of what is rarest, from its newest end, and looks the rest up row by row."""
        columns, names = comparisons.c, [*(self.metadata or {}).items()]
        if names:
            (name, value), *names = names
            number: ColumnElement[int] = comparison_metadata.c.comparison
            walked = [comparison_metadata.c.name == name, comparison_metadata.c.value == value]
            if self.model is not None or self.label is not None:
                walked.append(exists().where(answers.c.comparison == number, *self._of_answer()))
        elif self.model is not None or self.label is not None:
            number, walked = answers.c.comparison, self._of_answer()
        else:
            number, walked = columns.number, []
        for name, value in names:
            other = comparison_metadata.alias()
            walked.append(exists().where(other.c.comparison == number, other.c.name == name, other.c.value == value))
        walked += [number >= self.since, number < self.until]
        if number is columns.number:
            return select(comparisons).where(*walked, *self._of_comparison()).order_by(number.desc()).limit(self.most)
        if heads := self._of_comparison():
            walked.append(exists().where(columns.number == number, *heads))
        numbers = select(number).where(*walked).distinct().order_by(number.desc()).limit(self.most)
        return select(comparisons).where(columns.number.in_(numbers)).order_by(columns.number.desc())

    def _of_answer(self) -> list[ColumnElement[bool]]:
        wanted = {answers.c.model: self.model, answers.c.label: self.label}
        return [column == value for column, value in wanted.items() if value is not None]

    def _of_comparison(self) -> list[ColumnElement[bool]]:
        columns = comparisons.c
        wanted = {columns.account_id: self.account_id, columns.status: self.status}
        conditions = [column == value for column, value in wanted.items() if value is not None]
        if self.failed is not None:
            zero: ColumnElement[int] = literal_column("0")  # as the index says it, or it is not used
            conditions.append(columns.failed > zero if self.failed else columns.failed == zero)
        return conditions
