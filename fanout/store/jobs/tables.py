"""The tables of batch jobs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, text

from fanout.store.engine.metadata import metadata
from fanout.store.engine.text_columns import StorableText

jobs = Table(
    "jobs",
    metadata,
    # Short, because it is repeated in every row of a job.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", StorableText, nullable=False, unique=True),
    Column("created", Double, nullable=False),  # Unix seconds, as all times here
    Column("account_id", StorableText, nullable=False),  # empty: none
    Column("spec", StorableText, nullable=False),  # JSON: the request
    Column("fingerprint", StorableText, nullable=False),  # JSON: what its models stood for in the configuration
    Column("state", StorableText, nullable=False),
    Column("reason", StorableText),  # of its state, for people
    Column("items", BigInteger, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("rate", Double),  # units a second, recently
    # The process that runs it, until when, and the number of its lease, which every writer must show.
    Column("owner", StorableText),
    Column("lease_until", Double),
    Column("epoch", BigInteger, nullable=False),
    Column("forked_from", StorableText),
)
"""Batch jobs."""

items = Table(
    "items",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),  # from 0, in the order of the input
    Column("line", BigInteger, nullable=False),  # of the input, for people
    Column("custom_id", StorableText),
    Column("body", StorableText),  # JSON; NULL: it stands in `texts`
    Column("digest", LargeBinary),
    PrimaryKeyConstraint("job", "item", name="items_key"),
)
"""The inputs of jobs, a row for each item."""

units = Table(
    "units",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("state", StorableText, nullable=False),  # `done`, `failed`, or `open`: to be sent again. No row: not ended yet
    Column("attempt", BigInteger, nullable=False),  # the one that ended it
    Column("ended", Double, nullable=False),
    Column("model", StorableText, nullable=False),  # the entry's label
    Column("result", StorableText, nullable=False),  # `answered`, or the failure's kind
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_usd", Double),
    Column("total_ms", BigInteger, nullable=False),
    Column("answer", LargeBinary),  # a digest of the text, to find answers that differ
    Column("record", StorableText),  # JSON; NULL: it stands in `texts`
    Column("digest", LargeBinary),
    Column("cache_key", LargeBinary),
    Column("cached_from", StorableText),  # the job that the answer was given to
    PrimaryKeyConstraint("job", "item", "entry", "repeat", name="units_key"),
    Index(
        "units_cache", "cache_key", sqlite_where=text("cache_key IS NOT NULL"), postgresql_where=text("cache_key IS NOT NULL")
    ),
)
"""The ends of units: exactly one row each, written when it ends."""

attempts = Table(
    "attempts",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),  # from 1
    Column("epoch", BigInteger, nullable=False),  # of the writer's lease
    Column("started", Double, nullable=False),
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="attempts_key"),
    sqlite_with_rowid=False,
)
"""Every call that may have been sent, written before it is. Rows are never changed."""

failures = Table(
    "failures",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("ended", Double, nullable=False),
    Column("kind", StorableText, nullable=False),
    Column("failure", StorableText, nullable=False),  # JSON
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="failures_key"),
    sqlite_with_rowid=False,
)
"""The failures of attempts. Rows are never changed: an attempt that neither failed nor ended its unit was cut off."""

job_counts = Table(
    "job_counts",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("model", StorableText, nullable=False),
    Column("result", StorableText, nullable=False),  # `answered`, or the failure's kind
    Column("calls", BigInteger, nullable=False),  # units
    Column("attempts", BigInteger, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("unknown_usage", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("cost_unknown", BigInteger, nullable=False),
    Column("total_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("job", "model", "result", name="job_counts_key"),
    sqlite_with_rowid=False,
)
"""The sums of jobs, updated as their units end, so that progress needs no scan."""

texts = Table(
    "texts",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("text", StorableText, nullable=False),
)
"""Long texts, each once, by its SHA-256."""
