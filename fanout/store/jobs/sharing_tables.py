"""Tables of what the processes that run a job together share."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, PrimaryKeyConstraint, Table
from sqlalchemy.sql.expression import text

from fanout.store.engine.text_columns import StorableText
from fanout.store.tables import PARTIAL_INDEXES, metadata

job_chunks = Table(
    "job_chunks",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("chunk", BigInteger, nullable=False),  # from 0
    # Of its items, by their places in the order in which the job runs.
    Column("first", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    # The process that runs it, until when, and the number of its lease, which every writer must show.
    Column("owner", StorableText),
    Column("lease_until", Double),
    Column("epoch", BigInteger, nullable=False),
    Column("running", BigInteger, nullable=False),  # calls in flight, when the lease was last renewed
    Column("waiting", BigInteger, nullable=False),  # units that wait for their retry
    Column("rate", Double),  # its share of its owner's units a second
    Column("ended", Double),
    Column("reason", StorableText),  # why units of it were left open
    PrimaryKeyConstraint("job", "chunk", name="job_chunks_key"),
    Index("job_chunks_open", "job", "chunk"),
    sqlite_with_rowid=False,
)
"""The parts of jobs that several processes share, from the first run of a job to its end."""
PARTIAL_INDEXES["job_chunks_open"] = text("ended IS NULL")

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
