"""Tables of what the processes that run a job together share."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, PrimaryKeyConstraint, Table

from fanout.store.engine.text_columns import StorableText
from fanout.store.tables import metadata

job_money = Table(
    "job_money",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("holder", StorableText, nullable=False),  # a run of a process; empty: those that have left
    Column("recorded_usd", Double, nullable=False),  # of units that have ended
    Column("open_usd", Double, nullable=False),  # set aside for attempts that are on record and have not ended
    Column("held_usd", Double, nullable=False),  # what the holder may still spend, with what its calls under way can cost
    Column("wanted_usd", Double, nullable=False),  # what it waits for; else 0
    Column("lease_until", Double),
    PrimaryKeyConstraint("job", "holder", name="job_money_key"),
    sqlite_with_rowid=False,
)
"""The money of jobs with a cost limit that several processes may run, a row for each run that holds some."""

job_watches = Table(
    "job_watches",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", StorableText, nullable=False),  # the run that looks, and until when
    Column("lease_until", Double, nullable=False),
    Column("reach", BigInteger, nullable=False),  # number of items that may be sent, in the job's order
    Column("dropped", StorableText, nullable=False),  # JSON: entries that have lost
    Column("decision", StorableText),  # the sentence; NULL: not decided yet
)
"""What is known of jobs that stop when they are decided, for all processes that run them."""
