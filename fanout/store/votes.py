"""Votes of people: a ballot is drawn, with its order, and voted on once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, func, select, update

from fanout.store.engine.database import Database, run_to_end
from fanout.store.engine.text_columns import clean_name
from fanout.store.tables import votes

BallotKind = Literal["pair", "answer"]
"""Two answers to choose between, or one to score."""
VoteChoice = Literal["a", "b", "tie", "both_bad"]


class Subject(NamedTuple):
    """The job or the comparison that is voted on: exactly one of the two."""

    job_id: str | None = None
    comparison_id: str | None = None


class Voter(NamedTuple):
    """The person who votes, by account and by a name within it; both may be empty."""

    account_id: str
    rater: str


class VotedAnswer(NamedTuple):
    """An answer on a ballot."""

    entry: int
    repeat: int
    model: str
    """The entry's label."""


class VoteRow(NamedTuple):
    """A ballot and the vote on it: the columns of its table, in their order."""

    number: int
    id: str
    drawn: float
    account_id: str
    rater: str
    kind: BallotKind
    job_id: str | None
    comparison_id: str | None
    item: int
    entry_a: int
    repeat_a: int
    model_a: str
    entry_b: int | None
    repeat_b: int | None
    model_b: str | None
    voted: float | None
    choice: VoteChoice | None
    score: float | None

    @property
    def answers(self) -> Sequence[VotedAnswer]:
        """Return the answers in the order in which they are shown."""
        first = VotedAnswer(self.entry_a, self.repeat_a, self.model_a)
        # Null together, where the ballot shows one answer to score.
        if self.entry_b is None or self.repeat_b is None or self.model_b is None:
            return [first]
        return [first, VotedAnswer(self.entry_b, self.repeat_b, self.model_b)]

    @property
    def winner(self) -> str | None:
        """Return the chosen model; `None`: neither, or it is not a choice."""
        # By place: the order was drawn with the ballot, so "a" is another model from ballot to ballot.
        return {"a": self.model_a, "b": self.model_b}.get(self.choice or "")


class Votes:
    """The votes of a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, id_: str) -> VoteRow | None:
        """Return a ballot."""
        row = await self._database.fetch_one(select(votes).where(votes.c.id == id_))
        return VoteRow(*row) if row else None

    async def find_open(self, subject: Subject, voter: Voter, kind: BallotKind) -> VoteRow | None:
        """Return the ballot that the voter has drawn and not voted on."""
        conditions = (*_of_subject(subject), *_of_voter(voter), votes.c.kind == kind, votes.c.voted.is_(None))
        row = await self._database.fetch_one(select(votes).where(*conditions).order_by(votes.c.number).limit(1))
        return VoteRow(*row) if row else None

    async def list_seen_ballots(
        self, subject: Subject, voter: Voter, kind: BallotKind, first: int, last: int
    ) -> Sequence[VoteRow]:
        """Return the voter's ballots on the items `first` to `last`."""
        conditions = (*_of_subject(subject), *_of_voter(voter), votes.c.kind == kind, votes.c.item.between(first, last))
        return await self._database.fetch_as(VoteRow, select(votes).where(*conditions))

    @run_to_end
    async def draw(
        self,
        id_: str,
        subject: Subject,
        voter: Voter,
        kind: BallotKind,
        item: int,
        answers: Sequence[VotedAnswer],
        limit: int,
    ) -> VoteRow | None:
        """Store a ballot and return it, or the voter's open one on the same answers; `None` at `limit` of the subject."""
        values: dict[str, object] = {
            **subject._asdict(),
            **{name: clean_name(value) for name, value in voter._asdict().items()},
            "id": id_,
            "drawn": time.time(),
            "kind": kind,
            "item": item,
        }
        for side, answer in zip("ab", answers, strict=False):
            values |= {f"{name}_{side}": value for name, value in answer._asdict().items()}
        # Counted and inserted under one lock, or raters at the same moment would pass the bound together.
        async with self._database.write_transaction() as connection:
            # Two of a voter's draws at once must not make two ballots of one pair.
            same = [column.in_([answer.entry for answer in answers]) for column in (votes.c.entry_a, votes.c.entry_b)]
            open_ = [*_of_subject(subject), *_of_voter(voter), votes.c.kind == kind, votes.c.voted.is_(None)]
            query = select(votes).where(*open_, votes.c.item == item, *same[: len(answers)]).limit(1)
            if row := (await connection.execute(query)).one_or_none():
                return VoteRow(*row)
            count = await connection.scalar(select(func.count()).select_from(votes).where(*_of_subject(subject)))
            if (count or 0) >= limit:
                return None
            row = (await connection.execute(votes.insert().values(values).returning(*votes.c))).one()
            return VoteRow(*row)

    async def vote(self, id_: str, choice: VoteChoice | None, score: float | None) -> bool:
        """Record the vote on a ballot, and return whether it was the first."""
        # The condition decides, not an earlier read: of two votes at the same moment the database counts the first.
        statement = update(votes).where(votes.c.id == id_, votes.c.voted.is_(None))
        return await self._database.execute(statement.values(voted=time.time(), choice=choice, score=score)) == 1

    async def list_votes(
        self, *, limit: int, before: int | None = None, account_id: str | None = None, subject: Subject | None = None
    ) -> Sequence[VoteRow]:
        """Return votes, the newest ballot first: those numbered below `before`."""
        query = select(votes).where(votes.c.voted.is_not(None)).order_by(votes.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(votes.c.number < before)
        if account_id is not None:
            query = query.where(votes.c.account_id == clean_name(account_id))
        if subject is not None:
            query = query.where(*_of_subject(subject))
        return await self._database.fetch_as(VoteRow, query)


def _of_subject(subject: Subject) -> list[ColumnElement[bool]]:
    return [votes.c[name] == value for name, value in subject._asdict().items() if value is not None]


def _of_voter(voter: Voter) -> list[ColumnElement[bool]]:
    return [votes.c[name] == clean_name(value) for name, value in voter._asdict().items()]
